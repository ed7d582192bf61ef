"""Opens the database of a data folder, and runs functions on it in one thread.

What the tables are is in migrations.py; what can be asked of them is in chats.py, messages.py, search.py,
models.py, state.py, peers.py, drivers.py, ratings.py, and of what is bought and sold in ledger.py, trade.py,
buying.py, selling.py, tabs.py and earnings.py: plain functions whose first argument is the `Connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from infraxa.store.folder import DATABASE_NAME, corrupt, explain, prepare_folder
from infraxa.store.records import StoreError
from infraxa.store.ulid import UlidSource

SCHEMA_VERSION = 9
"""The number of the last migration that this program knows."""

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another program that has the file open."""

CLOSE_TIMEOUT_S = 5.0
"""How long `Store.close` waits for what is still running before it interrupts it."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_HEADER = b"SQLite format 3\x00"


class Connection(sqlite3.Connection):
    """A connection that also knows the time and makes ids, so that functions over it need nothing else."""

    clock: Callable[[], int]
    """Milliseconds since the epoch."""
    ids: UlidSource
    path: Path
    lasting = False
    """Set in a transaction whose outcome is signed and told to others: it is on the disk when it ends, so
    that not even a loss of power takes it back. Others survive the end of the program alone."""


def now_ms() -> int:
    """The time of this machine, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


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
        if isinstance(conn, Connection) and conn.lasting:
            _sync_log(conn.path)
    except BaseException:
        # A full disk makes SQLite roll back by itself.
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    finally:
        if isinstance(conn, Connection):
            conn.lasting = False


def _sync_log(path: Path) -> None:
    """Bring the write-ahead log to the disk. SQLite could do it with each commit or with none, as
    `PRAGMA synchronous` has it, which cannot change within a transaction; it holds no lock on this file.

    Raises StoreError; what was committed is then safe from the end of the program alone.
    """
    try:
        file = os.open(path.with_name(path.name + "-wal"), os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except FileNotFoundError:
        return  # a file system that has no such log: then each commit is on the disk
    except OSError as error:
        raise explain(error, path.parent) from error


def connect(
    folder: Path,
    *,
    clock: Callable[[], int] = now_ms,
    randbytes: Callable[[int], bytes] = os.urandom,
) -> Connection:
    """Open the database in `folder`, made if it is missing, with its schema brought up to date.

    The connection belongs to the thread that calls this. Raises StoreError; with `newer_schema` and with
    `corrupt` for a file that is something else, nothing in the folder was touched.
    """
    prepare_folder(folder)
    path = folder / DATABASE_NAME
    try:
        version = _version_in_header(path, folder)
        _check_version(version, folder)
        if version is None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        conn = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, factory=Connection)
    except (sqlite3.Error, OSError) as error:
        raise explain(error, folder) from error
    try:
        _prepare(conn, folder)
        conn.clock = clock
        conn.path = path
        conn.ids = UlidSource(clock, randbytes)
        (last,) = conn.execute(
            "SELECT max(id) FROM (SELECT max(id) AS id FROM messages UNION ALL SELECT max(id) FROM chats)"
        ).fetchone()
        conn.ids.continue_after(last or "")
    except sqlite3.Error as error:
        conn.close()
        raise explain(error, folder) from error
    except BaseException:
        conn.close()
        raise
    return conn


def _version_in_header(path: Path, folder: Path) -> int | None:
    """The schema version in the first bytes of the file; None when there is nothing in it yet.

    Read by hand, because SQLite makes or changes the files beside the database even when it only reads.
    It is never too low: migrations run without the write-ahead log, straight into this file.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return None
    if not header:
        return None
    if len(header) < 100 or not header.startswith(_HEADER):
        raise corrupt(folder)
    return int.from_bytes(header[60:64], "big", signed=True)


def _check_version(version: int | None, folder: Path) -> None:
    if version is not None and version > SCHEMA_VERSION:
        raise StoreError(
            "newer_schema",
            f"The data in {folder} is from a newer infraxa "
            f"(schema {version}, this one knows {SCHEMA_VERSION}).",
            "Update infraxa, or choose another folder with --data-dir.",
        )


def _prepare(conn: Connection, folder: Path) -> None:
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    _check_version(version, folder)
    if version < SCHEMA_VERSION:
        from infraxa.store.migrations import migrate

        # So that the version in the file's header is true whenever this ends: see _version_in_header.
        conn.execute("PRAGMA journal_mode = DELETE")
        migrate(conn)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute("PRAGMA foreign_keys = ON")
    # After a burst the log is cut back to this: otherwise it keeps the size that it once had.
    conn.execute(f"PRAGMA journal_size_limit = {16 << 20}")


class Store:
    """The database of one data folder, used from asyncio: every function runs on the store's own thread."""

    def __init__(self, folder: Path) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self._conn: Connection | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        clock: Callable[[], int] = now_ms,
        randbytes: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Open the database in `folder` (see `connect`). Raises StoreError."""
        store = cls(folder)
        store._thread.start()

        def connect_here() -> None:
            store._conn = connect(folder, clock=clock, randbytes=randbytes)

        try:
            await store._submit(connect_here)
        except BaseException:
            store._closed = True
            store._jobs.put(None)
            raise
        return store

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(conn, ...)` on the store's thread as one transaction: it is done whole, or not at all.

        Functions run in the order in which `run` was called. When the caller is cancelled, a function that
        has not begun is left out, and one that has begun is finished. Raises what `fn` raises, and StoreError
        for what goes wrong with the disk, or `closed`.
        """
        if self._closed:
            raise StoreError("closed", "The store is closed.")

        def call() -> T:
            conn = self._conn
            assert conn is not None  # `open` has returned
            try:
                with transaction(conn):
                    return fn(conn, *args, **kwargs)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # a mistake in `fn`, not in the folder
            except sqlite3.Error as error:
                raise explain(error, self.folder) from error

        return await self._submit(call)

    async def close(self) -> None:
        """Finish what was asked for, and close the file. Takes at most twice `CLOSE_TIMEOUT_S`."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        if await asyncio.to_thread(self._ended.wait, CLOSE_TIMEOUT_S):
            return
        _log.warning("the store is still busy after %s s: interrupting it", CLOSE_TIMEOUT_S)
        if self._conn is not None:
            self._conn.interrupt()
        if not await asyncio.to_thread(self._ended.wait, CLOSE_TIMEOUT_S):
            _log.error("the store did not end; the file is left as after a crash, which is safe")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _submit(self, fn: Callable[[], T]) -> T:
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                job()
        finally:
            self._close_connection()
            self._ended.set()

    def _close_connection(self) -> None:
        try:
            if self._conn is not None:
                self._conn.close()
        except sqlite3.Error as error:
            _log.warning("closing the store: %s", explain(error, self.folder))
