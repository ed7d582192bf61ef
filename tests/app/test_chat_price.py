"""Money in the chat as a person meets it: the cost before Enter, the facts after it, the rating."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app.errors import NodeError
from infraxa.app.trade import Bound
from infraxa.app.tui.screens.dialogs import Ask
from infraxa.app.tui.screens.help import sections
from infraxa.app.tui.widgets import driver_card
from infraxa.app.tui.widgets.bills import bill_lines, can_rate, cost_text, stars_text, state_text, tokens_text
from infraxa.app.tui.widgets.bound_line import BoundLine, bound_words, seconds_left
from infraxa.app.tui.widgets.driver import find_driver
from infraxa.app.tui.widgets.driver_card import lines_of
from infraxa.app.tui.widgets.facts import facts_rows
from infraxa.store.records import AnswerFacts, Message
from tests.app.offered import MAPLE, MEASURED, QWEN, part
from tests.app.priced import (
    ASKING,
    BILL,
    CAPPED,
    DISPUTED,
    DUE,
    LOCKED,
    OF_TWO,
    PRICED,
    RAISED,
    SIGNED,
    PricedNode,
    with_bills,
)
from tests.app.shell import SETTINGS, shell
from tests.app.still import NOW
from tests.app.test_chat_driver import MAPLE_ID, C, M, Played, words

MOST = "at most 0.0004 cr"
FULL = f"{MOST} for 512 + 1\u202f872 tokens · 0.20/M locked 30 s · today 0.012 of 0.05 · tab 0.0012 of 0.005"


class Priced(Played):
    """The app on a node whose drivers ask for credits."""

    moment: list[float]
    """The time of day, in seconds."""

    @property
    def priced(self) -> PricedNode:
        node = self.app.node
        assert isinstance(node, PricedNode)
        return node

    @property
    def line(self) -> BoundLine:
        return self.chat.prompt.bound_line

    @property
    def above(self) -> str:
        """What the line above the prompt says."""
        return self.line.render().plain if self.line.display else ""

    async def hears(self, text: str) -> None:
        await self.until(lambda: text in self.above, f"“{text}” above the prompt")

    async def chosen(self) -> None:
        """Maple answers the shown chat, and something is typed."""
        await self.choose()
        await self.type("Hi")

    async def answered(self, facts: AnswerFacts) -> Message:
        await self.choose()
        await self.type("Hello", "enter")
        await self.until(lambda: bool(self.chat.running) and len(self.turns) > 1, "the answer to begin")
        await self.until(lambda: self.view.message.id == self.turns[-1].id, "it shown")
        answer = self.turns[-1]
        self.drivers.move(answer, part(MAPLE))
        self.drivers.grow(answer, "Hello there.")
        await self.drivers.end(answer, "complete", facts)
        await self.until(lambda: not self.chat.running, "the end")
        await self.says("readable by")
        return self.turns[-1]


@contextlib.asynccontextmanager
async def priced(path: Path, size: tuple[int, int] = (200, 40)) -> AsyncIterator[Priced]:
    moment = [NOW / 1000]
    async with shell(path, size=size, node=PricedNode, settings=SETTINGS, clock=lambda: moment[0]) as it:
        mine = Priced(it.app, it.pilot)
        mine.moment = moment
        await mine.until(lambda: mine.app.opened and mine.chat.settled, "the store")
        yield mine


# In words.


def test_a_bound_says_the_most_the_price_its_seconds_and_today() -> None:
    lines = [line.plain for line in bound_words(LOCKED, 30)]
    assert lines[0] == FULL
    assert f"{MOST} · 0.20/M locked 30 s · today 0.012 of 0.05" in lines
    assert sorted(map(len, lines), reverse=True) == [*map(len, lines)] and len(lines[-1]) < 14
    assert "locked" not in bound_words(LOCKED, 0)[0].plain
    assert all("0.0004 cr" in line for line in lines)
    raised = bound_words(RAISED, 7)[0]
    assert "0.24/M, was 0.20 locked 7 s" in raised.plain
    assert any("$text-warning" in str(span.style) for span in raised.spans)
    assert [seconds_left(LOCKED, NOW + ms) for ms in (0, 1, 29_001, 30_000, 99_000)] == [30, 30, 1, 0, 0]


def test_other_bounds_say_little_and_nothing_of_a_stranger_unescaped() -> None:
    assert bound_words(Bound("local"), 0) == []
    assert bound_words(Bound("free"), 0)[0].plain == "free: nothing is charged for it"
    assert bound_words(ASKING, 0)[0].plain == "asking maple for its price… · today 0.012 of 0.05"
    (refused,) = bound_words(CAPPED, 0)
    assert refused.plain == f"✕ {CAPPED.reason} {CAPPED.remedy}"
    hostile = bound_words(replace(ASKING, name="[b]m\x1b[2J\n"), 0)[0].plain
    assert "\x1b" not in hostile and "\n" not in hostile


def test_an_answer_says_its_cost_and_the_state_of_its_receipts() -> None:
    assert (cost_text(SIGNED), state_text(SIGNED)) == ("0.00008 cr", "signed ✓")
    assert tokens_text(SIGNED) == "412 tokens (counted here: 412)"
    assert (cost_text(OF_TWO), state_text(OF_TWO)) == ("0.000084 cr", "receipt due")
    assert tokens_text(OF_TWO) == "412 tokens"  # a part was not counted
    assert state_text(with_bills(BILL, DISPUTED, DUE)) == "disputed"
    assert state_text(with_bills(BILL, replace(BILL, state="unclaimed"))) == "unclaimed"
    assert state_text(with_bills(replace(BILL, state="released", charge=0))) == "nothing owed"
    assert cost_text(with_bills(replace(BILL, price_in=0, price_out=0, charge=0))) == "free"
    assert (cost_text(MEASURED), state_text(MEASURED), tokens_text(AnswerFacts())) == ("", "", "")
    first, second = [line.plain for line in bill_lines(OF_TWO)]
    for fact in (
        M, "order ab12cd34", "0.05 in, 0.20 out per 1M", "held 0.0004 cr", "prompt 512 (480 cached)",
        "200 tokens, counted here: 200", "0.00004 cr", "signed ✓",
    ):  # fmt: skip
        assert fact in first
    assert C in second and "not counted here" in second and second.endswith("receipt due")
    (disputed,) = bill_lines(with_bills(DISPUTED))
    assert disputed.plain.endswith("disputed: it wants 0.000003 cr more")
    assert [stars_text(stars) for stars in (0, 4, 4.6, 9)] == ["☆☆☆☆☆", "★★★★☆", "★★★★★", "★★★★★"]


@pytest.mark.parametrize("width", [20, 40, 50, 60, 80, 100, 140, 300])
def test_who_can_read_it_and_what_it_cost_is_said_at_every_width(width: int) -> None:
    rows = facts_rows(SIGNED, width)
    facts = [fact for row in rows for fact in row]
    assert facts[-1] == f"readable by {M} only"
    assert "0.00008 cr" in facts and "signed ✓" in facts
    assert len(rows) == (1 if width >= 60 else 2)
    assert facts_rows(MEASURED, width)[-1][-1] == f"readable by {M} only"


def test_what_can_be_rated() -> None:
    answer = Message("a", "c", None, "assistant", "Yes.", "complete", 0, SIGNED)
    assert can_rate(answer) and can_rate(replace(answer, facts=with_bills(DISPUTED)))
    for facts in (None, MEASURED, with_bills(DUE), with_bills(BILL, stars=3)):
        assert not can_rate(replace(answer, facts=facts))
    assert not can_rate(replace(answer, state="streaming"))


def test_the_card_says_prices_locked_ones_and_the_tab() -> None:
    maple = find_driver(MAPLE_ID, None, PRICED, {})
    card = words(lines_of(maple, SIGNED, "", RAISED))
    for fact in (
        "price 0.20/M out 0.05/M in", "quoted 0.24/M out 0.06/M in", "you owe 0.0012 of 0.005",
        "last answer 0.00008 cr signed ✓",
    ):  # fmt: skip
        assert fact in card
    other = words(lines_of(maple, None, "", replace(RAISED, driver="someone else")))
    assert "quoted" not in other and "you owe" not in other and "last answer" not in other
    lied = words(lines_of(maple, None, "", replace(LOCKED, owed=200, taken_back=1_000)))
    assert "you owe 0.0002 they count 0.0012 of 0.005" in lied
    settled = words(lines_of(maple, None, "", replace(LOCKED, owed=-1_000, taken_back=1_000)))
    assert "they owe 0.001 they count 0.00 of 0.005" in settled
    auto = words(lines_of(find_driver("auto", None, PRICED, {}), None, "", LOCKED))
    assert f"would ask {M}" in auto and "quoted 0.20/M out" in auto


def test_the_help_has_the_keys() -> None:
    text = str(sections())
    assert "1 – 5" in text and "max_price" in text and "/rate" in text


# Before Enter.


async def test_the_cost_is_said_before_enter_and_gone_with_the_driver(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        await it.type("Hello")
        await it.pilot.pause(0.4)
        assert it.priced.asked == [] and it.above == ""  # this machine answers
        await it.choose()
        await it.hears(MOST)
        assert it.priced.asked[-1] == "Hello"
        assert "0.20/M" in it.above and "locked 30 s" in it.above and "today 0.012 of 0.05" in it.above
        assert "→ goes to" in it.screen_text() and "0.20/M · Qwen3 8B" in it.screen_text()
        assert "you owe 0.0012 of 0.005" in it.card
        await it.shows("ready · today 0.012 cr")
        asked = len(it.priced.asked)
        for character in " there":
            it.chat.prompt.area.insert(character)
        await it.until(lambda: it.priced.asked[-1] == "Hello there", "the price of what is typed")
        assert len(it.priced.asked) - asked <= 2  # not one for each key
        await it.chat.use_driver("local", None, "this machine")
        await it.until(lambda: it.above == "" and it.chat.bound is None, "no line for this machine")
        assert it.line._timer is None


async def test_a_conversation_is_kept_for_its_price_only_when_something_is_typed(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        await it.choose()
        await it.pilot.pause(0.4)
        assert it.chat.chat is None and it.priced.asked == []
        await it.type("/mark")  # a command is no message
        await it.pilot.pause(0.5)
        assert it.chat.chat is None
        await it.pilot.press(*["backspace"] * 5)
        await it.type("Hi")
        await it.hears(MOST)
        (kept,) = await it.priced.list_chats()
        assert it.chat.chat is not None and it.chat.chat.id == kept.id
        await it.chat.keep_draft()
        await it.type("", "enter")
        await it.until(lambda: len(it.turns) > 1, "the question in it")
        assert len(await it.priced.list_chats()) == 1


async def test_a_free_driver_says_little(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        it.priced.bounds = Bound("free")
        it.priced.offers = [replace(offer, price_in=0, price_out=0) for offer in PRICED]
        await it.chosen()
        await it.shows("only · free · Qwen3 8B")
        await it.pilot.pause(0.5)
        assert it.above == "" and it.chat.chat is None
        it.priced.become_market(PRICED)  # its free use; nothing is typed
        await it.hears("free: nothing is charged for it")


async def test_a_price_that_comes_later_and_another_one_are_told(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        it.priced.bounds = ASKING
        await it.chosen()
        await it.hears("asking maple for its price…")
        it.priced.tell(LOCKED)
        await it.hears(MOST)
        it.priced.tell(RAISED)
        await it.hears("0.24/M, was 0.20")
        await it.pilot.press("enter")  # it was seen
        await it.until(lambda: len(it.turns) > 1 and it.turns[-2].content == "Hi", "the question")


async def test_seconds_count_while_one_can_send_and_are_renewed_at_their_end(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        await it.chosen()
        await it.hears("locked 30 s")
        it.moment[0] += 12.0
        await it.hears("locked 18 s")
        await it.pilot.press("alt+n")
        await it.until(lambda: it.line._timer is None, "no second counted behind another view")
        await it.pilot.press("alt+c")
        await it.hears("locked 18 s")
        await it.pilot.press("ctrl+b")  # the list goes
        it.chat.chat_list.focus()
        await it.until(lambda: it.line._timer is None and "locked" not in it.above, "none elsewhere")
        it.chat.prompt.focus()
        await it.hears("locked 18 s")
        asked = len(it.priced.asked)
        it.priced.bounds = replace(LOCKED, until_ms=NOW + 60_000)
        it.moment[0] += 18.0
        await it.until(lambda: len(it.priced.asked) > asked, "the price asked anew")
        await it.hears("locked 30 s")


async def test_what_cannot_be_sent_stays_typed_and_says_why(tmp_path: Path) -> None:
    async with priced(tmp_path, (80, 24)) as it:
        it.priced.bounds = CAPPED
        await it.chosen()
        await it.hears("What may be spent in a day is reached")
        await it.until(lambda: "go on tomorrow." in " ".join(it.screen_text().split()), "the remedy")
        await it.pilot.press("enter")
        await it.until(lambda: "not sent: the reason stands above" in it.screen_text(), "that it was not")
        assert "What may be spent" in it.screen_text() and it.turns == [] and not it.toasts
        assert it.chat.prompt.text == "Hi"
        it.priced.bounds = LOCKED  # nobody told of it yet
        await it.pilot.press("enter")
        await it.until(lambda: len(it.turns) > 1, "the question")
        assert it.chat.prompt.text == ""


async def test_a_storm_of_news_is_asked_about_a_few_times_a_second(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        await it.chosen()
        await it.hears(MOST)
        asked = len(it.priced.asked)
        for _ in range(300):
            it.priced.tell(RAISED)
        await it.hears("was 0.20")
        assert len(it.priced.asked) - asked <= 3
        it.chat.chat_list.focus()
        await it.until(lambda: not it.chat.prompt.area.has_focus, "the focus elsewhere")
        asked = len(it.priced.asked)
        it.priced.tell(LOCKED)
        await it.pilot.pause(0.4)
        assert len(it.priced.asked) == asked


async def test_what_node_cannot_say_is_no_line_and_sends_all_the_same(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:

        def fails(text: str) -> Bound:
            raise NodeError("offline", "It is offline.")

        it.priced.bound_of = fails
        await it.chosen()
        await it.until(lambda: bool(it.priced.asked), "the question")
        await it.pilot.press("enter")
        await it.until(lambda: len(it.turns) > 1, "the message")
        assert it.above == "" and not it.toasts


# After it.


async def test_the_facts_change_in_place_and_the_focused_answer_shows_its_orders(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        answer = await it.answered(with_bills(DUE))
        await it.says("412 tokens (counted here: 412) · 0.00008 cr · receipt due")
        view = it.view
        it.priced.know(answer, SIGNED)
        await it.says("0.00008 cr · signed ✓ · readable by")
        assert it.view is view and it.turns[-1].facts == SIGNED
        assert "held 0.0004 cr" not in " ".join(it.lines)
        assert "last answer 0.00008 cr signed ✓" in it.card
        view.focus()
        await it.says("0.05 in, 0.20 out per 1M · held 0.0004 cr")


@pytest.mark.parametrize("way", ["key", "click", "slash", "palette"])
async def test_an_answer_is_rated_once(tmp_path: Path, way: str) -> None:
    async with priced(tmp_path) as it:
        answer = await it.answered(SIGNED)
        await it.says("regenerate ☆☆☆☆☆")
        if way == "key":
            it.view.focus()
            await it.pilot.press("4")
        elif way == "click":
            it.view.focus()  # first, as that moves them
            await it.says("held 0.0004 cr")
            line = next(y for y, text in enumerate(it.lines) if "☆" in text)
            gutter = it.view.gutter
            x = it.lines[line].index("☆") + 3
            await it.pilot.click(it.view, offset=(gutter.left + x, gutter.top + line))
        elif way == "slash":
            await it.type("/rate 4", "enter")
        else:
            await it.app.action_perform("answer.rate")
            await it.until(lambda: isinstance(it.app.screen, Ask), "the question")
            await it.type("6", "enter")
            await it.until(lambda: "from 1 to 5" in it.screen_text(), "what a rating is")
            await it.pilot.press("backspace", *"4 named", "enter")
        named = way == "palette"
        await it.says("★★★★☆")
        told = "with the id of this node" if named else "without a name"
        await it.until(lambda: f"others are told in some minutes, {told}" in it.screen_text(), told)
        assert it.priced.rated == [(answer.id, 4, named)]
        it.view.focus()
        await it.pilot.press("2")
        await it.pilot.pause()
        assert it.priced.rated == [(answer.id, 4, named)]
        assert not it.chat.situation().ratable


async def test_an_answer_without_a_signed_receipt_has_no_stars(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        answer = await it.answered(with_bills(DUE))
        it.view.focus()
        await it.pilot.press("5")
        assert "☆" not in " ".join(it.lines) and it.priced.rated == []
        it.priced.know(answer, SIGNED)
        await it.says("☆☆☆☆☆")


async def test_an_answer_can_be_rated_by_command_as_soon_as_its_receipt_is_signed(tmp_path: Path) -> None:
    async with priced(tmp_path) as it:
        answer = await it.answered(with_bills(DUE))
        it.priced.know(answer, SIGNED)
        await it.says("☆☆☆☆☆")
        await it.type("/rate 5", "enter")
        await it.until(lambda: it.priced.rated == [(answer.id, 5, False)], "the command")


async def test_a_small_terminal_says_it_all(tmp_path: Path) -> None:
    async with priced(tmp_path, (80, 24)) as it:
        await it.answered(SIGNED)
        await it.says("0.00008 cr · signed ✓ · readable by")
        await it.hears(f"{MOST} · 0.20/M locked 30 s · today 0.012 of 0.05")
        await it.pilot.resize_terminal(40, 10)
        await it.hears("≤ 0.0004 cr · 0.20/M locked 30 s")
        assert QWEN.name in it.screen_text() or "goes to" in it.screen_text()


def test_a_long_sum_on_the_card_stands_in_two_rows() -> None:
    shown_rows = [line.plain for line in driver_card._money(Bound("locked", owed=21, limit=5_000))]
    assert any(line.endswith("0.000021") for line in shown_rows)
    assert any(line.strip() == "of 0.005" for line in shown_rows)
    assert any(
        "0.0012 of 0.005" in line.plain for line in driver_card._money(Bound("free", owed=1200, limit=5_000))
    )
