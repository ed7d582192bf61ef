"""Whether a model fits into memory beside those that are loaded. Arithmetic on given numbers, and what asks
the machine for them.

How much of what is free a model then takes for its contexts is decided when it is opened, in sizing.py.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from infraxa.engine.models import ModelInfo, memory_estimate
from infraxa.engine.sizing import CTX_COMFORT, CTX_LEAST, free_memory
from infraxa.engine.types import LoadOptions

RESERVE = 512 << 20
"""Bytes that stay free for other programs; of a small machine, one such part of all:"""
RESERVE_SHARE = 16
CACHE_SHARE = 2
"""Contexts get one such part of what the weights leave free; see sizing.choose_size."""
ENOUGH_SLOTS = 2
"""So many contexts are enough for a model that is not alone: one for the person, one for others."""


class Resident(NamedTuple):
    """What a process has in memory, in bytes."""

    whole: int = 0
    mapped: int = 0
    """The part of it that is of files, which the system counts as free although it is in use."""


def room_now() -> int:
    """Bytes that models may take now, as the system counts; what is mapped of others is not taken off."""
    import psutil

    return free_memory() - min(RESERVE, psutil.virtual_memory().total // RESERVE_SHARE)


def resident(pid: int) -> Resident:
    """What this process has in memory; nothing when it is gone."""
    import psutil

    try:
        used = psutil.Process(pid).memory_info()
    except psutil.Error:
        return Resident()
    # Elsewhere what is mapped does not count as free.
    return Resident(used.rss, used.shared if sys.platform == "linux" else 0)


def fits(info: ModelInfo, options: LoadOptions, free: int, limit: int | None, *, well: bool) -> bool:
    """Whether the model can be loaded into `free` bytes of memory and `limit` bytes of what is allowed.

    `well`: with contexts that nobody has to complain of; else with one that is just enough.
    """
    trained = info.context_length or CTX_COMFORT
    context = min(options.n_ctx or (CTX_COMFORT if well else CTX_LEAST), trained)
    fixed = memory_estimate(info, 0, 0)
    slots = min(options.slots, ENOUGH_SLOTS) if well else 1
    whole = memory_estimate(info, context, slots, options.kv_type)
    return fixed + CACHE_SHARE * (whole - fixed) <= free and (limit is None or whole <= limit)


def most(info: ModelInfo, options: LoadOptions, free: int) -> int:
    """Bytes that the model takes at most when it is loaded into `free` ones."""
    fixed = memory_estimate(info, 0, 0)
    trained = info.context_length or CTX_COMFORT
    context = min(options.n_ctx or trained, trained)
    caches = memory_estimate(info, context, options.slots, options.kv_type) - fixed
    return fixed + min(caches, max(0, free - fixed) // CACHE_SHARE)
