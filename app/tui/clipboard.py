"""Putting text on the clipboard: the system's own tool where there is one, else the terminal's OSC 52.

Textual knows only OSC 52, which some terminals ignore and tmux may block; a native tool either works or says
so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

TIMEOUT = 2.0
"""Seconds that a tool may take; wl-copy and xclip can wait for a display that never answers."""

OSC52_LIMIT = 74_994
"""Bytes that the strictest common terminals take by OSC 52."""


@dataclass(frozen=True)
class Copied:
    """How the text went: `way` is the tool or `terminal`; `note` is what the person should know, or empty."""

    way: str
    note: str = ""


def candidates(platform: str, environ: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The commands to try, best first; each reads the text from stdin."""
    if platform == "darwin":
        return [("pbcopy",)]
    if platform == "win32":
        return [("clip.exe",)]
    commands: list[tuple[str, ...]] = []
    if environ.get("WAYLAND_DISPLAY"):
        commands.append(("wl-copy",))
    if environ.get("DISPLAY"):
        commands.append(("xclip", "-selection", "clipboard", "-in"))
        commands.append(("xsel", "--clipboard", "--input"))
    if environ.get("WSL_DISTRO_NAME"):
        commands.append(("clip.exe",))
    return commands


@lru_cache(maxsize=1)
def tools() -> tuple[tuple[str, ...], ...]:
    """The commands of this machine, looked for once."""
    found = candidates(sys.platform, os.environ)
    return tuple((path, *rest) for name, *rest in found if (path := shutil.which(name)))


def run_tool(command: tuple[str, ...], text: str) -> bool:
    """Give `text` to `command`; whether it took it. Blocks, for TIMEOUT at most."""
    encoding = "utf-16-le" if os.path.basename(command[0]).startswith("clip.exe") else "utf-8"
    try:
        subprocess.run(
            command,
            input=text.encode(encoding, "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


async def copy(text: str, osc52: Callable[[str], None]) -> Copied:
    """Put `text` on the clipboard. `osc52` is how the app asks the terminal (`App.copy_to_clipboard`)."""
    for command in tools():
        if await asyncio.to_thread(run_tool, command, text):
            return Copied(os.path.basename(command[0]))
    osc52(text)
    if len(text.encode("utf-8", "replace")) > OSC52_LIMIT:
        note = "The text is long: some terminals cut it. `/export` writes the whole chat to a file."
    elif os.environ.get("TMUX"):
        note = "Inside tmux this needs `set -g set-clipboard on`."
    else:
        note = ""
    return Copied("terminal", note)
