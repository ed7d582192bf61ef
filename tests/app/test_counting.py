"""What is agreed to of a receipt: never more than it says, than this side counts, or than was reserved."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.app.counting import (
    IN_FLIGHT,
    LOST,
    Agreed,
    Improper,
    bill_of,
    charge_of,
    judged,
    own_counts,
    planned,
    prompt_most,
    rates_of,
)
from infraxa.net import codec, deals, market
from infraxa.net.deals import Outcome, Receipt
from infraxa.net.identity import Signer
from infraxa.net.market import Rates
from infraxa.net.orders import Done
from infraxa.store.trade_records import Counts, OrderRow

ACCOUNT, PROVIDER, MODEL, ORDER, REQUEST = bytes([1]) * 32, Signer(bytes(32)), bytes(32), bytes(16), bytes(32)
OUTCOMES = st.sampled_from(get_args(Outcome))
COUNTS = st.builds(
    lambda n_prompt, cached, n_out: Counts(n_prompt, n_prompt * cached // 4, n_out),
    st.integers(0, 5000),
    st.integers(0, 4),
    st.integers(0, 5000),
)
RATES = st.builds(lambda base, u_ppm: market.rates(base, u_ppm), st.integers(0, 10**8), st.integers(0, 10**6))
QUICK = settings(deadline=None, max_examples=300)


def ordered(rates: Rates, hold: int, counted: Counts | None, outcome: Outcome) -> OrderRow:
    """As the ledger has it when it is over."""
    quote = deals.Quote(
        bytes(16), ACCOUNT, MODEL, rates.price_in, rates.price_out, rates.price_cached, 10, 1, 2
    )
    signed = deals.sign(quote, PROVIDER)
    held = hold
    if counted is not None:
        held = charge_of(counted, outcome, rates, hold)
    return OrderRow(
        peer=PROVIDER.id,
        id=ORDER,
        model=MODEL,
        quote=codec.encode(Agreed(signed.body, signed.signer, signed.signature, REQUEST)),
        price_in=rates.price_in,
        price_out=rates.price_out,
        price_cached=rates.price_cached,
        hold=hold,
        held=held,
        counted=counted,
        outcome=outcome,
        state="completed",
        bill="counted",
    )


def receipt_of(order: OrderRow, counts: Counts, outcome: Outcome) -> Receipt:
    """That is in order."""
    rates = rates_of(order)
    agreed: Agreed = codec.decode(order.quote, Agreed)
    return Receipt(
        ORDER, ACCOUNT, MODEL, REQUEST, deals.quote_hash(agreed.quote), rates.price_in, rates.price_out,
        rates.price_cached, counts.n_prompt, counts.n_cached, counts.n_out,
        charge_of(counts, outcome, rates, order.hold), outcome, 1, 2, 1, 0,
    )  # fmt: skip


@given(RATES, st.integers(0, 10**7), COUNTS, st.none() | COUNTS, OUTCOMES, OUTCOMES)
@QUICK
def test_never_more_than_any_of_the_bounds(
    rates: Rates, hold: int, theirs: Counts, mine: Counts | None, own: Outcome, said: Outcome
) -> None:
    order = ordered(rates, hold, mine, own)
    receipt = receipt_of(order, theirs, said)
    try:
        verdict = judged(receipt, order, ACCOUNT)
    except Improper as error:
        assert error.what == "outcome" and own in ("stop", "length", "embedded", "scored")
        assert said not in (own, "failed")
        return
    assert 0 <= verdict.accepted <= receipt.charge and verdict.accepted <= order.held <= hold
    assert verdict.counts.n_out <= theirs.n_out and verdict.counts.n_prompt <= theirs.n_prompt
    if mine is not None:
        assert verdict.counts.n_out <= mine.n_out and verdict.counts.n_prompt <= mine.n_prompt
        if (mine, own) == (theirs, said):
            assert verdict.accepted == receipt.charge, "who counts alike agrees"


@given(RATES, COUNTS, OUTCOMES, st.sampled_from(("embedded", "scored")))
@QUICK
def test_what_is_only_read_is_paid_by_the_prompt_and_only_by_whom_it_came_to(
    rates: Rates, counts: Counts, own: Outcome, read: Outcome
) -> None:
    counts = replace(counts, n_out=0)
    hold = market.hold(counts.n_prompt, 0, rates)
    whole = market.charge(counts.n_prompt, counts.n_cached, 0, rates, hold)
    order = ordered(rates, hold, counts, own)
    try:
        verdict = judged(receipt_of(order, counts, read), order, ACCOUNT)
    except Improper:
        assert own not in ("cancelled", "failed", read), "something else was asked for"
        return
    assert verdict.accepted == (0 if own == "failed" else whole)


@given(RATES, st.integers(0, 10**7), COUNTS, OUTCOMES, st.integers(1, 10**6), st.booleans())
@QUICK
def test_another_charge_than_that_of_its_counts_is_improper(
    rates: Rates, hold: int, counts: Counts, outcome: Outcome, by: int, more: bool
) -> None:
    order = ordered(rates, hold, counts, outcome)
    receipt = receipt_of(order, counts, outcome)
    wrong = receipt.charge + by if more else receipt.charge - by
    if wrong < 0:
        return
    with pytest.raises(Improper, match="charge"):
        judged(replace(receipt, charge=wrong), order, ACCOUNT)


def test_what_was_lost_is_agreed_to_for_nothing() -> None:
    order = replace(ordered(market.FREE, 0, None, "failed"), outcome=LOST)
    dear = replace(receipt_of(order, Counts(9, 0, 9), "stop"), charge=999, price_out=5)
    assert judged(dear, order, ACCOUNT) == (Counts(), 0)


def test_a_free_order_names_its_request_as_long_as_it_is_known() -> None:
    order = replace(ordered(market.FREE, 0, Counts(9, 0, 9), "stop"), quote=b"")
    receipt = replace(receipt_of(ordered(market.FREE, 0, None, "failed"), Counts(9, 0, 9), "stop"), quote=b"")
    assert judged(receipt, order, ACCOUNT, REQUEST).accepted == 0
    assert judged(receipt, order, ACCOUNT).accepted == 0
    with pytest.raises(Improper, match="request"):
        judged(receipt, order, ACCOUNT, bytes([7]) * 32)


def test_the_longest_that_a_prompt_can_be() -> None:
    assert prompt_most(["abc", "ü€"]) == 16 + 3 + 16 + 5
    assert prompt_most(["\ud800"]) == 16 + 3
    assert prompt_most([]) == 0


def test_what_may_be_on_its_way_counts_only_for_who_stopped_it() -> None:
    assert own_counts(9, 5, "failed", None, 100.0).n_out == 5
    assert own_counts(9, 5, "stop", Done("stop", 7, 3, 5), 100.0) == Counts(7, 3, 5)
    assert own_counts(9, 5, "stop", Done("stop", 70, 60, 5), 100.0) == Counts(9, 9, 5)
    assert own_counts(9, 5, "cancelled", None, None).n_out == 5 + IN_FLIGHT[0]
    assert own_counts(9, 5, "cancelled", None, 20.5).n_out == 5 + 21
    assert own_counts(9, 5, "cancelled", None, 1e9).n_out == 5 + IN_FLIGHT[1]


@given(st.integers(0, 10**5), st.integers(1, 10**5), st.integers(0, 10**5), st.integers(1, 10**5), RATES)
@QUICK
def test_a_plan_never_needs_more_than_it_can_cost(
    n_prompt: int, context: int, asked: int, max_out: int, rates: Rates
) -> None:
    plan = planned(n_prompt, context, asked, max_out, rates)
    assert 0 <= plan.least <= plan.most
    assert plan.n_prompt <= context and 1 <= plan.max_out <= min(context, max_out)
    assert not asked or plan.max_out <= asked


def test_a_bill_says_how_far_its_money_is() -> None:
    order = ordered(Rates(5_000_000, 20_000_000, 0), 500, Counts(4, 0, 9), "stop")
    assert (bill_of(order, 9).state, bill_of(order, 9).counted) == ("due", 9)
    assert bill_of(replace(order, unclaimed_until=5), None).state == "unclaimed"
    assert bill_of(replace(order, bill="released"), None).state == "released"
    assert bill_of(replace(order, bill="held", state="processing"), None).state == "open"
    signed = replace(order, bill="signed", charge=300, accepted=200, billed=Counts(4, 0, 14))
    told = bill_of(signed, None)
    assert (told.state, told.charge, told.disputed, told.n_out) == ("disputed", 200, 100, 14)
    assert bill_of(replace(signed, charge=200), None).state == "signed"
