"""This node's own orders at each driver: so many at a time that it has a next one, and no more. The others
wait here, in the order in which they came, instead of being refused there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

MOST: Final = 64
"""Orders at a time that any driver takes of one user; protocol §5."""
PER_SLOT: Final = 2
"""One that is answered, and one that is next: a driver lets no user have more in its line."""


class AtDriver:
    """Of one node."""

    def __init__(self) -> None:
        self._there: dict[bytes, int] = {}
        """By driver: how many have a turn."""
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, driver: bytes, slots: int, seconds: float) -> AsyncIterator[None]:
        """The block runs while there is room for another order at the driver. `slots`: what it says that it
        answers at a time. Raises TimeoutError after so long."""
        await self._take(driver, min(PER_SLOT * slots, MOST), seconds)
        try:
            yield
        finally:
            self._next(driver)

    def busy(self, driver: bytes, slots: int) -> bool:
        """Whether one that came now would have to wait."""
        return driver in self._waiting or self._there.get(driver, 0) >= min(PER_SLOT * slots, MOST)

    async def _take(self, driver: bytes, most: int, seconds: float) -> None:
        if driver not in self._waiting and self._there.get(driver, 0) < most:
            self._there[driver] = self._there.get(driver, 0) + 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(driver, deque()).append(mine)
        try:
            async with asyncio.timeout(seconds):
                await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self._next(driver)  # it was given a turn that it does not use
            else:
                self._forget(driver, mine)
            raise

    def _next(self, driver: bytes) -> None:
        """A turn is over: it is the next one's."""
        while waiting := self._waiting.get(driver):
            following = waiting.popleft()
            if not waiting:
                del self._waiting[driver]
            if not following.done():
                following.set_result(None)
                return
        self._there[driver] -= 1
        if not self._there[driver]:
            del self._there[driver]

    def _forget(self, driver: bytes, mine: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(driver)
        if waiting is not None and mine in waiting:
            waiting.remove(mine)
            if not waiting:
                del self._waiting[driver]
