"""How much of the machine a model takes when nobody said: threads, context, slots. Arithmetic on given
numbers, and what asks the machine for them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from infraxa.engine.types import EngineError

CTX_STEP = 256
"""llama.cpp rounds each sequence's context up to a multiple of this."""
CTX_COMFORT = 4096
"""Slots are given up before a conversation gets fewer tokens than this."""
CTX_LEAST = 512
"""A model that cannot have even this much is not loaded."""
MEASURE_SECONDS = 0.2
"""Systems count the time that programs use in hundredths of a second."""


class Size(NamedTuple):
    n_ctx: int
    """Tokens of one conversation."""
    slots: int


def choose_size(
    *,
    n_ctx: int | None,
    slots: int,
    n_ctx_train: int,
    kv_bytes_per_token: int,
    free_bytes: int,
    limit_bytes: int | None = None,
) -> Size:
    """Context and slots whose caches fit in half of `free_bytes` (what is free after the weights), and in
    `limit_bytes` (what a limit that was set leaves for them).

    `n_ctx` and `slots` are what was asked for. An explicit `n_ctx` is kept up to what the model was trained
    for and slots give way to it. Raises EngineError `no_memory` or `bad_request`.
    """
    if n_ctx is not None and n_ctx < 1:
        raise EngineError("bad_request", f"A context of {n_ctx} tokens is none.", "Ask for 1 or more.")
    trained = n_ctx_train or CTX_COMFORT
    slots = max(1, slots)
    usable, found, remedy = max(0, free_bytes // 2), "{} can be used", "Close other programs"
    if limit_bytes is not None and limit_bytes < usable:
        usable, found, remedy = max(0, limit_bytes), "the memory limit leaves {}", "Raise the memory limit"
    room = usable // max(1, kv_bytes_per_token)
    """Tokens that all slots can have together."""
    wanted = min(n_ctx, trained) if n_ctx else trained
    least = wanted if n_ctx else min(CTX_COMFORT, trained)
    slots = max(1, min(slots, room // least))
    if n_ctx is None:
        per_slot = room // slots
        # Below the trained length in llama.cpp's own steps, so that what is promised is what is allocated.
        wanted = trained if per_slot >= trained else per_slot // CTX_STEP * CTX_STEP
    if wanted > room or wanted < min(CTX_LEAST, trained, n_ctx or trained):
        need = max(wanted, min(CTX_LEAST, trained)) * kv_bytes_per_token
        raise EngineError(
            "no_memory",
            f"This model's context needs {_amount(need)} besides its weights; "
            f"{found.format(_amount(usable))}.",
            f"{remedy}, choose a smaller model or quantization, or a smaller context.",
        )
    return Size(wanted, slots)


def check_limit(limit: int, fixed: int) -> int:
    """Bytes that a memory limit leaves for the caches of a model that takes `fixed` without them. Raises
    EngineError `no_memory` when it leaves none."""
    if limit <= fixed:
        raise EngineError(
            "no_memory",
            f"This model needs {_amount(fixed)} and its context; the memory limit is {_amount(limit)}.",
            "Raise the memory limit, or choose a smaller model or quantization.",
        )
    return limit - fixed


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def next_smaller(size: Size, *, asked: bool = False) -> Size | None:
    """What to try when there turned out to be no room for `size`, down to one short conversation; None =
    nothing. `asked`: somebody asked for this context, so all slots but one give way first."""
    if size.slots > 1 and (asked or size.n_ctx <= CTX_COMFORT):
        return Size(size.n_ctx, size.slots // 2)
    if size.n_ctx > CTX_LEAST:
        return Size(max(CTX_LEAST, size.n_ctx // 2 // CTX_STEP * CTX_STEP), size.slots)
    return None


def free_memory() -> int:
    """Bytes that programs can use without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


class BusyCores:
    """Measures how many cores other programs keep busy, from when it is made.

    The machine's load average would count what this program itself did until a moment ago.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._used = _cpu_seconds_of_others()

    def measure(self) -> float:
        """Blocks until it has been measured for `MEASURE_SECONDS`."""
        time.sleep(max(0.0, self._began + MEASURE_SECONDS - time.monotonic()))
        return max(0.0, _cpu_seconds_of_others() - self._used) / (time.monotonic() - self._began)


def _cpu_seconds_of_others() -> float:
    """Of all programs but this process, the one that started it (a worker's host, busy with opening the app)
    and what that one started: other models' workers, with which this one takes turns."""
    import psutil

    all_ = psutil.cpu_times()
    # `user` holds what guests used, too.
    used = sum(all_) - all_.idle - sum(getattr(all_, name, 0.0) for name in ("iowait", "guest", "guest_nice"))
    own = {os.getpid(), os.getppid()}
    with contextlib.suppress(psutil.Error):
        own.update(child.pid for child in psutil.Process(os.getppid()).children())
    for pid in own:
        with contextlib.suppress(psutil.Error):
            its = psutil.Process(pid).cpu_times()
            used -= its.user + its.system
    return float(used)


def free_cores(busy: BusyCores | None = None) -> int:
    """Physical cores this process may use that nobody keeps busy now; at least 1. Blocks until `busy` has
    measured.

    llama.cpp's threads wait for each other by spinning: one more than there are free cores makes it many
    times slower.
    """
    return usable_cores(round((busy or BusyCores()).measure()))


def usable_cores(busy: int = 0) -> int:
    """Physical cores this process may use, without so many that are busy; at least 1."""
    import psutil

    cores = (psutil.cpu_count(logical=False) or os.cpu_count() or 1) - busy
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _cgroup_cores()
    if quota is not None:
        cores = min(cores, int(quota))
    return max(1, cores)


def _cgroup_cores() -> float | None:
    """Cores that a container is limited to (cgroup v2 `cpu.max`); None = no limit known."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
