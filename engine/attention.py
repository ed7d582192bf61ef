"""How attention is computed when nobody said: with llama.cpp's fused kernel ("flash attention"), or plainly.

On a CPU the fused kernel reads the cache once for each head of queries, and row by row below 64 rows; plain
attention computes all of the 256 cells that llama.cpp takes at a time. Measured on two AVX-512 cores with
heads of 128 numbers, which most models have, as parts of the fused kernel's time: a step of 1 to 16
conversations takes 1.1 to 1.35 after 48 tokens, 0.97 after 200, 0.8 after 1000 and 0.35 to 0.55 after 4000;
a piece of 65 rows after 4000 takes 0.4, a prompt of 48 to 500 tokens 1.0 to 1.2. With heads of 64 and 256
numbers steps were equal. So it is plain where conversations may get long; on GPUs, with smaller caches and
on other processors llama.cpp's own choice stays.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Final, NamedTuple

from infraxa.engine.models import ModelInfo, cache_bytes
from infraxa.engine.sizing import Size
from infraxa.engine.types import FlashAttention, LoadOptions

HEAD: Final = 128
"""Numbers in a head of those models that plain attention is quicker for."""
LONG: Final = 2048
"""Tokens of context from which on most steps are computed after more than 200."""
ROWS: Final = (512, 256, 128)
"""Rows that are computed at once: from 65 on a row costs a CPU as much in each."""
SHARE: Final = 8
"""Of what the caches take, plain attention's scores may take one such part."""
X86: Final = frozenset({"x86_64", "amd64"})


class Attention(NamedTuple):
    flash: FlashAttention
    rows: int | None
    """llama.cpp computes so many at a time; None = all of a step."""


def chosen(
    info: ModelInfo, options: LoadOptions, gpu_layers: int, limit: int | None, machine: str = ""
) -> Callable[[Size], Attention]:
    """The attention for each size of the caches. `limit`: bytes for caches and scores together."""

    def of(size: Size) -> Attention:
        own = Attention(options.flash_attention, None)
        if own.flash != "auto" or options.kv_type != "f16" or gpu_layers:
            return own
        if info.head_length != HEAD or size.n_ctx < LONG:
            return own
        if (machine or platform.machine()).lower() not in X86:
            return own
        caches = cache_bytes(info, "f16") * size.n_ctx * size.slots
        reach = size.n_ctx * (size.slots if options.unified_kv else 1)
        for rows in ROWS:
            scores = scores_bytes(info, reach, rows)
            if scores <= caches // SHARE and (limit is None or caches + scores <= limit):
                return Attention("off", rows)
        return own

    return of


def scores_bytes(info: ModelInfo, n_ctx: int, rows: int) -> int:
    """What plain attention keeps while it computes `rows` of them: a number for each head and token."""
    return 4 * info.heads * n_ctx * rows
