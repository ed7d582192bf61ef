"""A real terminal for tests: a program on a pty, what it draws kept by an emulator, keys sent to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyte

KEYS = {
    "enter": "\r",
    "esc": "\x1b",
    "tab": "\t",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "backspace": "\x7f",
    "delete": "\x1b[3~",
    "f1": "\x1bOP",
    "f2": "\x1bOQ",
    "f3": "\x1bOR",
    "f4": "\x1bOS",
    "f5": "\x1b[15~",
    "f6": "\x1b[17~",
    "f7": "\x1b[18~",
    "f8": "\x1b[19~",
    "f9": "\x1b[20~",
    "alt+enter": "\x1b\r",
}


# Sequences that pyte 0.8 takes for text: kitty keyboard, mode queries, colours with sub-parameters.
_UNKNOWN = re.compile(rb"\x1b\[[<>=?][0-9;]*[a-zA-Z](?<![hl])|\x1b\[\?[0-9;]*\$p|\x1b\[[0-9;]*\$[a-z]")


class _Screen(pyte.Screen):
    """pyte's screen, deaf to what it would print as text."""

    def report_device_status(self, *args: Any, **kwargs: Any) -> None: ...


_opened: list[Terminal] = []
"""Those that are read."""


class Terminal:
    """One program on a terminal of `size` (columns, rows).

    Every wait is bounded and fails with the screen as it was.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        size: tuple[int, int] = (100, 30),
        cwd: str | None = None,
    ) -> None:
        columns, rows = size
        self._screen = _Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = bytearray()
        parent, child = pty.openpty()
        self._fd = parent
        self.ended = False
        """The program has closed it."""
        self._set_size(columns, rows)
        self.process = subprocess.Popen(
            argv,
            stdin=child,
            stdout=child,
            stderr=child,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(child)
        _opened.append(self)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        self._set_size(columns, rows)
        self._screen.resize(rows, columns)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGWINCH)

    def read(self, seconds: float = 0.05) -> bool:
        """Take in what was drawn within `seconds`; False when the program has closed its terminal.

        On all terminals: a program whose terminal nobody reads stands still.
        """
        end = time.monotonic() + seconds
        while not self.ended and (left := end - time.monotonic()) > 0:
            drawn = {terminal._fd: terminal for terminal in _opened if not terminal.ended}
            ready, _, _ = select.select(list(drawn), [], [], left)
            for fd in ready:
                drawn[fd]._take()
        return not self.ended

    def _take(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            data = b""
        self.ended = not data
        self.raw += data
        self._stream.feed(_UNKNOWN.sub(b"", data))

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def send(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def press(self, *keys: str) -> None:
        """Press keys by name; `ctrl+x`, `alt+x`, names of `KEYS`, or a character."""
        for key in keys:
            if key in KEYS:
                self.send(KEYS[key])
            elif key.startswith("ctrl+"):
                self.send(chr(ord(key[-1].lower()) & 0x1F))
            elif key.startswith("alt+"):
                self.send("\x1b" + key[-1])
            else:
                self.send(key)
            self.read(0.03)

    def paste(self, text: str) -> None:
        self.send(f"\x1b[200~{text}\x1b[201~")

    def click(self, text: str) -> None:
        """Click on the first place that shows `text`."""
        for row, line in enumerate(self._screen.display):
            column = line.find(text)
            if column >= 0:
                x, y = column + 1, row + 1
                self.send(f"\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m")
                return
        raise AssertionError(f"nothing to click: {text!r} is not on the screen\n{self.text}")

    def wait_for(self, what: str | Callable[[str], bool], *, seconds: float = 30) -> str:
        """Until the screen shows the text, or satisfies the condition; returns the screen."""
        condition = (lambda screen: what in screen) if isinstance(what, str) else what
        end = time.monotonic() + seconds
        while True:
            alive = self.read(0.05)
            if condition(self.text):
                return self.text
            if not alive or time.monotonic() > end:
                why = "the program ended" if not alive else f"{seconds} s have passed"
                raise AssertionError(f"waited for {what!r}, but {why}:\n{self.text}")

    def wait_gone(self, text: str, *, seconds: float = 30) -> str:
        return self.wait_for(lambda screen: text not in screen, seconds=seconds)

    def wait_exit(self, *, seconds: float = 15) -> int:
        """Until the program ends; its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            self.read(0.05)
            if time.monotonic() > end:
                raise AssertionError(f"the program still runs after {seconds} s:\n{self.text}")
        self.read(0.05)
        return self.process.returncode

    def close(self) -> None:
        """End the program, whatever it does."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        _opened.remove(self)
        os.close(self._fd)


def run_beside(
    argv: Sequence[str], env: Mapping[str, str], *, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end while what all terminals draw is taken in: an app that nobody reads stands
    still, and whoever asks it for something waits with it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        end = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
                process.wait(10)
                raise AssertionError(f"{argv} still ran after {seconds} s")
            if _opened:
                _opened[0].read(0.05)
            time.sleep(0.01)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, process.returncode, out.read(), err.read())


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
