"""The key of the gateway: read from the environment, else kept in a file of the data folder.

Whoever has it can spend this node's credits. It is in no setting, no log and no event.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infraxa.app.config import API_KEY_VARIABLE
from infraxa.app.errors import NodeError

FILE_NAME: Final = "gateway.key"
MIN_KEY: Final = 16
MAX_KEY: Final = 512
"""Characters."""
_ALLOWED: Final = frozenset(string.ascii_letters + string.digits + string.punctuation)


def checked(key: str, where: str) -> str:
    """The key, when it can be one. Raises NodeError `bad_key`, which does not show it."""
    if not MIN_KEY <= len(key) <= MAX_KEY or not _ALLOWED.issuperset(key):
        raise NodeError(
            "bad_key",
            f"{where} is not a key: it must have {MIN_KEY} to {MAX_KEY} letters, digits or signs, no spaces.",
            f"Leave it out: a key is made, and infraxa gateway key prints it. Or change {where}.",
        )
    return key


def kept_key(folder: Path, environ: Mapping[str, str]) -> str:
    """The key of this data folder; made and written, for its owner alone, when there is none.

    Raises NodeError `bad_key`, `not_written`.
    """
    if given := environ.get(API_KEY_VARIABLE):
        return checked(given, API_KEY_VARIABLE)
    path = folder / FILE_NAME
    try:
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                return _read(path)
            with contextlib.suppress(FileExistsError):  # another infraxa was quicker
                return _make(path)
        return _read(path)
    except OSError as error:
        raise NodeError(
            "not_written",
            f"The key of the gateway, {path}, cannot be used: {error.strerror or error}.",
            f"Make it readable for you, or set {API_KEY_VARIABLE}.",
        ) from error


def _read(path: Path) -> str:
    with path.open("rb") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            os.fchmod(file.fileno(), 0o600)  # a copy of the folder may have opened it to others
        data = file.read(MAX_KEY + 2)
    return checked(data.decode("utf-8", "replace").strip(), str(path))


def _make(path: Path) -> str:
    key = f"ix-{secrets.token_urlsafe(32)}"
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # whole or not at all, and never over another one
        except FileExistsError:
            raise
        except OSError:  # not every disk has links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return key
