"""Takes orders into the ledger and ends them there: who may buy, at which rates, how much is reserved for it.

The quotes are in open_quotes.py, the daily shares in credit.py, the steps in the ledger in sold.py. What is
said about money besides orders is in till.py, how an order is served in sales.py.

Everything is in the ledger before anybody is told of it. A provider that dies loses what it would have
charged for the answers that ran then, whose counts nobody kept; nobody else loses anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infraxa.app import sold as orders
from infraxa.app.config import Settings
from infraxa.app.credit import Buyer, Credit
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.missed import MissedLog
from infraxa.app.open_quotes import OpenQuotes, rates_of
from infraxa.app.pricing import Pricing
from infraxa.app.sold import End, Sold
from infraxa.app.terms import PAUSED, Refusal, Terms
from infraxa.net import tab, wire
from infraxa.net.market import FREE
from infraxa.net.tasks import TaskGroup
from infraxa.store import selling, tabs
from infraxa.store.db import Connection, Store, now_ms
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Refused

if TYPE_CHECKING:
    from infraxa.net.identity import Identity
    from infraxa.net.sale import Sale

FORGOTTEN_MS: Final = 3600 * 1000
"""An order that was never claimed is in the ledger for so long after it expired."""
FREE_FORGOTTEN_MS: Final = 7 * 24 * 3600 * 1000
"""One that ended, is charged nothing and whose receipt nobody asked for, for so long after its end. More than
a day: by these orders what was free today is known after a restart."""
FORGET_EVERY_MS: Final = 60_000
FORGETS: Final = 10
"""Transactions in a row for those that are due."""
PROPOSED: Final = "It proposes to settle "
"""How the note of a tab begins on which a settlement waits for the person."""

_log = logging.getLogger(__name__)


class Intake:
    """Of one provider. All methods belong to one event loop."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`changed`: told when tabs or receipts are other ones. `clock`: milliseconds since the epoch."""
        self.identity: Callable[[], Identity | None] = lambda: None
        """The key that signs; None: this node was never online."""
        self.serving: Callable[[bytes], Terms] = _not_serving
        """What an account would be served with now. Raises Refusal."""
        self.cheapest: Callable[[bytes], int | None] = lambda model: None
        """µcr per 1M tokens of the answer, of the cheapest other offer of this model."""
        self.pricing = Pricing()
        self.missed = MissedLog()
        self._changed = changed
        self._clock = clock
        self._store: Store | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._quotes = OpenQuotes()
        self._credit = Credit()
        self._running: dict[tuple[bytes, bytes], Sold] = {}
        """By account and number; those whose end could not be written stay until it is."""
        self._forget_at = 0
        self._tasks = TaskGroup()

    def open(self, store: Store) -> None:
        """Keep the books in `store`. What was open there is ended before anything else is done."""
        self._store = store

    def use(self, settings: Settings) -> None:
        """Sell as these settings say."""
        self.pricing.use(settings)
        self._credit.use(settings)

    @property
    def stranger_limit(self) -> int:
        """µcr that an account without a limit of its own may owe."""
        return self._credit.stranger_limit

    async def close(self) -> None:
        """Write what is over; bounded by the store."""
        await self._write_again()
        await self._tasks.cancel_all()

    async def admit(self, sale: Sale, terms: Terms) -> Sold:
        """Take an order, as pending. Raises Refusal."""
        try:
            return await self._admit(sale, terms)
        except (StoreError, NodeError) as error:
            _log.error("an order was not taken: %s", error.code)
            raise Refusal("internal", "The ledger could not be written.", fault=True) from None

    async def _admit(self, sale: Sale, terms: Terms) -> Sold:
        store, now, order = await self._ready(), self._clock(), sale.order
        self.missed.asked(sale.account, now)
        buyer = Buyer(sale.account, None if sale.relayed else sale.group)
        rates, hold, quote, free_use = FREE, 0, b"", False
        if order.quote:
            found = self._quotes.take(sale.account, order.quote, order.model, now)
            if found is None:
                raise Refusal("price_changed", "Its quote was not valid (any more).", field="quote")
            rates, quote = rates_of(found[0]), found[1]
            hold = order.hold if rates != FREE else 0
            if rates != FREE and not hold:
                raise Refusal("bad_request", "It reserved nothing for what has a price.", field="hold")
        elif (asked := self.pricing.now) != FREE:
            if not self._credit.free_left(buyer, now):
                limit = asked.price_out
                raise Refusal("price_changed", "It asked free of charge for what has a price.", limit=limit)
            free_use = self._credit.take_free(buyer, now)
        sold = Sold(buyer, order.id, order.model, rates, hold, free_use, now)
        self._credit.take(buyer, hold, now)
        return await self._open(store, sold, order, terms, quote)

    async def _open(self, store: Store, sold: Sold, order: wire.Order, terms: Terms, quote: bytes) -> Sold:
        key = (sold.buyer.account, sold.order)
        if key in self._running:
            sold.end = End("failed")
            self._release(sold)
            raise Refusal("bad_request", "Its number was used before.", field="id")
        self._running[key] = sold
        try:
            refused = await store.step(
                orders.open_, sold, order, terms.entry.name, quote, self._credit.stranger_limit
            )
        except asyncio.CancelledError:
            self.end_soon(sold, End("cancelled"))  # it may be in the ledger
            raise
        except BaseException:
            self._release(sold)
            raise
        if refused is None:
            return sold
        self._release(sold)
        if not isinstance(refused, Refused):
            raise Refusal("bad_request", "Its number was used before.", field="id")
        if refused.reason == "receipt_due":
            raise Refusal("receipt_due", "It has a receipt to countersign.")
        raise Refusal("tab_limit", "It owed as much as it may.", limit=refused.limit)

    def refused(self, account: bytes, refusal: Refusal) -> None:
        """A quote or an order was refused: a chance that was missed."""
        paused = refusal.field == PAUSED
        self.missed.refused(account, refusal.code, self._clock(), paused=paused)

    async def claim(self, sold: Sold) -> None:
        """It has a slot. Raises Refusal when it had one before."""
        await self._step(sold, orders.claim)
        sold.claimed = True

    async def process(self, sold: Sold) -> None:
        """Its prompt is here. Raises Refusal when it was before."""
        await self._step(sold, orders.process)

    async def requeue(self, sold: Sold) -> None:
        """Its engine was lost before anything was sent: it is pending again. Raises Refusal when it was
        before."""
        await self._step(sold, orders.requeue)

    async def _step(self, sold: Sold, step: Callable[[Connection, Sold], bool]) -> None:
        try:
            done = await (await self._ready()).step(step, sold)
        except StoreError as error:
            _log.error("an order was not served: %s", error.code)
            raise Refusal("internal", "The ledger could not be written.", fault=True) from None
        if not done:
            raise Refusal("bad_request", "It was served before.", field="id")

    async def end(self, sold: Sold, ended: End) -> None:
        """It is over, with what was delivered; from now on its receipt can be had. Only the first end counts.
        Being cancelled does not keep it from being written."""
        await asyncio.shield(self.end_soon(sold, ended))

    def end_soon(self, sold: Sold, ended: End) -> asyncio.Task[None]:
        """As `end`, without waiting for it."""
        if sold.end is None:
            sold.end = ended
            if sold.claimed and ended.outcome not in ("embedded", "scored"):
                self.pricing.ended(ended.n_out)
        return self._tasks.spawn(self._write_end(sold), name="the end of an order")

    async def _write_end(self, sold: Sold) -> None:
        if sold.over.is_set() or self._store is None:
            return
        try:
            await self._store.step(orders.end, sold)
        except StoreError as error:
            # It is tried again, at `tick` and when its receipt is asked for.
            _log.error("the end of an order was not written: %s", error.code)
            return
        self._release(sold)
        self._changed()

    def _release(self, sold: Sold) -> None:
        """It is over; what was reserved and is not charged is given back, once."""
        if sold.over.is_set():
            return
        sold.over.set()
        key = (sold.buyer.account, sold.order)
        if self._running.get(key) is sold:
            del self._running[key]
        self._credit.give_back(sold.buyer, sold.hold - sold.used, sold.at_ms)
        if sold.free_use and not sold.claimed:
            self._credit.give_back_free(sold.buyer, sold.at_ms)

    async def tick(self) -> None:
        """What is due now and then: quotes to close, ends that could not be written, orders to forget."""
        now = self._clock()
        for quote in self._quotes.expired(now):
            self.missed.not_taken(quote.account, quote.price_out, self.cheapest(quote.model), now)
        await self._write_again()
        await self._forget(now)

    async def _forget(self, now: int) -> None:
        if self._store is None or now < self._forget_at:
            return
        try:
            for _ in range(FORGETS):
                forgotten = await self._store.run(
                    selling.forget_expired, now - FORGOTTEN_MS, now - FREE_FORGOTTEN_MS
                )
                if not forgotten:
                    self._forget_at = now + FORGET_EVERY_MS
                    break
        except StoreError as error:
            _log.error("orders to forget are still in the ledger: %s", error.code)
            self._forget_at = now + FORGET_EVERY_MS

    async def _write_again(self) -> None:
        for sold in [sold for sold in self._running.values() if sold.end is not None]:
            await self._write_end(sold)

    def _signer(self) -> Identity:
        me = self.identity()
        if me is None:
            raise NodeError("offline", "This node has not been online yet.", "Turn the setting online on.")
        return me

    async def _ready(self) -> Store:
        """The store, when what was open in it from the last run has been ended."""
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        task = self._recovering
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._recovering = self._tasks.spawn(
                self._recover(self._store), name="the ledger after a restart", told=FAILURES
            )
        if not task.done():
            await asyncio.shield(task)
        return self._store

    async def _recover(self, store: Store) -> None:
        now = self._clock()
        await store.run(orders.end_all)
        for row in await store.run(tabs.list_tabs, "provider"):
            if row.limit is not None:
                self._credit.known.add(row.peer)
            if row.note.startswith(PROPOSED):
                await store.run(tabs.set_note, "provider", row.peer, "")
        today = tab.day_of(now) * tab.DAY_MS
        used = await store.run(orders.used_since, today)
        for account, amount in used.items():
            if account not in self._credit.known:
                self._credit.used(account, amount, now)
        for account, requests in (await store.run(selling.claimed_free_since, today)).items():
            self._credit.used_free(account, requests, now)


def _not_serving(account: bytes) -> Terms:
    raise Refusal("model_gone", "Provider mode is off.")
