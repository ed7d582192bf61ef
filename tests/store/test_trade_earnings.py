"""Sums per day, model and peer, and the receipts behind them page by page."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraxa.store import earnings, ledger, selling
from infraxa.store.db import Connection, connect
from infraxa.store.trade_records import Counts, OrderRow, ReceiptRow, Role, Sum

ALICE, BOB = b"a" * 32, b"b" * 32
LARGE, SMALL = b"L" * 32, b"s" * 32
HOUR = 3600 * 1000
MIDNIGHT = int(datetime.datetime(2026, 3, 14, tzinfo=datetime.UTC).timestamp() * 1000)


class Clock:
    now = MIDNIGHT

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def conn(tmp_path: Path, clock: Clock) -> Iterator[Connection]:
    connection = connect(tmp_path / "data", clock=clock)
    yield connection
    assert ledger.check(connection) == []
    connection.close()


def sold(conn: Connection, number: int, account: bytes, model: bytes, accepted: int, name: str = "") -> None:
    order = OrderRow(
        peer=account, id=number.to_bytes(16, "big"), model=model,
        model_name=f"model {model[:1].decode()}" if number != 8 else "renamed", hold=1000,
    )  # fmt: skip
    assert selling.open_order(conn, order, limit=10**6, grace_ms=0, name=name) is None
    selling.end_order(conn, account, order.id, "completed", Counts(10, 4, number), 1000)
    selling.issue_receipt(conn, account, order.id, lambda order, seq, owed: b"%d" % seq)
    signed = selling.accept_countersign(
        conn, account, order.id, countersign=b"c", counted=Counts(10, 4, number), accepted=accepted
    )
    assert isinstance(signed, ReceiptRow)


def test_sums_of_days_models_and_peers(conn: Connection, clock: Clock) -> None:
    clock.now = MIDNIGHT - HOUR
    sold(conn, 1, ALICE, LARGE, 1000, "alice")
    clock.now = MIDNIGHT
    sold(conn, 2, ALICE, SMALL, 100, "alice of late")
    clock.now = MIDNIGHT + HOUR
    sold(conn, 3, BOB, SMALL, 200)
    sums = earnings.earnings(conn, "provider", utc=True)
    assert sums.days == (
        Sum("2026-03-14", "", 2, 20, 8, 5, 300, 1700, 0),
        Sum("2026-03-13", "", 1, 10, 4, 1, 1000, 0, 0),
    )
    assert sums.models == (
        Sum(LARGE, "model L", 1, 10, 4, 1, 1000, 0, 0),
        Sum(SMALL, "model s", 2, 20, 8, 5, 300, 1700, 0),
    )
    assert sums.peers == (
        Sum(ALICE, "alice of late", 2, 20, 8, 3, 1100, 900, 0),
        Sum(BOB, "", 1, 10, 4, 3, 200, 800, 0),
    )
    assert sums.accepted == 1300
    today = earnings.earnings(conn, "provider", MIDNIGHT, utc=True)
    assert today.accepted == 300 and [one.key for one in today.peers] == [BOB, ALICE]
    assert earnings.total(conn, "provider", MIDNIGHT) == Sum("", "", 1, 10, 4, 1, 1000, 0, 0)
    assert earnings.total(conn, "user", MIDNIGHT) == Sum("", "", 0, 0, 0, 0, 0, 0, 0)
    assert earnings.earnings(conn, "user") == earnings.earnings(conn, "provider", MIDNIGHT + 2 * HOUR)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process is set on POSIX alone")
def test_days_are_those_of_this_machine(
    conn: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = MIDNIGHT - HOUR // 2
    sold(conn, 1, ALICE, LARGE, 1000)
    clock.now = MIDNIGHT - HOUR // 4
    sold(conn, 2, ALICE, LARGE, 50)
    monkeypatch.setenv("TZ", "ACWST-0:15")  # a quarter of an hour east of Greenwich
    time.tzset()
    try:
        days = [(one.key, one.accepted) for one in earnings.earnings(conn, "provider").days]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert days == [("2026-03-14", 50), ("2026-03-13", 1000)]


def test_every_day_is_there_also_of_several_years_with_a_clock_that_is_put_forward(
    conn: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process is set on POSIX alone")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        begin = datetime.datetime(2024, 1, 1, 12)
        dates = [begin + datetime.timedelta(days=number) for number in range(900)]
        for number, date in enumerate(dates):
            first, last = date.replace(hour=0), date.replace(hour=23, minute=59)
            clock.now = round((last if number % 2 else first).timestamp() * 1000)
            sold(conn, number, ALICE, LARGE, number + 1)
        found = [(one.key, one.accepted) for one in reversed(earnings.days(conn, "provider"))]
        assert found == [(date.date().isoformat(), number + 1) for number, date in enumerate(dates)]
        late = round(dates[500].replace(hour=0).timestamp() * 1000)
        assert [one.key for one in earnings.days(conn, "provider", late)] == [
            key for key, _ in found[:499:-1]
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_receipts_page_by_page(conn: Connection) -> None:
    for number in range(7):
        sold(conn, number, ALICE if number % 2 else BOB, LARGE, 1000)

    def pages(role: Role | None = None, peer: bytes | None = None) -> list[list[int]]:
        found, before = [], None
        while page := earnings.list_receipts(conn, role, peer=peer, before=before, limit=3):
            found.append([int.from_bytes(order.id, "big") for _, order, _ in page])
            before = page[-1][0]
        return found

    assert pages() == pages("provider") == [[6, 5, 4], [3, 2, 1], [0]]
    assert pages("provider", ALICE) == pages(peer=ALICE) == [[5, 3, 1]]
    assert pages("user") == []
    place, order, receipt = earnings.list_receipts(conn, limit=1)[0]
    assert order.model_name == "model L" and order.accepted == 1000
    assert (receipt.order_id, receipt.tab_seq, receipt.receipt, receipt.disputed) == (order.id, 4, b"4", 0)
    assert place == 7


def test_a_model_has_the_name_that_it_was_last_given(conn: Connection) -> None:
    for number in (7, 8):
        sold(conn, number, ALICE, LARGE, 1000)
    assert [one.name for one in earnings.earnings(conn, "provider").models] == ["renamed"]
