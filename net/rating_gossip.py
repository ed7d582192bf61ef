"""How ratings spread: as news from link to link, and by rounds of anti-entropy, beside the gossip of cards
and states and never at its cost. A pure state machine, as gossip.py, which owns it.

Everything has its own small limits: what a link may bring, what is sent on it, how fast the ratings of one
provider are handed on, how often a round is run and how much it brings. So a flood of ratings, which any
provider can make for itself, ends at the first honest node, and costs that a known number of signature
checks. What a limit keeps from being handed on comes by anti-entropy to whoever keeps it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from infraxa.net import codec
from infraxa.net.admission import Verify
from infraxa.net.commands import Command, Drop, Refused, Send, SyncRatings
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.intake import BAN_S
from infraxa.net.rates import Bucket
from infraxa.net.rating_table import RatingLimits, RatingTable, hash_of
from infraxa.net.ratings import Rating, check, day_of
from infraxa.net.records import Record
from infraxa.net.rounds import ROUND_S, Answers, AntiEntropy, Round
from infraxa.net.spreading import Spreading, Target
from infraxa.net.table import Table
from infraxa.net.wire import Push

BYTES_PER_S: Final = 2_000
BYTES_AT_ONCE: Final = 24 * 1024
"""Of ratings that one link may bring unasked: 6 a second, 75 at once, at two signature checks each."""
ALL_PER_S: Final = 8_000
ALL_AT_ONCE: Final = 96 * 1024
"""Of all links together: 50 signature checks a second, 3 ms."""
PROVIDER_PER_S: Final = 1 / 30
PROVIDER_AT_ONCE: Final = 8
"""Ratings of one provider that are handed on as news."""
MAX_PACED: Final = 1024
"""Providers whose pace is remembered."""
MAX_ROUND: Final = 128 * 1024
"""Bytes that one round may bring: 400 ratings."""
EVERY_S: Final = 60.0
"""Between rounds, each with another link; when all is the same, one costs 2 kB."""
AGAIN_S: Final = 10.0
"""After a round that brought news."""
SWEEP_S: Final = 3600.0


class _Link(Target):
    __slots__ = ("asked_at", "room")

    def __init__(self, peer: bytes, outbound: bool) -> None:
        super().__init__(peer, outbound, Bucket(0.9 * BYTES_PER_S, 0.9 * BYTES_AT_ONCE))
        self.room = Bucket(BYTES_PER_S, BYTES_AT_ONCE)
        self.asked_at = float("-inf")


class _Read(Struct, frozen=True):
    """A record that was verified."""

    rating: Rating
    raw: bytes
    item: bytes


class RatingGossip:
    """The ratings of one node, and its links. `nodes`: whose cards are here."""

    def __init__(self, nodes: Table, rng: random.Random, verify: Verify, limits: RatingLimits) -> None:
        self._nodes = nodes
        self._rng = rng
        self._verify = verify
        self.table = RatingTable(self._on_network, limits)
        self._links: dict[bytes, _Link] = {}
        self._all = Bucket(ALL_PER_S, ALL_AT_ONCE)
        self._spreading = Spreading(rng)
        self._paces: dict[bytes, Bucket] = {}
        self._answers = Answers(self.table.digests, lambda items, now: self.table.records(items), MAX_ROUND)
        self._round_at = float("inf")
        self._sweep_at = float("-inf")
        self._own_turn = False

    def linked(self, peer: bytes, outbound: bool, now: float) -> None:
        """A link with `peer` stands."""
        link = self._links.setdefault(peer, _Link(peer, outbound))
        link.outbound = outbound
        self._round_at = min(self._round_at, now + self._rng.uniform(1, AGAIN_S))

    def unlinked(self, peer: bytes) -> None:
        self._links.pop(peer, None)
        self._answers.forget(peer)

    def receive(self, peer: bytes, records: Iterable[Record], now: float, now_ms: int) -> list[Command]:
        """Ratings that `peer` told unasked."""
        return self._take(peer, records, self._links[peer].room, now, now_ms)[1] + self._flush(now)

    def publish(self, record: Record, now: float, now_ms: int) -> list[Command]:
        """This node's person's own rating. It goes on as if another node had told it: to some links, not to
        all. Raises ProtocolError for what everybody would refuse."""
        read = self._read(record, now_ms)
        self.table.put(read.rating, read.raw, read.item)
        self._hand_on(record, read, None, now)
        return self._flush(now)

    def tick(self, now: float, now_ms: int) -> list[Command]:
        """What waits, and rounds."""
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self.table.expire(day_of(now_ms))
        out = self._flush(now)
        if now >= self._round_at:
            self._round_at = float("inf")
            if self._links:
                # Until it ends, at the latest then.
                self._round_at = now + ROUND_S + EVERY_S * self._rng.uniform(0.5, 1.5)
                out.append(SyncRatings(self._next_asked(now)))
        return out

    def _next_asked(self, now: float) -> bytes:
        """In turn: who was not asked for longest of the links that this node chose itself, then of all. So
        nobody keeps news away by being most of those that dialled it."""
        self._own_turn = not self._own_turn
        own = [link for link in self._links.values() if link.outbound] if self._own_turn else []
        link = min(own or self._links.values(), key=lambda one: (one.asked_at, self._rng.random()))
        link.asked_at = now
        return link.peer

    def next_tick(self) -> float:
        return min(self._spreading.flush_at, self._round_at, self._sweep_at)

    def round(self, peer: bytes, now: float) -> Round:
        """The round that SyncRatings asked for."""

        def take(push: Push, at: float, at_ms: int) -> tuple[int, list[Command]]:
            news, out = self._take(peer, push.records, None, at, at_ms)
            return news, out + self._flush(at)

        def done(one: Round, at: float) -> None:
            after = AGAIN_S if one.news else EVERY_S
            self._round_at = at + after * self._rng.uniform(0.5, 1.5)

        return Round(peer, self.table.known, self._rng, take, done, now, MAX_ROUND, ratings=True)

    def answer(self, peer: bytes, request: AntiEntropy, now: float) -> Iterator[bytes]:
        """The chunks that answer a peer's request. Raises ProtocolError `rate`."""
        return self._answers.answer(peer, request, now)

    def _take(
        self, peer: bytes, records: Iterable[Record], room: Bucket | None, now: float, now_ms: int
    ) -> tuple[int, list[Command]]:
        """Up to the first that shows that the peer does not check what it hands on. `room`: what it may bring
        unasked; None for what it was asked for. Returns how many were news."""
        news = 0
        refused: dict[Refusal, None] = {}
        for record in records:
            try:
                news += self._take_one(peer, record, room, now, now_ms)
            except ProtocolError as error:
                # Clocks differ at midnight: a day too many is nobody's fault.
                if error.reason != "stale":
                    refused[error.reason] = None
                if error.reason == "bad_signature":
                    break
        out: list[Command] = [Refused(peer, reason) for reason in refused]
        if "bad_signature" in refused:
            out.append(Drop(peer, "bad_signature", BAN_S))
        return news, out

    def _take_one(self, peer: bytes, record: Record, room: Bucket | None, now: float, now_ms: int) -> bool:
        if record.kind != "rating":
            raise ProtocolError("not_asked", "no rating")
        raw = codec.encode(record)
        if hash_of(raw) in self.table.known:
            return False
        if room is not None:
            if not room.take(len(raw), now):
                raise ProtocolError("rate", "ratings")
            if not self._all.take(len(raw), now):
                return False  # others flood, maybe; anti-entropy brings it
        read = self._read(record, now_ms)
        news = self.table.put(read.rating, read.raw, read.item)
        if news and room is not None:
            self._hand_on(record, read, peer, now)
        return news

    def _read(self, record: Record, now_ms: int) -> _Read:
        """Raises ProtocolError, see ratings.check."""
        raw = codec.encode(record)
        return _Read(check(record.signed, day_of(now_ms), self._verify), raw, hash_of(raw))

    def _hand_on(self, record: Record, read: _Read, source: bytes | None, now: float) -> None:
        provider = read.rating.provider
        if not self._on_network(provider):
            return
        if len(self._paces) >= MAX_PACED:
            self._paces = {
                node: pace for node, pace in self._paces.items() if pace.left(now) < PROVIDER_AT_ONCE
            }
        if len(self._paces) >= MAX_PACED and provider not in self._paces:
            return
        pace = self._paces.setdefault(provider, Bucket(PROVIDER_PER_S, PROVIDER_AT_ONCE))
        if pace.take(1, now):
            self._spreading.add(
                record,
                raw_hash=read.item,
                size=len(read.raw),
                entry=None,
                source=source,
                urgent=False,
                now=now,
                beside=True,
            )

    def _flush(self, now: float) -> list[Command]:
        return [Send(peer, push) for peer, push in self._spreading.flush([*self._links.values()], now)]

    def _on_network(self, provider: bytes) -> bool:
        entry = self._nodes.entries.get(provider)
        return entry is not None and bool(entry.card.records)
