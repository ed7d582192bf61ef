"""The money of one answer: each of its orders is quoted and reserved before it leaves, counted when it is
over, and told of as a bill.

The rates and the caps are purse.py's, what is settled afterwards is paying.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

import msgspec

from infraxa.app import canary_money, canary_rules, order_words
from infraxa.app.counting import (
    TEXT_TOKENS,
    Agreed,
    charge_of,
    hold_in,
    most_of,
    own_counts,
    planned,
    planned_texts,
    read_most,
    texts_read,
)
from infraxa.app.errors import NodeError
from infraxa.app.locked import LEAVES_S, Locked
from infraxa.app.offers import OfferSeen
from infraxa.app.verifying import Kept
from infraxa.engine.types import ErrorInfo
from infraxa.net import codec, deals, market, wire
from infraxa.net.deals import Outcome
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.market import FREE, Rates
from infraxa.net.orders import Done
from infraxa.net.prompts import Prompt
from infraxa.net.wire import Order
from infraxa.store import buying
from infraxa.store.db import Connection
from infraxa.store.records import Bill, StoreError
from infraxa.store.trade_records import Caps, Counts, OrderRow, OrderState, Refused

if TYPE_CHECKING:
    from infraxa.app.purse import Purse
    from infraxa.engine.vocabulary import Vocabulary
    from infraxa.net.link import Link
    from infraxa.net.purchase import OrderFailed

SETTLE_S: Final = 5.0
"""For a receipt that a driver wants to be signed first."""
_STATES: Final[dict[Outcome, OrderState]] = {
    "stop": "completed",
    "length": "completed",
    "embedded": "completed",
    "scored": "completed",
    "cancelled": "cancelled",
    "failed": "failed",
}


class NotBought(Exception):
    """It was not ordered, and why."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


class Ended(NamedTuple):
    """How an order ended, as far as this side knows."""

    outcome: Outcome
    taken: bool = False
    """It left, and the driver did not refuse it at once."""
    sent: bool = False
    """The prompt left, or some of it."""
    ids: Sequence[int] = ()
    """The tokens that came."""
    text: str = ""
    """Of them."""
    vectors: Sequence[int] = ()
    """The tokens of the texts whose vectors came, or of the answer whose scores did, as the driver says."""
    done: Done | None = None
    tokens_per_second: float | None = None
    why: str = ""
    """Why it cannot be checked, see store.records.Verdict."""
    kept: Kept | None = None
    """By what it can be."""


class _Open(NamedTuple):
    offer: OfferSeen
    n_prompt: int
    rates: Rates
    hold: int
    stop: tuple[str, ...]
    texts: tuple[str, ...]
    """Whose vectors were asked for."""
    most: Sequence[int]
    """The tokens that each of them can have; or the prompt with the answer whose scores were asked for.
    Empty: an answer was."""
    left: Callable[[], None]


def reserve(
    conn: Connection, made: Callable[[int], OrderRow], hold: int, least: int, caps: Caps, name: str
) -> OrderRow | Refused:
    """Reserve `hold` for an order, or what the caps leave of it when that is `least` or more, and take it
    down as sent. `made`: the order with so much reserved."""
    while (refused := buying.open_hold(conn, order := made(hold), caps, name)) is not None:
        room = refused.limit - refused.used
        if not least <= room < hold:
            return refused
        hold = room
    buying.mark_sent(conn, order.peer, order.id)
    return order


Count = Callable[["Vocabulary"], int | None]
"""The tokens of an answer by its model's vocabulary, or of the texts whose vectors were asked for; None: they
do not make its text."""
Write = Callable[[Connection, bytes, bytes, int | None], None]
"""Takes down how an order ended; with what was counted."""


