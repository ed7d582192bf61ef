"""The data folder: its files, whether it can be used, and what a failure in it means to a person."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

from infraxa.store.records import StoreError

DATABASE_NAME = "infraxa.db"
LOCK_NAME = "infraxa.lock"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_ALMOST_NOTHING = 256 * 1024
"""Free bytes under which an I/O error of SQLite is taken for a full disk."""


def prepare_folder(folder: Path) -> None:
    """Create the data folder for this person alone (0700) if it is missing, and check that it can be written.

    Raises StoreError `read_only`, `disk_full` or `io`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise StoreError(
            "io", f"The data folder {folder} is a file.", "Choose another folder with --data-dir."
        ) from None
    except OSError as error:
        raise explain(error, folder) from error
    database = folder / DATABASE_NAME
    if not os.access(folder, os.W_OK | os.X_OK) or (database.exists() and not os.access(database, os.W_OK)):
        raise _read_only(folder)


def explain(error: sqlite3.Error | OSError, folder: Path) -> StoreError:
    """What `error`, met while using `folder`, means: one sentence and its remedy."""
    if isinstance(error, OSError):
        return _explain_os(error, folder)
    # The low byte is the primary result code: sqlite.org/rescode.html
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (
        code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and _nothing_free(folder)
    ):
        return _disk_full(folder)
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM} or (
        code == sqlite3.SQLITE_CANTOPEN and not os.access(folder, os.W_OK)
    ):
        return _read_only(folder)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}:
        return StoreError(
            "locked",
            f"Another program is using the data in {folder}.",
            "Close the program that has infraxa.db open, then try again.",
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return corrupt(folder)
    return StoreError(
        "io",
        f"The data in {folder} could not be read or written: {error}.",
        "Check that the disk works and is still connected, then start infraxa again.",
    )


def corrupt(folder: Path) -> StoreError:
    """The database file is damaged, or is something else."""
    return StoreError(
        "corrupt",
        f"The file {folder / DATABASE_NAME} is damaged or is not infraxa's.",
        f"Move it and the files named {DATABASE_NAME}-* out of the folder to start afresh, "
        "or put a copy back that was good.",
    )


def _explain_os(error: OSError, folder: Path) -> StoreError:
    if error.errno in _FULL:
        return _disk_full(folder)
    if error.errno in _READ_ONLY:
        return _read_only(folder)
    return StoreError(
        "io",
        f"The data folder {folder} cannot be used: {error.strerror or error}.",
        "Choose another folder with --data-dir.",
    )


def _read_only(folder: Path) -> StoreError:
    return StoreError(
        "read_only",
        f"The data folder {folder} cannot be written.",
        "Make it writable for your user, or choose another folder with --data-dir.",
    )


def _disk_full(folder: Path) -> StoreError:
    return StoreError(
        "disk_full",
        f"The disk that holds {folder} is full.",
        "Free some space there; what was saved before is safe.",
    )


def _nothing_free(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _ALMOST_NOTHING
    except OSError:
        return False
