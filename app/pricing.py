"""What this provider asks for its tokens now: the rules of net/market.py at its settings and its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from infraxa.app.config import Settings
from infraxa.net import market
from infraxa.net.credits import micro
from infraxa.net.market import Rates


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Pricing:
    """Of one node, for the one model that it serves."""

    def __init__(self, monotonic_ms: Callable[[], int] = _monotonic_ms) -> None:
        self._now_ms = monotonic_ms
        self._base = 0
        self._floor: int | None = None
        self._ceiling: int | None = None
        self._outputs = market.Outputs()
        self._demand = market.Demand(monotonic_ms())

    def use(self, settings: Settings) -> None:
        """Ask for what these settings say."""
        self._base = micro(settings.base_price)
        self._floor = None if settings.price_floor is None else micro(settings.price_floor)
        self._ceiling = None if settings.price_ceiling is None else micro(settings.price_ceiling)

    def feed(self, orders: Iterable[tuple[int, int]], tokens_per_second: float) -> None:
        """These run and wait, each (tokens that it may have, delivered); the speed is that of all slots
        together, 0 = not measured."""
        self._demand.feed(self._outputs.left(orders), round(tokens_per_second * 1000), self._now_ms())

    def ended(self, n_out: int) -> None:
        """An answer was over after so many tokens."""
        self._outputs.ended(n_out)

    @property
    def now(self) -> Rates:
        return self._rates(self._demand.u_ppm(self._now_ms()))

    @property
    def base(self) -> Rates:
        """Without any demand."""
        return self._rates(0)

    def _rates(self, u_ppm: int) -> Rates:
        return market.rates(self._base, u_ppm, floor=self._floor, ceiling=self._ceiling)
