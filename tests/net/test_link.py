"""Links between nodes on real sockets: streams, faults of the other side, the end."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from infraxa.net import codec, wire
from infraxa.net import link as link_module
from infraxa.net.connect import Target
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.link import Clock, Link, LinkClosed, LinkEnd, Stream, StreamCancelled, StreamFailed
from infraxa.net.liveness import LivenessLimits
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.streams import MAX_WHOLE, SEND_ROOM, WINDOW
from infraxa.net.ticks import TICK_S
from tests.net.nodes import Node, echo, echoing, nodes, until

ASK = wire.CardPlease()
MESSAGE = (st.integers(0, 127), st.binary(max_size=60))


async def collect(stream: Stream) -> list[bytes]:
    async with asyncio.timeout(20):
        return [chunk async for chunk in stream]


async def gone(link: Link) -> LinkEnd:
    async with asyncio.timeout(20):
        return await link.wait_closed()


async def test_a_request_and_its_answer() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        assert isinstance(request, wire.DialBack)
        await stream.send(codec.encode(wire.DialedBack(False, request.address)))

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        answered = await link.ask(wire.DialBack("ws://192.0.2.1:7741"), wire.DialedBack, 10)
        assert answered == wire.DialedBack(False, "ws://192.0.2.1:7741")
        assert link.peer == other.id
        assert link.initiator and not other.links[0].initiator
        assert link.handshake_hash == other.links[0].handshake_hash
        assert link.bytes_in > 0 and link.bytes_out > 0
        await until(lambda: link.rtt_ms is not None)
        assert link.skew_ms is not None and abs(link.skew_ms) < 60_000


async def test_both_sides_can_ask() -> None:
    async with nodes() as (one, other):
        one.handler = echo
        await one.dial(other)
        await until(lambda: other.links)
        stream = await other.links[0].request(ASK)
        await stream.send(b"x")
        await stream.end()
        assert await collect(stream) == [b"x"]


async def test_a_hundred_streams_at_once() -> None:
    async with nodes(in_flight=100) as (one, other):
        other.handler = echo
        link = await one.dial(other)
        blocks = [os.urandom(size) for size in (1, 64, 5_000, MAX_WHOLE)]

        async def talk(number: int) -> None:
            stream = await link.request(ASK)
            for block in blocks:
                await stream.send(number.to_bytes(2, "big") + block[2:] if len(block) > 2 else block)
                assert (await anext(stream))[2:] == block[2:]
            await stream.end()
            assert await collect(stream) == []

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(talk(number))


async def test_megabytes_arrive_as_they_were_sent() -> None:
    blocks = [os.urandom(size) for size in (1_000_000, 1, 70_000, 1_048_576, 65_535)]

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        for block in blocks:
            await stream.send(block)

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        assert b"".join(await collect(await link.request(ASK))) == b"".join(blocks)


async def test_a_slow_reader_stalls_the_writer() -> None:
    sent = 0

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        nonlocal sent
        for _ in range(1000):
            await stream.send(bytes(10_000))
            sent += 10_000

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        await anext(stream)
        tracemalloc.start()
        for _ in range(20):
            before = sent
            await asyncio.sleep(0.05)
        assert sent == before <= WINDOW + SEND_ROOM + 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 * WINDOW
        tracemalloc.stop()
        assert sum(map(len, await collect(stream))) == 1000 * 10_000 - 10_000


async def test_a_stalled_stream_does_not_stop_the_others() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        for _ in range(1000 if isinstance(request, wire.PeersPlease) else 1):
            await stream.send(bytes(10_000))

    async with nodes(in_flight=8) as (one, other):
        other.handler = answer
        link = await one.dial(other)
        async with await link.request(wire.PeersPlease()) as stalled:
            await anext(stalled)
            for _ in range(20):
                assert len(await collect(await link.request(ASK))) == 1


async def test_a_cancel_stops_the_handler() -> None:
    stopped = asyncio.Event()

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        try:
            for number in itertools.count():
                await stream.send(b"%d" % number)
                await asyncio.sleep(0.001)
        finally:
            stopped.set()

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        async with await link.request(ASK) as stream:
            assert await anext(stream) == b"0"
        async with asyncio.timeout(10):
            await stopped.wait()
        with pytest.raises(StreamCancelled):
            await anext(stream)
        with pytest.raises(StreamCancelled):
            await stream.send(b"x")
        assert not link.closed
        assert await anext(await link.request(ASK)) == b"0"  # there is room for another one


async def test_the_answerer_can_cancel() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await anext(stream)
        stream.cancel()

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        await stream.send(b"x")
        with pytest.raises(StreamCancelled):
            await collect(stream)


async def test_a_failure_comes_after_what_was_sent() -> None:
    failure = wire.Failure("tab_limit", 5, 7, "tab")

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.send(b"x")
        await stream.fail(failure)

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        assert await anext(stream) == b"x"
        with pytest.raises(StreamFailed) as error:
            await anext(stream)
        assert error.value.failure == failure


async def test_a_handler_that_breaks_is_an_internal_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        raise ValueError("a bug")

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        for _ in range(3):
            with pytest.raises(StreamFailed) as error:
                await collect(await link.request(ASK))
            assert error.value.failure.code == "internal"
        assert not link.closed
    assert len(caplog.records) == 3


async def test_a_handler_that_finds_a_breach_closes_the_link() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        raise ProtocolError("not_allowed")

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        with pytest.raises(LinkClosed) as error:
            await collect(await link.request(ASK))
        assert error.value.reason == "not_allowed"
        assert await gone(link) == LinkEnd("not_allowed", "peer")
        assert await gone(other.links[0]) == LinkEnd("not_allowed", "here")


async def test_progress_is_told() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.progress(1, 3)
        await anext(stream)
        await stream.send(b"x")

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        steps: list[tuple[int, int]] = []
        stream.on_progress = lambda done, total: steps.append((done, total))
        await until(lambda: steps)
        await stream.send(b"go on")
        assert await collect(stream) == [b"x"]
        assert steps == [(1, 3)]


async def test_strangers_have_one_request_at_a_time() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await anext(stream)

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        async with await link.request(ASK):
            with pytest.raises(StreamFailed) as error:
                await collect(await link.request(ASK))
            assert error.value.failure.code == "busy"
            await until(lambda: other.links)
            other.links[0].in_flight = 2
            second = await link.request(ASK)
            await second.send(b"x")
            assert await collect(second) == []


async def test_messages_outside_of_streams_arrive_in_order() -> None:
    heard: list[wire.Tell] = []
    async with nodes() as (one, other):
        other.on_tell = lambda link, message: heard.append(message)
        link = await one.dial(other)
        roots = [wire.Root(bytes(8), number) for number in range(200)]
        for root in roots:
            await link.tell(root)
        await until(lambda: len(heard) == 200)
        assert heard == roots


async def test_who_does_not_listen_is_told_no_more() -> None:
    async with nodes() as (one, other):
        link = await one.dial(other)
        told = [link.tell_soon(wire.Root(bytes(8), 1)) for _ in range(100)]
        assert 0 < sum(told) < 100
        await link.close()
        assert not link.tell_soon(wire.Root(bytes(8), 1))
        with pytest.raises(LinkClosed):
            await link.tell(wire.Root(bytes(8), 1))


async def test_messages_of_a_newer_version() -> None:
    class NewRequest(Struct, array_like=True, frozen=True, tag=99):
        field: int = 1

    async with nodes() as (one, other):
        link = await one.dial(other)
        with pytest.raises(StreamFailed) as error:
            await collect(await link.request(NewRequest()))  # type: ignore[arg-type]
        assert error.value.failure.code == "unsupported"
        assert link.tell_soon(NewRequest())  # type: ignore[arg-type]
        with pytest.raises(StreamFailed):
            await collect(await link.request(ASK))
        assert not link.closed


@given(st.one_of(st.binary(max_size=60), st.builds(lambda tag, rest: bytes((0x93, tag)) + rest, *MESSAGE)))
@settings(deadline=None, max_examples=300)
def test_whatever_is_said_decodes_or_breaks_the_protocol(body: bytes) -> None:
    for kind in (wire.Request, wire.Tell):
        try:
            message = link_module._decode(body, kind)
        except ProtocolError:
            continue
        assert message is None or isinstance(message, kind)


@pytest.mark.parametrize("where", ["request", "tell"])
async def test_what_does_not_decode_closes_the_link(where: str) -> None:
    async with nodes() as (one, other):
        link = await one.dial(other)
        if where == "request":
            link.mux.open(b"\xc1", time.monotonic())
        else:
            link.mux.tell(b"\xc1", time.monotonic())
        link.wake()
        assert await gone(link) == LinkEnd("malformed", "peer")


@pytest.mark.parametrize("answers", [[b"\xc1"], [], [codec.encode(wire.DialedBack(True))] * 2])
async def test_an_answer_that_is_none_closes_the_link(answers: list[bytes]) -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        for chunk in answers:
            await stream.send(chunk)

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        with pytest.raises(ProtocolError):
            await link.ask(wire.DialBack("x"), wire.DialedBack, 10)
        assert (await gone(link)).by == "here"


async def test_an_answer_that_does_not_come() -> None:
    cancelled = asyncio.Event()

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        with pytest.raises(NetError) as error:
            await link.ask(ASK, wire.DialedBack, 0.1)
        assert error.value.code == "timeout"
        async with asyncio.timeout(10):
            await cancelled.wait()
        assert not link.closed


async def test_the_reason_of_an_end_is_known_to_both_sides() -> None:
    async with nodes() as (one, other):
        link = await one.dial(other)
        await until(lambda: other.links)
        await link.close("full")
        await link.close("rate")
        assert await gone(link) == LinkEnd("full", "here")
        assert await gone(other.links[0]) == LinkEnd("full", "peer")
        with pytest.raises(LinkClosed):
            await link.request(ASK)


async def test_a_carrier_that_is_cut_ends_streams_as_truncated() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.send(b"the beginning")
        await asyncio.sleep(60)

    async with nodes() as (one, other):
        other.handler = answer
        pipe = await one.transport.dial(other.address)
        link = await one.connect(pipe, Target(other.id))
        stream = await link.request(ASK)
        await until(lambda: stream._chunks)
        await pipe.close()
        assert await gone(link) == LinkEnd("truncated", "carrier")
        assert await anext(stream) == b"the beginning"
        with pytest.raises(LinkClosed) as error:
            await anext(stream)
        assert error.value.reason == "truncated"
        assert await gone(other.links[0]) == LinkEnd("truncated", "carrier")
        assert not other.links[0]._handlers


async def test_the_reason_of_an_end_is_read_though_nothing_can_be_sent() -> None:
    class Broken(Wire):
        async def send(self, frame: bytes) -> None:
            if not self.open.is_set():
                raise PipeClosed
            await self.inner.send(frame)

        async def receive(self) -> bytes:
            frame = await self.inner.receive()
            await asyncio.sleep(0.1)
            return frame

    async with nodes() as (one, other):
        pipe = Broken(await one.transport.dial(other.address))
        link = await one.connect(pipe, Target(other.id))
        await until(lambda: other.links)
        await until(lambda: link.rtt_ms)
        pipe.open.clear()
        closing = asyncio.ensure_future(other.links[0].close("full"))
        link.ping()
        assert await gone(link) == LinkEnd("full", "peer")
        await closing


async def test_an_end_that_comes_while_much_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever turns the tasks take between the frame of the end and the end."""
    monkeypatch.setattr(link_module, "BATCH", 2)

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        while True:
            await stream.send(b"x")

    async with nodes() as (one, other):
        other.handler = answer
        for number in range(16):
            link = await one.dial(other)
            stream = await link.request(ASK)
            await anext(stream)
            for _ in range(number % 4):
                link.ping()
            reading = asyncio.ensure_future(collect(stream))
            await asyncio.sleep(0)
            await link.close("full")
            assert await gone(other.links[-1]) == LinkEnd("full", "peer")
            with pytest.raises(LinkClosed):
                await reading
    assert caplog.records == []


