"""Whether other programs keep this machine's processors busy, for long enough to leave them to them.

What this node uses itself, its worker included, is left out.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

BUSY: Final = 0.6
"""Share of all processors; above it others are busy."""
CALM: Final = 0.4
"""Below it they are not any more: between the two, it stays as it was."""
FOR_S: Final = 10.0
"""It is so for so long, until it counts."""
SAMPLE_S: Final = 1.0
"""Over less than this nothing is measured: the system counts in hundredths of a second."""


class Used(NamedTuple):
    """Seconds of processor time since the machine started."""

    whole: float
    """That there were, of all processors together."""
    used: float
    own: dict[int, float]
    """By process: what of `used` was this node's."""


class OthersBusy:
    """Whether they are, by shares that are told now and then; times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.busy = False
        self._since: float | None = None
        """Since when it looks as if that were over."""

    def look(self, share: float, now: float) -> bool:
        """`share` of all processors is used by others."""
        if (share < CALM) if self.busy else (share > BUSY):
            if self._since is None:
                self._since = now
            if now - self._since >= FOR_S:
                self.busy, self._since = not self.busy, None
        else:
            self._since = None
        return self.busy


class Sampler:
    """The share of all processors that others used since the call before."""

    def __init__(
        self,
        measure: Callable[[Iterable[int]], Used] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure or processor_times
        self._monotonic = monotonic
        self._last: Used | None = None
        self._at = 0.0
        self._share = 0.0

    def share(self, workers: Iterable[int]) -> float:
        """0 to 1; 0 at first. `workers`: the processes that generate."""
        now = self._monotonic()
        if self._last is not None and now - self._at < SAMPLE_S:
            return self._share
        used = self._measure((os.getpid(), *workers))
        last, self._last, self._at = self._last, used, now
        if last is None or used.whole <= last.whole:
            return self._share
        # A process that was not there before, or is gone, counts as others for one look.
        own = sum(seconds - last.own.get(pid, seconds) for pid, seconds in used.own.items())
        self._share = min(1.0, max(0.0, used.used - last.used - own) / (used.whole - last.whole))
        return self._share


def processor_times(own: Iterable[int]) -> Used:
    """As the system counts them now; `own`: this node's processes."""
    import psutil

    times = psutil.cpu_times()
    # `user` holds what guests used, too; nothing runs while a disk is waited for.
    guests = sum(getattr(times, name, 0.0) for name in ("guest", "guest_nice"))
    whole = sum(times) - guests
    processes: dict[int, float] = {}
    for pid in own:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid).cpu_times()
            processes[pid] = process.user + process.system
    return Used(whole, whole - times.idle - getattr(times, "iowait", 0.0), processes)
