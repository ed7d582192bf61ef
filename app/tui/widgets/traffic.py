"""How fast bytes come and go, and the last minute of it as a line of small bars."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

KEPT = 60
"""Samples; there is one each second while they are looked at."""
STEP = 0.9
"""Seconds between two samples at least."""
WINDOW = 3
"""Samples over which a rate is taken."""
GAP = 10.0
"""Seconds without a sample after which it begins anew: nobody looked, so nothing is known of that time."""

BARS = "▁▂▃▄▅▆▇█"
"""From the lowest to the highest."""


class Traffic:
    """Rates from the totals of links. Bytes per second, newest last."""

    def __init__(self) -> None:
        self._links: Mapping[bytes, tuple[int, int]] = {}
        self._sums: deque[tuple[float, int, int]] = deque(maxlen=WINDOW + 1)
        self.incoming: deque[float] = deque(maxlen=KEPT)
        self.outgoing: deque[float] = deque(maxlen=KEPT)

    def take(self, now: float, links: Mapping[bytes, tuple[int, int]]) -> None:
        """The bytes received and sent over each link at `now`, in seconds. What went over a link before it
        was first seen is not counted."""
        then, came, went = self._sums[-1] if self._sums else (now - STEP, 0, 0)
        if not 0 <= now - then <= GAP:
            for kept in (self._sums, self.incoming, self.outgoing):
                kept.clear()
        elif now - then < STEP:
            return
        for link, (received, sent) in links.items():
            before = self._links.get(link, (received, sent))
            came += max(0, received - before[0])
            went += max(0, sent - before[1])
        self._links = dict(links)
        self._sums.append((now, came, went))
        then, before_came, before_went = self._sums[0]
        if now > then:
            self.incoming.append((came - before_came) / (now - then))
            self.outgoing.append((went - before_went) / (now - then))


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest `width` values as bars, the largest of them the highest; blank where there is none yet."""
    shown = list(values)[-width:] if width else []
    most = max(shown, default=0.0)
    bars = [BARS[round(value / most * (len(BARS) - 1))] if most else BARS[0] for value in shown]
    return "".join(bars).rjust(width)
