"""Orders as both sides keep them: how they are read, moved from state to state, and found again after a
restart. What each side does with the money of an order is in buying.py and selling.py.

Everything of an order is found by role, peer and id, so that no peer can touch the order of another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infraxa.store.db import Connection
from infraxa.store.ledger import QUARTER_MS, post, tab_account
from infraxa.store.records import StoreError
from infraxa.store.text import storable
from infraxa.store.trade_records import ENDED, Counts, OrderRow, OrderState, ReceiptRow, Role

OPEN_BILLS = "bill NOT IN ('closed', 'released')"
"""SQL: the money of the order is not settled. Literally as in the index `orders_unsettled`."""

_COLUMNS = (
    "peer, id, model, model_name, chat_id, message_id, quote, price_in, price_out, price_cached, hold, "
    "called, mode, canary, role, state, bill, held, billed_prompt, billed_cached, billed_out, "
    "counted_prompt, counted_cached, counted_out, charge, accepted, reversed, outcome, requeued, opened_at, "
    "sent_at, claimed_at, ended_at, unclaimed_until, transcript"
)
_RECEIPT = (
    "r.role, r.peer, o.id, r.tab_seq, r.receipt, r.countersign, r.rating, o.charge, o.accepted, r.issued_at, "
    "r.signed_at FROM receipts r JOIN orders o ON o.n = r.order_n"
)


def has_completed(conn: Connection, role: Role, peer: bytes) -> bool:
    """Whether an order of this peer was answered to its end."""
    return bool(
        conn.execute(
            "SELECT EXISTS (SELECT 1 FROM orders WHERE role = ? AND peer = ? AND state = 'completed')",
            (role, peer),
        ).fetchone()[0]
    )


def get_order(conn: Connection, role: Role, peer: bytes, order_id: bytes) -> OrderRow | None:
    """The order, or None when this peer has none of this id."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM orders WHERE role = ? AND peer = ? AND id = ?", (role, peer, order_id)
    ).fetchone()
    return None if row is None else _order(row)


def get_receipt(conn: Connection, role: Role, peer: bytes, order_id: bytes) -> ReceiptRow | None:
    """The receipt of the order, or None when there is none."""
    row = conn.execute(
        f"SELECT {_RECEIPT} WHERE o.role = ? AND o.peer = ? AND o.id = ?", (role, peer, order_id)
    ).fetchone()
    return None if row is None else ReceiptRow(*row)


def move(
    conn: Connection,
    role: Role,
    peer: bytes,
    order_id: bytes,
    from_states: Iterable[OrderState],
    to: OrderState,
) -> bool:
    """Whether the order was in one of `from_states`, and is now in `to`: of several callers one is told so.

    For `claimed` and `processing`; an order ends by `buying.count_order` and `selling.end_order`.
    """
    assert to not in ENDED
    states = tuple(from_states)
    marks = ", ".join("?" * len(states))
    claimed = ", claimed_at = ?" if to == "claimed" else ""
    times = (conn.clock(),) if claimed else ()
    moved = conn.execute(
        f"UPDATE orders SET state = ?{claimed} WHERE role = ? AND peer = ? AND id = ? AND state IN ({marks})",
        (to, *times, role, peer, order_id, *states),
    )
    return moved.rowcount == 1


def unsettled(conn: Connection, role: Role, peer: bytes | None = None) -> list[OrderRow]:
    """The orders, with this peer or with all, whose money is not settled, the oldest first: what is to be
    taken up after a restart, and whenever there is a session with the peer."""
    peers, given = ("", ()) if peer is None else (" AND peer = ?", (peer,))
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM orders WHERE role = ?{peers} AND {OPEN_BILLS} ORDER BY n", (role, *given)
    )
    return [_order(row) for row in rows]


def receipts_before(
    conn: Connection, role: Role | None, peer: bytes | None, before: int | None, limit: int
) -> list[tuple[int, OrderRow, ReceiptRow]]:
    """See `earnings.list_receipts`."""
    given = {"role": role, "peer": peer, "order_n": before}
    signs = {"role": "=", "peer": "=", "order_n": "<"}
    which = " AND ".join(f"{name} {signs[name]} :{name}" for name in given if given[name] is not None) or "1"
    places = conn.execute(
        f"SELECT order_n FROM receipts WHERE {which} ORDER BY order_n DESC LIMIT :limit",
        {**given, "limit": limit},
    ).fetchall()
    page = []
    for (n,) in places:
        order = _order(conn.execute(f"SELECT {_COLUMNS} FROM orders WHERE n = ?", (n,)).fetchone())
        page.append(
            (n, order, ReceiptRow(*conn.execute(f"SELECT {_RECEIPT} WHERE o.n = ?", (n,)).fetchone()))
        )
    return page


def receipts_of(conn: Connection, order_id: bytes) -> list[tuple[int, OrderRow, ReceiptRow]]:
    """The receipts of the orders with this number, of either role, each after its place."""
    found = conn.execute("SELECT n FROM orders WHERE id = ?", (order_id,)).fetchall()
    pages = (receipts_before(conn, None, None, n + 1, 1) for (n,) in found)
    return [row for page in pages for row in page if row[1].id == order_id]


