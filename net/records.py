"""The signed records that nodes gossip, and their limits: who is there, where, and what is offered."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from infraxa.net.codec import Id, Signed

MAJOR: Final = 1
"""The version of the protocol. Another major version is not used."""

MAX_CARD: Final = 2048
"""Bytes of a signed card."""
MAX_STATE: Final = 320
"""Bytes of a signed state; 200 of them are its own, the rest is signer and signature."""
MAX_ADDRESSES: Final = 4
MAX_RELAYS: Final = 3
MAX_MODELS: Final = 8
"""Models in a card; more are behind `models_root`."""
MAX_CLOCK_AHEAD_MS: Final = 10 * 60 * 1000
"""A record numbered further ahead than this is refused."""


Nonce8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Nonce16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Millis = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Micro = Annotated[int, Meta(ge=0, le=2**62)]
"""Micro-credits, or micro-credits per 1M tokens."""
Name = Annotated[str, Meta(max_length=32)]
"""A name that somebody claims. Untrusted: shown only through a filter of control characters."""
Label = Annotated[str, Meta(max_length=96)]
Address = Annotated[str, Meta(max_length=128)]
"""`ws://192.0.2.1:7741`, `ws://[2001:db8::1]:7741` or `relay:<id in base32>`; see addresses.py."""


class ModelOffer(Struct, array_like=True, frozen=True):
    """One model in a card."""

    name: Label
    arch: Annotated[str, Meta(max_length=32)]
    quantization: Annotated[str, Meta(max_length=16)]
    model_id: Id
    context: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Tokens."""
    max_out: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    price_in: Micro
    """µcr per 1M prompt tokens, before load."""
    price_out: Micro
    modes: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    """Verification modes, one bit each."""
    backend: Annotated[str, Meta(max_length=24)] = ""
    speed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """Promised tokens per second, in thousandths; 0 = not promised."""
    vocab: Annotated[bytes, Meta(max_length=32)] = b""
    """The hash of its vocabulary, by which the tokens of an answer are counted; empty: it tells none."""
    does: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    """What it can be asked for, one bit each, see DOES_*."""


MODE_MERKLE: Final = 1
MODE_FRAUD_PROOF: Final = 2
"""Of `ModelOffer.modes`: what an answer can be proven by, see wire.Mode."""

DOES_ANSWERS: Final = 1
DOES_VECTORS: Final = 2
"""Embeddings of texts."""
DOES_SCORES: Final = 4
"""What it computes at the steps of an answer of somebody else."""


class Card(Struct, array_like=True, frozen=True):
    """Who a node is, where it is, what it offers; changes seldom. Signed by the node key, tag `card`."""

    version: Annotated[int, Meta(ge=1, le=255)]
    seq: Sequence
    name: Name
    network: Id
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]
    relays: Annotated[tuple[Id, ...], Meta(max_length=MAX_RELAYS)]
    """Nodes through which this one is reached."""
    kx: Id
    """The X25519 prekey of its sessions."""
    kx_expires: Millis
    recovery: Id
    """SHA-256 of the recovery key's public half; never changes."""
    slots: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Requests served at the same time; 0 = offers nothing."""
    stranger_limit: Micro = 0
    free_daily: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    features: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """One bit each, see FEATURE_*."""
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=MAX_MODELS)] = ()
    models_root: Annotated[bytes, Meta(max_length=32)] = b""


FEATURE_RELAY: Final = 1
"""Splices sealed circuits for others."""
FEATURE_REACHABLE: Final = 2
"""Reached by a dial-back from outside."""

Status = Literal["online", "busy", "offline"]


class PriceNow(Struct, array_like=True, frozen=True):
    """The price of one model of the card, by its place there."""

    model: Annotated[int, Meta(ge=0, lt=MAX_MODELS)]
    price_in: Micro
    price_out: Micro


class State(Struct, array_like=True, frozen=True):
    """How a node is now; the heartbeat. Signed by the node key, tag `state`."""

    seq: Sequence
    card: Nonce8
    """First 8 bytes of digest("card", body of the card that this belongs to)."""
    status: Status
    util: Annotated[int, Meta(ge=0, le=255)] = 0
    """Busy slots ÷ slots, 255 = all."""
    prices: Annotated[tuple[PriceNow, ...], Meta(max_length=MAX_MODELS)] = ()
    first_token_ms: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """Median; 0 = not measured."""


class Successor(Struct, array_like=True, frozen=True):
    """Another key takes this node's place. Signed by the recovery key, tag `successor`."""

    node: Id
    successor: Id
    seq: Sequence


class Revoke(Struct, array_like=True, frozen=True):
    """This node's key is not to be trusted any more. Signed by the recovery key, tag `revoke`; it wins."""

    node: Id
    seq: Sequence


Kind = Literal["card", "state", "successor", "revoke"]


class Record(Struct, array_like=True, frozen=True):
    """A gossiped record. Unknown kinds are forwarded within limits and never used."""

    kind: Annotated[str, Meta(min_length=1, max_length=16)]
    signed: Signed
