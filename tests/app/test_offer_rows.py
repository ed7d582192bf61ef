"""What `infraxa providers` prints of an offer: cells and JSON, its order, and which columns have room."""

from __future__ import annotations

import io

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.offer_rows import Row, cells_of, lasting, rows_of, sort_rows
from infraxa.app.commands.output import table
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.widgets import market_rows
from infraxa.net.identity import display, id_text
from infraxa.net.records import ModelOffer
from infraxa.net.status import SeenNode

MODEL = ModelOffer("Qwen", "qwen3", "Q4_K_M", b"\xab" * 32, 4096, 512, 7, 9, speed=31_500)
NODE = SeenNode(
    id=b"n" * 32, name="maple", status="online", age_s=3.04, addresses=("ws://192.0.2.1:7741",), relays=(),
    slots=4, util=64, models=(MODEL,), prices=(), first_token_ms=300, rtt_ms=1.234,
)  # fmt: skip
SEEN = OfferSeen(NODE, MODEL, 0, 0)
MEASURED = replace(
    SEEN, answered=31, failed=1, success=0.9688, first_token_ms=211.3, tokens_per_second=28.44, mark="pinned",
    new=False,
)  # fmt: skip


def named(name: str, offer: OfferSeen = SEEN, **of_node: object) -> OfferSeen:
    return replace(offer, node=replace(offer.node, name=name, id=name.encode().ljust(32), **of_node))


def cells(row: Row) -> dict[str, str]:
    shown = cells_of([row])
    return dict(zip(shown.titles, *shown.rows, strict=True))


def test_an_offer_in_cells() -> None:
    (row,) = rows_of([MEASURED])
    assert cells(row) == {
        "provider": display("maple", NODE.id),
        "state": "online pinned",
        "model": "Qwen",
        "quant": "Q4_K_M",
        "price": "free",
        "slots": "1/4",
        "trip": "1.2 ms",
        "1st token": "211 ms",
        "tok/s": "28.4",
        "success": "97% of 32",
        "verified": "–",
        "heard": "3 s",
        "reached by": "ws://192.0.2.1:7741",
    }


def test_the_columns_are_called_as_in_the_market() -> None:
    in_market = {column.title for column in market_rows.COLUMNS}
    assert set(cells_of([]).titles) - in_market == {"reached by"}  # the market says that beside the table


def test_what_was_not_measured_has_an_empty_cell_and_a_newcomer_is_new() -> None:
    (row,) = rows_of([named("maple", rtt_ms=None, addresses=(), relays=(b"r" * 32,))])
    shown = cells(row)
    assert [shown[title] for title in ("trip", "1st token", "tok/s")] == ["", "", ""]
    assert shown["success"] == "NEW" and shown["reached by"] == "relay"
    few = replace(SEEN, answered=2, failed=1, success=0.667)
    assert cells(*rows_of([few]))["success"] == "NEW 67% of 3"
    known = replace(few, new=False)  # by answers of its other models
    assert [cells(row)["success"] for row in rows_of([known, replace(SEEN, new=False)])] == ["67% of 3", ""]


def test_a_price_is_never_one_that_is_not_asked() -> None:
    (row,) = rows_of([replace(SEEN, price_in=50_000, price_out=200_000)])
    assert cells(row)["price"] == "0.05 + 0.20/M"
    assert cells(*rows_of([replace(SEEN, price_in=50_000)]))["price"] == "0.05 + 0.00/M"


def test_a_node_without_an_offer_is_a_row_too() -> None:
    (row,) = rows_of([], [replace(NODE, slots=0, models=(), same_name_as=b"f" * 32)])
    shown = cells(row)
    assert shown["model"] == "no offer" and shown["price"] == shown["slots"] == shown["success"] == ""
    assert f"(same name as {display('maple', b'f' * 32)})" in shown["provider"]
    told = msgspec.to_builtins(row)
    assert told["model"] is told["model_id"] is told["price_out"] is told["success"] is None


