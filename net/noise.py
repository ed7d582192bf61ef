"""Noise handshakes with X25519, ChaChaPoly and BLAKE2b, on libsodium's primitives.

Sections are those of the Noise Protocol Framework, revision 34 (noiseprotocol.org). A pattern is data; fresh
keys are passed in. The framing around the messages is in hello.py, what is done with
the keys that come out in session.py.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeVar

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from infraxa.net.errors import ProtocolError

T = TypeVar("T")

RandBytes = Callable[[int], bytes]
"""As many random bytes as asked for."""

KEY: Final = 32
"""Bytes of a key, secret or public, and of a shared secret."""
TAG: Final = 16
"""Bytes that sealing adds."""
MAX_MESSAGE: Final = 65_535
"""Bytes of a Noise message (section 3)."""
LAST_NONCE: Final = 2**64 - 1
"""Kept for rekeying (section 5.1)."""

Token = Literal["e", "s", "ee", "es", "se", "ss", "psk"]


class Pattern(NamedTuple):
    """A handshake pattern (section 7): who sends which tokens, the initiator first, in turns."""

    name: str
    messages: tuple[tuple[Token, ...], ...]
    responder_known: bool
    """The initiator has the responder's static key before the first message (pre-message `<- s`)."""


IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), True)
IKPSK2: Final = Pattern("IKpsk2", (("e", "es", "s", "ss"), ("e", "ee", "se", "psk")), True)


class KeyPair(NamedTuple):
    """An X25519 key, 32 bytes each."""

    secret: bytes
    public: bytes

    @classmethod
    def of(cls, secret: bytes) -> KeyPair:
        _check_key(secret)  # libsodium reads KEY bytes, whatever it is given
        return cls(secret, crypto_scalarmult_base(secret))


def shared_secret(mine: KeyPair, theirs: bytes) -> bytes:
    """X25519, 32 bytes. Raises ProtocolError for a public key of low order, which would make it all zero."""
    _check_key(mine.secret)
    _check_key(theirs)
    try:
        return crypto_scalarmult(mine.secret, theirs)
    except CryptoError:
        raise ProtocolError("malformed", "a public key of low order") from None


def hkdf(chaining_key: bytes, material: bytes, count: int) -> list[bytes]:
    """HKDF with HMAC-BLAKE2b (section 4.3): `count` outputs of 64 bytes."""
    secret = hmac.digest(chaining_key, material, "blake2b")
    outputs: list[bytes] = []
    output = b""
    for number in range(1, count + 1):
        output = hmac.digest(secret, output + bytes((number,)), "blake2b")
        outputs.append(output)
    return outputs


class CipherState:
    """One key and its counter (section 5.1); `counter` is the number of messages sealed or opened."""

    __slots__ = ("_key", "counter")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.counter = 0

    def seal(self, plain: bytes, bound: bytes = b"") -> bytes:
        """`plain` encrypted, TAG bytes longer; `bound` is authenticated with it."""
        sealed = crypto_aead_chacha20poly1305_ietf_encrypt(plain, bound, self._nonce(), self._key)
        self.counter += 1
        return sealed

    def open(self, sealed: bytes, bound: bytes = b"") -> bytes:
        """What was sealed. Raises ProtocolError `tampered` unless it is the other side's next message."""
        if len(sealed) < TAG:
            raise ProtocolError("tampered")
        try:
            plain = crypto_aead_chacha20poly1305_ietf_decrypt(sealed, bound, self._nonce(), self._key)
        except CryptoError:
            raise ProtocolError("tampered") from None
        self.counter += 1
        return plain

    def rekey(self) -> None:
        """Replace the key by a one-way function of it; the counter goes on (section 4.2)."""
        zeros = crypto_aead_chacha20poly1305_ietf_encrypt(
            bytes(KEY), b"", b"\0\0\0\0" + LAST_NONCE.to_bytes(8, "little"), self._key
        )
        self._key = zeros[:KEY]

    def _nonce(self) -> bytes:
        if self.counter >= LAST_NONCE:
            raise OverflowError("no nonce is left for this key")
        return b"\0\0\0\0" + self.counter.to_bytes(8, "little")


class Keys(NamedTuple):
    """What a finished handshake gives to one side."""

    tx: CipherState
    rx: CipherState
    root: bytes
    """64 bytes, the start of the chain of ratchets; independent of the two keys."""


