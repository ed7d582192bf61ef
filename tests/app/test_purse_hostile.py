"""The user's money with drivers that cheat, or err: only what is so is signed, and nothing is paid twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.net import codec, deals, market, wire
from infraxa.net.deals import Quote, Receipt
from infraxa.net.orders import Done
from infraxa.net.sale import Sale
from infraxa.store import state, tabs, trade
from infraxa.store.db import Store
from tests.app.purses import Shop, buying_at
from tests.app.stalls import SAID, ids, saying
from tests.net.nodes import until

PROMPT = len(SAID[0].content)


def cost(n_out: int, n_prompt: int = PROMPT) -> int:
    return n_prompt * 5 + n_out * 20


def recharged(receipt: Receipt, **changed: Any) -> Receipt:
    """With other counts, and what those cost."""
    receipt = replace(receipt, **changed)
    rates = market.Rates(receipt.price_in, receipt.price_out, receipt.price_cached)
    return replace(
        receipt,
        charge=market.charge_of(
            receipt.outcome,
            receipt.n_prompt,
            receipt.n_prompt,
            receipt.n_cached,
            receipt.n_out,
            rates,
            10**12,
        ),
    )


OVER: dict[str, tuple[Callable[[Receipt], Receipt], int]] = {
    "of the answer": (lambda receipt: recharged(receipt, n_out=50), cost(5)),
    "of the prompt": (lambda receipt: recharged(receipt, n_prompt=PROMPT + 400), cost(5)),
    "of both": (lambda receipt: recharged(receipt, n_prompt=99, n_out=99), cost(5)),
}


@pytest.mark.parametrize("what", OVER)
async def test_an_over_count_is_disputed(tmp_path: Path, what: str) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.billing, accepted = OVER[what]
    async with buying_at(tmp_path, maple) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        (order,) = await place.orders()
        assert (order.bill, order.accepted) == ("closed", accepted) and order.charge is not None
        assert order.charge > accepted
        (said,) = maple.said()
        assert (said.charge, said.n_prompt, said.n_out) == (accepted, PROMPT, 5)
        tab = await place.tab(maple)
        assert (tab.owed, tab.disputed, tab.note) == (accepted, order.charge - accepted, "")
        (bill,) = (await place.bills_now()).values()
        assert (bill.state, bill.charge, bill.disputed) == ("disputed", accepted, order.charge - accepted)


async def test_a_dispute_without_a_count_of_the_prompt_is_bounded_by_its_text(tmp_path: Path) -> None:
    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        await sale.piece("Hi", ids("Hi"))
        await sale.done(Done("stop", 4000, 0, 2, 0, 0, 0))

    maple = Shop("maple", script)
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        (order,) = await place.orders()
        assert order.accepted == cost(2, PROMPT + 16) and order.charge == cost(2, 4000) > order.accepted


OTHER: dict[str, Callable[[Receipt], Receipt]] = {
    "account": lambda receipt: replace(receipt, account=bytes(32)),
    "order": lambda receipt: replace(receipt, order=bytes(16)),
    "model": lambda receipt: replace(receipt, model=bytes(32)),
    "request": lambda receipt: replace(receipt, request=bytes(32)),
    "quote": lambda receipt: replace(receipt, quote=bytes(32)),
    "no quote": lambda receipt: replace(receipt, quote=b""),
    "prices": lambda receipt: recharged(receipt, price_out=receipt.price_out + 1),
    "cached": lambda receipt: recharged(receipt, price_cached=receipt.price_in),
    "more than the hold": lambda receipt: recharged(receipt, n_out=10**6),
    "more than its counts": lambda receipt: replace(receipt, charge=receipt.charge + 1),
    "less than its counts": lambda receipt: replace(receipt, charge=receipt.charge - 1),
    "outcome": lambda receipt: replace(receipt, outcome="cancelled"),
    "whole": lambda receipt: replace(receipt, outcome="length"),
    "more cached than there is": lambda receipt: replace(receipt, n_cached=receipt.n_prompt + 1),
    "owed": lambda receipt: replace(receipt, owed_before=1000),
    "number": lambda receipt: replace(receipt, seq=0),
}


@pytest.mark.parametrize("what", OTHER)
async def test_what_is_not_in_order_is_not_signed(tmp_path: Path, what: str) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.billing = OTHER[what]
    async with buying_at(tmp_path, maple) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.noted(maple)
        (order,) = await place.orders()
        assert maple.said() == [] and order.bill == "counted" and order.held == cost(5)
        tab = await place.tab(maple)
        assert tab.note.startswith("Nothing is signed: ") and (tab.owed, tab.signed_seq) == (0, 0)
        # When it is in order, it is signed, and the note goes.
        maple.billing = lambda receipt: receipt
        maple.sold[order.id].receipt = None
        await place.again()
        await place.settled()
        await place.idle()
        assert (await place.tab(maple)).note == "" and maple.owed == cost(5)


async def test_a_receipt_signed_by_another_is_none(tmp_path: Path) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hello"))
    maple.signer = birch.signer
    async with buying_at(tmp_path, maple) as place:
        # So is a quote: that is met first.
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "garbage" and maple.orders == []


async def test_a_forged_receipt_is_none(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.locked(maple)
        maple.signer = Shop("birch", saying()).signer
        await place.chat(maple)
        await place.noted(maple)
        assert maple.said() == [] and "bad signature" in (await place.tab(maple)).note


async def test_the_receipt_of_another_order_is_not_signed_again(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        first = next(iter(maple.sold.values())).receipt
        maple.answering = lambda request: (
            wire.Billed("due", first) if isinstance(request, wire.ReceiptPlease) else None
        )
        await place.chat(maple)
        await place.noted(maple)
        assert len(maple.said()) == 1 and (await place.tab(maple)).owed == cost(5)


async def test_two_receipts_for_one_order_are_kept_and_the_second_is_not_signed(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        (sold,) = maple.sold.values()
        again = deals.sign(recharged(maple.facts(sold), n_out=4), maple.signer)
        accepted = maple.countersigned

        def more(request: wire.Bargain) -> wire.Accepted | None:
            if isinstance(request, wire.CountersignPlease) and request.order != sold.order.id:
                return replace(accepted(maple.sold[request.order], request.countersign), next=again)
            return None

        maple.answering = more
        await place.chat(maple)
        await place.settled()
        await place.idle()
        tab = await place.tab(maple)
        assert "two receipts" in tab.note and tab.owed == 2 * cost(5)
        name = f"second receipt {maple.id.hex()} {sold.order.id.hex()}"
        assert await place.store.run(state.get_value, name, str) == codec.encode(again).hex()
        first = await place.store.run(trade.get_receipt, "user", maple.id, sold.order.id)
        assert first is not None and sold.receipt is not None
        assert first.receipt == codec.encode(sold.receipt)


QUOTES: dict[str, Callable[[Quote], Quote]] = {
    "of another account": lambda quote: replace(quote, account=bytes(32)),
    "for another model": lambda quote: replace(quote, model=bytes(32)),
    "expired": lambda quote: replace(quote, expires=quote.issued),
    "a cached token dearer than a new one": lambda quote: replace(quote, price_cached=quote.price_in + 1),
    "beyond all prices": lambda quote: replace(quote, price_out=market.MAX_PRICE + 1),
}


@pytest.mark.parametrize("what", QUOTES)
async def test_no_order_by_what_is_no_quote(tmp_path: Path, what: str) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hi"))
    maple.quoting = QUOTES[what]
    async with buying_at(tmp_path, maple, birch) as place:
        answer = await place.chat(maple, failover="auto")
        assert answer.text == "Hi" and maple.orders == []
        assert answer.moves[0].part.reason == "maple sent something that is no answer."
        await place.idle()


async def test_a_higher_price_is_shown_before_it_is_used(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.Rates(5_000_000, 25_000_000, 1_250_000)
    async with buying_at(tmp_path, maple) as place:
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "price_changed"
        assert end.error.message == "maple asks 25.00 credits per million tokens now, instead of 20.00."
        assert maple.orders == []
        assert (await place.chat(maple)).text == "Hello", "now it was seen"
        await place.idle()
        maple.rates = market.Rates(5_000_000, 26_000_000, 1_250_000)
        bound = await place.locked(maple)
        assert (bound.state, bound.price_out, bound.raised_from) == ("locked", 26_000_000, 20_000_000)
        assert (await place.chat(maple)).text == "Hello", "it was on the screen"
        await place.idle()
        assert (await place.tab(maple)).owed == maple.owed == 10 * PROMPT + 5 * 25 + 5 * 26


async def test_what_is_less_than_a_step_above_what_all_are_told_is_that(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.Rates(5_500_000, 22_000_000, 1_250_000)
    async with buying_at(tmp_path, maple) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        maple.rates = market.Rates(5_500_000, 22_000_001, 1_250_000)
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "price_changed"


async def test_a_lower_price_is_used(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.rates = market.Rates(1_000_000, 2_000_000, 500_000)
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        assert maple.owed == PROMPT + 5 * 2


async def test_a_dearer_driver_is_left_for_another(tmp_path: Path) -> None:
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hi"))
    maple.rates = market.Rates(6_000_000, 20_000_000, 1_250_000)
    async with buying_at(tmp_path, maple, birch) as place:
        answer = await place.chat(maple, failover="auto")
        reason = answer.moves[0].part.reason
        assert answer.text == "Hi" and "maple asks 6.00 credits" in reason and "instead of 5.00" in reason
        await place.idle()


async def test_a_price_that_was_not_told_is_found_out_and_shown(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.price(0, 0)
    async with buying_at(tmp_path, maple) as place:
        end = (await place.chat(maple)).end
        assert end.error is not None and "asks 20.00 credits" in end.error.message
        assert len(maple.orders) == 1 and maple.orders[0].hold == 0
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["released"]


async def test_a_full_tab_is_said_with_its_limit(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.limit = 1000
    async with buying_at(tmp_path, maple) as place:
        end = (await place.chat(maple)).end
        assert end.error is not None and end.error.code == "tab_limit"
        assert end.error.message == "The next answer could exceed what maple lets you owe, 0.001 credits."
        bound = await place.locked(maple)
        assert (bound.state, bound.limit) == ("refused", 1000) and "0.001" in bound.reason


async def test_who_never_answers_about_money_is_left_for_another(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("infraxa.app.locked.ANSWER_S", 0.2)
    maple, birch = Shop("maple", saying("Hello")), Shop("birch", saying("Hi"))
    maple.silent = True
    async with buying_at(tmp_path, maple, birch) as place:
        answer = await place.chat(maple, failover="auto")
        assert answer.text == "Hi" and maple.orders == []
        assert "maple to lock its price" in [item.what for item in answer.waits]
        await place.idle()


def refusing_to(
    kind: type[wire.Bargain], answer: wire.Answer | wire.Failure
) -> Callable[[wire.Bargain], Any]:
    return lambda request: answer if isinstance(request, kind) else None


async def test_who_calls_a_receipt_running_for_ever_blocks_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("infraxa.app.paying.PAUSES", (0.0, 0.01, 0.01))
    maple = Shop("maple", saying("Hello"))
    maple.answering = refusing_to(wire.ReceiptPlease, wire.Billed("running"))
    async with buying_at(tmp_path, maple) as place:
        for _ in range(3):
            assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["counted"] * 3
        assert {bill.state for bill in (await place.bills_now()).values()} == {"unclaimed"}


@pytest.mark.parametrize("state_of", ["due", "signed"])
async def test_a_receipt_that_is_not_there_breaks_nothing(tmp_path: Path, state_of: Any) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = refusing_to(wire.ReceiptPlease, wire.Billed(state_of))
    async with buying_at(tmp_path, maple) as place:
        assert (await place.chat(maple)).text == "Hello"
        await place.idle()
        assert maple.said() == []


async def test_who_says_he_never_heard_of_it_is_owed_nothing(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = refusing_to(wire.ReceiptPlease, wire.Billed("unknown"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["released"]


async def test_prefilled_tokens_are_paid_only_by_who_stopped_it(tmp_path: Path) -> None:
    """A driver that falls silent while it reads calls that a cancellation."""

    async def reading(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        await sale.fail("internal")

    maple = Shop("maple", reading)
    maple.billing = lambda receipt: recharged(receipt, outcome="cancelled")
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        (order,) = await place.orders()
        assert (order.bill, order.charge, order.accepted) == ("closed", cost(0), 0)


async def test_both_adopt_the_highest_state_that_both_signed(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path / "one", maple) as place:
        await place.chat(maple)
        await place.idle()
    # This side has lost its disk; the driver has what it signed.
    await until(lambda: all(link.closed for link in maple.node.links))
    async with buying_at(tmp_path / "two", maple) as place:
        await place.chat(maple)
        await place.idle()
        tab = await place.tab(maple)
        assert (tab.owed, tab.signed_seq, tab.note) == (2 * cost(5), 2, "") and maple.owed == tab.owed


async def test_an_old_backup_pays_nothing_twice(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = refusing_to(wire.ReceiptPlease, wire.Failure("internal"))
    async with buying_at(tmp_path / "one", maple) as place:
        await place.chat(maple)
        await place.idle()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    maple.answering = lambda request: None
    async with buying_at(tmp_path / "one", maple) as place:
        await place.settled()
    await until(lambda: all(link.closed for link in maple.node.links))
    async with await Store.open(tmp_path / "two") as store:
        await store.run(tabs.mark_restored)
    async with buying_at(tmp_path / "two", maple) as place:
        await place.settled()
        tab = await place.tab(maple)
        assert (tab.owed, tab.signed_seq, tab.note) == (cost(5), 1, "") and maple.owed == cost(5)
        await place.chat(maple)
        await place.settled()
        assert (await place.tab(maple)).owed == maple.owed == 2 * cost(5)


async def test_a_balance_without_a_signature_is_not_adopted(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.owed, maple.seq = 500, 3
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.noted(maple)
        tab = await place.tab(maple)
        assert "another balance" in tab.note and tab.owed == 0 and maple.said() == []


async def test_a_receipt_of_an_order_that_was_lost_is_signed_for_nothing(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    maple.answering = refusing_to(wire.ReceiptPlease, wire.Failure("internal"))
    async with buying_at(tmp_path / "one", maple) as place:
        await place.chat(maple)
        await place.idle()
    await until(lambda: all(link.closed for link in maple.node.links))
    maple.answering = lambda request: None
    async with buying_at(tmp_path / "two", maple) as place:
        await place.chat(maple)
        await until(lambda: len(maple.said()) == 2)
        await place.idle()
        assert sorted(said.charge for said in maple.said()) == [0, cost(5)]
        assert (await place.tab(maple)).owed == cost(5)


async def test_a_rating_that_nobody_could_use_is_not_kept(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    accepted = maple.countersigned

    def other(request: wire.Bargain) -> wire.Accepted | None:
        if isinstance(request, wire.CountersignPlease):
            return replace(accepted(maple.sold[request.order], request.countersign), ratable=maple.quoted[0])
        return None

    maple.answering = other
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.settled()
        (order,) = await place.orders()
        kept = await place.store.run(trade.get_receipt, "user", maple.id, order.id)
        assert kept is not None and kept.rating is None


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in order is not asked for again and again for long."""
    monkeypatch.setattr("infraxa.app.paying.PAUSES", (0.0, 0.01, 0.02, 0.05, 0.1))


async def test_an_order_that_a_driver_refuses_to_settle_keeps_nothing_from_the_others(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello"))
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.settled()
        await place.idle()
        forgotten = next(iter(maple.sold))

        def lost(request: wire.Bargain) -> wire.Failure | None:
            if getattr(request, "order", b"") in refused:
                return wire.Failure("bad_request", field="receipt")
            return None

        refused: set[bytes] = {forgotten}
        maple.answering = lost
        await place.store.run(
            lambda conn: conn.execute("UPDATE orders SET bill = 'signed' WHERE id = ?", (forgotten,))
        )
        await place.chat(maple)
        await until(lambda: len(maple.said()) == 2)
        await place.idle()
        assert [order.bill for order in await place.orders()] == ["signed", "closed"]
