"""What happens when somebody speaks: the question and the empty answer to it, whole or not at all.

Each function takes the connection first and is run by `Store.run`, which makes it one transaction.
"""

from __future__ import annotations

from typing import NamedTuple

from infraxa.store import chats, messages, state
from infraxa.store.db import Connection
from infraxa.store.records import AnswerFacts, Message


class Begun(NamedTuple):
    """An answer that is to be written, and what is said before it, oldest first."""

    answer: Message
    before: tuple[Message, ...]


def ask(conn: Connection, chat_id: str, text: str, facts: AnswerFacts) -> Begun:
    """Say `text` at the end of the shown branch. It joins the prompt history, and the draft is done with.

    Raises StoreError `not_found`.
    """
    chat = chats.get_chat(conn, chat_id)
    question = messages.add_message(conn, chat_id, chat.head_id, "user", text)
    state.add_prompt(conn, text)
    chats.set_draft(conn, chat_id, "")
    return answer(conn, question.id, facts)


def ask_instead(conn: Connection, question_id: str, text: str, facts: AnswerFacts) -> Begun:
    """Say `text` beside an earlier question. Raises StoreError `not_found`."""
    old = messages.get_message(conn, question_id)
    question = messages.add_message(conn, old.chat_id, old.parent_id, "user", text)
    state.add_prompt(conn, text)
    return answer(conn, question.id, facts)


def answer(conn: Connection, question_id: str, facts: AnswerFacts) -> Begun:
    """An empty answer to the question, beside those that it has. Raises StoreError `not_found`."""
    question = messages.get_message(conn, question_id)
    empty = messages.add_message(
        conn, question.chat_id, question.id, "assistant", state="streaming", facts=facts
    )
    return _begun(conn, empty)


def resume(conn: Connection, answer_id: str) -> Begun:
    """Take up the last answer of the shown branch where it ended. Raises StoreError `not_found`."""
    return _begun(conn, messages.resume_message(conn, answer_id))


def _begun(conn: Connection, answer: Message) -> Begun:
    shown = (turn.message for turn in messages.shown_branch(conn, answer.chat_id))
    return Begun(answer, tuple(message for message in shown if message.id != answer.id))
