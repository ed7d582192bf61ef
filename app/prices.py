"""What providers asked for over the last day, as this machine heard it. Kept in memory alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from infraxa.app.offers import OfferSeen
from infraxa.app.trade import PricePoint

EVERY_MS: Final = 10 * 60 * 1000
"""One point for so long: the last price in it."""
KEPT_MS: Final = 24 * 3600 * 1000
MAX_OFFERS: Final = 2048
"""Whose prices are kept; those that were heard of first go."""


class PriceHistory:
    """Of one node; times are ms since the epoch."""

    def __init__(self) -> None:
        self._points: dict[tuple[bytes, bytes], dict[int, PricePoint]] = {}
        """By node and model; the points by their place in time."""

    def seen(self, offers: Iterable[OfferSeen], now_ms: int) -> None:
        """These are the prices now."""
        place = now_ms // EVERY_MS
        for offer in offers:
            if offer.node.status == "offline":
                continue
            points = self._points.setdefault((offer.node.id, offer.model.model_id), {})
            points[place] = PricePoint(now_ms, offer.price_out)
            for old in [at for at in points if at < place - KEPT_MS // EVERY_MS]:
                del points[old]
        while len(self._points) > MAX_OFFERS:
            del self._points[next(iter(self._points))]

    def of(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        """The oldest first."""
        points = self._points.get((node, model_id), {})
        return [points[place] for place in sorted(points)]
