"""A user with a purse, and drivers that sell for credits with real signatures, honest or as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from infraxa.app.answering import Billed
from infraxa.app.buyer import Buyer
from infraxa.app.buying import Buying
from infraxa.app.config import Settings
from infraxa.app.purse import Purse
from infraxa.app.trade import Bound
from infraxa.app.wanted import Wanted
from infraxa.engine.types import Request, Sampling
from infraxa.net import codec, deals, market, ratings, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Signer, id_text
from infraxa.net.link import Link, Stream
from infraxa.net.orders import Logprob
from infraxa.net.patience import PatienceLimits
from infraxa.net.sale import Sale, SaleEnded
from infraxa.net.status import SeenNode
from infraxa.store import ledger, tabs, trade
from infraxa.store.db import Store, now_ms
from infraxa.store.records import Bill
from infraxa.store.trade_records import OrderRow, TabRow
from tests.app.stalls import SAID, Market, Script, Stall, Told, told
from tests.net.nodes import until

PRICE_IN, PRICE_OUT, PRICE_CACHED = 5_000_000, 20_000_000, 1_250_000
"""Dear, so that each token shows: 5 and 20 µcr."""
SETTINGS = Settings(cap_request=0.1, cap_chat=1.0, cap_day=2.0)


class Sold:
    """An order, as the driver has it."""

    def __init__(self, order: wire.Order, quote: Signed | None) -> None:
        self.order = order
        self.quote = quote
        self.n_prompt = 0
        self.n_cached = 0
        self.n_out = 0
        self.outcome: deals.Outcome | None = None
        self.receipt: Signed | None = None
        self.countersign: Signed | None = None


def _number(quote: Signed) -> bytes:
    facts: deals.Quote = codec.decode(quote.body, deals.Quote)
    return facts.id


class Shop(Stall):
    """A driver that sells. What it says can be changed by a test before it is signed."""

    def __init__(self, name: str, script: Script, **more: Any) -> None:
        super().__init__(name, script, **more)
        self.signer = Signer(self.node.secret[:32])
        self.rates = market.Rates(PRICE_IN, PRICE_OUT, PRICE_CACHED)
        self.model = msgspec.structs.replace(self.model, price_in=PRICE_IN, price_out=PRICE_OUT)
        self.account = b""
        self.max_out = 1000
        self.limit = 10**9
        self.owed = 0
        self.seq = 0
        self.quotes: list[Signed] = []
        """That hold."""
        self.quoted: list[Signed] = []
        self.sold: dict[bytes, Sold] = {}
        self.asked: list[wire.Bargain] = []
        self.last: Sold | None = None
        """Of the tab's changes."""
        self.quoting: Callable[[deals.Quote], deals.Quote] = lambda quote: quote
        self.billing: Callable[[deals.Receipt], deals.Receipt] = lambda receipt: receipt
        self.answering: Callable[[wire.Bargain], wire.Answer | wire.Failure | None] = lambda request: None
        """Instead of what is right."""
        self.refusing: list[wire.Failure] = []
        """Orders, one each."""
        self.free_daily = 0
        self.silent = False
        """It answers nothing about money."""

    async def _handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        if isinstance(request, wire.Order):
            await self._order(link, stream, request)
            return
        assert isinstance(request, wire.Bargain)
        self.asked.append(request)
        if self.silent:
            await asyncio.sleep(60)
        answer = self.answering(request) or self._answer(request)
        if isinstance(answer, wire.Failure):
            await stream.fail(answer)
        else:
            await stream.send(codec.encode(answer))

    async def _order(self, link: Link, stream: Stream, order: wire.Order) -> None:
        self.orders.append(order)
        if self.refusing:
            await stream.fail(self.refusing.pop(0))
            return
        quote = next((one for one in self.quotes if _number(one) == order.quote), None)
        if order.quote and quote is None:
            await stream.fail(wire.Failure("price_changed", field="quote"))
            return
        if quote is not None:
            self.quotes.remove(quote)
        elif self.rates != market.FREE:
            await stream.fail(wire.Failure("price_changed", limit=self.rates.price_out))
            return
        link.account = self.account
        sold = self.sold[order.id] = Sold(order, quote if order.quote else None)
        sale = Counting(link, stream, order, sold)
        try:
            await self.script(sale)
        except SaleEnded as ended:
            self.ends.append(ended.reason)
        finally:
            sold.outcome = sold.outcome or ("cancelled" if sale.ended == "cancelled" else "failed")

    def _answer(self, request: wire.Bargain) -> wire.Answer | wire.Failure:
        match request:
            case wire.QuotePlease(model=model, instead=instead):
                now = now_ms()
                self.quotes = [one for one in self.quotes if _number(one) != instead]
                del self.quotes[: max(0, len(self.quotes) + 1 - deals.OPEN_QUOTES)]
                quote = self.quoting(
                    deals.Quote(
                        codec.digest("quote", f"{now} {len(self.asked)}".encode())[:16],
                        self.account,
                        model,
                        *self.rates_now(),
                        self.max_out,
                        now,
                        now + deals.QUOTE_MS,
                    )
                )
                self.quotes.append(deals.sign(quote, self.signer))
                self.quoted.append(self.quotes[-1])
                return wire.Quoted(self.quotes[-1], self.owed, self.limit)
            case wire.ReceiptPlease(order=order):
                sold = self.sold.get(order)
                if sold is None:
                    return wire.Billed("unknown")
                if sold.outcome is None:
                    return wire.Billed("running")
                due = any(one.receipt and not one.countersign for one in self.sold.values() if one != sold)
                if due and sold.receipt is None:
                    return wire.Billed("queued")
                return wire.Billed("signed" if sold.countersign else "due", self.receipt(sold))
            case wire.CountersignPlease(order=order, countersign=signed):
                return self.countersigned(self.sold[order], signed)
            case wire.TabPlease():
                last = self.last or Sold(wire.Order(bytes(16), bytes(32), 1), None)
                return wire.TabState(self.seq, self.owed, self.limit, last.receipt, last.countersign)
        return wire.Failure("unsupported")

    def price(self, price_in: int, price_out: int) -> None:
        """What others are told that it asks for."""
        self.model = msgspec.structs.replace(self.model, price_in=price_in, price_out=price_out)

    def as_seen(self) -> SeenNode:
        return msgspec.structs.replace(super().as_seen(), free_daily=self.free_daily)

    def rates_now(self) -> tuple[int, int, int]:
        return self.rates.price_in, self.rates.price_out, self.rates.price_cached

    def receipt(self, sold: Sold) -> Signed:
        """Made once."""
        if sold.receipt is None:
            sold.receipt = deals.sign(self.billing(self.facts(sold)), self.signer)
        return sold.receipt

    def facts(self, sold: Sold) -> deals.Receipt:
        """The honest receipt."""
        outcome = sold.outcome or "failed"
        rates = self.rates if sold.quote else market.FREE
        return deals.Receipt(
            order=sold.order.id,
            account=self.account,
            model=sold.order.model,
            request=deals.request_hash(codec.encode(sold.order)),
            quote=b"" if sold.quote is None else deals.quote_hash(sold.quote),
            price_in=rates.price_in,
            price_out=rates.price_out,
            price_cached=rates.price_cached,
            n_prompt=sold.n_prompt,
            n_cached=sold.n_cached,
            n_out=sold.n_out,
            charge=market.charge_of(
                outcome, sold.n_prompt, sold.n_prompt, sold.n_cached, sold.n_out, rates, sold.order.hold
            ),
            outcome=outcome,
            started=1,
            ended=2,
            seq=self.seq + 1,
            owed_before=self.owed,
        )

    def countersigned(self, sold: Sold, signed: Signed) -> wire.Accepted:
        said = deals.opened_countersign(signed, self.account)
        assert sold.receipt is not None and said.receipt == deals.receipt_hash(sold.receipt)
        if sold.countersign is None:
            sold.countersign = signed
            self.seq, self.owed, self.last = self.seq + 1, self.owed + said.charge, sold
        waiting = [one for one in self.sold.values() if one.outcome and not one.countersign]
        following = self.receipt(waiting[0]) if waiting else None
        blank = ratings.blank(self.signer, self.account, 1, said.charge, sold.order.id)
        return wire.Accepted(self.seq, self.owed, following, blank)

    def said(self) -> list[deals.Countersign]:
        """What was agreed to."""
        return [
            cast(deals.Countersign, codec.decode(sold.countersign.body, deals.Countersign))
            for sold in self.sold.values()
            if sold.countersign is not None
        ]


