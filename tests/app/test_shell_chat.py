"""The chat view with the real node: asking, the list of chats, what is kept, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from infraxa.app.config import Settings
from infraxa.app.events import AnswerGrew, Event
from infraxa.app.node import Node
from infraxa.app.tui.screens.dialogs import Ask, Confirm, Link
from infraxa.store.records import ChatOptions
from tests.app.shell import shell

LONG = "tell me a story"


async def test_a_question_is_typed_and_answered(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        answer = await it.ask("What is 2+2?")
        assert answer.state == "complete" and "4" in answer.content
        await it.until(
            lambda: "What is 2+2?" in it.screen_text() and "tok/s" in it.screen_text(), "the answer"
        )
        assert [row.title.plain for row in it.chat.chat_list.rows] == ["What is 2+2?"]
        assert it.chat.prompt.text == ""
        assert it.app.focused is it.chat.prompt.area


class SlowNode(Node):
    """A node whose store opens when the test says so."""

    opening = asyncio.Event()

    async def start(self) -> None:
        await self.opening.wait()
        await super().start()


async def test_what_is_sent_before_the_store_is_open_waits_and_is_sent(tmp_path: Path) -> None:
    SlowNode.opening = asyncio.Event()
    async with shell(tmp_path, node=SlowNode) as it:
        await it.type("What is 2+2?", "enter")
        await it.until(lambda: "then your message is sent" in it.screen_text(), "what is waited for")
        await it.type("and typed on")
        SlowNode.opening.set()
        await it.until(lambda: it.said("What is 2+2?") and not it.chat.running, "the answer")
        assert "4" in it.turns[-1].content
        assert it.chat.prompt.text == "and typed on"


async def test_an_example_question_is_asked_by_a_click(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.pilot.click("Question")
        await it.until(lambda: it.said("What is infraxa?") and not it.chat.running, "the answer")


async def test_escape_stops_and_keeps_the_text(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        loaded = it.node.engine.loaded
        assert loaded is not None

        # Any token is as likely: the answer goes on to the end of the context.
        chat = await it.node.create_chat()
        endless = ChatOptions(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
        await it.node.set_chat_options(chat.id, endless)
        await it.chat.open_chat(chat.id)

        def hold(event: Event) -> None:
            # The tiny model is faster than a key can be pressed: hold it after its first word.
            if isinstance(event, AnswerGrew):
                os.kill(loaded.pid, signal.SIGSTOP)

        end = it.node.subscribe(hold)
        await it.type(LONG, "enter")
        await it.until(lambda: any(p.n_out for p in it.chat.running.by_chat.values()), "the first word")
        await it.until(lambda: "Esc" in it.screen_text(), "how it is stopped")
        await it.pilot.press("escape")
        await it.pilot.pause()
        end()
        os.kill(loaded.pid, signal.SIGCONT)
        await it.until(lambda: bool(it.turns) and not it.chat.running, "the end")
        last = it.turns[-1]
        assert last.state == "stopped" and last.content
        # The rest is as long as the context else: half a minute where others use the processor too.
        await it.node.set_chat_options(chat.id, msgspec.structs.replace(endless, max_tokens=40))
        await it.pilot.press("f5")
        await it.until(lambda: it.turns[-1].state in ("complete", "failed"), "the rest")
        assert it.turns[-1].id == last.id and it.turns[-1].content.startswith(last.content)
        assert len(it.turns[-1].content) > len(last.content)


async def test_regenerate_and_edit_add_versions(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        first = it.turns[-1]
        await it.pilot.press("ctrl+r")
        await it.until(lambda: it.turns[-1].id != first.id and not it.chat.running, "another answer")
        assert len(it.chat.shown_turns[-1].sibling_ids) == 2
        await it.pilot.press("f4")
        assert it.chat.prompt.text == "What is 2+2?"
        await it.pilot.press("ctrl+u")
        await it.ask("What is 3+4?")
        assert "7" in it.turns[-1].content
        assert len(it.chat.shown_turns[0].sibling_ids) == 2


async def test_chats_are_renamed_searched_and_opened(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("f2")
        await it.until(lambda: isinstance(it.app.screen, Ask), "the dialog")
        it.app.screen.query_one(Input).value = "Sums"
        await it.pilot.press("enter")
        await it.until(lambda: [row.title.plain for row in it.chat.chat_list.rows] == ["Sums"], "the title")
        await it.pilot.press("ctrl+n")
        await it.until(lambda: it.chat.chat is None, "an empty conversation")
        await it.ask("What is a driver?")
        await it.pilot.press("ctrl+f")
        await it.type("driver")
        await it.until(lambda: len(it.chat.chat_list.rows) >= 1 and "driver" in it.screen_text(), "hits")
        assert {row.chat_id for row in it.chat.chat_list.rows} == {it.chat.chat.id if it.chat.chat else ""}
        await it.pilot.press("escape")
        await it.until(lambda: len(it.chat.chat_list.rows) == 2, "all chats")
        await it.pilot.press("alt+down")
        await it.until(lambda: bool(it.turns) and it.turns[0].content == "What is 2+2?", "the other chat")


async def test_a_deleted_chat_comes_back_by_ctrl_z(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("f8")
        await it.until(lambda: it.chat.chat is None and not it.chat.chat_list.rows, "the empty list")
        assert any("ctrl+z" in text for text in it.toasts)
        await it.pilot.press("ctrl+z")
        await it.until(lambda: it.said("What is 2+2?") and len(it.chat.chat_list.rows) == 1, "the chat")


async def test_each_ctrl_z_brings_one_deleted_chat_back(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("ctrl+n")
        await it.ask("hello")
        await it.pilot.press("ctrl+b", "ctrl+b", "f8")
        await it.until(lambda: len(it.toasts) == 1 and len(it.chat.chat_list.rows) == 1, "one chat")
        await it.pilot.press("f8")
        await it.until(lambda: len(it.toasts) == 2 and not it.chat.chat_list.rows, "the empty list")
        await it.pilot.press("ctrl+z")
        await it.until(lambda: it.said("What is 2+2?"), "the one deleted last")
        await it.pilot.press("ctrl+z")
        await it.until(lambda: it.said("hello") and len(it.chat.chat_list.rows) == 2, "the other")


async def test_work_that_is_given_up_before_it_begins_is_closed(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        begun: list[int] = []

        async def work(number: int) -> None:
            begun.append(number)

        for number in range(3):  # pytest takes the warning that a coroutine was never awaited for a failure
            it.app.attempt(work(number), group="same", exclusive=True)
        it.chat.query_one("#search", Input).value = "a"
        it.chat.query_one("#search", Input).value = "b"
        await it.until(lambda: begun == [2], "the last")


async def test_ctrl_z_means_the_text_once_something_was_typed(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("f8")
        await it.until(lambda: not it.chat.chat_list.rows, "the empty list")
        await it.type("hello", "ctrl+z")
        await it.until(lambda: it.chat.prompt.text != "hello", "the undone typing")
        assert not it.chat.chat_list.rows
        await it.type("/undo", "enter")
        await it.until(lambda: len(it.chat.chat_list.rows) == 1, "the chat")


async def test_export_writes_markdown_and_asks_before_it_replaces(tmp_path: Path) -> None:
    target = tmp_path / "out.md"
    target.write_text("mine")
    async with shell(tmp_path / "data") as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Ask), "the dialog")
        box = it.app.screen.query_one(Input)
        assert box.value.endswith("what-is-2-2.md")
        box.value = str(tmp_path / "nowhere" / "x.md")
        await it.pilot.press("enter")
        await it.until(lambda: "There is no folder" in it.screen_text(), "the reason")
        box.value = str(target)
        await it.pilot.press("enter")
        await it.until(lambda: "again to replace" in it.screen_text(), "the question")
        assert target.read_text() == "mine"
        await it.pilot.press("enter")
        await it.until(lambda: "What is 2+2?" in target.read_text(), "the file")


async def test_what_is_typed_is_kept_per_chat_and_over_a_restart(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.type("half a thought")
        await it.pilot.press("ctrl+n")
        await it.until(lambda: it.chat.chat is None, "an empty conversation")
        assert it.chat.prompt.text == ""
        await it.pilot.press("alt+down")
        await it.until(lambda: it.chat.prompt.text == "half a thought", "the draft")
        await it.type("s")
        await it.app.action_quit()
        await it.until(lambda: not it.app.is_running, "the end")
    async with shell(tmp_path) as again:
        await again.until(lambda: again.chat.prompt.text == "half a thoughts", "the draft")
        assert again.said("What is 2+2?")


async def test_what_is_typed_in_a_new_chat_is_kept_too(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.type("never sent")
        await it.app.action_quit()
        await it.until(lambda: not it.app.is_running, "the end")
    async with shell(tmp_path) as again:
        await again.until(lambda: again.chat.prompt.text == "never sent", "the draft")


async def test_options_of_a_new_chat_are_used_from_its_first_message(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.pilot.press("ctrl+t")
        await it.until(lambda: type(it.app.screen).__name__ == "ChatOptionsScreen", "the options")
        it.app.screen.query_one("#max_tokens", Input).value = "3"
        await it.pilot.press("ctrl+s")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        answer = await it.ask("What is infraxa?")
        assert answer.facts is not None and answer.facts.n_out == 3
        assert it.chat.chat is not None and it.chat.chat.options == ChatOptions(max_tokens=3)


async def test_quit_asks_only_while_an_answer_is_running(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.type(LONG, "enter")
        await it.until(lambda: bool(it.chat.running) or bool(it.turns), "the answer")
        await it.pilot.press("ctrl+q")
        await it.pilot.pause()
        if isinstance(it.app.screen, Confirm):
            await it.pilot.press("escape")
            await it.until(lambda: it.app.screen is it.chat, "the chat")
            await it.until(lambda: not it.chat.running, "the end of the answer")
            await it.pilot.press("ctrl+q")
        await it.until(lambda: not it.app.is_running, "the end")


async def test_ctrl_c_copies_a_selection_and_quits_when_pressed_twice(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.type("hello")
        it.chat.prompt.area.select_all()
        await it.pilot.press("ctrl+c")
        await it.until(lambda: "copied" in it.screen_text(), "the word")
        assert it.app.clipboard == "hello"
        it.chat.prompt.area.move_cursor((0, 0))
        await it.pilot.press("ctrl+c")
        await it.until(lambda: "again to quit" in it.screen_text(), "the hint")
        await it.pilot.press("ctrl+c")
        await it.until(lambda: not it.app.is_running, "the end")


async def test_a_link_is_shown_whole_before_it_is_opened(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        opened: list[str] = []
        it.app.open_url = lambda url, **_: opened.append(url)  # type: ignore[method-assign] # the browser is the outside world
        link = "https://example.org/a\x1b]8;;b?q=1"
        it.chat.post_message(it.chat.conversation.LinkClicked(link))
        await it.until(lambda: isinstance(it.app.screen, Link), "the dialog")
        assert "https://example.org/a]8;;b?q=1" in it.screen_text()
        assert opened == []
        await it.pilot.click("#open")
        await it.until(lambda: opened == ["https://example.org/a]8;;b?q=1"], "the browser")
        it.chat.post_message(it.chat.conversation.LinkClicked("file:///etc/passwd"))
        await it.until(lambda: isinstance(it.app.screen, Link), "the dialog")
        assert not it.app.screen.query("#open")


async def test_an_answer_in_another_chat_is_marked_and_goes_on(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        chat = await it.node.create_chat()
        answer = await it.node.send(chat.id, LONG)
        await it.until(lambda: not it.chat.running, "the end")
        await it.chat.open_chat(chat.id)
        assert it.turns[-1].id == answer and it.turns[-1].content


@pytest.mark.parametrize(("size", "shown"), [((120, 36), True), ((80, 24), False)])
async def test_the_list_is_a_drawer_where_there_is_no_room(
    tmp_path: Path, size: tuple[int, int], shown: bool
) -> None:
    async with shell(tmp_path, size=size) as it:
        side = it.chat.query_one("#side")
        assert side.display is shown
        await it.pilot.press("ctrl+b")
        await it.pilot.pause()
        assert side.display is not shown
        await it.pilot.press("ctrl+b")
        await it.pilot.pause()
        assert side.display is shown
        assert it.app.focused is (it.chat.chat_list if shown else it.chat.prompt.area)


async def test_forty_by_ten_can_be_used_and_less_says_what_is_needed(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(40, 10)) as it:
        await it.opened()
        answer = await it.ask("What is 2+2?")
        await it.until(lambda: answer.content.split()[0] in it.screen_text(), "the answer")
        await it.pilot.resize_terminal(30, 6)
        await it.until(lambda: "32×8" in it.screen_text(), "the line")


async def test_the_model_that_cannot_load_is_a_reason_in_the_status(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_text("this is no model")
    async with shell(
        tmp_path, settings=Settings(online=False, threads=1, model=str(tmp_path / "bad.gguf"))
    ) as it:
        await it.until(lambda: it.app.opened, "the store")
        await it.type("hi", "enter")
        await it.until(
            lambda: bool(it.turns) and not it.chat.running and it.turns[-1].state == "failed", "the failure"
        )
        assert it.turns[-1].error
        assert it.app.is_running


async def test_the_hints_and_the_new_button_can_be_clicked(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.ask("What is 2+2?")
        await it.pilot.click("#brand-new")
        await it.until(lambda: it.chat.chat is None, "an empty conversation")
        await it.pilot.click("ChatList", offset=(4, 0))
        await it.until(lambda: it.said("What is 2+2?"), "the chat")
        line = it.screen_text().splitlines()[-1]
        await it.pilot.click(offset=(line.index("F1 help") + 1, it.app.size.height - 1))
        await it.until(lambda: type(it.app.screen).__name__ == "HelpScreen", "the help")


async def test_a_defect_ends_the_app_in_one_line_and_keeps_everything(tmp_path: Path) -> None:
    async def fail(self: object, title: str = "") -> None:
        raise ZeroDivisionError("what was said is not repeated")

    with pytest.raises(ZeroDivisionError):
        async with shell(tmp_path) as it:
            await it.opened()
            await it.ask("What is 2+2?")
            it.chat.action_rename_chat = fail.__get__(it.chat)  # type: ignore[method-assign] # a defect
            await it.pilot.press("f2")
            await it.until(lambda: not it.app.is_running, "the end")
    assert it.app.return_code == 1
    assert "ZeroDivisionError" in it.app.last_words and "\n" not in it.app.last_words
    assert "not repeated" not in it.app.last_words
    await it.app.close_node()
    async with shell(tmp_path) as again:
        await again.until(lambda: again.said("What is 2+2?"), "the chat")


async def test_the_worker_is_killed_and_the_app_stays(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        loaded = it.node.engine.loaded
        assert loaded is not None
        os.kill(loaded.pid, signal.SIGKILL)
        await it.until(lambda: it.node.engine.state != "ready" or it.node.engine.loaded != loaded, "the loss")
        assert "4" in (await it.ask("What is 2+2?")).content
