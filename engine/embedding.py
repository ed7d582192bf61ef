"""Vectors that say what texts mean, made by the loaded weights in a small context of their own.

A text is read in chunks between the steps of `batching.py`, so that running answers go on; models that look
at a whole text at once (BERT and the like) read it in one. What a request is made of is in `checks.py`.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from infraxa.engine.bindings import api as _api
from infraxa.engine.frames import Embedding
from infraxa.engine.llama import Model
from infraxa.engine.types import EngineError

MAX_TOKENS: Final = 2048
"""Of one text, where the model was not trained for fewer."""
CHUNK: Final = 64
"""Tokens that are read at once: their logits are computed too, 40 MB with a large vocabulary."""
MAX_TOKEN_LETTERS: Final = 16
"""A text of more characters for each token it may have is too long without looking at it."""
_MEAN, _FIRST, _LAST = 1, 2, 3
"""llama.cpp's kinds of pooling, of those that give a vector of a text's meaning."""


class Embedder:
    """Of one model. Takes no memory before its first text."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._threads = threads
        self.limit = min(model.n_ctx_train or MAX_TOKENS, MAX_TOKENS)
        """Tokens of one text."""
        self._queue: deque[_Text] = deque()
        self._context: _Context | None = None
        self.steps = 0

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    def submit(self, request_id: int, texts: Sequence[str]) -> None:
        """Each of them gives one Embedding, in order, until one fails."""
        self._queue.extend(_Text(request_id, text) for text in texts)

    def cancel(self, request_id: int) -> None:
        """Nothing more comes of it; does nothing when it is over."""
        self._queue = deque(text for text in self._queue if text.request_id != request_id)

    def step(self) -> Embedding | None:
        """Reads some of the first text. None: it is not done."""
        text = self._queue[0]
        self.steps += 1
        try:
            vector = self._read(text)
        except EngineError as error:
            self.cancel(text.request_id)
            return Embedding(text.request_id, b"", 0, error.info)
        if vector is None:
            return None
        self._queue.popleft()
        return Embedding(text.request_id, vector, len(text.tokens))

    def _read(self, text: _Text) -> bytes | None:
        """The vector, when the text is at its end. Raises EngineError."""
        if self._context is None:
            self._context = _Context(self._model, self.limit, self._threads)
        context = self._context
        if not text.done:
            text.tokens = self._tokens(text.text)
            context.clear()
        begin = text.done
        end = text.done = min(begin + context.n_batch, len(text.tokens))
        rows = context.read(text.tokens[begin:end], begin)
        if context.pooling == _MEAN:
            part = rows.sum(axis=0, dtype="f8")
            text.sum = part if text.sum is None else text.sum + part
        elif context.pooling == _LAST or not begin:
            text.sum = rows[-1 if context.pooling == _LAST else 0].astype("f8")
        return _normalised(text.sum) if end == len(text.tokens) else None

    def _tokens(self, text: str) -> list[int]:
        if len(text) <= MAX_TOKEN_LETTERS * self.limit:
            tokens = self._model.tokenize_for_meaning(text)
            if not tokens:
                raise EngineError("bad_request", "There is nothing in the text to embed.", "Send a text.")
            if len(tokens) <= self.limit:
                return tokens
        raise EngineError(
            "prompt_too_long",
            f"A text is longer than the {self.limit} tokens that this model embeds at once.",
            "Cut it into shorter ones.",
        )

    def close(self) -> None:
        """Frees the memory."""
        context, self._context = self._context, None
        if context is not None:
            context.close()


class _Text:
    """One that waits or is being read."""

    def __init__(self, request_id: int, text: str) -> None:
        self.request_id = request_id
        self.text = text
        self.tokens: list[int] = []
        self.done = 0
        self.sum: Any = None
        """Of what was read: a vector of numpy."""


class _Context:
    """llama.cpp's, for vectors of tokens and one text at a time."""

    def __init__(self, model: Model, limit: int, threads: int) -> None:
        self.pooling = _pooling(model)
        whole = model.metadata(f"{model.metadata('general.architecture')}.attention.causal") == "false"
        self.n_batch = limit if whole else min(CHUNK, limit)
        params = _api.llama_context_default_params()
        params.n_ctx = limit
        params.n_seq_max = 1
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        # The rows are put together here, which works chunk by chunk too.
        params.pooling_type = _api.LLAMA_POOLING_TYPE_NONE
        handle = _api.llama_init_from_model(model.handle, params)
        if not handle:
            raise EngineError(
                "no_memory", "There is no memory to make embeddings.", "Close other programs, or try later."
            )
        self._handle: int | None = handle
        self._memory = _api.llama_get_memory(handle)
        self._width: int = _api.llama_model_n_embd_out(model.handle)
        self._batch = _api.llama_batch_init(self.n_batch, 0, 1)

    def clear(self) -> None:
        if self._memory:
            _api.llama_memory_clear(self._memory, True)

    def read(self, tokens: Sequence[int], start: int) -> Any:
        """One row of numbers for each token, in llama.cpp's own memory. Raises EngineError."""
        import numpy as np

        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = True
        run = _api.llama_decode if self._memory else _api.llama_encode
        code = run(self._handle, batch)
        numbers = None if code else _api.llama_get_embeddings(self._handle)
        if not numbers:
            raise EngineError(
                "compute_failed", f"llama.cpp failed while computing (code {code}).", "Try again."
            )
        address = ctypes.cast(numbers, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, (len(tokens), self._width))

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            _api.llama_batch_free(self._batch)
            _api.llama_free(handle)


def _pooling(model: Model) -> int:
    """What the model was trained for; chat models were for none, and the mean does well."""
    named = model.metadata(f"{model.metadata('general.architecture')}.pooling_type")
    return int(named) if named in ("1", "2", "3") else _MEAN


def _normalised(vector: Any) -> bytes:
    """Of length 1, as little-endian 32-bit numbers. Raises EngineError when it has no length."""
    import numpy as np

    length = float(np.linalg.norm(vector))
    if not 0 < length < float("inf"):
        raise EngineError("compute_failed", "The model gave no vector for a text.", "Choose another model.")
    data: bytes = (vector / length).astype("<f4").tobytes()
    return data
