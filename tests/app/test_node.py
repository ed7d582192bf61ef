"""Node, with the real engine and the real store: what a person asks for, and what is told and kept of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import AnswerEnded, AnswerGrew, AnswerStarted, BranchChanged, Event
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.prompting import prompt_messages
from infraxa.engine.guide import GUIDE_PATH
from infraxa.store.db import Connection
from infraxa.store.messages import get_message
from infraxa.store.records import ChatOptions, Message, StoreError

LONG = "tell me a story"
SETTINGS = Settings(online=False, threads=1, slots=2)


class Watched:
    """A node and everything it told."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        node.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[Event], bool], seconds: float = 60) -> Event:
        """The first event from now on, or already told, that satisfies the condition."""
        async with asyncio.timeout(seconds):
            seen = 0
            while True:
                while seen < len(self.events):
                    if condition(self.events[seen]):
                        return self.events[seen]
                    seen += 1
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, message_id: str) -> Message:
        event = await self.until(lambda e: isinstance(e, AnswerEnded) and e.message.id == message_id)
        assert isinstance(event, AnswerEnded)
        return event.message


def folders(path: Path) -> Folders:
    return Folders.find(path, {})


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    node = Node(SETTINGS, folders(tmp_path))
    watched = Watched(node)
    await node.start()
    try:
        yield watched
    finally:
        await node.close()


