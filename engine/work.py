"""What a worker does with one model: answers and embeddings, by turns. Models that only make embeddings give
no answers. Knows no pipes, as `batching.py`."""

from __future__ import annotations

from collections.abc import Sequence

from infraxa.engine.batching import Batcher, Output
from infraxa.engine.embedding import Embedder
from infraxa.engine.frames import Embedding, Ended
from infraxa.engine.types import ChatMessage, EngineError, Finished, Request, Usage


class Work:
    """Of one model. Not thread-safe but `interrupt`."""

    def __init__(self, batcher: Batcher | None, embedder: Embedder) -> None:
        """`batcher`: None for a model that cannot answer."""
        self._batcher = batcher
        self._embedder = embedder
        self._refused: list[Ended] = []
        self._embeddings: list[Embedding] = []

    @property
    def busy(self) -> bool:
        return self._embedder.busy or (self._batcher is not None and self._batcher.busy)

    @property
    def urgent(self) -> bool:
        """Something happened that is worth telling at once."""
        return bool(self._refused or self._embeddings) or (self._batcher is not None and self._batcher.urgent)

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
        if self._batcher is not None:
            self._batcher.submit(request_id, request, received)
        else:
            self._refused.append(Ended(request_id, Finished("failed", Usage(), _cannot_answer().info)))

    def embed(self, request_id: int, texts: Sequence[str]) -> None:
        self._embedder.submit(request_id, texts)

    def cancel(self, request_id: int) -> None:
        """Ends a request before the next step; does nothing when it is over."""
        self._embedder.cancel(request_id)
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
            self._batcher.step()
        if self._embedder.busy and (made := self._embedder.step()) is not None:
            self._embeddings.append(made)

    def take(self) -> Output:
        """What happened to the answers since the last call."""
        refused, self._refused = tuple(self._refused), []
        if self._batcher is not None:
            return self._batcher.take()
        return Output((), (), refused)

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
