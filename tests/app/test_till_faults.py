"""A provider that dies between any two of its writes, or cannot write: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine.types import ErrorInfo
from infraxa.net import wire
from infraxa.net.identity import Signer
from infraxa.net.link import FAILED, StreamFailed
from infraxa.net.purchase import OrderFailed
from infraxa.store import trade
from infraxa.store.db import Store
from infraxa.store.records import StoreError
from tests.app.selling import Shop
from tests.app.tills import Payer, cost, engine_of, facts_of, payer, say, selling_at, whole
from tests.net.nodes import until

STEPS = ("open_", "claim", "process", "end", "bill", "countersign")
"""The writes of an order, in their order."""
LATER = {"bill", "countersign"}
DIED = ErrorInfo("worker_died", "It died.")


class Dies:
    """The provider's store: at the write `step` the process is gone, just before it or just after."""

    def __init__(self, store: Store, step: str, *, after: bool, nth: int = 1) -> None:
        self.dead = False
        self._nth = nth
        self._step = step
        self._after = after
        self._run: Callable[..., Any] = store.run
        # Its steps one by one: what of several is done together is tested with the store.
        store.run = store.step = self.run  # type: ignore[method-assign]

    async def run(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.dead:
            raise StoreError("closed", "The process is gone.")
        self._nth -= fn.__name__ == self._step
        if fn.__name__ != self._step or self._nth:
            return await self._run(fn, *args, **options)
        if self._after:
            await self._run(fn, *args, **options)
        self.dead = True
        raise StoreError("closed", "The process is gone.")


async def go_on(user: Payer, number: bytes) -> int:
    """What a user does about an order until it is settled; gives what it signed."""
    billed = await user.billed(number)
    if billed.state == "unknown":
        return 0
    assert billed.receipt is not None
    signed = wire.CountersignPlease(number, user.countersigned(billed.receipt))
    first = await user.ask(signed, wire.Accepted)
    assert await user.ask(signed, wire.Accepted) == first
    return facts_of(billed.receipt).charge


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_provider_that_dies_at_a_write(tmp_path: Path, step: str, after: bool) -> None:
    signer, tokens = Signer(os.urandom(32)), 400
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop, signer)
        settled = await user.bought(100)
        await user.pay(settled)
        order = await user.order()
        number = order["id"]
        dies = Dies(shop.store, step, after=after)
        if step in LATER:
            await user.buy(tokens, **order)
            with pytest.raises(StreamFailed):
                await go_on(user, number)
        elif step == "end":
            await user.buy(tokens, **order)  # what it said, it has said
        else:
            assert (await user.user.refused(**order)).code == "internal"
        assert dies.dead
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        charged = await go_on(user, number)
        written = step in LATER or (step == "end" and after)
        assert charged == (cost(tokens) if written else 0)
        assert await go_on(user, number) == charged, "again"
        tab = await user.tab()
        assert (tab.owed, tab.held) == (cost(100) + charged, 0)
        if (step, after) != ("open_", False):
            assert (await user.user.refused(**await user.order(id=number))).code == "bad_request"
        await user.pay(await user.bought(10))
        assert (await user.tab()).owed == cost(100) + charged + cost(10)
        await whole(shop)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["requeue", "claim", "process", "end"])
async def test_a_provider_that_dies_while_an_order_begins_again(
    tmp_path: Path, step: str, after: bool
) -> None:
    """Its engine was lost, so it is claimed and begun for the second time."""
    signer, tokens = Signer(os.urandom(32)), 400
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop, signer)
        order = await user.order()
        nth = 2 if step in ("claim", "process") else 1
        dies = Dies(shop.store, step, after=after, nth=nth)
        answered = asyncio.ensure_future(user.user.bought(**order))
        (generation,) = await engine_of(shop).asked(1)
        generation.read(300, 900)
        generation.finish(DIED)
        if step == "end":
            say((await engine_of(shop).asked(2))[1], tokens)
            await answered
        else:
            with pytest.raises(OrderFailed, match="internal"):
                await answered
        assert dies.dead
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        charged = await go_on(user, order["id"])
        assert charged == (cost(tokens) if step == "end" and after else 0)
        assert await go_on(user, order["id"]) == charged, "again"
        assert (await user.billed(order["id"])).state == "signed", "it had a slot, so there is a receipt"
        tab = await user.tab()
        assert (tab.owed, tab.held) == (charged, 0)
        assert (await user.user.refused(**await user.order(id=order["id"]))).code == "bad_request"
        await user.pay(await user.bought(10))
        assert (await user.tab()).owed == charged + cost(10)
        await whole(shop)


