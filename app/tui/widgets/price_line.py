"""The price of an offer over the last 24 hours: as a line of small bars, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from infraxa.app.trade import PricePoint
from infraxa.app.tui.widgets.figures import price
from infraxa.app.tui.widgets.traffic import BARS

DAY_MS = 24 * 3_600_000


class PricePast(NamedTuple):
    """What was asked for 1M output tokens. Times are ms since the epoch."""

    points: Sequence[PricePoint] = ()
    """Each holds until the next one; the oldest first."""
    now_ms: int = 0

    def slots(self, count: int) -> list[int | None]:
        """The price at the end of each of so many equal parts of the day; None where none is known."""
        found: list[int | None] = []
        last: int | None = None
        at = 0
        for slot in range(1, count + 1):
            end = self.now_ms - DAY_MS + DAY_MS * slot // count
            while at < len(self.points) and self.points[at].at_ms <= end:
                last = self.points[at].price_out
                at += 1
            found.append(last)
        return found

    def bars(self, width: int) -> str:
        """So many cells, the newest at the right, heights from 0 to the highest price; blank where no price
        is known."""
        slots = self.slots(width)
        most = max((slot for slot in slots if slot is not None), default=0)
        return "".join(
            " " if slot is None else BARS[round(slot / most * (len(BARS) - 1))] if most else BARS[0]
            for slot in slots
        )

    def spread(self) -> str:
        """`0.18 – 0.31`, the lowest and highest price of the day; one price when it did not change; empty
        when none is known."""
        start = self.now_ms - DAY_MS
        before = [point.price_out for point in self.points if point.at_ms <= start][-1:]
        asked = [*before, *(point.price_out for point in self.points if start < point.at_ms <= self.now_ms)]
        if not asked:
            return ""
        least, most = price(min(asked)), price(max(asked))
        return least if least == most else f"{least} – {most}"


NO_PAST = PricePast()
"""Nothing is known."""
