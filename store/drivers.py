"""What this machine saw of drivers, and what the person said of providers: pinned, blocked.

What the evidence says and how a driver is chosen by it is not known here. Ids are the 32 bytes of a node key.
"""

from __future__ import annotations

from collections.abc import Iterable

from infraxa.store.db import Connection, transaction
from infraxa.store.records import DriverRecord

DRIVERS_KEPT = 4096
"""Nodes × models, and each node with all its models together; those that changed longest ago beyond this are
forgotten."""

_DRIVER = "node, model, changed_ms, evidence"


def keep_drivers(conn: Connection, drivers: Iterable[DriverRecord]) -> None:
    """Keep these instead of what was known of the same nodes and models."""
    with transaction(conn):
        conn.executemany(
            f"INSERT INTO drivers ({_DRIVER}) VALUES (?, ?, ?, ?) ON CONFLICT (node, model) "
            "DO UPDATE SET changed_ms = excluded.changed_ms, evidence = excluded.evidence",
            [(one.node, one.model, one.changed_ms, one.evidence) for one in drivers],
        )
        conn.execute(
            "DELETE FROM drivers WHERE (node, model) IN (SELECT node, model FROM drivers "
            "ORDER BY changed_ms LIMIT max(0, (SELECT count(*) FROM drivers) - ?))",
            (DRIVERS_KEPT,),
        )


def list_drivers(conn: Connection) -> list[DriverRecord]:
    """The one that changed last is the last."""
    rows = conn.execute(f"SELECT {_DRIVER} FROM drivers ORDER BY changed_ms, node, model")
    return [DriverRecord(*row) for row in rows]


def set_mark(conn: Connection, node: bytes, mark: str) -> None:
    """`pinned` or `blocked`; empty: neither."""
    if mark:
        conn.execute(
            "INSERT INTO marks (node, mark) VALUES (?, ?) "
            "ON CONFLICT (node) DO UPDATE SET mark = excluded.mark",
            (node, mark),
        )
    else:
        conn.execute("DELETE FROM marks WHERE node = ?", (node,))


def list_marks(conn: Connection) -> dict[bytes, str]:
    """What the person said of each provider."""
    return dict(conn.execute("SELECT node, mark FROM marks").fetchall())
