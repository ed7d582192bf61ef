"""Orders as both sides keep them: how they are read, moved from state to state, and found again after a
restart. What each side does with the money of an order is in buying.py and selling.py.

Everything of an order is found by role, peer and id, so that no peer can touch the order of another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infraxa.store.db import Connection, transaction
from infraxa.store.records import StoreError
from infraxa.store.text import storable
from infraxa.store.trade_records import ENDED, Counts, OrderRow, OrderState, ReceiptRow, Role

OPEN_BILLS = "bill NOT IN ('closed', 'released')"
"""SQL: the money of the order is not settled. Literally as in the index `orders_unsettled`."""

_COLUMNS = (
    "peer, id, model, model_name, chat_id, message_id, quote, price_in, price_out, price_cached, hold, role, "
    "state, bill, held, billed_prompt, billed_cached, billed_out, counted_prompt, counted_cached, "
    "counted_out, charge, accepted, outcome, requeued, opened_at, sent_at, claimed_at, ended_at, "
    "unclaimed_until"
)
_RECEIPT = (
    "r.role, r.peer, o.id, r.tab_seq, r.receipt, r.countersign, r.rating, o.charge, o.accepted, r.issued_at, "
    "r.signed_at FROM receipts r JOIN orders o ON o.n = r.order_n"
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


def insert(conn: Connection, role: Role, order: OrderRow, name: str) -> bool:
    """Write a new order whole, and the name that its peer claims; False when it is there already.

    Raises StoreError `exists` when this peer has another order of this id.
    """
    with transaction(conn):
        known = get_order(conn, role, order.peer, order.id)
        if known is not None:
            if (known.model, known.hold, known.quote) != (order.model, order.hold, order.quote):
                raise StoreError("exists", "This id was used for another order before.")
            return False
        conn.execute(
            "INSERT INTO tabs (role, peer, name) VALUES (?, ?, ?) "
            "ON CONFLICT (role, peer) DO UPDATE SET name = excluded.name WHERE excluded.name <> ''",
            (role, order.peer, storable(name)),
        )
        conn.execute(
            "INSERT INTO orders (role, peer, id, state, bill, model, model_name, chat_id, message_id, quote, "
            "price_in, price_out, price_cached, hold, held, outcome, opened_at) "
            "VALUES (?, ?, ?, 'pending', 'held', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)",
            (
                role, order.peer, order.id, order.model, storable(order.model_name), order.chat_id,
                order.message_id, order.quote, order.price_in, order.price_out, order.price_cached,
                order.hold, order.hold, conn.clock(),
            ),
        )  # fmt: skip
    return True


def _order(row: tuple[Any, ...]) -> OrderRow:
    values = dict(zip(_FIELDS, (*row[:15], _counts(row[15:18]), _counts(row[18:21]), *row[21:]), strict=True))
    values["requeued"] = bool(values["requeued"])
    return OrderRow(**values)


def _counts(row: tuple[Any, ...]) -> Counts | None:
    return None if row[0] is None else Counts(*row)


_FIELDS = OrderRow.__struct_fields__
