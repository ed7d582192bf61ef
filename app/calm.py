"""Tells of changes as they come, and not more often than somebody can see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Calm:
    """Calls `tell` when something changed: at once, then at most every so many seconds, and for the last
    change in any case."""

    def __init__(self, tell: Callable[[], None], seconds: float) -> None:
        self._call = tell
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._news = False
        self._stopped = False

    def changed(self) -> None:
        if self._timer is not None or self._stopped:
            self._news = True
            return
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._due)
        self._call()

    def _due(self) -> None:
        self._timer = None
        if self._news:
            self._news = False
            self.changed()

    def stop(self) -> None:
        """Tell what is not told, and nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._news:
            self._call()
        self._stopped = True
