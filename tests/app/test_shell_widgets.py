"""The small widgets of the shell: the list of chats, the status bar, the card."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from infraxa.app.answering import Waits
from infraxa.app.events import AnswerEnded, AnswerGrew, AnswerStarted, PromptRead
from infraxa.app.sizes import size_text
from infraxa.app.tui.running import RunningAnswers
from infraxa.app.tui.widgets.chat_list import ChatList, age, marked
from infraxa.app.tui.widgets.status_bar import Status, StatusBar, describe, waited_for
from infraxa.engine.types import EngineStatus, ErrorInfo
from infraxa.store.records import ChatSummary, Message, SearchHit

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (-5, "now"), (59_000, "now"), (MINUTE, "1 m"), (59 * MINUTE, "59 m"), (HOUR, "1 h"),
        (23 * HOUR, "23 h"),
        (DAY, "1 d"), (99 * DAY, "99 d"), (100 * DAY, "3 mo"), (364 * DAY, "12 mo"), (800 * DAY, "2 y"),
    ],
)  # fmt: skip
def test_age_is_short(passed: int, words: str) -> None:
    assert age(10**12, 10**12 - passed) == words
    assert len(words) <= 5


def test_marks_of_a_search_become_a_style_and_control_characters_go() -> None:
    content = marked("the \ue000driver\ue001 you\x1b[31m\nchose", "bold")
    assert content.plain == "the driver you[31m chose"
    assert [(span.start, span.end) for span in content.spans] == [(4, 10)]


class Lists(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, str | None]] = []

    def compose(self) -> ComposeResult:
        yield ChatList()

    def on_chat_list_opened(self, event: ChatList.Opened) -> None:
        self.opened.append((event.chat_id, event.message_id))


def chats(count: int) -> list[ChatSummary]:
    return [ChatSummary(f"c{n}", f"Chat {n} 漢字漢字漢字", 0, -n * MINUTE, "") for n in range(count)]


async def test_the_list_keeps_its_width_and_its_place() -> None:
    app = Lists()
    async with app.run_test(size=(20, 10)) as pilot:
        it = app.query_one(ChatList)
        it.show_chats(chats(2000), 0)
        await pilot.pause()
        assert all(it.render_line(y).cell_length == it.size.width for y in range(10))
        await pilot.press("end")
        assert it.highlighted is not None and it.highlighted.chat_id == "c1999"
        it.show_chats([ChatSummary("new", "", 0, 0, ""), *chats(2000)], 0)
        await pilot.pause()
        assert it.highlighted is not None and it.highlighted.chat_id == "c1999"
        await pilot.press("enter")
        assert app.opened == [("c1999", None)]


async def test_a_click_opens_a_hit() -> None:
    app = Lists()
    async with app.run_test(size=(30, 10)) as pilot:
        it = app.query_one(ChatList)
        it.show_hits(
            [
                SearchHit("a", "Title", None, "\ue000Ti\ue001tle"),
                SearchHit("b", "Other", "m1", "what a \ue000title\ue001 is"),
            ],
            "ti",
        )
        await pilot.pause()
        await pilot.click(ChatList, offset=(5, 2))
        assert app.opened == [("b", "m1")]
        it.show_hits([], "nothing")
        await pilot.pause()
        assert "Nothing found" in it.render_line(0).text


FAILED = ErrorInfo("worker_died", "The model's process ended.", "Try again.")
READY = EngineStatus("ready")


@pytest.mark.parametrize(
    ("status", "seconds", "words"),
    [
        (Status(), 0, "no model is loaded"),
        (Status(opening="opening your chats"), 2, "opening your chats · 2 s"),
        (Status(EngineStatus("loading", progress=0.43)), 3.7, "loading 43% · 3 s"),
        (
            Status(EngineStatus("restarting", retry_at=102.0, error=FAILED)), 0,
            "restarting in 2 s: The model's process ended. Try again.",
        ),
        (Status(EngineStatus("failed", error=FAILED)), 0, "The model's process ended. Try again."),
        (Status(EngineStatus("ready")), 0, "ready"),
        (Status(EngineStatus("ready"), elsewhere=2), 0, "answering in 2 other chats"),
        (Status(READY, answering=True), 4, "waiting for the first word · 4 s"),
        (
            Status(READY, answering=True, n_out=7, waits=Waits("more from maple", 52_000, 60.0)), 0,
            "waiting for more from maple · 8 s of 60 s",
        ),
        (Status(READY, answering=True, prompt_read=(5, 10)), 0, "reading the prompt 5/10"),
        (Status(READY, answering=True, n_out=7, rate=33.84), 0, "answering · 33.8 tok/s · 7 tokens"),
        (Status(EngineStatus("ready"), flash="copied"), 0, "copied"),
    ],
)  # fmt: skip
def test_the_status_in_words(status: Status, seconds: float, words: str) -> None:
    assert describe(status, seconds, 100.0, 60_000)[1] == words


class Bars(App[None]):
    def compose(self) -> ComposeResult:
        yield StatusBar(clock=lambda: 0.0)


async def test_seconds_are_counted_only_while_something_is_waited_for() -> None:
    app = Bars()
    async with app.run_test(size=(80, 5)) as pilot:
        bar = app.query_one(StatusBar)
        bar.status = Status(EngineStatus("ready"), model="guide")
        await pilot.pause()
        assert waited_for(bar.status) == "" and bar._timer is None
        assert "guide" in bar.render_line(0).text and "F1 help" in bar.render_line(0).text
        bar.status = Status(EngineStatus("loading"))
        await pilot.pause()
        assert bar._timer is not None
        bar.status = Status(EngineStatus("ready"))
        await pilot.pause()
        assert bar._timer is None


async def test_help_and_commands_are_the_hints_that_stay() -> None:
    app = Bars()
    async with app.run_test(size=(70, 5)) as pilot:
        bar = app.query_one(StatusBar)
        bar.status = Status(EngineStatus("ready"), model="built-in guide (tiny)")
        await pilot.pause()
        text = bar.render_line(0).text
        assert text.rstrip().endswith("F1 help  ctrl+p commands") and "ctrl+n" not in text


async def test_a_long_reason_takes_the_room_of_the_hints() -> None:
    app = Bars()
    async with app.run_test(size=(60, 5)) as pilot:
        bar = app.query_one(StatusBar)
        bar.status = Status(EngineStatus("failed", error=ErrorInfo("x", "A reason " * 10)))
        await pilot.pause()
        text = bar.render_line(0).text
        assert "help" not in text and text.count("A reason") >= 5


def message(state: str) -> Message:
    return Message("m", "c", None, "assistant", "", state, 0)  # type: ignore[arg-type] # a state of the test's


def test_the_speed_of_a_running_answer() -> None:
    now = 0.0
    running = RunningAnswers(clock=lambda: now)
    running.take(AnswerStarted("c", message("streaming")))
    running.take(PromptRead("c", "m", 5, 10))
    assert running.by_chat["c"].prompt_read == (5, 10) and running.by_chat["c"].rate is None
    running.take(AnswerGrew("c", "m", "a", 1))
    assert running.by_chat["c"].rate is None
    now = 2.0
    running.take(AnswerGrew("c", "m", "b", 21))
    assert running.by_chat["c"].rate == 10.0
    running.take(AnswerEnded("c", message("complete")))
    assert "c" not in running and len(running) == 0


def test_sizes_for_people() -> None:
    assert [size_text(size) for size in (0, 999, 5_700_000, 4_100_000_000, 123_000_000)] == [
        "0 B", "999 B", "5.7 MB", "4.1 GB", "123 MB",
    ]  # fmt: skip
