"""A session over a pipe: requests and answers as streams, messages outside of them, keep-alive, the end.

The tasks, clocks and waits around session.py and mux.py. One task reads, one writes: a record is sealed and
queued without a wait in between, so that the order of the frames is the order of their seals. Sessions are
begun in connect.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import msgspec

from infraxa.net import codec, streams, wire
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.liveness import Liveness, LivenessLimits
from infraxa.net.mux import Mux
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.session import Session
from infraxa.net.stream import LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.streams import Event
from infraxa.net.tasks import TaskGroup
from infraxa.net.ticks import TICK_S

# All that users of links need.
__all__ = [
    "FAILED",
    "Clock",
    "Handler",
    "Link",
    "LinkClosed",
    "LinkEnd",
    "OnTell",
    "Stream",
    "StreamCancelled",
    "StreamFailed",
]

CLOSE_S: Final = 1.0
"""Seconds that an end waits for the other side to hear of it, and for handlers to end."""
BATCH: Final = 32
"""Frames after which a reader or a writer that never had to wait lets others have their turn."""
SPARE_HANDLERS: Final = 8
"""Handlers of cancelled requests that may still be at their clean-up."""

_log = logging.getLogger(__name__)
_STREAM_ENDS: Final = (StreamCancelled, StreamFailed, LinkClosed)
FAILED: Final = (NetError, ProtocolError, *_STREAM_ENDS)
"""What can become of asking a node for something."""
T = TypeVar("T", bound=msgspec.Struct)


class Clock(NamedTuple):
    """The two clocks."""

    monotonic: Callable[[], float] = time.monotonic
    unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class LinkEnd(NamedTuple):
    """Why a link is over; `reason` None is an end in good order."""

    reason: Refusal | None
    by: Literal["here", "peer", "carrier"]


Handler = Callable[["Link", Stream, wire.Request], Awaitable[None]]
"""Answers a request. The stream ends when it returns; it is cancelled when who asked cancels, or the
link ends. StreamCancelled, StreamFailed and LinkClosed may pass through it; a ProtocolError closes the link;
any other exception is answered `internal`."""
OnTell = Callable[["Link", wire.Tell], None]
"""Takes a message outside of streams. A ProtocolError closes the link."""


class Link:
    """One side of a session over a pipe, made by connect() or accept()."""

    def __init__(
        self,
        pipe: Pipe,
        session: Session,
        *,
        handler: Handler,
        on_tell: OnTell,
        clock: Clock,
        in_flight: int = 1,
        skew_ms: int | None = None,
        liveness: LivenessLimits | None = None,
        on_aged: Callable[[Link], None] | None = None,
    ) -> None:
        self.remote = pipe.remote
        self.peer: bytes | None = None
        """The node on the other side: known to who dialled, and after `Auth`."""
        self.account: bytes | None = None
        """The account key of who dialled, after `Auth`; on both sides."""
        self.card: bytes | None = None
        """Of who dialled: the verified card of `peer`, an encoded Record."""
        self.skew_ms = skew_ms
        """Their clock minus ours at the handshake."""
        self.rtt_ms: float | None = None
        self.since = clock.monotonic()
        self.heard_at = self.since
        """When anything authentic came last; by `Clock.monotonic`, as `since`."""
        self.aged = False
        """No new streams any more, see `on_aged`."""
        self.mux = Mux(initiator=session.initiator, in_flight=in_flight)
        self.clock = clock
        self._pipe = pipe
        self._session = session
        self._handler = handler
        self._on_tell = on_tell
        self._on_aged = on_aged
        self._limits = liveness or LivenessLimits()
        self._liveness = Liveness(self._limits, self.since)
        self._sealed: deque[bytes] = deque()
        """Frames in the order of their seals. Only a few: a record is sealed when this is empty."""
        self._streams: dict[int, Stream] = {}
        self._handlers: dict[int, asyncio.Task[None]] = {}
        self._tasks = TaskGroup()
        self._wake = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._end: LinkEnd | None = None
        self._gone = asyncio.Event()
        self._reader = self._tasks.spawn(self._read(), name="link reader")
        self._writer = self._tasks.spawn(self._write(), name="link writer")
        self._ticker = self._tasks.spawn(self._tick(), name="link ticker")
        for task in (self._reader, self._writer, self._ticker):
            task.add_done_callback(self._stopped)

    @property
    def initiator(self) -> bool:
        """This side dialled."""
        return self._session.initiator

    @property
    def handshake_hash(self) -> bytes:
        """64 bytes that are the same on both sides and of no other session: what `Auth` signs."""
        return self._session.handshake_hash

    @property
    def bytes_in(self) -> int:
        return self._session.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._session.bytes_out

    @property
    def in_flight(self) -> int:
        """Requests of the other side at a time; more are answered `busy`."""
        return self.mux.in_flight

    @in_flight.setter
    def in_flight(self, limit: int) -> None:
        self.mux.in_flight = limit

    @property
    def closed(self) -> bool:
        return self._end is not None

    @property
    def used_at(self) -> float:
        """When it was last used for something else than keep-alive."""
        return self._session.used_at

    @property
    def idle_since(self) -> float | None:
        """As `used_at`; None while a request is under way."""
        return self.used_at if self.mux.idle else None

    async def request(self, message: wire.Request) -> Stream:
        """Ask. Raises LinkClosed; NetError `busy` (too many are open), `expired` (the session is too old)."""
        body = codec.encode(message)
        self._check()
        while (delay := self.mux.open_wait(self.clock.monotonic())) > 0:
            await asyncio.sleep(delay)
            self._check()
        if self.aged:
            raise NetError(
                "expired", "This session is too old for new requests.", "try again: a new one is made"
            )
        number = self.mux.open(body, self.clock.monotonic())
        if number is None:
            raise NetError("busy", "Too many requests wait for this node.", "try again in a moment")
        stream = self._streams[number] = Stream(self, number, message, mine=True)
        self.wake()
        return stream

    async def ask(self, message: wire.Request, answer: type[T], timeout: float) -> T:  # noqa: ASYNC109
        """The one-chunk answer to `message`. Raises NetError `timeout` after so many seconds, StreamFailed,
        StreamCancelled, LinkClosed; ProtocolError for another answer, and the link is closed."""
        try:
            async with asyncio.timeout(timeout), await self.request(message) as stream:
                chunks = [chunk async for chunk in stream]
                if len(chunks) != 1:
                    raise ProtocolError("not_asked", f"{len(chunks)} chunks where one was asked for")
                found: T = codec.decode(chunks[0], answer)
                return found
        except TimeoutError:
            raise NetError(
                "timeout", f"The node did not answer within {timeout:g} s.", "try again, or another node"
            ) from None
        except ProtocolError as error:
            self._close_soon(LinkEnd(error.reason, "here"))
            raise

    def tell_soon(self, message: wire.Tell) -> bool:
        """Send a message outside of streams; False when the other side is too slow to take it, or it is
        over."""
        sent = self._end is None and self.mux.tell(codec.encode(message), self.clock.monotonic())
        self.wake()
        return sent

    async def tell(self, message: wire.Tell) -> None:
        """As `tell_soon`, but waits until it is taken. Raises LinkClosed."""
        while not self.tell_soon(message):
            self._check()
            await asyncio.sleep(TICK_S)

    async def close(self, reason: Refusal | None = None) -> None:
        """End the link and all its streams, and say why; bounded. May be called twice."""
        self._close_soon(LinkEnd(reason, "here"))
        await self._gone.wait()

    async def wait_closed(self) -> LinkEnd:
        """Why the link is over, when it is and all its tasks have ended."""
        await self._gone.wait()
        assert self._end is not None
        return self._end

    async def confirmed(self) -> None:
        """Returns when the other side has proven to hold the keys, see Session.confirmed. Raises
        LinkClosed."""
        await self._confirmed.wait()
        self._check()

    def ping(self) -> None:
        """Ask for a sign of life now; `rtt_ms` follows."""
        self.mux.ping(os.urandom(8), self.clock.monotonic())
        self.wake()

    def wake(self) -> None:
        """Something may be to be sent."""
        if self._sealed or self.mux.ready:
            self._wake.set()

    def _check(self) -> None:
        if self._end is not None:
            raise LinkClosed(self._end.reason)

    async def _read(self) -> None:
        number = 0
        try:
            while True:
                self._receive(await self._pipe.receive())
                if self._session.closed:
                    self._close_soon(LinkEnd(self._session.peer_reason, "peer"))
                    return
                number += 1
                if number % BATCH == 0:
                    await asyncio.sleep(0)
        except PipeClosed:
            self._close_soon(LinkEnd("truncated", "carrier"))
        except ProtocolError as error:
            _log.debug("link closed: %s", error)
            self._close_soon(LinkEnd(error.reason, "here"))

    def _receive(self, frame: bytes) -> None:
        now = self.clock.monotonic()
        record, replies = self._session.receive(frame, now)
        self._liveness.heard()
        self.heard_at = now
        self._confirmed.set()
        self._sealed.extend(replies)
        if record is not None and self._end is None:
            event = self.mux.receive(record, now)
            if event is not None:
                self._happened(event, now)
        self.wake()

    def _happened(self, event: Event, now: float) -> None:
        if isinstance(event, streams.Told):
            self._told(event.body)
            return
        if isinstance(event, streams.Ponged):
            self.rtt_ms = (now - event.sent_at) * 1000
            return
        if isinstance(event, streams.Opened):
            self._opened(event)
            return
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        if isinstance(event, streams.Chunk):
            stream.arrived(event)
        elif isinstance(event, streams.Progressed):
            stream.on_progress(event.done, event.total)
        elif isinstance(event, streams.Ended):
            stream.completed()
            self.forget(stream)
        else:
            if isinstance(event, streams.Failed):
                stream.stopped(StreamFailed(event.failure))
            else:
                stream.stopped(StreamCancelled(), unsent=event.unsent)
            self.forget(stream)
            if handler := self._handlers.get(event.stream):
                handler.cancel()

    def _told(self, body: bytes) -> None:
        message = _decode(body, wire.Tell)
        if message is None:
            return  # of a newer version
        try:
            self._on_tell(self, message)
        except ProtocolError:
            raise
        except Exception as error:
            _log.error("a message was not handled", exc_info=error)

    def _opened(self, event: streams.Opened) -> None:
        if self.aged:
            self.mux.fail(event.stream, wire.Failure("expired"))
            return
        if len(self._handlers) >= self.mux.in_flight + SPARE_HANDLERS:
            self.mux.fail(event.stream, wire.Failure("busy", 1000))
            return
        request = _decode(event.body, wire.Request)
        if request is None:
            self.mux.fail(event.stream, wire.Failure("unsupported"))
            return
        stream = self._streams[event.stream] = Stream(self, event.stream, request, mine=False)
        task = self._tasks.spawn(
            self._handle(stream), name=f"request {type(request).__name__}", told=_STREAM_ENDS
        )
        self._handlers[event.stream] = task
        task.add_done_callback(lambda _: self._handled(event.stream))

    async def _handle(self, stream: Stream) -> None:
        try:
            await self._handler(self, stream, stream.request)
            await stream.end()
        except _STREAM_ENDS:
            stream.cancel()
        except ProtocolError as error:
            self._close_soon(LinkEnd(error.reason, "here"))
        except asyncio.CancelledError:
            stream.cancel()
            raise
        except Exception as error:
            _log.error("a request was not answered", exc_info=error)
            await stream.fail(wire.Failure("internal"))

    def _handled(self, number: int) -> None:
        del self._handlers[number]
        del self._streams[number]

    async def _write(self) -> None:
        number = 0
        try:
            while True:
                while self._sealed:
                    frame = self._sealed.popleft()
                    self._liveness.sending(True)
                    await self._pipe.send(frame)
                    self._liveness.sending(False)
                    number += 1
                    if number % BATCH == 0:
                        await asyncio.sleep(0)
                if self._end is not None:
                    return
                record = self.mux.next()
                if record is None:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                self._sealed.extend(self._session.send(*record, self.clock.monotonic()))
                if (stream := self._streams.get(record.stream)) and self.mux.room(record.stream):
                    stream.made_room()
        except PipeClosed:
            # The other side may have said why before it closed; then that is still to be read.
            await asyncio.wait((self._reader,), timeout=CLOSE_S)
            self._close_soon(LinkEnd("truncated", "carrier"))

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A task that broke, which was logged, must not leave half a link."""
        if not task.cancelled() and task.exception() is not None:
            self._close_soon(LinkEnd(None, "here"))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._limits.tick)
            now = self.clock.monotonic()
            todo = self._liveness.tick(now)
            if todo == "dead":
                self._close_soon(LinkEnd("silent", "here"))
                return
            if todo == "ping":
                self.ping()
            self._sealed.extend(self._session.tick(now))
            self.wake()
            self._check_age(now)

    def _check_age(self, now: float) -> None:
        age = self._session.age_limit(now)
        if age == "no_new_streams" and not self.aged:
            self.aged = True
            if self._on_aged is not None:
                self._on_aged(self)
        if age == "expired" or (self.aged and self.mux.idle):
            self._close_soon(LinkEnd(None, "here"))

    def _close_soon(self, end: LinkEnd) -> None:
        """Nothing is said or handled from here on but the end itself."""
        if self._end is not None:
            return
        self._end = end
        if end.by == "here":
            self._sealed.extend(self._session.close(self.clock.monotonic(), end.reason))
        self._wake.set()
        for stream in self._streams.values():
            stream.stopped(LinkClosed(end.reason))
        for handler in self._handlers.values():
            handler.cancel()
        self._ticker.cancel()
        self._confirmed.set()
        self._tasks.spawn(self._shut(end), name="link end")

    async def _shut(self, end: LinkEnd) -> None:
        try:
            if end.by != "carrier":
                # The writer ends when the end is sent, the reader when the other side has answered it.
                await asyncio.wait((self._reader, self._writer), timeout=CLOSE_S)
            for task in (self._reader, self._writer):
                task.cancel()
            await self._pipe.close()
            ending = [self._reader, self._writer, self._ticker, *self._handlers.values()]
            await asyncio.wait(ending, timeout=CLOSE_S)
        finally:
            self._gone.set()

    def forget(self, stream: Stream) -> None:
        """Called by a stream that is over; those that are handled here stay until the handler is done."""
        if stream.id not in self._handlers:
            self._streams.pop(stream.id, None)


def _decode(body: bytes, kind: Any) -> Any:
    """As codec.decode, but None for a message with a tag that is not known here."""
    try:
        return codec.decode(body, kind)
    except ProtocolError:
        try:
            tag = msgspec.msgpack.decode(msgspec.msgpack.decode(body, type=list[msgspec.Raw])[0], type=int)
        except (msgspec.MsgspecError, IndexError, RecursionError):
            tag = None
        if tag is None or tag in (member.__struct_config__.tag for member in get_args(kind)):
            raise
        return None
