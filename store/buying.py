"""The user's side of an order's money, step by step: what is spent never passes a cap, nor a tab its limit.

    open_hold → mark_sent → count_order → sign_receipt → acknowledge
              ↘ release (refused, or the provider never heard of it)
                          ↘ mark_unclaimed (the driver is gone) → sign_receipt, or release_unclaimed

Every step is one transaction and may be repeated: what was done stays done, and gives the same answer.
"""

from __future__ import annotations

from infraxa.store.db import Connection
from infraxa.store.trade_records import (
    Caps,
    Counts,
    OrderRow,
    OrderState,
    ReceiptRow,
    Refused,
    Spending,
)


def open_hold(conn: Connection, order: OrderRow, caps: Caps, name: str = "") -> Refused | None:
    """Reserve `order.hold` for an order that is about to be sent, if every cap (request, chat, day) and the
    limit of the provider's tab leave room for it; all looked at and written in one transaction.

    A cap is compared with what is spent and held of it, `order.hold` included. `name`: as the provider is
    called now. Refused: `request_cap`, `chat_cap`, `day_cap`, `tab_limit`. An order that is open already is
    left as it is. A hold of 0 with `Caps()` brings back an order that this side lost with its disk, so that
    its receipt can be signed for nothing.
    """
    raise NotImplementedError


def mark_sent(conn: Connection, provider: bytes, order_id: bytes) -> bool:
    """The order is about to leave this machine: from now on the provider may charge it. Called before it is
    sent, so that an order without it was never sent (see `release_unsent`). False: there is no such order."""
    raise NotImplementedError


def count_order(
    conn: Connection,
    provider: bytes,
    order_id: bytes,
    state: OrderState,
    counts: Counts,
    charge: int,
    outcome: str = "",
) -> bool:
    """The order is over for this side: keep its own count, and hold no more than `charge`, the most that it
    will accept (the whole hold when it could not count).

    `state` is one of ENDED. False when it was counted before, or its money is past that.
    """
    raise NotImplementedError


def sign_receipt(
    conn: Connection,
    provider: bytes,
    order_id: bytes,
    *,
    seq: int,
    receipt: bytes,
    countersign: bytes,
    billed: Counts,
    charge: int,
    accepted: int,
) -> ReceiptRow | Refused:
    """Keep a receipt with its countersign and post the accepted charge, before the countersign is sent.

    `seq`, `billed` and `charge` are the receipt's; it is verified by the caller. Gives the receipt and the
    countersign that are kept: send these, they are the earlier ones when the order was signed before.
    Refused: `unknown` (no such order), `released` (nothing was owed any more), `seq_used` (its number is not
    above the last one of this tab: not a receipt to sign), `out_of_step` (see `tabs.adopt_state`).
    Raises ValueError unless 0 <= accepted <= charge and accepted <= what is held.
    """
    raise NotImplementedError


def acknowledge(conn: Connection, provider: bytes, order_id: bytes, rating: bytes | None = None) -> bool:
    """The provider has the countersign; keep the blank rating that it gave. False when it was told before,
    or nothing is signed."""
    raise NotImplementedError


def release(conn: Connection, provider: bytes, order_id: bytes, outcome: str = "") -> bool:
    """Nothing is owed for the order (refused, or unknown to the provider): free its hold. False when it is
    free, or signed, already."""
    raise NotImplementedError


def mark_unclaimed(conn: Connection, provider: bytes, order_id: bytes, until_ms: int) -> bool:
    """The driver is gone without an end: its hold stays until then, unless a receipt comes. The first time
    counts. False when its money is settled, or it is marked already."""
    raise NotImplementedError


def release_unclaimed(conn: Connection) -> list[bytes]:
    """Free the holds whose time has come; gives the ids of their orders."""
    raise NotImplementedError


def release_unsent(conn: Connection) -> list[bytes]:
    """After a restart: free the holds of orders that never left this machine, and call those that were under
    way `failed`, their holds kept. Gives the ids of the former."""
    raise NotImplementedError


def spent_since(conn: Connection, day_start_ms: int) -> Spending:
    """By orders that were opened since then (rounded down to a quarter of an hour)."""
    raise NotImplementedError


def spent_in_chat(conn: Connection, chat_id: str) -> Spending:
    """By all orders of the chat."""
    raise NotImplementedError
