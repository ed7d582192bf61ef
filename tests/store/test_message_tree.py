"""Whatever a person does to a chat, the tree of its messages holds: against a model in plain dictionaries."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infraxa.store.chats import create_chat, delete_chat, get_chat, restore_chat
from infraxa.store.db import connect
from infraxa.store.messages import (
    add_message,
    append_text,
    finish_message,
    get_message,
    mark_interrupted,
    resume_message,
    select_sibling,
    shown_branch,
)
from infraxa.store.records import MessageRole, MessageState

TEXTS = st.text(max_size=20)


@dataclass(frozen=True)
class Known:
    """What the model knows of a message."""

    parent: str | None
    role: MessageRole
    text: str
    state: MessageState


class MessageTree(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = itertools.count(1_700_000_000_000).__next__
        self.randbytes = random.Random(1).randbytes
        self.conn = connect(self.folder, clock=self.clock, randbytes=self.randbytes)
        self.chat = create_chat(self.conn).id
        # A second chat in the same tables, which nothing here may touch.
        self.other = create_chat(self.conn).id
        add_message(self.conn, self.other, None, "user", "other")
        self.known: dict[str, Known] = {}
        self.head: str | None = None

    def teardown(self) -> None:
        if hasattr(self, "conn"):
            # Raises when the full-text index does not hold exactly the words of the tables.
            for table in ("messages_fts", "chats_fts"):
                self.conn.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
            self.conn.close()
            shutil.rmtree(self.folder)

    def pick(self, data: st.DataObject, *states: MessageState) -> str | None:
        ids = [id_ for id_, known in self.known.items() if not states or known.state in states]
        return data.draw(st.sampled_from(ids)) if ids else None

    @rule(data=st.data(), text=TEXTS, streams=st.booleans(), at_root=st.booleans())
    def add(self, data: st.DataObject, text: str, streams: bool, at_root: bool) -> None:
        parent = None if at_root else self.pick(data)
        role: MessageRole = "assistant" if streams else "user"
        state: MessageState = "streaming" if streams else "complete"
        message = add_message(self.conn, self.chat, parent, role, text, state)
        self.known[message.id] = Known(parent, role, text, state)
        self.head = message.id

    @rule(data=st.data(), text=TEXTS)
    def append(self, data: st.DataObject, text: str) -> None:
        if (id_ := self.pick(data, "streaming")) is not None:
            append_text(self.conn, id_, text)
            self.known[id_] = replace(self.known[id_], text=self.known[id_].text + text)

    @rule(data=st.data(), state=st.sampled_from(["complete", "stopped", "failed"]), text=TEXTS)
    def finish(self, data: st.DataObject, state: MessageState, text: str) -> None:
        if (id_ := self.pick(data, "streaming")) is not None:
            finish_message(self.conn, id_, state, text=text)
            self.known[id_] = replace(self.known[id_], text=self.known[id_].text + text, state=state)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        id_ = self.pick(data, "stopped", "failed", "interrupted")
        if id_ is not None and self.known[id_].role == "assistant":
            resume_message(self.conn, id_)
            self.known[id_] = replace(self.known[id_], state="streaming")

    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        if (id_ := self.pick(data)) is not None:
            select_sibling(self.conn, id_)
            below = {id_}
            for other, known in self.known.items():  # parents come before their children
                if known.parent in below:
                    below.add(other)
            self.head = max(below)

    @precondition(lambda self: self.known)
    @rule(clean=st.booleans())
    def start_again(self, clean: bool) -> None:
        self.conn.close()
        self.conn = connect(self.folder, clock=self.clock, randbytes=self.randbytes)
        if not clean:
            mark_interrupted(self.conn)
            for id_, known in self.known.items():
                if known.state == "streaming":
                    self.known[id_] = replace(known, state="interrupted")

    @rule()
    def delete_and_undo(self) -> None:
        delete_chat(self.conn, self.chat)
        restore_chat(self.conn, self.chat)

    @invariant()
    def nothing_is_lost_or_overwritten(self) -> None:
        for id_, known in self.known.items():
            message = get_message(self.conn, id_)
            assert Known(message.parent_id, message.role, message.content, message.state) == known
        (count,) = self.conn.execute(
            "SELECT count(*) FROM messages WHERE chat_id = ?", (self.chat,)
        ).fetchone()
        assert count == len(self.known)
        assert [turn.message.content for turn in shown_branch(self.conn, self.other)] == ["other"]

    @invariant()
    def the_branch_is_the_way_from_the_root_to_the_head(self) -> None:
        path: list[str] = []
        at = self.head
        while at is not None:
            path.insert(0, at)
            at = self.known[at].parent
        branch = shown_branch(self.conn, self.chat)
        assert [turn.message.id for turn in branch] == path
        assert get_chat(self.conn, self.chat).head_id == self.head
        for turn in branch:
            # Dictionaries keep the order in which messages were added.
            siblings = [i for i, known in self.known.items() if known.parent == turn.message.parent_id]
            assert list(turn.sibling_ids) == siblings
            assert turn.sibling_ids[turn.index - 1] == turn.message.id
            assert turn.message == get_message(self.conn, turn.message.id)


TestMessageTree = MessageTree.TestCase
TestMessageTree.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
