"""How attention is computed when nobody said: with llama.cpp's fused kernel ("flash attention"), or plainly.

On a CPU the fused kernel reads the cache once for each head of queries, and row by row below 64 rows.
Measured on two AVX-512 cores with heads of 128 numbers, which most models have: at 4096 tokens of context
plain attention makes a step of 1 to 8 conversations 0.35 to 0.8 times as long and a piece of 65 rows 0.4
times; a first piece of 512 rows takes 1.1 to 1.3 times as long. With heads of 64 and 256 numbers steps were
equal. On GPUs, with smaller caches and on other processors llama.cpp's own choice stays.
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
        if own.flash != "auto" or options.kv_type != "f16" or gpu_layers or info.head_length != HEAD:
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