class Handshake:
    """One side of one handshake (section 5.3). Keys of the other side come from its messages, or from
    `remote_static`. Messages must be written and read in the pattern's order."""

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        prologue: bytes,
        static: KeyPair | None = None,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        self.remote_static = remote_static
        self.initiator = initiator
        self._messages = pattern.messages
        self._next = 0
        self._static = static
        self._ephemeral: KeyPair | None = None
        self._remote_ephemeral: bytes | None = None
        self._psk = psk
        if psk is not None:
            _check_key(psk)
        self._mixes_psk = any("psk" in tokens for tokens in pattern.messages)
        self._cipher: CipherState | None = None
        name = f"Noise_{pattern.name}_25519_ChaChaPoly_BLAKE2b".encode()
        self.hash = name.ljust(64, b"\0") if len(name) <= 64 else hashlib.blake2b(name).digest()
        """64 bytes; after the last message it is the same on both sides, and only in this handshake."""
        self._chaining_key = self.hash
        self._mix_hash(prologue)
        if pattern.responder_known:
            known = remote_static if initiator else static and static.public
            self._mix_hash(_needed(known, "the responder's static key"))

    @property
    def finished(self) -> bool:
        return self._next == len(self._messages)

    def write(self, payload: bytes, ephemeral: KeyPair | None = None) -> bytes:
        """The next message. `ephemeral` is a fresh key, needed for a message that has the token `e`."""
        message = b""
        for token in self._turn(writing=True):
            if token == "e":
                self._ephemeral = _needed(ephemeral, "an ephemeral key")
                message += self._ephemeral.public
                self._mix_ephemeral(self._ephemeral.public)
            elif token == "s":
                message += self._seal(_needed(self._static, "a static key").public)
            else:
                self._mix_token(token)
        message += self._seal(payload)
        if len(message) > MAX_MESSAGE:
            raise ValueError(f"a Noise message of {len(message)} bytes")
        return message

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's next message. Raises ProtocolError; the handshake is then lost."""
        if len(message) > MAX_MESSAGE:
            raise ProtocolError("too_large")
        rest = message
        for token in self._turn(writing=False):
            if token == "e":
                public, rest = _cut(rest, KEY)
                self._remote_ephemeral = public
                self._mix_ephemeral(public)
            elif token == "s":
                sealed, rest = _cut(rest, KEY if self._cipher is None else KEY + TAG)
                self.remote_static = self._open(sealed)
            else:
                self._mix_token(token)
        return self._open(rest)

    def split(self) -> Keys:
        """The transport keys (section 5.2), and the root, made in the same way with a label. Once: what could
        make them again is forgotten."""
        if not self.finished or not self._chaining_key:
            raise ValueError("the handshake is not finished, or was split before")
        first, second = (CipherState(key[:KEY]) for key in hkdf(self._chaining_key, b"", 2))
        root = hkdf(self._chaining_key, b"infraxa/1 root", 1)[0]
        self._chaining_key = b""
        self._static = self._ephemeral = self._psk = self._cipher = None
        return Keys(first, second, root) if self.initiator else Keys(second, first, root)

    def _turn(self, *, writing: bool) -> tuple[Token, ...]:
        if self.finished or (self._next % 2 == 0) != (self.initiator == writing):
            raise ValueError("not this side's turn")
        self._next += 1
        return self._messages[self._next - 1]

    def _mix_token(self, token: Token) -> None:
        if token == "psk":
            self._chaining_key, mixed, key = hkdf(self._chaining_key, _needed(self._psk, "a psk"), 3)
            self._mix_hash(mixed)
            self._cipher = CipherState(key[:KEY])
            return
        # "es" is the initiator's ephemeral with the responder's static key, and so on.
        mine, theirs = (token[0], token[1]) if self.initiator else (token[1], token[0])
        pair = self._ephemeral if mine == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        self._mix_key(shared_secret(_needed(pair, token), _needed(public, token)))

    def _mix_ephemeral(self, public: bytes) -> None:
        self._mix_hash(public)
        if self._mixes_psk:  # section 9.2: so that the key is fresh although the psk is not
            self._mix_key(public)

    def _mix_key(self, material: bytes) -> None:
        self._chaining_key, key = hkdf(self._chaining_key, material, 2)
        self._cipher = CipherState(key[:KEY])

    def _mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2b(self.hash + data).digest()

    def _seal(self, plain: bytes) -> bytes:
        sealed = plain if self._cipher is None else self._cipher.seal(plain, self.hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        plain = sealed if self._cipher is None else self._cipher.open(sealed, self.hash)
        self._mix_hash(sealed)
        return plain


def _cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise ProtocolError("malformed", "a handshake message is too short")
    return data[:size], data[size:]


def _needed(value: T | None, what: str) -> T:
    if value is None:
        raise ValueError(f"the pattern needs {what}")
    return value


def _check_key(key: bytes) -> None:
    if len(key) != KEY:
        raise ValueError(f"a key of {len(key)} bytes")
