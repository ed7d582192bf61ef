"""A node that cannot be reached is spoken to through another one, which sees sealed frames and no more.

user — relay — provider, on real WebSockets, with a session of their own for each hop and one from end to end.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from infraxa.net import relay as relay_module
from infraxa.net import splice as splice_module
from infraxa.net import wire
from infraxa.net.circuits import Circuit, RelayLimits
from infraxa.net.connect import Target
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import id_text
from infraxa.net.link import Link, LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.relay import RelayService, RelayTransport, circuit_address, is_relayed
from infraxa.net.wire import MAX_FRAME, CardPlease, RelayDial, RelayIncoming, RelayReserve, RelayReserved
from tests.net.nodes import Node

LIMIT_S = 20.0
SECRET = b"What the user asks and nobody but the provider may read. "
OPEN_LIMITS = RelayLimits(bytes_per_second=10**9, bytes_per_day=10**12)
PADDED = {64, 256, 1024, 4096, 16384, 60000}
"""Bytes of a padded record, see session.py."""


class Scene:
    """A relay that is willing, a provider that has reserved there, a user."""

    def __init__(self, limits: RelayLimits) -> None:
        self.relay, self.provider, self.user = Node(), Node(), Node()
        self.service = RelayService(limits)
        self.relay.handler = self.serve
        self.provider.handler = self.answer
        self.provider.in_flight = 2
        self.incoming = RelayTransport(self.no_link)
        self.outgoing = RelayTransport(self.link_to_relay)
        self.seen: list[bytes] = []
        """Every chunk that the relay had in its hands."""
        self.to_relay: Link
        """The provider's link."""
        self.user_link: Link
        self.piped: list[Pipe] = []

    async def open(self) -> None:
        await self.relay.listen()
        self.user_link = await self.user.dial(self.relay)
        self.to_relay = await self.provider.dial(self.relay)
        await self.authenticated()

    async def authenticated(self) -> None:
        """What Auth does, on the relay's side of the provider's link."""
        await until(lambda: len(self.relay.links) == 2)
        self.relay.links[1].peer = self.provider.id

    async def reserve(self) -> RelayReserved:
        return await self.incoming.listen(self.to_relay, self.on_pipe)

    async def on_pipe(self, pipe: Pipe) -> None:
        self.piped.append(pipe)
        await self.provider.on_pipe(pipe)

    async def link_to_relay(self, node: bytes) -> Link:
        assert node == self.relay.id
        return self.user_link

    async def no_link(self, node: bytes) -> Link:
        raise AssertionError("the provider dials nobody")

    @property
    def address(self) -> str:
        return circuit_address(self.relay.id, self.provider.id)

    async def serve(self, link: Link, stream: Stream, request: wire.Request) -> None:
        """The relay's requests."""
        spied = _Spied(stream, self.seen)
        if isinstance(request, RelayReserve):
            await self.service.reserve(link, stream)
        elif isinstance(request, RelayDial):
            await self.service.dial(link, spied, request)
        else:
            await stream.fail(wire.Failure("unsupported"))

    async def answer(self, link: Link, stream: Stream, request: wire.Request) -> None:
        """The provider's requests: circuits on the link to the relay; on others, an echo."""
        if isinstance(request, RelayIncoming):
            await self.incoming.incoming(link, stream)
            return
        async for chunk in stream:
            await stream.send(chunk)

    async def dial(self) -> tuple[Link, Link]:
        """A session of the user with the provider: both ends of it."""
        before = len(self.provider.links)
        pipe = await self.outgoing.dial(self.address)
        link = await self.user.connect(pipe, Target(self.provider.id))
        await until(lambda: len(self.provider.links) > before)
        return link, self.provider.links[-1]

    async def close(self) -> None:
        await self.outgoing.close()
        await self.incoming.close()
        for node in (self.user, self.provider, self.relay):
            await node.close()


class _Spied(Stream):
    """A stream of which the relay keeps all that it reads or writes."""

    def __init__(self, stream: Stream, seen: list[bytes]) -> None:
        self.__dict__ = stream.__dict__
        self._seen = seen

    async def send(self, chunk: bytes) -> None:
        self._seen.append(chunk)
        await super().send(chunk)

    async def __anext__(self) -> bytes:
        chunk = await super().__anext__()
        self._seen.append(chunk)
        return chunk


