"""Prices and reputation in the Market: what the columns say, the past of a price, the highest one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import PricePoint
from infraxa.app.tui.screens import market
from infraxa.app.tui.widgets.market_rows import COLUMNS, Wanted, offer_key, offer_rows, rating_text
from infraxa.app.tui.widgets.offer_facts import card, in_lines
from infraxa.app.tui.widgets.price_line import DAY_MS, NO_PAST, PricePast
from tests.app.shell import SETTINGS, Shell, shell
from tests.app.still import HOUR, NOW, OFFERS, StillNode, an_id
from tests.app.test_market_view import go_to, now, open_market, shown, still, under, view

TITLES = [column.title for column in COLUMNS]
KNOWN = replace(OFFERS[2], price_in=50_000, price_out=200_000, stars=4.31, ratings=12, new=False)
POINTS = [
    PricePoint(NOW - 30 * HOUR, 100_000),
    PricePoint(NOW - 12 * HOUR, 200_000),
    PricePoint(NOW - 6 * HOUR, 400_000),
    PricePoint(NOW - 1 * HOUR, 200_000),
]
PAST = PricePast(POINTS, NOW)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market, "CALM", 0.25)


def cell(
    title: str, offer: OfferSeen = KNOWN, past: PricePast = NO_PAST, most: int | None = None
) -> tuple[str, str]:
    """What stands in this column, and its style."""
    (row,) = offer_rows([offer], 0.0, (b"", None), {offer_key(offer): past}, most)
    assert callable(row.cells)
    found = row.cells()[TITLES.index(title)]
    return found if isinstance(found, tuple) else (found, "")


def test_stars_and_their_count_and_a_newcomer_is_never_nothing() -> None:
    assert rating_text(KNOWN) == "4.3 (12)" and cell("stars")[0] == "4.3 (12)"
    assert rating_text(replace(KNOWN, ratings=48_211)) == "4.3 (9k)"
    for stars in (None, 1.0, 5.0):
        new = replace(KNOWN, new=True, stars=stars, ratings=0)
        assert rating_text(new) == "NEW" and cell("stars", new)[0] == "NEW"
    assert rating_text(replace(KNOWN, stars=None)) == "–"
    assert all(len(rating_text(replace(KNOWN, ratings=count))) <= 9 for count in (0, 9, 99, 999, 10**9))
    assert "reputation   ★ 4.3 · 12 ratings" in card(KNOWN, 0.0, 46).plain
    assert "3 ratings of strangers" in card(replace(KNOWN, unweighted=3), 0.0, 46).plain
    assert "reputation   NEW" in card(replace(KNOWN, stars=None, new=True), 0.0, 46).plain


def test_the_price_of_a_generated_token_and_free() -> None:
    assert cell("price") == ("0.20", "")
    assert cell("price", most=150_000) == ("0.20", ".table--warn")
    assert cell("price", replace(KNOWN, price_in=0, price_out=0), most=0) == ("free", ".table--good")


def test_the_past_of_a_price() -> None:
    assert PAST.slots(4) == [100_000, 200_000, 400_000, 200_000]
    assert PAST.bars(4) == "▃▅█▅"
    assert PAST.spread() == "0.10 – 0.40"
    late = PricePast(POINTS[1:2], NOW)
    assert late.bars(4) == " ███" and late.spread() == "0.20"
    assert NO_PAST.bars(4) == "    " and NO_PAST.spread() == ""
    free = PricePast([PricePoint(NOW - DAY_MS, 0)], NOW)
    assert free.bars(3) == "▁▁▁" and free.spread() == "0.00"
    assert PricePast([PricePoint(NOW + HOUR, 7)], NOW).spread() == ""
    assert cell("24 h", past=PAST)[0] == PAST.bars(8)
    assert "24 h         " + PAST.bars(24) in card(KNOWN, 0.0, 46, PAST).plain
    assert "(24 h 0.10 – 0.40)" in in_lines(KNOWN, 0.0, 200, PAST).plain
    assert "24 h" not in in_lines(KNOWN, 0.0, 200).plain


def test_the_highest_price_leaves_what_is_not_dearer() -> None:
    assert Wanted(most=200_000).shows(KNOWN) and not Wanted(most=199_999).shows(KNOWN)


class Recalling(StillNode):
    """It notes whose past prices were asked for."""

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.recalled: list[bytes] = []

    async def price_history(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        self.recalled.append(node + model_id)
        return await super().price_history(node, model_id)


def recalled(it: Shell) -> Sequence[bytes]:
    node = it.node
    assert isinstance(node, Recalling)
    return node.recalled


def priced() -> list[OfferSeen]:
    """Each third of them asks for 0.45, 0.225 and 0.15."""
    return [
        replace(offer, price_in=100_000, price_out=450_000 // (1 + at % 3)) for at, offer in enumerate(OFFERS)
    ]


async def test_the_past_is_read_of_what_is_selected_once_a_minute(tmp_path: Path) -> None:
    async with shell(tmp_path, node=Recalling, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        still(it).histories = {an_id("juniper"): POINTS}
        still(it).become_market(priced())
        await open_market(it)
        await it.until(lambda: len(recalled(it)) == 1, "the first row's")
        await go_to(it, "juniper")
        await it.until(lambda: "(24 h 0.10 – 0.40)" in it.screen_text(), "its prices of the day")
        assert recalled(it)[-1] == offer_key(under(it))
        await it.pilot.press("up", "down", "up", "down")
        await it.pilot.pause(0.6)
        assert len(recalled(it)) == len(set(recalled(it)))  # each once


async def test_a_wide_table_shows_the_past_of_what_is_in_sight(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(200, 40), node=Recalling, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        still(it).histories = {an_id("juniper"): POINTS}
        still(it).become_market(priced())
        await open_market(it)
        await it.until(lambda: set(recalled(it)) == {offer_key(one) for one in OFFERS}, "all of them")
        await it.until(lambda: f" {PAST.bars(8)} " in it.screen_text(), "the bars")
        await it.pilot.pause(0.6)
        assert len(recalled(it)) == len(OFFERS)


async def test_the_setting_max_price_is_a_filter_while_it_is_set(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_price=0.35)
    async with shell(tmp_path, node=StillNode, clock=now, settings=settings) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        still(it).become_market(priced())
        await open_market(it)
        assert "m ○ ≤ 0.35" in it.screen_text() and len(shown(it)) == len(OFFERS)
        await it.pilot.press("m")
        assert len(shown(it)) == 2 * len(OFFERS) // 3 and "m ● ≤ 0.35" in it.screen_text()
        await still(it).change_setting("max_price", 0.1)
        await it.until(lambda: "No offer that is up to 0.10/M." in it.screen_text(), "the new one")
        await still(it).change_setting("max_price", "auto")
        await it.until(lambda: len(shown(it)) == len(OFFERS), "no filter any more")
        assert "≤" not in it.screen_text().split("\n")[1]
        await it.pilot.press("m")
        assert view(it).wanted == Wanted()
