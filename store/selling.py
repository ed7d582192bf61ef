"""The provider's side of an order's money, step by step: no tab passes its limit, no order is claimed twice,
no number is used twice.

    open_order → trade.move (claimed, processing) → end_order → issue_receipt → accept_countersign
               ↘ expire_order    ↘ requeue, once

Every step is one transaction and may be repeated: what was done stays done, and gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from infraxa.store.db import Connection
from infraxa.store.trade_records import Counts, OrderRow, OrderState, ReceiptRow, Refused

MAX_DUE = 16
"""Ended orders of one account without a signed receipt; at more, no further order is taken from it."""


class Due(msgspec.Struct, frozen=True):
    """What an account has to sign."""

    receipt: ReceiptRow | None
    """Issued and unsigned; there is at most one."""
    waiting: tuple[bytes, ...]
    """Orders that have ended and have no receipt yet, the oldest first."""


def open_order(
    conn: Connection, order: OrderRow, *, limit: int, grace_ms: int, name: str = ""
) -> Refused | None:
    """Take an order as `pending`, if what the account owes, its unsigned charges, its open holds and
    `order.hold` stay within its limit; looked at and written in one transaction.

    `order.peer` is the account key; `limit` holds for tabs without one of their own. An order that may cost
    nothing is not measured against it. Refused: `tab_limit`; `receipt_due` with a receipt that was issued
    more than `grace_ms` ago and is not signed, or with MAX_DUE orders to be signed. An order that was taken
    already is left as it is.
    """
    raise NotImplementedError


def requeue(conn: Connection, account: bytes, order_id: bytes) -> bool:
    """From `claimed` or `processing` back to `pending`; True once in the life of an order."""
    raise NotImplementedError


def end_order(
    conn: Connection,
    account: bytes,
    order_id: bytes,
    state: OrderState,
    counts: Counts,
    charge: int,
    outcome: str = "",
) -> bool:
    """The order is over, with this node's counts: of its hold the charge stays until the receipt is signed.

    `state` is one of ENDED. False when it had ended before. Raises ValueError unless 0 <= charge <= hold.
    """
    raise NotImplementedError


def expire_order(conn: Connection, account: bytes, order_id: bytes) -> bool:
    """A pending order was never claimed: nothing is owed, there is no receipt. False when it is past that."""
    raise NotImplementedError


def fail_open_orders(conn: Connection) -> int:
    """After a restart: those that were under way have failed, and cost nothing. Gives how many."""
    raise NotImplementedError


def issue_receipt(
    conn: Connection, account: bytes, order_id: bytes, sign: Callable[[OrderRow, int, int], bytes]
) -> ReceiptRow | Refused:
    """The receipt of an order that has ended: `sign(order, seq, owed_before)` makes it, with the tab's next
    number and its balance of the same transaction; it may be called and its result be lost again.

    Gives the one that is kept when there is one, signed by the user or not. Refused: `unknown` (or expired:
    nothing is owed); `running`; `receipt_due` (`order`: the one whose receipt is to be signed first);
    `out_of_step` (see `tabs.adopt_state`).
    """
    raise NotImplementedError


def accept_countersign(
    conn: Connection,
    account: bytes,
    order_id: bytes,
    *,
    countersign: bytes,
    counted: Counts,
    accepted: int,
    rating: bytes | None = None,
) -> ReceiptRow | Refused:
    """Keep the user's signature, verified by the caller, and post the accepted charge; `rating`: what it gets
    for it. Gives what is kept, which is the earlier one when it was signed before.

    Refused: `unknown` when no receipt was issued. Raises ValueError unless 0 <= accepted <= charge.
    """
    raise NotImplementedError


def due(conn: Connection, account: bytes) -> Due:
    """What the account has to sign, now and next."""
    raise NotImplementedError
