"""The user's side of an order's money, step by step: what is spent never passes a cap, nor a tab its limit.

    open_hold → mark_sent → count_order → sign_receipt → acknowledge
              ↘ release (refused, or the provider never heard of it)
                          ↘ mark_unclaimed (the driver is gone) → sign_receipt, or release_unclaimed

Every step is one transaction and may be repeated: what was done stays done, and gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from infraxa.store.db import Connection, transaction
from infraxa.store.ledger import QUARTER_MS, owed, post, reversed_account
from infraxa.store.text import storable
from infraxa.store.trade import OPEN_BILLS, find, get_receipt, insert, is_open, post_charge, tab_limit
from infraxa.store.trade_records import (
    ENDED,
    MAX_AMOUNT,
    Caps,
    Counts,
    OrderRow,
    OrderState,
    ReceiptRow,
    RefusalReason,
    Refused,
    Spending,
)


def open_hold(conn: Connection, order: OrderRow, caps: Caps, name: str = "") -> Refused | None:
    """Reserve `order.reserved` for an order that is about to be sent, if every cap (request, chat, day) and
    the limit of the provider's tab leave room for it; all looked at and written in one transaction.

    A cap is compared with what is spent and held of it, what is reserved now included; no request may cost
    more than MAX_AMOUNT. `name`: as the provider is called now. Refused: `request_cap`, `chat_cap`,
    `day_cap`, `calls_cap`, `canaries_cap`, `tab_limit`. An order that is open already is left as it is. A
    hold of 0 with `Caps()` brings back an order that this side lost with its disk, so that its receipt can be
    signed for nothing.
    """
    with transaction(conn):
        if is_open(conn, "user", order):
            return None
        for reason, limit, used in _limits(conn, order, caps):
            if limit is not None and used + order.reserved > limit:
                return Refused(reason, limit, used)
        insert(conn, "user", order, name)
    return None


def mark_sent(conn: Connection, provider: bytes, order_id: bytes) -> bool:
    """The order is about to leave this machine: from now on the provider may charge it. Called before it is
    sent, so that an order without it was never sent (see `release_unsent`). False: there is no such order."""
    marked = conn.execute(
        "UPDATE orders SET sent_at = coalesce(sent_at, ?) WHERE role = 'user' AND peer = ? AND id = ?",
        (conn.clock(), provider, order_id),
    )
    return marked.rowcount == 1


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
    assert state in ENDED
    if charge < 0:
        raise ValueError(f"a charge of {charge}")
    counted = conn.execute(
        "UPDATE orders SET state = ?, bill = 'counted', held = min(held, ?), counted_prompt = ?, "
        "counted_cached = ?, counted_out = ?, outcome = ?, ended_at = ? "
        "WHERE role = 'user' AND peer = ? AND id = ? AND bill = 'held'",
        (
            state, charge, counts.n_prompt, counts.n_cached, counts.n_out, storable(outcome), conn.clock(),
            provider, order_id,
        ),
    )  # fmt: skip
    return counted.rowcount == 1


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
    charge = min(charge, MAX_AMOUNT)
    if not 0 <= accepted <= charge:
        raise ValueError(f"{accepted} accepted of {charge}")
    with transaction(conn):
        found = find(conn, "user", provider, order_id)
        if found is None:
            return Refused("unknown")
        n, order = found
        if order.bill in ("signed", "closed"):
            kept = get_receipt(conn, "user", provider, order_id)
            assert kept is not None
            return kept
        if accepted > order.held:
            if order.bill == "released":
                return Refused("released", used=accepted)
            raise ValueError(f"{accepted} accepted, {order.held} are held")
        refused = _number(conn, provider, seq)
        if refused is not None:
            return refused
        now = conn.clock()
        conn.execute(
            "INSERT INTO receipts (order_n, role, peer, tab_seq, receipt, countersign, issued_at, signed_at) "
            "VALUES (?, 'user', ?, ?, ?, ?, ?, ?)",
            (n, provider, seq, receipt, countersign, now, now),
        )
        conn.execute(
            "UPDATE orders SET bill = 'signed', held = 0, billed_prompt = ?, billed_cached = ?, "
            "billed_out = ?, charge = ?, accepted = ?, unclaimed_until = NULL WHERE n = ?",
            (billed.n_prompt, billed.n_cached, billed.n_out, charge, accepted, n),
        )
        post_charge(conn, n, order, seq, billed, charge, accepted)
        conn.lasting = True
        return ReceiptRow(
            "user", provider, order_id, seq, receipt, countersign, None, charge, accepted, now, now
        )


def acknowledge(conn: Connection, provider: bytes, order_id: bytes, rating: bytes | None = None) -> bool:
    """The provider has the countersign; keep the blank rating that it gave. False when it was told before,
    or nothing is signed."""
    with transaction(conn):
        closed = conn.execute(
            "UPDATE orders SET bill = 'closed' "
            "WHERE role = 'user' AND peer = ? AND id = ? AND bill = 'signed'",
            (provider, order_id),
        )
        if closed.rowcount and rating is not None:
            conn.execute(
                "UPDATE receipts SET rating = ? WHERE order_n = "
                "(SELECT n FROM orders WHERE role = 'user' AND peer = ? AND id = ?)",
                (rating, provider, order_id),
            )
    return closed.rowcount == 1


def release(conn: Connection, provider: bytes, order_id: bytes, outcome: str = "") -> bool:
    """Nothing is owed for the order (refused, or unknown to the provider): free its hold. False when it is
    free, or signed, already."""
    released = conn.execute(
        f"{_RELEASE} WHERE role = 'user' AND peer = ? AND id = ? AND bill IN ('held', 'counted')",
        (storable(outcome), conn.clock(), provider, order_id),
    )
    return released.rowcount == 1


def mark_unclaimed(conn: Connection, provider: bytes, order_id: bytes, until_ms: int) -> bool:
    """The driver is gone without an end: its hold stays until then, unless a receipt comes. The first time
    counts. False when its money is settled, or it is marked already."""
    marked = conn.execute(
        "UPDATE orders SET unclaimed_until = ? WHERE role = 'user' AND peer = ? AND id = ? "
        "AND bill IN ('held', 'counted') AND unclaimed_until IS NULL",
        (until_ms, provider, order_id),
    )
    return marked.rowcount == 1


def release_unclaimed(conn: Connection) -> list[bytes]:
    """Free the holds whose time has come; gives the ids of their orders."""
    with transaction(conn):
        which = (
            f"role = 'user' AND {OPEN_BILLS} AND bill IN ('held', 'counted') "
            f"AND unclaimed_until <= {conn.clock()}"
        )
        return _release_all(conn, which, "unclaimed")


def release_unsent(conn: Connection) -> list[bytes]:
    """After a restart: free the holds of orders that never left this machine, and call those that were under
    way `failed`, their holds kept. Gives the ids of the former."""
    with transaction(conn):
        unsent = _release_all(
            conn, f"role = 'user' AND {OPEN_BILLS} AND bill = 'held' AND sent_at IS NULL", "unsent"
        )
        conn.execute(
            "UPDATE orders SET state = 'failed', outcome = 'interrupted', ended_at = ? "
            f"WHERE role = 'user' AND {OPEN_BILLS} AND state IN ('pending', 'claimed', 'processing')",
            (conn.clock(),),
        )
    return unsent


def reverse(conn: Connection, provider: bytes, order_id: bytes, proof: bytes) -> int:
    """Take back what was accepted for an order, which `proof` shows to be a fraud: it is not spent any more,
    and by this side's own book not owed. The tab stays as both signed it, so that later receipts continue it.
    µcr; 0 when nothing is left to take back."""
    with transaction(conn):
        found = find(conn, "user", provider, order_id)
        if found is None or not (amount := (found[1].accepted or 0) - found[1].reversed):
            return 0
        n, order = found
        postings = {"spent": -amount, reversed_account(provider): amount}
        post(conn, f"reverse:{n}", "reverse", postings, order_n=n, proof=proof)
        conn.execute("UPDATE orders SET reversed = reversed + ? WHERE n = ?", (amount, n))
        conn.execute(
            "UPDATE sums SET reversed = reversed + ? "
            "WHERE role = 'user' AND quarter = ? AND peer = ? AND model = ?",
            (amount, order.opened_at // QUARTER_MS, provider, order.model),
        )
    return amount


def spent_since(conn: Connection, day_start_ms: int) -> Spending:
    """By orders that were opened since then (rounded down to a quarter of an hour)."""
    quarter = day_start_ms // QUARTER_MS
    (spent,) = conn.execute(
        "SELECT coalesce(sum(accepted - reversed), 0) FROM sums WHERE role = 'user' AND quarter >= ?",
        (quarter,),
    ).fetchone()
    (held,) = conn.execute(
        f"SELECT coalesce(sum(held), 0) FROM orders WHERE role = 'user' AND {OPEN_BILLS} AND opened_at >= ?",
        (quarter * QUARTER_MS,),
    ).fetchone()
    return Spending(spent, held)


def spent_by_calls(conn: Connection, day_start_ms: int) -> Spending:
    """As `spent_since`, by the calls of programs alone. What was reversed of it counts all the same."""
    quarter = day_start_ms // QUARTER_MS
    (spent,) = conn.execute(
        "SELECT coalesce(sum(accepted), 0) FROM calls WHERE quarter >= ?", (quarter,)
    ).fetchone()
    (held,) = conn.execute(
        f"SELECT coalesce(sum(held), 0) FROM orders WHERE role = 'user' AND {OPEN_BILLS} AND called "
        "AND opened_at >= ?",
        (quarter * QUARTER_MS,),
    ).fetchone()
    return Spending(spent, held)


def spent_on_canaries(conn: Connection, day_start_ms: int) -> Spending:
    """As `spent_since`, on canaries and their audits by others. What was reversed counts all the same."""
    return Spending(
        *conn.execute(
            "SELECT coalesce(sum(coalesce(accepted, 0)), 0), coalesce(sum(held), 0) "
            "FROM orders WHERE canary AND opened_at >= ?",
            (day_start_ms // QUARTER_MS * QUARTER_MS,),
        ).fetchone()
    )


def spent_in_chat(conn: Connection, chat_id: str) -> Spending:
    """By all orders of the chat."""
    return Spending(
        *conn.execute(
            "SELECT coalesce(sum(coalesce(accepted, 0) - reversed), 0), coalesce(sum(held), 0) "
            "FROM orders WHERE role = 'user' AND chat_id = ?",
            (chat_id,),
        ).fetchone()
    )


_RELEASE = (
    "UPDATE orders SET bill = 'released', held = 0, unclaimed_until = NULL, "
    "state = CASE WHEN state IN ('pending', 'claimed', 'processing') THEN 'failed' ELSE state END, "
    "outcome = CASE WHEN outcome = '' THEN ? ELSE outcome END, ended_at = coalesce(ended_at, ?)"
)


def _limits(conn: Connection, order: OrderRow, caps: Caps) -> Iterator[tuple[RefusalReason, int | None, int]]:
    """Each cap, and what is spent and held of it."""
    yield "request_cap", MAX_AMOUNT if caps.request is None else min(caps.request, MAX_AMOUNT), 0
    if caps.chat is not None and order.chat_id is not None:
        chat = spent_in_chat(conn, order.chat_id)
        yield "chat_cap", caps.chat, chat.spent + chat.held
    if caps.day is not None:
        day = spent_since(conn, caps.day_start_ms)
        yield "day_cap", caps.day, day.spent + day.held
    if caps.calls is not None and order.called:
        by_calls = spent_by_calls(conn, caps.day_start_ms)
        yield "calls_cap", caps.calls, by_calls.spent + by_calls.held
    if caps.canaries is not None and order.canary:
        canaries = spent_on_canaries(conn, caps.day_start_ms)
        yield "canaries_cap", caps.canaries, canaries.spent + canaries.held
    limit, held = tab_limit(conn, "user", order.peer, caps.tab)
    # What is free does not raise what is owed: a full tab does not stop it.
    if order.hold:
        yield "tab_limit", limit, owed(conn, "user", order.peer) + held


def _number(conn: Connection, provider: bytes, seq: int) -> Refused | None:
    """Whether a receipt of this number can be signed."""
    signed_seq, adopted_seq, needs_sync = conn.execute(
        "SELECT signed_seq, adopted_seq, needs_sync FROM tabs WHERE role = 'user' AND peer = ?", (provider,)
    ).fetchone()
    if needs_sync:
        return Refused("out_of_step")
    if adopted_seq < seq <= signed_seq or seq < 1:
        return Refused("seq_used", limit=signed_seq)
    # An adopted number may be of a receipt that this side signed and lost.
    taken = conn.execute(
        "SELECT 1 FROM receipts WHERE role = 'user' AND peer = ? AND tab_seq = ?", (provider, seq)
    ).fetchone()
    return None if taken is None else Refused("seq_used", limit=signed_seq)


def _release_all(conn: Connection, which: str, outcome: str) -> list[bytes]:
    ids = [row[0] for row in conn.execute(f"SELECT id FROM orders WHERE {which}")]
    if ids:
        conn.execute(f"{_RELEASE} WHERE {which}", (outcome, conn.clock()))
    return ids