async def test_a_callback_that_breaks_ends_the_link(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.progress(1, 2)
        await anext(stream)

    def broken(done: int, total: int) -> None:
        raise ValueError("a bug")

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        stream.on_progress = broken
        assert await gone(link) == LinkEnd(None, "here")
        with pytest.raises(LinkClosed):
            await collect(stream)
    assert len(caplog.records) == 1


class Wire:
    """A pipe of which a test can hold what arrives, or change it."""

    def __init__(self, inner: Pipe) -> None:
        self.inner = inner
        self.open = asyncio.Event()
        self.open.set()
        self.change: bytes = b""

    @property
    def remote(self) -> str:
        return self.inner.remote

    async def send(self, frame: bytes) -> None:
        await self.inner.send(frame)

    async def receive(self) -> bytes:
        frame = await self.inner.receive()
        await self.open.wait()
        return self.change or frame

    async def close(self) -> None:
        await self.inner.close()


async def wired(one: Node, other: Node) -> tuple[Wire, Link]:
    pipe = Wire(await one.transport.dial(other.address))
    return pipe, await one.connect(pipe, Target(other.id))


@pytest.mark.parametrize("size", [0, 1, 80, 81, 65_535])
async def test_a_changed_frame_ends_the_link(size: int) -> None:
    async with nodes() as (one, other):
        pipe, link = await wired(one, other)
        pipe.change = bytes(size) if size else b"\0"
        await until(lambda: other.links)
        other.links[0].ping()
        end = await gone(link)
        assert end.by == "here" and end.reason in ("tampered", "malformed")


async def test_a_silent_peer_is_dead() -> None:
    async with nodes() as (one, other):
        one.liveness = LivenessLimits(tick=0.05, ping=0.1, dead=0.5)
        pipe, link = await wired(one, other)
        stream = await link.request(ASK)
        pipe.open.clear()
        assert await gone(link) == LinkEnd("silent", "here")
        with pytest.raises((LinkClosed, StreamFailed)):
            await collect(stream)


async def test_an_idle_peer_is_not_dead() -> None:
    async with nodes() as (one, other):
        one.liveness = LivenessLimits(tick=0.02, ping=0.05, dead=0.5)
        link = await one.dial(other)
        await asyncio.sleep(1.0)
        assert not link.closed


async def test_a_suspended_process_does_not_blame_its_peer() -> None:
    """A minute passes between two ticks, while nothing is read."""
    offset = 0.0
    clock = Clock(lambda: time.monotonic() + offset)
    async with nodes(clock=clock) as (one, other):
        one.liveness = LivenessLimits(tick=0.05)
        pipe, link = await wired(one, other)
        pipe.open.clear()
        offset = 60.0
        await asyncio.sleep(0.3)
        pipe.open.set()
        await asyncio.sleep(0.3)
        assert not link.closed
        with pytest.raises(StreamFailed):
            await collect(await link.request(ASK))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be suspended here")
async def test_a_peer_whose_process_is_suspended() -> None:
    """Shorter than the patience for it: the link goes on. Longer: it is dead, and back when it is dialled."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=echoing, args=(theirs,))
    process.start()
    one = Node()
    try:
        address, peer = await asyncio.to_thread(ours.recv)

        async def dial() -> Link:
            return await one.connect(await one.transport.dial(address), Target(peer))

        patient = await dial()
        one.liveness = LivenessLimits(tick=0.05, ping=0.1, dead=0.5)
        hasty = await dial()
        stream = await patient.request(ASK)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        await stream.send(b"x")
        assert await gone(hasty) == LinkEnd("silent", "here")
        os.kill(process.pid, signal.SIGCONT)
        one.liveness = None
        async with asyncio.timeout(20):
            assert await anext(stream) == b"x"
            again = await (await dial()).request(ASK)
            await again.send(b"y")
            assert await anext(again) == b"y"
    finally:
        await one.close()
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        ours.close()
        theirs.close()


async def test_a_peer_that_never_reads_is_dead() -> None:
    """It says that it lives, but takes nothing."""

    class Deaf(Wire):
        async def send(self, frame: bytes) -> None:
            if self.open.is_set():
                await self.inner.send(frame)
            else:
                await asyncio.sleep(60)

        async def receive(self) -> bytes:
            return await self.inner.receive()

    async with nodes() as (one, other):
        one.liveness = LivenessLimits(tick=0.05, ping=0.1, dead=60, stuck=0.5)
        other.liveness = LivenessLimits(tick=0.05, ping=0.1, dead=60)
        pipe = Deaf(await one.transport.dial(other.address))
        link = await one.connect(pipe, Target(other.id))
        pipe.open.clear()
        assert await gone(link) == LinkEnd("silent", "here")


async def test_an_old_link_takes_no_new_streams_and_ends_with_the_last() -> None:
    offset = 0.0
    clock = Clock(lambda: time.monotonic() + offset)
    aged: list[Link] = []
    async with nodes(clock=clock) as (one, other):
        one.liveness = LivenessLimits(tick=0.05)
        one.on_aged = aged.append
        other.handler = echo
        link = await one.dial(other)
        stream = await link.request(ASK)
        for _ in range(13):
            offset += 300
            await stream.send(b"x")
            await anext(stream)
        await until(lambda: aged)
        assert aged == [link] and link.aged
        with pytest.raises(NetError) as error:
            await link.request(ASK)
        assert error.value.code == "expired"
        await stream.send(b"still here")
        assert await anext(stream) == b"still here"
        await stream.end()
        assert await gone(link) == LinkEnd(None, "here")
        assert len(aged) == 1


async def test_pieces_of_an_answer_go_in_ticks() -> None:
    words = [b"word %d " % number for number in range(60)]

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        writer = stream.ticked()
        for word in words:
            await writer.write(word)
            await asyncio.sleep(TICK_S / 10)

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        before = link.bytes_in
        chunks = await collect(await link.request(ASK))
        assert chunks[0] == words[0]
        assert b"".join(chunks) == b"".join(words)
        # 60 pieces in 6 ticks; a loaded machine makes more ticks of them, but never one for each.
        assert len(chunks) < 50
        assert link.bytes_in - before < 64 * len(chunks) * 5


async def test_what_waits_for_the_next_tick_is_sent_before_a_failure() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        writer = stream.ticked()
        for piece in (b"a", b"b", b"c"):
            await writer.write(piece)
        await stream.fail(wire.Failure("busy"))
        await stream.end()

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        assert [await anext(stream), await anext(stream)] == [b"a", b"bc"]
        with pytest.raises(StreamFailed):
            await anext(stream)


async def test_a_writer_of_ticks_waits_for_a_slow_reader() -> None:
    written = 0

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        nonlocal written
        writer = stream.ticked()
        for _ in range(1000):
            await writer.write(bytes(2000))
            written += 2000

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        stream = await link.request(ASK)
        first = await anext(stream)
        for _ in range(20):
            before = written
            await asyncio.sleep(0.05)
        assert before == written <= WINDOW + 3 * SEND_ROOM
        assert len(first) + sum(map(len, await collect(stream))) == 2_000_000


async def test_a_writer_of_ticks_learns_that_nobody_wants_more() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        writer = stream.ticked()
        try:
            while True:
                await writer.write(b"x")
                await asyncio.sleep(0.001)
        except BaseException as error:
            told.set_result(type(error).__name__)
            raise

    async with nodes() as (one, other):
        other.handler = answer
        link = await one.dial(other)
        async with await link.request(ASK) as stream:
            await anext(stream)
        async with asyncio.timeout(10):
            assert await told in ("CancelledError", "StreamCancelled")


@pytest.mark.parametrize("ticked", [True, False])
async def test_one_busy_answer_lets_others_begin(ticked: bool) -> None:
    """Without a turn for others after each piece, the first one would be over before the second begins."""
    order: list[str] = []

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        name = type(request).__name__
        send = stream.ticked().write if ticked else stream.send
        for _ in range(500):
            order.append(name)
            await send(b"x")

    async with nodes(in_flight=2) as (one, other):
        other.handler = answer
        link = await one.dial(other)
        streams = [await link.request(ASK), await link.request(wire.PeersPlease())]
        for stream in streams:
            await collect(stream)
    turns = sum(before != after for before, after in itertools.pairwise(order))
    assert turns > 100


async def test_closing_is_bounded_though_a_handler_does_not_end() -> None:
    async def stubborn(link: Link, stream: Stream, request: wire.Request) -> None:
        for _ in range(10):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                continue

    async with nodes() as (one, other):
        other.handler = stubborn
        link = await one.dial(other)
        await link.request(ASK)
        await until(lambda: other.links and other.links[0]._handlers)
        async with asyncio.timeout(5):
            await other.links[0].close()
        await until(lambda: not other.links[0]._handlers)


async def test_the_pipe_of_a_closed_link_is_closed() -> None:
    async with nodes() as (one, other):
        pipe, link = await wired(one, other)
        await link.close()
        with pytest.raises(PipeClosed):
            await pipe.receive()
