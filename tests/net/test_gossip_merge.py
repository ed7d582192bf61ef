"""Merging: whatever the order in which records come, and how often, the same is held."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec
from infraxa.net.admission import GossipLimits
from infraxa.net.commands import Command, Refused
from infraxa.net.errors import REFUSALS
from infraxa.net.gossip import Gossip
from infraxa.net.records import Record, Status
from infraxa.net.wire import Push
from tests.net.gossiping import (
    NETWORK,
    PEER,
    START,
    START_MS,
    World,
    a_card,
    a_revoke,
    a_state,
    a_successor,
    held,
    linked_gossip,
    node_id,
    refusals,
    sign,
    verify,
)

GENEROUS = GossipLimits(bytes_per_s=1e9, unverified=1e9, all_bytes_per_s=1e9, new_ids_per_min=1e6)

signers = st.integers(0, 2).map(node_id)
# Close together, so that numbers collide: two bodies under one number are equivocation.
seqs = st.integers(START_MS - 3, START_MS + 2)


@st.composite
def records(draw: st.DrawFn) -> Record:
    signer, seq = draw(signers), draw(seqs)
    card = a_card(signer, seq, draw(st.sampled_from(("maple", "oak", "elm"))))
    if draw(st.booleans()):
        return card
    status: Status = draw(st.sampled_from(("online", "busy", "offline")))
    return a_state(card, draw(seqs), status, util=draw(st.integers(0, 1)))


def fed(sequence: list[Record]) -> Gossip:
    gossip = linked_gossip(limits=GENEROUS)
    for record in sequence:
        gossip.receive(PEER, Push((record,)), START, START_MS)
    return gossip


def outcome(gossip: Gossip) -> tuple[object, ...]:
    nodes = sorted((node.id, node.name, node.status, node.util) for node in gossip.nodes(START))
    return held(gossip), gossip.table.digests.root, len(gossip.table.digests), nodes


@settings(deadline=None, max_examples=150)
@given(st.data(), st.lists(records(), max_size=14))
def test_any_order_with_duplicates_gives_the_same_table(data: st.DataObject, sequence: list[Record]) -> None:
    doubled = data.draw(st.permutations(sequence + sequence[: len(sequence) // 2]))
    one, other = fed(sequence), fed(doubled)
    # A third equivocation bans; which ones a node sees depends on the order, so that is not compared.
    if all(len(entry.strikes) < 2 for g in (one, other) for entry in g.table.entries.values()):
        assert outcome(one) == outcome(other)
    else:
        assert outcome(one)[:3] == outcome(other)[:3]


@settings(deadline=None, max_examples=60)
@given(st.lists(records(), max_size=8), st.lists(records(), max_size=8), st.lists(records(), max_size=8))
def test_tables_join_in_any_grouping(a: list[Record], b: list[Record], c: list[Record]) -> None:
    def join(one: list[Record], other: list[Record]) -> list[Record]:
        """What a table that received both hands on."""
        table = fed(one + other).table
        return [record for entry in table.entries.values() for record in entry.records()]

    assert held(fed(join(join(a, b), c))) == held(fed(join(a, join(b, c)))) == held(fed(join(c, join(b, a))))
    assert held(fed(join(a, a))) == held(fed(a))


def test_two_bodies_under_one_number_drop_the_node_until_a_higher_one() -> None:
    node = node_id(1)
    card = a_card(node, START_MS)
    gossip = fed([card, a_state(card, START_MS, util=1)])
    assert [seen.status for seen in gossip.nodes(START)] == ["online"]
    commands = gossip.receive(PEER, Push((a_state(card, START_MS, util=2),)), START, START_MS)
    assert not gossip.nodes(START)
    assert Refused(node, "equivocation") in commands
    gossip.receive(PEER, Push((a_state(card, START_MS + 1),)), START, START_MS)
    assert [seen.status for seen in gossip.nodes(START)] == ["online"]


def test_both_bodies_are_handed_on_as_proof() -> None:
    node, other = node_id(1), b"q" * 32
    gossip = linked_gossip(PEER, other, limits=GENEROUS)
    card = a_card(node, START_MS)
    first, second = (a_state(card, START_MS, util=util) for util in (1, 2))
    gossip.receive(PEER, Push((card, first)), START, START_MS)
    proof = gossip.receive(PEER, Push((second,)), START, START_MS)
    told = [record for command in proof for record in records_for(command, other)]
    assert first in told and second in told


def records_for(command: Command, peer: bytes) -> tuple[Record, ...]:
    message = getattr(command, "message", None)
    return message.records if isinstance(message, Push) and getattr(command, "peer", None) == peer else ()


def test_the_third_equivocation_in_a_day_drops_the_node_for_a_day() -> None:
    node = node_id(1)
    card = a_card(node, START_MS)
    sequence = [card]
    for seq in range(START_MS + 1, START_MS + 4):
        sequence += [a_state(card, seq, util=1), a_state(card, seq, util=2)]
    gossip = fed([*sequence, a_state(card, START_MS + 9)])
    assert not gossip.nodes(START)
    twice = fed([*sequence[:5], a_state(card, START_MS + 9)])
    assert [seen.status for seen in twice.nodes(START)] == ["online"]


def test_many_bodies_under_one_number_are_one_equivocation() -> None:
    card = a_card(node_id(1), START_MS)
    bodies = [a_state(card, START_MS, util=util) for util in range(9)]
    # Each takes the place of one that is held.
    bodies.sort(key=lambda record: codec.digest("state", record.signed.body), reverse=True)
    gossip = fed([card, *bodies, a_state(card, START_MS + 1)])
    assert [seen.status for seen in gossip.nodes(START)] == ["online"]


def test_a_revoked_key_stays_revoked_and_wins_over_a_successor() -> None:
    node, new = node_id(1), node_id(2)
    card = a_card(node, START_MS)
    state = a_state(card, START_MS)
    gossip = fed([card, state, a_successor(node, new, 5)])
    assert gossip.successor(node) == new and not gossip.nodes(START)
    gossip.receive(PEER, Push((a_revoke(node, 1),)), START, START_MS)
    gossip.receive(PEER, Push((a_successor(node, new, 9),)), START, START_MS)
    assert gossip.successor(node) is None
    for later in (START + 200, START + 4000):
        gossip.tick(later, START_MS + int((later - START) * 1000))
    seq = START_MS + 4_000_000
    commands = gossip.receive(PEER, Push((a_card(node, seq), a_state(card, seq))), START + 4000, seq)
    assert refusals(commands) == ["not_allowed"]
    assert not gossip.nodes(START + 4000) and node in gossip.table.digests


def test_only_the_first_cards_recovery_key_retires() -> None:
    node = node_id(1)
    gossip = fed([a_card(node, START_MS)])
    thief = b"T" * 32
    foreign = gossip.receive(PEER, Push((a_revoke(node, 1, thief),)), START, START_MS)
    changed = gossip.receive(PEER, Push((a_card(node, START_MS + 1, recovery=thief),)), START, START_MS)
    unknown = gossip.receive(PEER, Push((a_revoke(node_id(7), 1),)), START, START_MS)
    assert [refusals(found) for found in (foreign, changed, unknown)] == [
        ["not_allowed"],
        ["not_allowed"],
        ["not_asked"],
    ]
    assert len(gossip.nodes(START)) == 1


wild = st.one_of(st.binary(max_size=300), records().map(lambda record: record.signed.body))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("card", "state", "successor", "revoke", "auth", "weather")), wild, st.booleans()
        ),
        max_size=8,
    )
)
def test_whatever_a_peer_signs_is_taken_or_refused(found: list[tuple[str, bytes, bool]]) -> None:
    gossip = linked_gossip()
    for kind, body, well_signed in found:
        record = sign(kind, body, node_id(3))
        if not well_signed:
            record = Record(kind, codec.Signed(body, record.signed.signer, b"x" * 64))
        commands = gossip.receive(PEER, Push((record,)), START, START_MS)
        assert all(reason in REFUSALS for reason in refusals(commands))
        if not well_signed and not refusals(commands):
            raise AssertionError("a bad signature passed")
    gossip.tick(START + 1, START_MS + 1000)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(records(), max_size=20), st.lists(records(), max_size=20), st.integers(0, 40), st.integers(0, 9)
)
def test_anti_entropy_heals_any_two_tables_in_two_rounds(
    a: list[Record], b: list[Record], more: int, seed: int
) -> None:
    world = World(2, publishing=False)
    world.nodes = [
        Gossip(world.ids[number], NETWORK, random.Random(seed), verify=verify, limits=GENEROUS)
        for number in range(2)
    ]
    extra = [record for number in range(10, 10 + more) for record in published(number)]
    half = len(extra) // 3
    # A card without a state, or the reverse, is not handed on, so it is not there to be healed.
    whole = [record for number in range(3) for record in published(number, START_MS - 9)]
    for number, known in ((0, whole + a + extra[:half]), (1, whole + b + extra[half:])):
        world.nodes[number].linked(PEER, START, START_MS, outbound=True)
        for record in known:
            world.nodes[number].receive(PEER, Push((record,)), START, START_MS)
        world.nodes[number].linked(world.ids[1 - number], START, START_MS, outbound=False)
    world.run_round(0, 1)
    world.run_round(1, 0)
    one, other = (gossip.table for gossip in world.nodes)
    assert one.digests.root == other.digests.root and len(one.digests) == len(other.digests)
    live = [{node for node, entry in table.entries.items() if entry.live(START)} for table in (one, other)]
    if all(len(entry.strikes) < 2 for table in (one, other) for entry in table.entries.values()):
        assert live[0] == live[1]


def published(number: int, seq: int = START_MS) -> tuple[Record, Record]:
    card = a_card(node_id(number), seq, f"n{number}")
    return card, a_state(card, seq)
