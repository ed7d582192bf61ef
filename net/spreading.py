"""Handing news on: to whom, when, and how much.

News goes to half of the links, at least FANOUT, never back to whoever is known to have it; two of them are
links that this node chose itself, so that nobody can keep news from spreading by filling its inbound side.
Half, because a node that many others dialled is the way to all of those. What changes something goes at once,
plain heartbeats wait for others up to BATCH_S. Newer replaces older while it waits; one signer's records are
handed on no faster than its allowance, so that nobody can make the whole network busy.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from infraxa.net import codec
from infraxa.net.entries import Entry
from infraxa.net.rates import Bucket
from infraxa.net.records import Record
from infraxa.net.wire import MAX_PUSH, Push

FANOUT: Final = 4
BATCH_S: Final = 0.25
SIGNER_RATE: Final = 0.2
SIGNER_BURST: Final = 4
"""Records per second and at once that are handed on of one signer. A price may move every 5 s."""
MAX_PUSH_BYTES: Final = 30 * 1024
"""So that a push stays below codec.MAX_MESSAGE."""


class Target:
    """A link that news goes to."""

    __slots__ = ("out", "outbound", "peer")

    def __init__(self, peer: bytes, outbound: bool, out: Bucket) -> None:
        self.peer = peer
        self.outbound = outbound
        self.out = out
        """Bytes; less than what the other side allows."""


class _Waiting:
    __slots__ = ("entry", "knowing", "own", "raw_hash", "record", "size")

    def __init__(self, record: Record, raw_hash: bytes, size: int, entry: Entry | None, own: bool) -> None:
        self.record = record
        self.raw_hash = raw_hash
        self.size = size
        self.entry = entry
        """Whose allowance it costs; None: nobody's."""
        self.own = own
        self.knowing: set[bytes] = set()


class Spreading:
    """What waits to be handed on."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._urgent: dict[bytes, _Waiting] = {}
        self._batch: dict[bytes, _Waiting] = {}
        self.flush_at = float("inf")

    def add(
        self,
        record: Record,
        *,
        raw_hash: bytes,
        size: int,
        entry: Entry | None,
        source: bytes | None,
        urgent: bool,
        now: float,
        own: bool = False,
        beside: bool = False,
    ) -> None:
        """Hand `record` on. It replaces what waits of its kind and signer, unless it goes `beside` that."""
        slot = raw_hash if beside else record.signed.signer + record.kind.encode()
        self._urgent.pop(slot, None)
        self._batch.pop(slot, None)
        waiting = _Waiting(record, raw_hash, size, entry, own)
        if source is not None:
            waiting.knowing.add(source)
        if urgent:
            self._urgent[slot] = waiting
        else:
            self._batch[slot] = waiting
            self.flush_at = min(self.flush_at, now + BATCH_S)

    def knows(self, peer: bytes, record: Record, raw_hash: bytes) -> None:
        """`peer` sent this too: it need not be sent to it."""
        waiting = self._batch.get(record.signed.signer + record.kind.encode())
        if waiting is not None and waiting.raw_hash == raw_hash:
            waiting.knowing.add(peer)

    def flush(self, targets: list[Target], now: float) -> list[tuple[bytes, Push]]:
        """What is to be sent now."""
        ready: list[_Waiting] = []
        if self._urgent:
            urgent, self._urgent = self._urgent, {}
            self._pick(urgent, ready, now)
        if now >= self.flush_at:
            batch, self._batch, self.flush_at = self._batch, {}, float("inf")
            self._pick(batch, ready, now)
        if self._batch:
            self.flush_at = min(self.flush_at, now + BATCH_S)
        return self._address(ready, targets, now) if ready and targets else []

    def _pick(self, waiting: dict[bytes, _Waiting], ready: list[_Waiting], now: float) -> None:
        for slot, one in waiting.items():
            if one.own or one.entry is None or _pace(one.entry, now):
                ready.append(one)
            else:
                self._batch[slot] = one

    def _address(self, ready: list[_Waiting], targets: list[Target], now: float) -> list[tuple[bytes, Push]]:
        order = self._rng.sample(targets, len(targets))
        chosen = [target for target in order if target.outbound][:2]
        order = chosen + [target for target in order if target not in chosen]
        fanout = max(FANOUT, (len(order) + 1) // 2)
        sent: dict[bytes, list[_Waiting]] = {}
        for one in ready:
            left = len(order) if one.own else fanout
            for target in order:
                if left and target.peer not in one.knowing and target.out.take(one.size, now):
                    sent.setdefault(target.peer, []).append(one)
                    left -= 1
        return [
            (peer, push)
            for peer, waiting in sent.items()
            for push in pushes((one.record, one.size) for one in waiting)
        ]


def pushes(records: Iterable[tuple[Record, int]]) -> Iterable[Push]:
    """Records with their encoded sizes, in as many messages as it takes."""
    some: list[Record] = []
    size = 0
    for record, length in records:
        if some and (len(some) == MAX_PUSH or size + length > MAX_PUSH_BYTES):
            yield Push(tuple(some))
            some, size = [], 0
        some.append(record)
        size += length
    if some:
        yield Push(tuple(some))


def sized(records: Iterable[Record]) -> Iterable[tuple[Record, int]]:
    return ((record, len(codec.encode(record))) for record in records)


def _pace(entry: Entry, now: float) -> bool:
    """Take one of the signer's allowance; as rates.Bucket, but one number per node of the table."""
    if max(0.0, entry.spread_full_at - now) * SIGNER_RATE > SIGNER_BURST - 1:
        return False
    entry.spread_full_at = max(entry.spread_full_at, now) + 1 / SIGNER_RATE
    return True
