"""The ratings that are kept here, of all providers. Bounded, and fair between providers.

Of each account one a day counts for a provider, of several the one with the smallest hash, so that nodes
which heard of the same keep the same. Beyond the limits the ratings of those with whom this node has business
stay before all others, those of providers that are on the network before those of others, newer before older;
and a provider with many loses some before one with few does. What was turned down is remembered for a while,
so that it is not fetched again. Ratings come here verified.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final

from msgspec import Struct

from infraxa.net import codec
from infraxa.net.digests import Digests
from infraxa.net.errors import ProtocolError
from infraxa.net.ratings import KEPT_DAYS, Rating, check
from infraxa.net.records import Record

HASH: Final = 16
"""Bytes of a record's hash."""


def hash_of(raw: bytes) -> bytes:
    """Of an encoded Record."""
    return hashlib.sha256(raw).digest()[:HASH]


class RatingLimits(Struct, frozen=True):
    total: int = 4096
    """About 6 MB."""
    per_provider: int = 64
    per_writer: int = 64
    """Of one writer, trusted beyond all others; the rest of its ratings is as anybody's."""
    turned_down: int = 4096
    """Hashes, 1 MB."""


class _Kept:
    __slots__ = ("item", "rating", "raw")

    def __init__(self, rating: Rating, raw: bytes, item: bytes) -> None:
        self.rating = rating
        self.raw = raw
        """The encoded Record."""
        self.item = item


class RatingTable:
    """`on_network`: whether a provider's card is here."""

    def __init__(self, on_network: Callable[[bytes], bool], limits: RatingLimits) -> None:
        self._on_network = on_network
        self._limits = limits
        self._of: dict[bytes, dict[tuple[bytes, int], _Kept]] = {}
        self._by_item: dict[bytes, _Kept] = {}
        self._trusted: frozenset[bytes] = frozenset()
        self._by_writer: Counter[bytes] = Counter()
        """How many are kept of each that is trusted."""
        self._turned_down: dict[bytes, None] = {}
        self._written: set[bytes] = set()
        """What is on disk."""
        self.digests = Digests()
        """Of those that are kept: what others may have."""
        self.known = Digests()
        """Of those too that were turned down: what need not be asked for."""

    def __len__(self) -> int:
        return len(self._by_item)

    def of(self, provider: bytes) -> list[Rating]:
        """What was said of `provider`, in no order."""
        return [kept.rating for kept in self._of.get(provider, {}).values()]

    def trust(self, writers: Collection[bytes]) -> None:
        """With whom this node has business: account keys and node ids."""
        before, self._trusted = self._trusted, frozenset(writers)
        self._by_writer.clear()
        for kept in self._by_item.values():
            self._count(kept, 1)
        if not self._trusted <= before:
            # Some of what was turned down may be theirs: it is asked for again.
            for item in self._turned_down:
                self.known.put(item, None)
            self._turned_down.clear()

    def put(self, rating: Rating, raw: bytes, item: bytes) -> bool:
        """Take in a verified rating; whether it is news that is kept. `raw`: the encoded Record, `item`: its
        hash, HASH bytes."""
        if item in self.known:
            return False
        of = self._of.setdefault(rating.provider, {})
        key = rating.account, rating.day
        if (old := of.get(key)) is not None:
            if old.item < item:
                self._turn_down(item)
                return False
            self._drop(old)
            of = self._of.setdefault(rating.provider, {})
        kept = of[key] = self._by_item[item] = _Kept(rating, raw, item)
        self._count(kept, 1)
        self.digests.put(item, item)
        self.known.put(item, item)
        if len(of) > self._limits.per_provider:
            self._drop(min(of.values(), key=self._rank))
        if len(self._by_item) > self._limits.total:
            self._trim(self._limits.total * 15 // 16)
        return item in self._by_item

    def restore(self, raw: bytes, day: int) -> None:
        """As `put`, for what an earlier run verified and kept. What is too old on this day, or of another
        version, is left."""
        item = hash_of(raw)
        self._written.add(item)
        try:
            record: Record = codec.decode(raw, Record)
            rating = check(record.signed, day, lambda tag, signed: True)
        except ProtocolError:
            return
        self.put(rating, raw, item)

    def records(self, items: Iterable[bytes]) -> Iterable[Record]:
        """Those of these hashes that are kept."""
        for item in items:
            if (kept := self._by_item.get(item)) is not None:
                yield codec.decode(kept.raw, Record)

    def expire(self, day: int) -> None:
        """Drop what is too old on this day."""
        for kept in [kept for kept in self._by_item.values() if kept.rating.day < day - KEPT_DAYS]:
            self._drop(kept)

    def changes(self) -> dict[bytes, bytes | None]:
        """What is to be written, by hash: encoded Records that are kept, None for those that are not any
        more."""
        new = {item: kept.raw for item, kept in self._by_item.items() if item not in self._written}
        return {**new, **{item: None for item in self._written if item not in self._by_item}}

    def written(self, changes: dict[bytes, bytes | None]) -> None:
        """These are on disk."""
        self._written.update(item for item, raw in changes.items() if raw is not None)
        self._written.difference_update(item for item, raw in changes.items() if raw is None)

    def _rank(self, kept: _Kept) -> tuple[bool, int, bytes]:
        """Higher: rather kept."""
        return self._heard(kept), kept.rating.day, kept.item

    def _heard(self, kept: _Kept) -> bool:
        writer = self._writer(kept)
        return writer is not None and self._by_writer[writer] <= self._limits.per_writer

    def _count(self, kept: _Kept, number: int) -> None:
        if (writer := self._writer(kept)) is not None:
            self._by_writer[writer] += number

    def _writer(self, kept: _Kept) -> bytes | None:
        """If it is trusted."""
        either = (kept.rating.account, kept.rating.node)
        return next((key for key in either if key in self._trusted), None)

    def _trim(self, total: int) -> None:
        """Of each provider the best one, then of each the second, and so on, until there are so many."""
        order = []
        for provider, of in self._of.items():
            absent = not self._on_network(provider)
            best_first = sorted(of.values(), key=self._rank, reverse=True)
            for place, kept in enumerate(best_first):
                order.append((not self._heard(kept), absent, place, kept.item))
        order.sort()
        for _, _, _, item in order[total:]:
            self._drop(self._by_item[item])

    def _drop(self, kept: _Kept) -> None:
        of = self._of[kept.rating.provider]
        del of[kept.rating.account, kept.rating.day]
        if not of:
            del self._of[kept.rating.provider]
        del self._by_item[kept.item]
        self._count(kept, -1)
        self.digests.put(kept.item, None)
        self._turn_down(kept.item)

    def _turn_down(self, item: bytes) -> None:
        self._turned_down[item] = None
        self.known.put(item, item)
        while len(self._turned_down) > self._limits.turned_down:
            oldest = next(iter(self._turned_down))
            del self._turned_down[oldest]
            self.known.put(oldest, None)
