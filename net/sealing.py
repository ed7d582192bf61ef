"""A file under a passphrase, written and read as a stream: Argon2id makes the key of libsodium's
secretstream, which notices whatever is changed, swapped or missing. What is in the file is nothing to this
module.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from infraxa.net.errors import NetError
from infraxa.net.keyfile import stretched

MARK: Final = b"infraxa-sealed 1\n"
"""How such a file begins; then salt, header, chunks."""
CHUNK: Final = 1 << 16
"""Bytes that are sealed at once; the last chunk is shorter."""

_HEADER: Final = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_MORE: Final = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
_FINAL: Final = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
_MESSAGE: Final = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sealer:
    """Seals what is written to it. Nothing can be read of a file on which `close` was not called."""

    def __init__(self, sink: Sink, passphrase: str) -> None:
        """Blocks for about 0.5 s. Raises NetError `locked_key` when there is not enough memory for it."""
        salt = os.urandom(argon2id.SALTBYTES)
        key = stretched(passphrase, salt)
        self._sink = sink
        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        self._waiting = bytearray()
        sink.write(MARK + salt + bindings.crypto_secretstream_xchacha20poly1305_init_push(self._state, key))

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > CHUNK:
            self._push(bytes(self._waiting[:CHUNK]), _MESSAGE)
            del self._waiting[:CHUNK]
        return len(data)

    def close(self) -> None:
        """What comes after this is not part of it. The sink stays open."""
        self._push(bytes(self._waiting), _FINAL)

    def _push(self, data: bytes, tag: int) -> None:
        self._sink.write(bindings.crypto_secretstream_xchacha20poly1305_push(self._state, data, b"\x00", tag))


class Unsealer:
    """Reads what a Sealer wrote. `read` raises NetError `bad_backup` for what is not whole."""

    def __init__(self, source: Source, passphrase: str) -> None:
        """`source` stands behind MARK. Blocks for about 0.5 s.

        Raises NetError `locked_key` for a wrong passphrase, `bad_backup`.
        """
        salt, header = source.read(argon2id.SALTBYTES), source.read(_HEADER)
        if len(salt) + len(header) < argon2id.SALTBYTES + _HEADER:
            raise damaged()
        self._source = source
        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        bindings.crypto_secretstream_xchacha20poly1305_init_pull(
            self._state, header, stretched(passphrase, salt)
        )
        self._ended = False
        try:
            self._ready = bytearray(self._pull())
        except NetError:
            raise NetError(
                "locked_key",
                "The passphrase is wrong, or the file is damaged.",
                "Try again; without the passphrase nobody can read it.",
            ) from None

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end, of which it is then sure."""
        while len(self._ready) < size and not self._ended:
            self._ready += self._pull()
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def _pull(self) -> bytes:
        sealed = self._source.read(CHUNK + _MORE)
        try:
            data, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(self._state, sealed, b"\x00")
        except (CryptoError, RuntimeError, ValueError):
            raise damaged() from None
        self._ended = tag == _FINAL
        if self._ended and self._source.read(1):
            raise damaged()
        return bytes(data)


def damaged() -> NetError:
    """Something in a backup is missing or changed."""
    return NetError(
        "bad_backup",
        "The backup is damaged: something in it is missing or changed.",
        "Take another copy of it; nothing here was touched.",
    )
