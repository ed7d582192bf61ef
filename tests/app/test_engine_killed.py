"""The real worker dies, or stops, under an order of another node: it has its answer all the same, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infraxa.app.models import Models
from infraxa.app.provider import Limits
from infraxa.engine.host import Engine
from infraxa.engine.host import Limits as EngineLimits
from infraxa.engine.types import ChatMessage, EngineStatus, Request, Sampling
from infraxa.net.orders import Claimed, Done, Placed
from infraxa.net.tasks import TaskGroup
from infraxa.store import trade
from infraxa.store.db import Store
from tests.app.selling import Shop, selling, text_of
from tests.app.tills import BASE, facts_of, payer, whole
from tests.net.nodes import until

QUICK = EngineLimits(backoff_first=0.02, silence=2.0)


class Machine:
    """A provider with a real engine."""

    def __init__(self, shop: Shop, engine: Engine, ready: list[int]) -> None:
        self.shop = shop
        self.engine = engine
        self.ready = ready
        """The workers that had the model ready."""

    @property
    def pid(self) -> int:
        return self.ready[-1]


@asynccontextmanager
async def providing(
    folder: Path, on_ready: Callable[[int], None] = lambda number: None
) -> AsyncIterator[Machine]:
    """`on_ready` is told of each worker that has the model ready, before it is given anything to do."""
    tasks, shops, ready = TaskGroup(), list[Shop](), list[int]()

    def changed(status: EngineStatus) -> None:
        if status.loaded is not None and status.loaded.pid not in ready:
            ready.append(status.loaded.pid)
            on_ready(len(ready))
        models.engine_changed()
        for shop in shops:
            shop.provider.engine_changed()

    engine = Engine(on_status=changed, limits=QUICK)
    models = Models(lambda: engine, tasks)
    store = await Store.open(folder)
    models.open(store)
    try:
        async with asyncio.timeout(60), selling(engine, models, store, limits=Limits(look=0.1)) as shop:
            shops.append(shop)
            await shop.open(base_price=BASE / 1_000_000)
            yield Machine(shop, engine, ready)
    finally:
        await tasks.cancel_all()
        await engine.close()
        await store.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda how: how.name)
async def test_a_worker_that_goes_while_it_reads(tmp_path: Path, how: signal.Signals) -> None:
    async with providing(tmp_path) as machine:
        shop, user = machine.shop, await payer(machine.shop)
        plain = text_of(await user.user.bought(**await user.order(), max_tokens=40))
        await user.pay((await shop.store.run(trade.unsettled, "provider"))[0].id)
        owed = (await user.tab()).owed
        pid = machine.pid
        os.kill(pid, signal.SIGSTOP)  # so that it does not get to the end before it is killed
        order = await user.order()
        answer = asyncio.ensure_future(user.user.bought(**order, max_tokens=40))
        await shop.state("reading")
        if how is signal.SIGKILL:
            os.kill(pid, signal.SIGKILL)
        items = await answer
        assert text_of(items) == plain and isinstance(items[-1], Done)
        kinds = [type(item) for item in items if isinstance(item, Claimed | Placed)]
        assert kinds[0] is kinds[-1] is Claimed and set(kinds[1:-1]) == {Placed}
        assert machine.pid != pid and len(machine.ready) == 2
        receipt = facts_of(await user.receipt(order["id"]))
        assert receipt.outcome == "stop" and receipt.n_out == items[-1].n_out
        assert len(await shop.store.run(trade.unsettled, "provider")) == 1
        await user.pay(order["id"])
        assert (await user.tab()).owed == owed + receipt.charge and receipt.charge > 0
        assert any("The engine was restarted, so it begins again." in line for line in shop.log)
        await shop.free()
        await whole(shop)


async def test_a_worker_that_goes_each_time(tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 2:
            os.kill(machine.pid, signal.SIGSTOP)

    async with providing(tmp_path, stop) as machine:
        shop, user = machine.shop, await payer(machine.shop)
        os.kill(machine.pid, signal.SIGSTOP)
        order = await user.order()
        failed = await user.user.refused(**order)
        assert (failed.code, failed.sent, failed.shown) == ("internal", True, False)
        assert "engine failed twice" in (await shop.state("failed")).reason
        receipt = facts_of(await user.receipt(order["id"]))
        assert (receipt.outcome, receipt.charge) == ("failed", 0)
        await user.pay(order["id"])
        await shop.mode("serving")
        assert text_of(await user.user.bought(**await user.order(), max_tokens=10))
        assert len(machine.ready) == 3
        await shop.free()
        await whole(shop)


async def test_all_that_it_was_reading_begin_again(tmp_path: Path) -> None:
    """More of them than there are slots, and a question of the person's own."""
    async with providing(tmp_path) as machine:
        shop = machine.shop
        users = [await payer(shop) for _ in range(4)]
        pid = machine.pid
        os.kill(pid, signal.SIGSTOP)
        own = machine.engine.generate(
            Request((ChatMessage("user", "What is 2+2?"),), Sampling(temperature=0.0, max_tokens=40))
        )
        answers = [
            asyncio.ensure_future(user.user.bought(**await user.order(), max_tokens=40)) for user in users
        ]
        await until(lambda: shop.provider.status.running == shop.provider.status.waiting == 2)
        await until(lambda: [s.state for s in shop.provider.served()].count("reading") == 2)
        os.kill(pid, signal.SIGKILL)
        text, finished = await own.collect()
        assert finished.reason == "stop"
        assert {text_of(items) for items in await asyncio.gather(*answers)} == {text}
        begun = sum("begins again" in line for line in shop.log)
        assert begun == 2 and shop.provider.status.answered == 4
        await shop.free()
        await whole(shop)
