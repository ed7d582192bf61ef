"""The prices of the last day, and what is left of them after a restart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from infraxa.app.prices import EVERY_MS, KEPT_MS, MAX_OFFERS, Kept, PriceHistory
from infraxa.app.trade import PricePoint
from tests.app.still import NOW, OFFERS

OFFER = OFFERS[0]
NODE, MODEL = OFFER.node.id, OFFER.model.model_id
KEY = (NODE + MODEL).hex()


def test_the_last_price_of_each_ten_minutes_is_kept_for_a_day() -> None:
    history = PriceHistory()
    for minute in range(26 * 60):
        history.seen([replace(OFFER, price_out=minute)], NOW + minute * 60_000)
    points = history.of(NODE, MODEL)
    assert len(points) == KEPT_MS // EVERY_MS + 1
    assert points[-1] == PricePoint(NOW + 1559 * 60_000, 1559)
    assert {b.at_ms - a.at_ms for a, b in pairwise(points[1:-1])} == {EVERY_MS}


def test_what_was_kept_comes_back_as_far_as_it_is_of_the_last_day() -> None:
    before, after = PriceHistory(), PriceHistory()
    for hour in range(30):
        before.seen([replace(one, price_out=hour) for one in OFFERS], NOW + hour * 3_600_000)
    after.bring_back(before.kept(), NOW + 30 * 3_600_000)
    points = after.of(NODE, MODEL)
    assert [point.price_out for point in points] == list(range(6, 30))
    assert points == before.of(NODE, MODEL)[-24:]
    assert after.kept().keys() == before.kept().keys()


@pytest.mark.parametrize(
    "kept",
    [
        {"no hex": [(NOW, 1)]},
        {KEY[:-2]: [(NOW, 1)]},
        {KEY: [(NOW + 1, 1), (NOW - KEPT_MS - 1, 1), (NOW, -1)]},
        {KEY: []},
    ],
)
def test_what_cannot_be_is_left_out(kept: Kept) -> None:
    history = PriceHistory()
    history.bring_back(kept, NOW)
    assert history.kept() == {}


def test_no_more_than_is_kept_while_it_runs_comes_back() -> None:
    history = PriceHistory()
    history.bring_back({f"{at:0128x}": [(NOW, at)] for at in range(MAX_OFFERS + 5)}, NOW)
    kept = history.kept()
    assert len(kept) == MAX_OFFERS and f"{MAX_OFFERS + 4:0128x}" in kept
