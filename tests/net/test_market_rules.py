"""The rules of the market hold for every number: prices, holds, charges, splits, amounts as text."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec, market
from infraxa.net.credits import MAX_CREDITS, read_credits, shown
from infraxa.net.deals import Outcome
from infraxa.net.errors import NetError
from infraxa.net.market import FREE, MAX_PRICE, MILLION, UNBOUNDED, Demand, Outputs, Rates

rules = settings(deadline=None, max_examples=100)

prices = st.integers(0, 10**9) | st.sampled_from((0, 1, MAX_PRICE))
all_rates = st.builds(Rates, prices, prices, prices)
usual_rates = st.builds(market.rates, prices, st.integers(0, 50 * MILLION))
counts = st.integers(0, 200_000) | st.sampled_from((0, 1, UNBOUNDED))
holds = st.integers(0, 10**8)


def fed(loads: list[tuple[int, int]], speed: int = 10_000) -> tuple[Demand, int]:
    """A demand that was told of (milliseconds since the last, tokens), and when it is over."""
    now = 1_000_000
    demand = Demand(now)
    for wait, tokens in loads:
        now += wait
        demand.feed(tokens, speed, now)
    return demand, now


loads = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 10**6)), min_size=1, max_size=20)


# Prices


def test_the_price_is_the_base_times_one_plus_the_demand_squared() -> None:
    assert [market.rates(200_000, u).price_out for u in (0, MILLION // 10, MILLION, 10 * MILLION)] == [
        200_000,
        242_000,
        800_000,
        24_200_000,
    ]
    assert market.rates(200_000, 0) == Rates(price_in=50_000, price_out=200_000, price_cached=12_500)


@rules
@given(base=st.integers(1, 10**9), u=st.integers(0, 100 * MILLION))
def test_prices_are_exact_and_rounded_upwards(base: int, u: int) -> None:
    rates = market.rates(base, u)
    exact = base * (1 + Fraction(u, MILLION)) ** 2
    assert exact <= rates.price_out < exact + 1 or rates.price_out == MAX_PRICE
    assert Fraction(rates.price_out, 4) <= rates.price_in < Fraction(rates.price_out, 4) + 1
    assert Fraction(rates.price_in, 4) <= rates.price_cached < Fraction(rates.price_in, 4) + 1


@rules
@given(base=prices, u=st.integers(0, 10**12), more=st.integers(0, 10**9), floor=prices | st.none())
def test_the_price_rises_with_demand_and_base(base: int, u: int, more: int, floor: int | None) -> None:
    low = market.rates(base, u, floor=floor)
    for high in (market.rates(base, u + more, floor=floor), market.rates(base + more, u, floor=floor)):
        assert low.price_out <= high.price_out
        assert low.price_in <= high.price_in
        assert low.price_cached <= high.price_cached


@rules
@given(base=st.integers(1, 10**9), u=st.integers(0, 10**12), floor=prices, ceiling=prices)
def test_floor_and_ceiling_hold(base: int, u: int, floor: int, ceiling: int) -> None:
    price = market.rates(base, u, floor=floor, ceiling=ceiling).price_out
    assert min(floor, ceiling) <= price <= ceiling
    assert market.rates(base, u, floor=floor).price_out >= floor


@rules
@given(base=st.integers(1, 100), u=st.integers(0, 10**12))
def test_only_a_base_of_nothing_is_free(base: int, u: int) -> None:
    assert market.rates(0, u, floor=base) == FREE
    rates = market.rates(base, u)
    assert min(rates.price_in, rates.price_out, rates.price_cached) > 0


@rules
@given(base=st.integers(0, 2**62), u=st.integers(0, 2**63))
def test_every_price_can_be_sent(base: int, u: int) -> None:
    rates = market.rates(base, u)
    assert codec.decode(codec.encode(rates), Rates) == rates
    assert market.hold(UNBOUNDED, UNBOUNDED, rates) < 2**62


# Demand


@rules
@given(
    loads=loads, more=st.lists(st.integers(0, 10**6), min_size=20, max_size=20), after=st.integers(0, 60_000)
)
def test_more_load_is_never_less_demand(loads: list[tuple[int, int]], more: list[int], after: int) -> None:
    low, now = fed(loads)
    high, _ = fed([(wait, tokens + extra) for (wait, tokens), extra in zip(loads, more, strict=False)])
    # The sums are kept to 2⁻³²; where one is on the edge of a millionth the other may be just below it.
    assert low.u_ppm(now + after) <= high.u_ppm(now + after) + 1


@rules
@given(loads=loads, speed=st.integers(1, 10**6), faster=st.integers(0, 10**6), after=st.integers(0, 60_000))
def test_more_speed_is_never_more_demand(
    loads: list[tuple[int, int]], speed: int, faster: int, after: int
) -> None:
    slow, now = fed(loads, speed)
    fast, _ = fed(loads, speed + faster)
    assert fast.u_ppm(now + after) <= slow.u_ppm(now + after) + 1


@rules
@given(loads=loads, slices=st.integers(2, 50), after=st.integers(0, 60_000))
def test_demand_does_not_depend_on_how_often_it_is_told(
    loads: list[tuple[int, int]], slices: int, after: int
) -> None:
    seldom, now = fed(loads)
    often = Demand(1_000_000)
    at = 1_000_000
    held: int | None = None
    for wait, tokens in loads:
        for part in range(1, slices):
            often.u_ppm(at + wait * part // slices)
            if held is not None:
                often.feed(held, 10_000, at + wait * part // slices)
        at += wait
        often.feed(tokens, 10_000, at)
        held = tokens
    assert often.u_ppm(now + after) == seldom.u_ppm(now + after)


@rules
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=100), after=st.integers(0, 60_000))
def test_many_small_orders_weigh_as_one_that_is_as_large(sizes: list[int], after: int) -> None:
    outputs = Outputs()
    for _ in range(400):
        outputs.ended(sum(sizes))
    assert outputs.left((size, 0) for size in sizes) == outputs.left([(sum(sizes), 0)]) == sum(sizes)
    at_once, one_by_one = Demand(0), Demand(0)
    at_once.feed(outputs.left([(sum(sizes), 0)]), 10_000, 0)
    for number in range(1, len(sizes) + 1):
        one_by_one.feed(outputs.left((size, 0) for size in sizes[:number]), 10_000, 0)
    assert one_by_one.u_ppm(after) == at_once.u_ppm(after)


@rules
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), delivered=st.integers(0, 2000), mean=counts
)
def test_what_was_delivered_of_an_order_is_no_demand_any_more(
    sizes: list[int], delivered: int, mean: int
) -> None:
    outputs = Outputs()
    for _ in range(400):
        outputs.ended(max(sizes))
    delivered = min(delivered, sum(sizes))
    slices, gone = [], delivered
    for size in sizes:
        slices.append((size, min(size, gone)))
        gone -= min(size, gone)
    assert outputs.left(slices) == sum(sizes) - delivered
    assert outputs.left([(size, size + 5) for size in sizes]) == 0


@rules
@given(tokens=st.integers(600, 10**6))
def test_the_demand_goes_half_of_the_way_in_a_half_life(tokens: int) -> None:
    demand, now = fed([(0, tokens)])
    whole = demand.u_ppm(now + 10**7)
    assert whole == tokens * MILLION // 600
    for lives, share in ((0, Fraction(0)), (1, Fraction(1, 2)), (2, Fraction(3, 4)), (3, Fraction(7, 8))):
        assert abs(demand.u_ppm(now + lives * 10_000) - whole * share) <= 2
    demand.feed(0, 10_000, now + 10**7)
    assert abs(demand.u_ppm(now + 10**7 + 10_000) - Fraction(whole, 2)) <= 2
    assert demand.u_ppm(now + 2 * 10**7) == 0


def test_a_clock_that_goes_back_changes_nothing() -> None:
    demand, now = fed([(0, 600), (10_000, 0)])
    before = demand.u_ppm(now)
    assert demand.u_ppm(now - 5000) == before
    demand.feed(900, 10_000, now - 5000)
    assert demand.u_ppm(now) == before


def test_the_mean_of_the_answers_begins_at_what_is_usual_and_follows() -> None:
    outputs = Outputs()
    assert outputs.mean == 256
    assert outputs.left([(1000, 0), (100, 0), (1000, 56), (1000, 400)]) == 256 + 100 + 200
    for _ in range(100):
        outputs.ended(40)
    assert outputs.mean == 40
    for _ in range(200):
        outputs.ended(0)
    assert outputs.mean == 1


# Holds and charges


@rules
@given(n_prompt=counts, n_cached=counts, n_out=counts, rates=all_rates, hold=holds)
def test_a_charge_is_never_above_the_hold(
    n_prompt: int, n_cached: int, n_out: int, rates: Rates, hold: int
) -> None:
    assert 0 <= market.charge(n_prompt, n_cached, n_out, rates, hold) <= hold
    for outcome in get_args(Outcome):
        charge = market.charge_of(outcome, n_prompt, n_prompt, n_cached, n_out, rates, hold)
        assert 0 <= charge <= hold


@rules
@given(n_prompt=counts, n_cached=counts, max_out=counts, n_out=counts, rates=usual_rates)
def test_a_hold_pays_the_whole_answer(
    n_prompt: int, n_cached: int, max_out: int, n_out: int, rates: Rates
) -> None:
    hold = market.hold(n_prompt, max_out, rates)
    assert market.affordable(hold, n_prompt, n_cached, rates) >= max_out
    exact = Fraction(
        (n_prompt - min(n_cached, n_prompt)) * rates.price_in
        + min(n_cached, n_prompt) * rates.price_cached
        + min(n_out, max_out) * rates.price_out,
        MILLION,
    )
    assert exact <= market.charge(n_prompt, n_cached, min(n_out, max_out), rates, hold) < exact + 1


@rules
@given(n_prompt=counts, n_cached=counts, rates=all_rates, hold=holds, extra=st.integers(1, 10**6))
def test_what_is_affordable_is_just_within_the_hold(
    n_prompt: int, n_cached: int, rates: Rates, hold: int, extra: int
) -> None:
    tokens = market.affordable(hold, n_prompt, n_cached, rates)
    plenty = 2**90
    if tokens < 0:
        assert market.charge(n_prompt, n_cached, 0, rates, plenty) > hold
        return
    assert market.charge(n_prompt, n_cached, tokens, rates, plenty) <= hold
    if tokens < UNBOUNDED:
        assert market.charge(n_prompt, n_cached, tokens + extra, rates, plenty) > hold


@rules
@given(n_prompt=counts, n_cached=counts, n_out=counts, rates=usual_rates, more=st.integers(0, 1000))
def test_more_tokens_never_cost_less_and_the_cache_never_more(
    n_prompt: int, n_cached: int, n_out: int, rates: Rates, more: int
) -> None:
    plenty = 2**90
    charge = market.charge(n_prompt, n_cached, n_out, rates, plenty)
    assert market.charge(n_prompt, n_cached, n_out + more, rates, plenty) >= charge
    assert market.charge(n_prompt + more, min(n_cached, n_prompt), n_out, rates, plenty) >= charge
    assert market.charge(n_prompt, n_cached + more, n_out, rates, plenty) <= charge


@rules
@given(prefilled=counts, n_prompt=counts, n_cached=counts, rates=usual_rates)
def test_before_the_first_token_only_a_user_who_cancels_pays(
    prefilled: int, n_prompt: int, n_cached: int, rates: Rates
) -> None:
    hold = market.hold(n_prompt, 100, rates)
    for outcome in ("stop", "length", "failed"):
        assert market.charge_of(outcome, prefilled, n_prompt, n_cached, 0, rates, hold) == 0
    cancelled = market.charge_of("cancelled", prefilled, n_prompt, n_cached, 0, rates, hold)
    assert cancelled == market.charge(min(prefilled, n_prompt), n_cached, 0, rates, hold)
    assert cancelled <= market.charge(n_prompt, 0, 0, rates, hold)
    assert market.charge_of("cancelled", 0, n_prompt, n_cached, 0, rates, hold) == 0
    embedded = market.charge_of("embedded", 0, n_prompt, n_cached, 0, rates, hold)
    assert embedded == market.charge(n_prompt, n_cached, 0, rates, hold), "vectors are of no tokens"


@rules
@given(n_prompt=counts, n_out=st.integers(1, 10_000), rates=usual_rates)
def test_after_the_first_token_all_that_was_delivered_is_paid(
    n_prompt: int, n_out: int, rates: Rates
) -> None:
    hold = market.hold(n_prompt, n_out, rates)
    for outcome in get_args(Outcome):
        assert market.charge_of(outcome, 0, n_prompt, 0, n_out, rates, hold) == hold


def test_a_charge_in_numbers() -> None:
    rates = Rates(50_000, 200_000, 12_500)
    assert market.hold(1000, 500, rates) == 150
    assert market.charge(1000, 0, 200, rates, 150) == 90
    assert market.charge(1000, 800, 200, rates, 150) == 60
    assert market.charge(1, 0, 0, rates, 150) == 1
    assert market.affordable(150, 1000, 0, rates) == 500
    assert market.affordable(49, 1000, 0, rates) == -1
    assert market.affordable(0, 1000, 0, FREE) == UNBOUNDED
    assert market.charge(10**6, 0, 10**6, FREE, 0) == 0


# The split of a pipeline's charge

nodes = st.sampled_from([bytes([number]) * 32 for number in range(6)])
all_layers = st.lists(st.tuples(nodes, st.integers(0, 100)), max_size=8)


@rules
@given(charge=st.integers(0, 2**62), layers=all_layers, driver=nodes, validator=nodes, rng=st.randoms())
def test_the_parts_of_a_charge_add_up_and_each_is_right_to_one(
    charge: int, layers: list[tuple[bytes, int]], driver: bytes, validator: bytes, rng: object
) -> None:
    parts = market.split(charge, layers, driver, validator)
    assert sum(parts.values()) == charge
    total = sum(count for _, count in layers)
    if not total:
        assert parts == {driver: charge}
        return
    assert set(parts) == {driver, validator, *(node for node, _ in layers)}
    for node, part in parts.items():
        share = Fraction(15, 100) * ((node == driver) + (node == validator))
        share += sum(Fraction(70 * count, 100 * total) for worker, count in layers if worker == node)
        assert abs(part - charge * share) < 1
    assert market.split(charge, layers[::-1], driver, validator) == parts


@rules
@given(charge=st.integers(0, 10**9), layers=st.lists(st.integers(0, 50), max_size=5), driver=nodes)
def test_a_driver_that_does_everything_takes_all(charge: int, layers: list[int], driver: bytes) -> None:
    assert market.split(charge, [(driver, count) for count in layers], driver, driver) == {driver: charge}


def test_a_split_in_numbers() -> None:
    assert market.split(1000, [(b"a", 20), (b"b", 8)], b"d", b"v") == {
        b"d": 150,
        b"v": 150,
        b"a": 500,
        b"b": 200,
    }
    assert market.split(1000, [(b"d", 10), (b"a", 20), (b"a", 10)], b"d", b"a") == {b"d": 325, b"a": 675}
    assert market.split(1, [(b"a", 1), (b"b", 1)], b"d", b"v") == {b"a": 1, b"b": 0, b"d": 0, b"v": 0}


# Amounts as text


@rules
@given(st.integers(-(10**18), 10**18))
def test_an_amount_is_shown_exactly(micro: int) -> None:
    text = shown(micro)
    assert Decimal(text) * MILLION == micro
    assert read_credits(text) == micro


@rules
@given(st.decimals(-(10**12), 10**12, places=6) | st.decimals(-100, 100, places=3))
def test_a_decimal_number_is_read_exactly(number: Decimal) -> None:
    assert read_credits(f"{number:f}") == number * MILLION
    assert read_credits(f" {number:f}000 ") == number * MILLION


def test_amounts_look_as_people_write_them() -> None:
    assert [shown(micro) for micro in (400, 200_000, -200_000, 0, 12_500_000, 1, -1)] == [
        "0.0004",
        "0.20",
        "-0.20",
        "0.00",
        "12.50",
        "0.000001",
        "-0.000001",
    ]
    assert [read_credits(text) for text in ("5", ".5", "5.", "+0.5", "-0", "007")] == [
        5_000_000,
        500_000,
        5_000_000,
        500_000,
        0,
        7_000_000,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "1e3",
        "1,5",
        "0.0000001",
        "١",
        "1_000",
        "0x1",
        "--1",
        "1 2",
        "nan",
        "inf",
        f"{MAX_CREDITS}.1",
        "9" * 20,
        "9" * 100_000,
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(NetError) as caught:
        read_credits(text)
    assert caught.value.code == "bad_amount"
    assert caught.value.remedy
    assert len(caught.value.message) < 100


@rules
@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_is_refused(text: str) -> None:
    try:
        micro = read_credits(text)
    except NetError:
        return
    assert Decimal(text.strip()) * MILLION == micro
