"""How a link begins: the handshake of hello.py over a pipe, from both sides, and its failures.

Who dials by an address alone, or has a card whose prekey is over, asks for the card first. A refusal is a
hint: it is heeded once for each reason, and nothing in it is believed but a card that verifies.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple

from infraxa.net import codec
from infraxa.net.door import Admitted, Door
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.guard import Puzzle, solve
from infraxa.net.hello import CLOCK_MS, CardRequest, Dialing, Reject, reject
from infraxa.net.link import Clock, Handler, Link, LinkClosed, OnTell
from infraxa.net.liveness import LivenessLimits
from infraxa.net.lobby import Lobby
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.records import MAJOR, MAX_CARD, Card, Record
from infraxa.net.session import Session

HANDSHAKE_S: Final = 5.0
"""Seconds for all of a handshake, on both sides; between two messages there is nothing to think about."""
WORK_S: Final = 10.0
"""Seconds more, once, when proof of work is asked for."""
MAX_HELLOS: Final = 5
"""On one pipe: a card request and a dial, each again with the work or the prekey that was asked for."""


class Target(NamedTuple):
    """Whom to dial: what is known of them."""

    id: bytes | None = None
    """None: whoever answers there."""
    card: bytes | None = None
    """A card of that node, an encoded Record."""


class VerifiedCard(NamedTuple):
    raw: bytes
    id: bytes
    card: Card


def verify_card(raw: bytes, *, node: bytes | None, network: bytes, now_ms: int) -> VerifiedCard:
    """The card in an encoded Record, for dialling: signed, of this node, of this network, its prekey not
    over. Raises ProtocolError."""
    record = codec.decode(raw, Record, MAX_CARD)
    if record.kind != "card":
        raise ProtocolError("malformed", "a record that is no card")
    if not codec.verify("card", record.signed):
        raise ProtocolError("bad_signature", "a card")
    if node is not None and record.signed.signer != node:
        raise ProtocolError("not_asked", "another node's card")
    card: Card = codec.decode(record.signed.body, Card, MAX_CARD)
    if card.version != MAJOR:
        raise ProtocolError("version")
    if card.network != network:
        raise ProtocolError("network")
    if card.kx_expires <= now_ms:
        raise ProtocolError("prekey", "a card whose prekey is over")
    return VerifiedCard(raw, record.signed.signer, card)


async def connect(
    pipe: Pipe,
    target: Target,
    *,
    network: bytes,
    handler: Handler,
    on_tell: OnTell,
    psk: bytes | None = None,
    clock: Clock | None = None,
    randbytes: Callable[[int], bytes] = os.urandom,
    in_flight: int = 1,
    liveness: LivenessLimits | None = None,
    on_aged: Callable[[Link], None] | None = None,
) -> Link:
    """Begin a session as the one who dials. The link's `peer` and `card` are those of the node that answered.

    `on_aged` is told once, when the link takes no new streams for its age: time for another one. Raises
    NetError `timeout`, `refused`, `busy`, `clock`; the pipe is closed then.
    """
    clock = clock or Clock()
    dialer = _Dialer(pipe, target, network, psk, clock, randbytes)
    try:
        async with asyncio.timeout(HANDSHAKE_S) as limit:
            session = await dialer.dial(limit)
    except TimeoutError:
        await pipe.close()
        raise NetError(
            "timeout",
            f"The handshake with {pipe.remote} took too long: waited for {dialer.waiting}.",
            "try again; if this stays, it is busy or not reachable",
        ) from None
    except PipeClosed:
        await pipe.close()
        raise NetError(
            "refused",
            f"The node at {pipe.remote} ended the connection before {dialer.waiting} came.",
            "check that it is in the same network and not older than this one",
        ) from None
    except ProtocolError as error:
        await pipe.close()
        raise NetError(
            "refused",
            f"Another node answers at {pipe.remote} than the one that was dialled."
            if error.reason == "not_asked"
            else f"What answers at {pipe.remote} does not keep to the protocol ({error.reason}).",
            "check the address, or ask for a new invite",
        ) from error
    except BaseException:
        await pipe.close()
        raise
    link = Link(
        pipe,
        session,
        handler=handler,
        on_tell=on_tell,
        clock=clock,
        in_flight=in_flight,
        skew_ms=dialer.skew_ms,
        liveness=liveness,
        on_aged=on_aged,
    )
    assert dialer.card is not None
    link.peer, link.card = dialer.card.id, dialer.card.raw
    link.ping()  # who answered waits for a sign that this hello is no copy
    return link


async def accept(
    pipe: Pipe,
    door: Door,
    *,
    source: str,
    lobby: Lobby,
    handler: Handler,
    on_tell: OnTell,
    clock: Clock | None = None,
    in_flight: int = 1,
    liveness: LivenessLimits | None = None,
    on_aged: Callable[[Link], None] | None = None,
) -> Link:
    """Begin a session as the one who is dialled, when the dialler has proven to be there.

    `source` is addresses.group(pipe.remote). Raises ProtocolError with the reason of the refusal; the pipe is
    closed then. Requests may be handled before this returns.
    """
    clock = clock or Clock()
    link: Link | None = None
    try:
        await _room(pipe, lobby, source, clock)
        with _within(lobby, source):
            async with asyncio.timeout(HANDSHAKE_S) as limit:
                admitted = await _admit(pipe, door, source, clock, limit)
                await pipe.send(admitted.reply)
                link = Link(
                    pipe,
                    admitted.session,
                    handler=handler,
                    on_tell=on_tell,
                    clock=clock,
                    in_flight=in_flight,
                    skew_ms=admitted.skew_ms,
                    liveness=liveness,
                    on_aged=on_aged,
                )
                await link.confirmed()
                return link
    except TimeoutError:
        raise await _refused(pipe, link, ProtocolError("silent", "within a handshake")) from None
    except PipeClosed:
        raise await _refused(pipe, link, ProtocolError("truncated", "within a handshake")) from None
    except LinkClosed as error:
        reason = error.reason or "truncated"
        raise await _refused(pipe, link, ProtocolError(reason, "in the first frames")) from None
    except BaseException as error:
        raise await _refused(pipe, link, error) from None


async def _room(pipe: Pipe, lobby: Lobby, source: str, clock: Clock) -> None:
    """Raises ProtocolError `full`, which the dialer is told."""
    if not lobby.has_room(source):
        async with asyncio.timeout(HANDSHAKE_S):
            await pipe.send(reject("full", clock.unix_ms()))
        raise ProtocolError("full", "connections in their handshake")


async def _refused(pipe: Pipe, link: Link | None, error: BaseException) -> BaseException:
    if link is not None:
        await link.close()
    await pipe.close()
    return error


@contextmanager
def _within(lobby: Lobby, source: str) -> Iterator[None]:
    lobby.enter(source)
    try:
        yield
    finally:
        lobby.leave(source)


async def _admit(pipe: Pipe, door: Door, source: str, clock: Clock, limit: asyncio.Timeout) -> Admitted:
    worked = False
    refused: Refusal | None = None
    for _ in range(MAX_HELLOS):
        try:
            frame = await pipe.receive()
        except PipeClosed:
            if refused is not None:
                raise ProtocolError(refused, "a hello, which was not made again") from None
            raise
        answer = door.receive(frame, source=source, now_ms=clock.unix_ms(), now=clock.monotonic())
        if isinstance(answer, Admitted):
            return answer
        if answer.reply is not None:
            await pipe.send(answer.reply)
        if answer.reason not in (None, "prekey", "proof_of_work"):
            raise ProtocolError(answer.reason, "a hello")
        refused = answer.reason
        if answer.reason == "proof_of_work" and not worked:
            worked = True
            _extend(limit)
    raise ProtocolError("rate", "hellos on one pipe")


def _extend(limit: asyncio.Timeout) -> None:
    when = limit.when()
    if when is not None:
        limit.reschedule(when + WORK_S)


class _Dialer:
    """One handshake of the side that dials."""

    def __init__(
        self,
        pipe: Pipe,
        target: Target,
        network: bytes,
        psk: bytes | None,
        clock: Clock,
        randbytes: Callable[[int], bytes],
    ) -> None:
        self._pipe = pipe
        self._target = target
        self._network = network
        self._psk = psk
        self._clock = clock
        self._randbytes = randbytes
        self.card: VerifiedCard | None = None
        self.skew_ms = 0
        self.waiting = "its card"
        self._limit: asyncio.Timeout | None = None
        """Until work was asked for."""

    async def dial(self, limit: asyncio.Timeout) -> Session:
        """The session. Raises NetError, ProtocolError, PipeClosed."""
        self._limit = limit
        if self._target.card is not None:
            try:
                self.card = self._verify(self._target.card)
            except ProtocolError:
                self.card = None  # an old one; a newer is asked for
        if self.card is None:
            await self._ask_for_card()
        challenge: Reject | None = None
        heeded: set[str] = set()
        while True:
            assert self.card is not None
            dialing = Dialing(
                node=self.card.id,
                kx=self.card.card.kx,
                network=self._network,
                randbytes=self._randbytes,
                psk=self._psk,
                challenge=challenge,
            )
            proof = await self._work(dialing.puzzle)
            self.waiting = "the answer to the handshake"
            await self._pipe.send(dialing.hello(self._clock.unix_ms(), proof))
            frame = await self._pipe.receive()
            answer = dialing.receive(frame, self._clock.unix_ms(), self._clock.monotonic())
            if isinstance(answer, Session):
                self.skew_ms = dialing.skew_ms
                return answer
            self._heed(answer, heeded)
            challenge = answer if answer.reason == "proof_of_work" else None
            if answer.reason == "prekey":
                self._take_card(answer)

    async def _ask_for_card(self) -> None:
        challenge: Reject | None = None
        heeded: set[str] = set()
        while True:
            request = CardRequest(network=self._network, randbytes=self._randbytes, challenge=challenge)
            proof = await self._work(request.puzzle)
            self.waiting = "its card"
            await self._pipe.send(request.hello(proof))
            answer = request.receive(await self._pipe.receive())
            self._heed(answer, heeded)
            if answer.reason == "prekey":
                self._take_card(answer)
                return
            challenge = answer

    def _take_card(self, answer: Reject) -> None:
        try:
            self.card = self._verify(answer.card)
        except ProtocolError as error:
            # A new card's prekey is over, or its clock is not ours.
            if error.reason == "prekey" and abs(answer.now_ms - self._clock.unix_ms()) > CLOCK_MS:
                raise self._clock_error(answer) from None
            raise

    def _verify(self, raw: bytes) -> VerifiedCard:
        return verify_card(raw, node=self._target.id, network=self._network, now_ms=self._clock.unix_ms())

    async def _work(self, puzzle: Puzzle | None) -> bytes | None:
        """The proof of work, made in a thread that ends with this task."""
        if puzzle is None:
            return None
        self.waiting = "the proof of work that it asked for"
        if self._limit is not None:
            _extend(self._limit)
            self._limit = None
        stop = threading.Event()
        try:
            return await asyncio.to_thread(solve, puzzle, stop.is_set)
        finally:
            stop.set()

    def _heed(self, answer: Reject, heeded: set[str]) -> None:
        """Raises NetError for a refusal about which nothing can be done, or again."""
        if answer.reason == "clock":
            raise self._clock_error(answer)
        if answer.reason == "version":
            raise NetError(
                "refused",
                f"The node at {self._pipe.remote} speaks another version of the protocol.",
                "update infraxa on both sides",
            )
        if answer.reason in ("full", "rate"):
            raise NetError(
                "busy",
                f"The node at {self._pipe.remote} takes no more connections now.",
                "try again in a minute",
            )
        if answer.reason in heeded:
            raise NetError(
                "refused",
                f"The node at {self._pipe.remote} refused the handshake twice ({answer.reason}).",
                "try again in a minute",
            )
        heeded.add(answer.reason)

    def _clock_error(self, answer: Reject) -> NetError:
        here, there = self._clock.unix_ms(), answer.now_ms
        return NetError(
            "clock",
            f"The clocks are too far apart: here it is {_time(here)}, at {self._pipe.remote} {_time(there)}.",
            "set this machine's clock, or ask for the other one to be set",
        )


def _time(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "an impossible time"
