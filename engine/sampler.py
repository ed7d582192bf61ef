"""How one request chooses its tokens."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from infraxa.engine.bindings import api as _api
from infraxa.engine.llama import Context
from infraxa.engine.types import Sampling

PENALTY_LAST_N = 64


class Sampler:
    """Of one request: llama.cpp's chain in llama.cpp's order."""

    def __init__(self, context: Context, sampling: Sampling, prompt: Sequence[int]) -> None:
        """`prompt`: repetitions of it count for the penalty too."""
        chain = _api.llama_sampler_chain_init(_api.llama_sampler_chain_default_params())
        self._handle: int | None = chain
        self._context = context
        add = _api.llama_sampler_chain_add
        s = sampling
        if s.repeat_penalty != 1.0:
            n_vocab = context.model.n_vocab
            add(chain, _api.llama_sampler_init_penalties(n_vocab, PENALTY_LAST_N, s.repeat_penalty, 0.0, 0.0))
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
        if s.repeat_penalty != 1.0:
            for token in prompt[-PENALTY_LAST_N:]:
                _api.llama_sampler_accept(chain, token)

    def sample(self, row: int) -> int:
        """The next token, from the logits of that row of the last decode; it counts as chosen."""
        return int(_api.llama_sampler_sample(self._handle, self._context.handle, row))

    def close(self) -> None:
        """Frees the chain. Does nothing the second time."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _api.llama_sampler_free(handle)
