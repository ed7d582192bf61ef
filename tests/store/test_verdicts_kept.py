"""Verdicts, the noise of models, and what is taken back for a proof: what stays, and what goes first."""

from __future__ import annotations

import msgspec
import pytest

from infraxa.store import buying, earnings, ledger, selling, tabs, trade, verdicts
from infraxa.store.db import Connection
from infraxa.store.records import AnswerFacts, Verdict
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow
from infraxa.store.verdicts import VerdictRow

PEER, MODEL = b"p" * 32, b"m" * 32


def row(number: int, state: str = "passed", proof: str = "", told: bool = False) -> VerdictRow:
    verdict = msgspec.convert(
        {"order": f"{number:032x}", "driver": "d", "state": state, "ratio": 1.25}, Verdict
    )
    return VerdictRow(PEER, MODEL, number, verdict, proof, told)


def test_the_last_of_an_order_is_kept(conn: Connection) -> None:
    verdicts.keep(conn, row(1, "undetermined"))
    verdicts.keep(conn, row(2))
    verdicts.keep(conn, row(1, "failed", proof="{}"))
    found = verdicts.list_verdicts(conn)
    assert found == [row(1, "failed", proof="{}"), row(2)]
    assert verdicts.proof_of(conn, bytes(15) + b"\1") == "{}"
    assert verdicts.proof_of(conn, bytes(15) + b"\2") == verdicts.proof_of(conn, b"none") == ""


def test_only_the_newest_are_kept_and_all_that_failed(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "VERDICTS_KEPT", 3)
    monkeypatch.setattr(verdicts, "TOLD_KEPT", 2)
    for number in range(5):
        verdicts.keep(conn, row(number, "failed"))
        verdicts.keep(conn, row(10 + number))
        verdicts.keep(conn, row(20 + number, "failed", proof="{}", told=True))
    kept = [found.at_ms for found in verdicts.list_verdicts(conn)]
    assert kept == [0, 1, 2, 3, 4, 12, 13, 14, 23, 24]


def test_the_noise_of_a_file_on_a_machine(conn: Connection) -> None:
    assert verdicts.noise(conn, "ab", "cpu") is None
    verdicts.keep_noise(conn, "ab", "cpu", 0.05)
    verdicts.keep_noise(conn, "ab", "cpu", 0.04)
    assert verdicts.noise(conn, "ab", "cpu") == 0.04
    assert verdicts.noise(conn, "ab", "cuda") is None


@pytest.mark.parametrize(
    ("known", "new", "kept"),
    [
        ("signed", "passed", "passed"),
        ("checking", "signed", "signed"),
        ("passed", "signed", "passed"),
        ("failed", "signed", "failed"),
        ("undetermined", "signed", "undetermined"),
        ("undetermined", "checking", "checking"),
    ],
)
def test_that_it_is_signed_says_less_than_an_audit(known: str, new: str, kept: str) -> None:
    facts = verdicts.with_verdict(AnswerFacts(), row(1, known).verdict)
    facts = verdicts.with_verdict(facts, row(2).verdict)
    facts = verdicts.with_verdict(facts, row(1, new).verdict)
    assert {one.order[-1]: one.state for one in facts.verdicts} == {"1": kept, "2": "passed"}


def bought(conn: Connection, number: int, accepted: int) -> bytes:
    """An order that was paid."""
    order = OrderRow(peer=PEER, id=number.to_bytes(16, "big"), model=MODEL, hold=100, price_out=1)
    assert buying.open_hold(conn, order, Caps()) is None
    buying.count_order(conn, PEER, order.id, "completed", Counts(1, 0, 5), accepted, "stop")
    signed = buying.sign_receipt(
        conn, PEER, order.id, seq=number, receipt=b"r", countersign=b"c", billed=Counts(1, 0, 5),
        charge=accepted, accepted=accepted,
    )  # fmt: skip
    assert isinstance(signed, ReceiptRow)
    buying.acknowledge(conn, PEER, order.id)
    return order.id


def sold(conn: Connection, number: int) -> None:
    """An order of the account that has the key of PEER."""
    order_id = number.to_bytes(16, "big")
    selling.open_order(conn, OrderRow(peer=PEER, id=order_id, model=MODEL, hold=100), limit=1000, grace_ms=0)
    selling.end_order(conn, PEER, order_id, "completed", Counts(1, 0, 5), 7)
    selling.issue_receipt(conn, PEER, order_id, lambda *_: b"r")


def test_receipts_have_what_audits_found_of_what_was_bought(conn: Connection) -> None:
    for number in range(1, 6):
        bought(conn, number, 10)
    sold(conn, 1)
    verdicts.keep(conn, row(1))
    verdicts.keep(conn, row(2, "failed", proof="{}"))
    verdicts.keep(conn, row(4, "undetermined"))
    other = msgspec.structs.replace(row(3, "failed"), peer=b"x" * 32)  # another driver's order of this number
    verdicts.keep(conn, other)
    places = {place: (order.role, order.id[-1]) for place, order, _ in earnings.list_receipts(conn)}
    found = verdicts.of_receipts(conn, min(places), max(places))
    assert {places[place]: verdict for place, verdict in found.items()} == {
        ("user", 1): row(1).verdict, ("user", 2): row(2, "failed").verdict,
        ("user", 4): row(4, "undetermined").verdict,
    }  # fmt: skip
    assert list(verdicts.of_receipts(conn, 2, 3)) == [2]
    assert verdicts.of_receipts(conn, 9, 12) == {}


def test_a_page_of_receipts_asks_once_and_reads_no_more_verdicts_than_it_has(conn: Connection) -> None:
    for number in range(1, 4):
        bought(conn, number, 10)
        verdicts.keep(conn, row(number))
    statements: list[str] = []
    conn.set_trace_callback(statements.append)
    assert len(verdicts.of_receipts(conn, 1, 3)) == 3
    conn.set_trace_callback(None)
    (asked,) = statements
    plan = [step[3] for step in conn.execute(f"EXPLAIN QUERY PLAN {asked}")]
    assert len(plan) == 3 and all(step.startswith("SEARCH") for step in plan), plan


def test_what_a_proof_takes_back_is_not_spent_and_the_tab_stays_as_signed(conn: Connection) -> None:
    first, second = bought(conn, 1, 40), bought(conn, 2, 30)
    assert buying.spent_since(conn, 0).spent == 70
    assert buying.reverse(conn, PEER, first, b"proof") == 40
    assert buying.reverse(conn, PEER, first, b"proof") == 0
    assert buying.reverse(conn, PEER, b"x" * 16, b"proof") == 0
    assert buying.spent_since(conn, 0).spent == 30
    tab = tabs.get_tab(conn, "user", PEER)
    assert (tab.owed, tab.reversed, tab.signed_seq) == (70, 40, 2)
    order = trade.get_order(conn, "user", PEER, first)
    other = trade.get_order(conn, "user", PEER, second)
    assert order is not None and order.reversed == 40 and other is not None and other.reversed == 0
    (kept,) = conn.execute("SELECT proof FROM events WHERE kind = 'reverse'").fetchone()
    assert kept == b"proof"
    assert ledger.check(conn) == []
    bought(conn, 3, 5)
    assert tabs.get_tab(conn, "user", PEER).owed == 75 and ledger.check(conn) == []
