"""Proofs of fraud as other nodes tell them: real ones, changed ones, newer ones, those of earlier runs."""

from __future__ import annotations

import random

import pytest

from infraxa.app.audit_history import AuditHistory
from infraxa.app.fraud import guilty, made
from infraxa.net import wire
from infraxa.net.commands import Drop, Send
from infraxa.net.identity import id_text
from infraxa.net.proofs import Proofs
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VerdictRow
from tests.app.lies import DRIVER, FORGER, LIAR, SECOND

PROOFS = {
    "wrong_token": made(LIAR.receipt, order=LIAR.order, opened=LIAR.opened(17)),
    "wrong_leaf": made(FORGER.receipt, opened=FORGER.opened(5)),
    "two_receipts": made(LIAR.receipt, other=SECOND),
}
TELLER, OTHER = b"t" * 32, b"o" * 32


def heard(proof: bytes) -> tuple[list[object], list[bytes]]:
    """What is done about it, and who is guilty then."""
    caught: list[bytes] = []
    it = Proofs(lambda node: True, random.Random(1))
    it.check, it.on_caught = guilty, lambda provider, proof: caught.append(provider)
    it.linked(TELLER, False, 0.0)
    it.linked(OTHER, True, 0.0)
    return [*it.receive(TELLER, proof, 1.0)], caught


@pytest.mark.parametrize("text", PROOFS.values(), ids=PROOFS)
def test_a_real_one_is_believed_and_told_on_as_it_came(text: str) -> None:
    proof = text.encode()
    assert len(proof) <= wire.MAX_PROOF
    assert heard(proof) == ([Send(OTHER, wire.Proof(proof))], [DRIVER.id])


@pytest.mark.parametrize("text", PROOFS.values(), ids=PROOFS)
def test_a_changed_one_costs_its_teller_and_convicts_nobody(text: str) -> None:
    middle = len(text) // 2
    for changed in (
        text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :],
        text[:-1],
        "{}",
    ):
        commands, caught = heard(changed.encode())
        assert any(isinstance(command, Drop) for command in commands)
        assert not caught and not any(isinstance(command, Send) for command in commands)


def test_a_newer_one_costs_nobody_anything() -> None:
    newer = PROOFS["wrong_token"].replace('"infraxa_proof":1', '"infraxa_proof":2')
    assert newer != PROOFS["wrong_token"] and heard(newer.encode()) == ([], [])


def row(peer: bytes, at_ms: int, *, told: bool, proof: str) -> VerdictRow:
    order = at_ms.to_bytes(16, "big").hex()
    verdict = Verdict(order, id_text(peer), "failed", "wrong_token", proof=bool(proof))
    return VerdictRow(peer, bytes(32), at_ms, verdict, proof, told)


def test_what_others_told_is_told_again_in_a_later_run_and_own_proofs_are_not() -> None:
    """Whether an own one may be told is for who bought the answer to say."""
    it = AuditHistory()
    it.open([row(OTHER, 2, told=True, proof="second"), row(TELLER, 3, told=True, proof="third")])
    it.add(row(DRIVER.id, 4, told=False, proof="own"))
    it.add(row(b"n" * 32, 5, told=True, proof=""))
    assert [*it.told().items()] == [(OTHER, b"second"), (TELLER, b"third")]
