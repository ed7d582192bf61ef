"""One receipt: asked for, checked, kept with its countersign, sent, acknowledged. When that is done, and done
again, is decided in paying.py; what is agreed to, in counting.py.

Everything is in the ledger before it is told, so that each step may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from infraxa.app import bookkeeping
from infraxa.app.counting import LOST, Improper, judged
from infraxa.app.locked import ANSWER_S, Trading
from infraxa.net import codec, wire
from infraxa.net.codec import Signed
from infraxa.net.deals import Countersign
from infraxa.net.errors import ProtocolError
from infraxa.store import buying, tabs, trade
from infraxa.store.db import Store
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow

if TYPE_CHECKING:
    from infraxa.net.link import Link

MAX_NEXT: Final = 16
"""Receipts that one answer leads to."""


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
        self.counted: dict[bytes, int] = {}
        """By order: the tokens of its answer, as the model's vocabulary counts them."""
        self.ratable: Callable[[bytes, bytes, Signed], Awaitable[object]] = _not_rated
        """Told of an order, its driver, and with what the person may rate it."""
        self._network = network
        self._told = told
        self._noted = noted
        self._clock = clock

    def forget(self, order_id: bytes) -> None:
        """It is settled."""
        self.requests.pop(order_id, None)
        self.counted.pop(order_id, None)

    async def pay(self, store: Store, link: Link, order: OrderRow) -> None:
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
            following = None
            if billed.state == "tell":
                following = await self.tell(store, link, order.peer)
            if billed.state in ("due", "signed"):
                lost = billed.state == "signed"
                following = await self._sign(store, link, order, billed.receipt, lost=lost)
        await self._follow(store, link, order.peer, following)

    async def agree(self, store: Store, link: Link, provider: bytes) -> None:
        """Bring both books to the state that both signed last, and sign what is due then."""
        await self._follow(store, link, provider, await self.tell(store, link, provider))

    async def tell(self, store: Store, link: Link, provider: bytes) -> Signed | None:
        """Say what this side signed last; gives the receipt that is due, if one is."""
        told, one = await bookkeeping.tell(store, link, self._network.account(provider).id, provider)
        if one:
            await self._note(store, provider, "")
        if told.due is None:
            return None
        kept = await self._kept(store, provider, told.due)
        # A countersign that the driver lost with its book.
        return told.due if kept is None else await self._send(store, link, kept)

    async def _kept(self, store: Store, provider: bytes, signed: Signed) -> ReceiptRow | None:
        """What this side has signed of exactly this receipt."""
        from infraxa.net import deals

        order = deals.opened_receipt(signed, provider).order
        kept = await store.run(trade.get_receipt, "user", provider, order)
        return kept if kept is not None and kept.receipt == codec.encode(signed) else None

    async def _follow(self, store: Store, link: Link, provider: bytes, following: Signed | None) -> None:
        for _ in range(MAX_NEXT):
            if following is None or (order := await self._order_of(store, provider, following)) is None:
                return
            following = await self._sign(store, link, order, following)

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

    async def _sign(
        self, store: Store, link: Link, order: OrderRow, signed: Signed | None, *, lost: bool = False
    ) -> Signed | None:
        """Check a receipt, keep it with its countersign, and send that; gives the next one that is due.
        `lost`: the driver has a countersign to it that this side does not remember."""
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
            if lost and (await store.run(tabs.get_tab, "user", provider)).signed_seq >= receipt.seq:
                # It is part of the state that was adopted.
                if await store.run(buying.release, provider, order.id, LOST):
                    await self._tell(store, provider, order.id)
                return None
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
        from infraxa.net.stream import StreamFailed

        provider = kept.peer
        assert kept.countersign is not None
        signed = codec.decode_signed(kept.countersign)
        account = self._network.account(provider).id
        try:
            accepted = await link.ask(wire.CountersignPlease(kept.order_id, signed), wire.Accepted, ANSWER_S)
        except StreamFailed as error:
            if (error.failure.code, error.failure.field) != ("bad_request", "order"):
                raise
            # The driver has lost the receipt. It is part of the state that it is told now.
            told, one = await bookkeeping.tell(store, link, account, provider)
            if not one or told.seq < kept.tab_seq:
                raise
            await store.run(buying.acknowledge, provider, kept.order_id)
            await self._tell(store, provider, kept.order_id)
            return told.due
        blank = bookkeeping.rating_blank(accepted.ratable, account, provider)
        await store.run(buying.acknowledge, provider, kept.order_id, blank)
        if blank is not None:
            await self.ratable(kept.order_id, provider, codec.decode_signed(blank))
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
