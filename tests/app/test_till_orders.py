"""Orders that are paid: quote, order, receipt, countersign, each once, whoever asks and however often."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.intake import FORGET_EVERY_MS, FORGOTTEN_MS, FREE_FORGOTTEN_MS
from infraxa.net import codec, deals, prompts, ratings, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.link import StreamFailed
from infraxa.net.orders import Claimed, Done
from infraxa.net.purchase import OrderFailed
from infraxa.store import tabs, trade
from tests.app.selling import QUESTION
from tests.app.tills import RATES, Payer, cost, engine_of, facts_of, payer, say, selling_at, whole
from tests.net.nodes import until


async def test_an_order_is_quoted_served_charged_and_countersigned(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop)
        quoted = await user.quoted()
        quote = deals.opened_quote(quoted.quote, shop.identity.id)
        assert (quote.account, quote.model) == (user.key, shop.model_id)
        assert (quote.price_in, quote.price_out, quote.price_cached) == tuple(
            getattr(RATES, name) for name in RATES.__struct_fields__
        )
        assert (quote.max_out, quote.issued, quote.expires) == (1000, time.ms, time.ms + 30_000)
        assert (quoted.owed, quoted.limit, quoted.free_left) == (0, 5000, 3)
        number = os.urandom(16)
        items = await user.buy(400, id=number, quote=quote.id, hold=1000, max_tokens=500)
        assert isinstance(items[-1], Done) and items[-1].n_out == 400
        request = engine_of(shop).generations[-1].request
        assert request.budget is not None and request.budget.tokens(5) == 4998
        billed = await user.billed(number)
        assert billed.state == "due" and billed.receipt is not None
        receipt = deals.opened_receipt(billed.receipt, shop.identity.id)
        assert receipt.quote == deals.quote_hash(quoted.quote)
        assert (receipt.n_prompt, receipt.n_cached, receipt.n_out) == (5, 0, 400)
        assert receipt.charge == cost(400) == 81
        assert (receipt.order, receipt.account, receipt.outcome) == (number, user.key, "stop")
        assert (receipt.seq, receipt.owed_before) == (1, 0)
        assert (await user.quoted()).owed == 81, "what is not signed counts"
        accepted = await user.pay(number)
        assert (accepted.seq, accepted.owed, accepted.next) == (1, 81, None)
        assert accepted.ratable is not None
        rating = ratings.filled(user.user.signer, accepted.ratable, 5)
        found = ratings.check(rating, ratings.day_of(time.ms))
        assert (found.provider, found.account, found.stars) == (shop.identity.id, user.key, 5)
        assert 64 <= found.amount <= 81
        assert (await user.billed(number)).state == "signed"
        tab = await user.tab()
        assert (tab.owed, tab.held, tab.signed_seq) == (81, 0, 1)
        await whole(shop)


async def test_the_receipt_names_the_order_as_it_was_sent(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        fields = await user.order(max_tokens=9, seed=3)
        await user.buy(**fields)
        prompt_bytes = len(prompts.encode_prompt(prompts.Prompt((prompts.Turn("user", QUESTION),))))
        order = wire.Order(model=shop.model_id, prompt_bytes=prompt_bytes, temperature=0, **fields)
        receipt = facts_of(await user.receipt(order.id))
        assert receipt.request == deals.request_hash(codec.encode(order))


async def test_what_is_asked_again_is_answered_likewise_and_moves_nothing(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        number = await user.bought()
        first, again = await user.receipt(number), await user.receipt(number)
        assert first == again
        message = wire.CountersignPlease(number, user.countersigned(first))
        answers = await asyncio.gather(*(user.ask(message, wire.Accepted) for _ in range(4)))
        assert all(answer == answers[0] for answer in answers)
        other = wire.CountersignPlease(number, user.countersigned(first, less=1))
        assert await user.ask(other, wire.Accepted) == answers[0], "the first one counts"
        billed = await user.billed(number)
        assert (billed.state, billed.receipt) == ("signed", first)
        tab = await user.tab()
        assert (tab.owed, tab.signed_seq, tab.disputed) == (cost(4), 1, 0)
        await whole(shop)


async def test_a_quote_is_for_one_order_of_its_account_while_it_holds(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        user, thief = await payer(shop), await payer(shop)
        order = await user.order()
        assert (await thief.user.refused(**order)).code == "price_changed"
        assert (
            await user.user.refused(**order | {"model": bytes(32), "id": os.urandom(16)})
        ).code == "model_gone"
        await user.buy(**order)
        replayed = await user.user.refused(**order | {"id": os.urandom(16)})
        assert (replayed.code, replayed.sent) == ("price_changed", False)
        old = await user.order()
        await user.ask(wire.QuotePlease(shop.model_id, old["quote"]), wire.Quoted)
        assert (await user.user.refused(**old)).code == "price_changed", "a newer one replaced it"
        oldest, *_, new = [await user.order() for _ in range(deals.OPEN_QUOTES + 1)]
        assert (await user.user.refused(**oldest)).code == "price_changed", "so many are not kept"
        time.ms += deals.QUOTE_MS
        assert (await user.user.refused(**new)).code == "price_changed"
        assert len(engine_of(shop).generations) == 1
        assert (await user.user.refused(**await user.order(hold=0))).code == "bad_request"


async def test_no_number_is_served_twice_even_after_a_restart(tmp_path: Path) -> None:
    signer = Signer(os.urandom(32))
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop, signer)
        number = await user.bought()
        order = await user.order(id=number)
        assert (await user.user.refused(**order)).code == "bad_request"
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        assert (await user.user.refused(**await user.order(id=number))).code == "bad_request"
        assert not engine_of(shop).generations
        await user.pay(number)
        assert (await user.tab()).owed == cost(4)


async def test_nobody_else_learns_of_an_order_nor_signs_for_it(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user, thief = await payer(shop), await payer(shop)
        number = await user.bought()
        assert await thief.billed(number) == wire.Billed("unknown")
        receipt = await user.receipt(number)
        stolen = wire.CountersignPlease(number, thief.countersigned(receipt))
        assert (await thief.refused(stolen)).code == "bad_request"
        assert (
            await user.refused(wire.CountersignPlease(os.urandom(16), stolen.countersign))
        ).field == "order"
        assert (await user.tab()).signed_seq == 0
        with pytest.raises(ProtocolError):
            await shop.provider.till.bargain(
                _customer(user), wire.CountersignPlease(number, stolen.countersign)
            )
        await user.pay(number)


def _customer(user: Payer) -> Any:
    from infraxa.net.customers import Customer

    return Customer(user.key, "local", False)


async def test_a_countersign_is_for_this_receipt_and_no_more_than_its_charge(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        first = await user.bought()
        receipt = await user.receipt(first)
        more = await user.refused(wire.CountersignPlease(first, user.countersigned(receipt, less=-1)))
        assert (more.code, more.field, more.limit) == ("bad_request", "charge", cost(4))
        await user.pay(first)
        second = await user.bought()
        await user.receipt(second)
        old = await user.refused(wire.CountersignPlease(second, user.countersigned(receipt)))
        assert (old.code, old.field) == ("bad_request", "receipt")
        assert (await user.tab()).owed == cost(4)


async def test_one_receipt_at_a_time_and_the_next_with_the_countersign(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        numbers = [await user.bought(tokens) for tokens in (10, 20, 30)]
        first = await user.receipt(numbers[0])
        assert (await user.billed(numbers[2])).state == "queued"
        accepted = await user.pay(numbers[0])
        assert accepted.next is not None
        second = facts_of(accepted.next)
        assert (second.order, second.seq, second.owed_before) == (numbers[1], 2, facts_of(first).charge)
        accepted = await user.pay(numbers[1])
        assert accepted.next is not None and facts_of(accepted.next).order == numbers[2]
        accepted = await user.pay(numbers[2])
        assert accepted.next is None and accepted.owed == cost(10) + cost(20) + cost(30)
        await whole(shop)


async def test_a_disputed_charge_moves_what_was_accepted_and_takes_the_rest_off_the_limit(
    tmp_path: Path,
) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        number = await user.bought(1000)
        accepted = await user.pay(number, less=50)
        assert accepted.owed == cost(1000) - 50
        tab = await user.tab()
        assert (tab.owed, tab.disputed, tab.held) == (cost(1000) - 50, 50, 0)
        assert (await user.quoted()).limit == 5000 - 50
        state = await user.ask(wire.TabPlease(), wire.TabState)
        assert (state.seq, state.owed, state.limit) == (1, cost(1000) - 50, 4950)
        assert state.receipt is not None and state.countersign is not None
        signed = deals.opened_countersign(state.countersign, user.key)
        assert signed.receipt == deals.receipt_hash(state.receipt) and signed.charge == cost(1000) - 50
        await whole(shop)


@pytest.mark.parametrize("tokens", [0, 7])
async def test_a_user_who_cancels_pays_for_what_was_done(tmp_path: Path, tokens: int) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        order = await user.order()
        bought = asyncio.ensure_future(user.user.bought(**order))
        (generation,) = await engine_of(shop).asked(1)
        generation.read(300, 900)
        await until(lambda: any(one.prompt_read == 300 for one in shop.provider.served()))
        if tokens:
            generation.say("word", tokens)
            await shop.state("answering")
        billed = await user.billed(order["id"])
        assert billed.state == "running"
        bought.cancel()
        await asyncio.wait([bought])
        await shop.state("cancelled")
        receipt = facts_of(await user.receipt(order["id"]))
        assert receipt.outcome == "cancelled" and receipt.n_out == tokens
        assert receipt.charge == (cost(7, 900) if tokens else cost(0, 300))
        await user.pay(order["id"])
        await whole(shop)


async def test_what_never_left_is_not_charged_when_the_user_cancels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infraxa.net import ticks

    monkeypatch.setattr(ticks, "TICK_S", 30.0)
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        order = await user.order()
        bought = asyncio.ensure_future(user.user.bought(**order))
        (generation,) = await engine_of(shop).asked(1)
        generation.read(5, 5)
        generation.say("word", 1)  # it goes at once
        for _ in range(4):
            generation.say("word " * 10, 10)
        await until(lambda: shop.provider.status.tokens == 41)
        bought.cancel()
        await asyncio.wait([bought])
        assert (await shop.state("cancelled")).n_out == 1
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.n_out, receipt.outcome, receipt.charge) == (1, "cancelled", cost(1))
        await user.pay(order["id"])
        await whole(shop)


async def test_a_driver_that_fails_before_the_first_token_charges_nothing(tmp_path: Path) -> None:
    from infraxa.engine.types import ErrorInfo

    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        order = await user.order()
        refused = asyncio.ensure_future(user.user.refused(**order))
        for times in (1, 2):
            generation = (await engine_of(shop).asked(times))[-1]
            generation.read(300, 900)
            generation.finish(ErrorInfo("worker_died", "It died."))
        assert (await refused).code == "internal"
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.charge, receipt.outcome) == (0, "failed")
        await user.pay(order["id"])


async def test_an_order_that_never_had_a_place_is_not_owed(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, _):
        first, user = await payer(shop), await payer(shop)
        running = asyncio.ensure_future(first.user.bought(**await first.order()))
        await engine_of(shop).asked(1)
        order = await user.order()
        waiting = asyncio.ensure_future(user.user.bought(**order))
        await until(lambda: shop.provider.status.waiting == 1)
        tab = await user.tab()
        assert tab.held == 1000
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await user.billed(order["id"]) == wire.Billed("unknown")
        assert (await user.tab()).held == 0
        say(engine_of(shop).generations[0])
        await running


async def test_the_answer_ends_before_it_costs_more_than_was_reserved(tmp_path: Path) -> None:
    """The engine is told; what it does of it is tested there."""
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        await user.buy(1, **await user.order(hold=2))
        budget = engine_of(shop).generations[-1].request.budget
        assert budget is not None
        assert budget.tokens(5) == 8 and cost(8) <= 2 < cost(9)
        assert budget.tokens(41) == -1


async def test_what_costs_nothing_has_receipts_too(tmp_path: Path) -> None:
    async with selling_at(tmp_path, base_price=0.0) as (shop, _):
        user = await payer(shop)
        number = os.urandom(16)
        items = await user.buy(4, id=number)
        assert Claimed(1000, 1000) in items
        accepted = await user.pay(number)
        assert (accepted.owed, accepted.seq) == (0, 1) and accepted.ratable is not None
        assert (await user.quote()).price_out == 0


async def test_who_is_blocked_gets_no_quote_and_can_still_sign(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        number = await user.bought()
        await shop.provider.block(user.key, True)
        assert (await user.refused(wire.QuotePlease(shop.model_id))).code == "not_allowed"
        assert (await user.pay(number)).owed == cost(4)


async def test_no_quote_while_nobody_is_served_or_for_another_model(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        model = shop.model_id
        assert (await user.refused(wire.QuotePlease(bytes(32)))).code == "model_gone"
        await shop.use(provide=False)
        await shop.mode("off")
        assert (await user.refused(wire.QuotePlease(model))).code == "leaving"
        with pytest.raises(OrderFailed):
            await user.user.bought()
        with pytest.raises(StreamFailed):
            await user.quoted()


async def test_an_order_that_was_never_claimed_is_forgotten_in_time(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, time):
        user, stranger = await payer(shop), await payer(shop)
        running = asyncio.ensure_future(user.user.bought(**await user.order()))
        await engine_of(shop).asked(1)
        order = await stranger.order(id=os.urandom(16))
        waiting = asyncio.ensure_future(stranger.user.bought(**order))
        await until(lambda: (stranger.key, order["id"]) in shop.provider.till._running)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: (stranger.key, order["id"]) not in shop.provider.till._running)

        async def kept() -> bool:
            await shop.provider.till.tick()
            found = await shop.store.run(trade.get_order, "provider", stranger.key, order["id"])
            assert (await stranger.billed(order["id"])).state == "unknown"
            return found is not None

        assert await kept()
        time.ms += FORGOTTEN_MS - FORGET_EVERY_MS
        assert await kept()
        time.ms += 2 * FORGET_EVERY_MS
        assert not await kept()
        assert [tab.peer for tab in await shop.store.run(tabs.list_tabs)] == [user.key]
        say(engine_of(shop).generations[0])
        await running
        await whole(shop)


async def test_an_order_that_was_cancelled_before_it_was_read_is_forgotten_in_time(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        user, stranger = await payer(shop), await payer(shop)
        number = await user.bought()
        order = await stranger.order(id=os.urandom(16), hold=1)
        bought = asyncio.ensure_future(stranger.user.bought(**order))
        await engine_of(shop).asked(2)
        bought.cancel()
        await asyncio.wait([bought])
        await shop.state("cancelled")
        await until(lambda: not shop.provider.till._running)

        async def kept() -> bool:
            await shop.provider.till.tick()
            found = await shop.store.run(trade.get_order, "provider", stranger.key, order["id"])
            assert found is None or (found.bill, found.charge) == ("due", 0)
            return found is not None

        assert await kept()
        time.ms += FREE_FORGOTTEN_MS - FORGET_EVERY_MS
        assert await kept()
        time.ms += 2 * FORGET_EVERY_MS
        assert not await kept()
        assert (await stranger.billed(order["id"])).state == "unknown"
        assert [tab.peer for tab in await shop.store.run(tabs.list_tabs)] == [user.key]
        await user.pay(number)
        await whole(shop)
