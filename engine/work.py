"""What a worker does with one model: answers and embeddings, by turns. Models that only make embeddings give
no answers. Knows no pipes, as `batching.py`."""

from __future__ import annotations

from collections.abc import Sequence

from infraxa.engine.batching import Batcher, Output
from infraxa.engine.embedding import Embedder
from infraxa.engine.frames import Embedding, Ended
from infraxa.engine.types import ChatMessage, EngineError, Finished, Request, Usage

TOKENS_READ = 1000
"""Of the vocabulary between two steps, before the first constraint: 3 ms."""


class Work:
    """Of one model. Not thread-safe but `interrupt`."""

    def __init__(self, batcher: Batcher | None, embedder: Embedder) -> None:
        """`batcher`: None for a model that cannot answer."""
        self._batcher = batcher
        self._embedder = embedder
        self._early: list[Ended] = []
        """Of requests that no batcher has seen."""
        self._parked: list[tuple[int, Request, float]] = []
        """Those that wait for the first constraint to be possible."""
        self._embeddings: list[Embedding] = []

    @property
    def busy(self) -> bool:
        batcher = self._batcher
        return bool(self._parked) or self._embedder.busy or (batcher is not None and batcher.busy)

    @property
    def urgent(self) -> bool:
        """Something happened that is worth telling at once."""
        return bool(self._early or self._embeddings) or (self._batcher is not None and self._batcher.urgent)

    @property
    def step_number(self) -> int:
        return self._embedder.steps + (self._batcher.step_number if self._batcher is not None else 0)

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
        elif self._batcher.constraints.wants(request) and not self._batcher.constraints.prepare(0):
            self._parked.append((request_id, request, received))
        else:
            self._batcher.submit(request_id, request, received)

    def embed(self, request_id: int, texts: Sequence[str]) -> None:
        self._embedder.submit(request_id, texts)

    def cancel(self, request_id: int) -> None:
        """Ends a request before the next step; does nothing when it is over."""
        self._embedder.cancel(request_id)
        if any(parked[0] == request_id for parked in self._parked):
            self._parked = [parked for parked in self._parked if parked[0] != request_id]
            self._early.append(Ended(request_id, Finished("cancelled", Usage())))
        if self._batcher is not None:
            self._batcher.cancel(request_id)

    def interrupt(self, request_id: int) -> None:
        """Any thread: as `Batcher.interrupt`."""
        if self._batcher is not None:
            self._batcher.interrupt(request_id)

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that this conversation makes. Raises EngineError."""
        if self._batcher is None:
            raise _cannot_answer()
        return self._batcher.count(messages)

    def step(self) -> None:
        """One step of the answers, and one of a text that is embedded."""
        if self._batcher is not None:
            if self._parked and self._batcher.constraints.prepare(TOKENS_READ):
                parked, self._parked = self._parked, []
                for one in parked:
                    self._batcher.submit(*one)
            self._batcher.step()
        if self._embedder.busy and (made := self._embedder.step()) is not None:
            self._embeddings.append(made)

    def take(self) -> Output:
        """What happened to the answers since the last call."""
        early, self._early = tuple(self._early), []
        output = self._batcher.take() if self._batcher is not None else Output((), (), ())
        return output._replace(ended=output.ended + early) if early else output

    def take_embeddings(self) -> list[Embedding]:
        """Those that were made since the last call."""
        made, self._embeddings = self._embeddings, []
        return made

    def close(self) -> None:
        """Frees what is not the model's or its context's."""
        self._embedder.close()
        if self._batcher is not None:
            self._batcher.close()


def _cannot_answer() -> EngineError:
    return EngineError(
        "unsupported", "This model makes embeddings; it cannot answer.", "Choose a chat model."
    )
