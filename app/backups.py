"""One file with everything that a node remembers: its keys, chats, books, settings and themes.

How that file is written is in backup_file.py, how the database is copied and checked in store/copies.py, how
files get into their places in store/restoring.py, what a person is asked and told in commands/memory.py.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from infraxa.app.backup_file import NEW_FILE, Manifest, Member, body_of, is_small, not_written, pack, unpack
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.net import keyfile
from infraxa.net.errors import NetError
from infraxa.net.identity import id_text
from infraxa.net.keyfile import IDENTITY_NAME
from infraxa.net.sealing import Sealer, damaged
from infraxa.store import copies, restoring
from infraxa.store.copies import Contents
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.lock import FolderLock
from infraxa.store.records import StoreError

KEYS: Final = ("identity*.key", "recovery*.key")
DATABASE: Final = (DATABASE_NAME, *(f"{DATABASE_NAME}-{part}" for part in ("wal", "shm", "journal")))
CONFIG: Final = "config.toml"
THEMES: Final = "themes"
SCRATCH: Final = "backup-"
"""How folders within the data folder begin in which a backup is made."""

_ABANDONED_S: Final = 3600.0
"""After so long nobody is making a backup in its folder any more."""


class Restored(msgspec.Struct, frozen=True):
    manifest: Manifest
    aside: Path | None
    """Where what was there before is."""


def remembered(folder: Path) -> list[str]:
    """The names in a data folder that make a node: its database and its keys."""
    names = {path.name for path in keys_of(folder)}
    return sorted(names | {name for name in DATABASE if (folder / name).exists()})


def keys_of(folder: Path) -> list[Path]:
    """The keys in a data folder, those that were replaced there too."""
    return sorted({path for pattern in KEYS for path in folder.glob(pattern)})


def write(folders: Folders, file: Path, passphrase: Callable[[], str] | None, *, force: bool) -> Manifest:
    """Write everything into `file`, whole or not at all, for this person alone; an infraxa may be running.
    Blocks. Raises NodeError, StoreError, NetError."""
    _check_free(file, force=force)
    if not remembered(folders.data):
        raise NodeError("not_found", f"There is nothing to back up in {folders.data}.", "")
    secret = passphrase() if passphrase is not None else None
    part = file.with_name(f".{file.name}.part")
    # Within the data folder: no copy of what is in there lies anywhere else without its passphrase.
    with _scratch(folders.data) as scratch, _named(file):
        manifest, sources = _collect(folders, scratch)
        try:
            part.unlink(missing_ok=True)  # of a run that was killed
            fd = os.open(part, NEW_FILE, 0o600)
            with os.fdopen(fd, "wb") as out:
                sink = Sealer(out, secret) if secret is not None else None
                pack(sink or out, manifest, sources)
                if sink is not None:
                    sink.close()
                out.flush()
                os.fsync(out.fileno())
            _check_free(file, force=force)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    return manifest


def restore(folders: Folders, file: Path, passphrase: Callable[[], str], *, force: bool) -> Restored:
    """Put what `file` holds into the folders, all of it or nothing. What is there before is moved aside, and
    only with `force`. Refused while an infraxa has the folder. Blocks.

    Raises NodeError, StoreError, NetError.
    """
    with _opened(file) as source, FolderLock.acquire(folders.data):
        old = remembered(folders.data)
        taken = old or folders.config_file.exists()
        if taken and not force:
            raise NodeError(
                "exists",
                f"There is a node in {folders.data} already.",
                "Add --force: what is there is moved aside; or choose another folder with --data-dir.",
            )
        if DATABASE_NAME in old:
            # Looking into it may make the others: none of them may lie beside the new one.
            old = sorted({*old, *DATABASE})
        aside = _aside(folders.data) if taken else None
        with _named(folders.data):
            stage = restoring.begin(folders.data)
        try:
            manifest = unpack(body_of(source, passphrase), stage)
            _check(manifest, stage, folders)
            with _named(folders.data):
                if taken:
                    _copy_settings(folders, stage / restoring.ASIDE)
                plan = restoring.Plan(str(folders.config), str(aside or ""), tuple(old))
                restoring.decide(folders.data, plan)
        except BaseException:
            if not (stage / restoring.READY).exists():
                shutil.rmtree(stage, ignore_errors=True)
            raise
        with _named(folders.data):
            restoring.finish(folders.data)
    return Restored(manifest, aside)


def _collect(folders: Folders, scratch: Path) -> tuple[Manifest, dict[str, Path]]:
    """What goes into the file, and where that is."""
    sources = {path.name: path for path in keys_of(folders.data)}
    contents = Contents()
    if (folders.data / DATABASE_NAME).exists():
        contents = copies.copy_database(folders.data, scratch)
        sources[DATABASE_NAME] = scratch / DATABASE_NAME
    if folders.config_file.is_file():
        sources[CONFIG] = folders.config_file
    sources |= {f"{THEMES}/{path.name}": path for path in sorted(folders.themes.glob("*.toml"))}
    kept: dict[str, Path] = {}
    for name, path in sources.items():
        if name != DATABASE_NAME:
            if not is_small(name, path.stat().st_size):
                continue  # nothing of infraxa's
            # As it is now: it may be replaced before it is written.
            copy = scratch / f"{len(kept)}"
            shutil.copyfile(path, copy)
            path = copy
        kept[name] = path
    members = tuple(Member(name, path.stat().st_size, _hash(path)) for name, path in kept.items())
    node = ""
    with contextlib.suppress(FileNotFoundError, NetError):
        node = id_text(keyfile.read(folders.data / IDENTITY_NAME).id)
    made = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
    return Manifest(made, node, contents, members), kept


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        source = file.open("rb")
    except OSError as error:
        raise NodeError("io", f"{file} cannot be read: {error.strerror or error}.", "") from error
    with source:
        yield source


def _check(manifest: Manifest, stage: Path, folders: Folders) -> None:
    """All of it can be used. Raises NetError, StoreError."""
    data = stage / restoring.DATA
    with contextlib.suppress(FileNotFoundError):
        # The other keys, and the settings, are kept as they are, whatever they are.
        text = (data / IDENTITY_NAME).read_text("utf-8-sig", "replace")
        if keyfile.from_text(text, "The key in the backup").kind != "node":
            raise damaged()
    if not (data / DATABASE_NAME).exists():
        return
    try:
        copies.adopt_copy(data, folders.data)
    except StoreError as error:
        if error.code == "corrupt":
            raise NetError(
                "bad_backup", "The database in the backup is damaged.", "Take another copy of it."
            ) from error
        if error.code == "newer_schema":
            raise NodeError("newer", "The backup is from a newer infraxa.", "Update infraxa.") from error
        raise
    if [path for path in data.glob(f"{DATABASE_NAME}-*")]:
        raise StoreError("io", f"The database in {data} could not be closed.", "Try again.")


def _aside(folder: Path) -> Path:
    """A name for the old folder, beside it on the same disk."""
    day = datetime.datetime.now().strftime("%Y-%m-%d")
    aside, number = folder.with_name(f"{folder.name}.before-{day}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = folder.with_name(f"{folder.name}.before-{day}-{number}")
    parent = folder.parent
    if not os.access(parent, os.W_OK | os.X_OK) or parent.stat().st_dev != folder.stat().st_dev:
        raise NodeError(
            "not_written",
            f"What is in {folder} cannot be moved aside to {aside}.",
            "Restore into another folder, with --data-dir.",
        )
    return aside


def _copy_settings(folders: Folders, target: Path) -> None:
    for path in (folders.config_file, *sorted(folders.themes.glob("*.toml"))):
        if path.is_file():
            copy = target / path.relative_to(folders.config)
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(0o600)


def _check_free(file: Path, *, force: bool) -> None:
    if file.is_dir():
        raise NodeError("exists", f"{file} is a folder.", "Name the file.")
    if file.exists() and not force:
        raise NodeError(
            "exists", f"The file {file} is there already.", "Choose another name, or add --force."
        )


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    for left in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    with _named(folder):
        made = tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What cannot be written, in words."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