async def test_an_end_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        run = shop.store.run
        full = True

        async def fails(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
            if full and fn.__name__ == "end":
                raise StoreError("disk_full", "The disk is full.")
            return await run(fn, *args, **options)

        shop.store.step = fails  # type: ignore[method-assign]
        number = await user.bought(100)
        assert (await user.tab()).held == 1000
        assert (await user.billed(number)).state == "running"
        full = False
        assert facts_of(await user.receipt(number)).charge == cost(100)
        await user.pay(number)
        assert (await user.tab()).held == 0
        await whole(shop)


@pytest.mark.parametrize("step", ["open_", "claim", "process", "requeue"])
async def test_a_user_who_goes_during_a_write_leaves_no_hold(tmp_path: Path, step: str) -> None:
    """The write is done, and nobody hears of it."""
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        run, writing, go_on_ = shop.store.step, asyncio.Event(), asyncio.Event()

        async def slow(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
            done = await run(fn, *args, **options)
            if fn.__name__ == step:
                writing.set()
                await go_on_.wait()
            return done

        shop.store.step = slow  # type: ignore[method-assign]
        order = await user.order()
        bought = asyncio.ensure_future(user.user.bought(**order))
        if step == "requeue":
            (generation,) = await engine_of(shop).asked(1)
            generation.read(300, 900)
            generation.finish(DIED)
        await writing.wait()
        assert (await user.tab()).held == 1000
        bought.cancel()
        await asyncio.wait([bought])
        await until(lambda: not shop.provider.till._running)
        assert (await user.tab()).held == 0
        billed = await user.billed(order["id"])
        assert billed.state == ("unknown" if step == "open_" else "due")
        if billed.receipt is not None:
            assert facts_of(billed.receipt).charge == 0
        await whole(shop)


async def test_orders_that_run_when_the_provider_closes_are_charged(tmp_path: Path) -> None:
    signer = Signer(os.urandom(32))
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop, signer)
        order = await user.order()
        bought = asyncio.ensure_future(user.user.refused(**order))
        (generation,) = await engine_of(shop).asked(1)
        generation.read(5, 5)
        generation.say("word " * 50, 50)
        await shop.state("answering")
        await shop.provider.close()
        assert (await bought).code in ("leaving", "internal")
        assert not shop.provider.till._running
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.n_out, receipt.outcome, receipt.charge) == (50, "failed", cost(50))


async def test_a_link_that_is_lost_leaves_an_order_that_can_be_settled(tmp_path: Path) -> None:
    signer = Signer(os.urandom(32))
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop, signer)
        order = await user.order()
        bought = asyncio.ensure_future(user.user.bought(**order))
        (generation,) = await engine_of(shop).asked(1)
        generation.read(5, 5)
        generation.say("word " * 50, 50)
        await shop.state("answering")
        await user.user.link.close()
        with pytest.raises((OrderFailed, *FAILED)):
            await bought
        await shop.state("cancelled")
        again = await payer(shop, signer)
        receipt = facts_of(await again.receipt(order["id"]))
        assert (receipt.n_out, receipt.outcome) == (50, "failed")
        await again.pay(order["id"])
        await whole(shop)


async def test_whatever_befalls_them_every_hold_ends(tmp_path: Path) -> None:
    """Orders that are answered, cancelled or ended at any time: no hold stays, and the sums are right."""
    async with selling_at(tmp_path, capacity=2) as (shop, _):
        users = [await payer(shop) for _ in range(4)]
        orders: list[tuple[Payer, bytes]] = []

        async def ask(user: Payer, turn: int) -> None:
            order = await user.order(hold=200)
            orders.append((user, order["id"]))
            try:
                async with asyncio.timeout((0.01, 0.1, 20)[turn % 3]):
                    await user.user.bought(**order)
            except (OrderFailed, TimeoutError):
                pass

        async def generate() -> None:
            at = 0
            while True:
                await asyncio.sleep(0.01)
                for generation in engine_of(shop).generations[at:]:
                    generation.say("word " * 7, 7)
                    generation.finish()
                    at += 1

        generating = asyncio.ensure_future(generate())
        for turn in range(9):
            await asyncio.gather(*(ask(user, turn + number) for number, user in enumerate(users)))
            if turn == 4:
                for served in shop.provider.served():
                    await shop.provider.end(served.number)
        await shop.free()
        generating.cancel()
        await until(lambda: not shop.provider.till._running)
        signed = dict.fromkeys((user.key for user in users), 0)
        for user, number in orders:
            while (billed := await user.billed(number)).state == "queued":
                await _sign_next(user)
            if billed.state == "due":
                await user.pay(number)
            if billed.receipt is not None:
                signed[user.key] += facts_of(billed.receipt).charge
        for user in users:
            tab = await user.tab()
            assert (tab.owed, tab.held) == (signed[user.key], 0)
        assert sum(signed.values()) > 0
        assert await shop.store.run(trade.unsettled, "provider") == []
        await whole(shop)


async def _sign_next(user: Payer) -> None:
    """The receipt that is in the way."""
    shop: Shop = user.shop
    for row in await shop.store.run(trade.unsettled, "provider", user.key):
        if row.bill == "issued":
            await user.pay(row.id)
