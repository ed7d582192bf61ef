"""What was bought is paid for: receipts are asked for, checked, countersigned and acknowledged, after the
answer and never in its way.

One task for each driver, whenever there is something to settle and a way to it. What of a receipt is agreed
to is decided in counting.py, what is kept in the ledger before it is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from infraxa.app import bookkeeping
from infraxa.app.counting import LOST, Improper, judged
from infraxa.app.errors import NodeError
from infraxa.app.locked import ANSWER_S, Trading
from infraxa.net import codec, wire
from infraxa.net.codec import Signed
from infraxa.net.deals import Countersign
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.tasks import TaskGroup
from infraxa.store import buying, tabs, trade
from infraxa.store.db import Store
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow

if TYPE_CHECKING:
    from infraxa.net.link import Link

PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before each time that a driver is asked for what is not settled; then it is left for later."""
CONNECT_S: Final = 30.0
START_S: Final = 15.0
STARTS: Final = 8
"""What is open from the last run is tried every START_S so often, since the network comes later."""
LATER_S: Final = 600.0
"""Then, and for all that is left for later."""
UNCLAIMED_MS: Final = 7 * 24 * 3600 * 1000
"""A driver that is gone may claim what it did for so long."""
MAX_NEXT: Final = 16
"""Receipts that one answer leads to."""

_log = logging.getLogger(__name__)


