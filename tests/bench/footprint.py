"""What the open app costs while nobody types: memory of the parent process, and CPU when idle.

Beside it, in the same run, an empty Textual app.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

import psutil

from tests.e2e.terminal import Terminal

IDLE_SECONDS = 10
EMPTY = "from textual.app import App; App().run()"
PYTHON = [sys.executable, "-P"]


def first_paint(argv: list[str], env: dict[str, str]) -> float:
    """CPU seconds of the process until it has drawn its first frame."""
    terminal = Terminal(argv, env, size=(120, 36))
    try:
        process = psutil.Process(terminal.process.pid)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            terminal.read(0.002)
            # Textual ends a synchronized update with this: a whole frame is out.
            if b"\x1b[?2026l" in terminal.raw or len(terminal.raw) > 4000:
                times = process.cpu_times()
                return times.user + times.system
        raise AssertionError("no frame within 60 s")
    finally:
        terminal.close()


def idle(argv: list[str], env: dict[str, str], ready: str | None) -> tuple[float, float]:
    """Resident MB, and the share of one core, once the app has come to rest."""
    terminal = Terminal(argv, env, size=(120, 36))
    try:
        if ready is not None:
            terminal.wait_for(ready, seconds=60)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            terminal.read(0.1)
        process = psutil.Process(terminal.process.pid)
        before, start = process.cpu_times(), time.monotonic()
        while time.monotonic() - start < IDLE_SECONDS:
            terminal.read(0.5)
        after = process.cpu_times()
        used = (after.user + after.system) - (before.user + before.system)
        return process.memory_info().rss / 1e6, used / (time.monotonic() - start)
    finally:
        terminal.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TERM": "xterm-256color", "INFRAXA_DATA_DIR": folder, "COLORTERM": "truecolor"}
        ours = [*PYTHON, "-m", "infraxa"]
        empty = [*PYTHON, "-c", EMPTY]
        paints = [(first_paint(ours, env), first_paint(empty, env)) for _ in range(7)]
        a, b = (statistics.median(column) * 1000 for column in zip(*paints, strict=True))
        print(
            f"CPU to the first paint, ratio to an empty Textual app: {a / b:.2f}  ({a:.0f} ms / {b:.0f} ms)"
        )
        rss, share = idle(ours, env, ready=None)
        empty_rss, empty_share = idle(empty, env, ready=None)
        print(
            f"memory of the parent, ratio to an empty Textual app: {rss / empty_rss:.2f}  "
            f"({rss:.0f} MB / {empty_rss:.0f} MB)"
        )
        print(f"idle: {share:.2%} of a core (empty Textual app: {empty_share:.2%})")


if __name__ == "__main__":
    main()
