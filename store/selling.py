"""The provider's side of an order's money, step by step: no tab passes its limit, no order is claimed twice,
no number is used twice.

    open_order → trade.move (claimed, processing) → end_order → issue_receipt → accept_countersign
               ↘ expire_order    ↘ requeue, once

Every step is one transaction and may be repeated: what was done stays done, and gives the same answer.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from infraxa.store.db import Connection, transaction
from infraxa.store.ledger import owed
from infraxa.store.text import storable
from infraxa.store.trade import (
    OPEN_BILLS,
    find,
    get_order,
    get_receipt,
    insert,
    is_open,
    post_charge,
    tab_limit,
)
from infraxa.store.trade_records import ENDED, MAX_AMOUNT, Counts, OrderRow, OrderState, ReceiptRow, Refused

MAX_DUE = 160
"""Ended orders of one account without a signed receipt; at more, no further order is taken from it. They are
settled one after the other, and who buys much lets some wait."""

FORGOTTEN_AT_ONCE = 100
"""Orders that are deleted in one transaction."""


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
    account = order.peer
    with transaction(conn):
        if is_open(conn, "provider", order):
            return None
        refused = _unsigned(conn, account, grace_ms)
        if refused is not None:
            return refused
        most, held = tab_limit(conn, "provider", account, limit)
        used = held + owed(conn, "provider", account)
        assert most is not None  # `limit` is not
        if order.hold > MAX_AMOUNT:
            return Refused("tab_limit", min(most, MAX_AMOUNT), used)
        # What is free does not raise what is owed: a full tab does not stop it.
        if order.hold and used + order.hold > most:
            return Refused("tab_limit", most, used)
        insert(conn, "provider", order, name)
    return None


def requeue(conn: Connection, account: bytes, order_id: bytes) -> bool:
    """From `claimed` or `processing` back to `pending`; True once in the life of an order."""
    moved = conn.execute(
        "UPDATE orders SET state = 'pending', requeued = 1 WHERE role = 'provider' AND peer = ? AND id = ? "
        "AND state IN ('claimed', 'processing') AND requeued = 0",
        (account, order_id),
    )
    return moved.rowcount == 1


def end_order(
    conn: Connection,
    account: bytes,
    order_id: bytes,
    state: OrderState,
    counts: Counts,
    charge: int,
    outcome: str = "",
    transcript: bytes | None = None,
) -> bool:
    """The order is over, with this node's counts: of its hold the charge stays until the receipt is signed.
    `transcript`: what the receipt says of how it was answered, encoded.

    `state` is one of ENDED. False when it had ended before. Raises ValueError unless 0 <= charge <= hold.
    """
    assert state in ENDED
    with transaction(conn):
        order = get_order(conn, "provider", account, order_id)
        if order is None or order.ended:
            return False
        if not 0 <= charge <= order.hold:
            raise ValueError(f"a charge of {charge} for a hold of {order.hold}")
        conn.execute(
            "UPDATE orders SET state = ?, bill = 'due', charge = ?, held = ?, billed_prompt = ?, "
            "billed_cached = ?, billed_out = ?, outcome = ?, transcript = ?, ended_at = ? "
            "WHERE role = 'provider' AND peer = ? AND id = ?",
            (
                state, charge, charge, counts.n_prompt, counts.n_cached, counts.n_out, storable(outcome),
                transcript, conn.clock(), account, order_id,
            ),
        )  # fmt: skip
    return True


def expire_order(conn: Connection, account: bytes, order_id: bytes) -> bool:
    """A pending order was never claimed: nothing is owed, there is no receipt. False when it is past that."""
    expired = conn.execute(
        "UPDATE orders SET state = 'expired', bill = 'released', held = 0, ended_at = ? "
        "WHERE role = 'provider' AND peer = ? AND id = ? AND state = 'pending'",
        (conn.clock(), account, order_id),
    )
    return expired.rowcount == 1


def forget_expired(conn: Connection, before_ms: int, free_before_ms: int) -> int:
    """Delete orders that expired before `before_ms`, and those without a receipt that are charged nothing and
    ended before `free_before_ms`, at most FORGOTTEN_AT_ONCE; and the tabs on which nothing else ever was:
    accounts that cost nothing cannot fill the disk. Gives how many orders.

    Nothing was owed, no receipt was given and no event posted for them; whoever asks for one hears `unknown`.
    Its number could be used again, for another order with a quote of its own. `claimed_free_since` counts
    them: `free_before_ms` is not within the time that it is asked about.
    """
    gone: list[tuple[bytes]] = []
    with transaction(conn):
        for which, before in (
            ("state = 'expired' AND bill = 'released'", before_ms),
            ("bill = 'due' AND charge = 0", free_before_ms),
        ):
            # With the +, SQLite takes the index that has these alone, not the one of all orders by role.
            gone += conn.execute(
                f"DELETE FROM orders WHERE n IN (SELECT n FROM orders WHERE +role = 'provider' AND {which} "
                "AND ended_at < ? ORDER BY ended_at LIMIT ?) RETURNING peer",
                (before, FORGOTTEN_AT_ONCE - len(gone)),
            ).fetchall()
        conn.executemany(
            "DELETE FROM tabs WHERE role = 'provider' AND peer = ? AND signed_seq = 0 AND disputed = 0 "
            "AND credit IS NULL AND node IS NULL AND note = '' "
            "AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.role = tabs.role AND o.peer = tabs.peer)",
            set(gone),
        )
    return len(gone)


def expire_open_orders(conn: Connection) -> int:
    """After a restart: nothing is owed for those that were never claimed (`expire_order`). One that was taken
    back is not among them, since its user knows that it was. Gives how many."""
    return conn.execute(
        "UPDATE orders SET state = 'expired', bill = 'released', held = 0, ended_at = ? "
        f"WHERE role = 'provider' AND {OPEN_BILLS} AND state = 'pending' AND requeued = 0",
        (conn.clock(),),
    ).rowcount


def fail_open_orders(conn: Connection) -> int:
    """After a restart: those that were under way have failed, and cost nothing. Gives how many."""
    return conn.execute(
        "UPDATE orders SET state = 'failed', bill = 'due', charge = 0, held = 0, billed_prompt = 0, "
        "billed_cached = 0, billed_out = 0, outcome = 'failed', ended_at = ? "
        f"WHERE role = 'provider' AND {OPEN_BILLS} AND bill = 'held'",
        (conn.clock(),),
    ).rowcount


def held_since(conn: Connection, since_ms: int) -> dict[bytes, int]:
    """What is held of each account for orders that were opened since then and are not settled."""
    return dict(
        conn.execute(
            f"SELECT peer, sum(held) FROM orders WHERE role = 'provider' AND {OPEN_BILLS} "
            "AND held > 0 AND opened_at >= ? GROUP BY peer",
            (since_ms,),
        ).fetchall()
    )


def claimed_free_since(conn: Connection, since_ms: int) -> Counter[bytes]:
    """How many orders without a quote of each account were opened since then, and served or begun. Reads the
    orders since then, and one more."""
    counts = Counter[bytes]()
    rows = conn.execute(
        "SELECT peer, opened_at, role = 'provider' AND quote = x'' AND claimed_at IS NOT NULL FROM orders "
        "ORDER BY n DESC"
    )
    with contextlib.closing(rows):
        for account, opened_at, is_one in rows:
            if opened_at < since_ms:
                break
            counts[account] += is_one
    return +counts


def issue_receipt(
    conn: Connection, account: bytes, order_id: bytes, sign: Callable[[OrderRow, int, int], bytes]
) -> ReceiptRow | Refused:
    """The receipt of an order that has ended: `sign(order, seq, owed_before)` makes it, with the tab's next
    number and its balance of the same transaction; it may be called and its result be lost again.

    Gives the one that is kept when there is one, signed by the user or not. Refused: `unknown` (or expired:
    nothing is owed); `running`; `receipt_due` (`order`: the one whose receipt is to be signed first);
    `out_of_step` (see `tabs.adopt_state`).
    """
    with transaction(conn):
        found = find(conn, "provider", account, order_id)
        if found is None or found[1].bill == "released":
            return Refused("unknown")
        n, order = found
        kept = get_receipt(conn, "provider", account, order_id)
        if kept is not None:
            return kept
        if order.bill == "held":
            return Refused("running")
        seq, needs_sync = conn.execute(
            "SELECT seq, needs_sync FROM tabs WHERE role = 'provider' AND peer = ?", (account,)
        ).fetchone()
        if needs_sync:
            return Refused("out_of_step")
        issued = _issued(conn, account)
        if issued is not None:
            return Refused("receipt_due", order=issued[0])
        now = conn.clock()
        seq += 1
        receipt = sign(order, seq, owed(conn, "provider", account))
        conn.execute("UPDATE tabs SET seq = ? WHERE role = 'provider' AND peer = ?", (seq, account))
        conn.execute(
            "INSERT INTO receipts (order_n, role, peer, tab_seq, receipt, issued_at) "
            "VALUES (?, 'provider', ?, ?, ?, ?)",
            (n, account, seq, receipt, now),
        )
        conn.execute("UPDATE orders SET bill = 'issued' WHERE n = ?", (n,))
        conn.lasting = True
        assert order.charge is not None  # it has ended
        return ReceiptRow(
            "provider", account, order_id, seq, receipt, None, None, order.charge, None, now, None
        )


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
    with transaction(conn):
        found = find(conn, "provider", account, order_id)
        kept = get_receipt(conn, "provider", account, order_id)
        if found is None or kept is None:
            return Refused("unknown")
        if kept.countersign is not None:
            return kept
        n, order = found
        if not 0 <= accepted <= kept.charge:
            raise ValueError(f"{accepted} accepted of {kept.charge}")
        assert order.billed is not None  # there is a receipt
        now = conn.clock()
        conn.execute(
            "UPDATE receipts SET countersign = ?, rating = ?, signed_at = ? WHERE order_n = ?",
            (countersign, rating, now, n),
        )
        conn.execute(
            "UPDATE orders SET bill = 'closed', held = 0, accepted = ?, counted_prompt = ?, "
            "counted_cached = ?, counted_out = ? WHERE n = ?",
            (accepted, counted.n_prompt, counted.n_cached, counted.n_out, n),
        )
        post_charge(conn, n, order, kept.tab_seq, order.billed, kept.charge, accepted)
        return replace(kept, countersign=countersign, rating=rating, accepted=accepted, signed_at=now)


def due(conn: Connection, account: bytes) -> Due:
    """What the account has to sign, now and next."""
    with transaction(conn):
        waiting = conn.execute(
            f"SELECT id FROM orders WHERE role = 'provider' AND peer = ? AND {OPEN_BILLS} AND bill = 'due' "
            "ORDER BY n",
            (account,),
        )
        ids = tuple(row[0] for row in waiting)
        issued = _issued(conn, account)
        receipt = None if issued is None else get_receipt(conn, "provider", account, issued[0])
    return Due(receipt, ids)


def _issued(conn: Connection, account: bytes) -> tuple[bytes, int] | None:
    """The order whose receipt this account is to sign, and when it was issued."""
    row = conn.execute(
        "SELECT o.id, r.issued_at FROM orders o JOIN receipts r ON r.order_n = o.n "
        "WHERE o.peer = ? AND o.bill = 'issued'",
        (account,),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def _unsigned(conn: Connection, account: bytes, grace_ms: int) -> Refused | None:
    issued = _issued(conn, account)
    if issued is not None and conn.clock() - issued[1] > grace_ms:
        return Refused("receipt_due", order=issued[0])
    (waiting,) = conn.execute(
        f"SELECT count(*) FROM orders WHERE role = 'provider' AND peer = ? AND {OPEN_BILLS} AND bill = 'due'",
        (account,),
    ).fetchone()
    if waiting + (issued is not None) < MAX_DUE:
        return None
    first = issued[0] if issued is not None else due(conn, account).waiting[0]
    return Refused("receipt_due", MAX_DUE, waiting + (issued is not None), first)
