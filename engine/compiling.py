"""Schemas are compiled beside the answers: in threads, one of each user at a time, and not for long.

No thread can be ended. One that was given up goes on, and whoever asked for it is refused others meanwhile.
What is compiled is in constraint.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from infraxa.engine.grammars import refused
from infraxa.engine.jobs import OWN
from infraxa.engine.types import EngineError

STACK: Final = 256 << 20
"""Bytes, for a compiler that calls itself for what lies within: three times what MAX_PLACES took. Only what
is used of it takes memory."""
COMPILE_SECONDS: Final = 2.0
"""All sizes are such that half of it does."""
AT_ONCE: Final = 3
"""Threads for what other users ask. The person of this machine does not wait for them."""
T = TypeVar("T")


class Compiling(Generic[T]):
    """One of them, from when it is asked for. Raised errors are kept for `result`."""

    def __init__(self, user: str, work: Callable[[float], T]) -> None:
        """`work` is told until when it may take, by `time.monotonic`."""
        self.user = user
        self._work = work
        self._thread: threading.Thread | None = None
        self._until = math.inf
        self._made: T | None = None
        self._error: EngineError | None = None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def late(self) -> bool:
        """It goes on, and nobody waits for it."""
        return self.alive and time.monotonic() >= self._until

    @property
    def over(self) -> bool:
        """`result` says what came of it."""
        return self._error is not None or (self._thread is not None and (not self.alive or self.late))

    def start(self) -> None:
        self._until = time.monotonic() + COMPILE_SECONDS
        before = threading.stack_size(STACK)
        try:
            thread = threading.Thread(target=self._run, name="schema", daemon=True)
            thread.start()
            self._thread = thread
        except RuntimeError:
            self.refuse(refused("there is no memory left to compile it"))
        finally:
            threading.stack_size(before)

    def _run(self) -> None:
        try:
            self._made = self._work(self._until)
        except EngineError as error:
            self._error = error
        except Exception as error:
            self._error = refused(f"it is malformed ({type(error).__name__})")

    def refuse(self, error: EngineError) -> None:
        self._error = error

    def wait(self, seconds: float) -> None:
        """Until it is over, but no longer than that."""
        if self._thread is not None:
            self._thread.join(max(0.0, min(seconds, self._until - time.monotonic())))

    def result(self) -> T:
        """Of one that is over. Raises EngineError."""
        if self._error is not None:
            raise self._error
        if self._made is None:
            raise refused("it is too complicated")
        return self._made


class Compilers(Generic[T]):
    """Those of one model. For one thread."""

    def __init__(self) -> None:
        self._queue: list[Compiling[T]] = []
        self._started: list[Compiling[T]] = []

    def begin(self, user: str, work: Callable[[float], T]) -> Compiling[T]:
        compiling = Compiling(user, work)
        self._queue.append(compiling)
        self.go_on()
        return compiling

    def go_on(self) -> None:
        """Starts those whose turn it is, and refuses those whose turn would not come."""
        started = self._started = [one for one in self._started if one.alive]
        late = {one.user for one in started if one.late}
        for one in list(self._queue):
            users = {other.user for other in started}
            strangers = len(users - {OWN})
            if one.user in late or (one.user != OWN and len(late - {OWN}) >= AT_ONCE):
                one.refuse(refused("another one is too complicated, and not done yet"))
            elif one.user in users or (one.user != OWN and strangers >= AT_ONCE):
                continue
            else:
                one.start()
                started.append(one)
            self._queue.remove(one)

    def cancel(self, compiling: Compiling[T]) -> None:
        """Nobody wants it any more. One that was started keeps its place until it is over."""
        if compiling in self._queue:
            self._queue.remove(compiling)

    def wait(self, seconds: float) -> None:
        """Until one of them is over, but no longer than that."""
        for one in self._started:
            if not one.over:
                one.wait(seconds)
                return
