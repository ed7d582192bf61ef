"""Looks whether the database is sound. What a failure of the disk means is said by folder.py."""

from __future__ import annotations

import sqlite3

import msgspec


class Health(msgspec.Struct, frozen=True):
    """What a look at the database found."""

    schema: int
    chats: int
    messages: int
    models: int
    damage: str
    """The first thing that SQLite found wrong; empty when it is sound."""


def check(conn: sqlite3.Connection) -> Health:
    """Reads the whole file once; on a big one that takes seconds."""
    (schema,) = conn.execute("PRAGMA user_version").fetchone()
    (found,) = conn.execute("PRAGMA quick_check(1)").fetchone()
    chats, messages, models = (
        conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("chats", "messages", "models")
    )
    return Health(schema, chats, messages, models, "" if found == "ok" else str(found))
