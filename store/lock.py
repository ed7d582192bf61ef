"""The lock of a data folder: one infraxa uses it at a time.

The operating system holds the lock and drops it when the program ends, however it ends, so a file left behind
never blocks. What is in the file only says who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import Self

import msgspec

from infraxa.store import restoring
from infraxa.store.folder import LOCK_NAME, explain, prepare_folder
from infraxa.store.records import StoreError

_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock."""

    pid: int
    started_at: int
    """Milliseconds since the epoch."""


class FolderLock:
    """A lock that is held until `release`, or the end of the `with` block, or of the process."""

    def __init__(self, fd: int) -> None:
        """Use `FolderLock.acquire`."""
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, folder: Path) -> Self:
        """Take the lock of `folder`, which is made if it is missing. Does not wait. What a restore decided
        there and could not do is done now.

        Raises StoreError: `locked`, which says who holds it, or `read_only`, `disk_full`, `io`.
        """
        prepare_folder(folder)
        try:
            fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise explain(error, folder) from error
        try:
            _lock(fd)
            _write_holder(fd, Holder(os.getpid(), time.time_ns() // 1_000_000))
        except OSError as error:
            holder = _read_holder(fd)
            os.close(fd)
            if error.errno in _HELD:
                raise _locked(folder, holder) from None
            raise explain(error, folder) from error
        try:
            restoring.finish(folder)
        except OSError as error:
            _unlock(fd)
            os.close(fd)
            raise explain(error, folder) from error
        return cls(fd)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it could take away the lock of the next holder."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            _unlock(fd)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def check_free(folder: Path) -> None:
    """Raises StoreError `locked`, which says who holds it, when somebody holds the lock of `folder`.

    Nothing is made or written; a folder that cannot be looked at is not locked for that.
    """
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDWR)
    except OSError:
        return
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in _HELD:
            raise _locked(folder, _read_holder(fd)) from None
    else:
        _unlock(fd)
    finally:
        os.close(fd)


def _locked(folder: Path, holder: Holder | None) -> StoreError:
    who = f" (pid {holder.pid})" if holder is not None else ""
    return StoreError(
        "locked",
        f"Another infraxa{who} is using {folder}.",
        "Use that one, or quit it first; --data-dir starts with another folder.",
    )


def _write_holder(fd: int, holder: Holder) -> None:
    try:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, msgspec.json.encode(holder))
    except OSError as error:
        # The lock is held all the same; on a full disk it just does not say by whom.
        if error.errno not in _FULL:
            raise


def _read_holder(fd: int) -> Holder | None:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        os.lseek(fd, 0, os.SEEK_SET)
        return msgspec.json.decode(os.read(fd, 200), type=Holder)
    return None


if sys.platform == "win32":
    import msvcrt

    # Windows keeps others from reading what is locked: lock a byte far behind what is written.
    _LOCKED_BYTE = 1 << 20

    def _lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