@asynccontextmanager
async def scene(limits: RelayLimits = OPEN_LIMITS, *, reserved: bool = True) -> AsyncIterator[Scene]:
    made = Scene(limits)
    try:
        async with asyncio.timeout(LIMIT_S):
            await made.open()
            if reserved:
                await made.reserve()
            yield made
    finally:
        await made.close()


async def echoed(link: Link, data: bytes) -> bytes:
    """What comes back of `data` while it is being sent."""
    async with await link.request(CardPlease()) as stream:

        async def send() -> None:
            for start in range(0, len(data), 50_000):
                await stream.send(data[start : start + 50_000])
            await stream.end()

        sending = asyncio.ensure_future(send())
        try:
            return b"".join([chunk async for chunk in stream])
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.01)


async def test_a_megabyte_there_and_back_and_the_relay_sees_sealed_frames_only() -> None:
    async with scene() as s:
        assert s.service.circuits == 0
        link, far = await s.dial()
        assert is_relayed(link) and link.peer == s.provider.id
        assert s.service.circuits == 1
        data = SECRET * (1_000_000 // len(SECRET) + 1)
        assert await echoed(link, data) == data
        assert link.handshake_hash == far.handshake_hash

        everything = b"".join(s.seen)
        assert len(everything) > 2 * len(data)
        for word in (b"provider may read", b"the user asks", SECRET[:8]):
            assert word not in everything
        # Beside the relay's own word and the two hellos with their answers, all lengths are those of padding,
        # and nothing in a frame is like in another one.
        sealed = [frame for frame in s.seen if len(frame) - 16 in PADDED]
        assert len(s.seen) - len(sealed) == 5
        assert len({frame[:8] for frame in sealed} | {frame[-8:] for frame in sealed}) == 2 * len(sealed)
        assert not _compressible(b"".join(sealed))
        await link.close()
        await until(lambda: s.service.circuits == 0)


def _compressible(data: bytes) -> bool:
    return len(zlib.compress(data)) < 0.99 * len(data)


async def test_an_end_in_good_order_reaches_the_other_end() -> None:
    async with scene() as s:
        link, far = await s.dial()
        await link.close()
        assert await far.wait_closed() == (None, "peer")
        link, far = await s.dial()
        await far.close()
        assert await link.wait_closed() == (None, "peer")
        await until(lambda: s.service.circuits == 0)
        assert s.relay.links[0].in_flight == 1  # what the circuits were given is taken back


async def test_several_circuits_at_once() -> None:
    async with scene() as s:
        s.relay.links[0].in_flight = 8
        links = [(await s.dial())[0] for _ in range(5)]
        assert s.service.circuits == 5
        texts = [os.urandom(100_000) for _ in links]
        assert await asyncio.gather(*map(echoed, links, texts)) == texts
        await asyncio.gather(*(link.close() for link in links))


async def test_a_relay_that_dies_in_the_middle_is_an_end_for_both() -> None:
    async with scene() as s:
        link, far = await s.dial()
        stream = await link.request(CardPlease())
        await stream.send(b"x" * 1000)
        assert await anext(stream) == b"x" * 1000
        transfer = asyncio.ensure_future(echoed(link, bytes(50_000_000)))
        await until(lambda: sum(map(len, s.seen)) > 500_000)
        for pipe in list(s.relay.transport._pipes):
            await pipe.close()  # no goodbye of the links
        with pytest.raises(LinkClosed):
            await transfer
        assert (await link.wait_closed()).by == "carrier"
        assert (await far.wait_closed()).by == "carrier"
        with pytest.raises(LinkClosed):
            await stream.send(b"x")
        with pytest.raises(NetError) as caught:
            await s.outgoing.dial(s.address)
        assert caught.value.code == "unreachable" and caught.value.remedy
        await until(lambda: s.service.circuits == 0)


async def test_the_provider_going_away_is_an_end_for_the_user() -> None:
    async with scene() as s:
        link, _ = await s.dial()
        for pipe in list(s.provider.transport._pipes):
            await pipe.close()
        assert (await link.wait_closed()).by == "carrier"
        await until(lambda: s.service.circuits == 0)
        await until(lambda: s.relay.links[1].closed)
        with pytest.raises(NetError, match="no connection to that node") as caught:
            await s.outgoing.dial(s.address)
        assert caught.value.code == "unreachable"


async def test_a_reader_that_is_slow_stops_the_sender() -> None:
    async with scene() as s:
        link, far = await s.dial()
        gate = asyncio.Event()

        async def slow(link: Link, stream: Stream, request: wire.Request) -> None:
            await gate.wait()
            async for chunk in stream:
                await stream.send(len(chunk).to_bytes(4, "big"))

        far._handler = slow
        stream = await link.request(CardPlease())
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await stream.send(bytes(16_000))
                sent += 16_000

        flooding = asyncio.ensure_future(flood())
        before = -1
        while before != sent or sent == 0:  # until nothing moves
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 600_000  # the window of the session; the relay adds nothing of its own
        gate.set()
        await anext(stream)
        await until(lambda: sent > before)
        flooding.cancel()
        await asyncio.wait([flooding])


async def test_an_end_that_reads_nothing_costs_the_relay_a_window() -> None:
    """A circuit is used without a session: whoever wants to hurt the relay does."""
    async with scene() as s:
        taken = asyncio.Event()

        async def deaf(pipe: Pipe) -> None:
            await pipe.send(b"hello")
            taken.set()
            await asyncio.sleep(LIMIT_S)

        await s.incoming.listen(s.to_relay, deaf)
        pipe = await s.outgoing.dial(s.address)
        await taken.wait()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await pipe.send(os.urandom(MAX_FRAME))
                sent += MAX_FRAME

        flooding = asyncio.ensure_future(flood())
        before = -1
        while before != sent or sent == 0:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 1_000_000  # two windows, and what waits to be sent
        flooding.cancel()
        await asyncio.wait([flooding])


async def test_more_circuits_than_the_limit_are_refused_with_a_reason() -> None:
    async with scene(RelayLimits(circuits_to=2)) as s:
        s.relay.links[0].in_flight = 8
        held = [await s.outgoing.dial(s.address) for _ in range(2)]
        with pytest.raises(NetError, match="no room") as caught:
            await s.outgoing.dial(s.address)
        assert caught.value.code == "busy" and "10 s" in caught.value.remedy
        await held[0].close()
        await until(lambda: s.service.circuits == 1)
        await (await s.outgoing.dial(s.address)).close()


async def test_the_bytes_of_a_day_end_a_circuit_and_refuse_the_next() -> None:
    async with scene(RelayLimits(bytes_per_second=10**9, bytes_per_day=400_000)) as s:
        link, _ = await s.dial()
        with pytest.raises(LinkClosed):
            await echoed(link, os.urandom(2_000_000))
        assert sum(map(len, s.seen)) < 400_000 + 3 * MAX_FRAME
        await until(lambda: s.service.circuits == 0)
        with pytest.raises(NetError, match="what it allows") as caught:
            await s.outgoing.dial(s.address)
        assert caught.value.code == "busy"


async def test_the_rate_slows_a_circuit_down_and_loses_nothing() -> None:
    waits: list[float] = []
    async with scene(RelayLimits(bytes_per_second=100_000)) as s:
        real = Circuit.hand_on

        def spy(circuit: Circuit, size: int, now: float) -> float | wire.Failure:
            answer = real(circuit, size, now)
            if isinstance(answer, float) and answer > 0:
                waits.append(answer)
            return answer

        link, _ = await s.dial()
        data = os.urandom(100_000)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Circuit, "hand_on", spy)
            assert await echoed(link, data) == data
        assert waits  # without the limit there is none


