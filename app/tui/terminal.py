"""The terminal's own title, which Textual leaves alone. While the app runs, its driver does the writing."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from textual.app import App

from infraxa.app.tui.widgets.text import one_line


def keep_title() -> None:
    """Have the terminal remember its title, where it can. Before the app."""
    _print("\x1b[22;2t")


def restore_title() -> None:
    """Give the terminal its title back. After the app."""
    _print("\x1b[23;2t")


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
