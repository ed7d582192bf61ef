"""What of a peer's records is looked at: size, seen before, what the peer may cost, signature, decoding.

In this order, so that the cheap comes first and a signature check (about 60 µs) is paid for by the peer that
brought the record. Verified means only that its signer wrote it; what it says is judged by table.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, cast, get_args

from msgspec import Struct

from infraxa.net import codec
from infraxa.net.codec import Signed, Tag
from infraxa.net.errors import ProtocolError
from infraxa.net.rates import Bucket
from infraxa.net.rating_table import RatingLimits
from infraxa.net.records import MAX_CARD, MAX_STATE, Card, Record, Revoke, State, Successor
from infraxa.net.table import Table, TableLimits

Verify = Callable[[Tag, Signed], bool]

KINDS: Final[dict[str, tuple[int, Any]]] = {
    "card": (MAX_CARD, Card),
    "state": (MAX_STATE, State),
    "successor": (MAX_STATE, Successor),
    "revoke": (MAX_STATE, Revoke),
}
"""Bytes of an encoded record, and what its body is."""
MAX_UNKNOWN_SIGNERS: Final = 1024
MAX_SEEN: Final = 16_384
"""Records in one generation of those seen; there are two, about 2 MB each when full."""
SEEN_S: Final = 190.0
"""Two leases; a generation is thrown away after this."""


class GossipLimits(Struct, frozen=True):
    """What one peer may cost."""

    table: TableLimits = TableLimits()
    ratings: RatingLimits = RatingLimits()
    bytes_per_s: float = 64_000
    unverified: float = 256 * 1024
    """Bytes at once; of these each record that was not seen before costs a signature check."""
    all_bytes_per_s: float = 256_000
    """From all peers together; beyond, those that brought most are refused first."""
    new_ids_per_min: float = 50
    unknown_per_min: float = 4096
    """Bytes of records of unknown kinds, per signer."""


STANDARD: Final = GossipLimits()


class Room:
    """What one peer may still bring unasked."""

    __slots__ = ("bytes", "ids")

    def __init__(self, limits: GossipLimits) -> None:
        self.bytes = Bucket(limits.bytes_per_s, limits.unverified)
        self.ids = Bucket(limits.new_ids_per_min / 60, limits.new_ids_per_min)


class Admitted(Struct, frozen=True):
    """A record whose signature held."""

    record: Record
    value: Card | State | Successor | Revoke | None
    """The decoded body; None when the kind is unknown."""
    raw_hash: bytes
    size: int


class Admission:
    """The checks, for all peers."""

    def __init__(self, table: Table, verify: Verify, limits: GossipLimits) -> None:
        self._table = table
        self._verify = verify
        self._limits = limits
        self._all = Bucket(limits.all_bytes_per_s, 4 * limits.all_bytes_per_s)
        self._unknown: dict[bytes, Bucket] = {}
        self._seen: set[bytes] = set()
        self._seen_before: set[bytes] = set()
        self._seen_since = float("-inf")

    def identify(self, record: Record) -> tuple[bytes, int]:
        """The hash of the record as it travels, by which it is recognized, and its size in bytes."""
        raw = codec.encode(record)
        return hashlib.sha256(raw).digest()[:16], len(raw)

    def seen(self, raw_hash: bytes) -> bool:
        return raw_hash in self._seen or raw_hash in self._seen_before

    def remember(self, raw_hash: bytes, now: float) -> None:
        """Only after the signature held: else a forgery would keep the real record out."""
        if len(self._seen) >= MAX_SEEN or now >= self._seen_since + SEEN_S:
            self._seen, self._seen_before, self._seen_since = set(), self._seen, now
        self._seen.add(raw_hash)

    def charge(self, record: Record, size: int, room: Room, now: float) -> None:
        """For what comes unasked. Raises ProtocolError `rate`."""
        if record.signed.signer not in self._table.entries and not room.ids.has(1, now):
            raise ProtocolError("rate", "new ids")
        if not room.bytes.take(size, now):
            raise ProtocolError("rate", "bytes")
        # One that floods must not be able to use up what the others need.
        if not self._all.take(size, now) and room.bytes.left(now) < 0.75 * room.bytes.burst:
            raise ProtocolError("rate", "bytes of all peers")

    def check(self, record: Record, raw_hash: bytes, size: int, now: float) -> Admitted:
        """Raises ProtocolError: too_large, not_allowed, rate (both of unknown kinds), bad_signature,
        malformed."""
        most, kind = KINDS.get(record.kind, (MAX_CARD, None))
        if size > most:
            raise ProtocolError("too_large", record.kind if kind else "unknown kind")
        if kind is None:
            self._charge_unknown(record, size, now)
        if not self._verify(cast(Tag, record.kind), record.signed):
            raise ProtocolError("bad_signature")
        value = codec.decode(record.signed.body, kind) if kind else None
        return Admitted(record, value, raw_hash, size)

    def _charge_unknown(self, record: Record, size: int, now: float) -> None:
        if record.kind in get_args(Tag):
            raise ProtocolError("not_allowed", "signed for something else than gossip")
        entry = self._table.entries.get(record.signed.signer)
        if entry is None or not entry.live(now):
            raise ProtocolError("not_allowed", "unknown kind, and its signer has no live card")
        per_minute = self._limits.unknown_per_min
        if len(self._unknown) >= MAX_UNKNOWN_SIGNERS:
            self._unknown = {
                node: allowance
                for node, allowance in self._unknown.items()
                if allowance.left(now) < per_minute
            }
        if len(self._unknown) >= MAX_UNKNOWN_SIGNERS and record.signed.signer not in self._unknown:
            raise ProtocolError("rate", "signers of unknown kinds")
        allowance = self._unknown.setdefault(record.signed.signer, Bucket(per_minute / 60, per_minute))
        if not allowance.take(size, now):
            raise ProtocolError("rate", "unknown kind")
