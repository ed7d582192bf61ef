"""How far offers are verified, in the market: the column, the facts of one offer, who was caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.app.audit_words import audits_text, badge_of
from infraxa.app.commands.offer_rows import cells_of, rows_of, sort_rows
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.screens.pick_driver import candidates
from infraxa.app.tui.widgets.driver import find_driver, where_to
from infraxa.app.tui.widgets.market_rows import COLUMNS, offer_rows
from infraxa.app.tui.widgets.offer_facts import card, in_lines, warnings
from infraxa.net.identity import display, id_text
from tests.app.audited import EVERY_MODE, FAILED, PROOF, PROVEN, AuditedNode, seen
from tests.app.shell import shell
from tests.app.still import NOW, OFFERS

HEADINGS = [column.title for column in COLUMNS]
JUNIPER = next(offer for offer in OFFERS if offer.node.name == "juniper")
SIGNING = replace(JUNIPER, model=replace(JUNIPER.model, modes=EVERY_MODE))
AUDITED = replace(SIGNING, audited=seen(12, undetermined=1))
CAUGHT = replace(SIGNING, audited=seen(3, failed=1), caught=PROVEN, proof=PROOF)
JUDGED = replace(CAUGHT, caught=FAILED, proof="")
"""By its numbers alone."""


def cell(offer: OfferSeen, title: str) -> Any:
    (row,) = offer_rows([offer], 0.0, (b"", None))
    assert callable(row.cells)
    return row.cells()[HEADINGS.index(title)]


@pytest.mark.parametrize(
    ("offer", "text"),
    [
        (JUNIPER, "–"),
        (SIGNING, "offered"),
        (AUDITED, "12 ✓"),
        (CAUGHT, "✗ caught"),
        (JUDGED, "✗ failed"),
    ],
)
def test_a_word_for_how_far_an_offer_is_verified(offer: OfferSeen, text: str) -> None:
    assert badge_of(offer) == text == cell(offer, "verified")[0]
    assert (cell(offer, "state")[0] == text.removeprefix("✗ ")) is bool(offer.caught)
    (row,) = rows_of([offer])
    assert row.proof == (offer.proof or None)
    shown = cells_of([row])
    assert dict(zip(shown.titles, shown.rows[0], strict=True))["verified"] == text
    assert len(badge_of(replace(offer, audited=seen(10**6)))) <= 8


def test_the_most_verified_is_first_and_who_was_caught_behind() -> None:
    offers = [JUNIPER, CAUGHT, SIGNING, AUDITED]
    order = HEADINGS.index("verified")
    keys = [row.value(order) for row in offer_rows(offers, 0.0, (b"", None))]
    assert keys[0] is None
    _, caught, signed, audited = keys
    assert audited is not None and signed is not None and caught is not None
    assert audited > signed > caught  # type: ignore[operator] # they are floats
    by_word = sort_rows(rows_of(offers), "verified")
    assert [(row.audits_passed, row.commits, bool(row.caught)) for row in by_word] == [
        (12, True, False), (0, True, False), (3, True, True), (0, False, False),
    ]  # fmt: skip
    assert cells_of([by_word[2]], 60).rows[0][1] == "online caught"
    assert cells_of(rows_of([JUDGED]), 60).rows[0][1] == "online failed"


def test_audits_in_words() -> None:
    assert audits_text(seen(0)) == "" and audits_text(seen(1)) == "1 of 1 audit passed"
    assert audits_text(AUDITED.audited) == "12 of 13 audits passed"
    assert audits_text(CAUGHT.audited) == "3 of 4 audits passed · 1 failed"
    apart = replace(seen(1, undetermined=2), apart=(1.9, 2.314))
    assert audits_text(apart) == "1 of 3 audits passed · other hardware? 1.90, 2.31 × honest noise"


def test_the_facts_of_an_offer_say_what_audits_found() -> None:
    for offer, text in (
        (JUNIPER, "commits to nothing"),
        (SIGNING, "offered, none audited"),
        (AUDITED, "12 of 13 audits passed"),
    ):
        assert text in card(offer, 0.0, 60).plain and text in in_lines(offer, 0.0, 200).plain
    assert warnings(CAUGHT, 0.0)[0] == (f"✗ Caught lying. {PROVEN}", "$text-error")
    shown = " ".join(card(CAUGHT, 0.0, 36).plain.split())
    assert f"✗ Caught lying. {PROVEN}" in shown and f"infraxa receipts proof {PROOF} writes" in shown
    lines = in_lines(CAUGHT, 0.0, 80).plain
    assert "✗ Caught lying" in lines and f"infraxa receipts proof {PROOF} writes the proof." in lines
    assert warnings(JUDGED, 0.0) == [(f"✗ {FAILED}", "$text-error")]
    assert f"✗ {FAILED}" in in_lines(JUDGED, 0.0, 200).plain and "aught" not in card(JUDGED, 0.0, 60).plain
    hostile = replace(CAUGHT, caught="\x1b[2J" + "x" * 999)
    assert "\x1b" not in card(hostile, 0.0, 60).plain and len(warnings(hostile, 0.0)[0][0]) < 260


def test_who_was_caught_is_marked_wherever_it_can_be_chosen() -> None:
    last = candidates([CAUGHT, JUNIPER])[-1]
    assert last.choice.model == CAUGHT.model.model_id.hex() and "✗ caught lying" in last.row.plain
    assert not last.problem  # a person may choose it all the same
    driver = find_driver(id_text(CAUGHT.node.id), None, [CAUGHT], {})
    who = display(CAUGHT.node.name, CAUGHT.node.id)
    assert where_to(driver).plain.startswith(f"→ goes to {who} only  ✗ caught lying")
    assert "✗" not in where_to(find_driver(id_text(JUNIPER.node.id), None, [JUNIPER], {})).plain
    assert "✗ failed an audit" in candidates([JUDGED])[0].row.plain
    judged = where_to(find_driver(id_text(JUDGED.node.id), None, [JUDGED], {})).plain
    assert f"{who} only  ✗ failed an audit" in judged and "lying" not in judged


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_a_caught_cheater_is_seen_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with shell(tmp_path, size=size, node=AuditedNode, clock=lambda: NOW / 1000) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        node = it.node
        assert isinstance(node, AuditedNode)
        node.offers = [CAUGHT, AUDITED]
        await it.pilot.press("alt+m")
        await it.until(lambda: "juniper" in it.screen_text(), "the offers")
        text = it.screen_text()
        assert "caught" in text and "✗ Caught" in text
        assert ("12 ✓" in text) is (size[0] >= 120)
