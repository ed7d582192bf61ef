"""What two nodes sign of an order: the quote before it, the receipt after it, the countersign to the receipt,
and the settlements of a tab. Values and their limits; what they mean in numbers is in market.py and tab.py.

Whatever is signed is verified first and decoded after, and kept, hashed and forwarded as it came.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from msgspec import Meta, Struct

from infraxa.net import codec
from infraxa.net.codec import Id, Signature, Signed
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.records import Micro, Millis, Nonce16, Sequence
from infraxa.net.wire import Mode

QUOTE_MS: Final = 30_000
"""A quote holds for so long."""
OPEN_QUOTES: Final = 33
"""Of one account: 32 answers can begin at once without waiting for each other, while one more message is
written. Of more, the oldest is closed."""
MAX_DEAL: Final = 2048
"""Bytes of the body of one of these."""

T = TypeVar("T", bound=Struct)

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Amount = Annotated[int, Meta(ge=-(2**62), le=2**62)]
"""µcr; may be owed in either direction."""

Outcome = Literal["stop", "length", "cancelled", "failed", "embedded", "scored"]
"""How an answer ended: whole; at a limit; by its user; by its driver or the way to it. `embedded`: all of the
vectors came that were asked for; `scored`: all of the scores."""


class Quote(Struct, array_like=True, frozen=True):
    """The rates of one order, locked. Signed by the provider's node key, tag `quote`."""

    id: Nonce16
    account: Id
    """Whom it is for."""
    model: Id
    price_in: Micro
    """µcr per 1M tokens of the prompt."""
    price_out: Micro
    price_cached: Micro
    """Of tokens of the prompt that the driver had computed before."""
    max_out: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Tokens of the answer at most."""
    issued: Millis
    expires: Millis


class Transcript(Struct, array_like=True, frozen=True):
    """What an answer can be checked by afterwards: the hashes that its driver commits to, and both halves of
    the draw, from which anybody computes how its tokens had to be drawn."""

    mode: Mode
    ctx0: Id
    """Of the tokens of the prompt, salted."""
    steps: Count
    """Sampled tokens, and so leaves: those that end the turn and control tokens too."""
    root: Id
    """Hash of how many they are and of the root of their tree."""
    output: Id
    """Of all sampled tokens, salted."""
    draw_u: Id
    """The user's half."""
    draw_p: Id
    """The driver's."""
    profile: Annotated[str, Meta(max_length=64)] = ""
    """With what it computed. Untrusted: shown only through a filter."""


class Receipt(Struct, array_like=True, frozen=True):
    """What was asked, delivered and charged, as the driver counts. Signed by its node key, tag `receipt`."""

    order: Nonce16
    account: Id
    model: Id
    request: Id
    """digest("request", the encoded Order)."""
    quote: Annotated[bytes, Meta(max_length=32)]
    """digest("quote", body of the quote); empty: the order was free and had none."""
    price_in: Micro
    price_out: Micro
    price_cached: Micro
    n_prompt: Count
    n_cached: Count
    n_out: Count
    charge: Micro
    outcome: Outcome
    started: Millis
    ended: Millis
    seq: Sequence
    """Number of this change of the tab: one more than that of the change before."""
    owed_before: Amount
    """What the account owed the provider before it."""
    transcript: Transcript | None = None
    """Of an answer that is to be checked."""


class Countersign(Struct, array_like=True, frozen=True):
    """The user's agreement. Signed by the account key, tag `countersign`."""

    receipt: Id
    """digest("receipt", the receipt's body and its signature)."""
    n_prompt: Count
    """As the user counts; the receipt's own when it could not count."""
    n_out: Count
    charge: Micro
    """What moves the tab: the receipt's charge, or less when the counts differ."""
    counted: bool
    """The user counted the tokens itself, with the vocabulary of the model."""
    signed: Millis


class Settlement(Struct, array_like=True, frozen=True):
    """A tab is reduced otherwise than by being paid order by order. Signed by the creditor's node key, and by
    the debtor's account key, tag `settle`."""

    id: Nonce16
    provider: Id
    account: Id
    amount: Annotated[int, Meta(ge=1, le=2**62)]
    """µcr that the account owes less from now on."""
    seq: Sequence
    """As in Receipt: a settlement is a change of the tab like any other."""
    owed_before: Amount
    against: Annotated[bytes, Meta(max_length=16)] = b""
    """The id of the settlement in the other direction that it is netted with; empty: an agreement."""
    note: Annotated[str, Meta(max_length=128)] = ""
    """What the two persons agreed. Untrusted: shown only through a filter."""
    at: Millis = 0


class Linked(Struct, array_like=True, frozen=True):
    """This account and this node are the same person's. Signed by both keys, tag `link`."""

    node: Id
    account: Id
    provider: Id
    """Whom it is said to."""


def request_hash(order: bytes) -> bytes:
    """Of an encoded Order."""
    return codec.digest("request", order)


def quote_hash(quote: Signed) -> bytes:
    return codec.digest("quote", quote.body)


def receipt_hash(receipt: Signed) -> bytes:
    """What a countersign names: nobody can sign this before the driver has signed the receipt."""
    return codec.digest("receipt", receipt.body + receipt.signature)


Deal = Quote | Receipt | Countersign | Settlement | Linked
_TAGS: Final[dict[type[Struct], codec.Tag]] = {
    Quote: "quote",
    Receipt: "receipt",
    Countersign: "countersign",
    Settlement: "settle",
    Linked: "link",
}


def sign(deal: Deal, signer: Signer) -> Signed:
    return signer.sign(_TAGS[type(deal)], codec.encode(deal))


def opened_quote(signed: Signed, signer: bytes) -> Quote:
    """The quote, if `signer` signed it. Raises ProtocolError, as all of these."""
    return _opened(signed, signer, Quote)


def opened_receipt(signed: Signed, signer: bytes) -> Receipt:
    return _opened(signed, signer, Receipt)


def opened_countersign(signed: Signed, signer: bytes) -> Countersign:
    return _opened(signed, signer, Countersign)


def opened_settlement(signed: Signed, signer: bytes) -> Settlement:
    return _opened(signed, signer, Settlement)


def opened_linked(signed: Signed, signer: bytes) -> Linked:
    return _opened(signed, signer, Linked)


def _opened(signed: Signed, signer: bytes, kind: type[T]) -> T:
    if signed.signer != signer:
        raise ProtocolError("bad_signature", f"{_TAGS[kind]} of another")
    if not codec.verify(_TAGS[kind], signed):
        raise ProtocolError("bad_signature", _TAGS[kind])
    opened: T = codec.decode(signed.body, kind, MAX_DEAL)
    return opened


def cosigned(body: bytes, signer: Signer, kind: type[Struct]) -> Signature:
    """The second signature over a body that has one."""
    return signer.sign(_TAGS[kind], body).signature
