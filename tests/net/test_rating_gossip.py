"""How ratings reach everybody, and what a flood of them costs: a known little, and never cards and states."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from infraxa.net import codec
from infraxa.net.codec import Signed, Tag
from infraxa.net.commands import Drop, Send, SyncRatings
from infraxa.net.errors import ProtocolError
from infraxa.net.gossip import Gossip
from infraxa.net.rating_gossip import (
    ALL_AT_ONCE,
    BYTES_AT_ONCE,
    EVERY_S,
    MAX_ROUND,
    PROVIDER_AT_ONCE,
)
from infraxa.net.ratings import Blank, Filled, day_of
from infraxa.net.records import Record
from infraxa.net.wire import BucketsPlease, Push
from tests.net.gossiping import (
    NETWORK,
    PEER,
    START,
    START_MS,
    World,
    a_card,
    a_state,
    linked_gossip,
    node_id,
    refusals,
    sent,
    sign,
    verify,
)

TODAY = day_of(START_MS)
PROVIDER = node_id(0)


def a_rating(
    account: int, provider: bytes = PROVIDER, *, stars: int = 5, day: int = TODAY, forged: bool = False
) -> Record:
    """Of an account made up by its number. `forged`: the provider did not sign."""
    writer = node_id(10_000 + account)
    issued = Blank(writer, day, 10, account.to_bytes(16, "big"))
    blank = sign("rating", codec.encode(issued), node_id(77) if forged else provider).signed
    blank = Signed(blank.body, provider, blank.signature)
    return sign("rating", codec.encode(Filled(stars, blank)), writer)


def pushes_of(records: list[Record]) -> list[Push]:
    return [Push(tuple(records[at : at + 64])) for at in range(0, len(records), 64)]


def with_providers(*providers: int, peers: tuple[bytes, ...] = (PEER,)) -> Gossip:
    gossip = linked_gossip(*peers)
    for number in providers:
        card = a_card(node_id(number), START_MS)
        gossip.learn(PEER, Push((card, a_state(card, START_MS))), START, START_MS)
    return gossip


def kept(gossip: Gossip, provider: bytes = PROVIDER) -> int:
    return len(gossip.ratings.table.of(provider))


def ring(count: int) -> World:
    world = World(count)
    for number in range(count):
        world.link(number, (number + 1) % count)
    world.run(30)
    return world


def test_a_rating_reaches_everybody_within_seconds_and_whoever_comes_later_by_a_round() -> None:
    world = ring(8)
    world.apply(3, world.nodes[3].ratings.publish(a_rating(1), world.now, world.now_ms))
    world.run(10)
    assert [kept(gossip) for gossip in world.nodes] == [1] * 8
    world.down.add(5)
    for other in (4, 6):
        world.cut(5, other)
    for number in range(2, 40):
        world.apply(0, world.nodes[0].ratings.publish(a_rating(number), world.now, world.now_ms))
    world.run(60)
    assert kept(world.nodes[5]) == 1
    world.down.clear()
    world.link(5, 4)
    world.run(10 * EVERY_S)
    assert kept(world.nodes[5]) == 39
    assert not world.refused and not world.dropped


def test_ones_own_rating_goes_to_some_links_as_anybodys_would() -> None:
    peers = tuple(node_id(100 + number) for number in range(16))
    gossip = with_providers(0, peers=peers)
    gossip.ratings.publish(a_rating(1), START, START_MS)
    told = Counter(
        command.peer
        for command in gossip.tick(START + 1, START_MS + 1000)
        if isinstance(command, Send)
        and isinstance(command.message, Push)
        and any(record.kind == "rating" for record in command.message.records)
    )
    assert 4 <= len(told) < len(peers)


def test_what_was_forged_costs_the_link() -> None:
    for record in (
        a_rating(1, forged=True),
        Record("rating", Signed(a_rating(1).signed.body, node_id(10_001), bytes(64))),
    ):
        gossip = with_providers(0)
        commands = gossip.receive(PEER, Push((record, a_rating(2))), START, START_MS)
        assert refusals(commands) == ["bad_signature"]
        assert [type(command) for command in commands if isinstance(command, Drop)] == [Drop]
        assert kept(gossip) == 0, "nothing after it is looked at"


@pytest.mark.parametrize("day", [TODAY - 181, TODAY + 2])
def test_a_day_too_old_or_to_come_is_left_and_is_nobodys_fault(day: int) -> None:
    gossip = with_providers(0)
    assert not refusals(gossip.receive(PEER, Push((a_rating(1, day=day),)), START, START_MS))
    assert kept(gossip) == 0


def test_a_replayed_one_is_not_verified_again_and_not_handed_on() -> None:
    checked = 0

    def counting(tag: Tag, signed: Signed) -> bool:
        nonlocal checked
        checked += tag == "rating"
        return verify(tag, signed)

    gossip = Gossip(node_id(50), NETWORK, random.Random(1), verify=counting)
    gossip.linked(PEER, START, START_MS, outbound=True)
    push = Push((a_rating(1),))
    for _ in range(50):
        gossip.receive(PEER, push, START, START_MS)
    assert checked == 2 and kept(gossip) == 1


def test_a_thousand_ratings_from_one_link_cost_so_many_checks_and_no_card() -> None:
    checked = 0

    def counting(tag: Tag, signed: Signed) -> bool:
        nonlocal checked
        checked += tag == "rating"
        return verify(tag, signed)

    gossip = Gossip(node_id(50), NETWORK, random.Random(1), verify=counting)
    gossip.linked(PEER, START, START_MS, outbound=True)
    flood = [a_rating(number) for number in range(1000)]
    size = len(codec.encode(flood[0]))
    reasons: Counter[str] = Counter()
    for push in pushes_of(flood):
        reasons.update(refusals(gossip.receive(PEER, push, START, START_MS)))
    assert checked <= 2 * BYTES_AT_ONCE / size + 2 and set(reasons) == {"rate"}
    card = a_card(node_id(3), START_MS)
    mixed = Push((*flood[-20:], card, a_state(card, START_MS)))
    gossip.receive(PEER, mixed, START, START_MS)
    assert gossip.card(node_id(3)) is not None, "what the ratings used up is theirs alone"


def test_many_links_together_cost_no_more_than_all_may() -> None:
    peers = tuple(node_id(100 + number) for number in range(40))
    gossip = with_providers(0, peers=peers)
    size = len(codec.encode(a_rating(0)))
    for place, peer in enumerate(peers):
        for push in pushes_of([a_rating(place * 100 + number, node_id(place)) for number in range(64)]):
            assert not refusals(gossip.receive(peer, push, START, START_MS)), "it kept to its own limit"
    assert len(gossip.ratings.table) <= ALL_AT_ONCE / size + 1


def test_a_providers_flood_is_handed_on_slowly_and_one_of_nobody_not_at_all() -> None:
    other = node_id(101)
    gossip = with_providers(0, 1, peers=(PEER, other))

    def handed_on(records: list[Record], at: float) -> int:
        for push in pushes_of(records):
            gossip.receive(PEER, push, START + at, START_MS + int(at * 1000))
        found = sent(gossip.tick(START + at + 1, START_MS + int(at * 1000) + 1000))
        return len({codec.encode(record) for record in found if record.kind == "rating"})

    assert handed_on([a_rating(number) for number in range(60)], 0) == PROVIDER_AT_ONCE
    assert handed_on([a_rating(500, node_id(1))], 2) == 1, "others are not kept waiting"
    assert handed_on([a_rating(600, node_id(9))], 4) == 0, "whose card nobody has"
    assert kept(gossip) == 60 and kept(gossip, node_id(9)) == 1


def test_a_sybil_ring_of_a_thousand_leaves_the_word_of_friends_in_place_everywhere() -> None:
    world = ring(6)
    friend = a_rating(1, stars=1)
    for gossip in world.nodes:
        gossip.ratings.table.trust([friend.signed.signer])
    world.apply(2, world.nodes[2].ratings.publish(friend, world.now, world.now_ms))
    world.run(5)
    for number in range(2, 1002):
        world.apply(
            0, world.nodes[0].ratings.publish(a_rating(number, day=TODAY + 1), world.now, world.now_ms)
        )
    world.run(600)
    for gossip in world.nodes:
        said = gossip.ratings.table.of(PROVIDER)
        assert len(said) == 64 and [one.stars for one in said].count(1) == 1
    # All are there and nobody was blamed.
    assert all(world.live(number) == set(range(6)) for number in range(6)) and not world.refused


def test_a_round_is_run_every_minute_or_so_and_brings_a_bounded_part() -> None:
    gossip = with_providers(0)
    syncs = 0
    for second in range(1, 1200):
        now, now_ms = START + second, START_MS + 1000 * second
        for command in gossip.tick(now, now_ms):
            if isinstance(command, SyncRatings):
                syncs += 1
                gossip.ratings.round(command.peer, now).fail(now)
    assert 0.6 * 1200 / EVERY_S <= syncs <= 1.8 * 1200 / EVERY_S
    full, empty = with_providers(0), with_providers(0)
    for number in range(1000):
        full.ratings.publish(a_rating(number, node_id(1000 + number)), START, START_MS)
    rounds = 0
    while len(empty.ratings.table) < 1000 and rounds < 20:
        rounds += 1
        now = START + 20 * rounds
        one = empty.ratings.round(PEER, now)
        brought = 0
        while one.request is not None:
            for chunk in full.answer(PEER, one.request, now):
                brought += len(chunk)
                one.chunk(chunk, now, START_MS)
            one.end(now)
        assert brought <= MAX_ROUND
    assert 2 <= rounds <= 6 and len(empty.ratings.table) == 1000


def test_a_round_of_ratings_brings_ratings_only_and_of_nodes_none() -> None:
    world = ring(2)
    world.apply(0, world.nodes[0].ratings.publish(a_rating(1), world.now, world.now_ms))
    gossip = world.nodes[1]
    card = a_card(node_id(9), world.now_ms)
    refused = gossip.learn(PEER, Push((a_rating(5),)), world.now, world.now_ms)
    assert refusals(refused) == ["not_allowed"] and kept(gossip) == 0
    one = gossip.ratings.round(PEER, world.now)
    one.chunk(bytes(2047) + b"\1", world.now, world.now_ms)
    one.end(world.now)
    one.chunk(b"\xff" * 8, world.now, world.now_ms)
    one.end(world.now)
    commands = one.chunk(codec.encode(Push((card,))), world.now, world.now_ms)
    assert refusals(commands) == ["not_asked"] and gossip.card(node_id(9)) is None


def test_a_round_that_does_not_end_is_cut() -> None:
    gossip = with_providers(0)
    one = gossip.ratings.round(PEER, START)
    one.chunk(bytes(2047) + b"\1", START, START_MS)
    one.end(START)
    taken = 0
    with pytest.raises(ProtocolError) as refused:
        while taken < 4 * MAX_ROUND:
            one.chunk(b"\xff" * 8192, START, START_MS)
            taken += 8192
    assert refused.value.reason == "too_large" and taken <= MAX_ROUND and one.request is None


def test_all_links_are_asked_in_turn_and_every_second_time_one_of_its_own() -> None:
    own, others = node_id(100), [node_id(101 + number) for number in range(4)]
    gossip = linked_gossip(own)
    for other in others:
        gossip.linked(other, START, START_MS, outbound=False)
    asked = []
    for second in range(1, 3000):
        now, now_ms = START + second, START_MS + 1000 * second
        for command in gossip.tick(now, now_ms):
            if isinstance(command, SyncRatings):
                asked.append(command.peer)
                gossip.ratings.round(command.peer, now).fail(now)
    counted = Counter(asked)
    # Once of the eight that follow one another it is the turn of all.
    assert 0.5 <= counted[own] / len(asked) <= 0.7
    assert all(counted[other] >= len(asked) // 12 for other in others)


def test_what_is_too_old_by_now_is_dropped_as_the_days_pass() -> None:
    gossip = with_providers(0)
    gossip.receive(PEER, Push((a_rating(1, day=TODAY - 180), a_rating(2))), START, START_MS)
    gossip.tick(START + 1, START_MS + 1000)
    assert kept(gossip) == 2
    gossip.tick(START + 86_400, START_MS + 86_400_000)
    assert [one.day for one in gossip.ratings.table.of(PROVIDER)] == [TODAY]


def test_nobody_sends_more_than_the_other_side_takes() -> None:
    world = World(3)
    world.link(0, 1)
    world.link(1, 2)
    world.run(20)
    for number in range(200):
        card = a_card(node_id(1000 + number), world.now_ms)
        for gossip in world.nodes:
            gossip.learn(PEER, Push((card, a_state(card, world.now_ms))), world.now, world.now_ms)
    for number in range(400):
        news = a_rating(number, node_id(1000 + number % 200))
        world.apply(0, world.nodes[0].ratings.publish(news, world.now, world.now_ms))
    world.run(10)
    assert 50 < len(world.nodes[1].ratings.table) and not world.refused
    world.run(600)
    assert [len(gossip.ratings.table) for gossip in world.nodes] == [400] * 3 and not world.refused


def test_a_peer_may_start_only_so_many_rounds_of_ratings() -> None:
    gossip = with_providers(0)
    for number in range(4):
        list(gossip.answer(PEER, BucketsPlease(bytes([number]) * 16, True), START))
    with pytest.raises(ProtocolError):
        gossip.answer(PEER, BucketsPlease(b"x" * 16, True), START)
    list(gossip.answer(PEER, BucketsPlease(b"x" * 16), START)), "those of nodes are counted for themselves"


def test_who_is_told_a_rating_that_it_turned_down_does_not_fetch_it_for_ever() -> None:
    one, other = with_providers(0), with_providers(0)
    one.ratings.table.trust([a_rating(number).signed.signer for number in range(10)])
    for number in range(100):
        day = TODAY - 100 if number < 10 else TODAY
        for gossip in (one, other):
            gossip.ratings.publish(a_rating(number, day=day), START, START_MS)
    assert kept(one) == kept(other) == 64
    asked = other.ratings.round(PEER, START)
    asked.chunk(next(iter(one.answer(PEER, BucketsPlease(asked.request.salt, True), START))), START, START_MS)  # type: ignore[union-attr]
    asked.end(START)
    assert asked.request is not None
    for chunk in one.answer(PEER, asked.request, START):
        asked.chunk(chunk, START, START_MS)
    asked.end(START)
    assert asked.request is None, "nothing is missing"
