"""What others are shown of the table, and whom to try: screens, peer exchange, candidates for dialling."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from infraxa.net import codec
from infraxa.net.addresses import Source
from infraxa.net.entries import Entry
from infraxa.net.records import FEATURE_REACHABLE, MAX_STATE, Card, Record, Status
from infraxa.net.status import SeenNode
from infraxa.net.table import Table
from infraxa.net.wire import MAX_PEERS_TOLD, Push

MAX_DECODED: Final = 2048
"""About 6 MB with a few models in each."""


class Candidate(Struct, frozen=True):
    """A node that may be dialled, and where."""

    node: bytes
    addresses: tuple[str, ...]
    source: Source = "gossip"
    tried: bool = False
    """A handshake with it succeeded before."""


def card_of(entry: Entry) -> Card | None:
    """Its card, or None when there is none that may be used. Decoded anew: a table of cards is large."""
    if not entry.card.records or entry.card.doubtful:
        return None
    card: Card = codec.decode(entry.card.records[0].signed.body, Card)
    return card


class Cards:
    """The decoded cards of those who were shown last, at most MAX_DECODED: a screen asks five times a second
    for what changes seldom."""

    def __init__(self) -> None:
        self._last: dict[bytes, Card] = {}
        self._shown: dict[bytes, Card] = {}

    def begin(self) -> None:
        """Everybody is shown anew: who is not `of` this time is forgotten."""
        self._last, self._shown = self._shown, {}

    def of(self, entry: Entry) -> Card | None:
        """As card_of."""
        if not entry.card.digests or entry.card.doubtful:
            return None
        digest = entry.card.digests[0]
        card = self._last.get(digest) or card_of(entry)
        if card is not None and len(self._shown) < MAX_DECODED:
            self._shown[digest] = card
        return card


def count_live(table: Table, me: bytes, now: float) -> int:
    """How many others are there."""
    return sum(entry.live(now) for entry in table.entries.values()) - (
        (own := table.entries.get(me)) is not None and own.live(now)
    )


def seen_nodes(table: Table, me: bytes, linked: Sequence[bytes], cards: Cards, now: float) -> list[SeenNode]:
    """Everybody who may be shown; who is not there any more is `offline`, until it is forgotten."""
    found: list[SeenNode] = []
    cards.begin()
    for entry in table.entries.values():
        card = cards.of(entry) if entry.usable(now) else None
        if card is None:
            continue
        state = entry.state
        status: Status = "offline"
        if state is not None and entry.live(now):
            status = state.status
        elif entry.id in linked and not entry.states.records:
            status = "online"  # it has told nobody, but speaks to this node
        current = state is not None and state.card == entry.card_hash
        found.append(
            SeenNode(
                id=entry.id,
                name=card.name,
                status=status,
                age_s=max(0.0, now - entry.heard),
                addresses=card.addresses,
                relays=card.relays,
                slots=card.slots,
                util=state.util if state else 0,
                models=card.models,
                # Prices name models by their place in one certain card.
                prices=state.prices if state is not None and current else (),
                first_token_ms=state.first_token_ms if state else 0,
                same_name_as=table.same_name_as(entry),
                via="self" if entry.id == me else "gossip",
                reachable=bool(card.features & FEATURE_REACHABLE),
                stranger_limit=card.stranger_limit,
                free_daily=card.free_daily,
            )
        )
    return found


def peers_told(table: Table, asker: bytes, count: int, rng: random.Random, now: float) -> Push:
    """For peer exchange: cards of nodes that are there and say where, those spoken to first."""
    good = [
        entry for entry in table.entries.values() if entry.group and entry.id != asker and entry.live(now)
    ]
    rng.shuffle(good)
    good.sort(key=lambda entry: not entry.contacted)
    records: list[Record] = []
    size = 0
    for entry in good[: min(count, MAX_PEERS_TOLD)]:
        record = entry.card.records[0]
        size += len(record.signed.body) + MAX_STATE
        if size <= codec.MAX_MESSAGE:
            records.append(record)
    return Push(tuple(records))


def candidates(table: Table, me: bytes, count: int, rng: random.Random, now: float) -> list[Candidate]:
    """Up to `count` nodes for Overlay.wanted, one of each wide group of addresses in turn: whoever has a
    thousand ids in a few networks is not a thousand times as likely to be dialled. Of a group those that are
    there first."""
    groups: dict[str, list[Entry]] = {}
    for entry in table.entries.values():
        if entry.group and entry.id != me and entry.usable(now):
            groups.setdefault(entry.group, []).append(entry)
    queues = list(groups.values())
    rng.shuffle(queues)
    for queue in queues:
        rng.shuffle(queue)
        queue.sort(key=lambda entry: entry.live(now))  # the last is taken first
    found: list[Candidate] = []
    while queues and len(found) < count:
        for queue in queues[: count - len(found)]:
            entry = queue.pop()
            card = card_of(entry)
            if card is not None:
                found.append(Candidate(entry.id, card.addresses, tried=entry.contacted))
        queues = [queue for queue in queues if queue]
    return found
