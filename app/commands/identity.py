"""`infraxa identity`: shows the node's key, copies it out and brings one in.

The secret itself is printed by `export` alone, and only where it was asked to.
"""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, note, print_json, print_pairs
from infraxa.app.config import PASSPHRASE_VARIABLE
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders, whole_path
from infraxa.net import keyfile
from infraxa.net.errors import NetError
from infraxa.net.identity import display, id_text, short_id
from infraxa.net.keyfile import IDENTITY_NAME, RECOVERY_NAME, KeyFile
from infraxa.net.names import default_name

STANDARD = "-"
"""In place of a file: standard input or output."""


def show(data_dir: Path | None, *, as_json: bool) -> None:
    folders = folders_of(data_dir)
    key = _own(folders)
    facts = _facts(folders, key)
    if as_json:
        print_json(facts)
        return
    recovery = facts["recovery_file"]
    print_pairs(
        (
            ("shown as", facts["display"]),
            ("id", facts["id"]),
            ("key", f"{facts['file']} ({'with' if key.locked else 'without'} a passphrase)"),
            ("recovery key", f"{recovery} (move it to another place than this machine)" if recovery else ""),
        )
    )


def export(data_dir: Path | None, file: str, *, passphrase: bool | None) -> None:
    """`passphrase`: seal the copy with a new one, or leave it off; None = as the key is kept here."""
    folders = folders_of(data_dir)
    key = _own(folders)
    path = None if file == STANDARD else whole_path(file)
    if path is not None and path.exists():
        raise NodeError("exists", f"The file {path} is there already.", "Choose another name, or remove it.")
    if passphrase is not None:
        key = _opened(key, "Passphrase of the key: ")
    if passphrase:
        key = keyfile.seal(key, new_passphrase())
    if path is not None:
        keyfile.write(path, key)
        print(clean(f"The key of {_shown(folders, key)} is in {path}. Whoever has it is this node."))
        return
    if sys.stdout is not None and sys.stdout.isatty():
        note("infraxa: this is the secret key of this node. Whoever sees it can be this node.")
    print(keyfile.to_text(key), end="")


def import_(data_dir: Path | None, file: str, *, force: bool, as_json: bool) -> None:
    """The key before is kept in a file beside it. Refused while a node runs on this folder."""
    from infraxa.store.lock import FolderLock

    folders = folders_of(data_dir)
    key = _given(file)
    opened = _opened(key, f"Passphrase of {short_id(key.id)}: ")
    with FolderLock.acquire(folders.data):
        path = folders.data / IDENTITY_NAME
        kept = _make_room(folders, opened, force=force)
        keyfile.write(path, key)
    facts = _facts(folders, key) | {"kept": [str(file) for file in kept]}
    if as_json:
        print_json(facts)
        return
    print(clean(f"This node is {facts['display']}."))
    for copy in kept:
        print(clean(f"What was there before is kept in {copy}."))
    print("Use it on one machine at a time: two at once contradict each other, and others drop both.")


def _own(folders: Folders) -> KeyFile:
    path = folders.data / IDENTITY_NAME
    try:
        key = keyfile.read(path)
    except FileNotFoundError:
        raise NodeError(
            "not_found",
            "This node has no identity yet.",
            "It gets one when it goes online; or bring one along: infraxa identity import FILE.",
        ) from None
    if (notice := keyfile.exposed(path)) is not None:
        note(f"infraxa: {notice.message} {notice.remedy}")
    return key


def _given(file: str) -> KeyFile:
    if file == STANDARD:
        # Not more than any key has: the rest of a long text is nobody's key.
        key = keyfile.from_text("" if sys.stdin is None else sys.stdin.read(keyfile.MAX_FILE), "The input")
    else:
        key = keyfile.read(whole_path(file))
    if key.kind != "node":
        raise NetError(
            "bad_key",
            "This is a recovery key, which only names a successor or revokes a node.",
            "Give the node's own key: identity.key, or what `infraxa identity export` wrote.",
        )
    return key


def _make_room(folders: Folders, new: KeyFile, *, force: bool) -> list[Path]:
    """Keep copies of the keys that `new` takes the place of. Raises NodeError `exists` without `force`."""
    path = folders.data / IDENTITY_NAME
    who = "an identity that cannot be read"
    try:
        old = keyfile.read(path)
    except FileNotFoundError:
        return []
    except NetError:
        pass
    else:
        if old.secret == new.secret:
            return []  # the same one; maybe its passphrase is new
        who = _shown(folders, old)
    if not force:
        raise NodeError(
            "exists",
            f"This node is {who} already.",
            "To replace it, add --force: its key is kept in a file beside it.",
        )
    copies = [keyfile.keep_copy(path), keyfile.keep_copy(folders.data / RECOVERY_NAME)]
    (folders.data / RECOVERY_NAME).unlink(missing_ok=True)
    return [copy for copy in copies if copy is not None]


def _opened(key: KeyFile, prompt: str) -> KeyFile:
    return keyfile.unseal(key, passphrase_for(prompt)) if key.locked else key


def new_passphrase() -> str:
    """A passphrase for something that is written: asked for twice. Raises NetError `locked_key`."""
    first = passphrase_for("New passphrase: ")
    if not first:
        raise NetError("locked_key", "An empty passphrase keeps nobody out.", "Choose another one.")
    if PASSPHRASE_VARIABLE not in os.environ and first != passphrase_for("The same again: "):
        raise NetError("locked_key", "The two passphrases are not the same.", "Try again.")
    return first


def passphrase_for(prompt: str) -> str:
    """From the variable, else typed at the terminal, unseen."""
    if (given := os.environ.get(PASSPHRASE_VARIABLE)) is not None:
        return given
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would be seen
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise NetError(
                "locked_key",
                "A passphrase is needed, and there is no terminal to ask for it.",
                f"Give it in the variable {PASSPHRASE_VARIABLE}.",
            ) from None


def _shown(folders: Folders, key: KeyFile) -> str:
    return display(_name(folders, key), key.id)


def _name(folders: Folders, key: KeyFile) -> str:
    return settings_of(folders, {}).name or default_name(key.id)


def _facts(folders: Folders, key: KeyFile) -> dict[str, Any]:
    recovery = folders.data / RECOVERY_NAME
    return {
        "display": _shown(folders, key),
        "name": _name(folders, key),
        "id": id_text(key.id),
        "file": str(folders.data / IDENTITY_NAME),
        "passphrase": key.locked,
        "recovery_file": str(recovery) if recovery.exists() else None,
    }
