"""The registry of actions: what it promises to keys, palette, slash commands and help."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Input, TextArea

from infraxa.app.tui import actions
from infraxa.app.tui.actions import ACTIONS, Situation, bindings, key_label, possible
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.chat import ChatScreen
from infraxa.app.tui.screens.help import sections, table
from infraxa.app.tui.widgets.prompt import PromptArea
from tests.app.shell import shell

EVERYTHING = Situation(
    opened=True,
    chat=True,
    chats=True,
    answered=True,
    answering=False,
    ratable=True,
    auditable=True,
    continuable=True,
    deleted=True,
)


def keys_of(widget: type[TextArea] | type[Input]) -> set[str]:
    return {
        key for binding in widget.BINDINGS if not isinstance(binding, tuple) for key in binding.key.split(",")
    }


def test_nothing_is_there_twice() -> None:
    for names in (
        [action.id for action in ACTIONS],
        [action.method for action in ACTIONS],
        [action.slash for action in ACTIONS if action.slash],
        [key for action in ACTIONS for key in action.key.split(",") if key],
    ):
        assert sorted(names) == sorted(set(names))


def test_each_action_has_its_method_where_its_scope_says() -> None:
    for action in ACTIONS:
        owner = InfraxaApp if action.scope == "app" else ChatScreen
        assert callable(getattr(owner, f"action_{action.method}", None)), action.id


def test_no_key_takes_one_from_the_text_that_is_edited() -> None:
    # ctrl+z means the text, except right after a chat was deleted: the action is off otherwise. What f7 is
    # in Textual's text, the prompt has on alt+a.
    editing = (keys_of(TextArea) | keys_of(Input)) - {"ctrl+z", "f7"}
    assert "alt+a" in keys_of(PromptArea)
    taken = {a.key for a in ACTIONS if a.priority} & editing
    assert taken == set()


def test_no_key_is_one_that_terminals_send_for_another() -> None:
    assert not {action.key for action in ACTIONS} & {"ctrl+i", "ctrl+m", "ctrl+j", "ctrl+h", "ctrl+["}


def test_bindings_have_ids_by_which_they_can_be_given_other_keys() -> None:
    assert {b.id for scope in ("app", "chat") for b in bindings(scope)} == {a.id for a in ACTIONS if a.key}


def test_what_is_possible_depends_on_the_situation() -> None:
    def ids(situation: Situation) -> set[str]:
        return {action.id for action in possible(situation)}

    assert "answer.stop" in ids(Situation(chat=True, answering=True))
    assert "answer.stop" not in ids(EVERYTHING)
    assert "answer.regenerate" not in ids(Situation(chat=True, answered=True, answering=True))
    assert "chat.undo_delete" not in ids(Situation())
    assert {"chat.new", "app.help", "app.quit"} <= ids(Situation())
    assert ids(EVERYTHING) == {action.id for action in ACTIONS} - {"answer.stop", "app.reopen"}


def test_keys_are_written_as_people_write_them() -> None:
    assert [key_label(key) for key in ("ctrl+n", "f1", "escape", "alt+down", "f10,ctrl+x")] == [
        "ctrl+n", "F1", "Esc", "alt+↓", "F10",
    ]  # fmt: skip


def test_the_help_has_every_action() -> None:
    text = "\n".join(table(heading, rows, 90).plain for heading, rows in sections())
    for action in ACTIONS:
        assert action.title in text
        assert not action.slash or f"/{action.slash}" in text


def test_the_help_keeps_to_its_width() -> None:
    for width in (40, 80):
        for heading, rows in sections():
            assert all(len(line) <= width for line in table(heading, rows, width).plain.split("\n"))


async def test_a_keymap_gives_an_action_another_key(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        it.app.set_keymap({"app.help": "f12"})
        await it.pilot.press("f12")
        await it.until(lambda: type(it.app.screen).__name__ == "HelpScreen", "the help")


async def test_slash_commands_and_hints_come_from_the_registry(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.type("/help", "enter")
        await it.until(lambda: type(it.app.screen).__name__ == "HelpScreen", "the help")
        await it.pilot.press("escape")
        text = it.screen_text()
        for action_id, word in actions.HINTS.items():
            assert f"{key_label(actions.BY_ID[action_id].key)} {word}" in text


async def test_an_action_that_is_not_possible_says_so(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.app.action_perform("answer.regenerate")
        await it.pilot.pause()
        assert "not possible" in it.screen_text()
