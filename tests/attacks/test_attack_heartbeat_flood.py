"""One signer says something new all the time: the whole network is not made to hand it on."""

from __future__ import annotations

from infraxa.net import codec, spreading
from infraxa.net.records import Status
from tests.attacks import report
from tests.attacks.crowd import WIDE_OPEN, Victim
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, World, a_card, a_state, node_id

SIGNER, HONEST = node_id(1), node_id(2)
OTHERS = [node_id(number) for number in range(100, 110)]
UNPACED = (spreading, "_pace", lambda entry, now: True)


def flooded(count: int, seconds: float, victim: Victim) -> Victim:
    """So many states of one signer in so many seconds, each of which changes something."""
    card = a_card(SIGNER, START_MS)
    victim.tell(PEER, (card,))
    for number in range(count):
        status: Status = "busy" if number % 2 else "online"
        victim.tell(PEER, (a_state(card, START_MS + 1 + number, status),))
        victim.wait(seconds / count)
    return victim


def test_changes_without_end() -> None:
    count, seconds = report.scale(600, 12_000), 60.0
    with replaced(UNPACED):
        weak = flooded(count, seconds, Victim(PEER, *OTHERS))
    ours = flooded(count, seconds, Victim(PEER, *OTHERS))
    most = (spreading.SIGNER_BURST + spreading.SIGNER_RATE * seconds + 2) * (len(OTHERS) + 1)
    assert weak.sent["state"] > 3 * most
    assert ours.sent["state"] <= most
    entry = ours.gossip.table.entries[SIGNER]
    newest = ours.gossip.nodes(ours.now)[0]
    assert len(entry.states.records) == 1 and newest.status in ("online", "busy")
    assert entry.states.seq == START_MS + count, "what it says is known here all the same"
    report.tell(
        f"heartbeat flood: {count:,} changes in a minute",
        weakened=f"{weak.sent['state']:,} copies handed on",
        ours=f"{ours.sent['state']} copies",
        cost=f"{ours.checked:,} signatures",
    )


def test_more_than_a_peer_may_cost() -> None:
    """Signatures are checked for so many bytes of a peer, whatever it sends; another peer's news passes."""
    count = report.scale(6000, 30_000)
    weak = flooded(count, 5, Victim(PEER, limits=WIDE_OPEN))
    assert weak.checked == count + 1
    ours = flooded(count, 5, Victim(PEER, *OTHERS))
    (state,) = ours.gossip.table.entries[SIGNER].states.records
    assert ours.checked <= (256 * 1024 + 64_000 * 5) / len(codec.encode(state)) + 2 < count
    card = a_card(HONEST, ours.now_ms)
    ours.tell(OTHERS[0], (card, a_state(card, ours.now_ms)))
    assert ours.status(HONEST) == "online"
    report.tell(
        f"heartbeat flood: {count:,} states in 5 s",
        weakened=f"{weak.checked:,} signatures",
        ours=f"{ours.checked:,} signatures; rate",
        cost="256 KiB + 64 kB/s of one peer",
    )


def copies(nodes: int, seconds: int) -> int:
    """How many states a ring of nodes hand to each other, of whom one changes its mind twice a second."""
    world = World(nodes)
    for number in range(nodes):
        for step in (1, 2):
            world.link(number, (number + step) % nodes)
    world.run(5)
    handed = 0
    for turn in range(2 * seconds):
        entry = world.nodes[0].table.entries[world.ids[0]]
        card = entry.card.records[0]
        status: Status = "busy" if turn % 2 else "online"
        state = a_state(card, world.now_ms + 1, status)
        before = sum(gossip.intake.records for gossip in world.nodes)
        world.apply(0, world.nodes[0].publish(state, world.now, world.now_ms + 1))
        world.settle()
        world.run(0.5)
        handed += sum(gossip.intake.records for gossip in world.nodes) - before
    return handed


def test_a_node_that_changes_its_mind_all_the_time() -> None:
    nodes, seconds = report.scale(8, 30), report.scale(40, 120)
    with replaced(UNPACED):
        weakened = copies(nodes, seconds)
    ours = copies(nodes, seconds)
    assert ours < weakened / 2
    report.tell(
        f"heartbeat flood: {2 * seconds} changes, {nodes} nodes",
        weakened=f"{weakened:,} records received by all",
        ours=f"{ours:,}",
    )
