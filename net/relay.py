"""Sealed relay: a willing node hands frames on between one that cannot be reached and those who dial it.

The node that cannot be reached keeps a link to the relay and reserves there. Whoever wants to speak to it
opens a stream to the relay, the relay opens one to the node, and from then on each chunk of one is a chunk of
the other: frames of a session that begins and ends at the two ends. The relay sees how long they are and when
they come, nothing else.

Nothing is relayed twice: a link that comes through a relay can neither reserve nor dial. What a relay allows
is in circuits.py, a circuit at work in splice.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from infraxa.net import addresses, codec
from infraxa.net.circuits import Circuits, RelayLimits
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.identity import id_text, parse_id
from infraxa.net.link import Clock, Link, LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.pipe import OnPipe, Pipe, PipeClosed
from infraxa.net.splice import ENDS, splice
from infraxa.net.tasks import TaskGroup
from infraxa.net.wire import Failure, RelayDial, RelayDialed, RelayReserve, RelayReserved

SCHEME: Final = "relay"
ASK_S: Final = 10.0
"""Seconds for a relay to answer."""
MAX_INCOMING: Final = 32
"""Circuits that a node takes from one relay at a time, beside the requests it may have in flight."""
CLOSE_S: Final = 1.0
"""Seconds in which a pipe says goodbye."""

LinkTo = Callable[[bytes], Awaitable[Link]]
"""Gives a link to the node of this id, made if there is none. Raises NetError."""


def circuit_address(relay: bytes, target: bytes) -> str:
    """What to dial for the node `target` that is reached through the node `relay`."""
    return f"{addresses.format(addresses.through(relay))}/{id_text(target)}"


def is_relayed(link: Link) -> bool:
    """Whether the frames of a link are handed on by another node."""
    return link.remote.startswith(f"{SCHEME}:")


class RelayService:
    """A willing node. Its methods answer requests: each runs as long as its stream does."""

    def __init__(self, limits: RelayLimits | None = None, clock: Clock | None = None) -> None:
        self._circuits = Circuits(limits)
        self._clock = clock or Clock()
        self._reserved: dict[bytes, Link] = {}

    @property
    def circuits(self) -> int:
        """Open now."""
        return len(self._circuits)

    async def reserve(self, link: Link, stream: Stream) -> Refusal | None:
        """Answer RelayReserve: circuits to this link's node go over this link, until it closes. Returns why
        that was refused."""
        limits = self._circuits.limits
        if link.peer is None or is_relayed(link):
            await stream.fail(Failure("not_allowed"))
            return "not_allowed"
        self._reserved = {node: held for node, held in self._reserved.items() if not held.closed}
        if link.peer not in self._reserved and len(self._reserved) >= limits.reservations:
            await stream.fail(Failure("busy", retry_after_ms=60_000, limit=limits.reservations))
            return "full"
        self._reserved[link.peer] = link
        answer = RelayReserved(limits.circuits_to, limits.bytes_per_second, limits.bytes_per_day)
        await stream.send(codec.encode(answer))
        return None

    async def dial(self, link: Link, stream: Stream, request: RelayDial) -> Refusal | None:
        """Answer RelayDial: be the circuit, until one of its ends closes. Returns why it was refused, or
        ended."""
        target = self._reserved.get(request.target)
        if is_relayed(link):
            await stream.fail(Failure("not_allowed"))
            return "not_allowed"
        if target is None:
            await stream.fail(Failure("unreachable"))
            return None
        circuit = self._circuits.open(request.target, link.remote, self._clock.monotonic())
        if isinstance(circuit, Failure):
            await stream.fail(circuit)
            return "full" if circuit.code == "busy" else "rate"
        # A circuit takes nothing from the requests that its dialer may have in flight.
        link.in_flight += 1
        try:
            return await splice(stream, target, circuit, self._clock)
        finally:
            link.in_flight -= 1
            self._circuits.close(circuit)


class RelayTransport:
    """Pipes through relays. Dials addresses made by `circuit_address`, and takes in what comes over the links
    on which it has reserved."""

    scheme = SCHEME

    def __init__(self, link_to: LinkTo) -> None:
        self._link_to = link_to
        self._on_pipe: dict[Link, OnPipe] = {}
        self._tasks = TaskGroup()
        self._pipes: set[_RelayPipe] = set()

    async def listen(self, link: Link, on_pipe: OnPipe) -> RelayReserved:
        """Be reached through the node of `link`, where this node has authenticated, until the link closes.

        Raises NetError `refused`, `timeout`, `closed`.
        """
        self._on_pipe = {held: taken for held, taken in self._on_pipe.items() if not held.closed}
        if link not in self._on_pipe:
            link.in_flight += MAX_INCOMING
        self._on_pipe[link] = on_pipe  # before the answer: the first circuit may come with it
        try:
            return await link.ask(RelayReserve(), RelayReserved, ASK_S)
        except BaseException as error:
            self._on_pipe.pop(link, None)
            link.in_flight -= MAX_INCOMING
            if isinstance(error, StreamFailed):
                raise _refused(error.failure) from None
            if isinstance(error, StreamCancelled | LinkClosed | ProtocolError):
                raise NetError("closed", "The relay ended the connection.", "Another relay may do.") from None
            raise

    async def incoming(self, link: Link, stream: Stream) -> None:
        """Answer RelayIncoming: give the pipe to whom `listen` was told."""
        on_pipe = self._on_pipe.get(link)
        if on_pipe is None or link.peer is None:
            raise ProtocolError("not_asked", "a circuit without a reservation")
        pipe = self._piped(stream, link.peer, dialled=False)
        # A task of its own: when the stream is cancelled, the pipe says so, and its user ends in good order.
        await asyncio.shield(self._tasks.spawn(self._serve(pipe, on_pipe), name="relayed pipe"))

    async def dial(self, address: str) -> Pipe:
        """A pipe through a relay, in a time that the caller limits. Raises NetError `unreachable`,
        `bad_address`, `busy`, and those of making a link to the relay."""
        relay, target = _parse(address)
        link = await self._link_to(relay)
        if is_relayed(link):
            raise NetError("bad_address", "A relay must be reached without another relay.")
        try:
            stream = await link.request(RelayDial(target))
            try:
                codec.decode(await anext(stream), RelayDialed)
            except BaseException:
                stream.cancel()
                raise
        except StreamFailed as error:
            raise _refused(error.failure) from None
        except (StreamCancelled, LinkClosed, ProtocolError, StopAsyncIteration):
            raise NetError(
                "unreachable", "The relay ended the connection.", "Another relay may do."
            ) from None
        return self._piped(stream, relay, dialled=True)

    async def close(self) -> None:
        """Ends all pipes; bounded. The links to relays are not its own."""
        self._on_pipe.clear()
        await asyncio.gather(*(pipe.close() for pipe in list(self._pipes)))
        await self._tasks.cancel_all()

    def _piped(self, stream: Stream, relay: bytes, *, dialled: bool) -> _RelayPipe:
        pipe = _RelayPipe(stream, relay, self._pipes, dialled=dialled)
        self._pipes.add(pipe)
        return pipe

    async def _serve(self, pipe: _RelayPipe, on_pipe: OnPipe) -> None:
        try:
            await on_pipe(pipe)
        except (ProtocolError, PipeClosed):
            pass  # counted by whoever raised it
        finally:
            await pipe.close()


class _RelayPipe:
    """One end of a circuit."""

    def __init__(self, stream: Stream, relay: bytes, pipes: set[_RelayPipe], *, dialled: bool) -> None:
        self._stream = stream
        self._remote = addresses.format(addresses.through(relay))
        self._pipes = pipes
        self._dialled = dialled

    @property
    def remote(self) -> str:
        """The relay: who is behind it is not known, and what the relay would say of it not proven."""
        return self._remote

    async def send(self, frame: bytes) -> None:
        try:
            await self._stream.send(frame)
        except ENDS as error:
            raise PipeClosed(type(error).__name__) from None

    async def receive(self) -> bytes:
        try:
            return await anext(self._stream)
        except (StopAsyncIteration, *ENDS) as error:
            raise PipeClosed(type(error).__name__) from None

    async def close(self) -> None:
        if self not in self._pipes:
            return
        self._pipes.discard(self)
        await self._stream.end()
        if not self._dialled:
            return  # that was the answer's end, which ends the stream when it is sent
        try:
            async with asyncio.timeout(CLOSE_S):
                async for _ in self._stream:  # until the other side has ended as well
                    pass
        except (TimeoutError, *ENDS):
            pass
        finally:
            self._stream.cancel()


def _parse(address: str) -> tuple[bytes, bytes]:
    relay, _, target = address.partition("/")
    return addresses.parse(relay).relay, parse_id(target)


def _refused(failure: Failure) -> NetError:
    remedy = "Another relay may do."
    if failure.code in ("busy", "rate_limited"):
        again = f" Try again in {max(1, failure.retry_after_ms // 1000)} s."
        what = "has no room" if failure.code == "busy" else "has handed on for this node what it allows"
        return NetError("busy", f"The relay {what} for now.", again.strip() + " " + remedy)
    if failure.code == "not_allowed":
        return NetError("refused", "The relay does not do this for strangers.", remedy)
    if failure.code == "unsupported":
        return NetError("refused", "This node does not hand on for others.", remedy)
    return NetError("unreachable", "The relay has no connection to that node.", "It may be off; try later.")
