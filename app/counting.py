"""An order as this side counts it, and whether a receipt says no more than that. Pure.

How many tokens a text has only its model's vocabulary tells; without it the prompt is bounded by its length,
and of an answer those tokens count that came. What is done about a receipt is in paying.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from infraxa.app.verifying import Kept, fits
from infraxa.engine.transcript import output_hash
from infraxa.net import codec, deals, market
from infraxa.net.codec import Id, Signature, Signed
from infraxa.net.deals import Outcome, Receipt
from infraxa.net.identity import id_text
from infraxa.net.market import Rates
from infraxa.net.orders import Done
from infraxa.net.prompts import Prompt
from infraxa.store.records import Bill
from infraxa.store.trade_records import Counts, OrderRow

TURN_TOKENS: Final = 16
"""Of a turn besides its text, at most; protocol §6."""
TEXT_TOKENS: Final = 4
"""Of a text whose vector is made, besides its own, at most: what marks its begin and its end."""
EMBED_TEXTS: Final = 8
"""Texts whose vectors are made before they are sent. When it is cancelled, so many after those that came may
have been read, and are paid."""
CALL_TOKENS: Final = 64
"""Of a call of a tool in a turn, and of a tool that is offered, besides their text, at most."""
TOOLS_TOKENS: Final = 512
"""Of what a model is told of tools besides them, at most."""
SPREAD: Final = 3
"""Times the bytes of a JSON text that a template may make of it, by indenting and escaping it."""
IN_FLIGHT_S: Final = 1.0
"""What a driver sends in so long may be on its way when a person stops the answer, and is paid."""
IN_FLIGHT: Final = (8, 256)
"""Tokens of that, at least and at most."""
LEAST_OUT: Final = 256
"""Tokens that an answer must be able to have, or all that were asked for: for less it is not begun."""
LOST: Final = "lost"
"""The outcome of an order that this side does not remember: its receipt is signed for nothing."""

_BillShown = Literal["open", "due", "signed", "disputed", "unclaimed", "released"]
_BILLS: Final[dict[str, _BillShown]] = {
    "held": "open",
    "counted": "due",
    "signed": "signed",
    "closed": "signed",
    "released": "released",
}


class Agreed(Struct, array_like=True, frozen=True):
    """A signed quote, and what was ordered by it. Read as a Signed it is the quote alone."""

    body: bytes
    signer: Id
    signature: Signature
    request: Annotated[bytes, Meta(max_length=32)] = b""
    """deals.request_hash of the order."""

    @property
    def quote(self) -> Signed:
        return Signed(self.body, self.signer, self.signature)


class Improper(Exception):
    """A receipt that is not to be signed; `what` of it is wrong."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Verdict(NamedTuple):
    """What is agreed to of a receipt."""

    counts: Counts
    accepted: int
    """µcr; less than its charge when it is disputed."""


def prompt_most(texts: Iterable[str]) -> int:
    """Tokens that a prompt of these turns can have at most."""
    return sum(TURN_TOKENS + _size(text) for text in texts)


def texts_most(texts: Iterable[str], context: int = market.UNBOUNDED) -> list[int]:
    """Tokens that each of these texts can have at most, when its vector is made."""
    return [min(TEXT_TOKENS + _size(text), context) for text in texts]


