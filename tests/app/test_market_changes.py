"""The Market view while its providers change: what is shown anew, and what is left as it is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app import reputations
from infraxa.app.audit_values import AuditsSeen
from infraxa.app.drivers import Drivers
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import PricePoint
from infraxa.app.tui.screens import market
from infraxa.app.tui.screens.market import MarketScreen
from infraxa.app.tui.widgets.market_rows import COLUMNS
from infraxa.app.tui.widgets.table import Table
from infraxa.net import reputation
from infraxa.net.ratings import Rating
from infraxa.net.routing import Candidate
from tests.app.shell import Shell, shell
from tests.app.still import HOUR, NOW, StillNode, offered, seen
from tests.app.test_market_view import changed, now, still, view

NODE = seen("juniper", 4.0, "ws://203.0.113.24:7741", slots=8, util=32, rtt_ms=23.0, first_token_ms=240)
OFFER = offered("juniper", "Qwen3-8B", "Q4_K_M", speed=40, node=NODE, cost=(50_000, 200_000))
CHANGES = {
    "★": ("★", replace(OFFER, mark="pinned")),
    "provider": ("maple·", changed(OFFER, name="maple")),
    "model": ("gemma-3-4b", replace(OFFER, model=replace(OFFER.model, name="gemma-3-4b"))),
    "quant": ("Q8_0", replace(OFFER, model=replace(OFFER.model, quantization="Q8_0"))),
    "context": ("128k", replace(OFFER, model=replace(OFFER.model, context=131_072))),
    "price": ("0.75", replace(OFFER, price_out=750_000)),
    "stars": ("4.2 (7)", replace(OFFER, new=False, stars=4.2, ratings=7)),
    "verified": ("12 ✓", replace(OFFER, audited=AuditsSeen(passed=12))),
    "state": ("busy", changed(OFFER, status="busy")),
    "slots": ("6/8", changed(OFFER, util=191)),
    "trip": ("77 ms", changed(OFFER, rtt_ms=77.0)),
    "success": ("81 %", replace(OFFER, success=0.817)),
    "1st token": ("0.61 s", replace(OFFER, first_token_ms=610.0)),
    "tok/s": ("33.8", replace(OFFER, tokens_per_second=33.8)),
    "heard": ("51 s", changed(OFFER, age_s=51.0)),
}
"""By column: what it shows after a change, and the offer then."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of the view is shorter here; rows keep their places."""
    monkeypatch.setattr(market, "CALM", 0.1)
    monkeypatch.setattr(market, "SETTLED", 3600.0)
    monkeypatch.setattr(MarketScreen, "TICK", 0.1)


async def open_market(it: Shell) -> Table:
    """With the one offer in it."""
    await it.until(lambda: it.app.opened and it.chat.settled, "the store")
    still(it).become_market([OFFER])
    await it.pilot.press("alt+m")
    await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the Market view")
    await it.until(lambda: len(view(it).table.rows) == 1, "its first painting")
    return view(it).table


def line_shows(table: Table, text: str) -> bool:
    """Whether the first row does."""
    return text in table.render_line(1).text


def twice_on(it: Shell, text: str) -> bool:
    """Whether the text is on the screen so often."""
    return it.screen_text().count(text) == 2


async def test_each_column_is_renewed_when_what_it_shows_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market, "PAST_AGE", 0.2)
    async with shell(tmp_path, size=(240, 60), node=StillNode, clock=now) as it:
        table = await open_market(it)
        before = table.render_line(1).text
        values = [table.rows[0].value(at) for at in range(len(COLUMNS))]
        for at, column in enumerate(COLUMNS):
            if column.title == "24 h":
                continue
            shows, offer = CHANGES[column.title]
            assert shows not in before
            still(it).become_market([offer])
            await it.until(partial(line_shows, table, shows), column.title)
            assert column.title == "★" or table.rows[0].value(at) != values[at], column.title
            still(it).become_market([OFFER])
            await it.until(lambda: table.render_line(1).text == before, f"{column.title} as it was")
        still(it).histories = {NODE.id: [PricePoint(NOW - HOUR, 400_000)]}
        await it.until(lambda: "█" in table.render_line(1).text, "the price of the last day")
        assert table.rows[0].value([column.title for column in COLUMNS].index("24 h")) == 400_000


async def test_another_theme_is_seen_in_lines_that_were_painted_before(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        table = await open_market(it)

        def looks() -> list[list[str]]:
            return [[str(segment.style) for segment in table.render_line(y)] for y in (0, 1)]

        before = looks()
        it.app.theme = "textual-light"
        await it.until(lambda: all(one != other for one, other in zip(looks(), before, strict=True)), "it")


async def test_all_is_laid_out_anew_for_a_longer_card_and_not_for_other_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out = 0
    lay_out = MarketScreen._refresh_layout

    def counted(self: MarketScreen, *given: object, **named: object) -> None:
        nonlocal laid_out
        laid_out += 1
        lay_out(self, *given, **named)  # type: ignore[arg-type] # as they were given

    monkeypatch.setattr(MarketScreen, "_refresh_layout", counted)
    async with shell(tmp_path, size=(200, 60), node=StillNode, clock=now) as it:
        await open_market(it)
        await it.until(lambda: "23 ms" in it.screen_text(), "the card")
        card = view(it).query_one("#offer-text")
        height, before = card.size.height, laid_out
        for trip in range(60, 66):
            still(it).become_market([changed(OFFER, rtt_ms=float(trip))])
            await it.until(partial(twice_on, it, f"{trip} ms"), "it in the table and the card")
        assert laid_out == before
        still(it).become_market([replace(OFFER, cooling_s=42.0)])
        await it.until(lambda: card.size.height > height and "It failed" in it.screen_text(), "the warning")
        assert laid_out > before


def test_of_whom_nothing_is_known_is_scored_by_the_same_rule() -> None:
    unknown = reputations.score(Candidate(NODE, OFFER.model), [], AuditsSeen(), NOW)
    assert unknown == reputation.score(reputation.Evidence(), [], 0)
    audited = reputations.score(Candidate(NODE, OFFER.model), [], AuditsSeen(passed=1, last_ms=NOW), NOW)
    assert audited.stars is not None and unknown.stars is None


def test_what_was_said_of_a_provider_is_weighed_once_however_many_models_it_has() -> None:
    asked: list[bytes] = []

    def ratings_of(node: bytes) -> Iterable[Rating]:
        asked.append(node)
        return ()

    drivers = Drivers(lambda: None)
    drivers.reputations.ratings_of = ratings_of
    models = tuple(offered("", "Qwen3-8B", f"Q{bits}_0").model for bits in range(2, 9))
    nodes = [replace(seen(name, 1.0, slots=2), models=models) for name in ("birch", "elm")]
    offers: list[OfferSeen] = drivers.offers(nodes)
    assert len(offers) == 14 and asked == [node.id for node in nodes]