class Spending:
    """Of one answer, over all its orders. Ends by itself, with the last of them."""

    def __init__(
        self,
        purse: Purse,
        tell: Callable[[tuple[Bill, ...]], None],
        chat_id: str | None = None,
        message_id: str | None = None,
        *,
        called: bool = False,
        canary: bool = False,
    ) -> None:
        """`tell`: its bills are others. `called`: a program asked for it. `canary`: nobody did, or it is the
        audit of such an answer; with `called` it looks as if a program had."""
        self.max_price: int | None = None
        """µcr per 1M tokens, of the answer and of the prompt; None: any."""
        self.unseen = False
        """Nobody looks at the prices: one that is above what was seen is paid as well."""
        self.most_out: int | None = None
        """Of a canary: tokens, after which it is to be cancelled; None: it ends by itself."""
        self.quoted_out = 0
        """Tokens that an answer may have by the quote of the order that began last; 0: it has none."""
        self._purse = purse
        self._tell = tell
        self._chat_id = chat_id
        self._message_id = message_id
        self._called = called
        self._canary = canary
        self._open: dict[bytes, _Open] = {}
        self._bills: dict[str, Bill] = {}
        self._used = 0
        """µcr that its orders before may have cost."""
        self._quoted: set[bytes] = set()
        """Drivers that take nothing without a quote, whatever is known of their prices."""

    def billed(self, bill: Bill) -> None:
        """One of its bills is another one."""
        self._bills[bill.order] = bill
        self._tell(tuple(self._bills.values()))

    @property
    def _place(self) -> tuple[str, str] | None:
        """Chat and message of the answer, when it is kept."""
        if self._chat_id is None or self._message_id is None:
            return None
        return self._chat_id, self._message_id

    def behind(self, provider: bytes) -> bool:
        """See Purse.behind."""
        return self._purse.behind(provider)

    async def caught_up(self, provider: bytes) -> None:
        """See Purse.caught_up."""
        await self._purse.caught_up(provider)

    async def begin(self, link: Link, offer: OfferSeen, order: Order, prompt: Prompt) -> Order:
        """Reserve what the order may cost; the order as it is to be sent. The caller says how it `ended`,
        whatever happens here.

        Raises NodeError for a cap that is reached, NotBought, OrderFailed, StoreError.
        """
        provider = offer.node.id
        try:
            left = await self._purse.locked.take_turn(provider)
        except TimeoutError:
            raise _failed("busy", at="link") from None  # of orders of this side
        self._open[order.id] = _Open(offer, 0, FREE, 0, (), (), (), left)
        locked = None
        if provider in self._quoted or not self._purse.is_free(offer):
            locked = await self._quote(link, offer)
        self.quoted_out = 0 if locked is None else locked.quote.max_out
        rates = FREE if locked is None else locked.rates
        context = offer.model.context or market.UNBOUNDED
        max_out = context if locked is None else locked.quote.max_out
        most = read_most(prompt, context)
        if most:
            plan = planned_texts(most, rates)
        else:
            plan = planned(most_of(prompt), context, order.max_tokens, max_out, rates)
        if locked is not None and locked.room < plan.least:
            raise _failed("tab_limit", failure=wire.Failure("tab_limit", limit=locked.limit))
        hold = plan.most if locked is None else hold_in(plan, locked.room)
        unwritten = self._canary and not most
        if unwritten and locked and not canary_rules.leaves_room(hold, plan.most, locked.room):
            name = order_words.display_name(offer.node.name, provider)
            raise NotBought(order_words.no_room(name, locked.owed, locked.limit))
        order = msgspec.structs.replace(order, quote=b"" if locked is None else locked.quote.id)

        def made(hold: int) -> OrderRow:
            return OrderRow(
                peer=provider,
                id=order.id,
                model=order.model,
                model_name=order_words.label(offer.model.name),
                chat_id=self._chat_id,
                message_id=self._message_id,
                quote=b"" if locked is None else _agreed(locked, _request(order, hold)),
                price_in=rates.price_in,
                price_out=rates.price_out,
                price_cached=rates.price_cached,
                hold=hold,
                called=self._called and not self._canary,
                mode=order.mode,
                canary=self._canary,
                held=hold,
            )

        caps = self._purse.caps(self._used)
        take, least = reserve, plan.least
        if unwritten:
            take, least = partial(canary_money.reserve, begun=plan.least), canary_money.least_of(plan, rates)
            chat, calls = (None, caps.calls) if self._called else (caps.chat, None)
            caps = msgspec.structs.replace(caps, chat=chat, calls=calls)
        kept = await self._purse.store.step(take, made, hold, least, caps, offer.node.name)
        if isinstance(kept, Refused):
            raise order_words.cap_reached(kept.reason, kept.limit, kept.used, least)
        if kept.reserved < kept.hold:
            self.most_out = canary_money.most_out(plan, rates, kept.reserved)
        if locked is None:
            self._purse.paying.requests[order.id] = _request(order, kept.hold)
        self._open[order.id] = _Open(
            offer, plan.n_prompt, rates, kept.hold, prompt.stop, prompt.texts, most, left
        )
        self._purse.began(self, kept)
        asyncio.get_running_loop().call_later(LEAVES_S, left)
        return msgspec.structs.replace(order, hold=kept.hold)

    async def _quote(self, link: Link, offer: OfferSeen) -> Locked:
        from infraxa.net.stream import LinkClosed, StreamCancelled, StreamFailed

        try:
            locked = await self._purse.locked.take(link, offer.node.id, offer.model.model_id)
        except StreamFailed as error:
            raise _failed(error.failure.code, failure=error.failure) from None
        except StreamCancelled:
            raise _failed("cancelled") from None
        except LinkClosed as error:
            raise _failed("gone", at="link", refusal=error.reason) from None
        except NetError as error:
            raise _failed("silent" if error.code == "timeout" else error.code, at="link") from None
        except ProtocolError as error:
            raise _failed("garbage", refusal=error.reason) from None
        name, rates = order_words.display_name(offer.node.name, offer.node.id), locked.rates
        dearer = self._purse.dearer(offer, rates, show=not self._canary)
        price = max(rates.price_in, rates.price_out)
        if self.max_price is not None and price > self.max_price:
            # First: what sending it again does not help against.
            raise NotBought(order_words.too_dear(name, price, self.max_price))
        if dearer is not None and not self.unseen:
            raise NotBought(order_words.dearer(name, *dearer))
        return locked

    def arrived(self, order_id: bytes) -> None:
        """The driver has it."""
        if (opened := self._open.get(order_id)) is not None:
            opened.left()

    def ended(self, order_id: bytes, ended: Ended) -> None:
        """It is over for this side, or was never sent. Returns at once; what is owed is settled later."""
        opened = self._open.pop(order_id, None)
        if opened is None:
            return
        opened.left()
        if not ended.taken:
            self._purse.dropped(opened.offer.node.id, order_id)
            return
        read = texts_read(opened.most, ended.vectors, ended.outcome)
        if ended.sent and opened.most:
            counts = Counts(sum(read))
        elif ended.sent:
            counts = own_counts(
                opened.n_prompt, len(ended.ids), ended.outcome, ended.done, ended.tokens_per_second
            )
        else:
            counts = Counts()
        self._used += charge_of(counts, ended.outcome, opened.rates, opened.hold)

        def count(vocabulary: Vocabulary) -> int | None:
            if not ended.sent:
                return None
            if opened.most:
                texts = opened.texts[: len(read)]
                if not texts:
                    return None
                return vocabulary.fair("\n".join(texts), counts.n_prompt) + TEXT_TOKENS * len(texts)
            whole = ended.done is not None
            counted = vocabulary.count(ended.ids, ended.text, opened.stop, whole=whole)
            return None if counted is None else vocabulary.fair(ended.text, counted)

        if ended.sent and not opened.most:
            self._purse.checkable(opened.offer.node.id, order_id, self._place, ended.why, ended.kept)
        write = self._write(opened, ended, counts)
        self._purse.ended(opened.offer, order_id, count, write, texts=bool(opened.most))

    def _write(self, opened: _Open, ended: Ended, counts: Counts) -> Write:
        """What is taken down of an order, once its tokens were counted by the model's vocabulary."""

        def write(conn: Connection, provider: bytes, order_id: bytes, counted: int | None) -> None:
            known = counts
            if opened.most:
                if counted is not None:
                    known = Counts(min(counts.n_prompt, counted))
            elif ended.sent:
                # Where nothing tells how they belong together: each token that counts has at least a byte.
                shown = len(ended.text.encode()) + max(
                    (len(stop.encode()) for stop in opened.stop), default=0
                )
                less = max(0, len(ended.ids) - (shown if counted is None else counted))
                known = msgspec.structs.replace(counts, n_out=counts.n_out - less)
            charge = charge_of(known, ended.outcome, opened.rates, opened.hold)
            state = _STATES[ended.outcome]
            buying.count_order(conn, provider, order_id, state, known, charge, ended.outcome)

        return write

    async def mended(self, code: str, provider: bytes, order_id: bytes) -> bool:
        """Whether what a driver refused an order for is over, so that it can be made again."""
        if code in ("tab_limit", "strangers_full"):
            # There was room, which another order of this node took: the next quote says how much is left.
            opened = self._open.get(order_id)
            return opened is not None and opened.hold > 0
        if code in ("price_changed", "expired"):
            self._quoted.add(provider)
            return True
        return code == "receipt_due" and await self._settled(provider)

    async def _settled(self, provider: bytes) -> bool:
        try:
            return await self._purse.paying.settled(provider, SETTLE_S)
        except (StoreError, NodeError):
            return False


def _request(order: Order, hold: int) -> bytes:
    return deals.request_hash(codec.encode(msgspec.structs.replace(order, hold=hold)))


def _agreed(locked: Locked, request: bytes) -> bytes:
    signed = locked.signed
    return codec.encode(Agreed(signed.body, signed.signer, signed.signature, request))


def _failed(
    code: str,
    *,
    at: Literal["driver", "link"] = "driver",
    failure: wire.Failure | None = None,
    refusal: Refusal | None = None,
) -> OrderFailed:
    # Here, because it imports what the app's first frame need not wait for.
    from infraxa.net.purchase import OrderFailed

    known = code if code in get_args(wire.ErrorCode) or at == "link" or code == "garbage" else "internal"
    return OrderFailed(known, at=at, sent=False, shown=False, failure=failure, refusal=refusal)
