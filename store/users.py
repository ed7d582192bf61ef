"""The users that this provider does not serve, known by the key that each uses towards this node alone."""

from __future__ import annotations

from infraxa.store.db import Connection
from infraxa.store.records import BlockedUserRecord
from infraxa.store.text import storable


def block_user(conn: Connection, user: bytes, note: str = "") -> None:
    """Serve this user no more. One that is blocked already stays so since then, with the newer note."""
    conn.execute(
        "INSERT INTO blocked_users (user, since_ms, note) VALUES (?, ?, ?) "
        "ON CONFLICT (user) DO UPDATE SET note = excluded.note",
        (user, conn.clock(), storable(note)),
    )


def unblock_user(conn: Connection, user: bytes) -> None:
    """Serve this user again; nothing happens when it was not blocked."""
    conn.execute("DELETE FROM blocked_users WHERE user = ?", (user,))


def list_blocked_users(conn: Connection) -> list[BlockedUserRecord]:
    """The one that was blocked last, first."""
    rows = conn.execute("SELECT user, since_ms, note FROM blocked_users ORDER BY since_ms DESC, user")
    return [BlockedUserRecord(*row) for row in rows]
