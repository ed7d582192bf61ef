"""Workers on one machine take turns at its processor cores.

llama.cpp's threads wait for each other by spinning: two workers that decode at the same time with as many
threads as there are cores make each other many times slower. So each decodes only while it has its turn: a
lock on a file that all workers of one user share, which the system releases when its holder dies. What is
decoded in a turn is not known here.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

LEAST_S: Final = 0.01
"""A turn is kept for so long, if there is so much to do: handing it over costs tenths of a millisecond."""
MOST_S: Final = 0.1
"""It is kept for as long as it was waited for, so that time is shared evenly, but no longer than this,"""
LONG_SHARE: Final = 4
"""or such a part of a wait that took much longer."""
WAIT_S: Final = 20.0
"""Whoever has waited for so long goes ahead: who has the turn is stuck, or far too slow."""


class Turn:
    """The turn of this process. Methods are for one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        shared: bool,
        on_taken: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shared`: others that share may have their turn at the same time. `on_taken` is called by another
        thread when a turn that was waited for has come. `clock`: seconds. Raises OSError."""
        import fcntl

        self.mine = False
        self._lock = fcntl.flock
        self._now = fcntl.LOCK_NB
        self._end = fcntl.LOCK_UN
        self._only = fcntl.LOCK_EX
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        # Whoever waits for the cores has the gate: who gave its turn up waits there behind it.
        self._gate = _open(folder / "gate")
        self._cores = _open(folder / "cores")
        self._on_taken = on_taken
        self._clock = clock
        self._asked = 0.0
        self._waiting = False
        self._first = False
        """It has the gate: it is the next."""
        self._until = 0.0
        self._orders: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._wait, name="turn", daemon=True).start()

    @property
    def patience(self) -> float:
        """Seconds for which what was asked for is to be waited for yet."""
        return self._asked + WAIT_S - self._clock()

    def take(self) -> bool:
        """Whether to go ahead now: the turn is this process's, or was waited for too long; else `on_taken`
        follows."""
        if self.mine:
            return True
        if self._waiting:
            return self.patience <= 0
        self._asked = self._clock()
        if self._take_now():
            self._begin()
            return True
        self._waiting = True
        self._orders.put(None)
        return False

    def give(self, *, idle: bool) -> None:
        """A step is over: the turn is another's when it has lasted long enough, or at once when `idle`."""
        if self.mine and (idle or self._clock() >= self._until):
            self.mine = False
            self._lock(self._cores, self._end)

    def _take_now(self) -> bool:
        try:
            self._lock(self._gate, self._only | self._now)
            self._first = True
            self._lock(self._cores, self._kind | self._now)
        except BlockingIOError:
            return False
        return True

    def _begin(self) -> None:
        now = self._clock()
        waited = now - self._asked
        self._until = now + max(LEAST_S, min(waited, max(MOST_S, waited / LONG_SHARE)))
        self._lock(self._gate, self._end)
        self._waiting = self._first = False
        self.mine = True  # at last: from now on the other thread may give it away and ask again

    def _wait(self) -> None:
        """Thread: nothing else can wait for a lock and for messages at the same time."""
        while True:
            self._orders.get()
            if not self._first:
                self._lock(self._gate, self._only)
            self._lock(self._cores, self._kind)
            self._begin()
            self._on_taken()


def open_turn(*, threads: int, cores: int, on_taken: Callable[[], None]) -> Turn | None:
    """For a worker with so many threads on a machine with so many cores; None where there are no such locks.

    Those with few threads do not keep each other waiting. Raises OSError.
    """
    if sys.platform == "win32":
        return None
    folder = shared_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's own folder")
    return Turn(folder, shared=2 * threads <= cores, on_taken=on_taken)


def shared_folder() -> Path:
    """Where all processes of this user on this machine find each other."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "infraxa"
    return Path(tempfile.gettempdir()) / f"infraxa-{os.getuid()}"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
