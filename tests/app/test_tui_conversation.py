"""The conversation: what is mounted, how answers stream and end, following, going from message to message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from textual.app import App, ComposeResult
from textual.message import Message as TextualMessage
from textual.pilot import Pilot
from textual.screen import Screen

from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.conversation import KEEP, PAGE, Conversation, NewTextBelow
from infraxa.app.tui.widgets.message import AnswerView, UserMessage
from infraxa.app.tui.widgets.reading import MAX_DOCUMENT
from infraxa.store.records import AnswerFacts, Message, MessageState, Turn

FACTS = AnswerFacts(
    model="guide",
    finish="stop",
    n_prompt=120,
    n_cached=96,
    n_out=45,
    first_token_ms=120.0,
    tokens_per_second=812.4,
)
FIRST, PROMPT = "0.12 s to first token", "prompt 120, 96 cached"


def question(number: int, text: str = "What is this?") -> Message:
    return Message(f"q{number:04}", "chat", None, "user", text, "complete", 0)


def answer(
    number: int,
    text: str = "An *answer*.",
    state: MessageState = "complete",
    facts: AnswerFacts | None = FACTS,
    error: str = "",
) -> Message:
    return Message(f"a{number:04}", "chat", None, "assistant", text, state, 0, facts, error)


def turn(message: Message, *siblings: str) -> Turn:
    return Turn(message, siblings or (message.id,))


def chat(pairs: int, text: str = "An *answer*.") -> list[Turn]:
    return [turn(each) for n in range(pairs) for each in (question(n, f"Question {n}"), answer(n, text))]


class Chat(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.asked: list[TextualMessage] = []

    def compose(self) -> ComposeResult:
        yield Conversation(clock=lambda: self.now)

    @property
    def conversation(self) -> Conversation:
        return self.query_one(Conversation)

    def on_conversation_copy_requested(self, event: requests.CopyRequested) -> None:
        self.asked.append(event)

    on_conversation_regenerate_requested = on_conversation_copy_requested
    on_conversation_edit_requested = on_conversation_copy_requested
    on_conversation_continue_requested = on_conversation_copy_requested
    on_conversation_drop_oldest_requested = on_conversation_copy_requested
    on_conversation_version_requested = on_conversation_copy_requested
    on_conversation_stop_requested = on_conversation_copy_requested
    on_conversation_prompt_requested = on_conversation_copy_requested
    on_conversation_link_clicked = on_conversation_copy_requested


def shown(view: AnswerView | UserMessage) -> list[str]:
    return [view.render_line(y).text.rstrip() for y in range(view.content_size.height)]


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.02)


async def click_word(pilot: Pilot[None], view: AnswerView | UserMessage, word: str) -> None:
    """Click `word` where it stands last in the message."""
    lines = shown(view)
    y = max(y for y, line in enumerate(lines) if word in line)
    gutter = view.gutter
    await pilot.click(view, offset=(gutter.left + lines[y].rindex(word), gutter.top + y))
    await pilot.pause()


def last_answer(app: Chat) -> AnswerView:
    view = app.conversation.views[-1]
    assert isinstance(view, AnswerView)
    return view


async def test_the_newest_page_is_mounted_and_the_end_is_in_view() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(100))
        await pilot.pause()
        assert [view.message.id for view in app.conversation.views] == [
            each.message.id for each in chat(100)[-PAGE:]
        ]
        assert app.conversation.is_following
        assert last_answer(app).region.bottom <= 24


async def test_going_up_mounts_older_turns_and_keeps_the_place() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(100))
        await pilot.pause()
        first = app.conversation.views[0]
        app.conversation.scroll_to(y=0, animate=False)
        await until(pilot, lambda: len(app.conversation.views) == 2 * PAGE)
        # They are laid out, and then the place is taken again.
        await until(pilot, lambda: app.conversation.scroll_y > 0)
        assert first.is_attached
        assert abs(first.region.y - app.conversation.content_region.y) <= 3


async def test_the_first_turn_is_reached_and_going_back_to_the_end_lets_old_ones_go() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(50))
        await pilot.pause()
        while app.conversation.views[0].message.id != "q0000":
            before = app.conversation.views
            app.conversation.scroll_to(y=1, animate=False)
            app.conversation.scroll_to(y=0, animate=False)
            await until(pilot, lambda: len(app.conversation.views) > len(before))  # noqa: B023 - run at once
            await pilot.pause()
        assert len(app.conversation.views) == 100
        app.conversation.follow()
        await until(pilot, lambda: len(app.conversation.views) == KEEP)
        await until(pilot, lambda: app.conversation.is_following)


async def test_a_branch_that_shares_its_beginning_keeps_what_is_shown() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(3))
        await pilot.pause()
        before = app.conversation.views
        other = [*chat(3)[:4], turn(question(7, "Another question"), "q0002", "q0007")]
        await app.conversation.show(other)
        await pilot.pause()
        after = app.conversation.views
        assert after[:4] == before[:4]
        assert [view.message.id for view in after] == [each.message.id for each in other]
        assert not before[5].is_attached
        assert "2/2" in shown(after[-1])[0]


async def test_another_chat_replaces_everything() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(3))
        await app.conversation.show([turn(question(50, "Alone"))])
        await pilot.pause()
        (view,) = app.conversation.views
        assert "Alone" in shown(view)
        await app.conversation.show([])
        await pilot.pause()
        assert app.conversation.views == []


async def test_an_answer_waits_streams_and_ends() -> None:
    app = Chat()
    async with app.run_test(size=(120, 24)) as pilot:
        conversation = app.conversation
        await conversation.show([turn(question(0))])
        running = answer(0, "", "streaming", None)
        conversation.start_answer(running)
        await pilot.pause()
        view = last_answer(app)
        app.now = 3.2
        view.refresh_words()
        await pilot.pause()
        assert "waiting for the model · 3 s" in shown(view)[-1]
        conversation.set_progress(running.id, 512, 2048)
        await pilot.pause()
        assert "reading the prompt 512/2048" in shown(view)[-1]
        conversation.grow(running.id, "Hello **wor")
        await until(pilot, lambda: "Hello **wor" in shown(view))
        assert "answering" in shown(view)[-1]
        conversation.grow(running.id, "ld**\x1b[2J")
        await until(pilot, lambda: "Hello world[2J" in shown(view))
        await conversation.finish(answer(0, "Hello **world**\x1b[2J"))
        await pilot.pause()
        assert shown(view)[1] == "Hello world[2J"
        assert shown(view)[0] == "built-in guide (tiny)"
        facts = " ".join(shown(view)[2:])
        for fact in ("0.12 s to first token", "812 tok/s", "45 tokens", "prompt 120, 96 cached"):
            assert fact in facts
        assert "readable by this machine only" in facts


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, f"{FIRST} · 812 tok/s · 45 tokens · {PROMPT} · readable by this machine only"),
        (100, f"{FIRST} · 812 tok/s · 45 tokens · readable by this machine only"),
        (80, "812 tok/s · 45 tokens · readable by this machine only   copy · regenerate"),
        (60, "812 tok/s · 45 tokens · readable by this machine only"),
        (52, "45 tokens · readable by this machine only"),
        (40, "readable by this machine only"),
    ],
)  # fmt: skip
async def test_the_facts_take_one_line_and_the_focused_answer_says_all(width: int, line: str) -> None:
    app = Chat()
    async with app.run_test(size=(width, 24)) as pilot:
        await app.conversation.show(chat(1))
        await until(pilot, lambda: line in shown(last_answer(app)))
        last_answer(app).focus()
        await pilot.pause()
        said = " ".join(shown(last_answer(app)))
        assert PROMPT in said and "readable by this machine only" in said


async def test_a_short_conversation_stays_at_the_top_while_it_grows() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show([turn(question(0))])
        running = answer(0, "", "streaming", AnswerFacts(model="guide"))
        app.conversation.start_answer(running)
        await pilot.pause()
        first = app.conversation.views[0].region.y
        assert first == app.conversation.region.y + 1
        app.conversation.grow(running.id, "one\n\ntwo\n\nthree")
        await until(pilot, lambda: "three" in shown(last_answer(app)))
        assert app.conversation.views[0].region.y == first
        assert shown(last_answer(app))[0] == "built-in guide (tiny)"


async def test_what_is_stored_wins_over_what_was_streamed() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "", "streaming", None)
        app.conversation.start_answer(running)
        app.conversation.grow(running.id, "streamed")
        await pilot.pause()
        await app.conversation.finish(answer(0, "stored"))
        await pilot.pause()
        assert shown(last_answer(app))[1] == "stored"


async def test_an_answer_that_runs_already_goes_on_from_its_text() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "one", "streaming", None)
        await app.conversation.show([turn(question(0)), turn(running)], streaming={running.id: "one two"})
        app.conversation.grow(running.id, " three")
        await until(pilot, lambda: "one two three" in shown(last_answer(app)))


async def test_a_branch_shown_again_does_not_disturb_a_running_answer() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "", "streaming", None)
        turns = [turn(question(0)), turn(running)]
        await app.conversation.show(turns)
        app.conversation.start_answer(running)
        app.conversation.grow(running.id, "text")
        await until(pilot, lambda: "text" in shown(last_answer(app)))
        view = last_answer(app)
        await app.conversation.show(turns, streaming={running.id: "text"})
        app.conversation.grow(running.id, " more")
        await until(pilot, lambda: "text more" in shown(last_answer(app)))
        assert last_answer(app) is view


async def test_growing_text_is_followed_until_the_person_scrolls() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        conversation = app.conversation
        await conversation.show(chat(5, "line\n\n" * 10))
        running = answer(90, "", "streaming", None)
        conversation.start_answer(running)
        conversation.grow(running.id, "word\n\n" * 40)
        view = last_answer(app)
        await until(pilot, lambda: view.region.height > 40)
        await until(pilot, lambda: conversation.is_following)
        assert not conversation.query_one(NewTextBelow).display

        place = conversation.scroll_y - 30
        conversation.scroll_relative(y=-30, animate=False)
        await until(pilot, lambda: conversation.scroll_y == place)
        conversation.grow(running.id, "more\n\n" * 40)
        await until(pilot, lambda: view.region.height > 100)
        await until(pilot, lambda: conversation.query_one(NewTextBelow).display)
        assert conversation.scroll_y == place

        await pilot.click(NewTextBelow)
        await until(pilot, lambda: conversation.is_following)
        assert not conversation.query_one(NewTextBelow).display
        conversation.grow(running.id, "last\n\n" * 40)
        await until(pilot, lambda: view.region.height > 160)
        await until(pilot, lambda: conversation.is_following)


async def test_nothing_is_painted_while_another_screen_covers_the_chat() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "", "streaming", None)
        app.conversation.start_answer(running)
        app.conversation.grow(running.id, "before")
        view = last_answer(app)
        await until(pilot, lambda: view.flushes == 1)
        chat_screen = app.screen
        await app.push_screen(Screen())
        chat_screen.query_one(Conversation).grow(running.id, " hidden")
        await pilot.pause(0.3)
        assert view.flushes == 1
        app.pop_screen()
        await until(pilot, lambda: "before hidden" in shown(view))


async def test_a_running_answer_that_is_no_longer_shown_ends_quietly() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "", "streaming", None)
        app.conversation.start_answer(running)
        app.conversation.grow(running.id, "text")
        await app.conversation.show(chat(1)[:1])
        app.conversation.grow(running.id, "more")
        app.conversation.set_progress(running.id, 1, 2)
        await app.conversation.finish(answer(0, "text more"))
        await pilot.pause()
        assert len(app.conversation.views) == 1


async def test_keys_on_a_focused_answer_ask_for_what_they_say() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        source = "Text\n\n```py\nfirst\n```\n\n```py\nsecond\n```\n"
        await app.conversation.show([turn(question(0)), turn(answer(0, source), "a0000", "a0001")])
        app.conversation.focus_last()
        await pilot.press("y", "Y", "r", "right", "left", "c", "e", "d")
        await pilot.pause()
        copied, code, again, version = app.asked
        assert isinstance(copied, requests.CopyRequested) and (copied.text, copied.what) == (
            source,
            "message",
        )
        assert isinstance(code, requests.CopyRequested) and (code.text, code.what) == ("second", "code")
        assert isinstance(again, requests.RegenerateRequested) and again.message_id == "a0000"
        assert isinstance(version, requests.VersionRequested) and version.message_id == "a0001"


async def test_the_person_edits_their_own_message() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        await app.conversation.show([turn(question(0, "Old *text*"))])
        app.conversation.focus_last()
        await pilot.press("e")
        await pilot.pause()
        (edit,) = app.asked
        assert isinstance(edit, requests.EditRequested) and (edit.message_id, edit.text) == (
            "q0000",
            "Old *text*",
        )
        assert "Old *text*" in shown(app.conversation.views[0])


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("copy", requests.CopyRequested),
        ("regenerate", requests.RegenerateRequested),
        ("continue", requests.ContinueRequested),
        ("drop the oldest", requests.DropOldestRequested),
    ],
)
async def test_the_words_under_the_last_answer_can_be_clicked(word: str, kind: type[TextualMessage]) -> None:
    app = Chat()
    async with app.run_test(size=(80, 30)) as pilot:
        facts = AnswerFacts(model="m", error_code="prompt_too_long")
        message = answer(0, "Some text", "failed", facts, "The chat does not fit. Drop the oldest turns.")
        await app.conversation.show([turn(question(0)), turn(message)])
        await pilot.pause()
        assert "The chat does not fit." in " ".join(shown(last_answer(app)))
        await click_word(pilot, last_answer(app), word)
        assert [type(each) for each in app.asked] == [kind]


@pytest.mark.parametrize(
    ("message", "words", "missing"),
    [
        (answer(0), ["copy", "regenerate"], ["continue", "drop", "stopped"]),
        (answer(0, state="stopped"), ["stopped by you", "continue"], ["drop"]),
        (answer(0, state="interrupted"), ["interrupted", "continue"], []),
        (answer(0, facts=AnswerFacts(finish="length")), ["cut at the limit", "continue"], []),
        (
            answer(0, "", "failed", None, "The worker died."),
            ["The worker died.", "regenerate"],
            ["continue", "copy"],
        ),
        (answer(0, "", "streaming", None), ["stop"], ["regenerate", "copy", "readable"]),
    ],
)
async def test_only_what_applies_is_offered(message: Message, words: list[str], missing: list[str]) -> None:
    app = Chat()
    async with app.run_test(size=(80, 30)) as pilot:
        await app.conversation.show([turn(question(0)), turn(message)])
        await pilot.pause()
        text = " ".join(shown(last_answer(app)))
        assert all(word in text for word in words), text
        assert not any(word in text for word in missing), text


async def test_a_running_answer_is_stopped_by_a_click() -> None:
    app = Chat()
    async with app.run_test(size=(80, 30)) as pilot:
        app.conversation.start_answer(answer(0, "", "streaming", None))
        await pilot.pause()
        await click_word(pilot, last_answer(app), "stop")
        assert [type(each) for each in app.asked] == [requests.StopRequested]


async def test_versions_are_chosen_by_clicks() -> None:
    app = Chat()
    async with app.run_test(size=(80, 30)) as pilot:
        await app.conversation.show([turn(question(0)), turn(answer(1), "a0000", "a0001", "a0002")])
        await pilot.pause()
        assert "‹ 2/3 ›" in shown(last_answer(app))[0]
        await click_word(pilot, last_answer(app), "‹")
        await click_word(pilot, last_answer(app), "›")
        chosen = [each.message_id for each in app.asked if isinstance(each, requests.VersionRequested)]
        assert chosen == ["a0000", "a0002"]


async def test_links_are_told_to_the_screen() -> None:
    app = Chat()
    async with app.run_test(size=(80, 30)) as pilot:
        await app.conversation.show([turn(answer(0, "[the manual](https://example.org)"))])
        await pilot.pause()
        await click_word(pilot, last_answer(app), "manual")
        (link,) = app.asked
        assert isinstance(link, requests.LinkClicked) and link.href == "https://example.org"


async def test_up_and_down_go_from_message_to_message_and_out_to_the_prompt() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        conversation = app.conversation
        await conversation.show(chat(3))
        await pilot.pause()
        conversation.focus_last()
        await pilot.press("up", "k")
        await pilot.pause()
        assert conversation.focused is conversation.views[-3]
        await pilot.press("down", "j", "down")
        await pilot.pause()
        assert conversation.focused is conversation.views[-1]
        assert [type(each) for each in app.asked] == [requests.PromptRequested]


async def test_down_scrolls_within_a_message_that_is_taller_than_the_window() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        conversation = app.conversation
        await conversation.show([turn(question(0)), turn(answer(0, "line\n\n" * 60)), turn(question(1))])
        await pilot.pause()
        conversation.views[1].focus()
        await pilot.pause()
        conversation.scroll_to(y=5, animate=False)
        await pilot.pause()
        await pilot.press("down")
        await pilot.pause()
        assert conversation.focused is conversation.views[1]
        assert conversation.scroll_y == 8


async def test_the_focused_message_looks_different() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.conversation.show(chat(2))
        await pilot.pause()
        view = app.conversation.views[1]
        before = view.styles.border_left
        view.focus()
        await pilot.pause()
        assert view.styles.border_left != before
        assert "copy" in " ".join(shown(view))


async def test_a_huge_answer_is_shown_to_its_end() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        running = answer(0, "", "streaming", None)
        app.conversation.start_answer(running)
        text = "x" * (MAX_DOCUMENT + 10) + "\nthe end"
        for start in range(0, len(text), 50_000):
            app.conversation.grow(running.id, text[start : start + 50_000])
        await app.conversation.finish(answer(0, text))
        await pilot.pause()
        assert "the end" in shown(last_answer(app))
        assert app.conversation.is_following


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)])
async def test_nothing_is_wider_than_the_terminal(size: tuple[int, int]) -> None:
    app = Chat()
    async with app.run_test(size=size) as pilot:
        text = (
            "word " * 50
            + "\n\n| a | b | c |\n|-|-|-|\n| "
            + "cell " * 20
            + "| x | y |\n\n```\n"
            + "c" * 300
            + "\n```\n"
        )
        await app.conversation.show(chat(2, text))
        await pilot.pause()
        for view in app.conversation.views:
            assert view.region.right <= size[0]
            widths = {view.render_line(y).cell_length for y in range(view.content_size.height)}
            assert widths == {view.content_size.width}
