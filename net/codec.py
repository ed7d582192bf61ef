"""The codec, the hash and signatures: how a struct becomes bytes that cross a network, and back.

msgpack, arrays instead of maps: fields are only ever appended; a reader ignores those it does not know and
fills in those that are missing. Nothing signed holds a float. What is signed is bytes: they are verified
first, decoded after, and kept, hashed and forwarded as they came, because msgpack is malleable.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from infraxa.net.errors import ProtocolError

MAX_MESSAGE: Final = 32 * 1024
"""Bytes of one encoded message. Larger things go in chunks."""

Id = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""An Ed25519 public key, an X25519 public key or a SHA-256."""
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]

Tag = Literal[
    "card",
    "state",
    "quote",
    "request",
    "receipt",
    "countersign",
    "auth",
    "checkpoint",
    "verdict",
    "rating",
    "ratable",
    "link",
    "successor",
    "revoke",
    "settle",
    "network",
    "account",
    "prompt",
    "audit",
    "draw",
]


def digest(tag: Tag, data: bytes) -> bytes:
    """H(tag, data) = SHA-256("infraxa/1/" tag 0x00 data): 32 bytes."""
    return hashlib.sha256(b"infraxa/1/" + tag.encode() + b"\0" + data).digest()


def network_id(name: str) -> bytes:
    """The 32 bytes that stand for a network's name."""
    return digest("network", name.encode())


class Signed(Struct, array_like=True, frozen=True):
    """`body` as its signer wrote it."""

    body: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]
    signer: Id
    signature: Signature


def sign(tag: Tag, body: bytes, secret: bytes) -> Signed:
    """Sign `body` for one purpose. `secret` is the 64-byte Ed25519 secret key of libsodium."""
    # Here, because the app draws its first frame with the types of this module and without libsodium.
    from nacl.bindings import crypto_sign, crypto_sign_BYTES

    whole = crypto_sign(_signed_bytes(tag, body), secret)
    return Signed(body, secret[32:], whole[:crypto_sign_BYTES])


def verify(tag: Tag, signed: Signed) -> bool:
    """Whether `signed.signer` signed this body for this purpose."""
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        crypto_sign_open(signed.signature + _signed_bytes(tag, signed.body), signed.signer)
    except BadSignatureError:
        return False
    return True


def _signed_bytes(tag: Tag, body: bytes) -> bytes:
    return b"infraxa/1/" + tag.encode() + b"\0" + body


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Struct) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes | memoryview, kind: Any, limit: int = MAX_MESSAGE) -> Any:
    """`data` as a `kind` (a struct or a union of tagged ones). Raises ProtocolError."""
    if len(data) > limit:
        raise ProtocolError("too_large", f"{len(data)} bytes where {limit} are allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError("malformed", type(error).__name__) from None


def decode_signed(data: bytes) -> Signed:
    """What was kept or sent of something signed; its signature is not checked. Raises ProtocolError."""
    signed: Signed = decode(data, Signed)
    return signed
