"""A second app on the same folder: it shows the node of the first, and takes its place when that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from infraxa.app.control import opening
from infraxa.app.control.client import AttachedNode
from infraxa.app.events import AnswerGrew, AnswerStarted, EngineChanged, Event
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.widgets.model_card import ModelCard
from infraxa.app.tui.widgets.text import clean
from infraxa.engine.types import EngineStatus
from infraxa.store.lock import FolderLock
from infraxa.store.records import ChatOptions
from tests.app.shell import LIMIT, SETTINGS, Shell, shell

ENDLESS = ChatOptions(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
"""Talks nonsense until its context is full."""


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Node]:
    """The node of the first app."""
    node = Node(SETTINGS, Folders.find(tmp_path, {}))
    await node.start()
    yield node
    await node.close()


@contextlib.asynccontextmanager
async def held(owner: Node, chat_id: str) -> AsyncIterator[None]:
    """An answer that has begun and does not go on: the tiny model is faster than a key can be pressed."""
    async with asyncio.timeout(LIMIT):
        while owner.engine.state != "ready":  # noqa: ASYNC110 - what is waited for may have been told already
            await asyncio.sleep(0.01)
    loaded = owner.engine.loaded
    assert loaded is not None
    started, begun = asyncio.Event(), asyncio.Event()

    def hold(event: Event) -> None:
        if isinstance(event, AnswerStarted):
            os.kill(loaded.pid, signal.SIGSTOP)
            started.set()
        elif isinstance(event, AnswerGrew):
            begun.set()

    end = owner.subscribe(hold)
    try:
        await owner.send(chat_id, "tell me a story")
        await asyncio.wait_for(started.wait(), LIMIT)
        async with asyncio.timeout(LIMIT):
            while not begun.is_set():  # a few tokens at a time, so that it cannot come to its end
                os.kill(loaded.pid, signal.SIGCONT)
                await asyncio.sleep(0.002)
                os.kill(loaded.pid, signal.SIGSTOP)
                await asyncio.sleep(0.05)
        yield
    finally:
        end()
        with contextlib.suppress(ProcessLookupError):
            os.kill(loaded.pid, signal.SIGCONT)


async def taken_over(it: Shell) -> None:
    await it.until(lambda: it.app.opened and it.app.attached_to is None, "an own node")
    await it.opened()


async def test_it_says_whose_node_it_shows_and_streams_the_same_answer(owner: Node, tmp_path: Path) -> None:
    chat = await owner.create_chat()
    await owner.set_chat_options(chat.id, ENDLESS)
    await owner.remember_last_chat(chat.id)
    async with shell(tmp_path) as it:
        await it.opened()
        await it.until(lambda: f"attached to pid {os.getpid()}" in it.screen_text(), "whose node it is")
        await it.until(lambda: it.chat.chat is not None and it.chat.chat.id == chat.id, "the same chat")
        async with held(owner, chat.id):
            await it.until(lambda: len(it.turns) == 2 and bool(it.chat.running), "the answer of the other")
            await it.pilot.press("escape")
            await it.pilot.pause()
        await it.until(lambda: not it.chat.running and it.turns[-1].state == "stopped", "its end")
        assert it.turns[-1] == (await owner.branch(chat.id))[-1].message


async def test_an_answer_that_runs_already_is_shown_as_far_as_it_is(owner: Node, tmp_path: Path) -> None:
    chat = await owner.create_chat()
    await owner.set_chat_options(chat.id, ENDLESS)
    await owner.remember_last_chat(chat.id)
    async with contextlib.AsyncExitStack() as answering:
        await answering.enter_async_context(held(owner, chat.id))
        async with shell(tmp_path) as it:
            await it.until(lambda: len(it.turns) == 2 and bool(it.chat.running), "the chat")
            await it.until(lambda: it.chat.conversation.views[-1].source != "", "what it has said")
            await answering.aclose()
            await owner.stop(chat.id)
            await it.until(lambda: it.turns[-1].state != "streaming", "its end")
            assert it.turns[-1] == (await owner.branch(chat.id))[-1].message
            assert it.chat.conversation.views[-1].source == clean(it.turns[-1].content)
            assert not it.chat.running


async def test_it_takes_over_when_the_other_ends_and_keeps_what_is_shown_and_typed(
    owner: Node, tmp_path: Path
) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        first = await it.ask("What is 2+2?")
        await it.type("and typed on")
        await owner.close()
        await taken_over(it)
        await it.until(lambda: len(it.turns) == 2, "the conversation")
        assert it.turns[-1] == first and it.chat.prompt.text == "and typed on"
        assert "attached" not in it.screen_text()
        await it.pilot.press("ctrl+u")
        it.chat.prompt.text = ""
        assert "7" in (await it.ask("What is 3+4?")).content


async def test_an_answer_that_ends_with_the_other_can_go_on(owner: Node, tmp_path: Path) -> None:
    chat = await owner.create_chat()
    await owner.set_chat_options(chat.id, ENDLESS)
    await owner.remember_last_chat(chat.id)
    async with shell(tmp_path) as it:
        await it.until(lambda: it.chat.chat is not None, "the chat")
        async with held(owner, chat.id):
            await it.until(lambda: bool(it.chat.running), "the answer")
        await owner.close()
        await taken_over(it)
        await it.until(lambda: len(it.turns) == 2 and it.turns[-1].state == "stopped", "its end")
        assert not it.chat.running and it.chat.situation().continuable


async def test_what_is_sent_while_nobody_has_the_folder_waits(owner: Node, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await owner.close()
        lock = FolderLock.acquire(tmp_path)  # somebody who is slow to begin
        try:
            await it.until(lambda: not it.app.opened and "taking over" in it.screen_text(), "the loss")
            await it.type("What is 2+2?", "enter")
            await it.until(lambda: "then your message is sent" in it.screen_text(), "what is waited for")
        finally:
            lock.release()
        await taken_over(it)
        await it.until(lambda: it.said("What is 2+2?") and not it.chat.running, "the answer")


async def test_what_keeps_it_from_taking_over_is_said_and_can_be_tried_again(
    owner: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LEAVING_LIMIT", 0.2)
    async with shell(tmp_path, size=(160, 36)) as it:
        await it.opened()
        await owner.close()
        with FolderLock.acquire(tmp_path):
            await it.until(lambda: "F12 tries again: Another infraxa" in it.screen_text(), "the reason")
            await it.pilot.press("f12")
            await it.until(lambda: not it.app.problem, "another try")
            await it.until(lambda: bool(it.app.problem), "its end")
        await it.pilot.press("f12")
        await taken_over(it)
        assert not it.chat.situation().stranded


async def test_of_two_that_are_attached_one_takes_over_and_the_other_follows(
    owner: Node, tmp_path: Path
) -> None:
    async with shell(tmp_path) as one, shell(tmp_path) as other:
        await one.opened()
        await other.opened()
        await owner.close()

        def settled() -> bool:
            kinds = [type(it.app._node) for it in (one, other)]
            return sorted(kind.__name__ for kind in kinds) == [AttachedNode.__name__, Node.__name__]

        await other.until(settled, "one node and one that is attached to it")


async def test_what_another_process_changes_is_in_force_at_once(owner: Node, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await owner.change_setting("theme", "infraxa-light")
        await it.until(lambda: it.app.theme == "infraxa-light", "the theme")
        await owner.change_setting("send_key", "ctrl+enter")
        await it.until(lambda: it.chat.prompt.send_key == "ctrl+enter", "the key")
        await owner.change_setting("theme", "no such theme")
        await owner.change_setting("reduced_motion", False)
        await it.until(lambda: it.app.animation_level == "full", "the motion")
        assert it.app.theme == "infraxa-light"


async def test_an_app_hears_of_settings_that_another_process_changes(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        other = AttachedNode(SETTINGS, Folders.find(tmp_path, {}))
        await other.start()
        await other.change_setting("theme", "infraxa-light")
        await it.until(lambda: it.app.theme == "infraxa-light", "the theme")
        await other.close()


async def test_it_says_which_of_its_settings_are_not_used(owner: Node, tmp_path: Path) -> None:
    own = msgspec.structs.replace(SETTINGS, threads=3, theme="infraxa-light")
    async with shell(tmp_path, settings=own) as it:
        await it.until(lambda: any("its threads is used" in toast for toast in it.toasts), "the warning")
        assert it.app.theme == it.app.settings.theme == "infraxa-light"
        assert it.app.settings.threads == SETTINGS.threads


async def test_quitting_it_ends_no_answer(owner: Node, tmp_path: Path) -> None:
    chat = await owner.create_chat()
    await owner.set_chat_options(chat.id, ENDLESS)
    await owner.remember_last_chat(chat.id)
    async with shell(tmp_path) as it:
        await it.until(lambda: it.chat.chat is not None, "the chat")
        async with held(owner, chat.id):
            await it.until(lambda: bool(it.chat.running), "the answer")
            await it.pilot.press("ctrl+q")
            await it.until(lambda: not it.app.is_running, "the end")
            assert owner.answering(chat.id)


async def test_who_has_the_folder_and_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "COMING_LIMIT", 0.2)
    with FolderLock.acquire(tmp_path):
        app = InfraxaApp(SETTINGS, Folders.find(tmp_path, {}))
        async with app.run_test() as pilot:
            await Shell(app, pilot).until(lambda: not app.is_running, "the end")
    assert app.return_code == 1
    assert f"Another infraxa (pid {os.getpid()})" in app.last_words and "\n" not in app.last_words
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.close_node(), 5)


async def test_what_the_node_tells_while_the_app_ends_does_no_harm(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.app.chat_screen.query_one(ModelCard).remove()
        it.app._running = False  # as from the first moment of its end
        it.app._hear(EngineChanged(EngineStatus(state="ready")))
        it.app._running = True
