"""The terminal itself: whether the app can be shown on it, and its title, which Textual leaves alone.

While the app runs, its driver does the writing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Final, NoReturn

from textual.app import App
from textual.screen import Screen
from textual.widgets import Static

from infraxa.app.tui.widgets.text import one_line

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

_AS_BEFORE: Final = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l"  # no mouse
    "\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[?2026l\x1b[<u"  # no focus, paste, size, held frames, key protocol
    "\x1b[?7h\x1b[?1049l\x1b[?25h\x1b[23;2t"  # lines wrap; the other screen, cursor and title
)
"""What makes a terminal what it was before the app, whichever of its modes were on."""


def unusable() -> str:
    """Why the app cannot be shown on this terminal; empty when it can."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return ""  # it is drawn elsewhere
    if os.environ.get("TERM", "") in ("dumb", "unknown"):
        return "This terminal can only print lines (TERM=dumb)."
    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        return "The app needs a terminal, and its input or its error output is redirected."
    return ""


def keep_title() -> None:
    """Have the terminal remember its title, where it can. Before the app."""
    _print("\x1b[22;2t")


def restore_title() -> None:
    """Give the terminal its title back. After the app."""
    _print("\x1b[23;2t")


def line_modes() -> list[Any] | None:
    """Of the terminal, before the app: for `give_up`. None where there are none."""
    if termios is None or sys.__stdin__ is None:
        return None
    with contextlib.suppress(termios.error, OSError, ValueError):
        return termios.tcgetattr(sys.__stdin__.fileno())
    return None


def give_up(words: str, code: int, modes: list[Any] | None) -> NoReturn:
    """End the process now, from any thread, though the app may hang: with the terminal as it was, and a line
    that says so. A terminal that takes nothing is not waited for."""
    with contextlib.suppress(Exception):
        assert sys.__stderr__ is not None and sys.__stdin__ is not None
        error = sys.__stderr__.fileno()
        if modes is not None:
            termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, modes)
        os.set_blocking(error, False)
        try:
            os.write(error, f"{_AS_BEFORE}{words}\r\n".encode())
        finally:
            os.set_blocking(error, True)
    os._exit(code)


def _print(sequence: str) -> None:
    if sys.__stderr__ is not None:
        # The terminal may be gone: that was why the app ended.
        with contextlib.suppress(OSError):
            sys.__stderr__.write(sequence)
            sys.__stderr__.flush()


def set_title(app: App[Any], text: str) -> None:
    """The title from now on; control characters are left out."""
    driver = app._driver
    if driver is not None and not app.is_headless and app.is_running:
        driver.write(f"\x1b]2;{one_line(text, 80)}\x07")
        driver.flush()


def tell_too_small(screen: Screen[Any]) -> None:
    """Say in its `#too-small` that nothing can be shown on so few cells."""
    width, height = screen.size
    if width < 32 or height < 8:
        screen.query_one("#too-small", Static).update(
            f"infraxa needs a terminal of 32×8; this one is {width}×{height}."
        )
