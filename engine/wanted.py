"""What the host waits for besides answers: vectors, scores and calibrations, each until its last message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from infraxa.engine.frames import Calibrating, Embedding, ScoreMade
from infraxa.engine.types import Embedded, EngineError, ErrorInfo, Scored

T = TypeVar("T")


class Wanted(Generic[T]):
    """One thing, and whoever waits for it."""

    def __init__(self) -> None:
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def add(self, message: Embedding | ScoreMade | Calibrating) -> None:
        """The worker said something about it."""
        raise NotImplementedError

    def fail(self, error: ErrorInfo) -> None:
        settle(self.done, None, error)


class Vectors(Wanted[Embedded]):
    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._made: list[Embedding] = []

    def add(self, message: Embedding | ScoreMade | Calibrating) -> None:
        assert isinstance(message, Embedding)
        made = self._made
        made.append(message)
        if message.error is not None or len(made) == self._count:
            vectors = tuple(one.vector for one in made)
            settle(self.done, Embedded(vectors, tuple(one.n_tokens for one in made)), message.error)


class Score(Wanted[Scored]):
    def __init__(self, on_progress: Callable[[float], None]) -> None:
        super().__init__()
        self._on_progress = on_progress

    def add(self, message: Embedding | ScoreMade | Calibrating) -> None:
        assert isinstance(message, ScoreMade)
        if message.error is not None or message.scored is not None:
            settle(self.done, message.scored, message.error)
        else:
            self._on_progress(message.done)


class Calibration(Wanted[float]):
    def __init__(self, on_progress: Callable[[float], None]) -> None:
        super().__init__()
        self._on_progress = on_progress

    def add(self, message: Embedding | ScoreMade | Calibrating) -> None:
        assert isinstance(message, Calibrating)
        if message.error is not None or message.mu0 is not None:
            settle(self.done, message.mu0, message.error)
        else:
            self._on_progress(message.done)


def settle(future: asyncio.Future[T] | None, result: T | None, error: ErrorInfo | None = None) -> None:
    """Answers whoever still waits for the future."""
    if future is None or future.done():
        return
    if error is not None:
        future.set_exception(EngineError(error.code, error.message, error.remedy))
    else:
        assert result is not None
        future.set_result(result)
