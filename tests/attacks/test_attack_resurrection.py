"""A node that is gone is told of again and again, by genuine old records: it stays gone."""

from __future__ import annotations

from infraxa.net import table
from infraxa.net.wire import Push
from tests.attacks import report
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, World, a_card, a_state, node_id

DEAD = node_id(1)
OTHERS = [node_id(number) for number in range(100, 106)]
NAIVE = ((table, "CLOCKS_APART_MS", 2**50), (table, "LINGER_S", 0.0))
"""A lease begins when a record comes, however old that is, and what has ended is forgotten."""


def haunted(minutes: int, *, asked: bool) -> tuple[float, Victim]:
    """The share of the time in which a node is shown that was last there 10 minutes before."""
    card = a_card(DEAD, START_MS - 700_000)
    records = (card, a_state(card, START_MS - 600_000))
    victim = Victim(PEER, *OTHERS)
    shown = 0
    for _ in range(minutes):
        (victim.learn if asked else victim.tell)(PEER, records)
        shown += victim.status(DEAD) == "online"
        victim.tell(OTHERS[0], sybils(5000, 20, victim.now_ms))  # there is other news
        victim.wait(60)
    return shown / minutes, victim


def test_the_dead_do_not_come_back() -> None:
    minutes = report.scale(30, 600)
    for asked in (False, True):
        with replaced(*NAIVE):
            weakened, _ = haunted(minutes, asked=asked)
        assert weakened >= 0.2
        ours, victim = haunted(minutes, asked=asked)
        assert ours == 0 and DEAD not in victim.gossip.table.digests
        assert asked or victim.gossip.intake.refused["stale"] > 0
        report.tell(
            f"resurrection: {'asked' if asked else 'unasked'}",
            weakened=f"shown {weakened:.0%} of {minutes} minutes",
            ours="never shown" + ("" if asked else "; stale"),
            cost="at most one signature for each time",
        )


def listed_after_a_crash(nodes: int) -> int:
    """How many list a node ten minutes after it crashed, while somebody tells all of them its last words."""
    world = World(nodes)
    for number in range(1, nodes):
        world.link(0, number)
        world.link(number, number % (nodes - 1) + 1)
    world.run(40)
    entry = world.nodes[0].table.entries[world.ids[1]]
    last = Push(tuple(entry.records()))
    for other in (0, 2, nodes - 1):
        if (1, other) in world.links or (other, 1) in world.links:
            world.cut(1, other)
    world.down.add(1)

    def repeat() -> None:
        for number, gossip in enumerate(world.nodes):
            if number != 1:
                world.apply(number, gossip.learn(PEER, last, world.now, world.now_ms))

    world.run(595, step=2.5, watch=repeat)
    return sum(1 in world.live(number) for number in range(nodes) if number != 1)


def test_last_words_told_by_a_neighbour_to_everybody() -> None:
    nodes = report.scale(6, 20)
    with replaced(*NAIVE):
        weakened = listed_after_a_crash(nodes)
    ours = listed_after_a_crash(nodes)
    assert ours == 0 and weakened == nodes - 1
    report.tell(
        f"resurrection: last words told to {nodes - 1} nodes",
        weakened=f"listed by {weakened}",
        ours="listed by 0; stale",
    )