def find(conn: Connection, role: Role, peer: bytes, order_id: bytes) -> tuple[int, OrderRow] | None:
    """The order with its row, for what refers to it."""
    row = conn.execute(
        f"SELECT n, {_COLUMNS} FROM orders WHERE role = ? AND peer = ? AND id = ?", (role, peer, order_id)
    ).fetchone()
    return None if row is None else (row[0], _order(row[1:]))


def is_open(conn: Connection, role: Role, order: OrderRow) -> bool:
    """Whether this order is there already. Raises StoreError `exists` when the peer has another one of its
    id."""
    known = get_order(conn, role, order.peer, order.id)
    if known is None:
        return False
    if (known.model, known.hold, known.quote) != (order.model, order.hold, order.quote):
        raise StoreError("exists", "This id was used for another order before.")
    return True


RESTORED = "restored"
"""The name of a value (see state.py): the number that a provider's new tabs go on from, since it may have had
them, after a backup was made that was put back since."""
NEW_TAB = (
    "INSERT INTO tabs (role, peer, name, seq, needs_sync) SELECT ?1, ?2, ?3, coalesce(max(s), 0), count(s) "
    f"FROM (SELECT CAST(value AS INTEGER) AS s FROM state WHERE name = '{RESTORED}' AND ?1 = 'provider') "
    "WHERE true"
)


def insert(conn: Connection, role: Role, order: OrderRow, name: str) -> None:
    """Write a new order whole, and the name that its peer claims."""
    conn.execute(
        f"{NEW_TAB} "
        "ON CONFLICT (role, peer) DO UPDATE SET name = excluded.name WHERE excluded.name NOT IN ('', name)",
        (role, order.peer, storable(name)),
    )
    conn.execute(
        "INSERT INTO orders (role, peer, id, state, bill, model, model_name, chat_id, message_id, quote, "
        "price_in, price_out, price_cached, hold, called, mode, canary, held, outcome, opened_at) "
        "VALUES (?, ?, ?, 'pending', 'held', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)",
        (
            role, order.peer, order.id, order.model, storable(order.model_name), order.chat_id,
            order.message_id, order.quote, order.price_in, order.price_out, order.price_cached,
            order.hold, order.called, order.mode, order.canary, order.reserved, conn.clock(),
        ),
    )  # fmt: skip


def tab_limit(conn: Connection, role: Role, peer: bytes, default: int | None) -> tuple[int | None, int]:
    """The limit of the tab, or `default` without one of its own; and what is held for its open orders and
    unsigned receipts."""
    row = conn.execute("SELECT credit FROM tabs WHERE role = ? AND peer = ?", (role, peer)).fetchone()
    (held,) = conn.execute(
        f"SELECT coalesce(sum(held), 0) FROM orders WHERE role = ? AND peer = ? AND {OPEN_BILLS}",
        (role, peer),
    ).fetchone()
    return (default if row is None or row[0] is None else row[0]), held


def post_charge(
    conn: Connection, order_n: int, order: OrderRow, seq: int, billed: Counts, charge: int, accepted: int
) -> None:
    """Move the tab by what was accepted, and the sums; to be done once, with the order's own row.

    A number that was adopted after a loss is in the tab's balance: then only what it was for is posted.
    """
    role, peer = order.role, order.peer
    (adopted_seq,) = conn.execute(
        "SELECT adopted_seq FROM tabs WHERE role = ? AND peer = ?", (role, peer)
    ).fetchone()
    other = "adopted" if seq <= adopted_seq else tab_account(role, peer)
    postings = (
        {"spent": accepted, other: -accepted} if role == "user" else {other: accepted, "earned": -accepted}
    )
    if accepted:
        post(conn, f"charge:{order_n}", "charge", postings, order_n=order_n)
    conn.execute(
        "UPDATE tabs SET seq = max(seq, ?), signed_seq = max(signed_seq, ?), disputed = disputed + ? "
        "WHERE role = ? AND peer = ?",
        (seq, seq, charge - accepted, role, peer),
    )
    conn.execute(
        "INSERT INTO sums (role, quarter, peer, model, model_name, orders, n_prompt, n_cached, n_out, "
        "accepted, disputed, reversed) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, 0) "
        "ON CONFLICT (role, quarter, peer, model) DO UPDATE SET model_name = excluded.model_name, "
        "orders = orders + 1, n_prompt = n_prompt + excluded.n_prompt, "
        "n_cached = n_cached + excluded.n_cached, n_out = n_out + excluded.n_out, "
        "accepted = accepted + excluded.accepted, "
        "disputed = disputed + excluded.disputed",
        (
            role, order.opened_at // QUARTER_MS, peer, order.model, order.model_name,
            billed.n_prompt, billed.n_cached, billed.n_out, accepted, charge - accepted,
        ),
    )  # fmt: skip
    if order.called:
        conn.execute(
            "INSERT INTO calls (quarter, accepted) VALUES (?, ?) "
            "ON CONFLICT (quarter) DO UPDATE SET accepted = accepted + excluded.accepted",
            (order.opened_at // QUARTER_MS, accepted),
        )


def _order(row: tuple[Any, ...]) -> OrderRow:
    values = dict(zip(_FIELDS, (*row[:18], _counts(row[18:21]), _counts(row[21:24]), *row[24:]), strict=True))
    for name in ("requeued", "called", "canary"):
        values[name] = bool(values[name])
    return OrderRow(**values)


def _counts(row: tuple[Any, ...]) -> Counts | None:
    return None if row[0] is None else Counts(*row)


_FIELDS = OrderRow.__struct_fields__
