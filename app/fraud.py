"""Proofs that a driver lied: small files that anybody checks, without a model, a network or a clock.

Each rests on what the driver itself signed. No message of anybody is in one. What a proof must never do is
convict an honest driver, so only four lies have one: a token that its own committed logits do not choose,
what is no leaf where a leaf was committed, an end that is none, and two receipts for one run. Wrong logits
need a replay and have no proof: see replaying.py and examining.py; nor have most false ends: see ends.py.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, cast, get_args

import msgspec
from msgspec import Struct

from infraxa.app.audit_reasons import REASONS
from infraxa.engine import gumbel, transcript
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import id_text

FORMAT: Final = 1

Kind = Literal["wrong_token", "wrong_leaf", "wrong_end", "two_receipts"]


class Fraud(NamedTuple):
    """What a proof proves."""

    kind: Kind
    provider: bytes
    """Whose node key signed the lie."""
    account: bytes
    """To whom."""
    order: bytes
    model: bytes
    """The `model_id` that was sold."""
    ended_ms: int
    """When, as its receipt says."""
    step: int | None = None
    """Which token of the answer, counted from 0."""
    charge: int = 0
    """µcr that the driver asked for it."""


class Opened(NamedTuple):
    """One leaf of a transcript, as a driver opened it."""

    leaf: bytes
    step: int
    path: Sequence[bytes]
    """As `transcript.verify_path` takes it."""
    root: bytes
    """Of the tree over all leaves; the receipt holds it committed with their number."""

    def __repr__(self) -> str:
        """Without what was said."""
        return f"Opened(step {self.step})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("step", self.step)]


class _File(Struct, frozen=True, omit_defaults=True):
    infraxa_proof: int
    """The format."""
    kind: str
    provider: str
    order: str
    model: str
    receipt: str
    step: int | None = None
    leaf: str = ""
    path: str = ""
    """32 bytes each, joined."""
    root: str = ""
    request: str = ""
    """The encoded Order, which holds no message."""
    other: str = ""
    """The second receipt."""


def made(
    receipt: Signed, *, order: bytes = b"", opened: Opened | None = None, other: Signed | None = None
) -> str:
    """The proof that this driver lied, one line without its end: by what it `opened` of the answer to this
    encoded `order`, or by the `other` receipt. Raises NetError `bad_proof` when they prove nothing."""
    if other is not None:
        # In one order: else one lie had two proofs.
        first, second = sorted((receipt, other), key=lambda signed: signed.body)
        return _written("two_receipts", first, other=second)
    if opened is None:
        raise _bad("nothing was opened")
    said = _said(receipt)
    leaf = _leaf(opened, said.order)
    kind: Kind = "wrong_leaf" if leaf is None else "wrong_token"
    if leaf is not None and ends_wrongly(leaf, said) and _is_chosen(leaf, _request(order, said), said):
        kind = "wrong_end"
    return _written(kind, receipt, order=order if kind == "wrong_token" else b"", opened=opened)


def checked(text: str) -> Fraud:
    """What `text` proves. Raises NetError with the reason why it proves nothing: `bad_proof`, or `newer` for
    one of a kind that is not known here. Of a proof that holds, no byte can be another one."""
    if len(text) > wire.MAX_PROOF:
        raise _bad("it is too long")
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _bad("it is no proof of infraxa") from None
    if file.infraxa_proof != FORMAT or file.kind not in get_args(Kind):
        raise NetError("newer", "This proof is of a newer infraxa.", "Update infraxa.")
    try:
        return _checked(file, text)
    except ProtocolError as error:
        raise _bad(_REASONS.get(error.reason, "it is damaged")) from None


def ends_wrongly(leaf: transcript.Leaf, receipt: deals.Receipt) -> bool:
    """Whether its driver went on after what it had called the end, or gave no reason for the end, or another
    one than its receipt: no honest engine does. One that was cancelled or failed may end anywhere."""
    said = receipt.transcript
    if said is None:
        return False
    if leaf.step != said.steps - 1:
        return leaf.flags != 0
    if receipt.outcome == "stop":
        return leaf.flags not in (transcript.EOS, transcript.STOP)
    return receipt.outcome == "length" and leaf.flags != transcript.LENGTH


def guilty(data: bytes) -> bytes | None:
    """The node that a proof convicts; None: it proves nothing. For what is gossiped, see net/proofs.py.

    Raises ProtocolError `version` for one of a kind that is not known here, which is nobody's fault.
    """
    try:
        return checked(data.decode("ascii")).provider
    except UnicodeDecodeError:
        return None
    except NetError as error:
        if error.code == "newer":
            raise ProtocolError("version", "a proof") from None
        return None


def told(fraud: Fraud) -> str:
    """What was done, in one sentence that says no name."""
    return REASONS[fraud.kind].proven.format(token="" if fraud.step is None else fraud.step + 1)


def _checked(file: _File, text: str) -> Fraud:
    kind = cast("Kind", file.kind)
    receipt = _signed(file.receipt)
    said = deals.opened_receipt(receipt, receipt.signer)
    opened, other, request = None, None, b""
    if kind == "two_receipts":
        other = _signed(file.other)
        _check_two(said, deals.opened_receipt(other, receipt.signer))
        if other.body < receipt.body:
            raise _bad("its receipts are in the wrong order")
    else:
        parts = tuple(transcript.split(_bytes(file.path)))
        opened = Opened(_bytes(file.leaf), -1 if file.step is None else file.step, parts, _bytes(file.root))
        _check_committed(opened, said)
        leaf = _leaf(opened, said.order)
        if kind == "wrong_token":
            request = _bytes(file.request)
            if leaf is None:
                raise _bad("no sampling was committed")
            if _is_chosen(leaf, _request(request, said), said):
                raise _bad("the token is the right one")
        elif kind == "wrong_end":
            if leaf is None or not ends_wrongly(leaf, said):
                raise _bad("the answer may end there")
        elif leaf is not None:
            raise _bad("what was opened is a leaf of this answer")
    # What is beside the signatures, too, is as it is written here: else one lie had many proofs.
    if text != _encoded(kind, receipt, said, request, opened, other):
        raise _bad("it is not as it was signed")
    step = None if opened is None else opened.step
    return Fraud(kind, receipt.signer, said.account, said.order, said.model, said.ended, step, said.charge)


def _check_committed(opened: Opened, said: deals.Receipt) -> None:
    """The driver signed that this leaf is at this step."""
    kept = said.transcript
    if kept is None:
        raise _bad("its receipt has no transcript")
    if transcript.committed(kept.steps, opened.root) != kept.root or not transcript.verify_path(
        opened.leaf, opened.step, kept.steps, opened.path, opened.root
    ):
        raise _bad("what was opened is not what was signed")


def _leaf(opened: Opened, order: bytes) -> transcript.Leaf | None:
    """The leaf; None: it is none, or that of another order or step."""
    try:
        leaf = transcript.decode_leaf(opened.leaf)
    except ValueError:
        return None
    return leaf if (leaf.order, leaf.step) == (order, opened.step) else None


def _request(data: bytes, said: deals.Receipt) -> wire.Order:
    if deals.request_hash(data) != said.request:
        raise _bad("it is about another order")
    request: wire.Order = codec.decode(data, wire.Order)
    if (request.id, request.model) != (said.order, said.model):
        raise _bad("it is about another order")
    return request


def _is_chosen(leaf: transcript.Leaf, request: wire.Order, said: deals.Receipt) -> bool:
    """Whether the committed logits, the sampling that was asked for and the two halves of the draw choose the
    token that was given."""
    kept = said.transcript
    if kept is None or request.mode == "none":
        raise _bad("no sampling was committed")
    draw = gumbel.draw_of(request.temperature, request.top_k, request.top_p, request.min_p)
    seed = gumbel.seed_of(said.order, kept.draw_u, kept.draw_p, said.request)
    return gumbel.is_chosen(leaf.token, leaf.ids, leaf.q, draw, seed, leaf.step)


def _check_two(one: deals.Receipt, two: deals.Receipt) -> None:
    """Two receipts for one run say different things.

    One run: the same beginning, to the millisecond. A driver whose books come from a backup may serve an
    order again whose number it has forgotten, and one that ended with the program may be failed in one book
    and whole in the other, at no charge; its tab's number and balance may be others, too. None of this is a
    lie.
    """
    if (one.order, one.account, one.started) != (two.order, two.account, two.started):
        raise _bad("the receipts are about two orders")
    if not all(said.charge or (said.transcript and said.transcript.steps) for said in (one, two)):
        raise _bad("one of the receipts asks for nothing")
    if msgspec.structs.replace(one, seq=two.seq, owed_before=two.owed_before) == two:
        raise _bad("both receipts say the same")


def _written(
    kind: Kind,
    receipt: Signed,
    *,
    order: bytes = b"",
    opened: Opened | None = None,
    other: Signed | None = None,
) -> str:
    text = _encoded(kind, receipt, _said(receipt), order, opened, other)
    checked(text)
    return text


def _encoded(
    kind: Kind,
    receipt: Signed,
    said: deals.Receipt,
    request: bytes,
    opened: Opened | None,
    other: Signed | None,
) -> str:
    file = _File(
        infraxa_proof=FORMAT,
        kind=kind,
        provider=id_text(receipt.signer),
        order=said.order.hex(),
        model=said.model.hex(),
        receipt=_text(codec.encode(receipt)),
        step=None if opened is None else opened.step,
        leaf="" if opened is None else _text(opened.leaf),
        path="" if opened is None else _text(b"".join(opened.path)),
        root="" if opened is None else _text(opened.root),
        request=_text(request),
        other="" if other is None else _text(codec.encode(other)),
    )
    return msgspec.json.encode(file).decode()


def _said(receipt: Signed) -> deals.Receipt:
    """Raises NetError `bad_proof`."""
    try:
        return deals.opened_receipt(receipt, receipt.signer)
    except ProtocolError as error:
        raise _bad(_REASONS.get(error.reason, "it is damaged")) from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("it is damaged") from None


def _signed(text: str) -> Signed:
    return codec.decode_signed(_bytes(text))


_REASONS: Final[dict[str, str]] = {
    "bad_signature": "a signature does not hold",
    "malformed": "it is damaged",
    "too_large": "it is too long",
}


def _bad(why: str) -> NetError:
    return NetError("bad_proof", f"This proves no fraud: {why}.")