class Paying:
    """Of one node."""

    def __init__(
        self,
        network: Trading,
        told: Callable[[OrderRow], None],
        noted: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        """`told`: the money of an order is in another state. `noted`: a tab has another note. `clock`:
        milliseconds since the epoch."""
        self.requests: dict[bytes, bytes] = {}
        """By order: deals.request_hash of those that were free, as long as this runs."""
        self.counted: dict[bytes, int] = {}
        """By order: the tokens of its answer, as the model's vocabulary counts them."""
        self.ratable: Callable[[bytes, bytes, Signed], Awaitable[object]] = _not_rated
        """Told of an order, its driver, and with what the person may rate it."""
        self._network = network
        self._told = told
        self._noted = noted
        self._clock = clock
        self._store: Store | None = None
        self._running: dict[bytes, asyncio.Event] = {}
        """By driver: set when there is more to settle."""
        self._settling: set[asyncio.Task[None]] = set()
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Take up what the last run left. Raises StoreError."""
        self._store = store
        await store.run(buying.release_unsent)
        self._tasks.spawn(self._keep(), name="settle what is open")

    async def close(self, seconds: float) -> None:
        """Give what is on its way so long, and end."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=seconds)
        await self._tasks.cancel_all()
        self._store = None

    def forget(self, order_id: bytes) -> None:
        """It is settled."""
        self.requests.pop(order_id, None)
        self.counted.pop(order_id, None)

    def settle(self, provider: bytes) -> None:
        """There is something to settle with this driver, or a way to it."""
        if self._store is None:
            return
        if (more := self._running.get(provider)) is not None:
            more.set()
            return
        self._running[provider] = asyncio.Event()
        task = self._tasks.spawn(self._settle(self._store, provider), name="settle with a driver")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def settled(self, provider: bytes, seconds: float) -> bool:
        """Whether nothing is left to settle with this driver, after so long at most."""
        assert self._store is not None
        self.settle(provider)
        try:
            async with asyncio.timeout(seconds):
                while provider in self._running:
                    if not await self._open_orders(self._store, provider):
                        return True
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        return not await self._open_orders(self._store, provider)

    async def _keep(self) -> None:
        turn = 0
        while True:
            assert self._store is not None
            try:
                unsettled = await self._store.run(trade.unsettled, "user")
                released = set(await self._store.run(buying.release_unclaimed))
                for order in unsettled:
                    if order.id in released:
                        await self._tell(self._store, order.peer, order.id)
                    else:
                        self.settle(order.peer)
            except StoreError as error:
                _log.warning("what is not settled was not looked up: %s", error.message)
            turn += 1
            await asyncio.sleep(START_S if turn < STARTS else LATER_S)

    async def _settle(self, store: Store, provider: bytes) -> None:
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.stream import LinkClosed, StreamCancelled, StreamFailed

        try:
            if await self._open_orders(store, provider):
                await self._rounds(store, provider, self._running[provider])
        except (NetError, NodeError) as error:
            _log.debug("not settled now: %s", error.code)
        except StreamFailed as error:
            _log.debug("not settled now: %s", error.failure.code)
        except (LinkClosed, StreamCancelled):
            _log.debug("not settled now: the link is gone")
        except ProtocolError as error:
            _log.warning("a driver's words about money break the protocol: %s", error.reason)
        except StoreError as error:
            _log.warning("not settled, since it could not be written: %s", error.message)
            return
        finally:
            more = self._running.pop(provider)
        try:
            await self._leave(store, provider)
        except StoreError as error:
            _log.warning("what is not settled could not be marked: %s", error.message)
        if more.is_set():
            self.settle(provider)

    async def _rounds(self, store: Store, provider: bytes, more: asyncio.Event) -> None:
        async with asyncio.timeout(CONNECT_S):
            link = await self._network.order_link(provider)
        turn = 0
        while turn < len(PAUSES):
            try:
                async with asyncio.timeout(PAUSES[turn]):
                    await more.wait()
                turn = 0
            except TimeoutError:
                turn += 1
            more.clear()
            left = await self._open_orders(store, provider)
            if not left:
                return
            for order in left:
                await self._pay(store, link, order)

    async def _leave(self, store: Store, provider: bytes) -> None:
        """What is not settled now may be claimed for some time."""
        for order in await self._open_orders(store, provider):
            until = self._clock() + UNCLAIMED_MS
            if await store.run(buying.mark_unclaimed, provider, order.id, until):
                await self._tell(store, provider, order.id)

    async def _open_orders(self, store: Store, provider: bytes) -> list[OrderRow]:
        """Those that are over for this side, and not settled."""
        return [order for order in await store.run(trade.unsettled, "user", provider) if order.ended]

    async def _pay(self, store: Store, link: Link, order: OrderRow) -> None:
        """One step towards the end of it, and what that leads to."""
        following: Signed | None
        if order.bill == "signed":
            kept = await store.run(trade.get_receipt, "user", order.peer, order.id)
            assert kept is not None
            following = await self._send(store, link, kept)
        else:
            billed = await link.ask(wire.ReceiptPlease(order.id), wire.Billed, ANSWER_S)
            if billed.state == "unknown" and await store.run(buying.release, order.peer, order.id, "unknown"):
                await self._tell(store, order.peer, order.id)
            due = billed.state in ("due", "signed")
            following = await self._sign(store, link, order, billed.receipt) if due else None
        for _ in range(MAX_NEXT):
            if (
                following is None
                or (next_order := await self._order_of(store, order.peer, following)) is None
            ):
                return
            following = await self._sign(store, link, next_order, following)

    async def _order_of(self, store: Store, provider: bytes, signed: Signed) -> OrderRow | None:
        """Which order a receipt is for that was not asked for; None when nothing is to be done about it."""
        from infraxa.net import deals

        receipt = deals.opened_receipt(signed, provider)
        if receipt.account != self._network.account(provider).id:
            raise ProtocolError("not_asked", "a receipt of another account")
        order = await store.run(trade.get_order, "user", provider, receipt.order)
        if order is None:
            # Of an order that this side has lost: it is signed for nothing, so that it is out of the way.
            lost = OrderRow(peer=provider, id=receipt.order, model=receipt.model)
            await store.run(buying.open_hold, lost, Caps())
            await store.run(buying.release, provider, receipt.order, LOST)
            return await store.run(trade.get_order, "user", provider, receipt.order)
        if order.bill == "closed":
            kept = await store.run(trade.get_receipt, "user", provider, order.id)
            if kept is not None and kept.receipt == codec.encode(signed):
                return None
        return order if order.ended else None

    async def _sign(self, store: Store, link: Link, order: OrderRow, signed: Signed | None) -> Signed | None:
        """Check a receipt, keep it with its countersign, and send that; gives the next one that is due."""
        from infraxa.net import deals

        if signed is None:
            raise ProtocolError("malformed", "no receipt")
        provider, account = order.peer, self._network.account(order.peer)
        try:
            receipt = deals.opened_receipt(signed, provider)
            known = await store.run(trade.get_receipt, "user", provider, order.id)
            if known is not None and known.receipt != codec.encode(signed):
                await bookkeeping.keep_second(store, provider, order.id, signed)
                await self._note(store, provider, bookkeeping.TWICE)
                return None
            if known is not None:
                return await self._send(store, link, known)
            verdict = judged(receipt, order, account.id, self.requests.get(order.id, b""))
        except Improper as error:
            await self._note(store, provider, bookkeeping.improper(error.what))
            return None
        except ProtocolError as error:
            await self._note(store, provider, bookkeeping.improper(error.reason))
            return None
        if not await bookkeeping.in_step(store, link, account.id, provider, receipt):
            await self._note(store, provider, bookkeeping.DIFFERS)
            return None
        countersign = Countersign(
            receipt=deals.receipt_hash(signed),
            n_prompt=verdict.counts.n_prompt,
            n_out=verdict.counts.n_out,
            charge=verdict.accepted,
            counted=order.id in self.counted,
            signed=self._clock(),
        )
        kept = await store.run(
            buying.sign_receipt,
            provider,
            order.id,
            seq=receipt.seq,
            receipt=codec.encode(signed),
            countersign=codec.encode(deals.sign(countersign, account)),
            billed=Counts(receipt.n_prompt, receipt.n_cached, receipt.n_out),
            charge=receipt.charge,
            accepted=verdict.accepted,
        )
        if not isinstance(kept, ReceiptRow):
            await self._note(store, provider, bookkeeping.improper(kept.reason))
            return None
        await self._tell(store, provider, order.id)
        return await self._send(store, link, kept)

    async def _send(self, store: Store, link: Link, kept: ReceiptRow) -> Signed | None:
        """Have the driver know the countersign that is kept; gives the next receipt that is due."""
        provider = kept.peer
        assert kept.countersign is not None
        signed: Signed = codec.decode(kept.countersign, Signed)
        accepted = await link.ask(wire.CountersignPlease(kept.order_id, signed), wire.Accepted, ANSWER_S)
        account = self._network.account(provider).id
        blank = bookkeeping.rating_blank(accepted.ratable, account, provider)
        await store.run(buying.acknowledge, provider, kept.order_id, blank)
        if blank is not None:
            await self.ratable(kept.order_id, provider, codec.decode(blank, Signed))
        tab = await store.run(tabs.get_tab, "user", provider)
        agree = accepted.seq != tab.signed_seq or accepted.owed == tab.owed
        await self._note(store, provider, "" if agree else bookkeeping.DIFFERS)
        await self._tell(store, provider, kept.order_id)
        return accepted.next

    async def _note(self, store: Store, provider: bytes, text: str) -> None:
        if await bookkeeping.note(store, provider, text):
            self._noted()

    async def _tell(self, store: Store, provider: bytes, order_id: bytes) -> None:
        order = await store.run(trade.get_order, "user", provider, order_id)
        if order is not None:
            self._told(order)


async def _not_rated(order_id: bytes, provider: bytes, blank: Signed) -> None:
    """Nobody wants to know."""
