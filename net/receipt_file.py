"""Receipts as a file that anybody can check offline: one JSON object a line, what was signed in base64, and
the figures beside it for people and spreadsheets.

A line is believed only as far as its signatures go: what is written beside them must be what they say.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from msgspec import Struct

from infraxa.net import codec, deals, market
from infraxa.net.codec import Signed
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import id_text
from infraxa.net.market import Rates

FORMAT: Final = 1
MAX_LINE: Final = 16 * 1024
"""Characters of one line."""


class Line(Struct, frozen=True, omit_defaults=True):
    """One receipt in a file."""

    infraxa_receipt: int
    """The format."""
    order: str
    provider: str
    account: str
    model: str
    """Its model_id, in hex."""
    n_prompt: int
    n_cached: int
    n_out: int
    charge: int
    """µcr, as the driver counts."""
    accepted: int | None
    """As the user agreed; None: it has not."""
    ended_ms: int
    receipt: str
    countersign: str = ""
    quote: str = ""


class Checked(Struct, frozen=True):
    """What a line proves."""

    receipt: deals.Receipt
    provider: bytes
    countersign: deals.Countersign | None
    quoted: bool
    """The quote is there, and the receipt keeps to it."""


def written(receipt: Signed, countersign: Signed | None, quote: Signed | None) -> str:
    """The line of a receipt, without its end."""
    said: deals.Receipt = codec.decode(receipt.body, deals.Receipt)
    agreed: deals.Countersign | None = None
    if countersign is not None:
        agreed = codec.decode(countersign.body, deals.Countersign)
    line = Line(
        infraxa_receipt=FORMAT,
        order=said.order.hex(),
        provider=id_text(receipt.signer),
        account=id_text(said.account),
        model=said.model.hex(),
        n_prompt=said.n_prompt,
        n_cached=said.n_cached,
        n_out=said.n_out,
        charge=said.charge,
        accepted=None if agreed is None else agreed.charge,
        ended_ms=said.ended,
        receipt=_text(receipt),
        countersign="" if countersign is None else _text(countersign),
        quote="" if quote is None else _text(quote),
    )
    return msgspec.json.encode(line).decode()


def checked(text: str) -> Checked:
    """What a line proves, or why it proves nothing. Raises NetError `bad_receipt`."""
    if len(text) > MAX_LINE:
        raise _bad("it is too long")
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _bad("it is no receipt of infraxa") from None
    if line.infraxa_receipt != FORMAT:
        raise _bad("it is of a newer infraxa")
    try:
        return _checked(line)
    except ProtocolError as error:
        raise _bad(_REASONS.get(error.reason, "it is damaged")) from None


def _checked(line: Line) -> Checked:
    receipt = _signed(line.receipt)
    said = deals.opened_receipt(receipt, receipt.signer)
    agreed: deals.Countersign | None = None
    if line.countersign:
        agreed = deals.opened_countersign(_signed(line.countersign), said.account)
        if agreed.receipt != deals.receipt_hash(receipt):
            raise _bad("its countersign belongs to another receipt")
        if agreed.charge > said.charge:
            raise _bad("more was agreed than was charged")
    if line.quote:
        _check_quote(_signed(line.quote), said, receipt.signer)
    rates = Rates(said.price_in, said.price_out, said.price_cached)
    if said.charge > market.hold(said.n_prompt, said.n_out, rates):
        raise _bad("more was charged than its tokens cost")
    figures = (
        line.order == said.order.hex(),
        line.provider == id_text(receipt.signer),
        line.account == id_text(said.account),
        line.model == said.model.hex(),
        (line.n_prompt, line.n_cached, line.n_out) == (said.n_prompt, said.n_cached, said.n_out),
        (line.charge, line.ended_ms) == (said.charge, said.ended),
        line.accepted == (None if agreed is None else agreed.charge),
    )
    if not all(figures):
        raise _bad("its figures are not those that were signed")
    return Checked(said, receipt.signer, agreed, bool(line.quote))


def _check_quote(signed: Signed, said: deals.Receipt, provider: bytes) -> None:
    quote = deals.opened_quote(signed, provider)
    if said.quote != deals.quote_hash(signed) or quote.account != said.account or quote.model != said.model:
        raise _bad("its quote belongs to another order")
    locked = (quote.price_in, quote.price_out, quote.price_cached)
    if (said.price_in, said.price_out, said.price_cached) != locked:
        raise _bad("it does not keep to the quoted price")


_REASONS: Final[dict[str, str]] = {
    "bad_signature": "a signature does not hold",
    "malformed": "it is damaged",
    "too_large": "it is too long",
}


def _bad(why: str) -> NetError:
    return NetError("bad_receipt", f"This receipt proves nothing: {why}.")


def _text(signed: Signed) -> str:
    return base64.b64encode(codec.encode(signed)).decode()


def _signed(text: str) -> Signed:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("it is damaged") from None
    return codec.decode_signed(data)
