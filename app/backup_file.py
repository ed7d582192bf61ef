"""The file that a backup is: a tar, compressed, whose first member says what the others must be; under a
passphrase all of it is sealed (net/sealing.py).

What goes into it and what becomes of it is in backups.py.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from infraxa.app.errors import NodeError
from infraxa.net import sealing
from infraxa.net.sealing import Unsealer, damaged
from infraxa.store import restoring
from infraxa.store.copies import Contents
from infraxa.store.folder import DATABASE_NAME

NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

_MANIFEST: Final = "manifest.json"
_MAX_MANIFEST: Final = 1 << 20
_MAX_SMALL: Final = 1 << 20
"""Bytes of any member but the database."""
_SMALL: Final = re.compile(
    r"(identity|recovery)(-[A-Za-z0-9-]{1,40})?\.key|config\.toml|themes/[\w .-]{1,80}\.toml"
)
_PIECE: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"


class Member(msgspec.Struct, frozen=True):
    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds."""

    made_at: int
    """Milliseconds since the epoch."""
    node: str
    """Its id; empty for one that was never online."""
    contents: Contents
    files: tuple[Member, ...]
    infraxa_backup: int = 1
    """The version of the format."""


def is_small(name: str, size: int) -> bool:
    """A file of a node that may be in a backup: any but the database."""
    return _SMALL.fullmatch(name) is not None and 0 <= size <= _MAX_SMALL


def pack(out: Any, manifest: Manifest, sources: dict[str, Path]) -> None:
    """Write what `manifest` says, found at `sources`, into `out`."""
    with tarfile.open(mode="w|gz", fileobj=out, format=tarfile.PAX_FORMAT) as tar:
        data = msgspec.json.encode(manifest)
        tar.addfile(_info(_MANIFEST, len(data)), io.BytesIO(data))
        for member in manifest.files:
            with sources[member.name].open("rb") as file:
                tar.addfile(_info(member.name, member.size), file)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def body_of(source: IO[bytes], passphrase: Callable[[], str]) -> Any:
    """The compressed tar. Raises NetError, NodeError."""
    start = source.read(len(sealing.MARK))
    if start == sealing.MARK:
        return Unsealer(source, passphrase())
    source.seek(0)
    if start.startswith(_GZIP):
        return source
    raise _not_ours()


def unpack(body: Any, stage: Path) -> Manifest:
    """Bring its files into `stage`. Raises NetError `bad_backup`, NodeError."""
    try:
        with tarfile.open(mode="r|gz", fileobj=body) as tar:
            members = iter(tar)
            first = next(members, None)
            if first is None or first.name != _MANIFEST or not first.isreg() or first.size > _MAX_MANIFEST:
                raise _not_ours()
            manifest = _manifest((tar.extractfile(first) or io.BytesIO()).read())
            _check_room(manifest, stage)
            left = {member.name: member for member in manifest.files}
            for info in members:
                member = left.pop(info.name, None)
                if member is None or not info.isreg() or info.size != member.size:
                    raise damaged()
                _extract(tar.extractfile(info) or io.BytesIO(), member, stage)
            if left:
                raise damaged()
        while body.read(_PIECE):  # that this is the end is known at the end
            pass
    except (tarfile.TarError, zlib.error, EOFError):
        raise damaged() from None
    except OSError as error:
        if error.errno is None:  # of the compression
            raise damaged() from None
        raise not_written(stage, error) from error
    return manifest


def _manifest(data: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("infraxa_backup")
        if isinstance(version, int) and version > 1:
            raise NodeError("newer", "The backup was written by a newer infraxa.", "Update infraxa.")
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError:
        raise damaged() from None
    for member in manifest.files:
        if not is_small(member.name, member.size) and not (member.name == DATABASE_NAME and member.size >= 0):
            raise damaged()
    return manifest


def _check_room(manifest: Manifest, stage: Path) -> None:
    # The database may grow while its schema is brought up to date.
    needed = 2 * sum(member.size for member in manifest.files) + (16 << 20)
    if shutil.disk_usage(stage).free < needed:
        raise NodeError(
            "not_written",
            f"The disk that holds {stage.parent} has no room for it: {needed >> 20} MiB.",
            "Free some space there.",
        )


def _extract(file: IO[bytes], member: Member, stage: Path) -> None:
    where = restoring.CONFIG if member.name.endswith(".toml") else restoring.DATA
    path = stage / where / member.name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256()
    fd = os.open(path, NEW_FILE, 0o600)
    with os.fdopen(fd, "wb") as out:
        while data := file.read(_PIECE):
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != member.sha256:
        raise damaged()


def _not_ours() -> NodeError:
    return NodeError(
        "bad_backup", "This is not a backup of infraxa.", "Choose a file that infraxa backup wrote."
    )


def not_written(path: Path, error: OSError) -> NodeError:
    return NodeError(
        "not_written",
        f"{path} cannot be written: {error.strerror or error}.",
        "Check that the disk has room and may be written.",
    )
