"""What a worker does with one model: answers, embeddings and what is computed aside, by turns. Models that
only make embeddings give no answers. Knows no pipes, as `batching.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from infraxa.engine.aside import Aside
from infraxa.engine.batching import Batcher, Output
from infraxa.engine.calibration import calibrate
from infraxa.engine.compiling import Compiling
from infraxa.engine.constraint import Constraint
from infraxa.engine.embedding import Embedder
from infraxa.engine.frames import Calibrate, Calibrating, Embedding, Ended, Score, ScoreMade
from infraxa.engine.scoring import Means, score
from infraxa.engine.types import ChatMessage, EngineError, Finished, Request, Usage

TOKENS_READ = 1000
"""Of the vocabulary between two steps, before the first constraint: 3 ms."""
WAIT: Final = 0.01
"""Seconds for which a step without anything else to do waits for what is compiled."""


class _Parked(NamedTuple):
    id: int
    request: Request
    received: float
    compiling: Compiling[Constraint] | None
    """None: until the vocabulary is read."""


class Work:
    """Of one model. Not thread-safe but `interrupt`."""

    def __init__(self, batcher: Batcher | None, embedder: Embedder, means: Means | None = None) -> None:
        """`batcher`: None for a model that cannot answer. `means`: None for one that checks no answers."""
        self._batcher = batcher
        self._embedder = embedder
        self._means = means
        self._aside: Aside[ScoreMade | Calibrating] = Aside()
        self._early: list[Ended] = []
        """Of requests that no batcher has seen."""
        self._parked: list[_Parked] = []
        """Those that wait for their constraint."""
        self._made: list[Embedding | ScoreMade | Calibrating] = []

    @property
    def busy(self) -> bool:
        batcher = self._batcher
        beside = self._embedder.busy or self._aside.busy
        return beside or bool(self._parked) or (batcher is not None and batcher.busy)

    @property
    def urgent(self) -> bool:
        """Something happened that is worth telling at once."""
        return bool(self._early or self._made) or (self._batcher is not None and self._batcher.urgent)

    @property
    def step_number(self) -> int:
        beside = self._embedder.steps + self._aside.steps
        return beside + (self._batcher.step_number if self._batcher is not None else 0)

    @property
    def n_running(self) -> int:
        return self._batcher.scheduler.n_running if self._batcher is not None else 0

    @property
    def n_waiting(self) -> int:
        return self._batcher.scheduler.n_waiting if self._batcher is not None else 0

    def submit(self, request_id: int, request: Request, received: float) -> None:
        """Takes a request in. What is wrong with it comes out as its end."""
        if self._batcher is None:
            self._early.append(Ended(request_id, Finished("failed", Usage(), _cannot_answer().info)))
        elif self._batcher.constraints.wants(request):
            self._parked.append(_Parked(request_id, request, received, None))
        else:
            self._batcher.submit(request_id, request, received)

    def embed(self, request_id: int, texts: Sequence[str]) -> None:
        self._embedder.submit(request_id, texts)

    def score(self, asked: Score) -> None:
        """Gives ScoreMades, the last with the result or an error."""
        if self._means is None:
            self._made.append(ScoreMade(asked.id, error=_cannot_answer().info))
            return
        self._aside.submit(
            asked.id,
            score(self._aside, self._means, asked),
            lambda error: ScoreMade(asked.id, error=error),
            lambda done: ScoreMade(asked.id, done=done),
        )

    def calibrate(self, asked: Calibrate) -> None:
        """Gives Calibratings, the last with the result or an error."""
        if self._means is None:
            self._made.append(Calibrating(asked.id, error=_cannot_answer().info))
            return
        self._aside.submit(
            asked.id,
            calibrate(self._aside, self._means, asked),
            lambda error: Calibrating(asked.id, error=error),
            lambda done: Calibrating(asked.id, done),
            patient=True,
        )

    def cancel(self, request_id: int) -> None:
        """Ends a request before the next step; does nothing when it is over."""
        self._aside.cancel(request_id)
        self._embedder.cancel(request_id)
        if self._batcher is not None:
            for parked in [one for one in self._parked if one.id == request_id]:
                self._parked.remove(parked)
                if parked.compiling is not None:
                    self._batcher.constraints.compilers.cancel(parked.compiling)
                self._early.append(Ended(request_id, Finished("cancelled", Usage())))
            self._batcher.cancel(request_id)

    def interrupt(self, request_id: int) -> None:
        """Any thread: as `Batcher.interrupt`."""
        self._aside.interrupt(request_id)
        if self._batcher is not None:
            self._batcher.interrupt(request_id)

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that this conversation makes. Raises EngineError."""
        if self._batcher is None:
            raise _cannot_answer()
        return self._batcher.count(messages)

    def step(self) -> None:
        """One step of the answers, one of a text that is embedded, and one of what is computed aside."""
        if self._batcher is not None:
            if self._parked and self._batcher.constraints.prepare(TOKENS_READ):
                self._compile(self._batcher)
            self._batcher.step()
        if self._embedder.busy and (made := self._embedder.step()) is not None:
            self._made.append(made)
        if self._aside.busy:
            beside = self._embedder.busy or (self._batcher is not None and self._batcher.busy)
            if (told := self._aside.step(beside=beside)) is not None:
                self._made.append(told)

    def _compile(self, batcher: Batcher) -> None:
        """The batcher gets those whose constraint is made, or cannot be; meanwhile it goes on with others."""
        constraints = batcher.constraints
        self._parked = [
            one if one.compiling is not None else one._replace(compiling=constraints.begin(one.request))
            for one in self._parked
        ]
        constraints.compilers.go_on()
        if not batcher.busy and not self._embedder.busy and not self._aside.busy:
            constraints.compilers.wait(WAIT)
        parked, self._parked = self._parked, []
        for one in parked:
            if one.compiling is not None and one.compiling.over:
                batcher.submit(*one)
            else:
                self._parked.append(one)

    def take(self) -> Output:
        """What happened to the answers since the last call."""
        early, self._early = tuple(self._early), []
        output = self._batcher.take() if self._batcher is not None else Output((), (), ())
        return output._replace(ended=output.ended + early) if early else output

    def take_made(self) -> list[Embedding | ScoreMade | Calibrating]:
        """What else was made since the last call."""
        made, self._made = self._made, []
        return made

    def close(self) -> None:
        """Frees what is not the model's or its context's."""
        self._embedder.close()
        self._aside.close()
        if self._batcher is not None:
            self._batcher.close()


def _cannot_answer() -> EngineError:
    return EngineError(
        "unsupported", "This model makes embeddings; it cannot answer.", "Choose a chat model."
    )
