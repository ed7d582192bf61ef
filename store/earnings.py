"""What was earned and spent, per day, model and peer, and the list of receipts behind it.

Sums are kept per quarter of an hour, since days begin at another one in every time zone.
"""

from __future__ import annotations

import datetime
from collections import defaultdict

from infraxa.store.db import Connection
from infraxa.store.ledger import QUARTER_MS
from infraxa.store.trade import receipts_before
from infraxa.store.trade_records import OrderRow, ReceiptRow, Role, Sum, Sums

_SUMS = (
    "sum(orders), sum(n_prompt), sum(n_cached), sum(n_out), sum(accepted), sum(sums.disputed), sum(reversed)"
)


def earnings(conn: Connection, role: Role, since_ms: int = 0, *, utc: bool = False) -> Sums:
    """The sums of countersigned orders that were opened since then (rounded down to a quarter of an hour);
    days are those of this machine, or of UTC."""
    given = (role, since_ms // QUARTER_MS)
    zone = datetime.UTC if utc else None
    days: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 7)
    for quarter, *sums in conn.execute(
        f"SELECT quarter, {_SUMS} FROM sums WHERE role = ? AND quarter >= ? GROUP BY quarter", given
    ):
        day = days[datetime.datetime.fromtimestamp(quarter * QUARTER_MS / 1000, zone).date().isoformat()]
        for at, amount in enumerate(sums):
            day[at] += amount
    models = conn.execute(
        f"SELECT model, max(model_name), {_SUMS} FROM sums WHERE role = ? AND quarter >= ? "
        "GROUP BY model ORDER BY sum(accepted) DESC, model",
        given,
    )
    peers = conn.execute(
        f"SELECT sums.peer, t.name, {_SUMS} FROM sums JOIN tabs t USING (role, peer) "
        "WHERE sums.role = ? AND sums.quarter >= ? "
        "GROUP BY sums.peer ORDER BY sum(sums.accepted) DESC, sums.peer",
        given,
    )
    return Sums(
        days=tuple(Sum(day, "", *days[day]) for day in sorted(days, reverse=True)),
        models=tuple(Sum(*row) for row in models),
        peers=tuple(Sum(*row) for row in peers),
    )


def list_receipts(
    conn: Connection,
    role: Role | None = None,
    *,
    peer: bytes | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[tuple[int, OrderRow, ReceiptRow]]:
    """A page of receipts, the newest first, each after its place (`before` of the next page)."""
    return receipts_before(conn, role, peer, before, limit)
