"""What providers asked for over the last day, as this machine heard it, and kept between runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final

from infraxa.app.offers import OfferSeen
from infraxa.app.trade import PricePoint
from infraxa.net.tasks import TaskGroup
from infraxa.store import state
from infraxa.store.db import Store, now_ms
from infraxa.store.records import StoreError

LOOK_S = 60.0
"""So often the prices of the market are looked at."""
STATE: Final = "prices"
"""Where they are kept in the store."""
EVERY_MS: Final = 10 * 60 * 1000
"""One point for so long: the last price in it."""
KEPT_MS: Final = 24 * 3600 * 1000
ID_BYTES: Final = 32
"""Of the id of a node, and of a model."""
MAX_OFFERS: Final = 2048
"""Whose prices are kept; those that were heard of first go."""


Kept = dict[str, list[tuple[int, int]]]
"""By the ids of node and model in hex: when it was heard of, in ms since the epoch, and the price."""


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

    def kept(self) -> Kept:
        """All of it, to be kept until the next start."""
        return {
            (node + model).hex(): [(point.at_ms, point.price_out) for point in points.values()]
            for (node, model), points in self._points.items()
        }

    def bring_back(self, kept: Kept, now_ms: int) -> None:
        """What was kept of the last day; times that cannot be are left out."""
        for key, heard in list(kept.items())[-MAX_OFFERS:]:
            try:
                ids = bytes.fromhex(key)
            except ValueError:
                continue
            points = {
                at // EVERY_MS: PricePoint(at, price)
                for at, price in heard
                if now_ms - KEPT_MS <= at <= now_ms and price >= 0
            }
            if points and len(ids) == 2 * ID_BYTES:
                self._points[ids[:ID_BYTES], ids[ID_BYTES:]] = points

    def of(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        """The oldest first."""
        points = self._points.get((node, model_id), {})
        return [points[place] for place in sorted(points)]


class PriceWatch:
    """Of one node. `open` it once; `close` it before the store."""

    def __init__(self, offers: Callable[[], list[OfferSeen]]) -> None:
        """`offers`: of other nodes, as they are now."""
        self._offers = offers
        self._history = PriceHistory()
        self._store: Store | None = None
        self._kept_at = 0
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Remember what was kept, and look again and again from now on. Raises StoreError."""
        self._store = store
        kept = await store.run(state.get_value, STATE, Kept)
        self._history.bring_back(kept or {}, now_ms())
        self._tasks.repeat(self._look, name="see prices", pause_s=LOOK_S)

    async def close(self) -> None:
        """Keep what was seen."""
        await self._tasks.cancel_all()
        with contextlib.suppress(StoreError):
            await self._keep()
        self._store = None

    def of(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        """What this provider asked for, the oldest first."""
        return self._history.of(node, model_id)

    def cheapest(self, model_id: bytes) -> int | None:
        """What the cheapest other provider of this model asks for, as far as this node hears."""
        asked = [
            offer.price_out
            for offer in self._offers()
            if offer.model.model_id == model_id and offer.node.status == "online"
        ]
        return min(asked, default=None)

    async def _look(self) -> None:
        await asyncio.sleep(LOOK_S)
        self._history.seen(self._offers(), now_ms())
        if now_ms() - self._kept_at >= EVERY_MS:
            await self._keep()

    async def _keep(self) -> None:
        if self._store is not None and (kept := self._history.kept()):
            await self._store.run(state.set_value, STATE, kept)
            self._kept_at = now_ms()
