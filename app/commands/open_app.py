"""`infraxa` alone: opens the terminal app, where there is a terminal."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.errors import NodeError


def open_app(data_dir: Path | None, flags: Mapping[str, object]) -> int:
    """Returns the app's exit code. Raises NodeError `no_terminal`."""
    require_terminal()
    folders = folders_of(data_dir)
    settings = settings_of(folders, flags)
    # Nothing of what is made up to the first frame is garbage; looking for some takes an eighth of that time.
    gc.disable()
    from infraxa.app.tui.app import run

    return run(settings, folders)


def require_terminal() -> None:
    """Raises NodeError `no_terminal` where the app cannot be shown."""
    if os.environ.get("TEXTUAL_DRIVER"):  # whoever started this draws it: a browser, with textual-serve
        return
    remedy = 'For one answer without it: infraxa ask "…"'
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None or not stream.isatty():
            raise NodeError(
                "no_terminal", f"The app needs a terminal, and standard {name} is not one.", remedy
            )
    if os.environ.get("TERM", "") in ("", "dumb"):
        shown = os.environ.get("TERM") or "not set"
        raise NodeError("no_terminal", f"The app needs a terminal that can draw; TERM is {shown}.", remedy)
