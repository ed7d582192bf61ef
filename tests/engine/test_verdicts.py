"""What distances say about an answer, and answers about a driver: at each bound, and for any numbers."""

from __future__ import annotations

import math
import struct
from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine.types import ScoredRow
from infraxa.engine.verdicts import (
    BOUNDS,
    FEW,
    FLOOR,
    LEAST_STEPS,
    Distance,
    Judged,
    Record,
    State,
    Test,
    agreed,
    distance,
    distance_of_common,
    judge,
    rate,
)

MU0 = 0.04
GOOD = Distance(MU0, 3 * MU0, MU0, 1.0)
COMMON_STEP, RARE_STEP = GOOD._replace(overlap=0.85), GOOD._replace(overlap=0.7)
ROUNDS = 50


def own(ids: list[int], at: list[int]) -> ScoredRow:
    return ScoredRow(struct.pack(f"<{len(ids)}I", *ids), b"", struct.pack(f"<{len(at)}i", *at))


def test_a_distance_is_in_logits_over_the_committed_candidates() -> None:
    found = distance([7, 8, 9, 10], [4096, 0, -4096, -8192], 8, own([7, 8, 9, 3], [4096, 2048, 0, -8192]))
    assert found == Distance((0.5 + 1) / 4, 1.0, 0.5, 0.75)
    assert distance([7], [0], 5, own([7], [0])).token == math.inf, "it was none of the candidates"


@pytest.mark.parametrize(("ids", "q", "at"), [([], [], []), ([1], [], [1]), ([1, 2], [0, 0], [0])])
def test_what_does_not_belong_together_has_no_distance(ids: list[int], q: list[int], at: list[int]) -> None:
    with pytest.raises(ValueError):
        distance(ids, q, 1, own(ids, at))


def test_somebody_who_was_not_told_the_candidates_is_compared_by_those_of_both() -> None:
    found = distance_of_common(
        [7, 8, 9, 10], [4096, 0, -4096, -6144], 8, [7, 8, 3, 9], [4096, 2048, 0, -8192]
    )
    assert found == Distance((0.5 + 1) / 3, 1.0, 0.5, 0.75), "the last one is off by half a logit or more"
    found = distance_of_common([7, 8], [8192, 4096], 8, [7, 3], [8192, 0])
    assert found == Distance(0, 1.0, 1.0, 0.5), "it has no more than the last of them"
    assert distance_of_common([7, 8], [8192, -1], 8, [7, 3], [8192, 0]).most == 0, "and may have as much"
    assert distance_of_common([7], [0], 5, [7], [0]).token == math.inf, "it was none of the candidates"
    assert distance_of_common([7], [0], 7, [8], [0]) == Distance(math.inf, math.inf, math.inf, 0)
    for ids, q, own_ids, own_q in (([], [], [], []), ([1], [1], [1, 2], [1, 0]), ([1], [1], [1], [])):
        with pytest.raises(ValueError):
            distance_of_common(ids, q, 1, own_ids, own_q)


STEP = st.lists(st.integers(0, 99), min_size=4, max_size=8, unique=True)


@given(STEP, STEP, st.data())
def test_it_is_never_farther_off_than_with_all_that_the_other_computed(
    committed: list[int], likeliest: list[int], data: st.DataObject
) -> None:
    """Whatever the rest of its logits are, which are no larger than those that it told."""
    n = min(len(committed), len(likeliest))
    ids, own_ids = committed[:n], likeliest[:n]
    logits = st.lists(st.integers(-(2**20), 2**20), min_size=n, max_size=n)
    q, own_q = data.draw(logits), sorted(data.draw(logits), reverse=True)
    rest = {one: own_q[-1] - data.draw(st.integers(0, 2**20)) for one in ids if one not in own_ids}
    known = rest | dict(zip(own_ids, own_q, strict=True))
    row = own(own_ids, [known[one] for one in ids])
    whole, found = distance(ids, q, ids[0], row), distance_of_common(ids, q, ids[0], own_ids, own_q)
    assert found.overlap == whole.overlap
    if found.overlap:
        assert found.most <= whole.most and found.token <= whole.token
    if not rest:
        assert found == whole


def test_one_alone_condemns_nobody() -> None:
    table: dict[tuple[State, ...], State] = {
        (): "grey",
        ("passed",): "passed",
        ("failed",): "grey",
        ("grey",): "grey",
        ("failed", "failed"): "failed",
        ("failed", "grey"): "grey",
        ("failed", "passed"): "grey",
        ("failed", "passed", "passed"): "passed",
        ("failed", "passed", "failed"): "failed",
        ("grey", "passed"): "grey",
        ("grey", "passed", "passed"): "passed",
        ("grey", "grey", "failed"): "grey",
    }
    for votes, state in table.items():
        assert agreed(votes) == state, votes


