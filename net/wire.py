"""What nodes say to each other inside a session, each message as a typed struct, with its limits.

A request opens a stream; its answer is chunks on that stream, then the end, or a failure. What is gossiped is
in records.py, how all of it is encoded in codec.py.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from infraxa.net.codec import Id, Signature
from infraxa.net.records import Address, Millis, Nonce8, Nonce16, Record

MAX_FRAME: Final = 65_535
"""Bytes of one frame on a carrier; the limit of Noise."""
MAX_BODY: Final = 59_900
"""Bytes of one record's body, before padding."""
MAX_HELLO: Final = 4096
"""Bytes of a first message."""
MAX_REJECT: Final = 2816
"""Bytes of a refusal to a first message, which carries a card."""
MAX_PUSH: Final = 64
"""Records in one push."""
MAX_PROMPT: Final = 4 * 1024 * 1024
"""Bytes of an encoded prompt: a million tokens of text."""
MAX_PEERS_TOLD: Final = 16
"""Cards in one answer to `PeersPlease`."""


Role = Literal["node", "account"]


class Auth(Struct, array_like=True, frozen=True, tag=1):
    """Who is speaking: a key, and its signature, tag `auth`, over the handshake hash and the role."""

    role: Role
    key: Id
    signature: Signature


class Authenticated(Struct, array_like=True, frozen=True, tag=2):
    """The answer to `Auth`."""

    observed: Address = ""
    """The address that the caller seems to have."""
    now_ms: Millis = 0


class BucketsPlease(Struct, array_like=True, frozen=True, tag=3):
    """Answered with one chunk: the XOR of the record digests in each of 256 buckets, 8 bytes each."""

    salt: Nonce16


class DigestsPlease(Struct, array_like=True, frozen=True, tag=4):
    """Answered with chunks of 8-byte digests: the records in these buckets under this salt."""

    salt: Nonce16
    buckets: Annotated[bytes, Meta(min_length=1, max_length=256)]


class RecordsPlease(Struct, array_like=True, frozen=True, tag=5):
    """Answered with chunks, each an encoded `Push`: the records with these digests under this salt."""

    salt: Nonce16
    digests: Annotated[bytes, Meta(max_length=8 * 1024)]


class PeersPlease(Struct, array_like=True, frozen=True, tag=6):
    """Answered with one `Push` of at most MAX_PEERS_TOLD cards of reachable nodes."""

    count: Annotated[int, Meta(ge=1, le=MAX_PEERS_TOLD)] = MAX_PEERS_TOLD


class DialBack(Struct, array_like=True, frozen=True, tag=7):
    """Please try this address of mine, on the host that you see me on. Answered `DialedBack`."""

    address: Address


class DialedBack(Struct, array_like=True, frozen=True, tag=8):
    reached: bool
    reason: Annotated[str, Meta(max_length=64)] = ""


class RelayReserve(Struct, array_like=True, frozen=True, tag=9):
    """Please hand circuits for me on over this link. Answered `RelayReserved`; ends with the link."""


class RelayReserved(Struct, array_like=True, frozen=True, tag=10):
    circuits: Annotated[int, Meta(ge=0, le=65535)]
    bytes_per_second: Annotated[int, Meta(ge=0, le=2**40)]
    bytes_per_day: Annotated[int, Meta(ge=0, le=2**50)]


class RelayDial(Struct, array_like=True, frozen=True, tag=11):
    """Splice this stream to the node `target`, which has reserved. Chunks are sealed frames."""

    target: Id


class RelayDialed(Struct, array_like=True, frozen=True, tag=15):
    """The first chunk of the answer to `RelayDial`: what follows is handed on."""


class RelayIncoming(Struct, array_like=True, frozen=True, tag=12):
    """Relay → reserved node: somebody wants to speak to you on this stream. Chunks are sealed frames."""

    source: Annotated[str, Meta(max_length=64)] = ""
    """The address group of the caller, for limits only."""


class Probe(Struct, array_like=True, frozen=True, tag=13):
    """Tell me at once when your state changes, until I end the stream: chunks are encoded state Records."""


class CardPlease(Struct, array_like=True, frozen=True, tag=14):
    """Answered with one encoded Record: the current card."""


class Order(Struct, array_like=True, frozen=True, tag=16):
    """Please generate. Says nothing of the prompt, which is asked for when there is a place; see orders.py.

    Ratios in parts per million, so that nothing signed later holds a float.
    """

    id: Nonce16
    """Made by the user; never used twice."""
    model: Id
    """A `model_id` of the provider's card."""
    prompt_bytes: Annotated[int, Meta(ge=1, le=MAX_PROMPT)]
    """How long the encoded prompt will be."""
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """End after so many; 0 = until the model stops or its context is full."""
    temperature: Annotated[int, Meta(ge=0, le=5_000_000)] = 800_000
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 40
    top_p: Annotated[int, Meta(ge=0, le=1_000_000)] = 950_000
    min_p: Annotated[int, Meta(ge=0, le=1_000_000)] = 50_000
    repeat_penalty: Annotated[int, Meta(ge=0, le=10_000_000)] = 1_000_000
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None


Request = (
    Auth
    | BucketsPlease
    | DigestsPlease
    | RecordsPlease
    | PeersPlease
    | DialBack
    | RelayReserve
    | RelayDial
    | RelayIncoming
    | Probe
    | CardPlease
    | Order
)

Answer = Authenticated | DialedBack | RelayReserved | RelayDialed


class Push(Struct, array_like=True, frozen=True, tag=20):
    """Records, unasked."""

    records: Annotated[tuple[Record, ...], Meta(max_length=MAX_PUSH)]


class Root(Struct, array_like=True, frozen=True, tag=21):
    """Every 10 s: the XOR over the digests of all records that I hold, unsalted, and how many."""

    root: Nonce8
    count: Annotated[int, Meta(ge=0, le=2**31 - 1)]


Tell = Push | Root

ErrorCode = Literal[
    "busy",
    "price_changed",
    "tab_limit",
    "receipt_due",
    "strangers_full",
    "model_gone",
    "too_large",
    "rate_limited",
    "expired",
    "cancelled",
    "unsupported",
    "bad_request",
    "audit_refused",
    "internal",
    "not_allowed",
    "unreachable",
    "leaving",
]


class Failure(Struct, array_like=True, frozen=True):
    """Why a stream ended before its end."""

    code: Annotated[str, Meta(max_length=24)]
    """An ErrorCode; an unknown one is shown as `internal`."""
    retry_after_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    limit: Annotated[int, Meta(ge=0, le=2**62)] = 0
    field: Annotated[str, Meta(max_length=32)] = ""
