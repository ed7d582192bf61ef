"""Chats: made, listed, renamed, deleted and brought back."""

from __future__ import annotations

import pytest

from infraxa.store.chats import (
    PREVIEW_LENGTH,
    TITLE_LENGTH,
    create_chat,
    delete_chat,
    get_chat,
    list_chats,
    purge_deleted,
    rename_chat,
    restore_chat,
    set_draft,
    set_options,
)
from infraxa.store.db import Connection
from infraxa.store.messages import add_message, append_text, finish_message, shown_branch
from infraxa.store.records import ChatOptions, StoreError

OPTIONS = ChatOptions(model="m", system="Be brief.", temperature=0.5, seed=1, stop=("a", "b"))


def test_what_is_set_is_kept(conn: Connection) -> None:
    chat = create_chat(conn, ChatOptions(top_k=3))
    assert get_chat(conn, chat.id) == chat
    assert chat.options.top_k == 3
    assert set_options(conn, chat.id, OPTIONS).options == OPTIONS
    assert rename_chat(conn, chat.id, "  Two\n words ").title == "Two words"
    set_draft(conn, chat.id, "not yet\n")
    kept = get_chat(conn, chat.id)
    assert (kept.title, kept.options, kept.draft) == ("Two words", OPTIONS, "not yet\n")
    assert kept.updated_at == chat.updated_at


def test_a_long_title_is_cut(conn: Connection) -> None:
    title = rename_chat(conn, create_chat(conn).id, "x" * 1000).title
    assert len(title) == TITLE_LENGTH
    assert title.endswith("…")


def test_the_first_question_names_the_chat(conn: Connection) -> None:
    named, unnamed = create_chat(conn, title="Mine"), create_chat(conn)
    for chat in (named, unnamed):
        first = add_message(conn, chat.id, None, "user", "What is\n a driver?")
        add_message(conn, chat.id, first.id, "user", "And a quote?")
    assert get_chat(conn, named.id).title == "Mine"
    assert get_chat(conn, unnamed.id).title == "What is a driver?"


def test_the_last_written_in_is_first_and_shows_its_last_words(conn: Connection) -> None:
    first, second = create_chat(conn), create_chat(conn)
    assert [chat.id for chat in list_chats(conn)] == [second.id, first.id]
    question = add_message(conn, first.id, None, "user", "one\ntwo")
    assert [(chat.id, chat.preview) for chat in list_chats(conn)] == [(first.id, "one two"), (second.id, "")]
    answer = add_message(conn, first.id, question.id, "assistant", state="streaming")
    append_text(conn, answer.id, "long " * 1000)
    assert list_chats(conn, limit=1)[0].preview == "one two"
    finish_message(conn, answer.id, "complete")
    preview = list_chats(conn)[0].preview
    assert preview.startswith("long long")
    assert len(preview) <= PREVIEW_LENGTH
    add_message(conn, second.id, None, "user", "later")
    assert [chat.id for chat in list_chats(conn)] == [second.id, first.id]
    assert len(list_chats(conn, limit=1)) == 1


def test_renaming_and_options_do_not_move_a_chat_up(conn: Connection) -> None:
    first, second = create_chat(conn), create_chat(conn)
    rename_chat(conn, first.id, "a")
    set_options(conn, first.id, OPTIONS)
    set_draft(conn, first.id, "a")
    assert [chat.id for chat in list_chats(conn)] == [second.id, first.id]


def test_deleting_can_be_undone(conn: Connection) -> None:
    chat = create_chat(conn, OPTIONS, "Kept")
    message = add_message(conn, chat.id, None, "user", "Hello")
    before = get_chat(conn, chat.id)
    delete_chat(conn, chat.id)
    assert list_chats(conn) == []
    for use in (get_chat, shown_branch, delete_chat):
        with pytest.raises(StoreError) as caught:
            use(conn, chat.id)
        assert caught.value.code == "not_found"
    assert restore_chat(conn, chat.id) == before
    assert [turn.message for turn in shown_branch(conn, chat.id)] == [message]
    assert restore_chat(conn, chat.id) == before


def test_an_answer_that_runs_while_its_chat_is_deleted_is_kept(conn: Connection) -> None:
    chat = create_chat(conn)
    answer = add_message(conn, chat.id, None, "assistant", state="streaming")
    delete_chat(conn, chat.id)
    append_text(conn, answer.id, "still ")
    finish_message(conn, answer.id, "stopped", text="here")
    restore_chat(conn, chat.id)
    assert shown_branch(conn, chat.id)[0].message.content == "still here"


def test_purging_takes_only_what_was_deleted_long_ago(conn: Connection) -> None:
    kept, recent, old = (create_chat(conn) for _ in range(3))
    parent = None
    # Deeper than SQLite lets one trigger lead to another.
    for _ in range(1500):
        parent = add_message(conn, old.id, parent, "user", "unforgettable").id
    running = add_message(conn, old.id, parent, "assistant", state="streaming")
    append_text(conn, running.id, "text")
    delete_chat(conn, old.id)
    for _ in range(500):
        conn.clock()
    delete_chat(conn, recent.id)
    assert purge_deleted(conn, 400) == 1
    assert purge_deleted(conn, 400) == 0
    for table in ("messages", "pieces", "messages_fts_docsize"):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
    assert [chat.id for chat in list_chats(conn)] == [kept.id]
    assert restore_chat(conn, recent.id).id == recent.id
    with pytest.raises(StoreError):
        restore_chat(conn, old.id)


def test_text_that_utf8_cannot_hold_is_kept_as_far_as_it_can_be(conn: Connection) -> None:
    broken = "a\udcffb"
    chat = create_chat(conn, ChatOptions(system="x"), title=broken)
    assert get_chat(conn, chat.id).title == "a\ufffdb"
    set_draft(conn, chat.id, broken)
    message = add_message(conn, chat.id, None, "user", broken)
    assert message.content == shown_branch(conn, chat.id)[0].message.content == "a\ufffdb"


def test_any_character_comes_back(conn: Connection) -> None:
    text = "\x00 a\x00b \r\n \x1b[31m 'quoted\" 😀 \ue000 -- ; %s {x}"
    chat = create_chat(conn)
    question = add_message(conn, chat.id, None, "user", text)
    answer = add_message(conn, chat.id, question.id, "assistant", state="streaming")
    append_text(conn, answer.id, text)
    finish_message(conn, answer.id, "complete", text=text)
    assert [turn.message.content for turn in shown_branch(conn, chat.id)] == [text, text + text]
