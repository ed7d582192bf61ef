"""Two bodies under one number, one for each half of the network: none believes either, all have the proof."""

from __future__ import annotations

from infraxa.net import entries, table
from infraxa.net.entries import Claim
from infraxa.net.records import PriceNow, Record
from infraxa.net.wire import Push
from tests.attacks import report
from tests.attacks.crowd import Victim
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, World, a_card, a_state, node_id

LIAR = node_id(77)
OTHERS = [node_id(number) for number in range(100, 110)]


class FirstWins(Claim):
    """Of two bodies under one number, believes the one that it heard first."""

    def merge(self, seq: int, record: Record, digest: bytes) -> str:  # type: ignore[override]
        return super().merge(seq, record, digest) if seq > self.seq else "old"


def priced(card: Record, seq: int, price: int) -> Record:
    return a_state(card, seq, prices=(PriceNow(0, price, price),))


def split(nodes: int) -> tuple[list[int], World]:
    """The price that each node of a row shows after its two ends were told two, and after five minutes."""
    world = World(nodes, publishing=False)
    for number in range(nodes - 1):
        world.link(number, number + 1)
    card = a_card(LIAR, START_MS)
    for number, price in ((0, 1), (nodes - 1, 500)):
        world.nodes[number].linked(PEER, world.now, world.now_ms, outbound=False)
        push = Push((card, priced(card, START_MS, price)))
        world.apply(number, world.nodes[number].receive(PEER, push, world.now, world.now_ms))
    world.settle()
    world.run(60)
    shown = [
        seen.prices[0].price_in if seen.prices else 0
        for gossip in world.nodes
        for seen in gossip.nodes(world.now)
        if seen.id == LIAR
    ]
    return shown, world


def test_two_prices_for_two_halves_of_the_network() -> None:
    nodes = report.scale(8, 40)
    with replaced((entries, "Claim", FirstWins)):
        weakened, weak = split(nodes)
    assert sorted(weakened) == [1] * (nodes // 2) + [500] * (nodes // 2)
    ours, world = split(nodes)
    assert ours == [], "nobody shows it"
    proofs = [len(gossip.table.entries[LIAR].states.records) for gossip in world.nodes]
    assert proofs == [2] * nodes
    assert sum(gossip.intake.refused["equivocation"] for gossip in world.nodes) == nodes
    assert len({gossip.table.digests.root for gossip in world.nodes}) == 1
    report.tell(
        f"equivocation: two prices for two halves of {nodes} nodes",
        weakened=f"{weakened.count(1)} show one, {weakened.count(500)} the other",
        ours="nobody shows it, all have the proof; equivocation",
        cost=f"two records kept; {world.rounds} rounds, {weak.rounds} at the weakened",
    )


class KeepsAll(Claim):
    """Keeps each body as a proof, and hands it on."""

    def merge(self, seq: int, record: Record, digest: bytes) -> str:  # type: ignore[override]
        if seq > self.seq or digest in self.digests:
            return super().merge(seq, record, digest)
        self.records, self.digests = (*self.records, record), (*self.digests, digest)
        return "rival"


def bodies(count: int) -> tuple[int, Victim]:
    """How many records are kept of one who signs so many under one number."""
    card = a_card(LIAR, START_MS)
    victim = Victim(PEER, *OTHERS)
    victim.tell(PEER, (card,))
    for price in range(count):
        victim.tell(PEER, (priced(card, START_MS, price),))
        victim.wait(0.03)
    return len(victim.gossip.table.entries[LIAR].states.records), victim


def test_many_bodies_under_one_number() -> None:
    count = report.scale(200, 2000)
    with replaced((entries, "Claim", KeepsAll)):
        weakened, weak = bodies(count)
    assert weakened == count
    kept, victim = bodies(count)
    assert kept == 2 and victim.status(LIAR) == ""
    assert victim.sent["state"] <= 8 * (len(OTHERS) + 1)
    report.tell(
        f"equivocation: {count:,} bodies under one number",
        weakened=f"{weakened:,} kept, {weak.sent['state']:,} copies handed on",
        ours=f"{kept} kept, {victim.sent['state']} copies; equivocation",
        cost="one signature each",
    )


def third_time(strikes: int) -> tuple[str, str, str]:
    """How somebody is shown who equivocated three times in a day and then told the truth: at once, after 23
    hours, after 25 hours."""
    with replaced((table, "STRIKES", strikes)):
        victim = Victim(PEER)
        for _ in range(3):
            card = a_card(LIAR, victim.now_ms)
            victim.tell(PEER, (card, priced(card, victim.now_ms, 1), priced(card, victim.now_ms, 2)))
            victim.wait(60)
        shown = []
        for hours in (0, 23, 2):
            victim.wait(hours * 3600)
            card = a_card(LIAR, victim.now_ms)
            victim.tell(PEER, (card, a_state(card, victim.now_ms)))
            shown.append(victim.status(LIAR))
        return shown[0], shown[1], shown[2]


def test_the_third_time_in_a_day() -> None:
    assert third_time(10**9) == ("online", "online", "online")
    assert third_time(3) == ("", "", "online")
    report.tell(
        "equivocation: three times in a day", weakened="shown again at once", ours="not shown for 24 h"
    )
