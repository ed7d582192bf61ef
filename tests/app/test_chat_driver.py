"""The driver of a chat as a person meets it: who gets what is typed, what is waited for, going on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from textual.content import Content
from textual.widgets import Input, Select

from infraxa.app.offers import OfferSeen
from infraxa.app.tui.screens.chat_options import ChatOptionsScreen
from infraxa.app.tui.screens.pick_driver import GoElsewhere, PickDriver
from infraxa.app.tui.widgets.driver import Driver, find_driver, named, names_in, where_to
from infraxa.app.tui.widgets.driver_card import lines_of
from infraxa.app.tui.widgets.facts import can_move, ending, facts_lines, who_answered
from infraxa.app.tui.widgets.message import AnswerView
from infraxa.app.tui.widgets.model_card import ModelCard
from infraxa.net.identity import display, id_text
from infraxa.net.status import NetworkStatus
from infraxa.store.records import AnswerFacts, ChatOptions, DriverPart, Message, MessageState
from tests.app.offered import (
    CEDAR,
    ELM,
    GEMMA,
    HOSTILE,
    MAPLE,
    MEASURED,
    OFFERS,
    QWEN,
    OfferedNode,
    moved_facts,
    part,
    reader,
)
from tests.app.shell import SETTINGS, Shell, shell
from tests.app.still import NOW

M, C, E = (display(node.name, node.id) for node in (MAPLE, CEDAR, ELM))
MAPLE_ID = id_text(MAPLE.id)


def replaced(offer: OfferSeen, **of_node: object) -> OfferSeen:
    return msgspec.structs.replace(offer, node=msgspec.structs.replace(offer.node, **of_node))


def words(contents: list[Content]) -> str:
    return " ".join(" ".join(line.plain for line in contents).split())


class Played(Shell):
    """The app on a node whose drivers do what the test says."""

    @property
    def drivers(self) -> OfferedNode:
        node = self.app.node
        assert isinstance(node, OfferedNode)
        return node

    async def choose(self, *, model: str | None = QWEN.model_id.hex()) -> None:
        await self.chat.use_driver(MAPLE_ID, model, M)
        await self.until(lambda: self.chat.driver.offer is not None, "the look at the offers")

    async def say(self, text: str) -> Message:
        """The answer to it, which has begun."""
        await self.type(text, "enter")
        await self.until(lambda: self.said(text) and bool(self.chat.running), "the answer to begin")
        await self.until(
            lambda: self.view.is_mounted and self.view.message.id == self.turns[-1].id, "it shown"
        )
        return self.turns[-1]

    @property
    def view(self) -> AnswerView:
        view = self.chat.conversation.views[-1]
        assert isinstance(view, AnswerView)
        return view

    @property
    def lines(self) -> list[str]:
        """What the newest answer shows."""
        view = self.view
        return [view.render_line(y).text.rstrip() for y in range(view.content_size.height)]

    async def place(self, text: str) -> tuple[int, int]:
        """Column and row of the screen at which it begins, once nothing above it is laid out any more."""
        places: list[tuple[int, int]] = []

        def still() -> bool:
            lines = self.screen_text().split("\n")
            places.extend((line.index(text), y) for y, line in enumerate(lines) if text in line)
            return len(places) > 1 and places[-1] == places[-2]

        await self.until(still, f"{text!r} to stand still")
        return places[-1]

    async def shows(self, text: str) -> None:
        """Wait for it on the screen, wherever its lines are broken within a column."""
        await self.until(lambda: text in self.screen_text() or text in self.card, text)

    async def says(self, text: str) -> None:
        """Wait for it in the newest answer."""
        await self.until(lambda: text in " ".join(" ".join(self.lines).split()), text)

    @property
    def card(self) -> str:
        """What the card at the right says."""
        return " ".join(self.chat.query_one(ModelCard).render().plain.split())


@contextlib.asynccontextmanager
async def played(
    path: Path, size: tuple[int, int] = (120, 36), driver: str = "local"
) -> AsyncIterator[Played]:
    settings = msgspec.structs.replace(SETTINGS, driver=driver)
    async with shell(path, size=size, node=OfferedNode, settings=settings, clock=lambda: NOW / 1000) as it:
        mine = Played(it.app, it.pilot)
        await mine.until(lambda: mine.app.opened and mine.chat.settled, "the store")
        yield mine


# What is known of a driver, in words.


def test_a_driver_is_found_by_its_id_and_its_model() -> None:
    assert find_driver("local", None, None, {}) == Driver()
    assert find_driver("auto", None, None, {}).kind == "auto"
    gemma = find_driver(MAPLE_ID, GEMMA.model_id.hex(), OFFERS, {})
    assert gemma.name == M and gemma.offer is not None and gemma.offer.model == GEMMA
    assert find_driver(MAPLE_ID, None, OFFERS, {}).offer == OFFERS[1]
    assert find_driver(MAPLE_ID[:12], None, OFFERS, {}).name == M == find_driver(M, None, OFFERS, {}).name
    gone = find_driver(MAPLE_ID, QWEN.model_id.hex(), [], {MAPLE_ID: "maple"})
    assert gone.name == M and gone.offer is None


def test_names_are_those_under_which_nodes_answered() -> None:
    answer = Message("a", "c", None, "assistant", "Yes.", "complete", 0, moved_facts(2))
    assert names_in([answer]) == {MAPLE_ID: "maple", id_text(CEDAR.id): "cedar"}
    assert named("[b]x\x1b[31m", MAPLE_ID).endswith(f"·{MAPLE_ID[:8]}") and "\x1b" not in named(
        "\x1b", MAPLE_ID
    )
    assert named("", MAPLE_ID) == MAPLE_ID[:8]


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (Driver(), "stays on this machine"),
        (find_driver("auto", None, OFFERS, {}), "→ goes to whoever infraxa chooses"),
        (find_driver(MAPLE_ID, None, OFFERS, {}), f"→ goes to {M} only · free · Qwen3 8B"),
        (find_driver(id_text(ELM.id), None, OFFERS, {}), f"→ goes to {E} only · free · busy · Gemma 3 12B"),
        (find_driver(MAPLE_ID, None, None, {MAPLE_ID: "maple"}), f"→ goes to {M} only · not seen yet"),
        (
            find_driver(MAPLE_ID, None, [], {MAPLE_ID: "maple"}),
            f"! {M} is not there, or does not offer this model now · alt+d picks another",
        ),
        (
            find_driver(MAPLE_ID, None, [replaced(OFFERS[1], status="offline", age_s=190.0)], {}),
            f"! {M} has been offline for 3 min · alt+d picks another",
        ),
        (
            find_driver(MAPLE_ID, None, OFFERS, {}, online=False),
            f"! {M} cannot be reached: infraxa is offline · F9 turns online on, alt+d picks this machine",
        ),
        (
            find_driver("auto", None, OFFERS, {}, online=False),
            "! infraxa cannot choose: it is offline · F9 turns online on, alt+d picks this machine",
        ),
    ],
)
def test_before_enter_it_is_said_where_the_prompt_goes(driver: Driver, said: str) -> None:
    assert where_to(driver).plain == said


def test_a_price_that_infraxa_cannot_say_is_never_said_to_be_none() -> None:
    priced = msgspec.structs.replace(OFFERS[1], price_out=200_000)
    assert "free" not in where_to(find_driver(MAPLE_ID, None, [priced], {})).plain


def test_the_card_says_what_was_measured_and_what_is_claimed() -> None:
    known = words(lines_of(find_driver(MAPLE_ID, None, OFFERS, {}), None))
    for fact in (
        M, "● online · now", "model Qwen3 8B", "file Q4_K_M · qwen3", "context 32\u202f768", "price free",
        "reached directly", "round trip 23 ms", "slots 1 of 2 busy", "answered 98 % of 41",
        "speed 33.8 tok/s", "first token 0.21 s",
        f"what you send now, and this chat with it, can be read by {M} only",
    ):  # fmt: skip
        assert " ".join(fact.split()) in known
    new = words(lines_of(find_driver(id_text(CEDAR.id), None, OFFERS, {}), None))
    assert "answered none yet" in new and "claims 30.0 tok/s" in new and "speed" not in new
    used = words(lines_of(find_driver(MAPLE_ID, None, OFFERS, {}), MEASURED))
    assert "context 924 of" in used
    assert "924" not in words(lines_of(find_driver(id_text(CEDAR.id), None, OFFERS, {}), MEASURED))
    impostor = words(lines_of(find_driver(id_text(HOSTILE.id), None, OFFERS, {}), None))
    assert "Another node had this name first" in impostor and "\x1b" not in impostor
    chosen = words(lines_of(find_driver("auto", None, OFFERS, {}), None))
    assert "can be read by whoever it chooses" in chosen


def test_an_answer_says_who_gave_it_and_names_all_who_could_read() -> None:
    assert who_answered(MEASURED) == f"{M} · Qwen3 8B"
    assert who_answered(moved_facts(9)) == f"{M} · Qwen3 8B, then {C} · Qwen3 8B"
    assert who_answered(AnswerFacts(model="guide")) == "built-in guide (tiny)"
    assert who_answered(AnswerFacts()) == ""
    here = AnswerFacts(model="guide", drivers=(part(MAPLE), DriverPart(model="guide", at=4)))
    assert who_answered(here) == f"{M} · Qwen3 8B, then this machine · built-in guide (tiny)"
    first = facts_lines(moved_facts(9))[0]
    assert first[:3] == ["connected in 0.41 s", "1.90 s in line", "0.21 s to first token"]
    for line in facts_lines(moved_facts(9)):
        assert line[-1] == f"readable by {M}, {C} only"
    blamed = msgspec.structs.replace(MEASURED, blame="relay")
    failed_by = Message("a", "c", None, "assistant", "", "failed", 0, blamed)
    assert ending(failed_by) == "the relay in between failed"
    assert ending(msgspec.structs.replace(failed_by, state="complete")) == ""
    assert facts_lines(AnswerFacts(readers=(reader(MAPLE),)))[0] == [f"readable by {M} only"]


@pytest.mark.parametrize(
    ("state", "facts", "moves"),
    [
        ("failed", MEASURED, True),
        ("failed", AnswerFacts(readers=(reader(MAPLE),)), True),
        ("failed", AnswerFacts(error_code="no_driver"), True),
        ("failed", AnswerFacts(blame="own"), True),
        ("failed", AnswerFacts(model="guide", error_code="worker_gone"), False),
        ("stopped", MEASURED, False),
        ("complete", MEASURED, False),
        ("failed", None, False),
    ],
)
def test_going_on_elsewhere_is_offered_where_a_driver_failed(
    state: MessageState, facts: AnswerFacts | None, moves: bool
) -> None:
    assert can_move(Message("a", "c", None, "assistant", "", state, 0, facts)) is moves


# Choosing it.


async def test_the_driver_is_chosen_seen_before_enter_and_kept_with_the_chat(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        assert "stays on this machine" not in it.screen_text()  # the card says it
        await it.shows("readable by this machine only")
        await it.app.action_perform("app.market")
        await it.until(lambda: it.app.screen is not it.chat, "the market")
        await it.choose()
        assert it.app.screen is it.chat and it.app.focused is it.chat.prompt.area
        await it.shows(f"→ goes to {M} only · free · Qwen3 8B")
        await it.shows(f"{M} answers from now on")
        assert it.card.endswith(f"what you send now, and this chat with it, can be read by {M} only")
        assert "Nothing you write leaves it" not in it.screen_text()
        await it.say("Hello")
        chat = it.chat.chat
        assert chat is not None
        assert chat.options == ChatOptions(driver=MAPLE_ID, driver_model=QWEN.model_id.hex())
        await it.pilot.press("ctrl+n")
        await it.shows("readable by this machine only")
        await it.chat.open_chat(chat.id)
        await it.shows(f"→ goes to {M} only")


async def test_a_small_terminal_says_it_too(tmp_path: Path) -> None:
    async with played(tmp_path, (80, 24)) as it:
        await it.shows("stays on this machine")
        await it.choose()
        await it.shows(f"→ goes to {M} only")
        await it.pilot.resize_terminal(60, 12)
        await it.until(lambda: f"→ goes to {M} only" in it.screen_text(), "the line in a low terminal")


async def test_what_is_typed_for_a_driver_is_kept_for_it(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        await it.type("a secret")
        await it.chat.keep_draft()
        (kept,) = await it.drivers.list_chats()
        assert (await it.drivers.get_chat(kept.id)).options.driver == MAPLE_ID


async def test_another_terminal_chooses_another_driver_and_this_one_says_so(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.say("Hello")
        assert it.chat.chat is not None
        await it.drivers.set_chat_options(it.chat.chat.id, ChatOptions(driver=MAPLE_ID))
        await it.shows(f"→ goes to {M} only")


async def test_the_default_driver_is_that_of_the_settings(tmp_path: Path) -> None:
    async with played(tmp_path, driver="auto") as it:
        await it.shows("→ goes to whoever infraxa chooses")
        await it.drivers.change_setting("driver", "local")
        await it.until(lambda: it.chat.driver.kind == "local", "the setting")


async def test_where_infraxa_chooses_it_is_said_whom_it_chose(tmp_path: Path) -> None:
    async with played(tmp_path, driver="auto") as it:
        assert f"auto · {M}" not in it.screen_text() and "chosen" not in it.card
        answer = await it.say("Hello")
        it.drivers.move(answer, part(MAPLE))
        it.drivers.grow(answer, "Hello there.")
        await it.until(lambda: f"● auto · {M}  answering" in it.screen_text(), "the bar")
        assert f"infraxa chooses for each answer, by model, health and load chosen {M}" in it.card
        at = len("Hello there.")
        it.drivers.move(answer, part(CEDAR, at=at))
        it.drivers.grow(answer, " How are you?")
        await it.until(lambda: f"● auto · {C}  answering" in it.screen_text(), "the one that went on")
        await it.drivers.end(answer, "complete", moved_facts(at))
        await it.until(lambda: not it.chat.running, "the end")
        await it.until(lambda: f"● auto · {C}  ready" in it.screen_text(), "the bar after it")
        assert f"chosen {C}" in it.card


async def test_it_is_watched_while_the_chat_is_shown(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        await it.until(lambda: it.drivers.watched == (MAPLE.id,), "the driver watched")
        await it.pilot.press("alt+n")
        await it.until(lambda: it.drivers.watched == (), "nobody watched from another view")
        await it.pilot.press("alt+c")
        await it.until(lambda: it.drivers.watched == (MAPLE.id,), "the driver watched again")
        gone = [replaced(offer, status="offline", age_s=190.0) for offer in OFFERS]
        it.drivers.become_market(gone)
        await it.shows(f"! {M} has been offline for 3 min")
        await it.chat.use_driver("local", None, "this machine")
        await it.until(lambda: it.drivers.watched == (), "nobody watched for a local chat")


async def test_nothing_is_asked_of_the_network_for_a_local_chat(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        asked: list[str] = []

        async def list_offers() -> list[OfferSeen]:
            asked.append("offers")
            return []

        it.drivers.list_offers = list_offers  # type: ignore[method-assign] # counted here
        it.drivers.become_market(OFFERS)
        await it.say("Hello")
        it.drivers.become_market(OFFERS)
        await it.pilot.pause(0.1)
        assert asked == [] and it.chat._looking is None and it.chat._ageing is None


async def test_it_is_picked_from_a_list_by_typing(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.type("/driver", "enter")
        await it.until(lambda: isinstance(it.app.screen, PickDriver), "the list")
        await it.shows(C)
        for name in ("this machine", "whoever infraxa chooses", M, C, E, "[b]slate[/b]"):
            assert name in it.screen_text()
        await it.type("qwen cedar")
        await it.until(lambda: M not in it.screen_text(), "the filter")
        await it.pilot.press("enter")
        await it.until(lambda: it.chat.driver.name == C, "the driver")
        await it.pilot.press("alt+d")
        await it.until(lambda: isinstance(it.app.screen, PickDriver), "the list again")
        await it.shows(f"● {C}")
        await it.type("nobody like this")
        await it.shows("nobody fits")
        await it.pilot.press("enter", "escape")
        assert it.chat.driver.name == C


async def test_who_cannot_answer_is_not_picked(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        it.drivers.become_market([msgspec.structs.replace(OFFERS[3], problem="It is offline.")])
        await it.pilot.press("alt+d")
        await it.shows("It is offline.")
        await it.type("cedar", "enter")
        await it.until(lambda: any("It is offline." in toast for toast in it.toasts), "why not")
        assert isinstance(it.app.screen, PickDriver) and it.chat.driver.kind == "local"


async def test_the_options_hold_the_driver_and_lose_nothing_else(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        await it.say("Hello")
        await it.pilot.press("ctrl+t")
        await it.until(lambda: isinstance(it.app.screen, ChatOptionsScreen), "the options")
        it.app.screen.query_one("#top_k", Input).value = "7"
        await it.until(lambda: C in str(it.app.screen.query_one("#driver", Select)._options), "the providers")
        await it.pilot.press("ctrl+s")
        assert it.chat.chat is not None
        await it.until(
            lambda: it.chat.chat is not None and it.chat.chat.options.top_k == 7, "the options kept"
        )
        assert it.chat.chat.options.driver == MAPLE_ID
        assert it.chat.chat.options.driver_model == QWEN.model_id.hex()


# While it answers.


def seconds_said(lines: list[str]) -> int:
    """How long it is said to have been waited."""
    found = re.search(r"· (\d+) s of", " ".join(lines))
    assert found is not None
    return int(found.group(1))


async def test_what_is_waited_for_is_said_with_seconds_and_limit(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        answer = await it.say("Hello")
        it.drivers.wait(answer, f"the connection with {M}", 3.0, 15.0)
        await it.says(f"waiting for the connection with {M} · ")
        assert seconds_said(it.lines) >= 3 and " s of 15 s" in " ".join(it.lines)

        def bar() -> str:
            return it.screen_text().splitlines()[-1]

        # The status bar says the same, with the same bound.
        await it.until(lambda: f"◌ waiting for the connection with {M} · " in bar(), "the bar")
        assert " s of 15 s" in bar()
        it.drivers.wait(answer, "a place at maple, 2 before you", 12.0, 180.0)
        await it.says("waiting for a place at maple, 2 before you · ")
        assert seconds_said(it.lines) >= 12 and " s of 180 s" in " ".join(it.lines)
        it.drivers.move(answer, part(MAPLE))
        it.drivers.read(answer, 1200, 4000)
        await it.says(f"{M} reads the prompt 1200/4000")
        it.drivers.grow(answer, "Hello")
        await it.until(lambda: "answering" in it.lines[-1], "the answer")
        it.drivers.wait(answer, "more from maple", 20.0, 60.0)
        await it.says("waiting for more from maple · ")
        assert seconds_said(it.lines) >= 20 and " s of 60 s" in " ".join(it.lines)
        it.drivers.grow(answer, " there")
        await it.until(lambda: "answering" in it.lines[-1] and "Hello there" in it.lines, "more of it")
        assert it.lines[0] == f"{M} · Qwen3 8B"


async def test_a_running_answer_says_the_same_when_its_chat_is_opened_again(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        answer = await it.say("Hello")
        it.drivers.move(answer, part(MAPLE))
        it.drivers.grow(answer, "One two ")
        it.drivers.move(answer, part(CEDAR, at=8), "maple fell silent in mid-answer.")
        await it.pilot.press("ctrl+n")
        await it.until(lambda: it.chat.chat is None, "an empty conversation")
        it.drivers.grow(answer, "and ")  # nobody looks
        it.drivers.wait(answer, "cedar to answer", 4.0, 15.0)
        await it.chat.open_chat(answer.chat_id)
        await it.says("waiting for cedar to answer · ")
        assert seconds_said(it.lines) >= 4
        it.drivers.grow(answer, "three.")
        await it.says(f"One two ↪ {C} goes on and three. …")


async def test_where_another_goes_on_is_marked_live_at_the_end_and_after_a_reload(tmp_path: Path) -> None:
    text = "See:\n\n```py\nx = 1\ny = 2\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n"
    at = text.index(" = 2")
    async with played(tmp_path, (120, 60)) as it:
        await it.choose()
        answer = await it.say("Hello")
        it.drivers.move(answer, part(MAPLE))
        for start in range(0, at, 7):
            it.drivers.grow(answer, text[start : min(start + 7, at)])
        it.drivers.move(answer, part(CEDAR, at=at), "maple fell silent in mid-answer.")
        it.drivers.grow(answer, text[at:])
        mark = f" ↪ {C} goes on"

        def marked() -> bool:
            lines = it.lines
            return mark in lines and lines[lines.index(mark) - 1] == " y" and "  = 2" in lines

        await it.until(marked, "the mark while it runs")
        live = it.lines[1:-1]
        await it.drivers.end(answer, "complete", moved_facts(at))
        await it.until(lambda: not it.chat.running, "the end")
        await it.until(marked, "the mark at the end")
        assert it.lines[1 : 1 + len(live)] == live
        assert it.view.codes == ["x = 1\ny = 2"] and it.view.source == text == it.turns[-1].content
        await it.says(f"↪ {C} went on: maple fell silent in mid-answer.")
        await it.pilot.press("ctrl+n")
        await it.until(lambda: it.chat.chat is None, "an empty conversation")
        await it.chat.open_chat(answer.chat_id)
        await it.until(marked, "the mark after it was read again")
        assert it.lines[1 : 1 + len(live)] == live


async def test_the_end_of_an_answer_lists_every_reader(tmp_path: Path) -> None:
    async with played(tmp_path, (200, 50)) as it:
        await it.choose()
        answer = await it.say("Hello")
        it.drivers.grow(answer, "Hello there.")
        await it.drivers.end(answer, "complete", moved_facts(5))
        await it.says(f"readable by {M}, {C} only")


# When it failed.

FAILED = msgspec.structs.replace(MEASURED, finish="failed", blame="peer", error_code="silent")
SILENT = "maple fell silent in mid-answer. Try again, or choose another driver."


async def failed(it: Played, text: str, facts: AnswerFacts = FAILED) -> Message:
    """An answer whose driver failed after this text."""
    await it.choose()
    answer = await it.say("Hello")
    it.drivers.grow(answer, text) if text else None
    await it.drivers.end(answer, "failed", facts, SILENT)
    await it.until(lambda: not it.chat.running and "failed" in it.screen_text(), "the failure")
    return answer


@pytest.mark.parametrize("by", ["f5", "c", "click"])
async def test_another_driver_goes_on_when_one_failed(tmp_path: Path, by: str) -> None:
    async with played(tmp_path, (100, 40)) as it:
        answer = await failed(it, "One two ")
        for said in (SILENT, "the driver failed", "continue elsewhere"):
            await it.until(lambda: said in " ".join(it.screen_text().split()), said)  # noqa: B023 - run at once
        if by == "click":
            await it.pilot.click(offset=await it.place("continue elsewhere"))
        else:
            if by == "c":
                it.view.focus()
            await it.pilot.press(by)
        await it.until(lambda: isinstance(it.app.screen, GoElsewhere), "the question")
        await it.shows(C)
        text = it.screen_text()
        assert "The whole conversation and the text so far are sent" in " ".join(text.split())
        names = [M, "whoever infraxa chooses", "this machine", C, E, "slate"]
        places = [text.index(name, text.index("Continue elsewhere")) for name in names]
        assert places == sorted(places)
        await it.type("cedar", "enter")
        await it.until(lambda: bool(it.drivers.moved), "the choice")
        assert it.drivers.moved == [(answer.id, id_text(CEDAR.id), QWEN.model_id.hex())]


async def test_escape_leaves_a_failed_answer_as_it_is(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await failed(it, "One two ")
        await it.pilot.press("f5")
        await it.until(lambda: isinstance(it.app.screen, GoElsewhere), "the question")
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert it.drivers.moved == []


async def test_with_no_text_yet_it_is_sent_elsewhere_and_a_quick_enter_does_not_take_the_same(
    tmp_path: Path,
) -> None:
    async with played(tmp_path) as it:
        answer = await failed(it, "", AnswerFacts(blame="peer", error_code="unreachable"))
        assert "send elsewhere" in it.screen_text() and "continue elsewhere" not in it.screen_text()
        await it.pilot.press("f5")
        await it.until(lambda: isinstance(it.app.screen, GoElsewhere), "the question")
        await it.shows("Send elsewhere")
        await it.pilot.press("enter")
        await it.until(lambda: bool(it.drivers.moved), "the choice")
        assert it.drivers.moved == [(answer.id, "auto", None)]


async def test_the_same_driver_can_be_asked_again(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        answer = await failed(it, "One")
        await it.pilot.press("f5")
        await it.shows("the same again")
        await it.pilot.press("up", "enter")
        await it.until(lambda: bool(it.drivers.moved), "the choice")
        assert it.drivers.moved == [(answer.id, MAPLE_ID, QWEN.model_id.hex())]


async def test_a_conversation_too_long_for_a_driver_still_can_drop_its_oldest_turns(tmp_path: Path) -> None:
    async with played(tmp_path, (160, 40)) as it:
        await failed(it, "", msgspec.structs.replace(FAILED, error_code="prompt_too_long"))
        assert "drop the oldest turns and answer again" in it.screen_text()
        assert "send elsewhere" in it.screen_text()


async def test_without_a_network_it_is_said_before_enter(tmp_path: Path) -> None:
    async with played(tmp_path) as it:
        await it.choose()
        it.drivers.become(NetworkStatus())
        await it.shows("cannot be reached: infraxa is offline")
