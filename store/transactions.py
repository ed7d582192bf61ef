"""Transactions on the connection of a data folder: of one function, or of several that wait at the same time.

On which thread they run is in db.py.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from infraxa.store.folder import explain
from infraxa.store.records import StoreError
from infraxa.store.ulid import UlidSource

T = TypeVar("T")


class Connection(sqlite3.Connection):
    """A connection that also knows the time and makes ids, so that functions over it need nothing else."""

    clock: Callable[[], int]
    """Milliseconds since the epoch."""
    ids: UlidSource
    path: Path
    lasting = False
    """Set in a transaction whose outcome is signed and told to others: it is on the disk when it ends, so
    that not even a loss of power takes it back. Others survive the end of the program alone."""
    unsynced = False
    """Something that is to last was committed and may not be on the disk: until it is, nobody is told what
    any transaction found, since that may be built on it."""


class Outcome(NamedTuple, Generic[T]):
    """What came of a function: its result, or what it raised."""

    result: T | None
    error: BaseException | None = None
    lasting: bool = False


class _Undone(Exception):
    """SQLite has rolled back all of a transaction by itself, as for a full disk."""


@contextlib.contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. Inside another one it adds nothing.

    Takes its turn among the programs that write from its first moment: what it reads before it writes stays
    true, and it waits for another one up to the busy timeout, instead of failing when it comes to write.
    """
    if conn.in_transaction:
        yield
        return
    try:
        conn.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        # On a disk that became read-only, reading goes on; what writes is told so when it does.
        conn.execute("BEGIN")
    try:
        yield
        conn.execute("COMMIT")
        if isinstance(conn, Connection) and (conn.lasting or conn.unsynced):
            conn.unsynced = True
            _sync_log(conn.path)
            conn.unsynced = False
    except BaseException:
        # A full disk makes SQLite roll back by itself.
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    finally:
        if isinstance(conn, Connection):
            conn.lasting = False


def together(conn: Connection, calls: Sequence[Callable[[], T]]) -> list[Outcome[T]] | None:
    """Run all of them in one transaction, each of them all or nothing, and what came of each.

    None: the transaction failed as a whole, and nothing of any of them was done.
    """
    done: list[Outcome[T]] = []
    try:
        with transaction(conn):
            for call in calls:
                done.append(_step(conn, call))
            conn.lasting = any(one.lasting for one in done)
    except StoreError as error:
        # They are committed, and may not be on the disk; each may have read what another one of them wrote.
        return [Outcome(None, one.error or error) for one in done]
    except (sqlite3.Error, _Undone):
        return None
    return done


def _step(conn: Connection, call: Callable[[], T]) -> Outcome[T]:
    conn.execute("SAVEPOINT step")
    conn.lasting = False
    try:
        outcome = Outcome(call(), None, conn.lasting)
    except BaseException as error:
        if not conn.in_transaction:
            raise _Undone from error
        conn.execute("ROLLBACK TO step")
        outcome = Outcome(None, error)
    conn.execute("RELEASE step")
    return outcome


def log_of(path: Path) -> Path:
    """The write-ahead log of the database `path`."""
    return path.with_name(path.name + "-wal")


def _sync_log(path: Path) -> None:
    """Bring the write-ahead log to the disk. SQLite could do it with each commit or with none, as
    `PRAGMA synchronous` has it, which cannot change within a transaction; it holds no lock on this file.

    Raises StoreError; what was committed is then safe from the end of the program alone.
    """
    try:
        file = os.open(log_of(path), os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except FileNotFoundError:
        return  # a file system that has no such log: then each commit is on the disk
    except OSError as error:
        raise explain(error, path.parent) from error