class Counting(Sale):
    """Takes down what is delivered."""

    def __init__(self, link: Link, stream: Stream, order: wire.Order, sold: Sold) -> None:
        super().__init__(link, stream, order)
        self._sold = sold

    async def claim(self, context: int, max_out: int, commit: bytes = b"") -> Any:
        prompt = await super().claim(context, max_out, commit)
        self._sold.n_prompt = sum(map(len, (*(turn.text for turn in prompt.turns), *prompt.texts)))
        return prompt

    async def piece(
        self, text: str, ids: tuple[int, ...], logprobs: tuple[Logprob, ...] = (), draw: bytes = b""
    ) -> None:
        await super().piece(text, ids, logprobs, draw)
        self._sold.n_out += len(ids)

    async def done(self, done: Any) -> None:
        self._sold.n_prompt, self._sold.n_cached = done.n_prompt, done.n_cached
        self._sold.outcome = "embedded" if self.order.texts else done.finish
        await super().done(done)


class Time:
    """As it is, until it is moved."""

    moved_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.moved_ms


class Place(Market):
    """A market, and a user with a purse."""

    def __init__(
        self, store: Store, time: Time, *shops: Stall, limits: PatienceLimits | None = None, **settings: Any
    ) -> None:
        super().__init__(*shops, limits=limits)
        self.store = store
        self.time = time
        self.changes = 0
        self.bills: list[tuple[str, str, Bill]] = []
        self.secret = bytes(range(32))
        self.settings = msgspec.structs.replace(SETTINGS, **settings)
        self.renew()
        for shop in shops:
            if isinstance(shop, Shop):
                shop.account = self.account(shop.id).id

    def renew(self) -> None:
        """A purse as after a start."""
        self.purse = Purse(self, self._changed, clock=self.time)
        self.purse.on_bill = lambda *bill: self.bills.append(bill)
        self.purse.use(self.settings)
        self.buyer = Buyer(self, self.drivers, limits=self._limits, purse=self.purse)

    async def again(self) -> None:
        """The program is started anew."""
        await self.purse.close()
        self.renew()
        await self.purse.open(self.store)

    def forget(self) -> None:
        """What this purse is told from now on is lost, as with a program that is killed."""
        self.purse._opened = None

    def without_purse(self) -> None:
        self.buyer = Buyer(self, self.drivers, limits=self._limits)

    async def locked(self, shop: Stall) -> Bound:
        """What the next message of the chat can cost, once rates are locked."""
        for _ in range(500):
            bound = await self.bound(shop)
            if bound.state != "asking":
                return bound
            await asyncio.sleep(0.01)
        raise AssertionError("no rates within 5 s")

    async def bound(self, shop: Stall, **sampling: Any) -> Bound:
        (offer,) = [one for one in self.drivers.offers(self.nodes()) if one.node.id == shop.id]
        return await self.purse.bound("chat", offer, SAID, Sampling(**sampling))

    async def bills_now(self) -> dict[str, Bill]:
        """The last that was told of each order."""
        return {bill.order: bill for _, _, bill in self.bills}

    def _changed(self) -> None:
        self.changes += 1

    def account(self, provider: bytes) -> Signer:
        return Signer(codec.digest("account", self.secret + provider))

    async def chat(self, shop: Stall | None = None, **more: Any) -> Told:
        """An answer in a chat."""
        answer = await told(self.buy(shop, chat_id="chat", message_id="message", **more))
        if answer.end.error is not None:
            logging.getLogger(__name__).warning("it failed: %s", answer.end.error)  # shown if the test fails
        return answer

    def embed(self, shop: Stall, texts: tuple[str, ...], **more: Any) -> Buying:
        """The vectors of these texts, for a program."""
        return self.buyer.call(Request(), Wanted(id_text(shop.id), capped=True, **more), texts)

    async def orders(self) -> list[OrderRow]:
        """As the ledger has them, the oldest first."""
        found = [
            await self.store.run(trade.get_order, "user", shop.id, order.id)
            for shop in self.stalls
            for order in shop.orders
        ]
        return [order for order in found if order is not None]

    async def tab(self, shop: Stall) -> TabRow:
        return await self.store.run(tabs.get_tab, "user", shop.id)

    async def settled(self) -> None:
        """Nothing is open."""
        for _ in range(1000):
            if not await self.store.run(trade.unsettled, "user"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("not settled within 10 s")

    async def noted(self, shop: Stall) -> None:
        """The tab has a note."""
        for _ in range(1000):
            if (await self.tab(shop)).note:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("no note within 10 s")
        await self.idle()

    async def idle(self) -> None:
        """What can be settled now is, or is left for later."""
        await until(lambda: not self.purse._ending and not self.purse.paying._running, 30)


@contextlib.asynccontextmanager
async def buying_at(
    folder: Path, *shops: Stall, limits: PatienceLimits | None = None, **settings: Any
) -> AsyncIterator[Place]:
    """A user of these drivers; at the end its books are whole."""
    time = Time()
    store = await Store.open(folder, clock=time)
    place = Place(store, time, *shops, limits=limits, **settings)
    try:
        for shop in shops:
            await shop.node.listen()
        await place.purse.open(store)
        async with asyncio.timeout(50):
            yield place
            assert await store.run(ledger.check) == []
    finally:
        await place.buyer.close()
        await place.purse.close()
        await place.drivers.close()
        await place.user.close()
        for shop in shops:
            await shop.node.close()
        await store.close()


def bills(answer: Told) -> list[Bill]:
    """The newest that were told with the answer."""
    found = [item.bills for item in answer.items if isinstance(item, Billed)]
    return list(found[-1]) if found else []


def told_of(place: Place) -> list[Bill]:
    """All that was told of messages."""
    return [bill for _, _, bill in place.bills]
