"""An answer's logits as the loaded model computes them: its prompt and tokens are read at once, as if it had
said them, and only the asked steps give logits. How far those are from committed ones is in verdicts.py. What
its tokens say is put together beside it, see said.py.

Reading is many times quicker than generating, and the context is made for one answer and freed after it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

from infraxa.engine.aside import Aside
from infraxa.engine.frames import Score, ScoreMade
from infraxa.engine.gumbel import UNIT
from infraxa.engine.llama import Context, Model
from infraxa.engine.said import Said
from infraxa.engine.transcript import packed, quantised
from infraxa.engine.types import EngineError, FlashAttention, KvType, Request, Scored, ScoredRow

PIECE: Final = 512
"""Rows that are read at once, where nobody else waits."""
LOGITS: Final = 40 << 20
"""Bytes that the logits of one piece may take; llama.cpp needs as much again while it computes them."""
KEPT_FREE: Final = 256 << 20
"""Bytes of memory that scoring leaves to others."""
LOWEST: Final = -(2**31) + 1
"""The logit, in 1/4096, of a token that the model does not have."""


class Means(NamedTuple):
    """What contexts beside the answers' one are made with."""

    model: Model
    read: Callable[[Request], list[int]]
    """A request's prompt. Raises EngineError."""
    threads: int
    token_bytes: Callable[[KvType], int]
    """What one token takes in a cache."""
    free: Callable[[], int]
    """Bytes of memory that are free now."""
    flash_attention: FlashAttention = "auto"

    def open(
        self,
        n_ctx: int,
        *,
        slots: int = 1,
        outputs: int = 0,
        piece: int = PIECE,
        kv_type: KvType = "f16",
        flash_attention: FlashAttention | None = None,
        model: Model | None = None,
    ) -> Context:
        """A context of `slots` times `n_ctx` tokens. Raises EngineError `no_memory`."""
        if kv_type != "f16":
            flash_attention = "auto"  # which other caches need
        need = self.token_bytes(kv_type) * n_ctx * slots + 8 * outputs * self.model.n_vocab
        if need > self.free() - KEPT_FREE:
            raise EngineError(
                "no_memory",
                f"There is no memory to check an answer of {n_ctx} tokens.",
                "Close other programs, or try later.",
            )
        return Context(
            model or self.model,
            n_ctx=n_ctx,
            slots=slots,
            n_batch=piece,
            threads=self.threads,
            kv_type=kv_type,
            flash_attention=flash_attention or self.flash_attention,
            n_outputs=outputs,
        )


def score(aside: Aside[Any], means: Means, asked: Score) -> Generator[float, None, ScoreMade]:
    """The task of `aside`. Raises EngineError."""
    model = means.model
    _check_answer(model, asked.answer)
    prompt = means.read(asked.request)
    tokens = [*prompt, *asked.answer[: asked.steps[-1]]]
    _check_tokens(model, prompt, tokens, asked.most)
    budget = asked.request.budget
    if budget is not None and (budget.tokens(len(tokens)) or 0) < 0:
        raise EngineError(
            "over_budget", "The prompt and its answer cost more than they may.", "Allow it to cost more."
        )
    first = len(prompt) - 1
    piece = min(PIECE, len(tokens))
    outputs = min(len(asked.steps), piece, max(1, LOGITS // (4 * model.n_vocab)))
    rows = _Rows(asked, first)
    with means.open(len(tokens), outputs=outputs, piece=piece, kv_type=asked.kv_type) as context:
        done = 0
        while done < len(tokens):
            n = rows.fill(context, tokens, done, aside.rows(piece))
            aside.decode(context, n)
            rows.take(context, done, n)
            done += n
            yield done / len(tokens)
    said = Said(model.piece, asked.request.sampling.stop, asked.chars)
    for at in range(0, len(asked.answer), PIECE):
        said.add(asked.answer[at : at + PIECE])
        yield 1.0
    scored = Scored(len(prompt), packed(prompt), tuple(rows.made), said.end, said.finish())
    return ScoreMade(asked.id, scored)


def _check_answer(model: Model, answer: Sequence[int]) -> None:
    """Also of what is not read: it is found for nothing, and no model samples it."""
    if min(answer) < 0 or max(answer) >= model.n_vocab:
        raise EngineError(
            "no_token",
            "The answer holds tokens that this model does not have.",
            "Another model made it.",
        )


def _check_tokens(model: Model, prompt: Sequence[int], tokens: Sequence[int], most: int) -> None:
    if not prompt:
        raise EngineError("bad_request", "There is no prompt to score an answer to.", "Send a message.")
    if most and len(tokens) > most:
        raise EngineError(
            "prompt_too_long",
            f"The prompt and its answer are {len(tokens)} tokens long, where {most} are allowed.",
            "Ask for less.",
        )
    if model.n_ctx_train and len(tokens) > model.n_ctx_train:
        raise EngineError(
            "prompt_too_long",
            f"The prompt and its answer are {len(tokens)} tokens long; this model was trained for "
            f"{model.n_ctx_train}.",
            "It cannot be checked with this model.",
        )
    if min(prompt) < 0 or max(prompt) >= model.n_vocab:
        raise EngineError(
            "bad_request", "The prompt holds tokens that this model does not have.", "Send another one."
        )


class _Rows:
    """Of one answer: which positions give logits, and what came of them."""

    def __init__(self, asked: Score, first: int) -> None:
        self._ids = dict(zip((first + s for s in asked.steps), asked.ids, strict=True)) if asked.ids else {}
        self._wanted = {first + s for s in asked.steps}
        self.made: list[ScoredRow] = []

    def fill(self, context: Context, tokens: Sequence[int], start: int, most: int) -> int:
        """The next piece, up to `most` rows and as many logits as there is room for. Returns its rows."""
        outputs = n = 0
        for n, position in enumerate(range(start, min(start + most, len(tokens)))):
            wanted = position in self._wanted
            if wanted and outputs == context.n_outputs:
                return n
            outputs += wanted
            context.output[n] = wanted
            context.token[n] = tokens[position]
            context.pos[n] = position
            context.seq[n] = 0
        return n + 1

    def take(self, context: Context, start: int, rows: int) -> None:
        """Raises EngineError when there are logits that are no numbers."""
        for row in range(rows):
            if context.output[row]:
                self.made.append(scored_row(context, row, self._ids.get(start + row, b"")))


def scored_row(context: Context, row: int, ids: bytes) -> ScoredRow:
    """Of that row of the last decode. Raises EngineError `compute_failed`."""
    import numpy as np

    from infraxa.engine.logits import row_of_logits

    logits = row_of_logits(context, row)
    top, q = quantised(logits)
    at = np.frombuffer(ids, "<u4")
    known = at < len(logits)
    values = np.rint(logits[np.where(known, at, 0)].astype(np.float64) * UNIT).clip(LOWEST, -LOWEST)
    fixed = np.where(known, values, LOWEST).astype("<i4")
    return ScoredRow(top.astype("<u4").tobytes(), q.astype("<i4").tobytes(), fixed.tobytes())
