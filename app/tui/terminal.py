"""The terminal's own title, which Textual leaves alone. Written through the driver, which owns the terminal."""

from __future__ import annotations

from typing import Any

from textual.app import App

from infraxa.app.tui.widgets.text import one_line


def _write(app: App[Any], sequence: str) -> None:
    driver = app._driver
    if driver is not None and not app.is_headless and app._running:
        driver.write(sequence)
        driver.flush()


def push_title(app: App[Any]) -> None:
    """Have the terminal keep its title, where it can."""
    _write(app, "\x1b[22;2t")


def pop_title(app: App[Any]) -> None:
    """Give the terminal its title back."""
    _write(app, "\x1b[23;2t")


def set_title(app: App[Any], text: str) -> None:
    """The title from now on; control characters are left out."""
    _write(app, f"\x1b]2;{one_line(text, 80)}\x07")
