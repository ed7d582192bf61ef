"""What a person does in the first minutes, in a real terminal; and again after quitting."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Open, retype, started
from tests.e2e.terminal import Terminal


def ask(terminal: Terminal, text: str) -> None:
    terminal.send(text)
    terminal.wait_for(text.splitlines()[-1])
    terminal.press("enter")


def quit_app(terminal: Terminal) -> None:
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0, terminal.text


def test_ask_rename_search_export_quit_and_come_back(open_app: Open, tmp_path: Path) -> None:
    app = started(open_app())
    ask(app, "What is 2+2?")
    app.wait_for("The answer is 4")
    app.wait_for("tok/s")
    app.press("f2")
    app.wait_for("Rename the chat")
    retype(app, "my sums")
    app.press("enter")
    app.wait_gone("Rename the chat")
    app.wait_for("my sums")

    app.press("ctrl+n")
    app.wait_for("What is a driver?")  # one of the first questions
    ask(app, "what is the capital of France?")
    app.wait_for("Paris")

    app.press("ctrl+f")
    retype(app, "2+2")
    app.wait_for(lambda screen: "my sums" in screen and "The answer" in screen)
    app.press("down", "enter")
    app.wait_for("2 + 2 = 4")
    app.press("esc")

    app.press("ctrl+s")
    app.wait_for("Export")
    target = tmp_path / "sums.md"
    retype(app, str(target))
    app.press("enter")
    app.wait_gone("Cancel")
    app.wait_for(lambda _: target.exists())
    assert "The answer is 4" in target.read_text() and "# my sums" in target.read_text()
    quit_app(app)

    again = started(open_app())
    again.wait_for("my sums")
    again.wait_for("what is the capital")
    again.wait_for(lambda screen: "2 + 2 = 4" in screen or "Paris" in screen)
    quit_app(again)


def test_versions_are_beside_each_other(open_app: Open) -> None:
    app = started(open_app())
    ask(app, "What is 2+2?")
    app.wait_for("The answer is 4")
    app.wait_for("regenerate")
    app.press("ctrl+r")
    app.wait_for("2/2")
    app.press("f4")
    app.wait_for("editing an earlier message")
    retype(app, "What is 3+4?")
    app.press("enter")
    app.wait_for("The answer is 7")
    app.wait_gone("The answer is 4")
    app.wait_for("2/2")
    app.click("‹")
    app.wait_for("The answer is 4")
    quit_app(app)


def test_stop_keeps_the_text_and_the_answer_goes_on(open_app: Open, slow_model: Path) -> None:
    app = started(open_app(INFRAXA_MODEL=str(slow_model), INFRAXA_TEMPERATURE="0"))
    ask(app, "tell me something")
    app.wait_for("tok/s", seconds=60)  # while it streams
    app.wait_for(lambda screen: "slow" in screen)
    app.press("esc")
    app.wait_for("stopped")
    app.press("f5")
    app.wait_gone("stopped")
    app.press("esc")
    app.wait_for("stopped")
    app.press("ctrl+r")
    app.wait_for("2/2")
    app.press("esc")
    app.wait_for("stopped")
    quit_app(app)


def test_typing_goes_on_while_an_answer_streams(open_app: Open, slow_model: Path) -> None:
    app = started(open_app(INFRAXA_MODEL=str(slow_model)))
    ask(app, "go on for long")
    app.wait_for("tok/s", seconds=60)
    app.send("the next question")
    app.wait_for("the next question", seconds=10)
    app.press("esc")
    app.wait_for("stopped")
    assert "the next question" in app.text
    quit_app(app)
    # What was typed and not sent is still there.
    again = started(open_app())
    again.wait_for("the next question")
    quit_app(again)


def test_new_lines_and_pastes_never_send(open_app: Open) -> None:
    app = started(open_app())
    app.send("one")
    app.press("ctrl+j")
    app.send("two")
    app.press("alt+enter")
    app.paste("three\nfour\n\nfive\n")
    app.wait_for("five")
    assert "You" not in app.text
    app.press("enter")
    app.wait_for("You")
    app.wait_for("five")
    quit_app(app)


def test_delete_is_undone(open_app: Open) -> None:
    app = started(open_app())
    ask(app, "What is 5+6?")
    app.wait_for("The answer is 11")
    app.press("f8")
    app.wait_for("No chats yet")
    app.press("ctrl+z")
    app.wait_for("The answer is 11")
    quit_app(app)


def test_a_theme_is_chosen_by_slash_command_and_kept(open_app: Open, tmp_path: Path) -> None:
    app = started(open_app())
    app.send("/theme infraxa-light")
    app.press("enter")
    kept = tmp_path / "data" / "config.toml"
    app.wait_for(lambda _: kept.exists() and "infraxa-light" in kept.read_text())
    quit_app(app)
    again = open_app("config", "show", size=(120, 90))  # all settings fit
    assert again.wait_exit() == 0
    assert "infraxa-light" in again.text


def test_mouse_asks_a_first_question(open_app: Open) -> None:
    app = started(open_app())
    app.click("What is infraxa?")
    app.wait_for("tok/s")
    quit_app(app)