async def test_a_question_is_answered_told_and_kept(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    answer_id = await node.send(chat.id, "What is 2+2?")
    answer = await watched.ended(answer_id)
    assert "4" in answer.content
    assert answer.state == "complete"
    assert answer.facts is not None and answer.facts.model == "guide"
    assert answer.facts.n_prompt > 0 and answer.facts.n_out > 1
    grown = [e for e in watched.events if isinstance(e, AnswerGrew)]
    assert "".join(e.text for e in grown) == answer.content
    assert grown[-1].n_out <= answer.facts.n_out
    turns = await node.branch(chat.id)
    assert [turn.message.content for turn in turns] == ["What is 2+2?", answer.content]
    assert (await node.list_chats())[0].title == "What is 2+2?"
    assert await node.prompt_history() == ["What is 2+2?"]
    begun = next(e for e in watched.events if isinstance(e, AnswerStarted))
    assert begun.message.facts is not None and begun.message.facts.model == "guide"
    order = [type(e) for e in watched.events if isinstance(e, BranchChanged | AnswerStarted | AnswerEnded)]
    assert order == [BranchChanged, AnswerStarted, AnswerEnded]


async def test_a_follow_up_sees_the_turn_before(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    await watched.ended(await node.send(chat.id, "what is 20 + 11?"))
    answer = await watched.ended(await node.send(chat.id, "and now add 7"))
    assert "38" in answer.content
    assert answer.facts is not None and answer.facts.n_cached > 0


async def test_regenerate_and_edit_add_versions_and_lose_nothing(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    first = await watched.ended(await node.send(chat.id, "What is 2+2?"))
    second = await watched.ended(await node.regenerate(first.id))
    turns = await node.branch(chat.id)
    assert turns[1].sibling_ids == (first.id, second.id)
    assert turns[1].message.id == second.id
    edited = await watched.ended(await node.edit(turns[0].message.id, "What is 3+4?"))
    assert "7" in edited.content
    turns = await node.branch(chat.id)
    assert len(turns[0].sibling_ids) == 2 and turns[0].message.content == "What is 3+4?"
    await node.select_version(turns[0].sibling_ids[0])
    assert [t.message.id for t in await node.branch(chat.id)][1] == second.id
    await node.select_version(first.id)
    assert [t.message.content for t in await node.branch(chat.id)] == ["What is 2+2?", first.content]


async def test_stop_keeps_the_text_and_the_answer_can_go_on(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    await node.set_chat_options(chat.id, ChatOptions(max_tokens=400, temperature=0))
    answer_id = await node.send(chat.id, LONG)
    await watched.until(lambda e: isinstance(e, AnswerGrew) and e.n_out >= 3)
    await node.stop(chat.id)
    stopped = await watched.ended(answer_id)
    assert stopped.content and not node.answering(chat.id)
    if stopped.state == "complete":
        pytest.skip("the answer was over before it could be stopped")
    assert stopped.state == "stopped"
    watched.events.clear()
    assert await node.continue_answer(answer_id) == answer_id
    whole = await watched.ended(answer_id)
    assert whole.state == "complete"
    assert whole.content.startswith(stopped.content) and len(whole.content) > len(stopped.content)
    assert whole.facts is not None and stopped.facts is not None
    assert whole.facts.n_out > stopped.facts.n_out
    assert len(await node.branch(chat.id)) == 2


async def test_one_answer_at_a_time_in_a_chat(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    answer_id = await node.send(chat.id, LONG)
    with pytest.raises(NodeError) as caught:
        await node.send(chat.id, "and another thing")
    assert caught.value.code == "busy"
    await watched.ended(answer_id)
    assert len(await node.branch(chat.id)) == 2


async def test_two_chats_are_answered_at_the_same_time(watched: Watched) -> None:
    node = watched.node
    one, two = await node.create_chat(), await node.create_chat()
    ids = [await node.send(one.id, "What is 5+6?"), await node.send(two.id, "What is 7+8?")]
    answers = [await watched.ended(id_) for id_ in ids]
    assert "11" in answers[0].content and "15" in answers[1].content


async def test_the_worker_is_killed_in_mid_answer(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    answer_id = await node.send(chat.id, LONG)
    await watched.until(lambda e: isinstance(e, AnswerGrew) and bool(e.text))
    loaded = node.engine.loaded
    assert loaded is not None
    os.kill(loaded.pid, signal.SIGKILL)
    answer = await watched.ended(answer_id)
    if answer.state == "complete":
        pytest.skip("the answer was over before the worker could be killed")
    assert answer.state == "failed" and answer.content
    assert answer.facts is not None and answer.facts.error_code == "worker_died"
    assert "ended" in answer.error
    again = await watched.ended(await node.send(chat.id, "What is 2+2?"))
    assert "4" in again.content


async def test_a_conversation_over_the_context_says_so_and_drops_oldest_turns_when_asked(
    tmp_path: Path,
) -> None:
    node = Node(Settings(online=False, threads=1, slots=1, context=256), folders(tmp_path))
    watched = Watched(node)
    await node.start()
    try:
        chat = await node.create_chat()
        await node.set_chat_options(chat.id, ChatOptions(max_tokens=8))
        for _ in range(2):
            await watched.ended(await node.send(chat.id, "hello " * 100))
        failed = await watched.ended(await node.send(chat.id, "What is 2+2?"))
        assert failed.state == "failed" and failed.facts is not None
        assert failed.facts.error_code == "prompt_too_long" and "256" in failed.error
        fitted = await watched.ended(await node.regenerate(failed.id, drop_oldest=True))
        assert fitted.state == "complete" and fitted.facts is not None
        assert fitted.facts.dropped_turns > 0 and fitted.content
    finally:
        await node.close()


async def test_close_in_mid_answer_keeps_its_text(tmp_path: Path) -> None:
    node = Node(SETTINGS, folders(tmp_path))
    watched = Watched(node)
    await node.start()
    chat = await node.create_chat()
    await node.send(chat.id, LONG)
    await watched.until(lambda e: isinstance(e, AnswerGrew) and bool(e.text))
    await node.close()
    again = Node(SETTINGS, folders(tmp_path))
    await again.start()
    try:
        turn = (await again.branch(chat.id))[-1]
        assert turn.message.content and turn.message.state in ("stopped", "complete")
    finally:
        await again.close()


async def test_a_second_node_is_refused_with_the_first_one_named(watched: Watched) -> None:
    second = Node(SETTINGS, watched.node.folders)
    with pytest.raises(StoreError) as caught:
        await second.start()
    await second.close()
    assert caught.value.code == "locked" and str(os.getpid()) in caught.value.message


async def test_a_model_that_is_not_there_is_a_failed_answer_with_a_reason(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    await node.set_chat_options(chat.id, ChatOptions(model="nowhere"))
    answer = await watched.ended(await node.send(chat.id, "hi"))
    assert answer.state == "failed" and "nowhere" in answer.error
    await node.set_chat_options(chat.id, ChatOptions())
    assert (await watched.ended(await node.regenerate(answer.id))).state == "complete"


async def test_a_model_in_use_is_not_replaced_for_another_chat(watched: Watched, tmp_path: Path) -> None:
    node = watched.node
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(GUIDE_PATH.read_bytes())
    await node.change_setting("models_loaded", 1)
    one, two = await node.create_chat(), await node.create_chat()
    await node.set_chat_options(two.id, ChatOptions(model=str(copy)))
    first = await node.send(one.id, LONG)
    # Whoever has the model in hand first keeps it: that is the first answer, and it may be a quick one.
    await watched.until(lambda event: isinstance(event, AnswerGrew) and event.message_id == first)
    async with node.models.held(await node.models.entry("guide"), node.settings):
        second = await node.send(two.id, "What is 2+2?")
        refused = await watched.ended(second)
    assert (await watched.ended(first)).state == "complete"
    assert refused.state == "failed" and refused.facts is not None and refused.facts.error_code == "busy"
    again = await watched.ended(await node.regenerate(second))
    assert "4" in again.content and again.facts is not None and again.facts.model == str(copy)
    assert node.engine.model == str(copy)


async def test_stop_before_the_answer_has_begun(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    sending = asyncio.ensure_future(node.send(chat.id, LONG))
    for _ in range(1000):
        if node.answering(chat.id):
            break
        await asyncio.sleep(0)
    await node.stop(chat.id)
    answer = await watched.ended(await sending)
    assert answer.state == "stopped" and not node.answering(chat.id)


async def test_what_was_sent_is_answered_though_the_sender_gave_up(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    sending = asyncio.ensure_future(node.send(chat.id, "What is 2+2?"))
    await asyncio.sleep(0)
    sending.cancel()
    await watched.until(lambda e: isinstance(e, AnswerEnded))
    turns = await node.branch(chat.id)
    assert len(turns) == 2 and turns[1].message.state == "complete"


async def test_an_end_that_could_not_be_stored_is_shown_and_stored_later(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    await watched.ended(await node.send(chat.id, "hello"))
    answer_id = await node.send(chat.id, "What is 2+2?")
    await node._store.run(only_read, True)
    whole = await watched.ended(answer_id)
    assert "not saved yet" in whole.error and "4" in whole.content
    assert (await node.branch(chat.id))[-1].message == whole
    assert (await node._store.run(get_message, answer_id)).state == "streaming"
    await node._store.run(only_read, False)
    kept = (await node.branch(chat.id))[-1].message
    assert kept.content == whole.content and kept.state == "complete" and not kept.error


async def test_a_defect_of_the_store_does_not_keep_the_chat_busy(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    answer_id = await node.send(chat.id, "What is 2+2?")
    await node._store.run(break_updates)
    answer = await watched.ended(answer_id)
    assert answer.state == "failed" and "4" in answer.content and "defect" in answer.error
    assert not node.answering(chat.id)


def only_read(conn: Connection, on: bool) -> None:
    """As if the disk could not be written any more."""
    conn.execute(f"PRAGMA query_only = {on}")


def break_updates(conn: Connection) -> None:
    """An error that the store takes for a defect of ours."""
    conn.execute(
        "CREATE TEMP TRIGGER broken BEFORE UPDATE ON messages BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )


async def test_going_on_in_vain_leaves_the_answer_as_it_was(tmp_path: Path) -> None:
    node = Node(Settings(online=False, threads=1, slots=1, context=64), folders(tmp_path))
    watched = Watched(node)
    await node.start()
    try:
        chat = await node.create_chat()
        answer = await watched.ended(await node.send(chat.id, "count to twelve in words and tell me a story"))
        await node.set_chat_options(chat.id, ChatOptions(model="nowhere"))
        watched.events.clear()
        assert await node.continue_answer(answer.id) == answer.id
        after = await watched.ended(answer.id)
        assert (after.state, after.facts, after.content) == (answer.state, answer.facts, answer.content)
        assert "nowhere" in after.error
    finally:
        await node.close()


async def test_another_context_comes_into_force_with_the_next_answer(watched: Watched) -> None:
    node = watched.node
    chat = await node.create_chat()
    await watched.ended(await node.send(chat.id, "hello"))
    await node.change_setting("context", 128)
    await watched.ended(await node.send(chat.id, "hello"))
    assert node.engine.loaded is not None and node.engine.loaded.n_ctx == 128


async def test_a_changed_model_file_is_not_used(watched: Watched, tmp_path: Path) -> None:
    node = watched.node
    path = tmp_path / "mine.gguf"
    path.write_bytes(GUIDE_PATH.read_bytes())
    entry = await node.add_model(path)
    assert node.current_model() == entry.name == "mine"
    path.touch()
    chat = await node.create_chat()
    answer = await watched.ended(await node.send(chat.id, "hello"))
    assert answer.state == "failed" and "changed" in answer.error
    await node.remove_model("mine")
    assert node.current_model() == "guide" and path.exists()


async def test_a_setting_is_kept_and_a_bad_one_refused(watched: Watched) -> None:
    await watched.node.change_setting("theme", "infraxa-light")
    assert watched.node.settings.theme == "infraxa-light"
    assert "infraxa-light" in watched.node.folders.config_file.read_text()
    with pytest.raises(NodeError):
        await watched.node.change_setting("slots", 0)
    assert watched.node.settings.slots == SETTINGS.slots


def said(role: str, content: str) -> Message:
    return Message("id", "chat", None, role, content, "complete", 0)  # type: ignore[arg-type] # a role of the test's


def test_prompts_leave_out_empty_answers_and_join_neighbours() -> None:
    prompt = prompt_messages("Be kind.", [said("user", "a"), said("assistant", " "), said("user", "b")])
    assert [(m.role, m.content) for m in prompt] == [("system", "Be kind."), ("user", "a\n\nb")]
    assert prompt_messages("  ", [said("user", "a")])[0].role == "user"
