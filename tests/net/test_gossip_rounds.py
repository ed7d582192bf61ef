"""Anti-entropy: when a round is run, what it may cost, and that answers are not believed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec
from infraxa.net.admission import GossipLimits
from infraxa.net.commands import Sync
from infraxa.net.digests import Digests, differing
from infraxa.net.errors import ProtocolError
from infraxa.net.gossip import Gossip
from infraxa.net.rounds import MAX_ITEMS, MAX_ROUND, Round
from infraxa.net.wire import BucketsPlease, DigestsPlease, Push, RecordsPlease, Root
from tests.net.gossiping import (
    PEER,
    START,
    START_MS,
    World,
    a_card,
    a_state,
    linked_gossip,
    node_id,
)

MANY = GossipLimits(bytes_per_s=1e9, unverified=1e9, all_bytes_per_s=1e9, new_ids_per_min=1e6)
ids = st.binary(min_size=32, max_size=32)


def filled(count: int, start: int = 100) -> Gossip:
    gossip = linked_gossip(limits=MANY)
    for number in range(start, start + count):
        card = a_card(node_id(number), START_MS)
        gossip.receive(PEER, Push((card, a_state(card, START_MS))), START, START_MS)
    return gossip


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(ids, ids, max_size=60),
    st.dictionaries(ids, ids, max_size=20),
    st.binary(min_size=16, max_size=16),
)
def test_buckets_show_exactly_where_tables_differ(
    shared: dict[bytes, bytes], more: dict[bytes, bytes], salt: bytes
) -> None:
    shared, more = ({node: hashlib.sha256(item).digest() for node, item in t.items()} for t in (shared, more))
    one, other = Digests(), Digests()
    for node, item in {**shared, **more}.items():
        one.put(node, item)
    for node, item in reversed(shared.items()):
        other.put(node, item)
        if node in more:
            other.put(node, more[node])
    new = len(set(more) - set(shared))
    mine, theirs = one.salted(salt), other.salted(salt)
    buckets = differing(mine.buckets(), theirs.buckets())
    assert bool(buckets) == bool(new) == (one.root != other.root)
    missing = {mine.digests(buckets)[at : at + 8] for at in range(0, len(mine.digests(buckets)), 8)} - {
        theirs.digests(buckets)[at : at + 8] for at in range(0, len(theirs.digests(buckets)), 8)
    }
    assert set(mine.nodes(b"".join(missing))) == set(more) - set(shared)
    for node in {**shared, **more}:
        one.put(node, None)
    assert one.root == bytes(8) and len(one) == 0


def test_a_heartbeat_that_says_nothing_new_makes_no_difference() -> None:
    gossip = filled(1)
    node = node_id(100)
    root = gossip.table.digests.root
    card = a_card(node, START_MS)
    gossip.receive(PEER, Push((a_state(card, START_MS + 9),)), START + 1, START_MS + 1000)
    assert gossip.table.entries[node].states.seq == START_MS + 9 and gossip.table.digests.root == root
    gossip.receive(PEER, Push((a_state(card, START_MS + 10, "busy"),)), START + 1, START_MS + 1000)
    assert gossip.table.digests.root != root


def test_a_newcomer_knows_everybody_after_its_first_link() -> None:
    world = World(8)
    for one in range(6):
        for other in range(one):
            world.link(one, other)
    world.run(2)
    world.link(7, 0)
    world.settle()
    assert world.live(7) == {0, 1, 2, 3, 4, 5, 7}
    assert all(7 in world.live(number) for number in range(6)), "and everybody knows it"
    assert not world.refused


def test_a_made_up_root_costs_one_round_a_minute() -> None:
    gossip = filled(50)
    syncs = 0
    after = 0.0
    while after < 3600:
        after += 1
        now, now_ms = START + after, START_MS + int(after * 1000)
        gossip.receive(PEER, Root(int(after).to_bytes(8, "big"), 7), now, now_ms)
        for command in gossip.tick(now, now_ms):
            if isinstance(command, Sync):
                syncs += 1
                one = gossip.round(PEER, now)
                one.chunk(bytes(2048), now, now_ms)
                one.end(now)
                one.end(now)
    assert 50 <= syncs <= 75


def test_equal_roots_are_not_believed_for_ever() -> None:
    gossip = filled(5)
    syncs = []
    for second in range(1, 400):
        now, now_ms = START + second, START_MS + 1000 * second
        same = Root(gossip.table.digests.root, len(gossip.table.digests))
        gossip.receive(PEER, same, now, now_ms)
        for command in gossip.tick(now, now_ms):
            if isinstance(command, Sync):
                syncs.append(second)
                gossip.round(PEER, now).fail(now)
    assert 2 <= len(syncs) <= 4


def test_what_a_round_brought_goes_on_to_the_next_nodes_within_seconds() -> None:
    world = World(6)
    for number in range(5):
        world.link(number, number + 1)
    world.run(60)
    card = a_card(node_id(100), world.now_ms)
    world.nodes[5].learn(PEER, Push((card, a_state(card, world.now_ms))), world.now, world.now_ms)
    known_at: dict[int, float] = {}

    def watch() -> None:
        for number, gossip in enumerate(world.nodes):
            if node_id(100) in gossip.table.entries:
                known_at.setdefault(number, world.now)

    world.run(60, watch=watch)
    assert len(known_at) == 6
    assert known_at[0] - known_at[4] <= 10, "four links, each tells its root every 10 s at other times"


def test_rounds_that_nobody_answers_end_and_do_not_keep_others_waiting() -> None:
    peers = [bytes([number]) * 32 for number in range(5)]
    gossip = linked_gossip(*peers)
    asked: set[bytes] = set(peers[:2])  # at once, when they were linked
    for second in range(1, 120):
        now, now_ms = START + second, START_MS + 1000 * second
        found = [one for one in gossip.tick(now, now_ms) if isinstance(one, Sync)]
        assert len(found) <= 2
        asked |= {one.peer for one in found}
        for one in found[:1]:
            gossip.round(one.peer, now)  # never fed
    assert asked == set(peers)


def test_a_peer_may_start_only_so_many_rounds() -> None:
    gossip = filled(10)
    for number in range(4):
        list(gossip.answer(PEER, BucketsPlease(bytes([number]) * 16), START))
    for _ in range(5):  # the steps of one round are one round
        list(gossip.answer(PEER, DigestsPlease(b"\x03" * 16, bytes(range(256))), START))
    with pytest.raises(ProtocolError) as refused:
        gossip.answer(PEER, BucketsPlease(b"x" * 16), START)
    assert refused.value.reason == "rate"
    list(gossip.answer(b"q" * 32, BucketsPlease(b"x" * 16), START))
    list(gossip.answer(PEER, BucketsPlease(b"x" * 16), START + 11))


def test_a_large_table_comes_in_several_bounded_rounds() -> None:
    full = filled(MAX_ITEMS + 200)
    gossip = linked_gossip()
    brought = []
    for _ in range(3):
        one = gossip.round(PEER, START)
        size = 0
        while one.request is not None:
            for chunk in full.answer(PEER, one.request, START):
                assert len(chunk) <= codec.MAX_MESSAGE
                size += len(chunk)
                one.chunk(chunk, START, START_MS)
            one.end(START)
        assert size <= MAX_ROUND and not one.failed
        brought.append(one.news)
    assert sum(brought) == 2 * 1024, "one introducer brings no more than its share"
    assert len(gossip.table.entries) == 1024


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([b""], "malformed"),
        ([bytes(2040)], "malformed"),
        ([bytes(2048), bytes(2048)], "malformed"),
        ([bytes(MAX_ROUND + 1)], "too_large"),
        ([b"\xff" * 2048, None, b"123"], "malformed"),
        ([b"\xff" * 2048, None, *[bytes(8) * 40_000] * 2], "too_large"),
        ([b"\xff" * 8 + bytes(2040), None, b"\x01" + bytes(7)], "not_asked"),
        ([b"\xff" * 2048, None, bytes(8), None, b"\x00"], "malformed"),
        ([b"\xff" * 2048, None, bytes(8), None, codec.encode(Root(bytes(8), 1))], "malformed"),
        (
            [b"\xff" * 2048, None, bytes(8), None, codec.encode(Push((a_card(node_id(1), START_MS),) * 5))],
            "not_asked",
        ),
    ],
)
def test_answers_that_break_the_rules_end_the_round(answers: list[bytes | None], reason: str) -> None:
    gossip = linked_gossip()
    one = gossip.round(PEER, START)
    with pytest.raises(ProtocolError) as refused:
        for answer in answers:
            if answer is None:
                one.end(START)
            else:
                one.chunk(answer, START, START_MS)
    assert refused.value.reason == reason
    assert one.request is None and one.failed


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.one_of(st.binary(max_size=200), st.just(b"\xaa" * 2048)), max_size=3), max_size=5)
)
def test_no_answer_raises_anything_else(answers: list[list[bytes]]) -> None:
    one = linked_gossip().round(PEER, START)
    for chunks in answers:
        for chunk in chunks:
            try:
                one.chunk(chunk, START, START_MS)
            except ProtocolError:
                assert one.request is None
        one.end(START)


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=256), st.binary(max_size=8192))
def test_any_request_is_answered(salt: bytes, buckets: bytes, digests: bytes) -> None:
    gossip = filled(5)
    for request in (DigestsPlease(salt, buckets), RecordsPlease(salt, digests)):
        for chunk in gossip.answer(PEER, request, START):
            assert len(chunk) <= codec.MAX_MESSAGE


def test_a_round_with_a_peer_that_left_is_over() -> None:
    gossip = linked_gossip()
    one = gossip.round(PEER, START)
    gossip.unlinked(PEER, START)
    assert one.request is None and one.failed
    gone: Round = gossip.round(PEER, START)
    assert gone.request is None