async def test_a_frame_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        monkeypatch.setattr(splice_module, "IDLE_S", 0.3)
        turns = iter([0.0] * 20)
        monkeypatch.setattr(Circuit, "hand_on", lambda *_: next(turns, 3600.0))
        link, _ = await s.dial()
        with pytest.raises(LinkClosed):
            await echoed(link, bytes(2_000_000))


async def test_a_circuit_that_is_cut_ends_its_user_in_good_order() -> None:
    async with scene() as s:
        cleaned = asyncio.Event()

        async def careful(pipe: Pipe) -> None:
            try:
                await pipe.send(await pipe.receive())
                await pipe.receive()
            except PipeClosed:
                await asyncio.sleep(0.01)
                cleaned.set()

        await s.incoming.listen(s.to_relay, careful)
        stream = await s.user_link.request(RelayDial(s.provider.id))
        await anext(stream)
        await stream.send(b"hello")
        assert await anext(stream) == b"hello"
        stream.cancel()
        await cleaned.wait()
        await until(lambda: s.service.circuits == 0)


async def test_who_may_not_reserve() -> None:
    async with scene(reserved=False) as s:
        s.relay.links[1].peer = None  # not authenticated
        with pytest.raises(NetError, match="strangers") as caught:
            await s.reserve()
        assert caught.value.code == "refused"
        with pytest.raises(NetError, match="no connection to that node"):
            await s.outgoing.dial(s.address)
        s.relay.links[1].peer = s.provider.id
        reserved = await s.reserve()
        assert reserved.circuits == OPEN_LIMITS.circuits_to
        await (await s.outgoing.dial(s.address)).close()


