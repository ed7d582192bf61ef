"""What of all ratings is kept: bounded, the same whatever the order, and no flood takes another's place."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec
from infraxa.net.codec import Signed
from infraxa.net.rating_table import RatingLimits, RatingTable, hash_of
from infraxa.net.ratings import KEPT_DAYS, Blank, Filled, Rating
from infraxa.net.records import Record

DAY = 20_000
SMALL = RatingLimits(total=32, per_provider=4, per_writer=3, turned_down=16)
LARGE = RatingLimits()
EMPTY = bytes(64)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def a_rating(
    provider: int, account: int, stars: int = 5, *, day: int = DAY, order: int = 0, node: bytes = b""
) -> tuple[Rating, bytes, bytes]:
    """As put() takes it."""
    issued = Blank(key(account), day, 10, order.to_bytes(16, "big"))
    blank = Signed(codec.encode(issued), key(provider), EMPTY)
    record = Record("rating", Signed(codec.encode(Filled(stars, blank)), key(account), EMPTY))
    raw = codec.encode(record)
    return Rating(key(provider), key(account), stars, day, 10, issued.order, node), raw, hash_of(raw)


def a_table(limits: RatingLimits = LARGE, *, on_network: int = 10**6) -> RatingTable:
    """Providers below `on_network` are there."""
    return RatingTable(lambda node: int.from_bytes(node, "big") < on_network, limits)


def accounts(table: RatingTable, provider: int) -> set[int]:
    return {int.from_bytes(one.account, "big") for one in table.of(key(provider))}


def test_one_of_an_account_and_a_day_counts_whatever_came_first() -> None:
    several = [a_rating(1, 2, stars, order=stars) for stars in (1, 2, 3, 4, 5)]
    kept = min(several, key=lambda one: one[2])[0]
    for seed in range(10):
        table = a_table()
        for one in random.Random(seed).sample(several, 5):
            table.put(*one)
        assert table.of(key(1)) == [kept] and len(table) == 1
        assert not any(table.put(*one) for one in several), "and none of them is news again"
    table.put(*a_rating(1, 2, day=DAY + 1))
    table.put(*a_rating(1, 3))
    table.put(*a_rating(4, 2))
    assert len(table) == 4


def test_of_one_provider_the_newest_are_kept() -> None:
    table = a_table(SMALL)
    for age in (5, 1, 9, 3, 7, 2):
        table.put(*a_rating(1, age, day=DAY - age))
    assert accounts(table, 1) == {1, 2, 3, 5}
    assert not table.put(*a_rating(1, 8, day=DAY - 8))


def test_whom_this_node_has_business_with_is_heard_before_any_flood() -> None:
    table = a_table(SMALL)
    table.trust([key(7), key(8)])
    table.put(*a_rating(1, 7, day=DAY - 100))
    table.put(*a_rating(1, 99, day=DAY - 99, node=key(8)))
    for number in range(100, 1100):
        table.put(*a_rating(1, number, day=DAY + 1))
    assert {7, 99} <= accounts(table, 1) and len(table.of(key(1))) == 4
    for number in range(1000):
        table.put(*a_rating(2 + number, 5000 + number))
    assert {7, 99} <= accounts(table, 1) and len(table) <= SMALL.total


def test_one_writer_is_not_heard_beyond_its_share() -> None:
    table = a_table(SMALL)
    table.trust([key(8)])
    for provider in range(1, 200):
        table.put(*a_rating(provider, 9000 + provider, node=key(8)))
    table.put(*a_rating(500, 1))
    table.trust([key(8), key(1)])
    for provider in range(200, 400):
        table.put(*a_rating(provider, 9000 + provider, node=key(8)))
    assert accounts(table, 500) == {1}


def test_when_all_is_full_those_with_many_lose_some_before_those_with_few() -> None:
    table = a_table(SMALL, on_network=100)
    table.put(*a_rating(1, 1, day=DAY - 150))
    for provider in range(2, 8):
        for number in range(4):
            table.put(*a_rating(provider, 10 * provider + number))
    for provider in range(200, 1200):  # made up, and on no network
        table.put(*a_rating(provider, provider, day=DAY + 1))
    assert accounts(table, 1) == {1}
    assert all(len(accounts(table, provider)) >= 3 for provider in range(2, 8))
    assert len(table) <= SMALL.total
    for provider in range(20, 60):
        table.put(*a_rating(provider, provider))
    assert all(len(accounts(table, provider)) <= 1 for provider in range(2, 8)), "now that there are many"


def test_what_was_turned_down_is_known_for_a_while_and_asked_for_again_when_it_may_weigh() -> None:
    table = a_table(SMALL)
    for number in range(4):
        table.put(*a_rating(1, number))
    old = a_rating(1, 9, day=DAY - 9)
    assert not table.put(*old)
    assert old[2] in table.known and old[2] not in table.digests
    table.trust([key(9)])
    assert old[2] not in table.known and table.put(*old)
    for number in range(50):
        table.put(*a_rating(1, 100 + number, day=DAY - 5))
    assert len(table.known) <= len(table) + SMALL.turned_down


def test_what_is_too_old_is_dropped() -> None:
    table = a_table()
    table.put(*a_rating(1, 1, day=DAY - KEPT_DAYS))
    table.put(*a_rating(1, 2))
    table.expire(DAY)
    assert accounts(table, 1) == {1, 2}
    table.expire(DAY + 1)
    assert accounts(table, 1) == {2} and len(table) == len(table.digests) == 1


def test_changes_are_told_once_and_bring_an_empty_table_to_the_same() -> None:
    table, disk = a_table(SMALL), dict[bytes, bytes]()
    rng = random.Random(3)
    for _ in range(20):
        for _ in range(20):
            table.put(*a_rating(rng.randrange(20), rng.randrange(40, 80), day=DAY - rng.randrange(9)))
        if rng.random() < 0.3:
            continue  # the disk was full
        changes = table.changes()
        for item, raw in changes.items():
            if raw is None:
                disk.pop(item, None)
            else:
                disk[item] = raw
        table.written(changes)
        assert not table.changes()
        again = a_table(SMALL)
        for raw in disk.values():
            again.restore(raw, DAY)
        assert not again.changes()
        assert again.digests.root == table.digests.root and len(again) == len(table) == len(disk)


def test_what_an_earlier_run_kept_is_not_believed_for_ever() -> None:
    table = a_table()
    old = a_rating(1, 1)
    for item, raw in ((old[2], old[1]), (hash_of(b"of another version"), b"of another version")):
        table.restore(raw, DAY + KEPT_DAYS + 1)
        assert table.changes() == {item: None}
        table.written(table.changes())
    assert len(table) == 0


ratings = st.builds(
    a_rating,
    provider=st.integers(1, 6),
    account=st.integers(10, 30),
    stars=st.integers(1, 5),
    day=st.integers(DAY - 5, DAY + 1),
)


@settings(deadline=None, max_examples=200)
@given(some=st.lists(ratings, max_size=60), seed=st.integers(0, 3), trusted=st.sets(st.integers(10, 30)))
def test_nodes_that_heard_of_the_same_keep_the_same(
    some: list[tuple[Rating, bytes, bytes]], seed: int, trusted: set[int]
) -> None:
    limits = RatingLimits(total=1000, per_provider=4)
    one, other = a_table(limits), a_table(limits)
    for table in (one, other):
        table.trust([key(number) for number in trusted])
    for rating in some:
        one.put(*rating)
    for rating in random.Random(seed).sample(some, len(some)):
        other.put(*rating)
    assert one.digests.root == other.digests.root and len(one) == len(other)


@settings(deadline=None, max_examples=200)
@given(some=st.lists(ratings, max_size=120), trusted=st.sets(st.integers(10, 30)))
def test_the_table_stays_within_its_limits_and_whole(
    some: list[tuple[Rating, bytes, bytes]], trusted: set[int]
) -> None:
    limits = RatingLimits(total=12, per_provider=4, per_writer=2, turned_down=8)
    table = a_table(limits)
    for count, rating in enumerate(some):
        if count == 40:
            table.trust([key(number) for number in trusted])
        table.put(*rating)
        assert len(table) <= 12 and len(table) == len(table.digests)
        assert len(table.known) <= len(table) + 8
    of_all = [one for provider in range(1, 7) for one in table.of(key(provider))]
    items = {one[2] for one in some}
    assert len(of_all) == len(table) == len(list(table.records(items)))
    assert all(len(table.of(key(provider))) <= 4 for provider in range(1, 7))
