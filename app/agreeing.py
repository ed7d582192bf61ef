"""What this side makes of a receipt, and of the news that its countersign arrived: each is one transaction.

What is agreed to is in counting.py, what is said to the driver in signing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infraxa.app import bookkeeping
from infraxa.app.counting import LOST, Improper, judged
from infraxa.app.verifying import Kept
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.deals import Countersign, Receipt
from infraxa.net.identity import Signer
from infraxa.store import buying, state, tabs, trade
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow


class Due(NamedTuple):
    """A receipt that is to be agreed to; its signature was verified."""

    signed: Signed
    receipt: Receipt
    order: bytes
    """For which it was asked for, or which it names."""
    asked: bool
    """This side asked for it."""
    account: Signer
    request: bytes
    """See `counting.judged`."""
    counted: bool
    """The tokens were counted by the model's vocabulary."""
    now: int
    """Milliseconds since the epoch."""
    kept: Kept | None = None
    """What it has to commit to, as long as this runs."""

    @property
    def provider(self) -> bytes:
        return self.signed.signer


class Step(NamedTuple):
    """What became of it."""

    order: OrderRow | None = None
    """As it is now, when its money is in another state."""
    send: ReceiptRow | None = None
    """Kept with its countersign, which the driver is to have."""
    noted: bool = False
    """The tab has another note."""
    apart: bool = False
    """It does not continue this side's book, and nothing was written: both are to be compared first."""
    other: ReceiptRow | None = None
    """Another receipt of the same order that was signed before."""


def agree(conn: Connection, due: Due, *, told: bool = False, lost: bool = False) -> Step:
    """Check it, and keep it with a countersign before that is sent. `told`: the books were compared since.
    `lost`: the driver has a countersign to it that this side does not remember."""
    provider, order = due.provider, _order_of(conn, due)
    if order is None:
        return Step()
    kept, whole = trade.get_receipt(conn, "user", provider, order.id), codec.encode(due.signed)
    if kept is not None and kept.receipt != whole:
        # Another receipt for an order that has one: evidence, and never signed.
        state.set_value(conn, f"second receipt {provider.hex()} {order.id.hex()}", whole.hex())
        return _noted(conn, provider, bookkeeping.TWICE)._replace(other=kept)
    if kept is not None:
        return Step(send=kept if due.asked or order.bill != "closed" else None)
    try:
        verdict = judged(due.receipt, order, due.account.id, due.request, due.kept)
    except Improper as error:
        return _noted(conn, provider, bookkeeping.improper(error.what))
    if not bookkeeping.continues(tab := tabs.get_tab(conn, "user", provider), due.receipt):
        if not told:
            return Step(apart=True)
        if not lost or tab.signed_seq < due.receipt.seq:
            return _noted(conn, provider, bookkeeping.DIFFERS)
        # It is part of the state that was adopted.
        released = buying.release(conn, provider, order.id, LOST)
        return Step(trade.get_order(conn, "user", provider, order.id) if released else None)
    countersign = Countersign(
        receipt=deals.receipt_hash(due.signed),
        n_prompt=verdict.counts.n_prompt,
        n_out=verdict.counts.n_out,
        charge=verdict.accepted,
        counted=due.counted,
        signed=due.now,
    )
    signed = buying.sign_receipt(
        conn,
        provider,
        order.id,
        seq=due.receipt.seq,
        receipt=whole,
        countersign=codec.encode(deals.sign(countersign, due.account)),
        billed=Counts(due.receipt.n_prompt, due.receipt.n_cached, due.receipt.n_out),
        charge=due.receipt.charge,
        accepted=verdict.accepted,
    )
    if not isinstance(signed, ReceiptRow):
        return _noted(conn, provider, bookkeeping.improper(signed.reason))
    return Step(trade.get_order(conn, "user", provider, order.id), signed)


def acknowledged(
    conn: Connection,
    provider: bytes,
    order: bytes,
    said: wire.Accepted,
    blank: bytes | None,
    keep: Callable[[Connection], object] | None,
) -> Step:
    """The driver has the countersign; `keep` takes down that the answer may be rated by `blank`."""
    buying.acknowledge(conn, provider, order, blank)
    if keep is not None:
        keep(conn)
    tab = tabs.get_tab(conn, "user", provider)
    agrees = said.seq != tab.signed_seq or said.owed == tab.owed
    noted = bookkeeping.note(conn, provider, "" if agrees else bookkeeping.DIFFERS)
    return Step(trade.get_order(conn, "user", provider, order), noted=noted)


def _order_of(conn: Connection, due: Due) -> OrderRow | None:
    """Which order it is for; None when nothing is to be done about it."""
    order = trade.get_order(conn, "user", due.provider, due.order)
    if order is None and not due.asked:
        # Of an order that this side has lost: it is signed for nothing, so that it is out of the way.
        lost = OrderRow(peer=due.provider, id=due.order, model=due.receipt.model)
        buying.open_hold(conn, lost, Caps())
        buying.release(conn, due.provider, due.order, LOST)
        return trade.get_order(conn, "user", due.provider, due.order)
    return order if order is not None and (due.asked or order.ended) else None


def _noted(conn: Connection, provider: bytes, text: str) -> Step:
    return Step(noted=bookkeeping.note(conn, provider, text))
