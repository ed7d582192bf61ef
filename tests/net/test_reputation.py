"""What evidence is worth: little says little, nobody gains by many identities, and what is old fades."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.net.ratings import Rating
from infraxa.net.reputation import (
    FAR,
    FULL_AMOUNT,
    HALF_LIFE_DAYS,
    NEW_RECEIPTS,
    OWN_AUDIT,
    OWN_RECEIPT,
    PRIOR_STARS,
    PRIOR_WEIGHT,
    Counterparty,
    Evidence,
    Weighted,
    own_stars,
    score,
    weighed,
)

DAY = 20_000
NOTHING = Evidence()
GOOD = Evidence(receipts=20, whole=20.0)
BUCKET = 11  # 1024 µcr: as much as counts

stars = st.integers(1, 5)
ratios = st.none() | st.floats(0, 10)
weights = st.floats(0, 50)
evidence = st.builds(
    Evidence,
    receipts=st.integers(0, 100),
    whole=weights,
    broken=weights,
    speed=ratios,
    first_token=ratios,
    passed=weights,
    caught=weights,
)
said = st.builds(Weighted, stars=stars, day=st.integers(DAY - 200, DAY + 1), weight=st.floats(0, 1))


def rating(
    number: int, stars: int = 5, *, day: int = DAY, bucket: int = BUCKET, node: bytes = b"", order: int = 0
) -> Rating:
    return Rating(b"p" * 32, number.to_bytes(32, "big"), stars, day, bucket, order.to_bytes(16, "big"), node)


def known(*numbers: int, amount: int = 10 * FULL_AMOUNT, near: bool = True) -> dict[bytes, Counterparty]:
    return {number.to_bytes(32, "big"): Counterparty(amount, near) for number in numbers}


def test_nothing_known_is_new_and_has_no_stars() -> None:
    found = score(NOTHING, [], DAY)
    assert (found.stars, found.ratings, found.unweighted, found.new) == (None, 0, 0, True)
    assert found.opinion == PRIOR_STARS


def test_new_ends_with_the_tenth_receipt_however_much_others_say() -> None:
    praise = [Weighted(5, DAY, 1.0)] * 1000
    assert score(Evidence(receipts=NEW_RECEIPTS - 1, whole=9.0), praise, DAY).new
    assert not score(Evidence(receipts=NEW_RECEIPTS, whole=0.1), [], DAY).new


def test_a_thousand_fresh_identities_change_a_number_and_nothing_else() -> None:
    honest = [rating(1, 2), rating(2, 3)]
    friends = known(1, 2)
    sybils = [rating(number, 5) for number in range(100, 1100)]
    for own in (NOTHING, GOOD, Evidence(receipts=3, broken=2.0)):
        before = score(own, weighed(honest, friends), DAY)
        after = score(own, weighed([*honest, *sybils], friends), DAY)
        assert after == replace(before, unweighted=1000)
    assert score(NOTHING, weighed(sybils, {}), DAY).stars is None


def test_evidence_weighs_as_it_is_said_to() -> None:
    assert OWN_RECEIPT > OWN_AUDIT > 1 > FAR
    praised = score(NOTHING, [Weighted(5, DAY, 1.0)], DAY).stars
    audited = score(Evidence(passed=1.0), [], DAY).stars
    received = score(Evidence(receipts=1, whole=1.0), [], DAY).stars
    far = score(NOTHING, weighed([rating(1)], known(1, near=False)), DAY).stars
    assert None not in (praised, audited, received, far)
    assert 5 > received > audited > praised > far > PRIOR_STARS  # type: ignore[operator]
    # What I saw myself counts for more than what one friend says.
    assert (score(Evidence(broken=1.0), [Weighted(5, DAY, 1.0)], DAY).stars or 5) < PRIOR_STARS


def test_what_a_rating_weighs_halves_in_thirty_days() -> None:
    new, old = Weighted(5, DAY, 0.5), Weighted(5, DAY - HALF_LIFE_DAYS, 1.0)
    assert abs(score(NOTHING, [new], DAY).opinion - score(NOTHING, [old], DAY).opinion) < 1e-12
    ahead = Weighted(5, DAY + 1, 1.0)
    assert score(NOTHING, [ahead], DAY) == score(NOTHING, [Weighted(5, DAY, 1.0)], DAY)


def test_a_rating_weighs_by_what_was_paid_up_to_what_was_settled() -> None:
    assert [one.weight for one in weighed([rating(1)], known(1))] == [1.0]
    assert [one.weight for one in weighed([rating(1, bucket=1)], known(1))] == [1 / FULL_AMOUNT]
    assert [one.weight for one in weighed([rating(1, bucket=0)], known(1))] == [0.0]  # it was free
    assert [one.weight for one in weighed([rating(1)], known(2))] == [0.0]
    assert [one.weight for one in weighed([rating(1)], known(1, near=False))] == [FAR]
    # Newest first, until the amount is used up.
    three = [rating(1, day=DAY - age) for age in (2, 0, 1)]
    found = weighed(three, known(1, amount=3 * FULL_AMOUNT // 2))
    assert [(one.day, one.weight) for one in found] == [(DAY, 1.0), (DAY - 1, 0.5), (DAY - 2, 0.0)]


def test_a_node_that_says_who_it_is_weighs_by_its_own_business() -> None:
    node = b"n" * 32
    assert weighed([rating(1, node=node)], {node: Counterparty(FULL_AMOUNT)})[0].weight == 1.0
    assert weighed([rating(1)], {node: Counterparty(FULL_AMOUNT)})[0].weight == 0.0


@settings(deadline=None, max_examples=300)
@given(
    amounts=st.dictionaries(st.integers(0, 5), st.integers(-5, 5000), max_size=5),
    near=st.booleans(),
    given_=st.lists(st.tuples(st.integers(0, 9), stars, st.integers(0, 40), st.integers(0, 20)), max_size=40),
    seed=st.integers(0, 5),
)
def test_a_ring_weighs_no_more_than_it_settled(
    amounts: dict[int, int], near: bool, given_: list[tuple[int, int, int, int]], seed: int
) -> None:
    ratings = [
        rating(number, one, day=DAY - age, bucket=bucket, order=order)
        for order, (number, one, age, bucket) in enumerate(given_)
    ]
    friends = {number.to_bytes(32, "big"): Counterparty(amount, near) for number, amount in amounts.items()}
    found = weighed(ratings, friends)
    assert len(found) == len(ratings) and all(0 <= one.weight <= 1 for one in found)
    settled = sum(max(0, amount) for amount in amounts.values()) / FULL_AMOUNT * (1 if near else FAR)
    total = sum(one.weight for one in found)
    assert total <= settled + 1e-9
    # The order in which they came says nothing.
    shuffled = random.Random(seed).sample(ratings, len(ratings))
    assert weighed(shuffled, friends) == found
    # And so far they can move what is thought of a provider, and no further.
    moved = abs(score(NOTHING, found, DAY).opinion - PRIOR_STARS)
    assert moved <= 2 * total / (PRIOR_WEIGHT + total) + 1e-9


@settings(deadline=None, max_examples=300)
@given(own=evidence, given_=st.lists(said, max_size=10))
def test_stars_are_between_one_and_five_and_better_evidence_never_lowers_them(
    own: Evidence, given_: list[Weighted]
) -> None:
    found = score(own, given_, DAY)
    assert found.stars is None or 1 <= found.stars <= 5
    assert 1 <= found.opinion <= 5 and 1 <= own_stars(own) <= 5
    assert found.ratings + found.unweighted == len(given_)
    if found.stars is None:
        assert not found.ratings
        return
    best = score(replace(own, speed=1.0, first_token=1.0), given_, DAY)
    assert best.stars is not None and best.stars >= found.stars - 1e-9
    passed = score(replace(own, passed=own.passed + 1), given_, DAY)
    assert passed.stars is not None and passed.stars >= found.stars - 1e-9
    praised = score(own, [*given_, Weighted(5, DAY, 1.0)], DAY)
    blamed = score(own, [*given_, Weighted(1, DAY, 1.0)], DAY)
    assert praised.stars is not None and blamed.stars is not None
    assert blamed.stars <= found.stars + 1e-9 and found.stars <= praised.stars + 1e-9
    caught = score(replace(own, caught=own.caught + 1), given_, DAY)
    assert caught.stars is not None and caught.stars <= found.stars + 1e-9


def test_a_driver_that_is_slower_than_it_promised_or_cuts_its_answers_has_less_stars() -> None:
    assert own_stars(GOOD) == 5
    assert own_stars(replace(GOOD, speed=0.5)) == own_stars(replace(GOOD, first_token=0.5)) == 4.5
    assert own_stars(replace(GOOD, speed=3.0)) == 5
    assert own_stars(replace(GOOD, broken=20.0)) == 3
    assert own_stars(Evidence(broken=1.0)) == 1
