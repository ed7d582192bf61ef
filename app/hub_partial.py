"""What is here of a file that is being downloaded: on the disk under the hash of the whole, so that whoever
wants the same bytes again, from wherever, goes on from there.

Its methods block and may be called from any thread, one at a time; `close` may be called at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from infraxa.app.errors import NodeError
from infraxa.store.lock import FolderLock
from infraxa.store.records import StoreError

FOLDER = ".partial"
"""In the folder of the models."""
READ_CHUNK = 4 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Partial:
    """One file on its way, locked against other processes. Closed by whoever opened it; what came stays."""

    def __init__(self, models: Path, digest: str, what: str) -> None:
        """`models`: the folder of the models; `digest`: the SHA-256 of the whole file; `what`: its name for
        people. Raises NodeError `busy`, StoreError `read_only`, `disk_full`, `io`."""
        self.folder = models / FOLDER / digest
        self.what = what
        try:
            self._lock = FolderLock.acquire(self.folder)
        except StoreError as error:
            if error.code != "locked":
                raise
            raise _busy(what) from None
        self._guard = threading.Lock()
        self._hash = hashlib.sha256()
        self.done = 0
        """Bytes that are here and hashed."""
        try:
            self._fd: int | None = os.open(
                self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600
            )
            self.there = os.fstat(self._fd).st_size
            """Bytes that were here when it was opened."""
        except OSError as error:
            self._lock.release()
            raise self._explained(error) from error

    @property
    def path(self) -> Path:
        return self.folder / "part"

    def read_again(self, cancelled: Callable[[], bool]) -> None:
        """Hash what was here before; `done` grows meanwhile."""
        while not cancelled():
            with self._guard:
                if self._fd is None:
                    return
                try:
                    os.lseek(self._fd, self.done, os.SEEK_SET)
                    chunk = os.read(self._fd, READ_CHUNK)
                except OSError as error:
                    raise self._explained(error) from error
                if not chunk:
                    return
                self._hash.update(chunk)
                self.done += len(chunk)

    def add(self, data: bytes) -> None:
        """Put `data` at the end. Raises NodeError `disk_full` or `io`; what was there before is kept."""
        with self._guard:
            if self._fd is None:
                return
            try:
                os.lseek(self._fd, self.done, os.SEEK_SET)
                left = memoryview(data)
                while left:
                    left = left[os.write(self._fd, left) :]
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self.done)
                raise self._explained(error) from error
            self._hash.update(data)
            self.done += len(data)

    def begin_again(self) -> None:
        """Drop what is here. Raises NodeError `io`."""
        with self._guard:
            self._hash, self.done = hashlib.sha256(), 0
            if self._fd is not None:
                try:
                    os.ftruncate(self._fd, 0)
                except OSError as error:
                    raise self._explained(error) from error

    @property
    def digest(self) -> str:
        """The SHA-256 of what is here, as hexadecimal."""
        return self._hash.hexdigest()

    def move_to(self, target: Path) -> None:
        """It is whole: put it there, in one step, and let go of it."""
        try:
            with self._guard:
                assert self._fd is not None
                os.fsync(self._fd)
                os.close(self._fd)
                self._fd = None
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(self.path, target)
        except OSError as error:
            raise self._explained(error) from error
        self.drop()

    def drop(self) -> None:
        """Delete what is here."""
        self._let_go(delete=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def close(self) -> None:
        """Keep what is here for the next attempt. An empty one leaves nothing."""
        self._let_go()

    def _let_go(self, *, delete: bool = False) -> None:
        with self._guard:
            if self._fd is not None:
                delete = delete or not os.fstat(self._fd).st_size
                os.close(self._fd)
                self._fd = None
            if delete:
                # While it is locked: afterwards another download may be in it.
                shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.release()

    def _explained(self, error: OSError) -> NodeError:
        if error.errno in _FULL:
            return NodeError(
                "disk_full",
                f"The disk of {self.folder} is full.",
                "Make room; what came is kept, and the next pull goes on from there.",
            )
        return NodeError(
            "io",
            f"{self.folder} cannot be written: {error.strerror or error}.",
            "Check the disk; what came is kept, and the next pull goes on from there.",
        )


def _busy(what: str) -> NodeError:
    return NodeError(
        "busy", f"{what} is being downloaded already.", "Wait for that one, or stop it and pull again."
    )


def bytes_here(models: Path, digest: str) -> int:
    """How much of the file with this SHA-256 an earlier attempt has left."""
    try:
        return (models / FOLDER / digest / "part").stat().st_size
    except OSError:
        return 0