async def test_reservations_are_bounded_and_end_with_their_link() -> None:
    async with scene(RelayLimits(reservations=1)) as s:
        other = Node()
        other.handler = s.answer
        try:
            link = await other.dial(s.relay)
            await until(lambda: len(s.relay.links) == 3)
            s.relay.links[2].peer = other.id
            transport = RelayTransport(s.no_link)
            with pytest.raises(NetError, match="no room"):
                await transport.listen(link, s.on_pipe)
            await s.to_relay.close()
            await until(lambda: s.relay.links[1].closed)
            await transport.listen(link, s.on_pipe)
        finally:
            await other.close()


async def test_a_node_that_does_not_relay_says_so() -> None:
    async with scene(reserved=False) as s:

        async def unwilling(link: Link, stream: Stream, request: wire.Request) -> None:
            await stream.fail(wire.Failure("unsupported"))

        for link in s.relay.links:
            link._handler = unwilling
        for attempt in (s.reserve, lambda: s.outgoing.dial(s.address)):
            with pytest.raises(NetError, match="does not hand on") as caught:
                await attempt()
            assert caught.value.code == "refused"


async def test_nothing_is_relayed_twice() -> None:
    async with scene() as s:
        link, far = await s.dial()  # the provider is reached through the relay, and is willing itself
        inner = RelayService(OPEN_LIMITS)

        async def willing(link: Link, stream: Stream, request: wire.Request) -> None:
            link.peer = s.user.id
            if isinstance(request, RelayReserve):
                await inner.reserve(link, stream)
            elif isinstance(request, RelayDial):
                await inner.dial(link, stream, request)

        far._handler = willing
        for request in (RelayReserve(), RelayDial(s.relay.id)):
            stream = await link.request(request)
            with pytest.raises(StreamFailed, match="not_allowed"):
                await anext(stream)

        async def relayed(node: bytes) -> Link:
            return link

        looping = RelayTransport(relayed)
        with pytest.raises(NetError, match="without another relay"):
            await looping.dial(circuit_address(s.provider.id, s.relay.id))


async def test_a_circuit_that_nobody_takes_up_is_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        monkeypatch.setattr(splice_module, "OPEN_S", 0.3)

        async def silent(pipe: Pipe) -> None:
            with pytest.raises(PipeClosed):
                while True:
                    await pipe.receive()

        await s.incoming.listen(s.to_relay, silent)
        pipe = await s.outgoing.dial(s.address)
        await pipe.send(b"anybody?")
        with pytest.raises(PipeClosed):
            await pipe.receive()
        assert s.service.circuits == 0
        await pipe.close()


