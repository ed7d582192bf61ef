"""Ids are free: whoever makes up many fills no table, pushes nobody out, and has few of them handed on."""

from __future__ import annotations

import pytest

from infraxa.net import gossip
from infraxa.net.admission import GossipLimits
from infraxa.net.entries import Entry
from infraxa.net.table import Table, TableLimits
from tests.attacks import report
from tests.attacks.crowd import WIDE_OPEN, Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, node_id

OTHERS = [node_id(number) for number in range(1_000_001, 1_000_007)]
"""Linked too; news is handed on to them."""


def unasked(victim: Victim, count: int) -> None:
    """One peer tells of so many nodes within a minute."""
    for start in range(0, count, 60):
        victim.tell(PEER, sybils(start + 1, min(60, count - start), live=False))
        victim.wait(60 * 60 / count)


def test_one_peer_tells_of_many() -> None:
    count = report.scale(900, 20_000)
    weak = Victim(PEER, *OTHERS, limits=WIDE_OPEN)
    unasked(weak, count)
    assert weak.known == count and weak.checked == count and weak.sent["card"] >= count
    ours = Victim(PEER, *OTHERS)
    unasked(ours, count)
    assert ours.known <= 101 and ours.checked <= 101
    assert ours.sent["card"] <= 101 * len(OTHERS)
    assert ours.gossip.intake.refused["rate"] >= count - 101
    assert not ours.dropped, "an honest peer that heals after a cut may do the same"
    report.tell(
        f"id flood: {count:,} ids unasked in a minute",
        weakened=f"{weak.known:,} kept, {weak.sent['card']:,} handed on",
        ours=f"{ours.known} kept, rate",
        cost=f"{ours.checked} signatures, {ours.sent['card']} copies",
    )


def test_one_peer_answers_with_many() -> None:
    """In anti-entropy the node asked for what it lacks, so that only places are charged."""
    count = report.scale(1500, 20_000)
    weak = Victim(PEER, limits=WIDE_OPEN)
    weak.learn(PEER, sybils(1, count, live=False))
    assert weak.known == count
    ours = Victim(PEER)
    ours.learn(PEER, sybils(1, count, live=False))
    assert ours.known == TableLimits().per_introducer
    assert ours.gossip.intake.refused["full"] == count - ours.known
    assert len(ours.gossip.table.first_named) <= ours.known
    report.tell(
        f"id flood: {count:,} ids by anti-entropy",
        weakened=f"{weak.known:,} kept",
        ours=f"{ours.known} kept, full",
        cost=f"{ours.known} of 8192 places",
    )


class Fifo(Table):
    """Makes room as a cache does: whoever came first goes."""

    def _evict(self, introducer: bytes, now: float) -> bool:
        self.forget(next(iter(self.entries.values())))
        return True


class FirstCome(Table):
    """Makes no room for anybody."""

    def _may_evict(self, entry: Entry) -> bool:
        return False


def besieged(victim: Victim, hostile: int, minutes: int) -> tuple[int, int, bool]:
    """How many are never forgotten, of 8 nodes that were spoken to and of 16 others that one honest peer told
    of; and whether one more that it tells of is let in."""
    honest = [node_id(2_000_000 + number) for number in range(24)]

    def heartbeats(numbers: range) -> None:
        for number in numbers:
            victim.learn(PEER, sybils(2_000_000 + number, 1, victim.now_ms))

    kept = [True] * 24
    heartbeats(range(24))
    for node in honest[:8]:
        victim.gossip.contacted(node)
    for minute in range(minutes):
        for number in range(hostile):
            first = 10_000 * (number + 1) + 50 * minute
            victim.tell(node_id(3_000_000 + number), sybils(first, 50, victim.now_ms))
        kept = [was and node in victim.gossip.table.entries for was, node in zip(kept, honest, strict=True)]
        victim.wait(60)
        heartbeats(range(24))
    heartbeats(range(24, 49))
    return sum(kept[:8]), sum(kept[8:]), node_id(2_000_024) in victim.gossip.table.entries


@pytest.mark.parametrize("weaker", [Fifo, FirstCome])
def test_many_peers_tell_of_many(weaker: type[Table]) -> None:
    hostile, minutes = report.scale(12, 40), report.scale(3, 6)
    cards = report.scale(500, 8192)
    limits = GossipLimits(table=TableLimits(cards=cards, per_introducer=cards // 8))
    peers = [node_id(3_000_000 + number) for number in range(hostile)]
    with replaced((gossip, "Table", weaker)):
        weak = besieged(Victim(PEER, *peers, limits=limits), hostile, minutes)
    assert weak != (8, 16, True)
    ours = Victim(PEER, *peers, limits=limits)
    assert besieged(ours, hostile, minutes) == (8, 16, True)
    assert ours.known <= cards
    assert ours.gossip.intake.refused["full"] > 0
    report.tell(
        f"id flood: {hostile} peers, full table, {weaker.__name__}",
        weakened=f"{weak[0]}/8 spoken to, {weak[1]}/16 others kept, new one {'in' if weak[2] else 'out'}",
        ours="8/8, 16/16, new one in; full",
        cost=f"{ours.known:,} of {cards:,} places",
    )