def off(test: Test, value: float) -> Distance:
    """A step that is so far off in that test."""
    return {
        "step": GOOD._replace(mean=value * MU0),
        "token": GOOD._replace(token=value * MU0),
        "logit": GOOD._replace(most=value * MU0),
        "overlap": GOOD._replace(overlap=1 - value),
    }[test]


@pytest.mark.parametrize(("steps", "accept", "fail"), [(16, 1.75, 2.2), (63, 1.75, 2.2), (64, 1.6, 1.85)])
def test_the_ratio_is_between_three_verdicts(steps: int, accept: float, fail: float) -> None:
    def of(ratio: float) -> Judged:
        return judge([off("step", ratio)] * steps, MU0)

    assert of(accept * 0.99).state == "passed"
    assert of(accept * 1.01).state == of(fail * 0.99).state == "grey"
    assert (of(fail * 1.01).state, of(fail * 1.01).test) == ("failed", "ratio")


@pytest.mark.parametrize("test", list(BOUNDS))
def test_single_steps_may_be_far_off_but_not_many_nor_too_far(test: Test) -> None:
    common, rare, never = BOUNDS[test]

    def of(value: float, n: int) -> Judged:
        return judge([*[GOOD] * (100 - n), *[off(test, value)] * n], MU0)

    assert of(common * 1.01, FEW).state == of(common * 0.99, 6).state == "passed"
    assert (
        of(common * 1.01, FEW + 1).state == of(rare * 1.01, 1).state == of(never * 0.99, FEW).state == "grey"
    )
    assert of(rare * 1.01, FEW + 1).state == of(never * 1.01, 1).state == "failed"
    worst = judge([*[off("token", 13)] * 20, off(test, never * 1.01), *[GOOD] * 600], MU0)
    assert worst.test == test and worst.value == pytest.approx(never * 1.01)


@pytest.mark.parametrize("n", [16, 64, 256, 1000, 7000])
def test_honest_answers_pass_however_long_they_are(n: int) -> None:
    """By the chances that were counted of honest steps: 36 and 4 of 19 000."""
    failed = next(k for k in range(n) if judge([GOOD] * (n - k) + [RARE_STEP] * k, MU0).state == "failed")
    honest = 4 / 19000
    # Of so many terms the rest does not count.
    chance = sum(comb(n, k) * honest**k * (1 - honest) ** (n - k) for k in range(failed, min(n, failed + 20)))
    assert chance <= 1e-4, "it is called false"
    assert failed <= 4 + n * 0.002, "and what is false is not called honest"
    rng, passed = Random(n), 0
    for _ in range(ROUNDS):
        drawn = [rng.random() * 19000 for _ in range(n)]
        steps = [RARE_STEP if one < 4 else COMMON_STEP if one < 36 else GOOD for one in drawn]
        passed += judge(steps, MU0).state == "passed"
    assert passed >= 0.93 * ROUNDS


def test_few_steps_pass_nothing_but_can_fail() -> None:
    far = GOOD._replace(mean=3 * MU0)
    assert judge([], MU0).state == "undetermined"
    assert judge([GOOD] * (LEAST_STEPS - 1), MU0).test == "short"
    assert judge([far] * (LEAST_STEPS - 1), MU0).state == "undetermined", "a mean of few says little"
    assert judge([far] * LEAST_STEPS, MU0).state == "failed", "also those of several answers together"
    assert judge([off("step", 28)], MU0).state == "failed"
    assert judge([off("step", 10)], MU0).state == "grey"


def test_noise_is_never_taken_for_smaller_than_the_floor() -> None:
    still = Distance(FLOOR, FLOOR, FLOOR, 1.0)
    assert judge([still] * LEAST_STEPS, 0.0).ratio == pytest.approx(1)


@given(
    st.lists(
        st.builds(Distance, *[st.floats(0, 100)] * 3, st.floats(0, 1)),
        min_size=1,
        max_size=40,
    ),
    st.floats(1e-3, 1),
)
def test_a_worse_step_never_makes_a_better_verdict(steps: list[Distance], mu0: float) -> None:
    order = ["passed", "undetermined", "grey", "failed"]
    worse = [steps[0]._replace(mean=steps[0].mean + 1, token=steps[0].token + 50), *steps[1:]]
    assert order.index(judge(worse, mu0).state) >= order.index(judge(steps, mu0).state)


def test_trust_is_earned_and_lost() -> None:
    rates = [rate(n) for n in range(400)]
    assert rates[:10] == [1.0] * 10 and rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.05 and rates[100] == pytest.approx(0.1)
    assert rate(300, 1) == 0.5 and rate(3, 1) == 1.0


def test_a_driver_that_is_always_a_little_off_is_found_by_its_mean() -> None:
    record = honest = Record()
    for _ in range(9):
        record = record.after(1.7)
    assert not record.after(None).suspended, "nine are too few"
    assert record.after(1.7).suspended
    for ratio in (1.5, 1.0, 1.1, 0.9, 1.3, 1.6, 1.0, 1.2, 1.1, 1.4, 1.0) * 20:
        honest = honest.after(ratio)
        assert not honest.suspended
