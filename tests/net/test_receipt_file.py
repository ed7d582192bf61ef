"""A receipt in a file is believed exactly as far as its signatures go."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import deals, market
from infraxa.net.codec import Signed
from infraxa.net.errors import NetError
from infraxa.net.identity import Signer
from infraxa.net.market import Rates
from infraxa.net.receipt_file import checked, written

PROVIDER, ACCOUNT, OTHER = (Signer(bytes([n]) * 32) for n in (1, 2, 3))
RATES = Rates(50_000, 200_000, 12_500)
MODEL = bytes(32)


def quote(signer: Signer = PROVIDER, **changed: object) -> Signed:
    made = deals.Quote(
        b"q" * 16, ACCOUNT.id, MODEL, RATES.price_in, RATES.price_out, RATES.price_cached, 512, 1_000, 31_000
    )
    return deals.sign(msgspec.structs.replace(made, **changed), signer)


def receipt(quoted: Signed, signer: Signer = PROVIDER, **changed: object) -> Signed:
    charge = market.charge(40, 8, 30, RATES, 1_000)
    made = deals.Receipt(
        b"o" * 16, ACCOUNT.id, MODEL, bytes(32), deals.quote_hash(quoted),
        RATES.price_in, RATES.price_out, RATES.price_cached,
        40, 8, 30, charge, "stop", 1_000, 2_000, 7, 12,
    )  # fmt: skip
    return deals.sign(msgspec.structs.replace(made, **changed), signer)


def countersign(signed: Signed, signer: Signer = ACCOUNT, charge: int | None = None) -> Signed:
    said = deals.opened_receipt(signed, signed.signer)
    made = deals.Countersign(
        deals.receipt_hash(signed), 40, 30, said.charge if charge is None else charge, True, 3_000
    )
    return deals.sign(made, signer)


def test_what_was_written_is_proven() -> None:
    quoted = quote()
    signed = receipt(quoted)
    found = checked(written(signed, countersign(signed), quoted))
    assert found.provider == PROVIDER.id and found.receipt.n_out == 30 and found.quoted
    assert found.countersign is not None and found.countersign.charge == found.receipt.charge > 0
    alone = checked(written(signed, None, None))
    assert alone.countersign is None and not alone.quoted


@pytest.mark.parametrize("field", ["order", "account", "n_out", "charge", "accepted", "ended_ms", "model"])
def test_figures_that_were_not_signed_are_refused(field: str) -> None:
    signed = receipt(quote())
    line = json.loads(written(signed, countersign(signed), None))
    line[field] = "00" if isinstance(line[field], str) else line[field] + 1
    with pytest.raises(NetError, match="figures"):
        checked(json.dumps(line))


def test_what_does_not_belong_together_is_refused() -> None:
    quoted = quote()
    signed, other = receipt(quoted), receipt(quoted, order=b"p" * 16)
    cases = {
        "signature": written(signed, countersign(signed, OTHER), None),
        "another receipt": written(signed, countersign(other), None),
        "more was agreed": written(signed, countersign(signed, charge=10**6), None),
        "another order": written(signed, None, quote(id=b"r" * 16)),
        "quoted price": written(receipt(dear := quote(price_out=1)), None, dear),
        "tokens cost": written(receipt(quoted, charge=10**9), None, None),
    }
    for why, line in cases.items():
        with pytest.raises(NetError, match=why):
            checked(line)
    with pytest.raises(NetError, match="signature"):
        checked(written(Signed(signed.body, PROVIDER.id, bytes(64)), None, None))


@settings(deadline=None, max_examples=200)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")), st.integers(0, 900))
def test_garbage_is_refused_in_one_sentence(garbage: str, at: int) -> None:
    signed = receipt(quote())
    line = written(signed, countersign(signed), None)
    damaged = line[:at] + garbage + line[at + len(garbage) :]
    if damaged == line:
        return
    try:
        checked(damaged)
    except NetError as error:
        assert error.code == "bad_receipt"
    else:
        assert json.loads(damaged) == json.loads(line)  # only its spaces differ
