"""Audits in the chat as a person meets them: the verdict under an answer, asking for one, the referee."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.widgets import Static

from infraxa.app.audit_values import MOST_REFEREES
from infraxa.app.tui.screens.audit import AskReferee, referee_lines
from infraxa.app.tui.screens.help import sections
from infraxa.app.tui.widgets.driver import find_driver
from infraxa.app.tui.widgets.driver_card import lines_of
from infraxa.app.tui.widgets.facts import facts_lines, facts_rows
from infraxa.app.tui.widgets.verdicts import can_audit, verdict_lines, verdict_style, verdict_text, worst
from infraxa.store.records import AnswerFacts, Message, Verdict
from tests.app.audited import (
    CAUGHT,
    COMMITTING,
    JUDGED,
    NONE,
    OF_TWO_AUDITED,
    PASSED,
    PROOF,
    PROVEN,
    REFEREE,
    RUNNING,
    SILENT,
    UNVERIFIED,
    VERDICT,
    AuditedNode,
    audited,
    seen,
)
from tests.app.priced import LOCKED, PRICED, SIGNED
from tests.app.shell import SETTINGS, shell
from tests.app.still import NOW
from tests.app.test_chat_driver import MAPLE_ID, M, words
from tests.app.test_chat_price import Priced


class Audited(Priced):
    """The app on a node that is asked for audits."""

    @property
    def auditing(self) -> AuditedNode:
        node = self.app.node
        assert isinstance(node, AuditedNode)
        return node

    async def asked(self) -> AskReferee:
        await self.until(lambda: isinstance(self.app.screen, AskReferee), "the question")
        screen = self.app.screen
        assert isinstance(screen, AskReferee)
        return screen


@contextlib.asynccontextmanager
async def on(path: Path, size: tuple[int, int] = (200, 40)) -> AsyncIterator[Audited]:
    clock = lambda: NOW / 1000  # noqa: E731
    async with shell(path, size=size, node=AuditedNode, settings=SETTINGS, clock=clock) as it:
        mine = Audited(it.app, it.pilot)
        await mine.until(lambda: mine.app.opened and mine.chat.settled, "the store")
        yield mine


# In words.


@pytest.mark.parametrize(
    ("verdict", "text", "style"),
    [
        (VERDICT, "", "$foreground 60%"),
        (PASSED, "audit passed", "$text-success"),
        (RUNNING, "audit running…", "$foreground 60%"),
        (CAUGHT, "✗ caught lying: wrong token", "$text-error"),
        (JUDGED, "✗ failed an audit: another model", "$text-error"),
        (SILENT, "undetermined: the driver did not show its steps", "$text-warning"),
        (
            replace(SILENT, why="no_calibration"),
            "undetermined: its model is measured first",
            "$foreground 60%",
        ),
        (UNVERIFIED, "unverified: its sampling cannot be checked", "$foreground 60%"),
        (replace(UNVERIFIED, why="some_new_reason"), "unverified: some new reason", "$foreground 60%"),
        (replace(SILENT, why="\x1b[2J[b]"), "undetermined: [2J[b]", "$text-warning"),
    ],
)
def test_a_verdict_in_the_line_of_facts(verdict: Verdict, text: str, style: str) -> None:
    facts = audited(verdict)
    assert verdict_text(facts) == text and verdict_style(facts) == style
    assert all((text in line) is bool(text) for line in facts_lines(facts)[:-1])


def test_what_no_driver_gave_has_no_verdict() -> None:
    for facts in (SIGNED, AnswerFacts()):
        assert verdict_text(facts) == "" and worst(facts) is None and verdict_lines(facts) == []
    assert verdict_lines(None) == []


def test_an_answer_of_two_drivers_is_as_good_as_its_worse_part() -> None:
    assert verdict_text(OF_TWO_AUDITED) == "✗ failed an audit: another model"
    assert verdict_text(audited(PASSED, VERDICT)) == ""
    assert verdict_text(audited(PASSED, RUNNING)) == "audit running…"
    first, second = [line.plain for line in verdict_lines(OF_TWO_AUDITED)]
    assert first.startswith(f"{M} · order ab12cd34 · 16 of 413 steps shown · 0.92 × honest noise")
    assert "checked by this machine · audit passed" in first
    assert "order ef56ef56" in second and "not those of the model that was sold" in second
    assert "receipts proof" not in second
    (caught,) = [line.plain for line in verdict_lines(audited(CAUGHT))]
    assert caught.endswith("Its charge is taken back. infraxa receipts proof ab12cd34 writes the proof.")
    free = audited(CAUGHT)
    free = replace(free, bills=(replace(free.bills[0], charge=0),))
    assert "taken back" not in verdict_lines(free)[0].plain


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 300])
@pytest.mark.parametrize("verdict", [PASSED, RUNNING, CAUGHT, SILENT, UNVERIFIED], ids=lambda one: one.state)
def test_the_verdict_is_said_at_every_width(verdict: Verdict, width: int) -> None:
    facts = audited(verdict)
    said = [fact for row in facts_rows(facts, width) for fact in row]
    assert verdict_text(facts) in said and "signed ✓" in said and said[-1] == f"readable by {M} only"


def test_why_in_full() -> None:
    def said(verdict: Verdict) -> str:
        return verdict_lines(audited(verdict))[0].plain

    here = "cannot be measured here"
    assert here in said(replace(SILENT, why="no_noise", by="own"))
    by_referee = said(replace(SILENT, why="no_noise", by="referee"))
    assert here not in by_referee and "Neither this machine nor the referee knows yet" in by_referee
    assert "is being measured here" in said(replace(SILENT, why="no_calibration"))
    assert "Its steps were checked; its numbers were not" in said(replace(VERDICT, why="no_file"))
    assert "Within an hour of the answer, and while infraxa stays open" in said(VERDICT)
    assert "Within an hour" not in said(replace(VERDICT, why="no_file")) + said(PASSED)


def test_what_can_be_audited() -> None:
    answer = Message("a", "c", None, "assistant", "Yes.", "complete", 0, audited(VERDICT))
    assert can_audit(answer) and can_audit(replace(answer, facts=audited(SILENT)))
    of_two = [audited(PASSED, other) for other in (VERDICT, SILENT)] + [audited(UNVERIFIED, VERDICT)]
    assert all(can_audit(replace(answer, facts=facts)) for facts in of_two), "a part of it"
    assert can_audit(replace(answer, facts=audited(CAUGHT, VERDICT)))
    assert not can_audit(replace(answer, facts=audited(RUNNING, VERDICT)))
    for facts in (None, SIGNED, audited(PASSED), audited(CAUGHT), audited(UNVERIFIED), audited(RUNNING)):
        assert not can_audit(replace(answer, facts=facts))
    assert not can_audit(replace(answer, state="streaming"))
    assert not can_audit(replace(answer, role="user"))


def test_the_question_says_who_would_see_what_and_what_it_costs() -> None:
    text = " ".join(referee_lines(REFEREE, M))
    for part in (REFEREE.reason, "One of 5 other providers", "by chance", f"{MOST_REFEREES} at most",
                 "Each would read this chat up to the answer", "as plain text", "could keep", M,
                 "unless you agree", "0.00012 credits at most"):  # fmt: skip
        assert part in text
    assert "another one is asked: 2 at most" in " ".join(referee_lines(replace(REFEREE, referees=2), M))
    free = " ".join(referee_lines(replace(REFEREE, referees=1, most=0), M))
    assert "Another provider" in free and "costs nothing" in free and "chance" not in free


def test_the_card_says_how_far_a_driver_is_verified() -> None:
    offer = next(offer for offer in COMMITTING if offer.model.modes)
    maple = find_driver(MAPLE_ID, offer.model.model_id.hex(), COMMITTING, {})
    assert maple.offer is not None
    assert "verified offered" in words(lines_of(maple, None))
    known = replace(maple, offer=replace(maple.offer, audited=seen(12)))
    card = words(lines_of(known, audited(PASSED)))
    assert "verified 12 ✓" in card and "signed ✓ audit passed" in card
    caught = words(
        lines_of(replace(maple, offer=replace(maple.offer, caught=PROVEN, proof=PROOF)), audited(CAUGHT))
    )
    assert f"{M} ✗ {PROVEN} ● online" in caught and "✗ caught lying: wrong token" in caught


def test_a_card_of_a_driver_that_was_caught_says_a_price_once() -> None:
    found = find_driver(MAPLE_ID, None, PRICED, {})
    assert found.offer is not None
    offer = replace(found.offer, caught=PROVEN)
    maple = replace(found, offer=offer)
    same = replace(LOCKED, price_in=offer.price_in, price_out=offer.price_out + 1)  # too little to be seen
    said = words(lines_of(maple, None, "", same))
    assert "price" in said and "quoted" not in said and "you owe" in said
    assert "quoted" in words(lines_of(maple, None, "", replace(same, price_out=2 * offer.price_out)))


def test_the_help_has_the_key_and_the_command() -> None:
    text = str(sections())
    assert "audit the answer of a driver" in text and "/audit" in text and "within an hour" in text


# On the screen.


async def test_the_verdict_comes_in_place_and_in_full_under_the_focused_answer(tmp_path: Path) -> None:
    async with on(tmp_path) as it:
        answer = await it.answered(audited(VERDICT))
        await it.says("signed ✓ · readable by")
        assert "audit passed" not in " ".join(it.lines)
        it.auditing.know(answer, audited(RUNNING))
        await it.says("signed ✓ · audit running… · readable by")
        it.auditing.know(answer, audited(PASSED))
        await it.says("signed ✓ · audit passed · readable by")
        assert "audit passed" in it.card and not it.chat.situation().auditable
        it.view.focus()
        await it.says("16 of 413 steps shown · 0.92 × honest noise · checked by this machine · audit passed")


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_a_caught_cheater_is_said_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with on(tmp_path, size) as it:
        answer = await it.answered(audited(VERDICT))
        it.auditing.know(answer, audited(CAUGHT))
        await it.says("✗ caught lying: wrong token")
        it.view.focus()
        await it.says("infraxa receipts proof ab12cd34 writes the proof.")


async def test_this_machine_audits_at_once_by_key_mouse_command_and_palette(tmp_path: Path) -> None:
    async with on(tmp_path) as it:
        answer = await it.answered(audited(VERDICT))
        await it.until(lambda: it.chat.situation().auditable, "the action")

        async def by_mouse() -> None:
            x, y = await it.place("audit")
            await it.pilot.click(offset=(x + 1, y))

        async def by_key() -> None:
            it.view.focus()
            await it.pilot.press("v")

        async def by_command() -> None:
            it.chat.prompt.focus()
            await it.type("/audit", "enter")

        async def by_palette() -> None:
            await it.app.action_perform("answer.audit")

        for count, way in enumerate((by_mouse, by_key, by_command, by_palette), 1):
            await way()
            await it.until(lambda: len(it.auditing.audited) == count, way.__name__)  # noqa: B023
        assert it.auditing.audited == [(answer.id, False)] * 4
        await it.shows("nothing of the chat is sent")
        assert it.app.screen is it.chat


async def test_a_referee_sees_the_chat_only_when_the_person_agreed(tmp_path: Path) -> None:
    async with on(tmp_path, (80, 24)) as it:
        it.auditing.plan = REFEREE
        answer = await it.answered(audited(VERDICT))
        it.view.focus()

        async def open_question() -> None:
            await it.pilot.press("v")
            screen = await it.asked()
            assert screen.focused is screen.query_one("#no")

        await open_question()
        said = "\n\n".join(str(one.render()) for one in it.app.screen.query(".said").results(Static))
        assert said == "\n\n".join(referee_lines(REFEREE, M))
        await it.until(lambda: "cost 0.00012 credits at most." in it.screen_text(), "all of it in sight")
        await it.until(lambda: "Show it and audit" in it.screen_text(), "the buttons")
        for refused in ("enter", "escape", "n", ""):
            if refused:
                await it.pilot.press(refused)
            else:
                await it.pilot.click("#no")
            await it.until(lambda: it.app.screen is it.chat, "the chat again")
            await it.pilot.pause(0.1)
            assert it.auditing.audited == []
            await open_question()
        await it.pilot.press("left", "enter")
        await it.until(lambda: it.auditing.audited == [(answer.id, True)], "the audit by key")
        await it.shows("a referee was asked")
        await open_question()
        await it.pilot.click("#yes")
        await it.until(lambda: it.auditing.audited == [(answer.id, True)] * 2, "the audit by mouse")


async def test_why_it_cannot_be_audited_is_said_with_the_remedy(tmp_path: Path) -> None:
    async with on(tmp_path) as it:
        it.auditing.plan = NONE
        await it.answered(audited(VERDICT))
        await it.app.action_perform("answer.audit")
        await it.until(lambda: bool(it.toasts), "the reason")
        assert NONE.reason in it.toasts[0] and NONE.remedy in it.toasts[0] and it.auditing.audited == []


async def test_what_cannot_be_audited_offers_nothing(tmp_path: Path) -> None:
    async with on(tmp_path) as it:
        await it.answered(audited(UNVERIFIED))
        it.view.focus()
        await it.says("its sampling cannot be checked")
        await it.says("An own seed, penalties, formats and forced calls of tools")
        await it.pilot.press("v")
        await it.pilot.pause(0.1)
        assert it.auditing.audited == [] and not it.chat.situation().auditable
        assert "audit" not in it.view.applicable()
