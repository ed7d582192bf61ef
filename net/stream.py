"""One request and its answer, as those who ask and those who answer see it.

Credit, order and limits are mux.py's, the session and the pipe are link.py's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

from infraxa.net import wire
from infraxa.net.errors import Refusal
from infraxa.net.streams import Chunk
from infraxa.net.ticks import TickedWriter

if TYPE_CHECKING:
    from infraxa.net.link import Link


class StreamFailed(Exception):
    """The other side answered with a failure."""

    def __init__(self, failure: wire.Failure) -> None:
        super().__init__(failure.code if failure.code in get_args(wire.ErrorCode) else "internal")
        self.failure = failure


class StreamCancelled(Exception):
    """The other side wants no more of this stream, or this side has cancelled it."""


class LinkClosed(Exception):
    """The link is over."""

    def __init__(self, reason: Refusal | None) -> None:
        super().__init__(reason or "closed")
        self.reason = reason


class Stream:
    """One request and its answer. Both sides have one: who asked sends what belongs to the question and
    iterates over the answer, who answers the other way round.

    As an asynchronous context manager it is cancelled at the end of the block, unless it is over by then.
    """

    def __init__(self, link: Link, stream: int, request: wire.Request, mine: bool) -> None:
        self.id = stream
        self.request = request
        self.on_progress: Callable[[int, int], None] = _ignore_progress
        """Told of `progress` of the other side."""
        self._link = link
        self._mine = mine
        self._chunks: deque[Chunk] = deque()
        self._ended = False
        """This side has said all it had to say."""
        self._complete = False
        """The other side has."""
        self._writer: TickedWriter | None = None
        self.unsent = 0
        """Bytes that were to be sent, and never left, when the other side cancelled."""
        self._error: Exception | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def send(self, chunk: bytes) -> None:
        """Send 1 to MAX_CHUNK bytes; waits until there is room, so that a slow reader stalls the sender.

        Up to MAX_WHOLE bytes arrive as one chunk, more as several that joined are this one. Raises
        StreamCancelled, StreamFailed, LinkClosed.
        """
        while not self.push(chunk):
            await self.room()
        await asyncio.sleep(0)

    def push(self, chunk: bytes) -> bool:
        """As `send`, but False when there is no room now."""
        self._check()
        if not self._link.mux.room(self.id):
            return False
        self._link.mux.send(self.id, chunk)
        self._link.wake()
        return True

    async def room(self) -> None:
        """Returns when a chunk can be sent. Raises as `send`."""
        self._check()
        while not self._link.mux.room(self.id):
            self._room.clear()
            await self._room.wait()
            self._check()

    def ticked(self) -> TickedWriter:
        """A writer for answers, whose token lengths and times do not show. What waits in it is sent before
        the end of the stream."""
        self._writer = TickedWriter(self)
        return self._writer

    async def end(self) -> None:
        """Nothing more follows from this side. The end of an answer is the end of the stream."""
        if self._writer is not None and not self.over:
            await self._writer.drain()
        if not self.over:
            self._ended = True
            self._link.mux.end(self.id)
            self._link.wake()
        await asyncio.sleep(0)

    async def fail(self, failure: wire.Failure) -> None:
        """Answer that there is no (more) answer, and why."""
        if self._writer is not None and not self.over:
            await self._writer.drain()
        if not self.over:
            self._ended = True
            self._link.mux.fail(self.id, failure)
            self._link.wake()
        await asyncio.sleep(0)

    def cancel(self) -> None:
        """End the stream in both directions at once."""
        if self._error is None and not (self._mine and self._complete):
            self._link.mux.cancel(self.id)
            self._link.wake()
            self.stopped(StreamCancelled())
            self._link.forget(self)

    async def progress(self, done: int, total: int) -> None:
        """Tell who asked how much of the work before the answer is done; what comes too often is left out."""
        self._check()
        if not self._ended:
            self._link.mux.progress(self.id, done, total, self._link.clock.monotonic())
            self._link.wake()
        await asyncio.sleep(0)

    @property
    def over(self) -> bool:
        """Nothing can be sent any more."""
        return self._ended or self._error is not None or (self._mine and self._complete)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk. Raises StreamFailed, StreamCancelled, LinkClosed after those that came before."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._complete:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        self._link.mux.consumed(self.id, chunk.cost)
        self._link.wake()
        return chunk.data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def arrived(self, chunk: Chunk) -> None:
        """Called by the link."""
        self._chunks.append(chunk)
        self._arrived.set()

    def completed(self) -> None:
        """Called by the link: the other side has said all it had to say."""
        self._complete = True
        self._arrived.set()
        self._room.set()

    def stopped(self, error: Exception, *, unsent: int = 0) -> None:
        """Called by the link: the stream is over before its end. `unsent`: bytes that it never sent."""
        if self._error is None:
            self._error = error
            self.unsent = unsent + (0 if self._writer is None else self._writer.waiting)
        if isinstance(error, StreamCancelled):
            self._chunks.clear()
        self._arrived.set()
        self._room.set()

    def made_room(self) -> None:
        """Called by the link."""
        self._room.set()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._mine and self._complete:
            raise StreamCancelled  # the answer is there already


def _ignore_progress(done: int, total: int) -> None:
    pass
