"""The views over the chat: models, settings, options, log, dialogs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Select, Switch, TextArea

from infraxa.app import config
from infraxa.app.choices import GUIDE_LABEL
from infraxa.app.config import Settings
from infraxa.app.tui.export import check_target, default_target, write
from infraxa.app.tui.log_book import KEPT, LogBook
from infraxa.app.tui.screens.chat_options import FIELDS, ChatOptionsScreen, parse_number, parse_stop
from infraxa.app.tui.screens.dialogs import Confirm, may_open, safe_link
from infraxa.app.tui.screens.log import LogScreen
from infraxa.app.tui.screens.models import ModelsScreen
from infraxa.app.tui.screens.settings import SettingsScreen, choices, is_switch
from infraxa.engine.guide import GUIDE_PATH
from infraxa.store.records import ChatOptions
from tests.app.shell import Shell, shell


async def open_view(it: Shell, key: str, kind: type) -> None:
    await it.opened()
    await it.pilot.press(key)
    await it.until(lambda: isinstance(it.app.screen, kind), kind.__name__)


async def test_a_model_is_added_used_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    shutil.copy(GUIDE_PATH, file)
    async with shell(tmp_path / "data") as it:
        await open_view(it, "ctrl+o", ModelsScreen)
        await it.until(lambda: GUIDE_LABEL in it.screen_text() and "in use" in it.screen_text(), "the guide")
        await it.pilot.press("a")
        await it.type(str(tmp_path / "nowhere.gguf"), "enter")
        await it.until(
            lambda: "nowhere.gguf" in it.screen_text() and "Reading" not in it.screen_text(), "the reason"
        )
        box = it.app.screen.query_one(Input)
        box.value = str(file)
        await it.pilot.press("enter")
        await it.until(lambda: "other is added" in it.screen_text(), "the model")
        await it.pilot.press("enter")
        await it.until(lambda: it.app.settings.model == "other", "its use")
        await it.until(lambda: "answers from now on" in it.screen_text(), "the word")
        await it.until(lambda: f"{GUIDE_LABEL}  loaded" in it.screen_text(), "the guide, still in memory")
        await it.pilot.press("delete")
        await it.until(lambda: isinstance(it.app.screen, Confirm), "the question")
        await it.pilot.click("#yes")
        await it.until(lambda: it.app.settings.model == "guide", "the guide again")
        assert file.exists()
        await it.until(lambda: it.app.screen.query_one(OptionList).option_count == 1, "the list")


async def test_the_guide_cannot_be_removed(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await open_view(it, "ctrl+o", ModelsScreen)
        await it.until(lambda: GUIDE_LABEL in it.screen_text(), "the guide")
        await it.pilot.press("delete")
        await it.until(lambda: "cannot be removed" in it.screen_text(), "the reason")


async def test_every_setting_has_a_control(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await open_view(it, "f9", SettingsScreen)
        for name in config.names():
            control = it.app.screen.query_one(f"#set-{name}")
            if is_switch(name):
                assert isinstance(control, Switch)
            elif choices(name) or name == "theme":
                assert isinstance(control, Select)
            else:
                assert isinstance(control, Input)


async def test_a_setting_is_checked_as_it_is_typed_and_saved_when_right(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await open_view(it, "f9", SettingsScreen)
        slots = it.app.screen.query_one("#set-slots", Input)
        slots.focus()
        slots.value = "0"
        await it.until(lambda: "a whole number from 1 to 64" in it.screen_text(), "the reason")
        await it.pilot.press("enter")
        await it.pilot.pause()
        assert it.app.settings.slots == 2
        slots.value = "4"
        await it.pilot.press("enter")
        await it.until(lambda: it.app.settings.slots == 4, "the setting")
        it.app.screen.query_one("#set-confirm_links", Switch).toggle()
        await it.until(lambda: it.app.settings.confirm_links is False, "the switch")
        it.app.screen.query_one("#set-theme", Select).value = "infraxa-light"
        await it.until(
            lambda: it.app.settings.theme == "infraxa-light" and it.app.theme == "infraxa-light", "the theme"
        )
    assert config.load(it.app.folders, environ={}).slots == 4


async def test_send_key_is_used_at_once(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await open_view(it, "f9", SettingsScreen)
        it.app.screen.query_one("#set-send_key", Select).value = "ctrl+enter"
        await it.until(lambda: it.chat.prompt.send_key == "ctrl+enter", "the key")


async def test_options_are_checked_and_esc_changes_nothing(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await open_view(it, "ctrl+t", ChatOptionsScreen)
        screen = it.app.screen
        screen.query_one("#system", TextArea).text = "Be brief."
        screen.query_one("#top_p", Input).value = "7"
        await it.until(lambda: "top_p must be from 0 to 1" in it.screen_text(), "the reason")
        await it.pilot.press("ctrl+s")
        assert it.app.screen is screen
        screen.query_one("#top_p", Input).value = "0.5"
        await it.pilot.press("ctrl+s")
        await it.until(
            lambda: it.chat.chat is not None and it.chat.chat.options.system == "Be brief.", "the options"
        )
        await open_view(it, "ctrl+t", ChatOptionsScreen)
        assert it.app.screen.query_one("#top_p", Input).value == "0.5"
        it.app.screen.query_one("#system", TextArea).text = "Something else"
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert it.chat.chat is not None
        assert it.chat.chat.options == ChatOptions(system="Be brief.", top_p=0.5)


def test_numbers_and_stop_texts_are_read() -> None:
    by_name = {field.name: field for field in FIELDS}
    assert parse_number(by_name["temperature"], " ") is None
    assert parse_number(by_name["temperature"], "0.5") == 0.5
    assert parse_number(by_name["seed"], "7") == 7
    for name, text in (
        ("seed", "1.5"),
        ("seed", "-1"),
        ("temperature", "nan"),
        ("top_p", "2"),
        ("top_k", "x"),
    ):
        with pytest.raises(ValueError, match=name):
            parse_number(by_name[name], text)
    assert parse_stop("") is None
    assert parse_stop('"END" "\\n\\n"') == ("END", "\n\n")
    for text in ("END", '"open', '""', "[1]"):
        with pytest.raises(ValueError, match="quotes"):
            parse_stop(text)


async def test_the_log_has_the_native_lines_and_can_be_filtered(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        it.app.log_book.add("infraxa", "[bold]no markup[/bold]\x1b[31m")
        await open_view(it, "ctrl+l", LogScreen)
        await it.until(lambda: "[bold]no markup[/bold][31m" in it.screen_text(), "the line")
        await it.type("no markup")
        await it.until(lambda: "llama" not in it.screen_text().replace("llama.cpp", ""), "fewer lines")
        it.app.log_book.add("engine", "another no markup")
        await it.until(lambda: "another no markup" in it.screen_text(), "the new line")
        assert any(entry.source == "engine" and "llama" in entry.text for entry in it.app.log_book.entries)


def test_the_log_book_is_bounded_and_clean() -> None:
    book = LogBook(clock=lambda: 0.0)
    for number in range(KEPT + 10):
        book.add("engine", f"line {number}\x07")
    assert len(book.entries) == KEPT
    assert book.entries[-1].text == f"line {KEPT + 9}"
    book.add("engine", "x" * 10_000)
    assert len(book.entries[-1].text) == 2000


async def test_a_view_gives_way_to_another_and_its_key_closes_it(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await open_view(it, "f9", SettingsScreen)
        await it.pilot.press("ctrl+l")
        await it.until(lambda: isinstance(it.app.screen, LogScreen), "the log")
        assert len(it.app.screen_stack) == 2
        await it.pilot.press("ctrl+l")
        await it.until(lambda: it.app.screen is it.chat, "the chat")


async def test_a_model_of_the_palette_is_used(tmp_path: Path) -> None:
    async with shell(tmp_path, settings=Settings(online=False, threads=1, slots=1)) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("ctrl+n")
        await it.pilot.press("ctrl+p")
        await it.type("chat: 2+2")
        await it.until(lambda: "Chat: What is 2+2?" in it.screen_text(), "the chat in the palette")
        await it.pilot.press("enter")
        await it.until(lambda: it.said("What is 2+2?"), "the chat")


def test_links_are_cleaned_and_only_some_are_opened() -> None:
    assert safe_link("https://a\x1b[31m/\u202eb\n c") == "https://a[31m/bc"
    assert all(map(may_open, ("http://a", "HTTPS://a", "mailto:a@b")))
    assert not any(
        map(may_open, ("file:///etc", "javascript:alert(1)", "data:text/html,x", "a.b", "http[://"))
    )


def test_export_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_target("What is  2+2?/..") == tmp_path / "what-is-2-2.md"
    assert default_target("…") == tmp_path / "chat.md"
    assert check_target("") and "folder" in check_target(str(tmp_path))
    file = tmp_path / "a.md"
    assert check_target(str(file)) == ""
    assert write(file, "one") == file and file.read_text() == "one"
    assert check_target(str(file)).startswith("confirm:")
    write(file, "two")
    assert file.read_text() == "two" and [path.name for path in tmp_path.iterdir()] == ["a.md"]
