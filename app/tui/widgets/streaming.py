"""Text that comes faster than a screen should be painted: gathered, and shown at the pace that the machine
can spare.

A producer calls `feed`, which only appends to a list. One task takes all that has gathered, shows it,
measures what that cost in CPU time and then rests three times as long: the screen takes at most a quarter of
a core, and the model keeps its own. The first text is shown at once. Nothing is shown while nobody can see
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import thread_time

SHORTEST_REST = 1 / 15
"""Seconds: 15 updates a second look continuous."""
REST_PER_COST = 3.0
"""Rest so many times the cost: at most 1/(1+3) of a core."""
LONGEST_REST = 2.0


def rest_after(cost: float) -> float:
    """Seconds to rest after showing text cost so many seconds of CPU."""
    return min(LONGEST_REST, max(SHORTEST_REST, REST_PER_COST * cost))


class Flusher:
    """Shows what was fed. `show` displays a text and returns when it is painted."""

    def __init__(
        self,
        show: Callable[[str], Awaitable[None]],
        *,
        is_visible: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        self._show = show
        self._is_visible = is_visible
        self._clock = clock
        self._waiting: list[str] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._closing = False
        self.flushes = 0
        """How many times text was shown."""

    def feed(self, text: str) -> None:
        """More text; returns at once."""
        self._waiting.append(text)
        self._wake.set()

    def resume(self) -> None:
        """What is shown can be seen again."""
        if self._waiting:
            self._wake.set()

    def close(self) -> None:
        """No more text comes: `run` shows what is left, without resting, and returns."""
        self._closing = True
        self._wake.set()
        self._hurry.set()

    async def run(self) -> None:
        """Show text until closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._waiting and (self._closing or self._is_visible()):
                text = "".join(self._waiting)
                self._waiting.clear()
                before = self._clock()
                await self._show(text)
                self.flushes += 1
                await self._rest(rest_after(self._clock() - before))
            if self._closing and not self._waiting:
                return

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._hurry.wait(), seconds)
        except TimeoutError:
            return
