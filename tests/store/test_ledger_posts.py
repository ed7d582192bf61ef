"""Double entry: each event once, never changed, its postings summing to 0; and a check that sees damage."""

from __future__ import annotations

import sqlite3

import pytest

from infraxa.store import buying, ledger, selling, tabs
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, Counts, OrderRow

PROVIDER, ACCOUNT, MODEL = b"p" * 32, b"a" * 32, b"m" * 32
ORDER = bytes(16)
BIG = 2**62


@pytest.fixture
def trades(conn: Connection) -> Connection:
    """One order of each role that was paid, one disputed, and one of each that is open."""
    for number in range(3):
        order = OrderRow(peer=PROVIDER, id=bytes([number] * 16), model=MODEL, hold=1000)
        assert buying.open_hold(conn, order, Caps()) is None
        sold = OrderRow(peer=ACCOUNT, id=order.id, model=MODEL, hold=1000)
        assert selling.open_order(conn, sold, limit=10_000, grace_ms=10_000) is None
        if number == 2:
            break
        accepted = 700 - number
        buying.sign_receipt(
            conn, PROVIDER, order.id, seq=number + 1, receipt=b"r", countersign=b"c",
            billed=Counts(1, 0, 1), charge=700, accepted=accepted,
        )  # fmt: skip
        selling.end_order(conn, ACCOUNT, order.id, "completed", Counts(1, 0, 1), 700)
        selling.issue_receipt(conn, ACCOUNT, order.id, lambda *_: b"r")
        selling.accept_countersign(
            conn, ACCOUNT, order.id, countersign=b"c", counted=Counts(1, 0, 1), accepted=accepted
        )
    tabs.settle(conn, "s", "provider", ACCOUNT, 100, "", b"", seq=3)
    assert ledger.check(conn) == []
    return conn


def test_an_event_happens_once(conn: Connection) -> None:
    assert ledger.post(conn, "k", "settle", {"a": 5, "b": -5})
    assert not ledger.post(conn, "k", "settle", {"a": 7, "b": -7})
    assert ledger.post(conn, "l", "settle", {"a": -2, "b": 0, "c": 2}, note="why", proof=b"signed")
    assert {name: ledger.balance(conn, name) for name in "abcd"} == {"a": 3, "b": -5, "c": 2, "d": 0}
    assert conn.execute("SELECT key, kind, note, proof FROM events ORDER BY n").fetchall() == [
        ("k", "settle", "", None),
        ("l", "settle", "why", b"signed"),
    ]


def test_what_does_not_sum_to_nothing_is_not_posted(conn: Connection) -> None:
    with pytest.raises(ValueError, match="sum"):
        ledger.post(conn, "k", "settle", {"a": 5, "b": -4})
    assert conn.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_a_balance_never_becomes_inexact(conn: Connection) -> None:
    ledger.post(conn, "k", "settle", {"a": BIG, "b": -BIG})
    with pytest.raises(sqlite3.IntegrityError):
        ledger.post(conn, "l", "settle", {"a": BIG, "b": -BIG})
    assert ledger.balance(conn, "a") == BIG
    assert ledger.check(conn) == []


@pytest.mark.parametrize("table", ["events", "postings"])
def test_what_is_posted_stays(trades: Connection, table: str) -> None:
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = 1", f"UPDATE {table} SET {{}}"):
        column = "at = 0" if table == "events" else "amount = amount + 1"
        with pytest.raises(sqlite3.Error):
            trades.execute(statement.format(column))
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        trades.execute(f"DELETE FROM {table}")
    assert ledger.check(trades) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE accounts SET balance = balance + 1 WHERE name = 'spent'", "not the sum of what was posted"),
        ("UPDATE accounts SET balance = balance + 1 WHERE name = 'spent'", "The balances sum to 1, not to 0"),
        ("INSERT INTO postings SELECT max(event), 1, 5 FROM postings", "1 events do not sum to 0 (event"),
        ("UPDATE orders SET accepted = 600 WHERE n = 1", "1 orders were accepted for something else"),
        ("UPDATE orders SET held = 5 WHERE bill = 'held'", "2 orders hold an amount"),
        ("DELETE FROM receipts WHERE order_n = 2", "1 orders and their receipts disagree (order 2)"),
        ("UPDATE receipts SET countersign = NULL WHERE order_n = 2", "1 orders and their receipts disagree"),
        ("UPDATE tabs SET seq = 1, signed_seq = 1 WHERE role = 'user'", "1 receipts have a number"),
        ("UPDATE sums SET accepted = accepted + 1 WHERE role = 'user'", "sums of days are not those"),
        ("DELETE FROM sums WHERE role = 'user'", "1 sums of days are not those"),
    ],
)
def test_the_check_sees(trades: Connection, damage: str, said: str) -> None:
    trades.execute(damage)
    assert [one for one in ledger.check(trades) if said in one] != []


def test_the_tables_refuse_what_cannot_be(trades: Connection) -> None:
    for impossible in (
        "UPDATE orders SET held = 1 WHERE bill = 'closed'",
        "UPDATE orders SET held = hold + 1 WHERE bill = 'held'",
        "UPDATE orders SET accepted = charge + 1 WHERE n = 1",
        "UPDATE orders SET bill = 'closed' WHERE accepted IS NULL",
        "UPDATE orders SET bill = 'issued', held = 0 WHERE role = 'provider'",  # two of one account
        "UPDATE tabs SET signed_seq = seq + 1",
        "INSERT INTO receipts SELECT 99, role, peer, tab_seq, receipt, NULL, NULL, 0, NULL FROM receipts",
        "DELETE FROM tabs",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            trades.execute(impossible)
