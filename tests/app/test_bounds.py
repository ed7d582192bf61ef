"""What is said before a message is sent: what it can cost at most, and why it cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app import locked
from infraxa.app.tui.widgets.bound_line import owed_words
from infraxa.net import market, wire
from infraxa.net.credits import shown
from infraxa.store import buying
from tests.app.purses import PRICE_IN, PRICE_OUT, Shop, buying_at
from tests.app.stalls import SAID, saying

MOST = len(SAID[0].content) + 16


async def test_it_is_asked_then_locked_and_what_is_sent_costs_no_more(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        before = place.changes
        asking = await place.bound(maple)
        assert (asking.state, asking.price_out, asking.n_prompt) == ("asking", PRICE_OUT, MOST)
        bound = await place.locked(maple)
        assert place.changes > before
        assert (bound.state, bound.name) == ("locked", "maple")
        assert bound.most == market.hold(MOST, 1000, maple.rates) and bound.max_out == 1000
        assert (bound.price_in, bound.price_out, bound.raised_from) == (PRICE_IN, PRICE_OUT, 0)
        assert 0 < bound.until_ms - place.time() <= 30_000 and bound.limit == maple.limit
        assert (bound.spent_today, bound.cap_today, bound.counted) == (0, 2_000_000, False)
        for _ in range(5):
            await place.bound(maple)
        assert len(maple.quoted) == 1, "one that holds is not asked for again"
        answer = await place.chat(maple)
        assert answer.text == "Hello" and maple.orders[0].hold == bound.most and len(maple.quoted) == 1
        await place.idle()
        after = await place.locked(maple)
        assert after.spent_today == after.owed == maple.owed and len(maple.quoted) == 2


async def test_what_was_taken_back_is_not_owed_though_its_driver_counts_it(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        (order,) = await place.orders()
        before = await place.locked(maple)
        assert (before.owed, before.taken_back) == (order.accepted, 0)
        await place.store.run(buying.reverse, order.peer, order.id, b"a proof")
        for bound in (await place.bound(maple), await place.locked(maple)):
            assert (bound.owed, bound.taken_back, bound.limit) == (0, order.accepted, maple.limit)
            assert owed_words(bound).startswith(f"tab {shown(maple.owed)} of "), "that is what leaves room"


async def test_what_runs_counts_as_spent(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = lambda request: (
        wire.Failure("internal") if isinstance(request, wire.ReceiptPlease) else None
    )
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        assert (await place.bound(maple)).spent_today == (await place.orders())[0].held > 0


async def test_what_is_free_is_said_so_and_not_asked_for(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.price(0, 0)
    async with buying_at(tmp_path, maple) as place:
        bound = await place.bound(maple)
        assert (bound.state, bound.most) == ("free", 0)
        assert maple.asked == [] and maple.dials == 0


@pytest.mark.parametrize("cap", ["cap_request", "cap_chat", "cap_day"])
async def test_a_cap_refuses_before_it_is_sent(tmp_path: Path, cap: str) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        place.purse.use(replace(place.settings, **{cap: 0.0001}))
        bound = await place.bound(maple)
        assert bound.state == "refused" and "0.0001" in bound.reason and cap in bound.remedy


async def test_caps_bound_the_answer(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple, cap_request=0.01) as place:
        bound = await place.locked(maple)
        assert (bound.state, bound.most) == ("locked", 10_000)
        assert bound.max_out == (10_000 - MOST * 5) // 20
        assert (await place.bound(maple, max_tokens=5)).most == market.hold(MOST, 5, maple.rates)


async def test_who_gives_no_quote_is_said_and_not_asked_all_the_time(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = lambda request: wire.Failure("leaving")
    async with buying_at(tmp_path, maple) as place:
        bound = await place.locked(maple)
        assert (bound.state, bound.reason) == ("refused", "maple has stopped serving.")
        for _ in range(5):
            await place.bound(maple)
        assert len(maple.asked) == 1


async def test_a_quote_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.locked(maple)
        monkeypatch.setattr(locked, "RENEW_S", 60.0)
        assert (await place.bound(maple)).state == "locked", "it still holds"
        for _ in range(500):
            if len(maple.quoted) == 2:
                break
            await asyncio.sleep(0.01)
        assert len(maple.quoted) == 2


async def test_an_old_quote_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.locked(maple)
        monkeypatch.setattr(locked, "SPARE_S", 60.0)
        assert (await place.bound(maple)).state == "asking"


async def test_infraxa_chooses_nobody_dearer_than_set(tmp_path: Path) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hi"))
    birch.price(PRICE_IN, PRICE_OUT // 2)
    birch.rates = market.Rates(PRICE_IN, PRICE_OUT // 2, 0)
    async with buying_at(tmp_path, maple, birch) as place:
        await place.trust(maple)
        answer = await place.chat(max_price=PRICE_OUT // 2)
        assert answer.text == "Hi" and maple.orders == []
        await place.idle()
        # What it says when it is asked counts, not what was told of it.
        birch.rates = market.Rates(PRICE_IN, PRICE_OUT // 2 + 1, 0)
        answer = await place.chat(max_price=PRICE_OUT // 2)
        assert answer.end.error is not None and answer.end.error.code == "too_dear"
        assert answer.end.error.message.endswith("where you allow 10.00.")
        assert "max_price" in answer.end.error.remedy and "again" not in answer.end.error.remedy
        await place.idle()
