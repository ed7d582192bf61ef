"""Taking records in: from what a peer told to what is news, what is handed on, and what was refused.

What is looked at at all is in admission.py, how it is merged in table.py, to whom it goes in spreading.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from infraxa.net.admission import Admission, Admitted, GossipLimits, Room, Verify
from infraxa.net.commands import CardDue, Changed, Command, Drop, Refused
from infraxa.net.entries import Entry
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.rates import Bucket
from infraxa.net.records import Card, Record, Revoke, State, Successor
from infraxa.net.spreading import Spreading
from infraxa.net.table import Table
from infraxa.net.wire import Push

BAN_S: Final = 3600.0
"""After a bad signature."""


class Taken:
    """What came of one message."""

    __slots__ = ("commands", "news", "refute", "wants_card")

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.news = 0
        self.wants_card = False
        """A state names a card that is not known here."""
        self.refute = False
        """Somebody, maybe an older run, published under this node's key: a higher number outdoes it."""


class Intake:
    """All that comes into one node's table."""

    def __init__(
        self, me: bytes, table: Table, spreading: Spreading, verify: Verify, limits: GossipLimits
    ) -> None:
        self._me = me
        self._table = table
        self._spreading = spreading
        self._admission = Admission(table, verify, limits)
        self._refutations = Bucket(1 / 30, 2)
        self.seq = 0
        """The highest own number that is known."""
        self.records = 0
        self.news = 0
        self.duplicates = 0
        self.refused: Counter[Refusal] = Counter()

    def take_own(self, record: Record, now: float, now_ms: int) -> tuple[Taken, Card | State | None]:
        """This node's own record. Raises ProtocolError for what everybody would refuse."""
        raw_hash, size = self._admission.identify(record)
        admitted = self._admission.check(record, raw_hash, size, now)
        taken = Taken()
        value = admitted.value
        if isinstance(value, Card | State):
            self.seq = max(self.seq, value.seq)
        self._merge(admitted, self._me, None, now, now_ms, taken, own=True)
        return taken, value if isinstance(value, Card | State) else None

    def take(self, peer: bytes, push: Push, room: Room | None, now: float, now_ms: int) -> Taken:
        """Each record, up to the first that shows that the peer does not check what it hands on. `room`: what
        it may bring unasked; None for what it was asked for. `now_ms`: by the peers' time."""
        taken = Taken()
        told: set[Refusal] = set()
        for record in push.records:
            self.records += 1
            try:
                self._take_one(peer, record, room, now, now_ms, taken)
            except ProtocolError as error:
                self.refused[error.reason] += 1
                if error.reason not in told:
                    told.add(error.reason)
                    taken.commands.append(Refused(peer, error.reason))
                if error.reason == "bad_signature":
                    taken.commands.append(Drop(peer, "bad_signature", BAN_S))
                    break
        self.news += taken.news
        return taken

    def _take_one(
        self, peer: bytes, record: Record, room: Room | None, now: float, now_ms: int, taken: Taken
    ) -> None:
        raw_hash, size = self._admission.identify(record)
        signer = record.signed.signer
        was_known = signer in self._table.entries
        if room is not None:
            if self._admission.seen(raw_hash):
                self.duplicates += 1
                self._spreading.knows(peer, record, raw_hash)
                return
            self._admission.charge(record, size, room, now)
        admitted = self._admission.check(record, raw_hash, size, now)
        self._merge(admitted, peer, room, now, now_ms, taken)
        self._admission.remember(raw_hash, now)
        if room is not None and not was_known and signer in self._table.entries:
            room.ids.take(1, now)

    def _merge(
        self,
        admitted: Admitted,
        peer: bytes,
        room: Room | None,
        now: float,
        now_ms: int,
        taken: Taken,
        own: bool = False,
    ) -> None:
        record, value = admitted.record, admitted.value
        if value is None:
            taken.news += 1
            self._hand_on(record, peer, None, now, beside=True)
            return
        node = _subject(record, value)
        known = self._table.entries.get(node)
        had_card = known is not None and bool(known.card.records)
        outcome = self._table.merge(record, value, peer, now, now_ms)
        if outcome == "same":
            return
        entry = self._table.entries[node]
        late = isinstance(value, State) and now >= entry.term
        if room is not None and (outcome == "old" or late):
            raise ProtocolError("stale")
        if outcome == "old":
            return
        taken.news += 1
        taken.commands.append(Changed(node))
        if node == self._me and not own:
            self._outdo(value, now, taken)
        if isinstance(value, State) and value.card != entry.card_hash:
            taken.wants_card = True
        if outcome == "rival":
            self.refused["equivocation"] += 1
            taken.commands.append(Refused(node, "equivocation"))
        if now < entry.banned_until or late or not entry.card.records:
            return
        if outcome == "rival":
            for proof in (entry.card if isinstance(value, Card) else entry.states).records:
                self._hand_on(proof, None, entry, now, beside=True)
        elif room is not None or own:
            self._hand_on(record, peer, entry, now, urgent=outcome == "changed", own=own)
        if not had_card and now < entry.term:
            for waiting in entry.records():  # its states waited for the card
                self._hand_on(waiting, peer, entry, now)

    def _hand_on(
        self,
        record: Record,
        source: bytes | None,
        entry: Entry | None,
        now: float,
        *,
        urgent: bool = True,
        own: bool = False,
        beside: bool = False,
    ) -> None:
        raw_hash, size = self._admission.identify(record)
        self._spreading.add(
            record,
            raw_hash=raw_hash,
            size=size,
            entry=entry,
            source=source,
            urgent=urgent,
            now=now,
            own=own,
            beside=beside,
        )

    def _outdo(self, value: Card | State | Successor | Revoke, now: float, taken: Taken) -> None:
        if not isinstance(value, Card | State):
            return
        self.seq = max(self.seq, value.seq)
        if self._refutations.take(1, now):
            taken.refute = True
            if isinstance(value, Card):
                taken.commands.append(CardDue(self.seq + 1))


def _subject(record: Record, value: Card | State | Successor | Revoke) -> bytes:
    """Whom a record is about."""
    return record.signed.signer if isinstance(value, Card | State) else value.node
