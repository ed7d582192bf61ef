"""Gossip at one node and between a few: leases, clocks, sleep, limits, what is handed on and when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from infraxa.net import codec
from infraxa.net.admission import GossipLimits
from infraxa.net.commands import CardDue, Changed, Drop, HeartbeatDue, Send, Sync
from infraxa.net.errors import NetError
from infraxa.net.gossip import Gossip
from infraxa.net.records import PriceNow, Record
from infraxa.net.table import TableLimits
from infraxa.net.wire import Push, Root
from tests.net.gossiping import (
    PEER,
    START,
    START_MS,
    World,
    a_card,
    a_gossip,
    a_state,
    linked_gossip,
    node_id,
    refusals,
    sent,
    sign,
)

OTHER = b"q" * 32
NODE = node_id(1)


def tell(gossip: Gossip, *records: Record, after: float = 0.0, peer: bytes = PEER) -> list[str]:
    """A push `after` seconds from the start; returns what was refused."""
    commands = gossip.receive(peer, Push(records), START + after, START_MS + int(after * 1000))
    return refusals(commands)


def statuses(gossip: Gossip, after: float = 0.0) -> dict[bytes, str]:
    return {node.id: node.status for node in gossip.nodes(START + after)}


def tick(gossip: Gossip, after: float) -> list[object]:
    return list(gossip.tick(START + after, START_MS + int(after * 1000)))


def awake(gossip: Gossip, start: float, end: float) -> None:
    """Ticks as they are due, so that it does not count as asleep."""
    while start < end:
        start = min(end, start + 4)
        tick(gossip, start)


def test_a_lease_ends_95_seconds_after_the_last_heartbeat() -> None:
    gossip = linked_gossip()
    card = a_card(NODE, START_MS)
    tell(gossip, card, a_state(card, START_MS))
    awake(gossip, 0, 94)
    assert statuses(gossip, 94) == {NODE: "online"}
    assert NODE in gossip.table.digests
    gone = tick(gossip, 96)
    assert Changed(NODE) in gone
    assert statuses(gossip, 96) == {NODE: "offline"}
    assert NODE not in gossip.table.digests
    awake(gossip, 96, 500)
    assert not gossip.table.entries


def test_offline_ends_it_at_once_and_the_old_state_does_not_bring_it_back() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    online = a_state(card, START_MS)
    tell(gossip, card, online)
    tell(gossip, a_state(card, START_MS + 1, "offline"), after=1)
    assert statuses(gossip, 1) == {NODE: "offline"}
    assert NODE in gossip.table.digests  # others are still told that it left
    again = a_state(card, START_MS, util=3)
    assert tell(gossip, again, after=2, peer=OTHER) == ["stale"]
    gossip.learn(OTHER, Push((card, online)), START + 2, START_MS + 2000)
    assert statuses(gossip, 2) == {NODE: "offline"}


def test_the_dead_do_not_come_back_by_anti_entropy() -> None:
    world = World(3)
    world.link(0, 1)
    world.run(5)
    world.cut(0, 1)
    world.down.add(1)
    world.run(96)
    assert 1 not in world.live(0)
    # One that slept all the time still has the state of the dead node, and meets those who forgot it.
    card = a_card(world.ids[1], START_MS + 4000)
    old = a_state(card, START_MS + 5000)
    world.nodes[2].learn(PEER, Push((card, old)), START + 6, START_MS + 6000)
    world.now, world.now_ms = START + 101, START_MS + 101_000
    world.nodes[2]._ran = (world.now, world.now_ms)  # it did not sleep; it only heard of it early
    world.link(2, 0)
    world.settle()
    world.run_round(0, 2)
    assert 1 not in world.live(0)
    # To one that never heard of it, its own number says that it is old.
    fresh = a_gossip(9)
    fresh.learn(PEER, Push((card, old)), START + 300, START_MS + 300_000)
    assert statuses(fresh, 300) == {world.ids[1]: "offline"}


@pytest.mark.parametrize("which", ["monotonic", "wall", "both"])
def test_after_sleep_nobody_is_gone_before_one_heartbeat_could_come(which: str) -> None:
    gossip = linked_gossip()
    card = a_card(NODE, START_MS)
    tell(gossip, card, a_state(card, START_MS))
    gossip.publish(a_card(gossip._me, START_MS), START, START_MS)
    gossip.say("online", START, START_MS)
    slept = 3600.0
    now = START + (slept if which != "wall" else 0.1)
    now_ms = START_MS + int(1000 * (slept if which != "monotonic" else 0.1))
    commands = gossip.tick(now, now_ms)
    assert Changed(NODE) not in commands
    assert any(isinstance(command, HeartbeatDue) for command in commands)
    assert any(isinstance(command, Send) and isinstance(command.message, Root) for command in commands)
    assert {node.id: node.status for node in gossip.nodes(now)}[NODE] == "online"
    assert NODE not in gossip.table.digests  # what it said before is not handed on any more
    for second in range(1, 42):
        gossip.tick(now + second, now_ms + 1000 * second)
    assert {node.id: node.status for node in gossip.nodes(now + 41)}[NODE] == "offline"


@pytest.mark.parametrize("off_s", [-600, 600])
def test_a_clock_that_is_ten_minutes_off_says_so_and_still_sees_everybody(off_s: int) -> None:
    gossip = a_gossip()
    wrong = START_MS + off_s * 1000
    gossip.skew_ms = -off_s * 1000
    gossip.linked(PEER, START, wrong, outbound=True)
    card = a_card(NODE, START_MS)
    commands = gossip.receive(PEER, Push((card, a_state(card, START_MS + 5000))), START, wrong)
    assert refusals(commands) == [] and statuses(gossip) == {NODE: "online"}
    with pytest.raises(NetError) as failure:
        gossip.publish(a_card(node_id(0), wrong), START, wrong)
    assert failure.value.code == "clock" and failure.value.remedy
    assert gossip.say("online", START, wrong) == []


def test_numbers_more_than_ten_minutes_ahead_are_refused() -> None:
    gossip = linked_gossip()
    assert tell(gossip, a_card(NODE, START_MS + 601_000)) == ["stale"]
    assert tell(gossip, a_card(NODE, START_MS + 599_000)) == []


def test_news_goes_at_once_and_heartbeats_wait_for_others() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    first = a_state(card, START_MS)
    commands = gossip.receive(PEER, Push((card, first)), START, START_MS)
    assert sent(commands) == [card, first]
    beat = a_state(card, START_MS + 1, util=9)
    commands = gossip.receive(PEER, Push((beat,)), START + 1, START_MS + 1000)
    assert sent(commands) == []
    assert gossip.next_tick(START + 1) <= START + 1.25
    assert sent(gossip.tick(START + 1.25, START_MS + 1250)) == [beat]
    busy = a_state(card, START_MS + 2, "busy")
    commands = gossip.receive(PEER, Push((busy,)), START + 2, START_MS + 2000)
    assert sent(commands) == [busy]
    to = {command.peer for command in commands if isinstance(command, Send)}
    assert to == {OTHER}, "never back to where it came from"


def test_each_record_goes_to_half_of_the_links_and_to_own_choices_among_them() -> None:
    gossip = a_gossip()
    inbound = [bytes([number]) * 32 for number in range(20)]
    chosen = [bytes([100 + number]) * 32 for number in range(3)]
    for peer in inbound + chosen:
        gossip.linked(peer, START, START_MS, outbound=peer in chosen)
    gossip.linked(PEER, START, START_MS, outbound=False)
    card = a_card(NODE, START_MS)
    commands = gossip.receive(PEER, Push((card,)), START, START_MS)
    targets = [command.peer for command in commands if isinstance(command, Send)]
    assert len(targets) == len(set(targets)) == 12
    assert len(set(targets) & set(chosen)) >= 2


def test_one_signers_records_are_handed_on_no_faster_than_its_allowance() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    tell(gossip, card)
    handed = 0
    for number in range(200):  # ten changes per second for 20 s
        after = number / 10
        now, now_ms = START + after, START_MS + int(after * 1000)
        status = ("online", "busy")[number % 2]
        state = a_state(card, START_MS + number, status)  # type: ignore[arg-type]
        handed += len(sent(gossip.receive(PEER, Push((state,)), now, now_ms)))
        handed += len(sent(gossip.tick(now, now_ms)))
    assert 5 <= handed <= 8
    assert statuses(gossip, 20) == {NODE: "busy"}, "all are taken in"


def test_a_state_asks_for_its_card_and_goes_on_with_it() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    state = a_state(card, START_MS)
    for link in gossip._links.values():
        link.schedule.wants = False
        link.schedule._deadline = float("-inf")
    commands = gossip.receive(PEER, Push((state,)), START, START_MS)
    assert sent(commands) == [] and not statuses(gossip)
    assert Sync(PEER) in gossip.tick(START + 0.1, START_MS + 100)
    commands = gossip.learn(PEER, Push((card,)), START + 1, START_MS + 1000)
    assert {record.kind for record in sent(commands)} == {"card", "state"}
    assert statuses(gossip, 1) == {NODE: "online"}


def test_a_bad_signature_ends_the_link_and_does_not_keep_the_real_record_out() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    forged = Record("card", codec.Signed(card.signed.body, NODE, b"x" * 64))
    commands = gossip.receive(PEER, Push((forged, card)), START, START_MS)
    assert [command for command in commands if isinstance(command, Drop)] == [
        Drop(PEER, "bad_signature", 3600)
    ]
    assert not gossip.table.entries, "nothing after it is looked at"
    assert tell(gossip, card, peer=OTHER) == []
    assert NODE in gossip.table.entries


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (a_card(NODE, START_MS, version=2), "version"),
        (a_card(NODE, START_MS, network=b"n" * 32), "network"),
        (sign("card", b"\x93\x01\x02\x03", NODE), "malformed"),
        (sign("state", b"", NODE), "malformed"),
        (sign("state", b"\x00" * 400, NODE), "too_large"),
        (sign("card", b"\x00" * 2100, NODE), "too_large"),
        (sign("weather", b"rain", NODE), "not_allowed"),
        (sign("receipt", b"somebody's", NODE), "not_allowed"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_reason(record: Record, reason: str) -> None:
    gossip = linked_gossip()
    assert tell(gossip, record) == [reason]
    assert gossip.intake.refused == {reason: 1}
    assert not gossip.table.entries


def test_what_was_signed_for_something_else_is_not_spread_by_gossip() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    tell(gossip, card, a_state(card, START_MS))
    assert tell(gossip, sign("receipt", b"between two", NODE)) == ["not_allowed"]
    assert tell(gossip, sign("weather", b"for all", NODE)) == []


def test_unknown_kinds_are_handed_on_within_4_kb_a_minute_of_a_live_signer() -> None:
    gossip = linked_gossip(PEER, OTHER)
    card = a_card(NODE, START_MS)
    tell(gossip, card, a_state(card, START_MS))
    handed, refused = 0, []
    for number in range(40):
        record = sign("weather", bytes([number]) * 200, NODE)
        commands = gossip.receive(PEER, Push((record, record)), START, START_MS)
        handed += len(sent(commands))
        refused += refusals(commands)
    assert 8 <= handed <= 4096 // 300 + 1
    assert set(refused) == {"rate"}
    assert set(gossip.table.entries) == {NODE}


def test_new_ids_are_limited_by_peer_and_known_ones_still_pass() -> None:
    gossip = linked_gossip(PEER, OTHER)
    refused = []
    for number in range(80):
        refused += tell(gossip, a_card(node_id(number + 10), START_MS))
    assert len(gossip.table.entries) == 50 and refused == ["rate"] * 30
    assert tell(gossip, a_card(node_id(10), START_MS + 1)) == []
    assert tell(gossip, a_card(node_id(99), START_MS), peer=OTHER) == []
    assert tell(gossip, a_card(node_id(98), START_MS), after=3) == [], "one more each 1.2 s"


def test_bytes_are_limited_by_peer_and_a_flood_does_not_use_up_what_others_need() -> None:
    limits = GossipLimits(unverified=10_000, bytes_per_s=100, all_bytes_per_s=5000, new_ids_per_min=1e6)
    peers = [bytes([number]) * 32 for number in range(12)]
    gossip = linked_gossip(*peers, limits=limits)
    taken = dict.fromkeys(peers, 0)
    for number in range(100):
        for peer in peers[:-1]:
            record = a_card(node_id(1000 * peers.index(peer) + number), START_MS)
            taken[peer] += not tell(gossip, record, peer=peer)
    size = len(codec.encode(a_card(NODE, START_MS)))
    assert max(taken.values()) * size <= 10_000
    assert 20_000 <= sum(taken.values()) * size <= 20_000 + len(peers) * 2500
    assert tell(gossip, a_card(NODE, START_MS), peer=peers[-1]) == []


def test_the_table_is_bounded_and_those_spoken_to_stay() -> None:
    limits = GossipLimits(table=TableLimits(cards=20, per_introducer=12), new_ids_per_min=1e6, unverified=1e9)
    gossip = linked_gossip(PEER, OTHER, b"r" * 32, limits=limits)
    friend = a_card(NODE, START_MS)
    tell(gossip, friend)
    gossip.contacted(NODE)
    refused = []
    for number in range(100, 140):
        card = a_card(node_id(number), START_MS)
        refused += tell(gossip, card, a_state(card, START_MS))
    assert len(gossip.table.entries) == 12, "one introducer does not fill it"
    assert "full" in refused
    for number in range(200, 240):
        card = a_card(node_id(number), START_MS)
        tell(gossip, card, a_state(card, START_MS), peer=OTHER)
        assert len(gossip.table.entries) <= 20
    third = a_card(node_id(300), START_MS)
    assert tell(gossip, third, after=2, peer=b"r" * 32) == [], "who brought most makes room"
    assert NODE in gossip.table.entries and len(gossip.table.entries) <= 20
    assert len(gossip.table.digests) <= 20


def test_heartbeats_are_due_every_30_seconds_and_changes_at_once() -> None:
    gossip = a_gossip()
    me = node_id(0)
    card = a_card(me, START_MS)
    gossip.publish(card, START, START_MS)
    due: list[float] = []
    now = START

    def run(seconds: float) -> None:
        nonlocal now
        end = now + seconds
        while now < end:
            now += 0.5
            answer(gossip.tick(now, START_MS + int((now - START) * 1000)))

    def answer(commands: Sequence[object]) -> None:
        for command in commands:
            if isinstance(command, HeartbeatDue):
                due.append(now)
                record = sign("state", codec.encode(command.state), me)
                answer(gossip.publish(record, now, START_MS + int((now - START) * 1000)))

    def say(status: str, price: int = 100) -> None:
        prices = (PriceNow(0, price, price),)
        ms = START_MS + int((now - START) * 1000)
        answer(gossip.say(status, now, ms, prices=prices))  # type: ignore[arg-type]

    say("online")
    assert due == [START]
    run(65)
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert len(due) == 3 and all(27 <= gap <= 33.5 for gap in gaps)
    say("busy")
    assert len(due) == 4 and due[-1] == now
    run(6)
    say("busy", 109)
    run(1)
    assert len(due) == 4, "less than a tenth waits for the heartbeat"
    say("busy", 120)
    assert len(due) == 5
    say("busy", 150)
    run(4)
    assert len(due) == 5, "a price at most every 5 s"
    run(2)
    assert len(due) == 6


def test_a_new_card_makes_a_state_due_that_names_it() -> None:
    gossip = a_gossip()
    me = node_id(0)
    gossip.publish(a_card(me, START_MS), START, START_MS)
    (due,) = gossip.say("online", START, START_MS)
    assert isinstance(due, HeartbeatDue)
    gossip.publish(sign("state", codec.encode(due.state), me), START, START_MS)
    renewed = a_card(me, START_MS + 5, "oak")
    (due,) = [
        command
        for command in gossip.publish(renewed, START + 1, START_MS + 1000)
        if isinstance(command, HeartbeatDue)
    ]
    assert due.state.card == codec.digest("card", renewed.signed.body)[:8]
    assert due.state.seq > START_MS + 5


def test_what_an_older_run_published_is_outdone() -> None:
    gossip = linked_gossip()
    me = node_id(0)
    gossip.publish(a_card(me, START_MS), START, START_MS)
    older = a_card(me, START_MS + 50_000, "before")
    commands = gossip.receive(PEER, Push((older,)), START, START_MS)
    assert CardDue(START_MS + 50_001) in commands
    card = a_card(me, START_MS + 50_001)
    gossip.publish(card, START, START_MS)
    assert gossip.raw_card(me) == codec.encode(card)


def test_the_same_name_under_another_id_is_marked() -> None:
    gossip = linked_gossip()
    tell(gossip, a_card(NODE, START_MS, "Maple"), a_card(node_id(2), START_MS, "ｍaple"))
    marked = {node.id: node.same_name_as for node in gossip.nodes(START)}
    assert marked == {NODE: None, node_id(2): NODE}


def test_peer_exchange_tells_at_most_16_who_are_there() -> None:
    gossip = linked_gossip()
    for number in range(10, 40):
        card = a_card(node_id(number), START_MS)
        tell(gossip, card, a_state(card, START_MS))
    hidden = a_card(node_id(50), START_MS, addresses=())
    tell(gossip, hidden, a_state(hidden, START_MS), a_card(node_id(51), START_MS))
    told = gossip.peers_told(node_id(10), 99, START).records
    assert len(told) == 16
    assert not {record.signed.signer for record in told} & {node_id(10), node_id(50), node_id(51)}


def test_candidates_come_alike_from_each_network() -> None:
    gossip = linked_gossip(limits=GossipLimits(new_ids_per_min=1e6))
    for number in range(100):
        tell(gossip, a_card(node_id(100 + number), START_MS, addresses=(f"ws://66.6.0.{number}:7741",)))
    for number in range(5):
        tell(gossip, a_card(node_id(300 + number), START_MS, addresses=(f"ws://8.{number}.0.1:7741",)))
    found = {candidate.node for candidate in gossip.candidates(START, 6)}
    assert len(found) == 6 and {node_id(300 + number) for number in range(5)} < found


def test_from_whom_nobody_linked_hears_is_not_listened_to() -> None:
    gossip = a_gossip()
    assert tell(gossip, a_card(NODE, START_MS)) == ["not_allowed"]
