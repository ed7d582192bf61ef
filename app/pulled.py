"""A Source whose items are made by a task of its own, each of them when the one before is taken.

Who makes them waits while nobody asks, so a slow consumer slows down what they are made from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, NamedTuple

from infraxa.app.answering import Item
from infraxa.app.answers import DEFECT
from infraxa.engine.types import ErrorInfo, Finished, FinishReason
from infraxa.net.tasks import TaskGroup


class End(NamedTuple):
    reason: FinishReason
    error: ErrorInfo | None = None


class Pulled:
    """The base of a Source: `_work` makes its items, `_end` the last ones."""

    def __init__(self, tasks: TaskGroup, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._items: deque[Item] = deque()
        self._come = asyncio.Event()
        self._asked = asyncio.Event()
        """The consumer has taken all and asks for more."""
        self._task: asyncio.Task[End] | None = None
        self._ended = False
        """Nothing is added any more."""
        self._over = False
        """The last one was taken."""

    def _work(self) -> Coroutine[Any, Any, End]:
        """Make the items, with `_say` and `_tell`, until the end; how it ended."""
        raise NotImplementedError

    def _last(self, end: End) -> list[Item]:
        """The last items; Finished is the last of them."""
        raise NotImplementedError

    def _say(self, item: Item) -> None:
        """The next item; one of its kind that was not taken yet is out of date."""
        if not self._ended:
            if self._items and type(self._items[-1]) is type(item):
                self._items.pop()
            self._add(item)

    async def _tell(self, item: Item) -> None:
        """The next item; returns when it was taken and the one after it is asked for."""
        if not self._ended:
            self._add(item)
        await self._asked.wait()

    def _add(self, *items: Item) -> None:
        self._items.extend(items)
        self._asked.clear()
        self._come.set()

    def __aiter__(self) -> Pulled:
        return self

    async def __anext__(self) -> Item:
        if self._over:
            raise StopAsyncIteration
        if self._task is None and not self._ended:
            self._task = self._tasks.spawn(self._work(), name=self._name)
            self._task.add_done_callback(self._worked)
        try:
            while not self._items:
                self._come.clear()
                self._asked.set()
                await self._come.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        item = self._items.popleft()
        self._over = isinstance(item, Finished)
        return item

    def cancel(self) -> None:
        """End it now; does nothing the second time or after the end. Nobody waits for its task, which lets go
        of what the items were made from."""
        if self._task is not None:
            self._task.cancel()
        self._finish(End("cancelled"))

    def _worked(self, task: asyncio.Task[End]) -> None:
        if task.cancelled():
            self._finish(End("cancelled"))
        elif task.exception() is not None:  # the task's owner has logged it
            self._finish(End("failed", ErrorInfo("internal", DEFECT)))
        else:
            self._finish(task.result())

    def _finish(self, end: End) -> None:
        if not self._ended:
            self._ended = True
            self._add(*self._last(end))
