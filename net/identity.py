"""Who a node is: its keys, what it signs, and how an id is written for people.

The node key signs and never does Diffie-Hellman. How keys are kept in files is in keyfile.py, what may be
shown of a name in names.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from infraxa.net.codec import Signed, Tag, sign
from infraxa.net.errors import NetError
from infraxa.net.names import clean_name

SEED: Final = 32
"""Bytes of the secret from which an Ed25519 key is made (RFC 8032)."""
ID_LENGTH: Final = 52
"""Characters of a whole id."""
SHORT_LENGTH: Final = 8
"""Characters of an id that are shown beside a name: its first 40 bits."""
ACCOUNTS_KEPT: Final = 64
"""Account keys that are not derived anew each time."""

# Crockford's base32: no i, l, o, u. Reading takes those that look alike for what they look like.
_WRITTEN: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RFC4648: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_CROCKFORD: Final = str.maketrans(_RFC4648, _WRITTEN)
_FROM_CROCKFORD: Final = str.maketrans(_WRITTEN + "ilo", _RFC4648 + "BBA")


class Signer:
    """An Ed25519 key that signs. It never shows its secret in a text."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED:
            raise ValueError(f"a seed has {SEED} bytes")
        from nacl.bindings import crypto_sign_seed_keypair  # not needed to show an id

        self.id, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, tag: Tag, body: bytes) -> Signed:
        """`body` signed by this key for one purpose."""
        return sign(tag, body, self._secret)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({short_id(self.id)})"


class Identity(Signer):
    """A node's own key. `id` is its public half, 32 bytes, by which others know the node."""

    def __init__(self, seed: bytes, recovery: bytes) -> None:
        """`recovery`: SHA-256 of the recovery key's public half; part of every card, never another one."""
        super().__init__(seed)
        self._seed = seed
        self._accounts: dict[bytes, Signer] = {}
        self.recovery = recovery

    def account_key(self, provider: bytes) -> Signer:
        """The key by which `provider` (a node id) knows this user: always the same one towards it, and no
        two providers can tell that theirs belong together. Protocol §2."""
        # Each order needs it several times, and it costs as much as some signatures.
        if (known := self._accounts.get(provider)) is not None:
            return known
        if len(self._accounts) >= ACCOUNTS_KEPT:
            del self._accounts[next(iter(self._accounts))]
        key = self._accounts[provider] = Signer(hkdf(self._seed, b"infraxa/1/account" + provider))
        return key


def hkdf(key: bytes, info: bytes, *, salt: bytes = b"", length: int = 32) -> bytes:
    """RFC 5869 with SHA-256: `length` ≤ 8160 bytes derived from the secret `key` for the purpose `info`."""
    if length > 255 * 32:
        raise ValueError("HKDF-SHA256 gives at most 8160 bytes")
    secret = hmac.digest(salt or bytes(32), key, hashlib.sha256)
    whole = block = b""
    while len(whole) < length:
        block = hmac.digest(secret, block + info + bytes((len(whole) // 32 + 1,)), hashlib.sha256)
        whole += block
    return whole[:length]


def base32(data: bytes) -> str:
    """Crockford's base32 in small letters, without padding characters."""
    return base64.b32encode(data).decode().rstrip("=").translate(_TO_CROCKFORD)


def from_base32(text: str) -> bytes:
    """The bytes of `base32`. Large letters and look-alikes (i and l for 1, o for 0) are read as meant.

    Raises ValueError, also for a text that `base32` writes in another way.
    """
    if not text.isascii():
        raise ValueError("not base32")
    plain = text.lower().translate(_FROM_CROCKFORD)
    data = base64.b32decode(plain + "=" * (-len(plain) % 8))
    if base64.b32encode(data).decode().rstrip("=") != plain:
        raise ValueError("not as base32 writes it")
    return data


def id_text(node: bytes) -> str:
    """A whole id for people: ID_LENGTH characters."""
    return base32(node)


def parse_id(text: str) -> bytes:
    """The 32 bytes of an id that a person or a peer wrote. Raises NetError `bad_address`."""
    try:
        if len(text) == ID_LENGTH:
            return from_base32(text)
    except ValueError:
        pass
    raise NetError(
        "bad_address",
        f"This is not the id of a node: it must have {ID_LENGTH} letters and digits.",
        "Copy it whole, as `infraxa identity show` prints it there.",
    )


def short_id(node: bytes) -> str:
    """The beginning of an id, as it is shown beside a name."""
    return base32(node[: SHORT_LENGTH * 5 // 8])


def display(name: str, node: bytes) -> str:
    """`maple·7k2m9x4q`: a claimed name, made safe to show, and the id that it belongs to."""
    cleaned = clean_name(name)
    return f"{cleaned}·{short_id(node)}" if cleaned else short_id(node)
