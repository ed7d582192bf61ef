"""What was earned and spent, per day, model and peer, and the list of receipts behind it.

Sums are kept per quarter of an hour, since days begin at another one in every time zone.
"""

from __future__ import annotations

import datetime
import itertools
from operator import add

from infraxa.store.db import Connection
from infraxa.store.ledger import QUARTER_MS
from infraxa.store.trade import receipts_before
from infraxa.store.trade_records import OrderRow, ReceiptRow, Role, Sum, Sums

_SUMS = "sum(orders), sum(n_prompt), sum(n_cached), sum(n_out), sum(accepted), sum(disputed), sum(reversed)"
_DAYS_AT_ONCE = 400


def total(conn: Connection, role: Role, before_ms: int) -> Sum:
    """The sum of all countersigned orders that were opened before then (rounded down to a quarter of an
    hour)."""
    (amounts,) = conn.execute(
        f"SELECT {_SUMS} FROM sums WHERE role = ? AND quarter < ?", (role, before_ms // QUARTER_MS)
    ).fetchall()
    return Sum("", "", *(amount or 0 for amount in amounts))


def days(conn: Connection, role: Role, since_ms: int = 0, *, utc: bool = False) -> tuple[Sum, ...]:
    """The sums of each day since then, the newest first, without those on which there was nothing; days are
    those of this machine, or of UTC."""
    since = since_ms // QUARTER_MS
    first, last = conn.execute(
        "SELECT (SELECT min(quarter) FROM sums WHERE role = ?1 AND quarter >= ?2), "
        "(SELECT max(quarter) FROM sums WHERE role = ?1)",
        (role, since),
    ).fetchone()
    if first is None:
        return ()
    zone = datetime.UTC if utc else None
    date = datetime.datetime.fromtimestamp(first * QUARTER_MS / 1000, zone).date()
    begins: list[tuple[str, int]] = []
    while not begins or begins[-1][1] <= last:
        at = datetime.datetime.combine(date, datetime.time(), zone).timestamp()
        begins.append((date.isoformat(), max(since, round(at * 1000) // QUARTER_MS)))
        date += datetime.timedelta(days=1)
    found: list[Sum] = []
    for at_once in range(0, len(begins) - 1, _DAYS_AT_ONCE):
        part = begins[at_once : at_once + _DAYS_AT_ONCE + 1]
        rows = ", ".join(f"('{day}', {at}, {end})" for (day, at), (_, end) in itertools.pairwise(part))
        # Added up here and not in Python: a year has up to 35 000 quarters of an hour.
        found += (
            Sum(day, "", *amounts)
            for day, *amounts in conn.execute(
                f"WITH days (day, at, until) AS (VALUES {rows}) SELECT day, {_SUMS} FROM days "
                "CROSS JOIN sums ON role = ? AND quarter >= at AND quarter < until GROUP BY day",
                (role,),
            )
        )
    return tuple(sorted(found, key=lambda one: one.key, reverse=True))


def earnings(conn: Connection, role: Role, since_ms: int = 0, *, utc: bool = False) -> Sums:
    """The sums of countersigned orders that were opened since then (rounded down to a quarter of an hour);
    days as `days` has them."""
    models: dict[bytes, _Total] = {}
    peers: dict[bytes, _Total] = {}
    for peer, model, name, *amounts in conn.execute(
        f"SELECT peer, model, max(model_name), {_SUMS} FROM sums "
        "WHERE role = ? AND quarter >= ? GROUP BY peer, model",
        (role, since_ms // QUARTER_MS),
    ):
        for totals, key in ((models, model), (peers, peer)):
            one = totals.setdefault(key, _Total())
            one.name = max(one.name, name)
            one.amounts[:] = map(add, one.amounts, amounts)
    for peer, name in conn.execute("SELECT peer, name FROM tabs WHERE role = ?", (role,)):
        if peer in peers:
            peers[peer].name = name
    return Sums(
        days=days(conn, role, since_ms, utc=utc),
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
