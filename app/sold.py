"""An order that this provider took: its rates, what is reserved for it, and its steps in the ledger.

Functions on the ledger; when they are called is said in intake.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from infraxa.app import bills
from infraxa.app.credit import Buyer
from infraxa.engine.types import Budget
from infraxa.net import codec, deals, market, tab, wire
from infraxa.net.deals import Outcome
from infraxa.net.market import Rates
from infraxa.store import earnings, selling, trade
from infraxa.store.db import Connection
from infraxa.store.trade_records import Counts, OrderRow, OrderState, Refused

FREE_OUT: Final = 256
"""Tokens that an answer may have that is given away where others pay."""
_STATES: Final[dict[Outcome, OrderState]] = {
    "stop": "completed",
    "length": "completed",
    "embedded": "completed",
    "scored": "completed",
    "cancelled": "cancelled",
    "failed": "failed",
}


class End(NamedTuple):
    """How an order ended, with what was delivered."""

    outcome: Outcome
    n_prompt: int = 0
    """Tokens that are charged for: when no token came, those that were read."""
    n_cached: int = 0
    n_out: int = 0
    gone: bool = False
    """Its user was lost."""
    transcript: bytes | None = None
    """What the receipt says of how it was answered: an encoded deals.Transcript."""


@dataclass(eq=False)
class Sold:
    """One order while it is here."""

    buyer: Buyer
    order: bytes
    model: bytes
    rates: Rates
    hold: int
    """µcr that it may cost at most."""
    free_use: bool
    """Others pay for what this one gets free of charge."""
    at_ms: int
    """When it was taken."""
    claimed: bool = False
    end: End | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Its end is in the ledger."""

    @property
    def budget(self) -> Budget | None:
        """For the engine, which ends the answer before it costs more than the hold."""
        if self.rates == market.FREE:
            return None
        return Budget(self.hold, self.rates.price_in, self.rates.price_out)

    @property
    def charge(self) -> int:
        """µcr, by its end."""
        if self.end is None or not self.claimed:
            return 0
        outcome, n_prompt, n_cached, n_out = self.end[:4]
        return market.charge_of(outcome, n_prompt, n_prompt, n_cached, n_out, self.rates, self.hold)

    @property
    def used(self) -> int:
        """µcr of a stranger's share: the charge. What was read for a user that was lost before the first
        token is not charged, but used; else its link is dropped by whoever wants that for nothing."""
        if self.end is None or not self.claimed or not self.end.gone or self.end.n_out:
            return self.charge
        return market.charge(self.end.n_prompt, self.end.n_cached, 0, self.rates, self.hold)


def open_(
    conn: Connection, sold: Sold, order: wire.Order, name: str, quote: bytes, limit: int
) -> Refused | Literal["known"] | None:
    """Take it as pending, if it is within the account's limit; `limit`: of those without one of their own.
    `known`: there was an order of this number."""
    account = sold.buyer.account
    if trade.get_order(conn, "provider", account, sold.order) is not None:
        return "known"
    row = OrderRow(
        peer=account,
        id=sold.order,
        model=sold.model,
        model_name=name,
        # What the receipt will name: it must outlive this program.
        message_id=deals.request_hash(codec.encode(order)).hex(),
        quote=quote,
        price_in=sold.rates.price_in,
        price_out=sold.rates.price_out,
        price_cached=sold.rates.price_cached,
        hold=sold.hold,
        mode=order.mode,
    )
    used, most = bills.standing(conn, account, limit)
    if sold.hold and used + sold.hold > most:
        return Refused("tab_limit", most, used)
    return selling.open_order(conn, row, limit=limit, grace_ms=tab.RECEIPT_GRACE_MS)


def claim(conn: Connection, sold: Sold) -> bool:
    """It has a slot; True once."""
    return trade.move(conn, "provider", sold.buyer.account, sold.order, ("pending",), "claimed")


def process(conn: Connection, sold: Sold) -> bool:
    """Its prompt is here; True once."""
    return trade.move(conn, "provider", sold.buyer.account, sold.order, ("claimed",), "processing")


def requeue(conn: Connection, sold: Sold) -> bool:
    """It has no slot any more, and nothing was sent; True once."""
    return selling.requeue(conn, sold.buyer.account, sold.order)


def end(conn: Connection, sold: Sold) -> None:
    """It is over: nothing is owed for what was never claimed, the charge for the rest."""
    account, ended = sold.buyer.account, sold.end or End("failed")
    # Who was cancelled while it was claimed does not know that it was.
    if not sold.claimed and selling.expire_order(conn, account, sold.order):
        return
    counts = Counts(ended.n_prompt, ended.n_cached, ended.n_out)
    state, transcript = _STATES[ended.outcome], ended.transcript
    selling.end_order(conn, account, sold.order, state, counts, sold.charge, ended.outcome, transcript)


def end_all(conn: Connection) -> None:
    """After a restart: nothing is owed for what waited, nor for what ran, whose counts are lost."""
    selling.expire_open_orders(conn)
    selling.fail_open_orders(conn)


def used_since(conn: Connection, since_ms: int) -> dict[bytes, int]:
    """µcr that were charged to each account for orders since then, countersigned or not."""
    sums = earnings.earnings(conn, "provider", since_ms, utc=True).peers
    used = {bytes(one.key): one.accepted + one.disputed for one in sums if isinstance(one.key, bytes)}
    for account, held in selling.held_since(conn, since_ms).items():
        used[account] = used.get(account, 0) + held
    return used
