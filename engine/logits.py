"""What is read from a row of logits besides the next token: which candidates a constraint leaves, and how
likely tokens were. Imported only when somebody asks for it, as it takes numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infraxa.engine.bindings import api as _api
from infraxa.engine.llama import Context
from infraxa.engine.types import TokenLogprob

Logits = NDArray[np.float32]

NEAR = 12.0
"""Below the likeliest logit."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


def row_of_logits(context: Context, row: int) -> Logits:
    """Those of that row of the last decode: llama.cpp's own memory, valid until the next one."""
    pointer = _api.llama_get_logits_ith(context.handle, row)
    return np.ctypeslib.as_array(pointer, (context.model.n_vocab,))


def choose(chain: int, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> int:
    """The token that a chain of samplers takes, of the allowed ones; it does not count as chosen yet."""
    ids = np.arange(len(logits)) if allowed is None else np.flatnonzero(allowed)
    candidates = np.empty(len(ids), _CANDIDATE)
    candidates["id"] = ids
    candidates["logit"] = logits if allowed is None else logits[ids]
    array = _api.llama_token_data_array()
    array.data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(_api.llama_token_data))
    array.size = len(candidates)
    array.selected = -1
    array.sorted = False
    _api.llama_sampler_apply(chain, ctypes.byref(array))
    return int(array.data[array.selected].id)


def logprob(logits: Logits, token: int, top: int, piece: Callable[[int], bytes | None]) -> TokenLogprob:
    """How likely a token was, and the `top` likeliest ones, the likeliest first: log-softmax of the logits as
    the model gave them, before any sampler."""
    best = logits.max()
    shifted: Any = logits - best
    total = float(np.log(np.exp(shifted).sum(dtype=np.float64)))
    likeliest: list[int] = []
    if top:
        n = min(top, len(logits))
        # Few tokens are anywhere near, and to sort the others out takes a tenth of the time.
        near = np.flatnonzero(shifted > -NEAR)
        ids = near if len(near) >= n else np.arange(len(logits))
        ids = ids[np.argpartition(shifted[ids], -n)[-n:]]
        # Equal ones by id, so that the order is always the same.
        likeliest = [int(i) for i in ids[np.lexsort((ids, -shifted[ids]))]]
    return TokenLogprob(
        token,
        piece(token) or b"",
        float(shifted[token]) - total,
        tuple((i, piece(i) or b"", float(shifted[i]) - total) for i in likeliest),
    )
