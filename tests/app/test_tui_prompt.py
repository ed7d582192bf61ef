"""The prompt: what sends and what begins a new line, pasting, the history, slash commands, editing."""

from __future__ import annotations

import pytest
from textual._xterm_parser import XTermParser
from textual.app import App, ComposeResult
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.widgets import OptionList

from infraxa.app.tui.widgets.history import PromptHistory
from infraxa.app.tui.widgets.prompt import MAX_LINES, MAX_PASTE, Prompt, SlashCommand, teach_alt_enter

COMMANDS = [
    SlashCommand("new", "Begin an empty conversation."),
    SlashCommand("model", "Choose the model.", "name"),
    SlashCommand("mouse", "Mouse on or off."),
]


class Typing(App[None]):
    def __init__(self, send_key: str = "enter") -> None:
        super().__init__()
        self._send_key = send_key
        self.sent: list[tuple[str, str | None]] = []
        self.commands: list[tuple[str, str]] = []
        self.escapes = 0

    def compose(self) -> ComposeResult:
        yield Prompt(send_key=self._send_key)

    def on_mount(self) -> None:
        self.prompt.set_commands(COMMANDS)
        self.prompt.focus()

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        self.sent.append((event.text, event.editing))

    def on_prompt_command_entered(self, event: Prompt.CommandEntered) -> None:
        self.commands.append((event.name, event.argument))

    def on_key(self, event: Key) -> None:
        self.escapes += event.key == "escape"


async def write(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*({" ": "space", "/": "slash", "\n": "ctrl+j"}.get(c, c) for c in text))
    await pilot.pause()


def offered(app: Typing) -> list[str]:
    options = app.query_one(OptionList)
    if not options.display:
        return []
    return [str(option.prompt).split()[0] for option in options.options]


async def test_enter_sends_and_empties_the_prompt() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "hi there")
        await pilot.press("enter")
        await pilot.pause()
        assert app.sent == [("hi there", None)]
        assert app.prompt.text == ""
        await pilot.press("space", "enter")
        await pilot.pause()
        assert len(app.sent) == 1


@pytest.mark.parametrize("key", ["ctrl+j", "alt+enter", "shift+enter"])
@pytest.mark.parametrize("send_key", ["enter", "ctrl+enter"])
async def test_some_keys_always_begin_a_new_line(key: str, send_key: str) -> None:
    app = Typing(send_key)
    async with app.run_test() as pilot:
        await pilot.press("a", key, "b")
        await pilot.pause()
        assert app.prompt.text == "a\nb"
        assert app.sent == []
        await pilot.press(send_key)
        await pilot.pause()
        assert app.sent == [("a\nb", None)]


async def test_with_another_send_key_enter_begins_a_new_line() -> None:
    app = Typing("ctrl+enter")
    async with app.run_test() as pilot:
        await pilot.press("a", "enter", "b")
        await pilot.pause()
        assert app.prompt.text == "a\nb"


def test_alt_enter_of_plain_terminals_is_a_new_line() -> None:
    teach_alt_enter()
    keys = [event.key for event in XTermParser().feed("\x1b\r") if isinstance(event, Key)]
    assert keys == ["ctrl+j"]


async def test_pasting_never_sends() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "see: ")
        app.prompt.area.post_message(Paste("one\r\ntwo\n\x1b[201~three\n"))
        await pilot.pause()
        assert app.prompt.text == "see: one\ntwo\n[201~three\n"
        assert app.sent == []


async def test_pasting_replaces_what_is_selected() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "old text")
        app.prompt.area.select_all()
        app.prompt.area.post_message(Paste("new"))
        await pilot.pause()
        assert app.prompt.text == "new"


async def test_a_huge_paste_is_cut_and_said_so() -> None:
    app = Typing()
    async with app.run_test(notifications=True) as pilot:
        app.prompt.area.post_message(Paste("line of text\n" * 100_000))
        await pilot.pause()
        assert len(app.prompt.text) == MAX_PASTE
        assert ["200,000" in note.message for note in app._notifications] == [True]


async def test_the_prompt_grows_to_its_limit() -> None:
    app = Typing()
    async with app.run_test(size=(80, 60)) as pilot:
        assert app.prompt.area.size.height == 1
        await write(pilot, "a\nb\nc")
        assert app.prompt.area.size.height == 3
        app.prompt.text = "line\n" * 40
        await pilot.pause()
        assert app.prompt.area.size.height == MAX_LINES
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert app.prompt.area.size.height < MAX_LINES / 2


async def test_wide_characters_are_typed_and_deleted_whole() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await pilot.press("日", "本", "語", "left", "backspace", "é")
        await pilot.pause()
        assert app.prompt.text == "日é語"


