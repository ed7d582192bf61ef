"""Where a chat is exported to: a file name from its title, what is wrong with a path, the writing itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

LONGEST_NAME = 60


def default_target(title: str) -> Path:
    """A file in the folder that infraxa was started in, named after the chat."""
    name = re.sub(r"[^\w-]+", "-", title.lower()).strip("-_")[:LONGEST_NAME].strip("-_") or "chat"
    return Path.cwd() / f"{name}.md"


def check_target(text: str) -> str:
    """Why nothing can be written there; `confirm:…` when it replaces a file; "" when it is fine."""
    if not text:
        return "Which file?"
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return f"{path} is a folder. Add a file name."
        if not path.absolute().parent.is_dir():
            return f"There is no folder {path.absolute().parent}."
        if not os.access(path.absolute().parent, os.W_OK):
            return f"The folder {path.absolute().parent} cannot be written to."
        if path.exists():
            return f"confirm:{path} exists. Press Enter again to replace it."
    except OSError as error:
        return f"{path}: {error.strerror or error}."
    return ""


def write(path: Path, text: str) -> Path:
    """Write `text`, whole or not at all; the path that was written. Raises OSError."""
    target = path.expanduser().absolute()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
