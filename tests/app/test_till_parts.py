"""What the till is made of: open quotes, daily shares, prices of settings, and the charge of an order."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.app.config import Settings
from infraxa.app.credit import Buyer, Credit
from infraxa.app.open_quotes import OpenQuotes, rates_of
from infraxa.app.pricing import Pricing
from infraxa.app.sold import End, Sold
from infraxa.app.terms import Refusal
from infraxa.net import deals, tab
from infraxa.net.credits import micro
from infraxa.net.market import FREE, Rates

few = settings(deadline=None, max_examples=60)
MODEL = bytes(32)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def a_quote(account: int, number: int, now_ms: int) -> deals.Quote:
    return deals.Quote(
        number.to_bytes(16, "big"), key(account), MODEL, 1, 2, 3, 100, now_ms, now_ms + deals.QUOTE_MS
    )


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "take", "expire"]),
            st.integers(0, 3),
            st.integers(0, 40),
            st.integers(0, 6_000),
        ),
        max_size=90,
    )
)
def test_a_quote_is_taken_once_by_its_account_while_it_holds(
    steps: list[tuple[str, int, int, int]],
) -> None:
    quotes, now, added = OpenQuotes(), 0, 0
    known: dict[int, list[deals.Quote]] = {account: [] for account in range(4)}
    for what, account, number, passes in steps:
        now += passes
        own = known[account]
        wanted = number.to_bytes(16, "big")
        if what == "add":
            quotes.add(a_quote(account, added, now), b"signed", wanted)
            left = [quote for quote in own if quote.id != wanted]
            known[account] = [*left, a_quote(account, added, now)][-deals.OPEN_QUOTES :]
            added += 1
        elif what == "take":
            found = quotes.take(key(account), wanted, MODEL, now)
            fits = [quote for quote in own if quote.id == wanted and now < quote.expires]
            assert ([] if found is None else [found]) == [(quote, b"signed") for quote in fits]
            known[account] = [quote for quote in own if quote not in fits]
        else:
            over = [quote for own in known.values() for quote in own if quote.expires <= now]
            assert sorted(quote.id for quote in quotes.expired(now)) == sorted(quote.id for quote in over)
            for at, own in known.items():
                known[at] = [quote for quote in own if quote not in over]
        assert len(quotes) == sum(map(len, known.values()))


def test_the_oldest_quotes_go_when_there_are_too_many() -> None:
    quotes = OpenQuotes(3)
    for account in range(5):
        quotes.add(a_quote(account, account, account), b"")
    assert len(quotes) == 3
    assert quotes.take(key(1), (1).to_bytes(16, "big"), MODEL, 5) is None
    found = quotes.take(key(4), (4).to_bytes(16, "big"), MODEL, 5)
    assert found is not None and rates_of(found[0]) == Rates(1, 2, 3)
    assert quotes.take(key(3), (3).to_bytes(16, "big"), bytes([1]) * 32, 5) is None, "another model"


@few
@given(
    st.sampled_from(["stop", "length", "cancelled", "failed"]),
    st.tuples(*[st.integers(0, 2**31 - 1)] * 3),
    st.tuples(*[st.integers(0, 10**12)] * 3),
    st.integers(0, 2**62),
    st.booleans(),
)
def test_no_order_costs_more_than_its_hold(
    outcome: deals.Outcome,
    counts: tuple[int, int, int],
    prices: tuple[int, int, int],
    hold: int,
    claimed: bool,
) -> None:
    sold = Sold(Buyer(key(1), "local"), bytes(16), MODEL, Rates(*prices), hold, False, 0, claimed=claimed)
    assert sold.charge == 0, "it is not over"
    n_prompt, n_cached, n_out = counts
    sold.end = End(outcome, n_prompt, min(n_cached, n_prompt), n_out)
    assert 0 <= sold.charge <= hold
    if not claimed or (outcome != "cancelled" and not n_out):
        assert sold.charge == 0
    budget = sold.budget
    if budget is not None and (affordable := budget.tokens(n_prompt)) not in (None, -1):
        exact = Sold(sold.buyer, bytes(16), MODEL, sold.rates, 10**60, False, 0, claimed=True)
        exact.end = End("stop", n_prompt, 0, affordable)
        assert exact.charge <= hold, "what the engine is told is never more than was reserved"


def test_a_setting_in_credits_is_exact() -> None:
    amounts = (0.2, 0.000001, 0.1 + 0.2, 1e-7, 1_000_000.0, 0.005)
    assert [micro(one) for one in amounts] == [200_000, 1, 300_000, 0, 10**12, 5000]


def test_prices_follow_the_settings_at_once_and_the_work_in_time() -> None:
    now = 0
    pricing = Pricing(lambda: now)
    assert pricing.now == FREE
    pricing.use(Settings(base_price=0.4, price_floor=0.5, price_ceiling=1.0))
    assert pricing.now == pricing.base == Rates(125_000, 500_000, 31_250)
    pricing.feed([(1000, 0)] * 100, 10.0)
    assert pricing.now.price_out == 500_000
    now = 60_000
    assert pricing.now.price_out == 1_000_000 and pricing.base.price_out == 500_000
    pricing.use(Settings(base_price=0.4))
    assert pricing.now.price_out > 1_000_000 and pricing.base.price_out == 400_000
    pricing.use(Settings(base_price=0.0))
    assert pricing.now == FREE


def test_longer_answers_are_more_work() -> None:
    now = 0
    short, long = Pricing(lambda: now), Pricing(lambda: now)
    for pricing, n_out in ((short, 10), (long, 900)):
        pricing.use(Settings())
        for _ in range(50):
            pricing.ended(n_out)
        pricing.feed([(1000, 0)], 10.0)
    now = 60_000
    assert long.now.price_out > short.now.price_out > 200_000


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "back", "settled"]),
            st.integers(0, 4),
            st.sampled_from(["1.2.3", "4.5.6", None]),
            st.integers(0, 7000),
        ),
        max_size=50,
    )
)
def test_strangers_never_take_more_than_there_is(steps: list[tuple[str, int, str | None, int]]) -> None:
    credit, taken = Credit(), list[tuple[Buyer, int]]()
    credit.use(Settings(stranger_limit=0.005, strangers_daily=0.02))
    credit.known = {key(4)}
    for what, account, group, amount in steps:
        buyer = Buyer(key(account), group)
        if what == "take":
            with contextlib.suppress(Refusal):
                credit.take(buyer, amount, 1)
                if account != 4:
                    taken.append((buyer, amount))
        elif what == "back" and taken:
            credit.give_back(*taken.pop(), 1)
        elif what == "settled":
            used = sum(hold for one, hold in taken if one.account == buyer.account)
            credit.settled(buyer.account, amount, 1)
            if amount and used:
                taken = [(one, hold) for one, hold in taken if one.account != buyer.account]
                left = used - min(used, amount)
                if left:
                    taken.append((buyer, left))
        assert sum(hold for _, hold in taken) <= 20_000
        for number in range(4):
            assert sum(hold for one, hold in taken if one.account == key(number)) <= 5000


def test_a_new_day_begins_anew() -> None:
    credit, buyer = Credit(), Buyer(key(1), "1.2.3")
    credit.use(Settings(free_daily=1))
    credit.take(buyer, 5000, 0)
    with pytest.raises(Refusal) as refused:
        credit.take(buyer, 1, 1000)
    assert refused.value.retry_after_ms == tab.DAY_MS - 1000
    assert credit.take_free(buyer, 0) and not credit.take_free(buyer, 0)
    credit.give_back_free(buyer, 0)
    assert credit.take_free(buyer, 0)
    credit.take(buyer, 5000, tab.DAY_MS)
    assert credit.free_left(buyer, tab.DAY_MS) == 1
    credit.give_back(buyer, 5000, 0)
    with pytest.raises(Refusal):
        credit.take(buyer, 1, tab.DAY_MS)
    credit.settled(buyer.account, 10**9, tab.DAY_MS)
    credit.take(buyer, 5000, tab.DAY_MS)
