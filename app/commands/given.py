"""What every command starts from: the folders and the settings that its options and variables ask for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from infraxa.app import config
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.output import note
from infraxa.app.config import BadSettings, Settings
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.store.restoring import STAGE

_CAPS = ("cap_request", "cap_chat", "cap_day", "cap_api")
"""Whoever gives one relies on it."""
_HEEDED = ("provide", "gateway_port")
"""What a command asks of the infraxa that is open."""


def folders_of(data_dir: Path | None) -> Folders:
    """Where this node keeps its files, all of them of one state: a restore that was killed is finished."""
    folders = Folders.find(data_dir, os.environ)
    if (folders.data / STAGE).exists():
        from infraxa.store.lock import FolderLock
        from infraxa.store.records import StoreError

        with contextlib.suppress(StoreError):  # somebody is at it, or it is said by whoever needs the folder
            FolderLock.acquire(folders.data).release()
    return folders


def settings_of(
    folders: Folders, flags: Mapping[str, object], spelled: Mapping[str, str] | None = None
) -> Settings:
    """The settings in force; a flag with a bad value is wrong usage. Warnings go to standard error.

    `spelled`: flags that are written otherwise than their settings.
    """
    for name, value in flags.items():
        if value is not None:
            try:
                config.parse(name, value, (spelled or {}).get(name) or _option(name))
            except BadSettings as error:
                raise UsageError(error.message) from None
    return config.load(folders, flags, os.environ, warn=lambda line: note(f"infraxa: {line}"))


def ignored(flags: Mapping[str, object], given: Settings, used: Settings) -> str:
    """What to say of options that the infraxa that is open does not heed; empty: there are none. `given`:
    the settings with these options, `used`: those of that infraxa. Raises NodeError when one is a cap."""
    names = [
        name
        for name, value in flags.items()
        if value is not None and name not in _HEEDED and getattr(given, name) != getattr(used, name)
    ]
    for name in names:
        if name in _CAPS:
            raise NodeError(
                "bad_setting",
                f"{_option(name)} cannot be given here: the infraxa that is open has its own caps.",
                f"Change it there: infraxa config set {name} {config.text_of(getattr(given, name))}.",
            )
    if not names:
        return ""
    return f"its settings are used, not what was given here: {', '.join(map(_option, names))}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
