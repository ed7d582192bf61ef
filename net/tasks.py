"""The one way to start a background task: named, kept from garbage collection, no failure of it lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TaskGroup:
    """The running tasks of one owner. `spawn` starts one; `cancel_all` ends them and waits."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], tuple[type[Exception], ...]] = {}

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        name: str,
        told: tuple[type[Exception], ...] = (),
    ) -> asyncio.Task[T]:
        """Start `coroutine`. Its failure is logged with the task's name, but for those that are `told`
        by whoever awaits the task."""
        task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 - this is the place
        self._tasks[task] = told
        task.add_done_callback(self._done)
        return task

    def repeat(
        self,
        turn: Callable[[], Awaitable[None]],
        *,
        name: str,
        pause_s: float,
        ended: Callable[[bool], None] = lambda well: None,
    ) -> asyncio.Task[None]:
        """Call `turn`, which waits for what it needs, again and again. One that fails is logged, and the next
        follows after a pause; `ended` is told of each whether it went well."""

        async def run() -> None:
            while True:
                try:
                    await turn()
                except Exception as error:
                    _log.error("task %s failed, and goes on", name, exc_info=error)
                    ended(False)
                    await asyncio.sleep(pause_s)
                else:
                    ended(True)

        return self.spawn(run(), name=name)

    def _done(self, task: asyncio.Task[Any]) -> None:
        told = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, told):
            _log.error("task %s failed", task.get_name(), exc_info=error)

    async def cancel_all(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ended(seconds: float, what: str, *closing: Awaitable[object]) -> None:
    """Returns when these have ended, or so many seconds are over. Which of them failed is logged."""
    try:
        async with asyncio.timeout(seconds):
            results = await asyncio.gather(*closing, return_exceptions=True)
    except TimeoutError:
        _log.warning("closing: %s took too long", what)
        return
    for error in results:
        if isinstance(error, Exception):
            _log.error("closing: %s failed", what, exc_info=error)
