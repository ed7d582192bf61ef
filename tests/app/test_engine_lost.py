"""The engine is lost under an order: before anything was sent the order begins again, once; never after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.app import line, turns
from infraxa.engine.types import ErrorInfo
from infraxa.net.orders import Claimed, Done, Piece, Placed
from infraxa.net.prompts import Prompt
from infraxa.net.purchase import Item, OrderFailed
from infraxa.net.sale import Sale
from infraxa.store import trade
from infraxa.store.trade_records import OrderRow
from tests.app.selling import Shop, User, scripted, text_of
from tests.app.tills import cost, engine_of, facts_of, payer, selling_at, whole
from tests.net.nodes import until

DIED = ErrorInfo("worker_died", "It died.")


async def follow(user: User, items: list[Item], **order: Any) -> None:
    """All that comes, as it comes. Raises OrderFailed."""
    async with asyncio.timeout(30), user.buy(**order) as purchase:
        async for item in purchase:
            items.append(item)


async def order_of(shop: Shop, number: bytes, account: bytes) -> OrderRow:
    """As the ledger has it."""
    found = await shop.store.run(trade.get_order, "provider", account, number)
    assert found is not None
    return found


async def waits_again(shop: Shop) -> None:
    """The engine is being restarted, and the order waits for it."""
    engine = engine_of(shop)
    engine.become("restarting", error=DIED)
    engine.generations[-1].finish(DIED)
    await until(lambda: any("begins again" in one.reason for one in shop.provider.served()))


async def test_an_order_begins_again_with_the_prompt_that_is_here(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        engine, user, items = engine_of(shop), await payer(shop), list[Item]()
        order = await user.order()
        answered = asyncio.ensure_future(follow(user.user, items, **order))
        first = (await engine.asked(1))[0]
        first.read(3, 5)
        await until(lambda: len(items) >= 2)
        loaded = engine.status.loaded
        await waits_again(shop)
        served = await shop.state("waiting")
        assert "restarted" in served.reason and served.prompt_read == served.n_prompt == 0
        await until(lambda: items[-1] == Placed(0))
        row = await order_of(shop, order["id"], user.key)
        assert (row.state, row.requeued, row.held) == ("pending", True, 1000)
        assert shop.provider.status.running == 1
        engine.become("ready", loaded=loaded)
        second = (await engine.asked(2))[1]
        assert second.request == first.request
        assert (await order_of(shop, order["id"], user.key)).state == "processing"
        second.read(2, 5)
        second.say("four", 2)
        second.finish()
        await answered
        claims = [item for item in items if isinstance(item, Claimed)]
        assert len(claims) == 2 and text_of(items) == "four" and isinstance(items[-1], Done)
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.outcome, receipt.n_out, receipt.charge) == ("stop", 2, cost(2))
        await user.pay(order["id"])
        assert (await user.tab()).owed == cost(2)
        ended = await shop.state("done")
        assert ended.reason == "" and shop.provider.status.answered == 1
        assert any(f"Request {ended.number} " in text and "restarted" in text for text in shop.log)
        await shop.free()
        await whole(shop)


@pytest.mark.parametrize("ready", [False, True], ids=["restarting", "with less room"])
async def test_lost_while_the_prompt_comes_it_begins_again_in_the_room_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    """Else its answer would end where its user was told that there is room."""
    async with selling_at(tmp_path) as (shop, _):
        engine, user, items = engine_of(shop), await payer(shop), list[Item]()
        loaded = engine.status.loaded
        assert loaded is not None
        smaller = replace(loaded, n_ctx=500)
        honest, came = Sale.claim, asyncio.Event()

        async def claim(self: Sale, *given: Any) -> Prompt:
            prompt = await honest(self, *given)
            engine.become("restarting", error=DIED)
            if ready:
                engine.become("ready", loaded=smaller)
            came.set()
            return prompt

        monkeypatch.setattr(Sale, "claim", claim)
        answered = asyncio.ensure_future(follow(user.user, items, **await user.order()))
        await came.wait()
        if not ready:
            await until(lambda: any("begins again" in one.reason for one in shop.provider.served()))
            assert not engine.generations
            engine.become("ready", loaded=smaller)
        (generation,) = await engine.asked(1)
        assert [item.context for item in items if isinstance(item, Claimed)] == [1000, 500]
        generation.say("four", 2)
        generation.finish()
        await answered
        assert text_of(items) == "four"
        await whole(shop)


async def test_its_place_is_the_one_that_it_had(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, _):
        engine, early, late = engine_of(shop), await payer(shop), await payer(shop)
        first = asyncio.ensure_future(early.user.bought("early", **await early.order()))
        await engine.asked(1)
        items: list[Item] = []
        second = asyncio.ensure_future(follow(late.user, items, text="late", **await late.order()))
        await until(lambda: items)
        loaded = engine.status.loaded
        await waits_again(shop)
        engine.become("ready", loaded=loaded)
        for number, text in ((1, "early"), (2, "late")):
            generation = (await engine.asked(number + 1))[-1]
            assert len(engine.generations) == number + 1, "one at a time"
            assert generation.request.messages[0].content == text
            generation.say(text)
            generation.finish()
        assert text_of(await first) == "early"
        await second
        assert text_of(items) == "late" and len([i for i in items if isinstance(i, Claimed)]) == 1


async def test_a_second_time_it_fails_and_costs_nothing(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        order = await user.order()
        failing = asyncio.ensure_future(user.user.refused(**order))
        for times in (1, 2):
            generation = (await engine_of(shop).asked(times))[-1]
            generation.read(300, 900)
            generation.finish(DIED)
        failed = await failing
        assert (failed.code, failed.sent, failed.shown) == ("internal", True, False)
        served = await shop.state("failed")
        assert "engine failed twice" in served.reason
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.charge, receipt.outcome) == (0, "failed")
        await user.pay(order["id"])
        await shop.free()
        await whole(shop)


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
async def test_what_was_sent_is_charged_and_nothing_is_asked_again(tmp_path: Path, again: bool) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user, engine = await payer(shop), engine_of(shop)
        order = await user.order()
        failing = asyncio.ensure_future(user.user.refused(**order))
        generation = (await engine.asked(1))[-1]
        if again:
            generation.finish(DIED)
            generation = (await engine.asked(2))[-1]
        asked = len(engine.generations)
        generation.read(5, 5)
        generation.say("some", 3)
        await shop.state("answering")
        generation.finish(DIED)
        failed = await failing
        assert (failed.code, failed.shown) == ("internal", True)
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.outcome, receipt.n_out, receipt.charge) == ("failed", 3, cost(3))
        assert len(engine.generations) == asked
        await shop.free()


async def test_an_engine_that_is_silent_is_lost_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "STUCK_S", 0.3)
    async with selling_at(tmp_path) as (shop, _):
        user, engine, items = await payer(shop), engine_of(shop), list[Item]()
        order = await user.order()
        answered = asyncio.ensure_future(follow(user.user, items, **order))
        first = (await engine.asked(1))[0]
        for read in range(1, 5):
            first.read(read, 5)
            await asyncio.sleep(0.15)  # it gets on, slowly
        assert not first.cancelled
        second = (await engine.asked(2))[1]
        assert first.cancelled and "silent" in (await shop.state("reading")).reason
        second.say("four", 2)
        await until(lambda: text_of(items) == "four")
        await until(lambda: second.cancelled)
        with pytest.raises(OrderFailed, match="internal"):
            await answered
        assert "engine failed" in (await shop.state("failed")).reason
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.outcome, receipt.n_out, receipt.charge) == ("failed", 2, cost(2))
        assert len(engine.generations) == 2
        await shop.free()


async def test_who_does_not_read_is_no_reason_to_give_the_engine_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "STUCK_S", 0.2)
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open()
        user, engine = await shop.user(), engine_of(shop)
        reading, taken = asyncio.Event(), list[Item]()

        async def slowly() -> None:
            async with user.buy() as purchase:
                async for item in purchase:
                    taken.append(item)
                    if isinstance(item, Piece):
                        await reading.wait()

        following = asyncio.ensure_future(slowly())
        (generation,) = await engine.asked(1)
        for _ in range(200):  # far more than is on its way at a time
            generation.say("x" * 2000, 100)
        generation.finish()
        await shop.state("answering")
        await asyncio.sleep(0.8)
        assert not generation.cancelled
        reading.set()
        async with asyncio.timeout(20):
            await following
        assert len(text_of(taken)) == 400_000


@pytest.mark.parametrize("how", ["cancels", "vanishes", "is ended", "is blocked", "provider closes"])
async def test_no_slot_and_no_hold_is_lost_while_it_waits_again(tmp_path: Path, how: str) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, _):
        user, engine, items = await payer(shop), engine_of(shop), list[Item]()
        order = await user.order()
        waiting = asyncio.ensure_future(follow(user.user, items, **order))
        generation = (await engine.asked(1))[0]
        generation.read(300, 900)
        loaded = engine.status.loaded
        await waits_again(shop)
        await until(lambda: items[-1] == Placed(0))
        (number,) = (one.number for one in shop.provider.served() if not one.ended_ms)
        if how == "cancels":
            waiting.cancel()
        elif how == "vanishes":
            await user.user.link.close()
        elif how == "is ended":
            await shop.provider.end(number)
        elif how == "is blocked":
            await shop.provider.block(user.key, True)
        else:
            await shop.provider.close()
        await until(lambda: not shop.provider.till._running)
        await asyncio.wait([waiting], timeout=10)
        assert waiting.done()
        waiting.cancelled() or waiting.exception()
        row = await order_of(shop, order["id"], user.key)
        assert (row.ended, row.charge, row.held, row.bill) == (True, 0, 0, "due"), "it was claimed once"
        if how == "provider closes":
            return
        await shop.free()
        engine.become("ready", loaded=loaded)
        await shop.mode("serving")
        other = await payer(shop)
        bought = asyncio.ensure_future(other.user.bought(**await other.order()))
        generation = (await engine.asked(2))[1]
        generation.say("next")
        generation.finish()
        assert text_of(await bought) == "next"
        await whole(shop)


async def test_an_engine_that_is_given_up_is_not_waited_for(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user, engine = await payer(shop), engine_of(shop)
        failing = asyncio.ensure_future(user.user.refused(**await user.order()))
        (generation,) = await engine.asked(1)
        engine.become("failed", error=DIED)
        generation.finish(DIED)
        assert (await failing).code == "internal"
        served = next(one for one in shop.provider.served() if one.ended_ms)
        assert (served.state, served.reason) == ("failed", "The engine failed: its process ended.")


@pytest.mark.parametrize("others", [False, True])
async def test_what_is_given_away_begins_again_when_nobody_waits_who_pays(
    tmp_path: Path, others: bool
) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, _):
        guest, paying, engine = await payer(shop), await payer(shop), engine_of(shop)
        free = asyncio.ensure_future(asyncio.wait_for(guest.user.bought(), 30))
        await engine.asked(1)
        if others:
            bought = asyncio.ensure_future(paying.user.bought(**await paying.order()))
            await until(lambda: shop.provider.status.waiting == 1)
        engine.generations[0].finish(DIED)
        generation = (await engine.asked(2))[1]
        generation.say("x", 2)
        generation.finish()
        if others:
            with pytest.raises(OrderFailed, match="internal"):
                await free
            assert text_of(await bought) == "x"
        else:
            assert text_of(await free) == "x"
        await shop.free()
        await whole(shop)


async def test_who_waits_again_for_too_long_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are fewer slots by then, and those that have one keep it."""
    from infraxa.app import admission

    async with selling_at(tmp_path, capacity=2) as (shop, _):
        other, user, engine = await payer(shop), await payer(shop), engine_of(shop)
        answered = asyncio.ensure_future(other.user.bought(**await other.order()))
        await engine.asked(1)
        failing = asyncio.ensure_future(user.user.refused(**await user.order()))
        await engine.asked(2)
        monkeypatch.setattr(admission, "IN_LINE_S", 0.3)
        await shop.use(capacity=1, base_price=0.2)
        await until(lambda: shop.provider.status.capacity == 1)
        engine.generations[1].finish(DIED)
        assert (await failing).code == "expired"
        assert (await shop.state("failed")).reason == "It waited too long."
        assert (shop.provider.status.running, shop.provider.status.waiting) == (1, 0)
        engine.generations[0].finish()
        await answered
        await shop.free()


def test_the_bounds_fit_each_other() -> None:
    """A user that knows that its driver lives waits for longer than that waits for its engine."""
    from infraxa.engine.host import Limits
    from infraxa.net.patience import PatienceLimits

    user, engine = PatienceLimits(), Limits()
    assert engine.silence < turns.STUCK_S <= engine.stuck
    assert turns.STUCK_S * 1.1 + 2 * engine.cancel < user.advance
    assert line.ALIVE_S < user.placed
