"""`infraxa backup`, `restore` and `wipe`: everything that a node remembers, together.

What a backup is and how it comes back is in app/backups.py; here is what a person is asked and told.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
from pathlib import Path

from infraxa.app import backups
from infraxa.app.backup_file import Manifest
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.given import folders_of
from infraxa.app.commands.identity import new_passphrase, passphrase_for
from infraxa.app.commands.output import clean, print_json
from infraxa.app.control.endpoint import PLACE_NAME, SOCKET_NAME
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders, whole_path
from infraxa.app.gateway.key import FILE_NAME as API_KEY_NAME
from infraxa.app.pulled_files import models_folder
from infraxa.app.sizes import size_text
from infraxa.app.vocabularies import FOLDER
from infraxa.net.credits import shown
from infraxa.net.identity import parse_id, short_id
from infraxa.store import copies, restoring
from infraxa.store.copies import Contents
from infraxa.store.lock import FolderLock
from infraxa.store.records import StoreError


def backup(data_dir: Path | None, file: Path, *, passphrase: bool, force: bool, as_json: bool) -> None:
    path = whole_path(file)
    made = backups.write(folders_of(data_dir), path, new_passphrase if passphrase else None, force=force)
    size = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "bytes": size, "sealed": passphrase} | _facts(made))
        return
    print(clean(f"In {path}: {_what(made.contents)}, {_others(made)}; {size_text(size)}."))
    if passphrase:
        print("It is sealed: without the passphrase nobody can read it, not even you.")
    else:
        print("It is not sealed: whoever has it can read the messages and be this node.")


def restore(data_dir: Path | None, file: Path, *, force: bool, as_json: bool) -> None:
    folders = folders_of(data_dir)
    done = backups.restore(
        folders, whole_path(file), lambda: passphrase_for("Passphrase of the backup: "), force=force
    )
    aside = done.aside
    if as_json:
        print_json({"data": str(folders.data), "aside": aside and str(aside)} | _facts(done.manifest))
        return
    made = datetime.datetime.fromtimestamp(done.manifest.made_at / 1000)
    who = f"node {short_id(parse_id(done.manifest.node))}" if done.manifest.node else "a node without a key"
    print(clean(f"This is {who}, as it was {made:%Y-%m-%d %H:%M}: {_what(done.manifest.contents)}."))
    if aside is not None:
        print(clean(f"What was there before is in {aside}; back to it: infraxa --data-dir '{aside}'"))
    if done.manifest.contents.receipts:
        print("What was signed since then is asked of the others; nothing is signed before they have told.")
    if done.manifest.node:
        print("Use it on one machine at a time: two at once contradict each other, and others drop both.")


def wipe(data_dir: Path | None, *, yes: bool, everything: bool) -> int:
    """Gives the exit code."""
    folders = folders_of(data_dir)
    if not folders.data.is_dir() or not _ours(folders, everything=everything):
        print(clean(f"Nothing of infraxa is in {folders.data}."))
        return 0
    with FolderLock.acquire(folders.data):
        print(clean(_loss(folders, everything=everything)))
        if not yes and not _agreed():
            print("Nothing was deleted.")
            return 1
        _delete(folders, everything=everything)
    print("It is deleted. The keys were overwritten; a disk may keep old copies of any file.")
    left = sorted(folders.data.parent.glob(f"{folders.data.name}.before-*"))
    for path in left:
        print(clean(f"Still there, from a restore: {path}"))
    return 0


def _agreed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("There is nobody to ask. Add --yes to delete it.")
    try:
        return input("Delete it all? Type yes: ").strip().lower() == "yes"
    except EOFError:
        return False


def _loss(folders: Folders, *, everything: bool) -> str:
    lines = [f"This deletes what the node in {folders.data} remembers."]
    try:
        contents = copies.contents_of(folders.data)
    except StoreError:
        lines.append("Its database cannot be read.")
    else:
        lines.append(f"Lost for ever: {_what(contents)}.")
        if contents.owed_here:
            lines.append(f"Others owe it {shown(contents.owed_here)} credits: that cannot be shown any more.")
        if contents.owes:
            lines.append(f"It owes others {shown(contents.owes)} credits.")
    if backups.keys_of(folders.data):
        lines.append("Its key: without a copy nobody can be this node again.")
    if models_folder(folders).exists():
        lines.append("The models that were pulled; they can be pulled again.")
    if everything:
        lines.append(f"The settings and themes in {folders.config}.")
    lines.append("A backup keeps all of it but pulled models and the gateway's key: infraxa backup FILE")
    return "\n".join(lines)


def _ours(folders: Folders, *, everything: bool) -> list[Path]:
    """What infraxa made, the keys first. What else lies in its folders is not its own."""
    data = folders.data
    found = [*backups.keys_of(data)]
    found += [data / name for name in (*backups.DATABASE, SOCKET_NAME, PLACE_NAME, API_KEY_NAME)]
    found += [
        models_folder(folders),
        data / FOLDER,
        data / restoring.STAGE,
        *data.glob(f"{backups.SCRATCH}*"),
    ]
    found += folders.log.glob("*.log*")
    if everything:
        found += [folders.config_file, *folders.themes.glob("*.toml")]
    return [path for path in found if os.path.lexists(path)]


def _delete(folders: Folders, *, everything: bool) -> None:
    for path in _ours(folders, everything=everything):
        try:
            if path.suffix == ".key":
                _overwrite(path)
            if path.is_dir() and not path.is_symlink():
                for key in path.rglob("*.key"):
                    _overwrite(key)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise NodeError(
                "not_written",
                f"{path} cannot be deleted: {error.strerror or error}.",
                "What is left is still there; try again.",
            ) from error
    for folder in (folders.log, folders.themes):
        with contextlib.suppress(OSError):
            folder.rmdir()  # when nothing else is in it


def _overwrite(path: Path) -> None:
    if path.is_symlink():
        return
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


def _what(contents: Contents) -> str:
    return f"{_count(contents.chats, 'chat')}, {_count(contents.receipts, 'receipt')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _others(made: Manifest) -> str:
    names = {member.name for member in made.files}
    kinds = [
        ("keys", any(name.endswith(".key") for name in names)),
        ("settings", backups.CONFIG in names),
        ("themes", any(name.startswith(backups.THEMES) for name in names)),
    ]
    return ", ".join(kind for kind, there in kinds if there) or "no keys"


def _facts(made: Manifest) -> dict[str, object]:
    return {
        "made_at": made.made_at,
        "node": made.node,
        "chats": made.contents.chats,
        "messages": made.contents.messages,
        "receipts": made.contents.receipts,
        "files": [member.name for member in made.files],
    }
