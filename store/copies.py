"""A copy of the whole database, made while others use it, and what has to be true of one before it is used.

Where copies are kept and how they come back is not decided here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from infraxa.store import ledger, tabs
from infraxa.store.db import SCHEMA_VERSION, connect
from infraxa.store.folder import DATABASE_NAME, corrupt, explain, prepare_folder
from infraxa.store.records import StoreError

_WAIT_S = 30.0
"""For a program that is writing."""


class Contents(msgspec.Struct, frozen=True):
    """What a database holds."""

    schema: int = SCHEMA_VERSION
    chats: int = 0
    messages: int = 0
    receipts: int = 0
    owed_here: int = 0
    """µcr that others owe this node, all in all."""
    owes: int = 0
    """µcr that this node owes others."""


def copy_database(folder: Path, target: Path) -> Contents:
    """Copy the database of `folder` into the empty folder `target`, as it is at one moment, whoever writes
    meanwhile, and say what is in it. Raises StoreError; `not_found` when there is none.
    """
    if not (folder / DATABASE_NAME).exists():
        raise StoreError("not_found", f"There is no database in {folder}.")
    prepare_folder(target)
    copy = target / DATABASE_NAME
    copy.touch(0o600)
    try:
        with (
            _opened(folder / DATABASE_NAME, "ro") as source,
            contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as conn,
        ):
            # In one step, which reads one state; with several, whoever writes in between starts it anew.
            source.backup(conn, pages=-1)
            # A log beside the copy would be part of it.
            conn.execute("PRAGMA journal_mode = DELETE")
            return _contents(conn)
    except (sqlite3.Error, OSError) as error:
        raise explain(error, folder) from error


def contents_of(folder: Path) -> Contents:
    """What the database of `folder` holds; nothing when there is none. Raises StoreError."""
    if not (folder / DATABASE_NAME).exists():
        return Contents()
    try:
        with _opened(folder / DATABASE_NAME, "ro") as conn:
            return _contents(conn)
    except sqlite3.Error as error:
        raise explain(error, folder) from error


def adopt_copy(folder: Path, before: Path) -> None:
    """Make a copy that came out of a backup, in `folder`, the one that goes on from here: check all of it,
    bring its schema up to date, and never use a number again that was used since it was made (`before`: the
    folder whose place it takes).

    Raises StoreError: `newer_schema`, `corrupt`, and what else keeps it from being used.
    """
    try:
        with _opened(folder / DATABASE_NAME, "rw") as raw:
            if raw.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise corrupt(folder)
    except sqlite3.Error as error:
        raise explain(error, folder) from error
    conn = connect(folder)
    try:
        if conn.execute("PRAGMA foreign_key_check").fetchone() is not None or ledger.check(conn):
            raise corrupt(folder)
        tabs.mark_restored(conn)
        for node, seq in _numbers(before):
            conn.execute(
                "INSERT INTO own_seq (node, seq) VALUES (?, ?) "
                "ON CONFLICT (node) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
                (node, seq),
            )
        conn.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise explain(error, folder) from error
    finally:
        conn.close()


def _numbers(folder: Path) -> list[tuple[bytes, int]]:
    """Of records that this node published, as the database says that is given up; it may be of any kind."""
    if not (folder / DATABASE_NAME).exists():
        return []
    try:
        with _opened(folder / DATABASE_NAME, "ro") as conn:
            return conn.execute("SELECT node, seq FROM own_seq").fetchall()
    except sqlite3.Error:
        return []


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    conn = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
    try:
        yield conn
    finally:
        conn.close()


def _contents(conn: sqlite3.Connection) -> Contents:
    (schema,) = conn.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA_VERSION:
        raise StoreError(
            "newer_schema",
            f"The database is from a newer infraxa (schema {schema}, this one knows {SCHEMA_VERSION}).",
            "Update infraxa.",
        )
    known = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def one(table: str, query: str) -> int:
        return int(conn.execute(query).fetchone()[0]) if table in known else 0

    live = "SELECT count(*) FROM chats WHERE deleted_at IS NULL"
    balance = "SELECT coalesce(sum(max({sign}balance, 0)), 0) FROM accounts WHERE name LIKE 'tab:{role}:%'"
    return Contents(
        schema,
        one("chats", live),
        one("messages", "SELECT count(*) FROM messages"),
        one("receipts", "SELECT count(*) FROM receipts"),
        one("accounts", balance.format(sign="", role="provider")),
        one("accounts", balance.format(sign="-", role="user")),
    )
