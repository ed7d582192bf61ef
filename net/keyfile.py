"""The files in which a node's secret keys are kept: identity.key, and recovery.key until its person moves it.

A file is text, for this person alone (0600), replaced as a whole or not at all, and never overwritten because
it could not be read. With a passphrase the secret is sealed: Argon2id makes the key of a SecretBox. Whoever
writes here holds the lock of the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from infraxa.net.errors import NetError
from infraxa.net.identity import SEED, Identity, Signer, base32, from_base32, id_text, short_id
from infraxa.net.status import Notice

IDENTITY_NAME: Final = "identity.key"
RECOVERY_NAME: Final = "recovery.key"

Kind = Literal["node", "recovery"]

_VERSION: Final = "infraxa-key 1"
MAX_FILE: Final = 4096
"""Bytes that are read; more than any key file has."""
_FIELDS: Final = ("kind", "id", "secret", "sealed", "check")
_COMMENTS: Final[dict[Kind, str]] = {
    "node": "# Whoever has this file is this node. Keep it to yourself, and a copy of it in a safe place.\n",
    "recovery": "# Names a successor of this node, or revokes it, if its own key is lost or stolen.\n"
    "# Move this file to another place than the node: a stick in a drawer, a password manager.\n",
}
_SECRET: Final = SEED + 32
_SEALED: Final = argon2id.SALTBYTES + SecretBox.NONCE_SIZE + _SECRET + SecretBox.MACBYTES
# 256 MiB, about 0.5 s. Part of the version: what a file says must not decide how much memory it takes.
_OPSLIMIT: Final = argon2id.OPSLIMIT_MODERATE
_MEMLIMIT: Final = argon2id.MEMLIMIT_MODERATE

RandBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What one file holds: `secret` or `sealed`, the other one is empty. Shown without either."""

    kind: Kind
    id: bytes
    """The key's public half."""
    secret: bytes = field(default=b"", repr=False)
    """The seed, and 32 bytes that belong to it: for a node key the SHA-256 of its recovery key's public half,
    for a recovery key the id of its node."""
    sealed: bytes = field(default=b"", repr=False)
    """Salt, nonce and SecretBox of `secret`."""

    @property
    def locked(self) -> bool:
        """Whether it takes a passphrase to use it."""
        return bool(self.sealed)

    def identity(self) -> Identity:
        """The node key. Only for kind `node` and when not locked."""
        return Identity(self.secret[:SEED], self.secret[SEED:])


def make(randbytes: RandBytes = os.urandom) -> tuple[KeyFile, KeyFile]:
    """A new node key and its recovery key."""
    node_seed, recovery_seed = randbytes(SEED), randbytes(SEED)
    node, recovery = Signer(node_seed).id, Signer(recovery_seed).id
    return (
        KeyFile("node", node, node_seed + hashlib.sha256(recovery).digest()),
        KeyFile("recovery", recovery, recovery_seed + node),
    )


def seal(key: KeyFile, passphrase: str, randbytes: RandBytes = os.urandom) -> KeyFile:
    """`key`, which is not locked, under a passphrase. Blocks for about 0.5 s.

    Raises NetError `locked_key` when there is not enough memory for it.
    """
    salt, nonce = randbytes(argon2id.SALTBYTES), randbytes(SecretBox.NONCE_SIZE)
    box = SecretBox(stretched(passphrase, salt)).encrypt(key.secret, nonce).ciphertext
    return KeyFile(key.kind, key.id, sealed=salt + nonce + box)


def unseal(key: KeyFile, passphrase: str | None) -> KeyFile:
    """`key` without its passphrase; unchanged when it has none. Blocks for about 0.5 s.

    Raises NetError `locked_key`: no passphrase, a wrong one, not enough memory; `bad_key`: the secret belongs
    to another id.
    """
    if not key.locked:
        return key
    if passphrase is None:
        raise NetError(
            "locked_key",
            "The node's key has a passphrase.",
            "Give it when asked, or in the variable INFRAXA_PASSPHRASE.",
        )
    salt, rest = key.sealed[: argon2id.SALTBYTES], key.sealed[argon2id.SALTBYTES :]
    try:
        secret = SecretBox(stretched(passphrase, salt)).decrypt(rest)
    except CryptoError:
        raise NetError(
            "locked_key",
            "The passphrase is wrong.",
            "Try again; without it this key cannot be used by anybody.",
        ) from None
    if Signer(secret[:SEED]).id != key.id:
        raise _bad_key("The sealed key")
    return KeyFile(key.kind, key.id, secret)


def stretched(passphrase: str, salt: bytes) -> bytes:
    """The key that a passphrase makes with a salt, by Argon2id. Blocks for about 0.5 s.

    Raises NetError `locked_key` when there is not enough memory for it.
    """
    # The same letters typed on another system are the same passphrase.
    password = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    try:
        return argon2id.kdf(SecretBox.KEY_SIZE, password, salt, opslimit=_OPSLIMIT, memlimit=_MEMLIMIT)
    except (MemoryError, CryptoError, RuntimeError):
        raise NetError(
            "locked_key",
            f"There is not enough free memory for the passphrase ({_MEMLIMIT >> 20} MiB).",
            "Close other programs and try again.",
        ) from None


