"""The lines of the log view: what llama.cpp prints and what infraxa logs, the newest of them, in memory.

The same lines of infraxa also go to a file, so that there is something to read after the app has ended.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import localtime, strftime, time

import msgspec

from infraxa.app.tui.widgets.text import clean

KEPT = 5000
"""Lines."""
LONGEST = 2000
"""Characters of one line."""
FILE_NAME = "infraxa.log"
FILE_SIZE = 1_000_000
"""Bytes of the file; the one before it is kept too."""


class Entry(msgspec.Struct, frozen=True):
    """One line."""

    time: str
    """Of the day, on this machine's clock."""
    source: str
    text: str

    @property
    def line(self) -> str:
        return f"{self.time}  {self.source:<8} {self.text}"


class LogBook(logging.Handler):
    """Collects lines; as a logging handler, those of infraxa itself."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        super().__init__(logging.INFO)
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self.on_line: Callable[[Entry], None] | None = None
        """Told of each new line."""
        self._clock = clock
        self._file: logging.Handler | None = None

    def add(self, source: str, text: str) -> None:
        """One or more lines of `source`."""
        moment = strftime("%H:%M:%S", localtime(self._clock()))
        for line in clean(text).splitlines():
            entry = Entry(moment, source, line[:LONGEST])
            self.entries.append(entry)
            if self.on_line is not None:
                self.on_line(entry)

    def emit(self, record: logging.LogRecord) -> None:
        """A record of infraxa's loggers. Its traceback goes to the file only."""
        self.add("infraxa", record.getMessage())

    def open(self, folder: Path) -> None:
        """Take what infraxa logs, and write it to a file in `folder` as well, if that is possible."""
        logger = logging.getLogger("infraxa")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            from logging.handlers import RotatingFileHandler

            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = RotatingFileHandler(
                folder / FILE_NAME, maxBytes=FILE_SIZE, backupCount=1, encoding="utf-8", delay=True
            )
        except OSError as error:
            self.add("infraxa", f"The log is not written to {folder}: {error.strerror or error}.")
            return
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._file = file
        logger.addHandler(file)

    def close(self) -> None:
        logger = logging.getLogger("infraxa")
        logger.removeHandler(self)
        logger.propagate = True
        if self._file is not None:
            logger.removeHandler(self._file)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        super().close()
