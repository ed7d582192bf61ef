"""The messages of a chat: a tree in which editing or regenerating adds a sibling, and nothing is overwritten.

An answer that is being written keeps its text in `pieces`, a row for each addition: adding to one long value
would copy the whole of it every time. When it ends, its pieces become its content in one transaction.
Full-text search knows the content, so an answer is found once it has ended.

Each function takes the connection first and is run by `Store.run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from infraxa.store.chats import no_chat
from infraxa.store.db import Connection, transaction
from infraxa.store.records import (
    AnswerFacts,
    Message,
    MessageRole,
    MessageState,
    Reader,
    StoreError,
    Turn,
)
from infraxa.store.text import one_line, storable

NAME_LENGTH = 60
"""Characters of the first question that become the title of its chat."""

_PIECES = """(SELECT coalesce(group_concat(text, ''), '')
    FROM (SELECT text FROM pieces WHERE message = m.n ORDER BY seq))"""
_TEXT = f"CASE m.state WHEN 'streaming' THEN m.content || {_PIECES} ELSE m.content END"
_COLUMNS = f"m.id, m.chat_id, m.parent_id, m.role, {_TEXT}, m.state, m.created_at, m.facts, m.error"


def add_message(
    conn: Connection,
    chat_id: str,
    parent_id: str | None,
    role: MessageRole,
    content: str = "",
    state: MessageState = "complete",
    facts: AnswerFacts | None = None,
) -> Message:
    """Add a message below `parent_id` (None: the first of the chat) and show the branch that ends with it.

    The first question names a chat that has no title. Raises StoreError `not_found` for a chat or a parent
    that is not there.
    """
    content = storable(content)
    message = Message(
        id=conn.ids.new(),
        chat_id=chat_id,
        parent_id=parent_id,
        role=role,
        content=content,
        state=state,
        created_at=conn.clock(),
        facts=facts,
    )
    with transaction(conn):
        name = one_line(content, NAME_LENGTH) if role == "user" else ""
        if not _exists(conn, "SELECT 1 FROM chats WHERE id = ? AND deleted_at IS NULL", chat_id):
            raise no_chat()
        if parent_id is not None and not _exists(
            conn, "SELECT 1 FROM messages WHERE chat_id = ? AND id = ?", chat_id, parent_id
        ):
            raise no_message()
        conn.execute(
            """
            INSERT INTO messages (id, chat_id, parent_id, role, state, created_at, facts, error, content)
            VALUES (?, ?, ?, ?, ?, ?, ?, '', ?)
            """,
            (message.id, chat_id, parent_id, role, state, message.created_at, encoded_facts(facts), content),
        )
        conn.execute(
            """
            UPDATE chats SET head_id = ?, updated_at = ?, title = CASE title WHEN '' THEN ? ELSE title END
            WHERE id = ?
            """,
            (message.id, message.created_at, name, chat_id),
        )
    return message


def get_message(conn: Connection, message_id: str) -> Message:
    """The message with all the text it has so far. Raises StoreError `not_found`."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM messages m WHERE m.id = ?", (message_id,)).fetchone()
    if row is None:
        raise no_message()
    return _message(row)


def append_text(conn: Connection, message_id: str, text: str) -> None:
    """Add `text` to a message that is being written. Raises StoreError `not_found` for any other."""
    added = conn.execute(
        """
        INSERT INTO pieces (message, seq, text)
        SELECT n, (SELECT coalesce(max(seq), 0) + 1 FROM pieces WHERE message = n), ?
        FROM messages WHERE id = ? AND state = 'streaming'
        """,
        (storable(text), message_id),
    )
    if added.rowcount == 0:
        raise no_message()


def add_reader(conn: Connection, message_id: str, reader: Reader) -> AnswerFacts:
    """Keep that this node may read an answer and what it was asked with; the facts as they are then. Raises
    StoreError `not_found`."""
    with transaction(conn):
        facts = with_reader(get_message(conn, message_id).facts or AnswerFacts(), reader)
        conn.execute("UPDATE messages SET facts = ? WHERE id = ?", (encoded_facts(facts), message_id))
    return facts


def with_reader(facts: AnswerFacts, reader: Reader) -> AnswerFacts:
    """The facts with one more reader, or the same ones."""
    if any(known.id == reader.id for known in facts.readers):
        return facts
    return msgspec.structs.replace(facts, readers=(*facts.readers, reader))


def keep_facts(conn: Connection, message_id: str, facts: AnswerFacts, text: str = "") -> None:
    """Keep what is known so far of a message that is being written, and add `text` to it.

    Raises StoreError `not_found` for a message that is not being written.
    """
    with transaction(conn):
        if text:
            append_text(conn, message_id, text)
        changed = conn.execute(
            "UPDATE messages SET facts = ? WHERE id = ? AND state = 'streaming'",
            (encoded_facts(facts), message_id),
        )
        if changed.rowcount == 0:
            raise no_message()


def finish_message(
    conn: Connection,
    message_id: str,
    state: MessageState,
    facts: AnswerFacts | None = None,
    error: str = "",
    text: str = "",
) -> Message:
    """End a message that is being written.

    `text` is the last of it, `state` how it ended, `error` one sentence with the remedy when it failed.
    Raises StoreError `not_found` for a message that is not being written.
    """
    with transaction(conn):
        if text:
            append_text(conn, message_id, text)
        changed = conn.execute(
            f"""
            UPDATE messages AS m SET content = m.content || {_PIECES}, state = ?, facts = ?, error = ?
            WHERE id = ? AND state = 'streaming'
            """,
            (state, encoded_facts(facts), storable(error), message_id),
        )
        if changed.rowcount == 0:
            raise no_message()
        conn.execute(
            "DELETE FROM pieces WHERE message = (SELECT n FROM messages WHERE id = ?)", (message_id,)
        )
        conn.execute(
            "UPDATE chats SET updated_at = ? WHERE id = (SELECT chat_id FROM messages WHERE id = ?)",
            (conn.clock(), message_id),
        )
        return get_message(conn, message_id)


