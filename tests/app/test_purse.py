"""The user's money with honest drivers: what is reserved, paid and told, and what a restart takes up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infraxa.app import buying as buying_answers
from infraxa.engine.types import Sampling
from infraxa.net import market, wire
from infraxa.net.sale import Sale
from infraxa.store import buying, trade
from tests.app.purses import PRICE_OUT, Shop, bills, buying_at
from tests.app.stalls import SAID, Script, ids, saying, told
from tests.net.nodes import until

PROMPT = len(SAID[0].content)
MOST = PROMPT + 16


def cost(n_out: int, n_prompt: int = PROMPT) -> int:
    return n_prompt * 5 + n_out * 20


def stopping(*pieces: str) -> Script:
    """Says so much, then nothing until it is over."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        for piece in pieces:
            await sale.piece(piece, ids(piece))
        await asyncio.sleep(60)

    return script


def breaking(*pieces: str) -> Script:
    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        for piece in pieces:
            await sale.piece(piece, ids(piece))
        await sale.fail("internal")

    return script


async def test_an_answer_is_paid_for(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        answer = await place.chat(maple)
        assert (answer.text, answer.end.reason) == ("Hello", "stop")
        await place.idle()
        (order,) = await place.orders()
        assert (order.state, order.bill, order.outcome) == ("completed", "closed", "stop")
        assert order.charge == order.accepted == cost(5) and order.held == 0
        assert order.hold == market.hold(MOST, 1000, maple.rates) == maple.orders[0].hold
        tab = await place.tab(maple)
        assert (tab.owed, tab.signed_seq, tab.held, tab.note) == (cost(5), 1, 0, "")
        (said,) = maple.said()
        assert (said.charge, said.n_out, said.n_prompt, said.counted) == (cost(5), 5, PROMPT, False)
        sent = [bill for _, _, bill in place.bills]
        assert [bill.state for bill in sent if bill.state != "due"] == ["open", "signed"]
        assert sent[-1].charge == cost(5) and sent[-1].price_out == PRICE_OUT and sent[-1].n_out == 5
        assert {(chat, message) for chat, message, _ in place.bills} == {("chat", "message")}
        assert [bill.order for bill in bills(answer)] == [order.id.hex()]
        receipt = await place.store.run(trade.get_receipt, "user", maple.id, order.id)
        assert receipt is not None and receipt.rating is not None and place.changes


async def test_what_is_free_has_a_receipt_too(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.FREE
    maple.price(0, 0)
    async with buying_at(tmp_path, maple, cap_request=0.0, cap_day=0.0) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        (order,) = await place.orders()
        assert (order.bill, order.hold, order.quote, order.accepted) == ("closed", 0, b"", 0)
        assert not [one for one in maple.asked if isinstance(one, wire.QuotePlease)]
        assert [said.charge for said in maple.said()] == [0]


async def test_without_money_what_is_given_away_is_asked_for(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.free_daily = 3
    async with buying_at(tmp_path, maple, cap_request=0.0) as place:
        answer = await place.chat(maple)
        assert answer.end.error is not None and answer.end.error.code == "cap_request", "it gives none now"
        assert maple.orders[0].quote == b"" and maple.orders[0].hold == 0
        maple.rates = market.FREE
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()


@pytest.mark.parametrize(
    ("cap", "figures"),
    [("cap_request", "may cost 0.0001"), ("cap_chat", "Of the 0.0001 credits"), ("cap_day", "Of the 0.0001")],
)
async def test_nothing_is_asked_for_that_a_cap_does_not_allow(tmp_path: Path, cap: str, figures: str) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hello"))
    settings: dict[str, Any] = {cap: 0.0001}
    async with buying_at(tmp_path, maple, birch, **settings) as place:
        answer = await place.chat(maple, failover="auto")
        assert answer.end.error is not None and answer.end.error.code == cap
        assert figures in answer.end.error.message and cap in answer.end.error.remedy
        assert maple.orders == birch.orders == [] and not await place.store.run(trade.unsettled, "user")


async def test_less_is_reserved_where_a_cap_leaves_less(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple, cap_request=0.008) as place:
        assert (await place.chat(maple)).text == "Hello"
        assert maple.orders[0].hold == 8000 < market.hold(MOST, 1000, maple.rates)
        await place.idle()
        assert (await place.tab(maple)).owed == cost(5)
        # Half of the tab's room, unless it needs more to begin.
        for room, hold in ((14_000, 7000), (7000, market.hold(MOST, 256, maple.rates))):
            maple.limit = maple.owed + room
            assert (await place.chat(maple)).text == "Hello"
            assert maple.orders[-1].hold == hold
            await place.idle()


async def test_a_day_and_a_chat_are_used_up(tmp_path: Path) -> None:
    maple = Shop("maple", saying("x" * 1000))
    async with buying_at(tmp_path, maple, cap_day=0.045, cap_chat=0.03) as place:
        assert (await place.chat(maple)).end.reason == "stop"
        await place.idle()
        end = (await place.chat(maple)).end
        assert end.error is None and maple.orders[1].hold == 30_000 - cost(1000)
        await place.idle()
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "cap_chat"
        other = await told(place.buy(maple, chat_id="other", message_id="m"))
        await place.idle()
        assert other.end.error is None and len(maple.orders) == 3
        other = await told(place.buy(maple, chat_id="third", message_id="m"))
        assert other.end.error is not None and other.end.error.code == "cap_day"


async def test_each_driver_is_paid_for_its_own_tokens(tmp_path: Path) -> None:
    maple, birch = Shop("maple", breaking("The ", "bl")), Shop("birch", saying("ue sky"))
    async with buying_at(tmp_path, maple, birch, cap_request=0.01) as place:
        answer = await place.chat(maple, failover="auto")
        assert answer.text == "The blue sky"
        await place.idle()
        assert (await place.tab(maple)).owed == cost(6)
        assert (await place.tab(birch)).owed == cost(6, PROMPT + 6)
        # Of the first no more was known than that it is no more than this.
        assert maple.orders[0].hold == 10_000 and birch.orders[0].hold == 10_000 - cost(6, MOST)
        assert {bill.state for bill in (await place.bills_now()).values()} == {"signed"}


async def test_who_refuses_at_once_is_owed_nothing(tmp_path: Path) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hi"))
    maple.refusing.append(wire.Failure("busy"))
    async with buying_at(tmp_path, maple, birch) as place:
        assert (await place.chat(maple, failover="auto")).text == "Hi"
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["released", "closed"]


async def test_what_is_stopped_is_paid_as_far_as_it_came(tmp_path: Path) -> None:
    maple = Shop("maple", stopping("Hello ", "there"))
    async with buying_at(tmp_path, maple) as place:
        source = place.buy(maple, chat_id="chat", message_id="message")
        text = ""
        async for item in source:
            text += getattr(item, "text", "")
            if text == "Hello there":
                source.cancel()
        await place.settled()
        (order,) = await place.orders()
        assert (order.state, order.bill, order.accepted) == ("cancelled", "closed", cost(11))


async def test_a_lost_link_loses_no_text_and_is_settled_later(tmp_path: Path) -> None:
    maple = Shop("maple", stopping("Hello"))
    async with buying_at(tmp_path, maple) as place:
        source, text = place.buy(maple, failover="off", chat_id="chat", message_id="message"), ""
        async for item in source:
            text += getattr(item, "text", "")
            if text == "Hello":
                await place.links[maple.id].close()
        assert text == "Hello"
        await place.idle()
        (order,) = await place.orders()
        assert (order.state, order.bill, order.accepted) == ("failed", "closed", cost(5))


async def test_two_answers_at_once_of_one_driver(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        answers = await asyncio.gather(*(place.chat(maple) for _ in range(4)))
        assert [answer.text for answer in answers] == ["Hello"] * 4 and len(maple.orders) == 4
        await place.idle()
        assert (await place.tab(maple)).owed == 4 * cost(5) == maple.owed


async def test_answers_that_begin_at_once_do_not_wait_for_each_other_s_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infraxa.app.spending.LEAVES_S", 1000.0)

    async def after_all_were_quoted(sale: Sale) -> None:
        await until(lambda: len(maple.quoted) == 4)
        await saying("Hello")(sale)

    maple = Shop("maple", after_all_were_quoted)
    async with buying_at(tmp_path, maple) as place:
        answers = await asyncio.gather(*(place.chat(maple) for _ in range(4)))
        assert [answer.text for answer in answers] == ["Hello"] * 4 and len(maple.orders) == 4
        await place.idle()
        assert (await place.tab(maple)).owed == 4 * cost(5)


async def test_room_that_another_order_took_is_asked_for_again(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        maple.refusing.append(wire.Failure("tab_limit"))
        assert (await place.chat(maple)).text == "Hello"
        assert len(maple.orders) == 2 and len(maple.quoted) == 2
        await place.idle()
        maple.refusing += [wire.Failure("tab_limit")] * 2
        refused = await place.chat(maple)
        assert refused.end.error is not None and refused.end.error.code == "tab_limit" and not maple.refusing


async def test_an_old_quote_is_renewed_by_itself(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.locked(maple)
        maple.quotes.clear()
        assert (await place.chat(maple)).text == "Hello"
        assert len(maple.orders) == 2 and maple.orders[0].quote != maple.orders[1].quote
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["released", "closed"]


async def test_a_receipt_that_is_due_is_signed_before_it_is_asked_again(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = lambda request: (
        wire.Failure("internal") if isinstance(request, wire.ReceiptPlease) else None
    )
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        maple.answering = lambda request: None
        maple.refusing.append(wire.Failure("receipt_due"))
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["closed", "released", "closed"]


async def test_the_next_run_settles_what_this_one_left(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        maple.answering = lambda request: (
            wire.Failure("internal") if isinstance(request, wire.CountersignPlease) else None
        )
        await place.chat(maple)
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["signed"]
        assert (await place.tab(maple)).owed == cost(5) and maple.owed == 0
        maple.answering = lambda request: None
        await place.again()
        await place.settled()
        assert (await place.tab(maple)).owed == maple.owed == cost(5), "once"


async def test_what_a_crash_left_uncounted_is_paid_within_its_hold(tmp_path: Path) -> None:
    maple = Shop("maple", stopping("Hello"))
    async with buying_at(tmp_path, maple) as place:
        source = place.buy(maple, failover="off", chat_id="chat", message_id="message")
        async for item in source:
            if getattr(item, "text", ""):
                break
        place.forget()  # as if it had been killed here
        source.cancel()
        await until(lambda: all(sold.outcome for sold in maple.sold.values()))
        assert [order.bill for order in await place.orders()] == ["held"]
        await place.again()
        await place.settled()
        (order,) = await place.orders()
        assert (order.accepted, order.outcome, order.counted) == (cost(5), "interrupted", None)


async def test_an_order_that_never_left_holds_nothing_after_a_crash(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        (order,) = await place.orders()
        unsent = type(order)(peer=maple.id, id=bytes(16), model=order.model, hold=500)
        await place.store.run(buying.open_hold, unsent, place.purse.caps())
        await place.again()
        await place.settled()
        assert maple.owed == cost(5)


async def test_a_driver_that_is_gone_may_claim_for_a_week(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = lambda request: (
        wire.Failure("leaving") if isinstance(request, wire.ReceiptPlease) else None
    )
    async with buying_at(tmp_path, maple) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        (order,) = await place.orders()
        assert order.held == cost(5) and order.unclaimed_until is not None
        assert [bill.state for bill in (await place.bills_now()).values()] == ["unclaimed"]
        place.time.moved_ms = 6 * 24 * 3600 * 1000
        await place.again()
        await place.idle()
        assert (await place.orders())[0].bill == "counted"
        place.time.moved_ms += 2 * 24 * 3600 * 1000
        await place.again()
        await place.settled()
        assert [bill.state for bill in (await place.bills_now()).values()] == ["released"]
        # It comes after all: that can be signed for nothing.
        maple.answering = lambda request: None


async def test_a_silent_till_holds_up_no_answer(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.FREE
    maple.price(0, 0)
    maple.silent = True
    async with buying_at(tmp_path, maple) as place:
        async with asyncio.timeout(5):
            for _ in range(3):
                assert (await place.chat(maple)).text == "Hello"


async def test_a_failing_store_sends_nothing(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.store.run(lambda conn: conn.execute("PRAGMA query_only = ON"))
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "read_only" and maple.orders == []
        await place.store.run(lambda conn: conn.execute("PRAGMA query_only = OFF"))


async def test_max_tokens_bound_what_is_reserved(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple, sampling=Sampling(max_tokens=7))
        assert maple.orders[0].hold == market.hold(MOST, 7, maple.rates)
        await place.idle()


async def test_nobody_is_asked_about_money_without_a_purse(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.FREE
    async with buying_at(tmp_path, maple) as place:
        place.without_purse()
        assert (await place.chat(maple)).text == "Hello"
        assert maple.asked == [] and maple.orders[0].quote == b""


async def test_what_a_driver_takes_to_fail_is_no_wait_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buying_answers, "BUSY_S", 2.0)

    async def slow(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        await asyncio.sleep(2.1)
        await sale.fail("internal")

    maple, birch = Shop("maple", slow), Shop("birch", saying("Hi"))
    birch.refusing = [wire.Failure("busy", retry_after_ms=250)]
    async with buying_at(tmp_path, maple, birch) as place:
        answer = await place.chat(maple, failover="auto")
        assert answer.text == "Hi" and len(birch.orders) == 2
        await place.settled()
