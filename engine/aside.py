"""Long computations beside the answers, piece by piece, each in a context of its own that ends with it.

One is a generator: it yields how far it is, 0 to 1, and returns the message that tells what came of it. What
is computed is in scoring.py and calibration.py.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Final, Generic, NamedTuple, TypeVar

from infraxa.engine.llama import Aborted, Context
from infraxa.engine.types import EngineError, ErrorInfo

PART: Final = 4
"""While there are answers, one such part of the time is taken."""
PIECE_SECONDS: Final = 0.1
"""What a piece may add to a step of the answers."""
PROGRESS_STEP: Final = 0.01
FIRST_ROWS: Final = 8
"""Of a piece, while nobody knows how long a row takes; and the least."""

Message = TypeVar("Message")
Run = Generator[float, None, Message]


class _Task(NamedTuple, Generic[Message]):
    id: int
    run: Run[Message]
    progress: Callable[[float], Message] | None
    failed: Callable[[ErrorInfo], Message]
    patient: bool


class Aside(Generic[Message]):
    """Takes no memory before its first task. Not thread-safe but `interrupt`."""

    def __init__(self) -> None:
        self.steps = 0
        self.beside = False
        """There are answers to be generated now."""
        self._queue: deque[_Task[Message]] = deque()
        self._context: Context | None = None
        """Which decodes, or did last."""
        self._row: float | None = None
        """Seconds that a row of the running task takes."""
        self._next = 0.0
        self._running = 0
        """The id of the task that made the last step."""
        self._told = 0.0

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    def submit(
        self,
        request_id: int,
        run: Run[Message],
        failed: Callable[[ErrorInfo], Message],
        progress: Callable[[float], Message] | None = None,
        *,
        patient: bool = False,
    ) -> None:
        """`failed` and `progress` make the messages that tell of an error, and how far it is. `patient`:
        those that are not go before it, also when it has begun."""
        at = sum(patient or not task.patient for task in self._queue)
        self._queue.insert(at, _Task(request_id, run, progress, failed, patient))

    def cancel(self, request_id: int) -> None:
        """Nothing more comes of it; does nothing when it is over."""
        for task in [task for task in self._queue if task.id == request_id]:
            self._end(task)

    def interrupt(self, request_id: int) -> None:
        """Any thread: ends the running piece if it is this one's. `cancel` must follow, from the main one."""
        context = self._context
        if context is not None and self._running == request_id:
            context.abort(True)

    def step(self, *, beside: bool) -> Message | None:
        """A piece of the first task, unless it is the answers' turn. None: there is nothing to tell."""
        began = time.perf_counter()
        if beside and began < self._next:
            return None
        self.beside = beside
        self.steps += 1
        task = self._queue[0]
        if self._running != task.id:
            self._running, self._context, self._row, self._told = task.id, None, None, 0.0
        try:
            done = next(task.run)
            if task.progress is None or done < self._told + PROGRESS_STEP:
                return None
            self._told = done
            return task.progress(done)
        except StopIteration as end:
            self._end(task)
            made: Message = end.value
            return made
        except Aborted:
            self._end(task)
            return None
        except EngineError as error:
            self._end(task)
            return task.failed(error.info)
        finally:
            now = time.perf_counter()
            self._next = now + (PART - 1) * (now - began)

    def _end(self, task: _Task[Message]) -> None:
        if self._running == task.id:
            self._context = None
        self._queue.remove(task)
        task.run.close()

    def rows(self, most: int) -> int:
        """For a task: how many rows the next piece may have."""
        if not self.beside:
            return most
        if self._row is None:
            return min(most, FIRST_ROWS)
        return max(1, min(most, max(FIRST_ROWS, int(PIECE_SECONDS / self._row))))

    def decode(self, context: Context, rows: int) -> None:
        """For a task. As `Context.decode`."""
        self._context = context
        began = time.perf_counter()
        context.decode(rows)
        self._row = (time.perf_counter() - began) / rows

    def close(self) -> None:
        """Frees the memory."""
        for task in list(self._queue):
            self._end(task)