def test_an_offer_as_json() -> None:
    blocked = replace(MEASURED, mark="blocked", cooling_s=7.96, problem="You blocked this provider.")
    (told,) = msgspec.json.decode(msgspec.json.encode(rows_of([blocked])))
    assert told == {
        "id": id_text(NODE.id),
        "node": display("maple", NODE.id),
        "name": "maple",
        "status": "online",
        "age_s": 3.0,
        "rtt_ms": 1.23,
        "slots": 4,
        "busy": 0.25,
        "addresses": ["ws://192.0.2.1:7741"],
        "relays": [],
        "warning": None,
        "model": "Qwen",
        "model_id": "ab" * 32,
        "quantization": "Q4_K_M",
        "context": 4096,
        "price_in": 0,
        "price_out": 0,
        "promised_first_token_ms": 300,
        "promised_tokens_per_second": 31.5,
        "first_token_ms": 211.3,
        "tokens_per_second": 28.44,
        "answered": 31,
        "failed": 1,
        "success": 0.969,
        "new": False,
        "cooling_s": 8.0,
        "mark": "blocked",
        "problem": "You blocked this provider.",
        "commits": False,
        "audits_passed": 0,
        "audits_failed": 0,
        "audits_undetermined": 0,
        "caught": None,
        "proof": None,
    }


def test_sorting_puts_the_best_first_and_the_unknown_last() -> None:
    fast = named("b-fast", replace(MEASURED, tokens_per_second=90.0, success=0.5), util=255, rtt_ms=9.0)
    slow = named("A-slow", replace(MEASURED, tokens_per_second=3.0, price_out=5), age_s=0.0, rtt_ms=1.0)
    new = named("c-new", status="busy", rtt_ms=None)
    rows = rows_of([new, fast, slow], [named("d-none", slots=0, models=()).node])

    def by(column: str | None) -> str:
        return "".join(row.name[0].lower() for row in sort_rows(rows, column))

    assert by(None) == "cbad"
    assert by("provider") == "abcd" and by("heard") == "acbd"
    assert by("tok/s") == by("TOK/S") == "bacd"
    assert by("success") == "abcd" and by("1st-token") == by("1st token") == "bacd" and by("trip") == "adbc"
    assert by("price") == "cbad" and by("slots") == "cabd" and by("state") == "badc"
    with pytest.raises(UsageError, match=r"no column \[2Jrating .* provider, state, .*1st-token"):
        sort_rows([], "\x1b[2Jrating")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_a_narrow_terminal_shows_what_matters_and_cuts_no_id(width: int) -> None:
    long = named("willow", replace(MEASURED, model=replace(MODEL, name="Qwen2.5-0.5B-Instruct")))
    rows = rows_of([MEASURED, long])
    shown = cells_of(rows, width)
    assert shown.titles[:3] == ("provider", "state", "model") and set(shown.right) < set(shown.titles)
    assert all(len(row) == len(shown.titles) for row in shown.rows)
    drawn = io.StringIO()
    Console(file=drawn, width=width).print(table(shown.titles, shown.rows, right=shown.right))
    if width >= 60:
        assert len(drawn.getvalue().splitlines()) == 3  # nothing is folded
    assert cells_of(rows, 500) == cells_of(rows)
    assert ("1st token" in shown.titles) == (width >= 120)
    assert ("success" in shown.titles) == (width >= 80)
    assert ("price" in shown.titles) == (width >= 80)


def test_what_changes_by_itself_is_no_news() -> None:
    (row,) = rows_of([replace(SEEN, cooling_s=8.0)])
    (later,) = rows_of([replace(SEEN, cooling_s=7.0, node=replace(NODE, age_s=4.0, rtt_ms=2.0))])
    assert lasting(row) == lasting(later) is not None
    for other in (replace(SEEN, cooling_s=0.0), replace(MEASURED, cooling_s=8.0)):
        assert lasting(row) != lasting(*rows_of([other]))
    assert lasting(None) is None