def to_text(key: KeyFile) -> str:
    """What the file of `key` holds. A secret, even when it is sealed."""
    name, data = ("sealed", key.sealed) if key.locked else ("secret", key.secret)
    lines = f"{_VERSION}\nkind {key.kind}\nid {id_text(key.id)}\n{name} {base32(data)}\n"
    return f"{_COMMENTS[key.kind]}{lines}check {_check(lines)}\n"


def from_text(text: str, what: str) -> KeyFile:
    """The key in a file's text; `what` names the file in the error. Raises NetError `bad_key`."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if lines and lines[0].startswith("infraxa-key ") and lines[0] != _VERSION:
        raise NetError("bad_key", f"{what} was written by a newer infraxa.", "Update infraxa.")
    if not lines or (lines[0] != _VERSION and _VERSION.startswith(lines[0])):
        raise _bad_key(what)
    if lines[0] != _VERSION:
        raise NetError(
            "bad_key",
            f"{what} is not a key of infraxa.",
            "Choose a file that `infraxa identity export` wrote, or a copy of identity.key.",
        )
    fields = dict(line.partition(" ")[::2] for line in lines[1:])
    if len(fields) < len(lines) - 1 or not fields.keys() <= set(_FIELDS):
        raise _bad_key(what)
    if fields.pop("check", "") != _check("".join(f"{line}\n" for line in lines[:-1])):
        raise _bad_key(what)
    try:
        kind = fields["kind"]
        key = KeyFile(
            "node" if kind == "node" else "recovery",
            from_base32(fields["id"]),
            from_base32(fields.get("secret", "")),
            from_base32(fields.get("sealed", "")),
        )
    except (KeyError, ValueError):
        raise _bad_key(what) from None
    sizes = (len(key.secret), len(key.sealed))
    if kind not in _COMMENTS or len(key.id) != 32 or sizes not in ((_SECRET, 0), (0, _SEALED)):
        raise _bad_key(what)
    if not key.locked and Signer(key.secret[:SEED]).id != key.id:
        raise _bad_key(what)
    return key


def _check(lines: str) -> str:
    return base32(hashlib.sha256(lines.encode("utf-8", "replace")).digest()[:10])


def _bad_key(what: str) -> NetError:
    return NetError(
        "bad_key",
        f"{what} is damaged: something in it is missing or changed.",
        "Put a good copy in its place; without one, move it away to start as a new node.",
    )


def read(path: Path) -> KeyFile:
    """The key in `path`. Raises NetError `bad_key`, FileNotFoundError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NetError(
            "bad_key",
            f"The key {path} cannot be read: {error.strerror or error}.",
            "Check that it is a file of yours.",
        ) from error
    return from_text(data.decode("utf-8-sig", "replace"), f"The file {path}")


def write(path: Path, key: KeyFile) -> None:
    """Put `key` in `path`, whole and on the disk when this returns. Raises NetError `not_written`."""
    _replace(path, to_text(key).encode())


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # of a run that was killed here
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> NetError:
    return NetError(
        "not_written",
        f"The key {path} cannot be written: {error.strerror or error}.",
        "Check that the disk has room and that the folder can be written.",
    )


def keep_copy(path: Path) -> Path | None:
    """Copy the key file `path` beside itself, under a name made of its short id; None when there is no file.

    So nothing is lost when another key is written there. Raises NetError `not_written`.
    """
    try:
        data = path.read_bytes()
        name = short_id(from_text(data.decode("utf-8-sig", "replace"), path.name).id)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_written(path, error) from error
    except NetError:
        name = "damaged"
    number = 1
    copy = path.with_name(f"{path.stem}-{name}{path.suffix}")
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.stem}-{name}-{number}{path.suffix}")
    _replace(copy, data)
    return copy


def load_or_make(folder: Path, passphrase: str | None = None) -> Identity:
    """The identity kept in `folder`; on the first run a new one, with its recovery key beside it.

    Blocks: for about 0.5 s when the key has a passphrase. Raises NetError `bad_key`, `locked_key`,
    `not_written`; a file that is there is never overwritten.
    """
    path = folder / IDENTITY_NAME
    try:
        key = read(path)
    except FileNotFoundError:
        key, recovery = make()
        # That of a node whose key is gone, or of a first run that was killed here.
        keep_copy(folder / RECOVERY_NAME)
        write(folder / RECOVERY_NAME, recovery)
        write(path, key)
    if key.kind != "node":
        raise NetError("bad_key", f"The file {path} holds a recovery key.", "Put the node's own key there.")
    return unseal(key, passphrase).identity()


def exposed(path: Path) -> Notice | None:
    """What to tell a person of a key file that others on this machine can read or change."""
    if os.name == "nt":
        return None
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if not mode & 0o077:
        return None
    return Notice("key_exposed", f"Others on this machine may read {path}.", f"Close it: chmod 600 '{path}'")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
