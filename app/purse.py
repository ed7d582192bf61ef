"""The user's money: what a message can cost before it is sent, what may be spent, what is on its way.

Rates are locked in locked.py, an answer's orders reserved in spending.py, settled in paying.py. All amounts
are µcr; what drivers are owed is in the ledger of the store.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from infraxa.app import canary_rules
from infraxa.app.bounds import bounded, spent_of
from infraxa.app.calls import CallSpending
from infraxa.app.config import Settings
from infraxa.app.counting import bill_of
from infraxa.app.days import start_ms
from infraxa.app.errors import NodeError
from infraxa.app.locked import FRESH_S, LockedRates, Trading
from infraxa.app.offers import OfferSeen
from infraxa.app.paying import Paying
from infraxa.app.spending import Count, Spending, Write
from infraxa.app.trade import Bound
from infraxa.app.verifying import Checks, Kept, NoChecks
from infraxa.engine.types import ChatMessage, Sampling
from infraxa.net.credits import micro
from infraxa.net.market import FREE, Rates
from infraxa.net.tasks import TaskGroup
from infraxa.net.wire import Mode
from infraxa.store import buying, trade
from infraxa.store.db import Connection, Store, now_ms
from infraxa.store.records import Bill, StoreError
from infraxa.store.trade_records import Caps, OrderRow

if TYPE_CHECKING:
    from infraxa.engine.vocabulary import Vocabulary

SHOWN_S: Final = 600.0
"""So long a price counts as seen."""
MOST_SHOWN: Final = 256
STEP: Final = 10
"""All are told of a price again when it moved by one part in so many: within that it is the one that they
know. One that was locked and shown is known exactly."""
UNPAID: Final = 64
"""Orders at one driver that ended and are not settled, beyond which the next one waits: they are settled one
after the other, and a driver refuses more when there are too many."""
CLOSE_S: Final = 2.0
"""For the ends of orders to be written, and receipts that are on their way."""

_log = logging.getLogger(__name__)


class Purse:
    """Of one node. `open` it once; `close` it before the network and the store."""

    def __init__(
        self, network: Trading, changed: Callable[[], None], *, clock: Callable[[], int] = now_ms
    ) -> None:
        """`changed`: a bound, a tab or a receipt is another one. `clock`: milliseconds since the epoch."""
        self.on_bill: Callable[[str, str, Bill], None] = lambda chat_id, message_id, bill: None
        """Told of the bills of messages: chat, message, the bill."""
        self.vocabulary: Callable[[OfferSeen], Awaitable[Vocabulary | None]] = _no_vocabulary
        """By which tokens of answers of this offer are counted, if it is here."""
        self.checks: Checks = NoChecks()
        """Told by what answers can be checked, and when their receipts are signed."""
        self.limits: dict[bytes, int] = {}
        """How much each driver lets this node owe, as it said last."""
        self.locked = LockedRates(network, changed)
        self.paying = Paying(network, self._told, changed, clock)
        self._changed = changed
        self._clock = clock
        self._opened: Store | None = None
        self._settings = Settings()
        self._spendings = WeakValueDictionary[bytes, Spending]()
        """By order, as long as anybody is told of its answer."""
        self._bills: dict[bytes, Bill] = {}
        """By order that is not settled: as it was told last in this run."""
        self._unpaid = Counter[bytes]()
        """By driver: of these, those that have ended."""
        self._paid = asyncio.Event()
        """One of them was settled."""
        self._shown: dict[tuple[bytes, bytes], tuple[float, Rates]] = {}
        """By driver and model: rates that the person was told of, and when."""
        self._tasks = TaskGroup()
        self._ending: set[asyncio.Task[None]] = set()
        """They write how orders ended."""

    async def open(self, store: Store) -> None:
        """What is open from the last run is settled whenever there is a way to its driver. Raises
        StoreError."""
        self._opened = store
        await self.paying.open(store)

    def use(self, settings: Settings) -> None:
        """Spend as these settings say."""
        self._settings = settings

    async def close(self) -> None:
        """What is over is written; what is not settled is, with the next run."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_S)
        await self.paying.close(CLOSE_S)
        await self.locked.close()
        await self._tasks.cancel_all()
        self._opened = None

    @property
    def store(self) -> Store:
        if self._opened is None:
            raise NodeError("closed", "This node is not open.")
        return self._opened

    def spending(
        self,
        tell: Callable[[tuple[Bill, ...]], None],
        chat_id: str | None = None,
        message_id: str | None = None,
        *,
        called: bool = False,
        canary: bool = False,
    ) -> Spending:
        """The money of an answer that begins; `called`: by a program. `canary`: see Spending."""
        return Spending(self, tell, chat_id, message_id, called=called, canary=canary)

    async def by_calls(self) -> CallSpending:
        """What programs spent today. Raises StoreError, NodeError."""
        caps = self.caps()
        spent = await self.store.run(buying.spent_by_calls, caps.day_start_ms)
        return CallSpending(spent.spent, spent.held, caps.calls or 0)

    async def bound(
        self,
        chat_id: str | None,
        offer: OfferSeen,
        said: tuple[ChatMessage, ...],
        sampling: Sampling,
    ) -> Bound:
        """What the next message can cost: `said` with it, answered by `offer`. Answers at once; rates that
        are not locked yet are asked for, and `changed` is called when they are. Raises StoreError."""
        node, model = offer.node.id, offer.model.model_id
        caps, free = self.caps(), self.is_free(offer)
        spent = await self.store.run(spent_of, node, chat_id, caps.day_start_ms)
        locked, failed = None, ""
        if not free:
            self.locked.ask_soon(node, model)
            locked, failed = self.locked.get(node, model), self.locked.failed(node, model)
        if locked is not None:
            self._show(offer, locked.rates)
            self.limits.pop(node, None)
            self.limits[node] = locked.limit
            while len(self.limits) > MOST_SHOWN:
                del self.limits[next(iter(self.limits))]
        bound = bounded(offer, said, sampling, caps, spent, locked, failed, self._clock(), free=free)
        if bound.state == "refused" and bound.limit:
            # The tab may have room by now: it was settled, or its limit is another one.
            self.locked.ask_soon(node, model, FRESH_S)
        return bound

    def behind(self, provider: bytes) -> bool:
        """Too much of what this driver did is yet to be settled."""
        return self._unpaid[provider] >= UNPAID

    async def caught_up(self, provider: bytes) -> None:
        """Returns when it is not `behind`."""
        while self.behind(provider):
            self._paid.clear()
            await self._paid.wait()

    def is_free(self, offer: OfferSeen) -> bool:
        """It is ordered without a quote: it has no price, or the person spends nothing and the driver gives
        some away."""
        if not (offer.price_in or offer.price_out):
            return True
        return not self.caps().request and offer.node.free_daily > 0

    def dearer(self, offer: OfferSeen, rates: Rates, *, show: bool = True) -> tuple[int, int] | None:
        """The price that is above what the person saw, and that one: of the answer, or else of the prompt;
        None when neither is. `show`: from now on it has seen these rates."""
        at, seen = self._shown.get((offer.node.id, offer.model.model_id), (0.0, FREE))
        if time.monotonic() - at > SHOWN_S:
            seen = FREE
        most_in = max(offer.price_in + offer.price_in // STEP, seen.price_in)
        most_out = max(offer.price_out + offer.price_out // STEP, seen.price_out)
        if show:
            self._show(offer, rates)
        if rates.price_out > most_out:
            return rates.price_out, max(offer.price_out, seen.price_out)
        if rates.price_in > most_in:
            return rates.price_in, max(offer.price_in, seen.price_in)
        return None

    def _show(self, offer: OfferSeen, rates: Rates) -> None:
        key = offer.node.id, offer.model.model_id
        self._shown.pop(key, None)
        self._shown[key] = time.monotonic(), rates
        while len(self._shown) > MOST_SHOWN:
            del self._shown[next(iter(self._shown))]

    @property
    def verify(self) -> Mode:
        """What drivers are asked to commit to."""
        return self._settings.verify

    def caps(self, used: int = 0) -> Caps:
        """What may be spent now, by a message whose orders before have cost `used`."""
        settings = self._settings
        return Caps(
            request=max(0, micro(settings.cap_request) - used),
            chat=micro(settings.cap_chat),
            day=micro(settings.cap_day),
            calls=micro(settings.cap_api),
            canaries=canary_rules.share(micro(settings.cap_day)),
            day_start_ms=start_ms(datetime.date.fromtimestamp(self._clock() / 1000)),
        )

    def began(self, spending: Spending, order: OrderRow) -> None:
        """This order is reserved for, and about to leave."""
        self._spendings[order.id] = spending
        self._told(order)
        self._changed()

    def checkable(
        self, provider: bytes, order_id: bytes, place: tuple[str, str] | None, why: str, kept: Kept | None
    ) -> None:
        """By what the answer to this order can be checked; None: it cannot be, `why`. `place`: its chat and
        message, when it is kept."""
        if kept is not None:
            self.paying.kept[order_id] = kept
            self.checks.keep(kept, place)
        elif why:
            self.checks.unverified(provider, order_id, place, why)

    def dropped(self, provider: bytes, order_id: bytes) -> None:
        """It did not leave, or was refused at once: nothing is owed."""

        async def end() -> OrderRow | None:
            return await self.store.step(_released, provider, order_id)

        self._end(provider, end)

    def ended(
        self, offer: OfferSeen, order_id: bytes, count: Count, write: Write, *, texts: bool = False
    ) -> None:
        """It is over for this side, which takes down what it counts; what is owed is settled then. `texts`:
        `count` only bounds their tokens, and counts none of an answer."""
        provider = offer.node.id

        async def end() -> OrderRow | None:
            counted = None
            if (vocabulary := await self.vocabulary(offer)) is not None:
                counted = await asyncio.to_thread(count, vocabulary)
            order = await self.store.step(_written, write, provider, order_id, counted)
            if counted is not None and not texts:
                self.paying.counted[order_id] = counted
            return order

        self._end(provider, end)

    def _end(self, provider: bytes, ending: Callable[[], Awaitable[OrderRow | None]]) -> None:
        async def end() -> None:
            try:
                order = await ending()
            except (StoreError, NodeError) as error:
                # What is reserved stays, and is settled with the next run.
                _log.error("the end of an order was not written: %s", error.code)
                return
            if order is not None:
                self._told(order)
                self.paying.settle(provider)

        task = self._tasks.spawn(end(), name="the end of an order")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _told(self, order: OrderRow) -> None:
        """The money of an order is in another state."""
        bill = bill_of(order, self.paying.counted.get(order.id))
        known = self._bills.get(order.id)
        was = known is not None and known.state == "due"
        settled = order.bill in ("closed", "released")
        if settled:
            self.paying.forget(order.id)
            self._bills.pop(order.id, None)
        else:
            self._bills[order.id] = bill
        if order.bill in ("signed", "closed"):
            self.checks.signed(order)
        self._unpaid[order.peer] += (bill.state == "due" and not settled) - was
        if was and bill.state != "due":
            self._paid.set()
        if not self._unpaid[order.peer]:
            del self._unpaid[order.peer]
        self._changed()
        if bill == known:
            return
        if (spending := self._spendings.get(order.id)) is not None:
            spending.billed(bill)
        if order.chat_id is not None and order.message_id is not None:
            self.on_bill(order.chat_id, order.message_id, bill)


def _written(
    conn: Connection, write: Write, provider: bytes, order_id: bytes, counted: int | None
) -> OrderRow | None:
    write(conn, provider, order_id, counted)
    return trade.get_order(conn, "user", provider, order_id)


def _released(conn: Connection, provider: bytes, order_id: bytes) -> OrderRow | None:
    buying.release(conn, provider, order_id, "refused")
    return trade.get_order(conn, "user", provider, order_id)


async def _no_vocabulary(offer: OfferSeen) -> Vocabulary | None:
    return None
