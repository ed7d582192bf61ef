"""Full-text search: what is found, in which order, and what cannot break it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infraxa.store.chats import create_chat, delete_chat, purge_deleted, rename_chat, restore_chat
from infraxa.store.db import Connection
from infraxa.store.messages import (
    add_message,
    append_text,
    finish_message,
    get_message,
    mark_interrupted,
    resume_message,
)
from infraxa.store.search import search


def say(conn: Connection, text: str, title: str = "t") -> str:
    return add_message(conn, create_chat(conn, title=title).id, None, "user", text).id


def found(conn: Connection, text: str) -> list[str | None]:
    return [hit.message_id for hit in search(conn, text)]


@pytest.mark.parametrize(
    ("words", "text", "matches"),
    [
        ("zebra", "A Zebra's stripes", True),
        ("zeb", "A zebra", True),
        ("bra", "A zebra", False),
        ("zeb stripes", "A zebra's stripes", False),
        ("zebra str", "A zebra's stripes", True),
        ("stripes zebra", "A zebra's stripes", True),
        ("zebra lion", "A zebra", False),
        ("uber", "Über alles", True),
        ("ÜBER", "uber alles", True),
        ("well-known", "a well-known fact", True),
        ("well-known", "known well", False),
        ("don't", "I don't know", True),
        ("C++ pointer", "pointers in C++", True),
        ("cafe\u0301", "the café", True),
        ("привет", "Привет, мир", True),
        ("日本", "日本語 text", True),
        ("x_y", "def x_y(): pass", True),
        ("NEAR(zebra", "near zebra", True),
        ("zebra OR lion", "zebra", False),
        ("content:zebra", "zebra", False),
        ("^zebra", "a zebra", True),
        ('"zebra', "zebra", True),
        ("zebra*", "zebras", True),
        ("zebra ***", "zebras", True),
        ("a\0b", "a b", True),
    ],
)
def test_what_a_search_finds(conn: Connection, words: str, text: str, matches: bool) -> None:
    message = say(conn, text)
    assert found(conn, words) == ([message] if matches else [])


@pytest.mark.parametrize("words", ["", " \t\n", "***", '"', "''", "()", "\0", "_", "😀"])
def test_no_words_find_nothing(conn: Connection, words: str) -> None:
    say(conn, "anything 😀 _ ''")
    assert search(conn, words) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(st.characters()),
        st.lists(
            st.sampled_from(
                [
                    '"',
                    "'",
                    "*",
                    "(",
                    ")",
                    "AND",
                    "OR",
                    "NOT",
                    "NEAR",
                    "^",
                    ":",
                    "-",
                    "+",
                    "{",
                    "}",
                    "a",
                    ",",
                    "\0",
                    " ",
                ]
            )
        ).map(" ".join),
    )
)
def test_any_input_is_safe(conn: Connection, words: str) -> None:
    search(conn, words)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab \ue000\ue001", max_size=30))
def test_marks_are_around_matches_only(conn: Connection, text: str) -> None:
    chat = create_chat(conn).id
    add_message(conn, chat, None, "user", text + " needle " + text)
    (hit,) = [hit for hit in search(conn, "needle", limit=10_000) if hit.chat_id == chat and hit.message_id]
    assert hit.snippet.count("\ue000needle\ue001") == 1
    assert hit.snippet.count("\ue000") == hit.snippet.count("\ue001") == 1


def test_a_snippet_is_the_words_around_the_match(conn: Connection) -> None:
    say(conn, "before " * 100 + "the needle here " + "after " * 100)
    (hit,) = search(conn, "needle")
    assert "before the \ue000needle\ue001 here after" in hit.snippet
    assert hit.snippet.startswith("…")
    assert hit.snippet.endswith("…")
    assert len(hit.snippet) < 200


def test_titles_come_first_and_messages_by_rank(conn: Connection) -> None:
    weak = say(conn, "zebra " + "and many other words " * 20)
    strong = say(conn, "zebra zebra zebra")
    titled = create_chat(conn, title="Zebra crossing")
    hits = search(conn, "zebra")
    assert [hit.message_id for hit in hits] == [None, strong, weak]
    assert (hits[0].chat_id, hits[0].chat_title, hits[0].snippet) == (
        titled.id,
        "Zebra crossing",
        "\ue000Zebra\ue001 crossing",
    )
    assert [hit.message_id for hit in search(conn, "zebra", limit=2)] == [None, strong]
    assert [hit.message_id for hit in search(conn, "zebra", limit=1)] == [None]


def test_many_titles_do_not_crowd_out_the_messages(conn: Connection) -> None:
    for number in range(30):
        say(conn, f"zebra {number}", title="zebra")
    hits = search(conn, "zebra", limit=20)
    assert [hit.message_id is None for hit in hits] == [True] * 5 + [False] * 15


def test_titles_follow_renaming(conn: Connection) -> None:
    chat = create_chat(conn, title="Zebra")
    rename_chat(conn, chat.id, "Lion")
    assert found(conn, "zebra") == []
    assert found(conn, "lion") == [None]


def test_deleted_chats_are_left_out(conn: Connection) -> None:
    message = say(conn, "zebra", title="zebra")
    chat = get_message(conn, message).chat_id
    assert found(conn, "zebra") == [None, message]
    delete_chat(conn, chat)
    assert found(conn, "zebra") == []
    restore_chat(conn, chat)
    assert found(conn, "zebra") == [None, message]
    delete_chat(conn, chat)
    assert purge_deleted(conn, -1000) == 1
    assert found(conn, "zebra") == []
    conn.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")


def test_an_answer_is_found_when_it_has_ended_and_others_all_the_while(conn: Connection) -> None:
    question = say(conn, "zebra?")
    chat = get_message(conn, question).chat_id
    answer = add_message(conn, chat, question, "assistant", state="streaming").id
    for piece in ("A ze", "bra has ", "stripes"):
        append_text(conn, answer, piece)
        assert found(conn, "zebra") == [question]
    finish_message(conn, answer, "stopped")
    assert set(found(conn, "zebra")) == {question, answer}
    # Going on does not make what was found before vanish, nor does it find anything twice.
    resume_message(conn, answer)
    append_text(conn, answer, " and hooves")
    assert found(conn, "stripes") == [answer]
    assert found(conn, "hooves") == []
    assert mark_interrupted(conn) == [answer]
    assert found(conn, "hooves") == found(conn, "stripes") == [answer]
