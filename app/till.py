"""What this provider says about money: quotes, receipts, tabs, links, settlements; and what its person says.

How orders are taken into the ledger is in intake.py, receipts are in bills.py, settlements in settling.py,
the price in pricing.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from infraxa.app import bills, settling
from infraxa.app.credit import Buyer
from infraxa.app.errors import NodeError
from infraxa.app.intake import PROPOSED, Intake
from infraxa.app.sold import FREE_OUT
from infraxa.app.terms import Refusal
from infraxa.app.transcripts import Transcripts
from infraxa.net import codec, deals, market, tab, wire
from infraxa.net.credits import shown
from infraxa.net.market import FREE
from infraxa.net.names import clean_name
from infraxa.net.orders import MAX_OUT
from infraxa.store import tabs, trade
from infraxa.store.db import Store, now_ms
from infraxa.store.records import StoreError
from infraxa.store.trade_records import TabRow

if TYPE_CHECKING:
    from infraxa.net.customers import Customer

END_S: Final = 2.0
"""Who asks for the receipt of an order that runs hears so long nothing: it may just be over."""
MAX_PROPOSED: Final = 256
"""Settlements that wait for the person, until this node restarts: then they are proposed again."""

_log = logging.getLogger(__name__)


class Till(Intake):
    """The till of one provider: its intake, and what is said about money besides."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], int] = now_ms,
        randbytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`changed`: told when tabs or receipts are other ones. `clock`: milliseconds since the epoch."""
        super().__init__(changed, clock=clock)
        self._randbytes = randbytes
        self.transcripts = Transcripts(randbytes, self._committed)
        """Of the answers that can be checked."""
        self._proposed: dict[bytes, codec.Signed] = {}
        """By account: the settlement that waits for the person."""

    async def close(self) -> None:
        """As Intake; nothing can be opened any more."""
        self.transcripts.close()
        await super().close()

    async def _committed(self, account: bytes, order: bytes) -> bool:
        """Whether such an order was answered, in this run or an earlier one. Raises NodeError, StoreError."""
        store = await self._ready()
        row = await store.run(trade.get_order, "provider", account, order)
        return row is not None and row.mode != "none" and row.state in ("completed", "failed", "cancelled")

    async def bargain(self, customer: Customer, request: wire.Bargain) -> wire.Answer | wire.Failure:
        """Answer what an account asks about money. Raises ProtocolError."""
        try:
            return await self._answer(customer, request)
        except Refusal as refusal:
            self.refused(customer.account, refusal)
            return wire.Failure(
                refusal.code, min(refusal.retry_after_ms, tab.DAY_MS), refusal.limit, refusal.field
            )
        except (StoreError, NodeError) as error:
            _log.error("a question about money was not answered: %s", error.code)
            return wire.Failure("internal", retry_after_ms=5000)

    async def _answer(self, customer: Customer, request: wire.Bargain) -> wire.Answer | wire.Failure:
        store, me = await self._ready(), self._signer()
        account = customer.account
        match request:
            case wire.QuotePlease():
                return await self._quote(customer, request)
            case wire.ReceiptPlease(order=order):
                return await self._bill(account, order)
            case wire.CountersignPlease(order=order, countersign=signed):
                done = await store.step(bills.countersign, me, account, order, signed)
                self._changed()
                return done
            case wire.TabPlease():
                if await store.step(bills.hear, me, account, request):
                    self._changed()
                return await store.step(bills.tab_state, account, self._credit.stranger_limit)
            case wire.LinkPlease():
                return await store.run(settling.link, me, account, request)
            case wire.SettlePlease():
                return await self._settle(account, request)

    async def _quote(self, customer: Customer, request: wire.QuotePlease) -> wire.Quoted:
        now, account, model = self._clock(), customer.account, request.model
        self.missed.asked(account, now)
        terms = self.serving(account)
        if terms.model_id != model:
            raise Refusal("model_gone", "It asked for a model that is not served.")
        store, rates, buyer = await self._ready(), self.pricing.now, _buyer(customer)
        used, most = await store.step(bills.standing, account, self._credit.stranger_limit)
        left = self._credit.left(buyer, now)
        if left is not None and rates != FREE:
            if left < market.hold(0, FREE_OUT, rates) <= most - used:
                raise self._credit.full(buyer, now)
            most = min(most, used + left)
        quote = deals.Quote(
            self._randbytes(16), account, model, rates.price_in, rates.price_out, rates.price_cached,
            min(terms.context, MAX_OUT), now, now + deals.QUOTE_MS,
        )  # fmt: skip
        signed = deals.sign(quote, self._signer())
        self._quotes.add(quote, codec.encode(signed), request.instead)
        free_left = self._credit.free_left(buyer, now)
        return wire.Quoted(signed, used, most, max(0, free_left))

    async def _bill(self, account: bytes, order: bytes) -> wire.Billed:
        sold = self._running.get((account, order))
        if sold is not None:
            if sold.end is not None:
                await self._write_end(sold)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await sold.over.wait()
        store = await self._ready()
        billed = await store.step(bills.bill, self._signer(), account, order)
        if billed.state == "due":
            self._changed()
        return billed

    async def _settle(self, account: bytes, request: wire.SettlePlease) -> wire.Settled:
        store, me = await self._ready(), self._signer()
        said = settling.opened(me, account, request.settlement)
        if request.netted is not None:
            return self._posted(said, await store.run(settling.net, me, said, request))
        if await store.run(settling.is_declined, said):
            return wire.Settled("refused", declined=True)
        state = await store.run(settling.is_new, said)
        if state == "stale":
            return wire.Settled("refused")
        if state == "old":
            # If it was agreed to, it still is.
            return self._posted(said, await store.run(settling.agree, me, request.settlement))
        if account not in self._proposed and len(self._proposed) >= MAX_PROPOSED:
            return wire.Settled("refused")
        known = self._proposed.get(account)
        if known is not None and known != request.settlement:
            # The person may be reading it now: what it agrees to is not changed under its hands.
            if await store.run(settling.is_new, settling.opened(me, account, known)) == "new":
                return wire.Settled("refused")
        if known != request.settlement:
            self._proposed[account] = request.settlement
            words = clean_name(said.note)
            note = f"{PROPOSED}{shown(said.amount)} credits" + (f": “{words}”" if words else ".")
            await store.run(tabs.set_note, "provider", account, note)
            self._changed()
        return wire.Settled("waiting")

    async def settle(self, account: bytes, amount: int | None = None) -> int:
        """The person agrees to what this account proposed; gives the µcr by which it owes less. `amount`:
        what it is taken to be. Raises NodeError, StoreError."""
        store, me = await self._ready(), self._signer()
        signed, said = self._waiting(account)
        if amount is not None and amount != said.amount:
            raise NodeError(
                "bad_amount",
                f"It proposed {shown(said.amount)} credits.",
                "Settle that amount, or none.",
            )
        answer = self._posted(said, await store.run(settling.agree, me, signed))
        await self._answered(store, account, signed)
        if answer.declined:
            raise NodeError("declined", "This proposal was declined.", "The user can propose another one.")
        if answer.state != "agreed":
            raise NodeError(
                "tab_changed",
                "The tab has changed since it was proposed, or a receipt is not countersigned.",
                "It will be proposed anew.",
            )
        return said.amount

    async def decline(self, account: bytes) -> int:
        """The person does not agree to what this account proposed; gives the µcr that it was. It can propose
        something else then. Raises NodeError, StoreError."""
        store = await self._ready()
        signed, said = self._waiting(account)
        declined = await store.run(settling.decline, said)
        await self._answered(store, account, signed)
        if not declined:
            raise NodeError(
                "tab_changed",
                "It was agreed to already, or the tab has changed since it was proposed.",
                "See what is owed now: infraxa tabs list.",
            )
        return said.amount

    def waits(self, tab: TabRow) -> bool:
        """Whether a proposal about this tab, as it is now, waits for the person."""
        signed = self._proposed.get(tab.peer)
        return signed is not None and settling.fits(tab, codec.decode(signed.body, deals.Settlement))

    def _waiting(self, account: bytes) -> tuple[codec.Signed, deals.Settlement]:
        """What this account proposed. Raises NodeError `nothing_proposed`."""
        signed = self._proposed.get(account)
        if signed is None:
            raise NodeError(
                "nothing_proposed",
                "This user has not proposed to settle its tab.",
                "It does so on its own node: infraxa tabs settle.",
            )
        return signed, settling.opened(self._signer(), account, signed)

    async def _answered(self, store: Store, account: bytes, signed: codec.Signed) -> None:
        """The proposal does not wait any more; another one of this account that came since does."""
        if self._proposed.get(account) == signed:
            del self._proposed[account]
            await store.run(tabs.set_note, "provider", account, "")
        self._changed()

    def _posted(self, said: deals.Settlement, done: settling.Done) -> wire.Settled:
        """What the account hears; what it owes less is credit again once, however often it is asked for."""
        if done.posted:
            self.settled(said.account, said.amount)
        return done.answer

    def settled(self, account: bytes, amount: int) -> None:
        """The account owes so many µcr less, which it can run up again today."""
        self._credit.settled(account, amount, self._clock())
        self._changed()

    async def set_limit(self, account: bytes, limit: int | None) -> None:
        """How much this account may owe, µcr; None: as much as any stranger. Raises StoreError, NodeError."""
        store = await self._ready()
        await store.run(tabs.set_limit, "provider", account, limit)
        if limit is None:
            self._credit.known.discard(account)
        else:
            self._credit.known.add(account)
        self._changed()


def _buyer(customer: Customer) -> Buyer:
    return Buyer(customer.account, None if customer.relayed else customer.group)
