"""What is known of all nodes: their newest cards and states, leases, who told of them. Bounded.

How records of one node are merged is in entries.py. Records come here verified and decoded; from whom, how
fast and where to is gossip.py's business.

An id's item for anti-entropy covers its card and the content of its state without the number: a heartbeat
that says nothing new makes no two tables differ. An item is there while the state's term runs, and forever
once its key was revoked.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from infraxa.net import addresses, codec
from infraxa.net.digests import Digests
from infraxa.net.entries import Claim, Entry
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.names import name_key
from infraxa.net.records import MAJOR, MAX_CLOCK_AHEAD_MS, Card, Record, Revoke, State, Successor

LEASE_S: Final = 95.0
"""Three heartbeats and five seconds."""
CLOCKS_APART_MS: Final = 120_000
"""How far a publisher's clock may be off; beyond, it does not publish."""
LINGER_S: Final = 300.0
"""How long a node is kept after its term. With the term it is longer than any lease can be bounded by a
record's own number, so that what was forgotten cannot come back."""
GRACE_S: Final = 40.0
"""One heartbeat with its jitter, and some seconds to find each other again."""
DOUBT_S: Final = 24 * 3600.0
STRIKES: Final = 3
"""Equivocations within DOUBT_S after which an id is dropped for DOUBT_S."""

Merged = Literal["changed", "renewed", "rival", "same", "old"]
"""`renewed`: a newer state that says the same but for util and times. `rival`: a second body under one
number. `same`, `old`: nothing happened."""


class TableLimits(Struct, frozen=True):
    cards: int = 8192
    per_introducer: int = 1024
    retired: int = 1024