async def test_up_and_down_go_through_history_and_keep_the_draft() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        app.prompt.set_history(["first", "second\nwith two lines"])
        await write(pilot, "draft")
        await pilot.press("up")
        assert app.prompt.text == "second\nwith two lines"
        await pilot.press("up")
        assert app.prompt.text == "first"
        await pilot.press("up")
        assert app.prompt.text == "first"
        await pilot.press("down", "down", "down")
        await pilot.pause()
        assert app.prompt.text == "draft"


async def test_within_a_text_up_and_down_move_the_cursor() -> None:
    app = Typing()
    async with app.run_test(size=(20, 24)) as pilot:
        app.prompt.set_history(["earlier"])
        await write(pilot, "one two three four five six")
        assert app.prompt.area.size.height == 2
        await pilot.press("up")
        assert app.prompt.text == "one two three four five six"
        await pilot.press("up")
        assert app.prompt.text == "earlier"


async def test_what_was_sent_is_in_the_history() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "question")
        await pilot.press("enter", "up")
        await pilot.pause()
        assert app.prompt.text == "question"


def test_history_counts_equal_neighbours_once() -> None:
    history = PromptHistory()
    history.load(["a", "a", "b", "", "b", "a"])
    history.add("a")
    assert [history.older(""), history.older(""), history.older(""), history.older("")] == [
        "a",
        "b",
        "a",
        None,
    ]


async def test_commands_are_offered_as_they_are_typed() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/")
        assert offered(app) == ["/new", "/model", "/mouse"]
        await write(pilot, "mo")
        assert offered(app) == ["/model", "/mouse"]
        await write(pilot, "u")
        assert offered(app) == ["/mouse"]
        await write(pilot, "x")
        assert offered(app) == []


@pytest.mark.parametrize("text", ["hello /", "//", "a\n/", "/model x", "/new\nb"])
async def test_commands_are_offered_only_for_a_command(text: str) -> None:
    app = Typing()
    async with app.run_test() as pilot:
        app.prompt.text = text
        await pilot.pause()
        assert offered(app) == []


async def test_tab_completes_and_the_argument_follows() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/m")
        await pilot.press("tab")
        assert app.prompt.text == "/model "
        await write(pilot, "my model")
        await pilot.press("enter")
        await pilot.pause()
        assert app.commands == [("model", "my model")]
        assert app.prompt.text == ""
        assert app.sent == []


async def test_enter_takes_the_chosen_command() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/")
        await pilot.press("down", "down", "enter")
        await pilot.pause()
        assert app.commands == [("mouse", "")]


async def test_enter_right_after_the_argument_enters_it() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/model")
        # The next keys come before the text has told that it changed.
        app.prompt.area.insert(" mine")
        assert app.prompt.take_key("enter")
        await pilot.pause()
        assert app.commands == [("model", "mine")]


async def test_a_command_is_taken_by_the_mouse() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/")
        await pilot.click(OptionList, offset=(3, 0))
        await pilot.pause()
        assert app.commands == [("new", "")]


async def test_an_unknown_command_stays_and_is_explained() -> None:
    app = Typing()
    async with app.run_test(notifications=True) as pilot:
        await write(pilot, "/home/me [red]")
        await pilot.press("enter")
        await pilot.pause()
        assert app.prompt.text == "/home/me [red]"
        assert app.commands == app.sent == []
        (note,) = app._notifications
        assert note.message.startswith("There is no command /home/me.")


async def test_two_slashes_send_one() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "//etc")
        await pilot.press("enter")
        await pilot.pause()
        assert app.sent == [("/etc", None)]


async def test_escape_closes_the_list_first_and_then_is_left_to_others() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "/n")
        await pilot.press("escape")
        await pilot.pause()
        assert offered(app) == []
        assert app.prompt.text == "/n"
        assert app.escapes == 0
        await pilot.press("escape")
        await pilot.pause()
        assert app.escapes == 1
        await write(pilot, "e")
        assert offered(app) == ["/new"]


async def test_editing_submits_with_the_message_and_gives_the_draft_back() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "draft")
        app.prompt.begin_edit("m1", "old")
        await pilot.pause()
        assert app.prompt.query_one(".notice").display
        await write(pilot, "er")
        await pilot.press("enter")
        await pilot.pause()
        assert app.sent == [("older", "m1")]
        assert app.prompt.text == "draft"
        assert not app.prompt.query_one(".notice").display
        await pilot.press("enter")
        await pilot.pause()
        assert app.sent[-1] == ("draft", None)


async def test_escape_cancels_editing() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        await write(pilot, "draft")
        app.prompt.begin_edit("m1", "old")
        app.prompt.begin_edit("m2", "other")
        await pilot.press("escape")
        await pilot.pause()
        assert (app.prompt.text, app.prompt.editing, app.escapes) == ("draft", None, 0)


async def test_what_could_not_be_sent_is_given_back() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        app.prompt.put_back("lost", "m1")
        await pilot.pause()
        assert (app.prompt.text, app.prompt.editing) == ("lost", "m1")
        app.prompt.put_back("other")
        assert app.prompt.text == "lost"
