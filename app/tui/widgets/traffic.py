"""How fast bytes come and go, and the last minute of it as a line of small bars."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

KEPT = 60
"""Samples; there is one each second while they are looked at."""
GAP = 10.0
"""Seconds without a sample after which it begins anew: nobody looked, so nothing is known of that time."""

_BARS = "▁▂▃▄▅▆▇█"


class Traffic:
    """Rates from totals. Bytes per second, newest last."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None
        self.incoming: deque[float] = deque(maxlen=KEPT)
        self.outgoing: deque[float] = deque(maxlen=KEPT)

    def take(self, now: float, bytes_in: int, bytes_out: int) -> None:
        """The totals at `now`, in seconds. Totals that fall (another run) begin anew."""
        last = self._last
        self._last = (now, bytes_in, bytes_out)
        if last is None:
            return
        passed = now - last[0]
        if passed > GAP or passed < 0 or bytes_in < last[1] or bytes_out < last[2]:
            self.incoming.clear()
            self.outgoing.clear()
        elif passed > 0:
            self.incoming.append((bytes_in - last[1]) / passed)
            self.outgoing.append((bytes_out - last[2]) / passed)


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest `width` values as bars, the largest of them the highest; blank where there is none yet."""
    shown = list(values)[-width:] if width else []
    most = max(shown, default=0.0)
    bars = [_BARS[round(value / most * (len(_BARS) - 1))] if most else _BARS[0] for value in shown]
    return "".join(bars).rjust(width)