class Table:
    """The entries by id. Bounded; whoever was never spoken to is forgotten first."""

    def __init__(self, me: bytes, network: bytes, rng: random.Random, limits: TableLimits) -> None:
        self._me = me
        self._network = network
        self._rng = rng
        self._limits = limits
        self.entries: dict[bytes, Entry] = {}
        self.digests = Digests()
        self._introduced: Counter[bytes] = Counter()
        self._retired: dict[bytes, dict[bytes, None]] = {}
        """By introducer: which nodes of those that it told of first are retired, the oldest first."""
        self._evictable: list[bytes] = []
        self._looked = float("-inf")
        self.first_named: dict[str, bytes] = {}
        """Who had a name first, by name_key."""

    def __len__(self) -> int:
        return len(self.entries)

    def merge(
        self,
        record: Record,
        value: Card | State | Successor | Revoke,
        introducer: bytes,
        now: float,
        now_ms: int,
    ) -> Merged:
        """Take in a verified, decoded record. `now_ms` by the peers' time. Raises ProtocolError."""
        if isinstance(value, Card):
            return self._merge_card(record, value, introducer, now, now_ms)
        if isinstance(value, State):
            return self._merge_state(record, value, introducer, now, now_ms)
        return self._retire(record, value, now_ms)

    def _merge_card(self, record: Record, card: Card, introducer: bytes, now: float, now_ms: int) -> Merged:
        """Raises ProtocolError: version, network, stale (from the future), not_allowed (another recovery
        key, a retired node), full."""
        if card.version != MAJOR:
            raise ProtocolError("version")
        if card.network != self._network:
            raise ProtocolError("network")
        _check_clock(card.seq, now_ms)
        node = record.signed.signer
        entry = self.entries.get(node)
        if entry is not None and (entry.retired or (entry.recovery and entry.recovery != card.recovery)):
            raise ProtocolError("not_allowed", "retired, or another recovery key")
        entry = entry or self._add(node, introducer, now)
        doubted = entry.card.doubtful
        outcome = entry.card.merge(card.seq, record, codec.digest("card", record.signed.body))
        if outcome == "new":
            entry.recovery = card.recovery
            entry.group = next(filter(None, map(group_of, card.addresses)), "")
            entry.heard = max(entry.heard, now)
            self._rename(entry, card.name)
        elif outcome == "rival" and not doubted:
            _strike(entry, now)
        self.update(entry, now)
        return "changed" if outcome == "new" else outcome

    def _merge_state(
        self, record: Record, state: State, introducer: bytes, now: float, now_ms: int
    ) -> Merged:
        """Raises ProtocolError: stale (from the future), not_allowed (a retired node), full."""
        _check_clock(state.seq, now_ms)
        node = record.signed.signer
        entry = self.entries.get(node)
        if entry is not None and entry.retired:
            raise ProtocolError("not_allowed", "retired")
        entry = entry or self._add(node, introducer, now)
        before, doubted = entry.state, entry.states.doubtful
        was_live = entry.live(now)
        outcome = entry.states.merge(state.seq, record, codec.digest("state", record.signed.body))
        if outcome == "new":
            # The record's own number bounds the lease too: what is old is not made young by being handed on.
            left = (state.seq + CLOCKS_APART_MS - now_ms) / 1000 + LEASE_S
            entry.term = now + min(LEASE_S, left)
            entry.until = entry.term
            entry.state = state
            entry.heard = max(entry.heard, now)
        elif outcome == "rival":
            entry.state = None
            if not doubted:
                _strike(entry, now)
        self.update(entry, now)
        if outcome != "new":
            return outcome
        return "renewed" if was_live and before is not None and _says_the_same(before, state) else "changed"

    def _retire(self, record: Record, value: Successor | Revoke, now_ms: int) -> Merged:
        """The node's key is replaced or not to be trusted any more; a revoke wins over a successor. Raises
        ProtocolError: not_asked (its card is not known), not_allowed (not by its recovery key), full."""
        _check_clock(value.seq, now_ms)
        entry = self.entries.get(value.node)
        if entry is None or not entry.card.records:
            raise ProtocolError("not_asked", "retires an unknown node")
        if hashlib.sha256(record.signed.signer).digest() != entry.recovery:
            raise ProtocolError("not_allowed", "not by the recovery key")
        if entry.retired is None:
            if not self._room_for_retired(entry.introducer):
                raise ProtocolError("full", "retired nodes")
            self._retired.setdefault(entry.introducer, {})[entry.id] = None
        elif _weight(record, value.seq) <= _weight(entry.retired, _seq_of(entry.retired)):
            return "same"
        entry.retired = record
        entry.state, entry.states = None, Claim()
        self.update(entry, 0.0)
        return "changed"

    def _room_for_retired(self, introducer: bytes) -> bool:
        """Of whom the most were retired loses the oldest of them, if that is more than `introducer` has: else
        made-up nodes could fill the places, and nobody could revoke a stolen key."""
        if sum(map(len, self._retired.values())) < self._limits.retired:
            return True
        most = max(self._retired.values(), key=len)
        oldest = next((node for node in most if not self.entries[node].contacted), None)
        if oldest is None or len(most) <= len(self._retired.get(introducer, ())) + 1:
            return False
        self.forget(self.entries[oldest])
        return True

    def update(self, entry: Entry, now: float) -> None:
        """Bring the item for anti-entropy up to date."""
        self.digests.put(entry.id, entry.item(now))

    def records(self, nodes: Iterable[bytes], now: float) -> Iterator[Record]:
        """All that is handed on of these nodes."""
        for node in nodes:
            entry = self.entries.get(node)
            if entry is not None and entry.item(now):
                yield from entry.records()

    def forget(self, entry: Entry) -> None:
        del self.entries[entry.id]
        self.digests.put(entry.id, None)
        self._introduced[entry.introducer] -= 1
        if self._introduced[entry.introducer] <= 0:
            del self._introduced[entry.introducer]
        retired = self._retired.get(entry.introducer, {})
        if retired.pop(entry.id, True) is None and not retired:
            del self._retired[entry.introducer]
        remembered = entry.contacted and len(self.first_named) <= 2 * self._limits.cards
        if self.first_named.get(entry.name) == entry.id and not remembered:
            del self.first_named[entry.name]

    def slept(self, since: float, now: float) -> None:
        """This node did not run from `since` to now. Who was there keeps counting as there for GRACE_S, in
        which its next heartbeat comes; what it said before is not handed on any more."""
        for entry in self.entries.values():
            if entry.until > since:
                entry.until = now + GRACE_S
            if entry.term > since:
                entry.term = now
                self.update(entry, now)

    def overdue(self, now: float) -> tuple[list[bytes], float]:
        """Take out what has ended. Returns the nodes that are not there any more since the last call, and
        when to call again at the latest."""
        gone: list[bytes] = []
        again = now + LEASE_S
        forget: list[Entry] = []
        for entry in self.entries.values():
            if now >= entry.until and entry.until > float("-inf"):
                entry.until = float("-inf")
                gone.append(entry.id)
            if now >= entry.term:
                if entry.id in self.digests:
                    self.update(entry, now)
                kept_until = max(entry.term, entry.heard) + LINGER_S
                if now >= max(kept_until, entry.banned_until) and not entry.retired and entry.id != self._me:
                    forget.append(entry)
            else:
                again = min(again, entry.term)
            if entry.until > now:
                again = min(again, entry.until)
        for entry in forget:
            self.forget(entry)
        return gone, again

    def same_name_as(self, entry: Entry) -> bytes | None:
        """Another node that had this one's name first."""
        first = self.first_named.get(entry.name, entry.id)
        return None if first == entry.id else first

    def _rename(self, entry: Entry, name: str) -> None:
        key = name_key(name)
        if key == entry.name:
            return
        if self.first_named.get(entry.name) == entry.id:
            del self.first_named[entry.name]
        entry.name = key
        if key:
            self.first_named.setdefault(key, entry.id)

    def _add(self, node: bytes, introducer: bytes, now: float) -> Entry:
        if node != self._me:
            if self._introduced[introducer] >= self._limits.per_introducer:
                raise ProtocolError("full", "introduced too many")
            if len(self.entries) >= self._limits.cards and not self._evict(introducer, now):
                raise ProtocolError("full", "cards")
        entry = self.entries[node] = Entry(node, introducer, now)
        self._introduced[introducer] += 1
        return entry

    def _evict(self, introducer: bytes, now: float) -> bool:
        """Make room: one that is not there any more, else one of the introducer that brought the most, if
        that is more than this one brought. Never one that was spoken to, or was retired."""
        if not self._evictable and now >= self._looked + 1:
            self._evictable, self._looked = self._worst(now), now
        while self._evictable:
            victim = self.entries.get(self._evictable[-1])
            if victim is not None and self._may_evict(victim):
                brought = self._introduced[victim.introducer]
                if victim.live(now) and brought <= self._introduced[introducer] + 1:
                    if now >= self._looked + 1:
                        self._evictable = []  # ordered a while ago: look again next time
                    return False
                self.forget(victim)
                self._evictable.pop()
                return True
            self._evictable.pop()
        return False

    def _worst(self, now: float) -> list[bytes]:
        # One look over everything serves for many: it costs milliseconds, and a full table is when many come.
        found = [entry for entry in self.entries.values() if self._may_evict(entry)]
        self._rng.shuffle(found)
        found.sort(key=lambda entry: (not entry.live(now), self._introduced[entry.introducer]))
        return [entry.id for entry in found[-256:]]

    def _may_evict(self, entry: Entry) -> bool:
        return not entry.contacted and entry.retired is None and entry.id != self._me


def group_of(text: str) -> str:
    """The wide group of an address text; a relay's address is its own group; empty when it is no address."""
    try:
        address = addresses.parse(text)
    except NetError:
        return ""
    return sys.intern(addresses.wide_group(address.host) if address.ip else text)


def _check_clock(seq: int, now_ms: int) -> None:
    if seq > now_ms + MAX_CLOCK_AHEAD_MS:
        raise ProtocolError("stale", "from the future")


def _says_the_same(old: State, new: State) -> bool:
    return old.status == new.status and old.card == new.card and old.prices == new.prices


def _strike(entry: Entry, now: float) -> None:
    entry.strikes = (*(at for at in entry.strikes if now - at < DOUBT_S), now)[-STRIKES:]
    if len(entry.strikes) >= STRIKES:
        entry.banned_until = now + DOUBT_S


def _seq_of(record: Record) -> int:
    kind = Revoke if record.kind == "revoke" else Successor
    value: Revoke | Successor = codec.decode(record.signed.body, kind)
    return value.seq


def _weight(record: Record, seq: int) -> tuple[bool, int, bytes]:
    return (record.kind == "revoke", seq, record.signed.body)
