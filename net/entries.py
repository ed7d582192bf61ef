"""What is kept of one node, and the join by which records are merged into it.

Of each kind the highest number wins; of several bodies under that number the two with the smallest digests
are kept, as the proof that their signer equivocates. So nodes that received the same records hold the same,
whatever the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from msgspec import structs

from infraxa.net import codec
from infraxa.net.records import Record, State


class Claim:
    """The highest-numbered record of one kind by one signer; two of them when there are two bodies."""

    __slots__ = ("digests", "records", "seq")

    def __init__(self) -> None:
        self.seq = -1
        self.records: tuple[Record, ...] = ()
        self.digests: tuple[bytes, ...] = ()

    @property
    def doubtful(self) -> bool:
        return len(self.records) > 1

    def merge(self, seq: int, record: Record, digest: bytes) -> Literal["new", "rival", "same", "old"]:
        if seq < self.seq:
            return "old"
        if seq > self.seq:
            self.seq, self.records, self.digests = seq, (record,), (digest,)
            return "new"
        if digest in self.digests:
            return "same"
        both = sorted(zip((*self.digests, digest), (*self.records, record), strict=True), key=_by_digest)[:2]
        digests = tuple(found for found, _ in both)
        if digests == self.digests:
            return "same"
        self.digests, self.records = digests, tuple(kept for _, kept in both)
        return "rival"


def _by_digest(pair: tuple[bytes, Record]) -> bytes:
    return pair[0]


class Entry:
    """One node."""

    __slots__ = (
        "banned_until", "card", "contacted", "group", "heard", "id", "introducer", "name", "recovery",
        "retired", "spread_full_at", "state", "states", "strikes", "term", "until",
    )  # fmt: skip

    def __init__(self, node: bytes, introducer: bytes, now: float) -> None:
        self.id = node
        self.introducer = introducer
        self.card = Claim()
        self.states = Claim()
        self.state: State | None = None
        """The decoded newest state; None while there is none, or two."""
        self.recovery = b""
        """Of the first card that was seen."""
        self.name = ""
        self.group = ""
        """The wide group of the first address in its card; empty when there is none."""
        self.retired: Record | None = None
        """The successor or revoke record."""
        self.term = float("-inf")
        """Until when the state is handed on."""
        self.until = float("-inf")
        """Until when the node counts as there; the term, but for the grace after this node slept."""
        self.heard = now
        self.contacted = False
        """A handshake with it succeeded."""
        self.strikes: tuple[float, ...] = ()
        self.banned_until = float("-inf")
        self.spread_full_at = float("-inf")

    @property
    def doubtful(self) -> bool:
        """Two bodies under one number: not used until a higher one."""
        return self.card.doubtful or self.states.doubtful

    def usable(self, now: float) -> bool:
        """Whether it may be shown and dialled at all."""
        return bool(self.card.records) and not (self.doubtful or self.retired or now < self.banned_until)

    def live(self, now: float) -> bool:
        """Whether it counts as there."""
        return (
            now < self.until
            and self.state is not None
            and self.state.status != "offline"
            and self.usable(now)
        )

    @property
    def card_hash(self) -> bytes:
        """What a state of this card names it by."""
        return self.card.digests[0][:8] if self.card.digests else b""

    def item(self, now: float) -> bytes | None:
        """The digest for anti-entropy; None when there is nothing to hand on."""
        if self.retired is not None:
            return _sha256(b"retired", self.id, self.retired.kind.encode(), self.retired.signed.body)
        if not self.card.records or now >= self.term:
            return None
        return _sha256(
            self.id, bytes((len(self.card.digests),)), *self.card.digests, *(
                (codec.encode(structs.replace(self.state, seq=0)),) if self.state else self.states.digests
            )
        )  # fmt: skip

    def records(self) -> Iterator[Record]:
        """All that is handed on of it, the card first."""
        yield from self.card.records
        if self.retired is not None:
            yield self.retired
        else:
            yield from self.states.records


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
