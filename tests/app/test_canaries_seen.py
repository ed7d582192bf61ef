"""What a person reads of canaries: what they cost today, and which receipts are of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app import canary_money, spending
from infraxa.app.commands import earnings as earnings_command
from infraxa.app.commands import receipts as receipts_command
from infraxa.app.tui.widgets import earnings_rows as rows
from infraxa.store.db import connect
from infraxa.store.trade_records import OrderRow
from tests.app.still_earnings import books, receipts
from tests.app.test_canary_money import CAPS, REFEREE, of, paid


def test_the_view_says_what_was_spent_on_them_today() -> None:
    none, some = books(0), replace(books(0), canaries_today=320)
    assert "canaries" not in rows.totals(none, 160).plain
    assert "0.00032 on canaries today" in rows.totals(some, 160).plain
    bought = next(one for one in receipts(8) if one.role == "user")
    canary = replace(bought, canary=True)
    assert [rows.way(one) for one in (bought, canary)] == ["bought", "canary"]
    (row,) = rows.receipt_rows([canary])
    assert not callable(row.cells) and "canary" in row.cells
    assert "nobody asked" in rows.in_full(canary, (), 0).plain
    assert "nobody asked" not in rows.in_full(bought, (), 0).plain
    judged = replace(canary, outcome="scored")
    assert rows.way(judged) == "audit"
    told = rows.in_full(judged, (), 0).plain
    assert "it judged a canary" in told and "nobody asked" not in told
    assert "canary" not in rows.in_full(replace(judged, canary=False), (), 0).plain


def test_the_commands_say_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    conn = connect(data)
    order = canary_money.reserve(conn, of(1), 6000, 100, CAPS, "maple")
    assert isinstance(order, OrderRow)
    paid(conn, order, 1, 400)
    judging = spending.reserve(conn, of(2, REFEREE), 30, 30, CAPS, "oak")
    assert isinstance(judging, OrderRow)
    paid(conn, judging, 2, 20, "scored")
    conn.close()
    receipts_command.list_receipts(data, role=None, count=10, as_json=False)
    cells = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(one[1], one[6]) for one in cells] == [("judged by", "0.00002"), ("canary of", "0.0004")]
    receipts_command.list_receipts(data, role=None, count=10, as_json=True)
    assert '"canary":true' in capsys.readouterr().out.replace(" ", "")
    earnings_command.earnings(data, since=None, by="day", as_csv=False, as_json=True)
    assert '"canaries_today":420' in capsys.readouterr().out.replace(" ", "")