def resume_message(conn: Connection, message_id: str) -> Message:
    """Go on writing an answer that was cut: what follows is added to its text.

    Raises StoreError `not_found` for a message that is being written already, or is not an answer.
    """
    with transaction(conn):
        changed = conn.execute(
            """
            UPDATE messages SET state = 'streaming', error = ''
            WHERE id = ? AND state <> 'streaming' AND role = 'assistant'
            """,
            (message_id,),
        )
        if changed.rowcount == 0:
            raise no_message()
        return get_message(conn, message_id)


def mark_interrupted(conn: Connection) -> list[str]:
    """At the start: what the last run was still writing ended there. Gives the ids, oldest first."""
    with transaction(conn):
        ids = [id_ for (id_,) in conn.execute("SELECT id FROM messages WHERE state = 'streaming' ORDER BY n")]
        conn.execute(
            f"UPDATE messages AS m SET content = m.content || {_PIECES}, state = 'interrupted' "
            "WHERE state = 'streaming'"
        )
        conn.execute("DELETE FROM pieces")
    return ids


def shown_branch(conn: Connection, chat_id: str) -> list[Turn]:
    """The branch that is shown, first message first, each with its siblings; empty for an empty chat.

    Raises StoreError `not_found`.
    """
    if not _exists(conn, "SELECT 1 FROM chats WHERE id = ? AND deleted_at IS NULL", chat_id):
        raise no_chat()
    rows = conn.execute(
        f"""
        WITH RECURSIVE branch (n, id, parent_id) AS (
            SELECT m.n, m.id, m.parent_id FROM chats c JOIN messages m ON m.id = c.head_id WHERE c.id = ?1
            UNION ALL
            SELECT m.n, m.id, m.parent_id FROM branch b JOIN messages m ON m.id = b.parent_id
        )
        SELECT {_COLUMNS},
            (SELECT group_concat(s.id) FROM messages s WHERE s.chat_id = ?1 AND s.parent_id IS b.parent_id)
        FROM branch b JOIN messages m ON m.n = b.n
        ORDER BY b.id
        """,
        (chat_id,),
    )
    return [Turn(_message(row[:-1]), tuple(sorted(row[-1].split(",")))) for row in rows]


def shown_with_readers(conn: Connection, chat_id: str) -> tuple[list[Turn], dict[str, tuple[Reader, ...]]]:
    """What `shown_branch` and `later_readers` say, of one moment. Raises StoreError `not_found`."""
    return shown_branch(conn, chat_id), later_readers(conn, chat_id)


def later_readers(conn: Connection, chat_id: str) -> dict[str, tuple[Reader, ...]]:
    """By message: the nodes that were sent it as part of what came after it, on any branch, oldest first.

    Only messages that somebody was sent are in it.
    """
    rows = conn.execute(
        """
        SELECT id, parent_id, facts FROM messages
        WHERE chat_id = ? AND json_array_length(facts, '$.readers') > 0 ORDER BY id
        """,
        (chat_id,),
    ).fetchall()
    if not rows:
        return {}
    parents = dict(conn.execute("SELECT id, parent_id FROM messages WHERE chat_id = ?", (chat_id,)))
    found: dict[str, dict[str, Reader]] = {}
    for _, parent, facts in rows:
        new = {reader.id: reader for reader in msgspec.json.decode(facts, type=AnswerFacts).readers}
        while parent is not None:
            known = found.setdefault(parent, {})
            # Whoever was sent a message was sent all before it: a long chat is not gone through for each.
            new = {name: reader for name, reader in new.items() if name not in known}
            if not new:
                break
            known.update(new)
            parent = parents[parent]
    return {message: tuple(readers.values()) for message, readers in found.items()}


def select_sibling(conn: Connection, message_id: str) -> list[Turn]:
    """Show the branch through this message, down to the newest message below it. Gives that branch.

    Raises StoreError `not_found`.
    """
    with transaction(conn):
        # A message is always newer than its parent, so the newest of all below has nothing below itself.
        row = conn.execute(
            """
            WITH RECURSIVE below (id, chat_id) AS (
                SELECT id, chat_id FROM messages WHERE id = ?
                UNION ALL
                SELECT m.id, m.chat_id
                FROM below b JOIN messages m ON m.chat_id = b.chat_id AND m.parent_id = b.id
            )
            SELECT max(id), chat_id FROM below
            """,
            (message_id,),
        ).fetchone()
        head_id, chat_id = row
        if head_id is None:
            raise no_message()
        conn.execute("UPDATE chats SET head_id = ? WHERE id = ?", (head_id, chat_id))
        return shown_branch(conn, chat_id)


def no_message() -> StoreError:
    """The error for a message that is not there, or not as it would have to be."""
    return StoreError("not_found", "This message does not exist any more.", "Open the chat again.")


def _exists(conn: Connection, query: str, *values: str) -> bool:
    return conn.execute(query, values).fetchone() is not None


def encoded_facts(facts: AnswerFacts | None) -> str | None:
    """As they are kept."""
    return None if facts is None else storable(msgspec.json.encode(facts).decode())


def _message(row: Sequence[Any]) -> Message:
    id_, chat_id, parent_id, role, content, state, created_at, facts, error = row
    return Message(
        id=id_,
        chat_id=chat_id,
        parent_id=parent_id,
        role=role,
        content=content,
        state=state,
        created_at=created_at,
        facts=None if facts is None else msgspec.json.decode(facts, type=AnswerFacts),
        error=error,
    )
