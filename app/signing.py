"""One receipt: asked for, checked, kept with its countersign, sent, acknowledged. When that is done, and done
again, is decided in paying.py; what is agreed to, in counting.py.

Everything is in the ledger before it is told, so that each step may be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infraxa.app import agreeing, bookkeeping
from infraxa.app.agreeing import Due, Step
from infraxa.app.counting import LOST
from infraxa.app.locked import ANSWER_S, Trading
from infraxa.app.verifying import Kept
from infraxa.net import codec, wire
from infraxa.net.codec import Signed
from infraxa.net.errors import ProtocolError
from infraxa.store import buying, trade
from infraxa.store.db import Connection, Store
from infraxa.store.trade_records import OrderRow, ReceiptRow

if TYPE_CHECKING:
    from infraxa.net.deals import Receipt
    from infraxa.net.link import Link

MAX_LOST: Final = 16
"""Receipts of orders that this side has lost, or that are made up, which are signed in a row."""

Keep = Callable[[Connection], None]


class Signing:
    """Of one node. Raises as Link.ask, StoreError, and NodeError `offline`."""

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
        self.kept: dict[bytes, Kept] = {}
        """By order: what its receipt has to commit to."""
        self.counted: dict[bytes, int] = {}
        """By order: the tokens of its answer, as the model's vocabulary counts them."""
        self.ratable: Callable[[bytes, bytes, Signed], Keep | None] = lambda order, provider, blank: None
        """Of an order, its driver, and with what the person may rate it: what takes that down."""
        self.twice: Callable[[Signed, Signed], None] = lambda one, other: None
        """Told of two receipts that a driver signed for one order."""
        self._lost = Counter[bytes]()
        """By driver: signed in this row, see MAX_LOST."""
        self._network = network
        self._told = told
        self._noted = noted
        self._clock = clock

    def forget(self, order_id: bytes) -> None:
        """It is settled."""
        self.requests.pop(order_id, None)
        self.kept.pop(order_id, None)
        self.counted.pop(order_id, None)

    async def pay(self, store: Store, link: Link, order: OrderRow, done: set[bytes]) -> None:
        """One step towards the end of it, and what that leads to. `done`: orders that are settled since,
        which this one adds to."""
        following: Signed | None
        if order.bill == "signed":
            kept = await store.run(trade.get_receipt, "user", order.peer, order.id)
            assert kept is not None
            following = await self._send(store, link, kept, done)
        else:
            billed = await link.ask(wire.ReceiptPlease(order.id), wire.Billed, ANSWER_S)
            if billed.state == "unknown" and await store.run(buying.release, order.peer, order.id, "unknown"):
                await self._tell(store, order.peer, order.id)
            following = None
            if billed.state == "tell":
                following = await self.tell(store, link, order.peer)
            if billed.state in ("due", "signed"):
                following = await self._sign_asked(store, link, order, billed, done)
        await self._follow(store, link, order.peer, following, done)

    async def agree(self, store: Store, link: Link, provider: bytes) -> None:
        """Bring both books to the state that both signed last, and sign what is due then."""
        await self._follow(store, link, provider, await self.tell(store, link, provider), set())

    async def tell(self, store: Store, link: Link, provider: bytes) -> Signed | None:
        """Say what this side signed last; gives the receipt that is due, if one is."""
        told, one = await bookkeeping.tell(store, link, self._network.account(provider).id, provider)
        if one:
            await self._note(store, provider, "")
        if told.due is None:
            return None
        kept = await self._kept(store, provider, told.due)
        # A countersign that the driver lost with its book.
        return told.due if kept is None else await self._send(store, link, kept, set())

    async def _kept(self, store: Store, provider: bytes, signed: Signed) -> ReceiptRow | None:
        """What this side has signed of exactly this receipt."""
        from infraxa.net import deals

        order = deals.opened_receipt(signed, provider).order
        kept = await store.run(trade.get_receipt, "user", provider, order)
        return kept if kept is not None and kept.receipt == codec.encode(signed) else None

    async def _follow(
        self, store: Store, link: Link, provider: bytes, following: Signed | None, done: set[bytes]
    ) -> None:
        """Receipts that were not asked for. Each order that this side knows is signed once."""
        from infraxa.net import deals

        self._lost[provider] = 0
        while following is not None and self._lost[provider] < MAX_LOST:
            receipt = deals.opened_receipt(following, provider)
            if receipt.account != self._network.account(provider).id:
                raise ProtocolError("not_asked", "a receipt of another account")
            due = self._due(following, receipt, receipt.order, asked=False)
            following = await self._sign(store, link, due, done)

    async def _sign_asked(
        self, store: Store, link: Link, order: OrderRow, billed: wire.Billed, done: set[bytes]
    ) -> Signed | None:
        from infraxa.net import deals

        if billed.receipt is None:
            raise ProtocolError("malformed", "no receipt")
        try:
            receipt = deals.opened_receipt(billed.receipt, order.peer)
        except ProtocolError as error:
            await self._note(store, order.peer, bookkeeping.improper(error.reason))
            return None
        due = self._due(billed.receipt, receipt, order.id, asked=True)
        return await self._sign(store, link, due, done, lost=billed.state == "signed")

    def _due(self, signed: Signed, receipt: Receipt, order: bytes, *, asked: bool) -> Due:
        return Due(
            signed,
            receipt,
            order,
            asked,
            self._network.account(signed.signer),
            self.requests.get(order, b""),
            order in self.counted,
            self._clock(),
            self.kept.get(order),
        )

    async def _sign(
        self, store: Store, link: Link, due: Due, done: set[bytes], *, lost: bool = False
    ) -> Signed | None:
        """Agree to it, and send that; gives the next one that is due. `lost`: see `agreeing.agree`."""
        step = await store.step(agreeing.agree, due)
        if step.apart:
            await bookkeeping.tell(store, link, due.account.id, due.provider)
            step = await store.step(agreeing.agree, due, told=True, lost=lost)
        if step.other is not None:
            self.twice(codec.decode_signed(step.other.receipt), due.signed)
        self._took(step)
        return None if step.send is None else await self._send(store, link, step.send, done)

    async def _send(self, store: Store, link: Link, kept: ReceiptRow, done: set[bytes]) -> Signed | None:
        """Have the driver know the countersign that is kept; gives the next receipt that is due."""
        from infraxa.net.stream import StreamFailed

        provider, order = kept.peer, kept.order_id
        assert kept.countersign is not None
        signed = codec.decode_signed(kept.countersign)
        account = self._network.account(provider).id
        try:
            accepted = await link.ask(wire.CountersignPlease(order, signed), wire.Accepted, ANSWER_S)
        except StreamFailed as error:
            if (error.failure.code, error.failure.field) != ("bad_request", "order"):
                raise
            # The driver has lost the receipt. It is part of the state that it is told now.
            told, one = await bookkeeping.tell(store, link, account, provider)
            if not one or told.seq < kept.tab_seq:
                raise
            await store.run(buying.acknowledge, provider, order)
            await self._tell(store, provider, order)
            return told.due
        blank = bookkeeping.rating_blank(accepted.ratable, account, provider)
        keep = None if blank is None else self.ratable(order, provider, codec.decode_signed(blank))
        self._took(await store.step(agreeing.acknowledged, provider, order, accepted, blank, keep))
        done.add(order)
        return accepted.next

    def _took(self, step: Step) -> None:
        if step.noted:
            self._noted()
        if step.order is not None:
            self._lost[step.order.peer] += step.send is not None and step.order.outcome == LOST
            self._told(step.order)

    async def _note(self, store: Store, provider: bytes, text: str) -> None:
        if await store.run(bookkeeping.note, provider, text):
            self._noted()

    async def _tell(self, store: Store, provider: bytes, order_id: bytes) -> None:
        order = await store.run(trade.get_order, "user", provider, order_id)
        if order is not None:
            self._told(order)
