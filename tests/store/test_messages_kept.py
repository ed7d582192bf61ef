"""Single messages: written as they stream, ended, gone on with; and the errors for what is not there."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from infraxa.store.chats import create_chat, get_chat, list_chats
from infraxa.store.db import Connection
from infraxa.store.messages import (
    add_message,
    append_text,
    finish_message,
    get_message,
    keep_facts,
    later_readers,
    mark_interrupted,
    resume_message,
    select_sibling,
    shown_branch,
)
from infraxa.store.records import AnswerFacts, MessageState, Reader, StoreError

FACTS = AnswerFacts(model="guide", finish="stop", n_prompt=10, n_out=3, first_token_ms=12.5, decode_ms=40.0)


def streaming(conn: Connection) -> str:
    chat = create_chat(conn)
    question = add_message(conn, chat.id, None, "user", "Why?")
    return add_message(conn, chat.id, question.id, "assistant", state="streaming").id


def test_text_is_there_while_it_grows(conn: Connection) -> None:
    answer = streaming(conn)
    for number in range(12):
        append_text(conn, answer, f"{number} ")
        text = "".join(f"{n} " for n in range(number + 1))
        assert get_message(conn, answer).content == text
        assert shown_branch(conn, get_message(conn, answer).chat_id)[-1].message.content == text


@pytest.mark.parametrize("state", ["complete", "stopped", "failed"])
def test_the_end_keeps_text_facts_and_error(conn: Connection, state: MessageState) -> None:
    answer = streaming(conn)
    append_text(conn, answer, "Be")
    ended = finish_message(conn, answer, state, FACTS, "It broke. Mend it.", "cause")
    assert ended == get_message(conn, answer)
    assert (ended.content, ended.state, ended.facts, ended.error) == (
        "Because",
        state,
        FACTS,
        "It broke. Mend it.",
    )
    assert conn.execute("SELECT count(*) FROM pieces").fetchone()[0] == 0
    assert get_chat(conn, ended.chat_id).updated_at == list_chats(conn)[0].updated_at > ended.created_at


def test_facts_are_kept_while_it_is_written(conn: Connection) -> None:
    answer = streaming(conn)
    readers = AnswerFacts(readers=(Reader("7k2m", "maple"),))
    keep_facts(conn, answer, readers)
    keep_facts(conn, answer, msgspec.structs.replace(readers, model="m7"), "Be")
    append_text(conn, answer, "cause")
    found = get_message(conn, answer)
    assert (found.content, found.state) == ("Because", "streaming")
    assert found.facts == AnswerFacts(model="m7", readers=(Reader("7k2m", "maple"),))
    finish_message(conn, answer, "complete", FACTS)
    with pytest.raises(StoreError) as error:
        keep_facts(conn, answer, readers, "more")
    assert error.value.code == "not_found"
    assert get_message(conn, answer).content == "Because" and get_message(conn, answer).facts == FACTS


def test_a_cut_answer_goes_on(conn: Connection) -> None:
    answer = streaming(conn)
    finish_message(conn, answer, "failed", FACTS, "No memory.", "Be")
    resumed = resume_message(conn, answer)
    assert (resumed.content, resumed.state, resumed.error, resumed.facts) == ("Be", "streaming", "", FACTS)
    append_text(conn, answer, "cau")
    assert get_message(conn, answer).content == "Becau"
    assert finish_message(conn, answer, "complete", text="se").content == "Because"


def test_what_a_crash_left_is_marked_once(conn: Connection) -> None:
    first, second = streaming(conn), streaming(conn)
    append_text(conn, first, "one ")
    append_text(conn, second, "two")
    append_text(conn, first, "and")
    assert mark_interrupted(conn) == [first, second]
    assert mark_interrupted(conn) == []
    assert [(m.content, m.state) for m in (get_message(conn, first), get_message(conn, second))] == [
        ("one and", "interrupted"),
        ("two", "interrupted"),
    ]


def test_what_a_crash_left_can_go_on(conn: Connection) -> None:
    answer = streaming(conn)
    append_text(conn, answer, "Be")
    mark_interrupted(conn)
    assert resume_message(conn, answer).content == "Be"
    append_text(conn, answer, "cau")
    assert finish_message(conn, answer, "complete", text="se").content == "Because"


def test_what_is_not_there_or_not_being_written(conn: Connection) -> None:
    answer = streaming(conn)
    chat_id = get_message(conn, answer).chat_id
    other = create_chat(conn)
    finish_message(conn, answer, "complete", text="Done")
    question = shown_branch(conn, chat_id)[0].message.id
    attempts: list[Callable[[], object]] = [
        lambda: get_message(conn, "nothing"),
        lambda: append_text(conn, "nothing", "x"),
        lambda: append_text(conn, answer, "x"),
        lambda: finish_message(conn, answer, "failed"),
        lambda: finish_message(conn, answer, "failed", text="x"),
        lambda: resume_message(conn, question),
        lambda: select_sibling(conn, "nothing"),
        lambda: shown_branch(conn, "nothing"),
        lambda: add_message(conn, "nothing", None, "user", "x"),
        lambda: add_message(conn, chat_id, "nothing", "user", "x"),
        lambda: add_message(conn, other.id, answer, "user", "x"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError) as caught:
            attempt()
        assert caught.value.code == "not_found"
        assert caught.value.remedy
    assert not conn.in_transaction
    assert get_message(conn, answer).content == "Done"
    assert conn.execute("SELECT count(*) FROM messages").fetchone()[0] == 2


def test_editing_and_regenerating_add_versions(conn: Connection) -> None:
    chat = create_chat(conn)
    question = add_message(conn, chat.id, None, "user", "Q")
    first = add_message(conn, chat.id, question.id, "assistant", "A1")
    follow = add_message(conn, chat.id, first.id, "user", "F")
    second = add_message(conn, chat.id, question.id, "assistant", "A2")
    edited = add_message(conn, chat.id, None, "user", "Q, edited")

    def shown() -> list[tuple[str, int, int]]:
        return [(t.message.content, t.index, len(t.sibling_ids)) for t in shown_branch(conn, chat.id)]

    assert shown() == [("Q, edited", 2, 2)]
    select_sibling(conn, question.id)
    assert shown() == [("Q", 1, 2), ("A2", 2, 2)]
    branch = select_sibling(conn, first.id)
    assert [turn.message.content for turn in branch] == ["Q", "A1", "F"]
    assert branch == shown_branch(conn, chat.id)
    assert branch[1].sibling_ids == (first.id, second.id)
    assert branch[0].sibling_ids == (question.id, edited.id)
    assert get_chat(conn, chat.id).head_id == follow.id


def test_who_is_sent_a_chat_can_read_all_that_was_said_before(conn: Connection) -> None:
    maple, cedar, oak = Reader("m", "maple"), Reader("c", "cedar"), Reader("o", "oak")

    def answered(question: str, *readers: Reader) -> str:
        answer = add_message(conn, chat_id, question, "assistant", "…", facts=AnswerFacts(readers=readers))
        return answer.id

    chat_id = create_chat(conn).id
    first = add_message(conn, chat_id, None, "user", "one").id
    told = answered(first, maple)
    second = add_message(conn, chat_id, told, "user", "two").id
    here = answered(second)
    elsewhere = answered(second, cedar, maple)  # another version
    third = add_message(conn, chat_id, here, "user", "three").id
    last = answered(third, oak)
    assert later_readers(conn, chat_id) == {
        first: (maple, cedar, oak),
        told: (cedar, maple, oak),
        second: (cedar, maple, oak),
        here: (oak,),
        third: (oak,),
    }
    assert not {last, elsewhere} & later_readers(conn, chat_id).keys()
    assert later_readers(conn, create_chat(conn).id) == {}
