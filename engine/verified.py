"""Chooses the tokens of one verified answer, and makes the leaf of each.

In place of a `Sampler`: the draw is gumbel.py's, over the candidates that the leaf holds (transcript.py), so
a token follows from its row of logits, whoever else is in the batch. Imported only when somebody asks for it,
as it takes numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from infraxa.engine import gumbel, transcript
from infraxa.engine.llama import Context
from infraxa.engine.logits import row_of_logits
from infraxa.engine.types import Verified


class VerifiedSampler:
    """Of one request."""

    def __init__(self, context: Context, verified: Verified, prompt: Sequence[int]) -> None:
        self._context = context
        self._order = verified.order
        self._seed = verified.seed
        self._salt = verified.salt
        self._draw = gumbel.draw_of(*verified.ppm)
        self.ctx0 = transcript.ctx0(verified.salt, prompt)
        """What the first leaf stands on."""
        self._ctx = self.ctx0
        self._step = 0
        self._chosen: tuple[int, list[int], list[int]] | None = None

    def sample(self, row: int) -> int:
        """The next token, from the logits of that row of the last decode; `leaf` must follow. Raises
        EngineError `compute_failed` for logits that are not finite."""
        found, logits = transcript.quantised(row_of_logits(self._context, row))
        ids, q = found.tolist(), logits.tolist()
        token = gumbel.choose(ids, q, self._draw, self._seed, self._step)
        self._chosen = token, ids, q
        return token

    def leaf(self, flags: int) -> bytes:
        """Of what was chosen last. `flags`: as of transcript.py."""
        assert self._chosen is not None
        token, ids, q = self._chosen
        step, ctx = self._step, self._ctx
        self._chosen = None
        self._step += 1
        self._ctx = transcript.ctx_next(ctx, token)
        tag = transcript.leaf_tag(self._salt, step)
        return transcript.encode_leaf(
            transcript.Leaf(self._order, step, ctx, token, flags, tuple(ids), tuple(q), tag)
        )
