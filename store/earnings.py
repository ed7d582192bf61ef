"""What was earned and spent, per day, model and peer, and the list of receipts behind it.

Sums are kept per quarter of an hour, since days begin at another one in every time zone.
"""

from __future__ import annotations

import datetime
from operator import add

from infraxa.store.db import Connection
from infraxa.store.ledger import QUARTER_MS
from infraxa.store.trade import receipts_before
from infraxa.store.trade_records import OrderRow, ReceiptRow, Role, Sum, Sums

_SUMS = "sum(orders), sum(n_prompt), sum(n_cached), sum(n_out), sum(accepted), sum(disputed), sum(reversed)"


def earnings(conn: Connection, role: Role, since_ms: int = 0, *, utc: bool = False) -> Sums:
    """The sums of countersigned orders that were opened since then (rounded down to a quarter of an hour);
    days are those of this machine, or of UTC."""
    given = (role, since_ms // QUARTER_MS)
    zone = datetime.UTC if utc else None
    days: dict[str, list[int]] = {}
    until = 0.0
    for quarter, *amounts in conn.execute(
        f"SELECT quarter, {_SUMS} FROM sums WHERE role = ? AND quarter >= ? GROUP BY quarter", given
    ):
        # One look at the calendar per day: a year has up to 35 000 quarters of an hour.
        if (at := quarter * QUARTER_MS / 1000) >= until:
            date = datetime.datetime.fromtimestamp(at, zone).date()
            tomorrow = date + datetime.timedelta(days=1)
            until = datetime.datetime.combine(tomorrow, datetime.time(), zone).timestamp()
            day = days.setdefault(date.isoformat(), [0] * 7)
        day[:] = map(add, day, amounts)
    models: dict[bytes, _Total] = {}
    peers: dict[bytes, _Total] = {}
    for peer, model, name, *amounts in conn.execute(
        f"SELECT peer, model, max(model_name), {_SUMS} FROM sums "
        "WHERE role = ? AND quarter >= ? GROUP BY peer, model",
        given,
    ):
        for totals, key in ((models, model), (peers, peer)):
            total = totals.setdefault(key, _Total())
            total.name = max(total.name, name)
            total.amounts[:] = map(add, total.amounts, amounts)
    for peer, name in conn.execute("SELECT peer, name FROM tabs WHERE role = ?", (role,)):
        if peer in peers:
            peers[peer].name = name
    return Sums(
        days=tuple(Sum(day, "", *days[day]) for day in sorted(days, reverse=True)),
        models=_sorted(models),
        peers=_sorted(peers),
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


class _Total:
    def __init__(self) -> None:
        self.name = ""
        self.amounts = [0] * 7


def _sorted(totals: dict[bytes, _Total]) -> tuple[Sum, ...]:
    sums = (Sum(key, total.name, *total.amounts) for key, total in totals.items())
    return tuple(sorted(sums, key=lambda one: (-one.accepted, one.key)))