async def test_a_circuit_on_which_nothing_moves_is_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        monkeypatch.setattr(splice_module, "IDLE_S", 0.3)

        async def once(pipe: Pipe) -> None:
            await pipe.send(await pipe.receive())
            with pytest.raises(PipeClosed):
                await pipe.receive()

        await s.incoming.listen(s.to_relay, once)
        pipe = await s.outgoing.dial(s.address)
        await pipe.send(b"still there?")
        assert await pipe.receive() == b"still there?"
        with pytest.raises(PipeClosed):
            await pipe.receive()
        await until(lambda: s.service.circuits == 0)
        await pipe.close()


async def test_a_half_closed_circuit_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        monkeypatch.setattr(splice_module, "HALF_CLOSED_S", 0.3)
        ended = asyncio.Event()

        async def stays(pipe: Pipe) -> None:
            await pipe.send(await pipe.receive())
            with pytest.raises(PipeClosed):
                await pipe.receive()
            ended.set()
            while True:  # and says something for ever
                await pipe.send(b"more")

        await s.incoming.listen(s.to_relay, stays)
        stream = await s.user_link.request(RelayDial(s.provider.id))
        await anext(stream)
        await stream.send(b"hello")
        assert await anext(stream) == b"hello"
        await stream.end()
        await ended.wait()
        with pytest.raises(StreamCancelled):
            while True:
                await anext(stream)
        assert s.service.circuits == 0


async def test_what_was_said_before_the_close_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        monkeypatch.setattr(relay_module, "CLOSE_S", 10 * LIMIT_S)
        monkeypatch.setattr(splice_module, "HALF_CLOSED_S", 10 * LIMIT_S)
        heard: list[bytes] = []
        gate = asyncio.Event()

        async def listens(pipe: Pipe) -> None:
            await pipe.send(b"hello")
            await gate.wait()
            with pytest.raises(PipeClosed):
                while True:
                    heard.append(await pipe.receive())

        await s.incoming.listen(s.to_relay, listens)
        pipe = await s.outgoing.dial(s.address)
        frames = [os.urandom(size) for size in (1, 100, 60_016, MAX_FRAME, 5)]
        for frame in frames:
            await pipe.send(frame)
        closing = asyncio.ensure_future(pipe.close())
        await asyncio.wait([closing], timeout=0.2)
        assert not closing.done()  # what was sent is not heard yet
        gate.set()
        await closing
        assert heard == frames
        with pytest.raises(PipeClosed):
            await pipe.receive()
        with pytest.raises(PipeClosed):
            await pipe.send(b"x")
        await pipe.close()


async def test_a_circuit_that_was_not_asked_for_closes_the_link() -> None:
    async with scene(reserved=False) as s:
        stream = await s.relay.links[1].request(RelayIncoming())
        with pytest.raises(LinkClosed):
            await anext(stream)
        assert (await s.to_relay.wait_closed()).reason == "not_asked"


async def test_a_relay_that_answers_nonsense_is_an_error_for_a_person() -> None:
    async with scene(reserved=False) as s:

        async def nonsense(link: Link, stream: Stream, request: wire.Request) -> None:
            await stream.send(b"\xc1 nonsense")

        for link in s.relay.links:
            link._handler = nonsense
        for attempt in (lambda: s.outgoing.dial(s.address), s.reserve):
            with pytest.raises(NetError, match="The relay ended") as caught:
                await attempt()
            assert caught.value.remedy


async def test_addresses_of_circuits() -> None:
    async with scene() as s:
        assert s.address == f"relay:{id_text(s.relay.id)}/{id_text(s.provider.id)}"
        for address in (
            "",
            "relay:",
            s.address[:-1],
            f"{s.address}/x",
            f"ws://127.0.0.1:7741/{s.address[-52:]}",
        ):
            with pytest.raises(NetError) as caught:
                await s.outgoing.dial(address)
            assert caught.value.code == "bad_address"


async def test_closing_the_transport_ends_its_pipes() -> None:
    async with scene() as s:
        link, far = await s.dial()
        await s.incoming.close()
        await link.wait_closed()
        await far.wait_closed()
        await s.outgoing.close()
        with pytest.raises(ProtocolError):
            await s.incoming.incoming(s.to_relay, await s.to_relay.request(CardPlease()))
