"""What was earned and spent, per day, model and peer, and the list of receipts behind it.

Sums are kept per quarter of an hour, since days begin at another one in every time zone.
"""

from __future__ import annotations

from infraxa.store.db import Connection
from infraxa.store.trade_records import OrderRow, ReceiptRow, Role, Sums


def earnings(conn: Connection, role: Role, since_ms: int = 0, *, utc: bool = False) -> Sums:
    """The sums of countersigned orders that were opened since then (rounded down to a quarter of an hour);
    days are those of this machine, or of UTC."""
    raise NotImplementedError


def list_receipts(
    conn: Connection,
    role: Role | None = None,
    *,
    peer: bytes | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[tuple[int, OrderRow, ReceiptRow]]:
    """A page of receipts, the newest first, each after its place (`before` of the next page)."""
    raise NotImplementedError
