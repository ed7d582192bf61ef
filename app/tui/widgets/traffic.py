"""How fast bytes come and go, and the last minute of it as a line of small bars."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

KEPT = 60
"""Samples; there is one each second while they are looked at."""
WINDOW = 5
"""Samples over which a rate is taken: totals are told now and then, not each second."""
GAP = 10.0
"""Seconds without a sample after which it begins anew: nobody looked, so nothing is known of that time."""

_BARS = "▁▂▃▄▅▆▇█"


class Traffic:
    """Rates from totals. Bytes per second, newest last."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int, int]] = deque(maxlen=WINDOW + 1)
        self.incoming: deque[float] = deque(maxlen=KEPT)
        self.outgoing: deque[float] = deque(maxlen=KEPT)

    def take(self, now: float, bytes_in: int, bytes_out: int) -> None:
        """The totals at `now`, in seconds. Totals that fall (another run) begin anew."""
        if self._totals:
            then, before_in, before_out = self._totals[-1]
            if not 0 <= now - then <= GAP or bytes_in < before_in or bytes_out < before_out:
                for kept in (self._totals, self.incoming, self.outgoing):
                    kept.clear()
            elif now == then:
                return
        self._totals.append((now, bytes_in, bytes_out))
        then, before_in, before_out = self._totals[0]
        if now > then:
            self.incoming.append((bytes_in - before_in) / (now - then))
            self.outgoing.append((bytes_out - before_out) / (now - then))


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest `width` values as bars, the largest of them the highest; blank where there is none yet."""
    shown = list(values)[-width:] if width else []
    most = max(shown, default=0.0)
    bars = [_BARS[round(value / most * (len(_BARS) - 1))] if most else _BARS[0] for value in shown]
    return "".join(bars).rjust(width)
