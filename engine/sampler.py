"""How one request chooses its tokens."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infraxa.engine.bindings import api as _api
from infraxa.engine.llama import Context
from infraxa.engine.types import Sampling, TokenLogprob

if TYPE_CHECKING:
    from infraxa.engine.constraint import Constraint

PENALTY_LAST_N = 64


class Sampler:
    """Of one request: llama.cpp's chain in llama.cpp's order."""

    def __init__(self, context: Context, sampling: Sampling, prompt: Sequence[int]) -> None:
        """`prompt`: repetitions of it count for the penalties too."""
        chain = _api.llama_sampler_chain_init(_api.llama_sampler_chain_default_params())
        self._handle: int | None = chain
        self._context = context
        add = _api.llama_sampler_chain_add
        s = sampling
        penalties = (s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
        if penalties != (1.0, 0.0, 0.0):
            add(chain, _api.llama_sampler_init_penalties(context.model.n_vocab, PENALTY_LAST_N, *penalties))
        if s.temperature <= 0:
            add(chain, _api.llama_sampler_init_greedy())
        else:
            if s.top_k > 0:
                add(chain, _api.llama_sampler_init_top_k(s.top_k))
            if s.top_p < 1:
                add(chain, _api.llama_sampler_init_top_p(s.top_p, 1))
            if s.min_p > 0:
                add(chain, _api.llama_sampler_init_min_p(s.min_p, 1))
            add(chain, _api.llama_sampler_init_temp(s.temperature))
            # 2**32 - 1 means "another one each time" to llama.cpp, so no seed may become that.
            seed = secrets.randbits(32) if s.seed is None else s.seed
            add(chain, _api.llama_sampler_init_dist(seed % 0xFFFFFFFF))
        if penalties != (1.0, 0.0, 0.0):
            for token in prompt[-PENALTY_LAST_N:]:
                _api.llama_sampler_accept(chain, token)

    def sample(self, row: int) -> int:
        """The next token, from the logits of that row of the last decode; it counts as chosen."""
        return int(_api.llama_sampler_sample(self._handle, self._context.handle, row))

    def sample_allowed(self, row: int, constraint: Constraint) -> int:
        """The same of a constraint's tokens, and it takes it. Raises EngineError when there is none."""
        from infraxa.engine import logits

        assert self._handle is not None
        its = logits.row_of_logits(self._context, row)
        token = logits.choose(self._handle, its)
        # What the model would say anyway is allowed nearly always, which costs less than to know all others.
        if not constraint.take(token):
            token = logits.choose(self._handle, its, constraint.allowed())
            constraint.take_allowed(token)
        _api.llama_sampler_accept(self._handle, token)
        return token

    def logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        """How likely the model found a token at that row, and the `top` likeliest."""
        from infraxa.engine import logits

        return logits.logprob(logits.row_of_logits(self._context, row), token, top, self._context.model.piece)

    def close(self) -> None:
        """Frees the chain. Does nothing the second time."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _api.llama_sampler_free(handle)
