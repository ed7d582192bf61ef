"""What others say of providers, and what the person said, or may say, of answers.

What a rating means is not known here: records and blanks are opaque, hashes are of the records. A day is a
UTC day number. What was said in one network stays in it: each is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from infraxa.store.db import Connection, transaction
from infraxa.store.records import StoreError

BLANKS_KEPT = 4096
"""Answers that may be rated, those of the newest days."""


def write_ratings(conn: Connection, network: str, changes: Mapping[bytes, bytes | None]) -> None:
    """Keep these records by their hashes; None: not any more."""
    with transaction(conn):
        conn.executemany(
            "INSERT OR REPLACE INTO ratings (network, hash, record) VALUES (?, ?, ?)",
            [(network, found, record) for found, record in changes.items() if record is not None],
        )
        conn.executemany(
            "DELETE FROM ratings WHERE network = ? AND hash = ?",
            [(network, found) for found, record in changes.items() if record is None],
        )


def list_ratings(conn: Connection, network: str) -> list[bytes]:
    """All records."""
    rows = conn.execute("SELECT record FROM ratings WHERE network = ? ORDER BY hash", (network,))
    return [record for (record,) in rows]


def keep_blank(conn: Connection, network: str, order: bytes, provider: bytes, day: int, blank: bytes) -> None:
    """This order may be rated. Told again, it is left as it is."""
    with transaction(conn):
        conn.execute(
            "INSERT INTO own_ratings (order_id, network, provider, day, blank) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (order_id) DO NOTHING",
            (order, network, provider, day, blank),
        )
        conn.execute(
            "DELETE FROM own_ratings WHERE order_id IN (SELECT order_id FROM own_ratings "
            "WHERE due_ms IS NULL ORDER BY day, order_id "
            "LIMIT max(0, (SELECT count(*) FROM own_ratings) - ?))",
            (BLANKS_KEPT,),
        )


def get_blank(conn: Connection, order: bytes) -> tuple[bytes, bytes] | None:
    """The provider of an order that may be rated, and the blank."""
    row: tuple[bytes, bytes] | None = conn.execute(
        "SELECT provider, blank FROM own_ratings WHERE order_id = ?", (order,)
    ).fetchone()
    return row


def rate(conn: Connection, order: bytes, stars: int, record: bytes, due_ms: int) -> None:
    """The person's rating of an order, to be told at `due_ms`. It takes the place of another one of the same
    provider and day while that was not told.

    Raises StoreError `not_found` (not to be rated) and `exists` (one of that day was told).
    """
    with transaction(conn):
        found = conn.execute("SELECT provider, day FROM own_ratings WHERE order_id = ?", (order,)).fetchone()
        if found is None:
            raise StoreError("not_found", "This answer cannot be rated.")
        told = conn.execute(
            "SELECT 1 FROM own_ratings WHERE provider = ? AND day = ? AND stars IS NOT NULL "
            "AND due_ms IS NULL",
            found,
        ).fetchone()
        if told is not None:
            raise StoreError(
                "exists",
                "Your rating of this provider for that day is told already; one a day counts.",
                "Rate one of its answers of another day.",
            )
        conn.execute(
            "UPDATE own_ratings SET stars = NULL, record = NULL, due_ms = NULL "
            "WHERE provider = ? AND day = ? AND stars IS NOT NULL",
            found,
        )
        conn.execute(
            "UPDATE own_ratings SET stars = ?, record = ?, due_ms = ? WHERE order_id = ?",
            (stars, record, due_ms, order),
        )


def stars_of(conn: Connection, order: bytes) -> int | None:
    """What the person gave this answer; None: nothing."""
    row = conn.execute("SELECT stars FROM own_ratings WHERE order_id = ?", (order,)).fetchone()
    return None if row is None else row[0]


def list_due(conn: Connection, network: str, now_ms: int) -> list[tuple[bytes, bytes]]:
    """Orders and the records of their ratings that are to be told by now."""
    return conn.execute(
        "SELECT order_id, record FROM own_ratings WHERE network = ? AND due_ms <= ? ORDER BY due_ms",
        (network, now_ms),
    ).fetchall()


def delay(conn: Connection, before_ms: int, due_ms: int) -> None:
    """What was due before `before_ms` is due at `due_ms`."""
    conn.execute("UPDATE own_ratings SET due_ms = ? WHERE due_ms < ?", (due_ms, before_ms))


def told(conn: Connection, order: bytes) -> None:
    """The rating of this order is told, or never will be."""
    conn.execute("UPDATE own_ratings SET due_ms = NULL WHERE order_id = ?", (order,))