def read_most(prompt: Prompt, context: int) -> list[int]:
    """As `texts_most`, of all that is only read: of texts, or of an answer with its prompt; empty: an answer
    is asked for."""
    if prompt.steps:
        return [min(most_of(prompt) + len(prompt.answer) // 4, context)]
    return texts_most(prompt.texts, context)


def most_of(prompt: Prompt) -> int:
    """Tokens that this prompt can have at most."""
    most = prompt_most(turn.text for turn in prompt.turns) + sum(texts_most(prompt.texts))
    if prompt.raw:
        most += prompt_most((prompt.raw,))
    for turn in prompt.turns:
        for call in turn.calls:
            most += CALL_TOKENS + SPREAD * (_size(call.id) + _size(call.name) + _size(call.arguments))
        most += SPREAD * _size(turn.call_id)
    for tool in prompt.tools:
        most += CALL_TOKENS + SPREAD * (_size(tool.name) + _size(tool.description) + _size(tool.parameters))
    return most + TOOLS_TOKENS if prompt.tools else most


def _size(text: str) -> int:
    """Bytes; no token stands for less than one."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class Plan(NamedTuple):
    """What is reserved for an order."""

    n_prompt: int
    """Tokens at most."""
    max_out: int
    least: int
    """µcr; with less it is not begun."""
    most: int
    """µcr; more it cannot cost."""


def planned(n_prompt: int, context: int, asked_out: int, max_out: int, rates: Rates) -> Plan:
    """For a prompt of `n_prompt` tokens at most; `asked_out`: 0 = as many as there can be."""
    n_prompt = min(n_prompt, context)
    out = min(asked_out or max_out, max_out, context)
    return Plan(
        n_prompt,
        out,
        market.hold(n_prompt, min(out, LEAST_OUT), rates),
        market.hold(n_prompt, out, rates),
    )


def hold_in(plan: Plan, room: int) -> int:
    """µcr that are reserved for an order where its tab has so much `room`, which is `plan.least` or more.
    What could take all of it takes half, as long as that is enough to begin: another message has room too."""
    return plan.most if plan.most <= room else max(plan.least, room // 2)


def planned_texts(most: Sequence[int], rates: Rates) -> Plan:
    """As `planned`, for the vectors of texts with so many tokens at most."""
    n_prompt = sum(most)
    cost = market.hold(n_prompt, 0, rates)
    return Plan(n_prompt, 0, cost, cost)


def texts_read(most: Sequence[int], came: Sequence[int], outcome: Outcome) -> list[int]:
    """The most tokens of each text that will be agreed to: of those whose vectors came what the driver says,
    but never more than can be; when it was cancelled, of a few after them what can be."""
    following = most[len(came) :][:EMBED_TEXTS] if outcome == "cancelled" else ()
    return [*map(min, came, most), *following]


def own_counts(
    most_prompt: int, n_out: int, outcome: Outcome, done: Done | None, tokens_per_second: float | None
) -> Counts:
    """The most that will be agreed to: `n_out` tokens came, and `most_prompt` can be in the prompt."""
    if outcome == "cancelled":
        n_out += min(max(IN_FLIGHT[0], math.ceil((tokens_per_second or 0.0) * IN_FLIGHT_S)), IN_FLIGHT[1])
    if done is None:
        return Counts(most_prompt, 0, n_out)
    n_prompt = min(done.n_prompt, most_prompt)
    return Counts(n_prompt, min(done.n_cached, n_prompt), n_out)


def charge_of(counts: Counts, outcome: Outcome, rates: Rates, hold: int) -> int:
    """What an order with these counts costs."""
    return market.charge_of(
        outcome, counts.n_prompt, counts.n_prompt, counts.n_cached, counts.n_out, rates, hold
    )


def rates_of(order: OrderRow) -> Rates:
    return Rates(order.price_in, order.price_out, order.price_cached)


def judged(
    receipt: Receipt, order: OrderRow, account: bytes, request: bytes = b"", kept: Kept | None = None
) -> Verdict:
    """What of the receipt is agreed to. Raises Improper when it is of something else, or contradicts itself.

    `order` as the ledger has it: with `counted`, unless its counts were lost with a crash; then the hold is
    the only bound. `account`: the key towards this provider. `request`: as Agreed has it, for an order that
    was free; empty when that is not known any more. `kept`: of an order that is to be checked, as long as it
    is known.
    """
    if order.outcome == LOST:
        return Verdict(Counts(), 0)
    agreed: Agreed | None = codec.decode(order.quote, Agreed) if order.quote else None
    request = agreed.request if agreed is not None else request
    same = {
        "order": receipt.order == order.id,
        "account": receipt.account == account,
        "model": receipt.model == order.model,
        "request": receipt.request == request or not request,
        "quote": receipt.quote == (b"" if agreed is None else deals.quote_hash(agreed.quote)),
        "prices": (receipt.price_in, receipt.price_out, receipt.price_cached)
        == (order.price_in, order.price_out, order.price_cached),
        "tokens": receipt.n_cached <= receipt.n_prompt,
        "outcome": order.outcome not in ("stop", "length", "embedded", "scored")
        or receipt.outcome in (order.outcome, "failed"),
        "transcript": _commits(receipt, order, kept),
    }
    for what, holds in same.items():
        if not holds:
            raise Improper(what)
    rates, theirs = rates_of(order), Counts(receipt.n_prompt, receipt.n_cached, receipt.n_out)
    if receipt.charge != charge_of(theirs, receipt.outcome, rates, order.hold):
        raise Improper("charge")
    if order.counted is None:
        return Verdict(theirs, min(receipt.charge, order.held))
    n_prompt = min(theirs.n_prompt, order.counted.n_prompt)
    counts = Counts(
        n_prompt,
        min(max(theirs.n_cached, order.counted.n_cached), n_prompt),
        min(theirs.n_out, order.counted.n_out),
    )
    mine = charge_of(counts, _agreed_outcome(order.outcome, receipt.outcome), rates, order.hold)
    return Verdict(counts, min(receipt.charge, mine, order.held))


def _commits(receipt: Receipt, order: OrderRow, kept: Kept | None) -> bool:
    """Whether the receipt commits to what it has to. What came is not known any more after a restart."""
    if order.mode == "none":
        return receipt.transcript is None
    if kept is None:
        said = receipt.transcript
        return receipt.outcome in ("cancelled", "failed") if said is None else said.mode == order.mode
    return fits(kept, receipt, output_hash)


def _agreed_outcome(mine: str, theirs: Outcome) -> Outcome:
    """By which it is charged what was read of the prompt, where no token came."""
    if mine == theirs and theirs in ("embedded", "scored"):
        return theirs
    # Vectors may have been whole when they were cancelled, and cost no more for it.
    whole = theirs in ("cancelled", "embedded", "scored")
    return "cancelled" if mine == "cancelled" and whole else "failed"


def bill_of(order: OrderRow, counted: int | None) -> Bill:
    """What a person is told of the money of an order. `counted`: tokens by the model's vocabulary."""
    counts = order.billed or order.counted or Counts()
    disputed, state = 0, _BILLS[order.bill]
    if state == "signed" and order.charge is not None and order.accepted is not None:
        disputed = order.charge - order.accepted
        state = "disputed" if disputed else "signed"
    elif state == "due" and order.unclaimed_until is not None:
        state = "unclaimed"
    elif state == "open" and order.ended:
        state = "due"
    charge = order.held if order.accepted is None else order.accepted
    return Bill(
        order=order.id.hex(),
        driver=id_text(order.peer),
        price_in=order.price_in,
        price_out=order.price_out,
        hold=order.hold,
        n_prompt=counts.n_prompt,
        n_cached=counts.n_cached,
        n_out=counts.n_out,
        counted=counted,
        charge=charge if order.ended else 0,
        disputed=disputed,
        state=state,
    )
