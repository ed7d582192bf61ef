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
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, Self, TypeVar

from infraxa.store.folder import DATABASE_NAME, corrupt, explain, prepare_folder
from infraxa.store.records import StoreError
from infraxa.store.transactions import Connection, Outcome, log_of, together, transaction
from infraxa.store.ulid import UlidSource

__all__ = ["SCHEMA_VERSION", "Connection", "Store", "connect", "now_ms", "transaction"]

SCHEMA_VERSION = 12
"""The number of the last migration that this program knows."""

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another program that has the file open."""

CLOSE_TIMEOUT_S = 5.0
"""How long `Store.close` waits for what is still running before it interrupts it."""

AT_ONCE: Final = 32
"""Functions of one transaction at most."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_HEADER = b"SQLite format 3\x00"


def now_ms() -> int:
    """The time of this machine, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


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
    # A log that is there already is of a program that runs, or that ended before it brought it to the disk.
    left_over = os.access(log_of(path), os.W_OK)
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
        conn.unsynced = left_over
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


class _Job(NamedTuple):
    """A function that waits to be run."""

    call: Callable[[], Any]
    future: asyncio.Future[Any]
    short: bool
    """It may share a transaction."""


class Store:
    """The database of one data folder, used from one loop: every function runs on the store's own thread."""

    def __init__(self, folder: Path) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self._conn: Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
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
            await store._submit(connect_here, short=False)
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
        return await self._submit(self._bound(fn, *args, **kwargs), short=False)

    async def step(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what is short: those that wait at the same time share a transaction and its way to
        the disk, and each is told its outcome after that. Still each is done whole, or not at all. `fn` may
        be run twice, the first time for nothing: it changes nothing but the database."""
        return await self._submit(self._bound(fn, *args, **kwargs), short=True)

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

    def _bound(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[], T]:
        if self._closed:
            raise StoreError("closed", "The store is closed.")
        assert self._conn is not None  # `open` has returned
        return partial(fn, self._conn, *args, **kwargs)

    async def _submit(self, call: Callable[[], T], *, short: bool) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(call, future, short))
        return await future

    def _work(self) -> None:
        held: list[_Job | None] = []
        try:
            while (job := held.pop() if held else self._jobs.get()) is not None:
                jobs = [job]
                while job.short and len(jobs) < AT_ONCE and not self._jobs.empty():
                    following = self._jobs.get()
                    if following is None or not following.short:
                        held.append(following)
                        break
                    jobs.append(following)
                self._run([one for one in jobs if not one.future.cancelled()])
        finally:
            self._close_connection()
            self._ended.set()

    def _run(self, jobs: list[_Job]) -> None:
        outcomes: Iterable[Outcome[Any]] | None = None
        if len(jobs) > 1:
            assert self._conn is not None
            outcomes = together(self._conn, [job.call for job in jobs])
        if outcomes is None:
            outcomes = map(self._alone, jobs)
        told = [(job.future, self._explained(one)) for job, one in zip(jobs, outcomes, strict=True)]
        if told:
            with contextlib.suppress(RuntimeError):  # the loop of who asked is closed
                told[0][0].get_loop().call_soon_threadsafe(_tell, told)

    def _alone(self, job: _Job) -> Outcome[Any]:
        try:
            if self._conn is None:
                return Outcome(job.call())  # which connects
            with transaction(self._conn):
                result = job.call()
            return Outcome(result)
        except BaseException as error:
            return Outcome(None, error)

    def _explained(self, outcome: Outcome[Any]) -> Outcome[Any]:
        error = outcome.error
        if not isinstance(error, sqlite3.Error):
            return outcome
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            return outcome  # a mistake in the function, not in the folder
        explained = explain(error, self.folder)
        explained.__cause__ = error
        return Outcome(None, explained)

    def _close_connection(self) -> None:
        try:
            if self._conn is not None:
                self._conn.close()
        except sqlite3.Error as error:
            _log.warning("closing the store: %s", explain(error, self.folder))


def _tell(told: list[tuple[asyncio.Future[Any], Outcome[Any]]]) -> None:
    for future, outcome in told:
        if future.cancelled():
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.result)
