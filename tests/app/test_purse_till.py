"""A purse and a real till: both books say the same, however an order ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infraxa.app import purse
from infraxa.app.trade import Bound
from infraxa.app.wanted import Wanted
from infraxa.engine.types import ErrorInfo, Sampling
from infraxa.net import auth, wire
from infraxa.net.customers import Customer
from infraxa.net.identity import Identity, id_text
from infraxa.net.link import Link
from infraxa.net.status import SeenNode
from infraxa.store import ledger, tabs, trade
from infraxa.store.db import Store
from tests.app import purses, tills
from tests.app.purses import Place, told_of
from tests.app.selling import Shop
from tests.app.stalls import SAID, Told, told
from tests.app.tills import cost, engine_of, say, selling_at
from tests.net.nodes import until


class Moving(tills.Time, purses.Time):
    """The clock of both."""

    def __call__(self) -> int:
        return purses.Time.__call__(self)


class Street(Place):
    """A user of one real till."""

    def __init__(self, shop: Shop, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.shop = shop
        shop.identity = Identity(shop.node.secret[:32], bytes(32))

    @property
    def id(self) -> bytes:
        return self.shop.node.id

    def nodes(self) -> list[SeenNode]:
        offer = next(offer for offer in reversed(self.shop.offers) if offer is not None)
        prices = self.shop.loads[-1].prices if self.shop.loads else ()
        return [
            SeenNode(
                self.id, "till", "online", 1.0, (self.shop.node.address,), (), 4, 0, offer.models, prices, 0
            )
        ]

    async def order_link(self, node: bytes) -> Link:
        link = self.links.get(node)
        if link is None or link.closed:
            link = self.links[node] = await self.user.dial(self.shop.node)
            await auth.open_account(link, self.account(node))
        return link

    async def ask(self, tokens: int = 4, **more: Any) -> Told:
        """An answer of so many tokens."""
        count = len(engine_of(self.shop).generations)
        answer = asyncio.ensure_future(told(self.source(**more)))
        say((await engine_of(self.shop).asked(count + 1))[-1], tokens)
        return await answer

    def source(self, **more: Any) -> Any:
        wanted = Wanted(id_text(self.id), **more)
        return self.buyer.generate(SAID, wanted, chat_id="chat", message_id="message")

    async def bound_now(self) -> Bound:
        """Of the next message."""
        (offer,) = self.drivers.offers(self.nodes())
        return await self.purse.bound("chat", offer, SAID, Sampling())

    async def agree(self) -> int:
        """What both books say is owed, when nothing is open."""
        await self.settled()
        await self.idle()
        account = self.account(self.id).id
        mine = await self.store.run(tabs.get_tab, "user", self.id)
        theirs = await self.shop.store.run(tabs.get_tab, "provider", account)
        assert (mine.owed, mine.signed_seq, mine.disputed) == (
            theirs.owed,
            theirs.signed_seq,
            theirs.disputed,
        )
        assert theirs.held == mine.held == 0 and mine.note == ""
        assert await self.shop.store.run(ledger.check) == await self.store.run(ledger.check) == []
        assert not await self.shop.store.run(trade.unsettled, "provider")
        return mine.owed


@contextlib.asynccontextmanager
async def street(folder: Path, purse: Any = None, **settings: Any) -> AsyncIterator[Street]:
    (folder / "shop").mkdir()
    (folder / "user").mkdir()
    now = Moving()
    async with selling_at(folder / "shop", time=now, **settings) as (shop, _):
        store = await Store.open(folder / "user", clock=now)
        place = Street(shop, store, now, **(purse or {}))
        await place.purse.open(store)
        try:
            yield place
        finally:
            await place.buyer.close()
            await place.purse.close()
            await place.drivers.close()
            await place.user.close()
            await store.close()


async def test_both_books_agree_after_answers(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        for tokens in (4, 1, 300):
            assert (await place.ask(tokens)).end.reason == "stop"
        assert await place.agree() == cost(4) + cost(1) + cost(300)
        assert told_of(place)[-1].state == "signed"


async def test_a_paid_order_is_owed_by_its_charge_though_the_quote_has_its_hold(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        answer = asyncio.ensure_future(told(place.source()))
        (generation,) = await engine_of(place.shop).asked(1)
        await place.bound_now()  # a screen looks while it is answered
        await until(lambda: place.purse.locked.get(place.id, place.shop.model_id))
        quoted = place.purse.locked.get(place.id, place.shop.model_id)
        running = await place.bound_now()
        assert quoted is not None and running.owed == quoted.owed > cost(4), "what runs is held"
        say(generation, 4)
        await answer
        assert await place.agree() == cost(4)
        after = await place.bound_now()
        assert place.purse.locked.get(place.id, place.shop.model_id) is quoted, "it holds for a while"
        assert (after.state, after.owed, after.limit) == ("locked", cost(4), quoted.limit)
        assert after.most <= quoted.room, "no more is ordered by it than it leaves room for"


async def test_many_at_once(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        answers = [asyncio.ensure_future(told(place.source())) for _ in range(3)]
        for number in range(3):
            say((await engine_of(place.shop).asked(number + 1))[number], 7)
        assert [answer.end.reason for answer in await asyncio.gather(*answers)] == ["stop"] * 3
        assert await place.agree() == 3 * cost(7)


async def test_what_is_stopped_is_not_disputed(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        source = place.source()
        answer = asyncio.ensure_future(told(source))
        (generation,) = await engine_of(place.shop).asked(1)
        generation.say("one two ", 2)
        await until(lambda: place.shop.provider.served()[0].n_out == 2)
        generation.say("three ", 1)
        source.cancel()
        assert (await answer).end.reason == "cancelled"
        assert 0 < await place.agree() <= cost(3, 16)


@pytest.mark.parametrize("lost", [1, 2])
async def test_an_engine_that_is_lost(tmp_path: Path, lost: int) -> None:
    """Once, it is paid as if it had not been; twice, it costs nothing."""
    died = ErrorInfo("worker_died", "It died.")
    async with street(tmp_path) as place:
        engine = engine_of(place.shop)
        answer = asyncio.ensure_future(told(place.source(failover="off")))
        for times in range(1, lost + 1):
            generation = (await engine.asked(times))[-1]
            generation.read(16, 32)
            generation.finish(died)
        if lost == 1:
            say((await engine.asked(2))[-1], 7)
        found = await answer
        assert found.readers == ["till"], "it has read the prompt once"
        assert found.end.reason == ("stop" if lost == 1 else "failed")
        assert await place.agree() == (cost(7) if lost == 1 else 0)
        assert told_of(place)[-1].state == "signed"
        assert len(engine.generations) == 2


async def test_a_lost_link(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        answer = asyncio.ensure_future(told(place.source(failover="off")))
        (generation,) = await engine_of(place.shop).asked(1)
        generation.say("one two ", 2)
        await until(lambda: place.shop.provider.served()[0].n_out == 2)
        await place.links[place.id].close()
        found = await answer
        assert found.end.reason == "failed"
        await place.agree()


async def test_free_of_charge(tmp_path: Path) -> None:
    async with street(tmp_path, base_price=0) as place:
        assert (await place.ask()).end.reason == "stop"
        assert await place.agree() == 0
        assert (await place.store.run(tabs.get_tab, "user", place.id)).signed_seq == 1


async def test_the_limit_of_a_stranger(tmp_path: Path) -> None:
    async with street(tmp_path, stranger_limit=0.00005) as place:
        found = await told(place.source())
        assert found.end.error is not None and found.end.error.code == "tab_limit"
        assert "0.00005" in found.end.error.message


async def test_a_kill_of_the_user_before_it_counted(tmp_path: Path) -> None:
    async with street(tmp_path) as place:
        answer = asyncio.ensure_future(told(place.source()))
        (generation,) = await engine_of(place.shop).asked(1)
        place.forget()
        say(generation, 6)
        await answer
        await place.again()
        assert await place.agree() == cost(6)


@pytest.mark.parametrize("kill", ["ReceiptPlease", "CountersignPlease"])
async def test_a_link_that_goes_between_the_steps(tmp_path: Path, kill: str) -> None:
    async with street(tmp_path) as place:
        bargain = place.shop.customers.bargainer
        assert bargain is not None
        cuts = 1

        async def cutting(customer: Any, request: Any) -> Any:
            nonlocal cuts
            answer = await bargain(customer, request)
            if type(request).__name__ == kill and cuts:
                cuts -= 1
                await place.links[place.id].close()
            return answer

        place.shop.customers.bargainer = cutting
        await place.ask(3)
        await place.idle()
        await place.again()
        assert await place.agree() == cost(3)


async def test_many_receipts_that_waited_are_signed_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leads to the next: asking for each of them would be answered that another one comes first."""
    async with street(tmp_path) as place:
        paying = place.purse.paying
        with monkeypatch.context() as held_up:
            held_up.setattr(paying, "settle", lambda provider: None)
            for _ in range(40):
                assert (await place.ask()).end.error is None
            await until(lambda: place.purse._unpaid[place.id] == 40)
        asked = Counter[str]()
        bargain = place.shop.customers.bargainer
        assert bargain is not None

        async def counting(customer: Customer, request: wire.Bargain) -> wire.Answer | wire.Failure:
            asked[type(request).__name__] += 1
            return await bargain(customer, request)

        place.shop.customers.bargainer = counting
        paying.settle(place.id)
        await until(lambda: not place.purse._unpaid)
        assert await place.agree() == 40 * cost(4)
        assert asked == {"ReceiptPlease": 1, "CountersignPlease": 40}


async def test_orders_wait_while_too_much_is_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse, "UNPAID", 2)
    async with street(tmp_path) as place:
        paying = place.purse.paying
        with monkeypatch.context() as held_up:
            held_up.setattr(paying, "settle", lambda provider: None)
            for _ in range(2):
                assert (await place.ask()).end.error is None
            await until(lambda: place.purse._unpaid[place.id] == 2)
            third = asyncio.ensure_future(place.ask())
            await asyncio.wait([third], timeout=0.3)
            assert len(engine_of(place.shop).generations) == 2, "it waits"
        paying.settle(place.id)
        assert (await third).end.error is None
        assert await place.agree() == 3 * cost(4)
