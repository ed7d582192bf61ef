"""An answer written in ticks, so that its frames do not show the lengths and times of its tokens.

The lengths of the tokens of an answer tell its topic to who counts the bytes on the wire. So the first piece
goes at once, and what comes after is joined until the next tick; the session pads what is sent.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from infraxa.net.streams import SEND_ROOM

TICK_S: Final = 0.05


class Sink(Protocol):
    """What a TickedWriter needs of a stream."""

    def push(self, chunk: bytes) -> bool:
        """Queue a chunk; False when there is no room. Raises when the stream is over."""

    async def room(self) -> None:
        """Returns when there is room. Raises when the stream is over."""

    @property
    def over(self) -> bool:
        """Nothing can be sent any more."""


class TickedWriter:
    """Pieces in; a chunk at most every TICK_S out, in which they are joined."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting = bytearray()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def write(self, piece: bytes) -> None:
        """Returns when there is room for more: a slow reader stalls the writer. Raises as Stream.send."""
        while self._waiting and len(self._waiting) + len(piece) > SEND_ROOM:
            await self._sink.room()
            self._flush()
        self._waiting += piece
        if self._timer is None:
            self._flush()
            self._start(self._loop.time() + TICK_S)
        await asyncio.sleep(0)  # others' answers have their turn after each piece

    @property
    def waiting(self) -> int:
        """Bytes for the next tick."""
        return len(self._waiting)

    async def drain(self) -> None:
        """Send what waits; the stream does it before its end. Raises as `write`."""
        while self._waiting:
            await self._sink.room()
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        if self._waiting and self._sink.push(bytes(self._waiting)):
            self._waiting.clear()

    def _start(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._tick, when)

    def _tick(self, when: float) -> None:
        self._timer = None
        if self._waiting and not self._sink.over:
            self._flush()
            # From the tick that was due, unless the loop was late by a whole one.
            self._start(max(when, self._loop.time() - TICK_S) + TICK_S)
