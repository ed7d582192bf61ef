"""Chats: made, listed, renamed, deleted with a way back. Their messages are in messages.py.

Each function takes the connection first and is run by `Store.run`. A chat that does not exist, or is deleted,
is StoreError `not_found`.
"""

from __future__ import annotations

import sqlite3

import msgspec

from infraxa.store.db import Connection, transaction
from infraxa.store.records import Chat, ChatOptions, ChatSummary, StoreError
from infraxa.store.text import one_line, storable

TITLE_LENGTH = 200
"""Longest title, in characters."""

PREVIEW_LENGTH = 100
"""Characters of the last message that a list shows."""

_COLUMNS = "id, title, created_at, updated_at, head_id, options, draft"


def create_chat(conn: Connection, options: ChatOptions | None = None, title: str = "") -> Chat:
    """A new, empty chat."""
    now = conn.clock()
    chat = Chat(
        id=conn.ids.new(),
        title=one_line(title, TITLE_LENGTH),
        created_at=now,
        updated_at=now,
        head_id=None,
        options=options or ChatOptions(),
    )
    conn.execute(
        "INSERT INTO chats (id, title, created_at, updated_at, options, draft) VALUES (?, ?, ?, ?, ?, '')",
        (chat.id, chat.title, now, now, _encode(chat.options)),
    )
    return chat


def get_chat(conn: Connection, chat_id: str) -> Chat:
    """The chat, with its options and its draft."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM chats WHERE id = ? AND deleted_at IS NULL", (chat_id,)
    ).fetchone()
    if row is None:
        raise no_chat()
    return _chat(row)


def list_chats(conn: Connection, limit: int | None = None) -> list[ChatSummary]:
    """All chats, the one that was last written in first; at most `limit`.

    The preview is the beginning of the last message that is shown, or of the question while its answer is
    being written.
    """
    rows = conn.execute(
        """
        SELECT c.id, c.title, c.created_at, c.updated_at,
               substr(CASE WHEN m.content = '' THEN coalesce(p.content, '') ELSE m.content END, 1, ?)
        FROM chats c
        LEFT JOIN messages m ON m.id = c.head_id
        LEFT JOIN messages p ON p.id = m.parent_id AND m.content = ''
        WHERE c.deleted_at IS NULL
        ORDER BY c.updated_at DESC, c.id DESC
        LIMIT ?
        """,
        (PREVIEW_LENGTH * 2, -1 if limit is None else limit),
    )
    return [
        ChatSummary(id_, title, created, updated, one_line(preview or "", PREVIEW_LENGTH))
        for id_, title, created, updated, preview in rows
    ]


def rename_chat(conn: Connection, chat_id: str, title: str) -> Chat:
    """Give the chat another title, made one line of at most `TITLE_LENGTH` characters.

    An empty one makes the next question name the chat.
    """
    _update(conn, chat_id, "title", one_line(title, TITLE_LENGTH))
    return get_chat(conn, chat_id)


def set_options(conn: Connection, chat_id: str, options: ChatOptions) -> Chat:
    """Replace what the person set for this chat."""
    _update(conn, chat_id, "options", _encode(options))
    return get_chat(conn, chat_id)


def set_draft(conn: Connection, chat_id: str, draft: str) -> None:
    """Keep what was typed and not sent."""
    _update(conn, chat_id, "draft", storable(draft))


def delete_chat(conn: Connection, chat_id: str) -> None:
    """Take the chat out of lists and searches. `restore_chat` undoes it until `purge_deleted`."""
    _update(conn, chat_id, "deleted_at", conn.clock())


def restore_chat(conn: Connection, chat_id: str) -> Chat:
    """Undo `delete_chat`. Of a chat that is not deleted it changes nothing."""
    conn.execute("UPDATE chats SET deleted_at = NULL WHERE id = ? AND deleted_at IS NOT NULL", (chat_id,))
    return get_chat(conn, chat_id)


def purge_deleted(conn: Connection, older_than_ms: int) -> int:
    """Remove for good the chats that were deleted more than `older_than_ms` ago. Gives how many."""
    with transaction(conn):
        return conn.execute(
            "DELETE FROM chats WHERE deleted_at < ?", (conn.clock() - older_than_ms,)
        ).rowcount


def no_chat() -> StoreError:
    """The error for a chat that is not there."""
    return StoreError(
        "not_found", "This chat does not exist any more.", "Open another one, or start a new chat."
    )


def _update(conn: sqlite3.Connection, chat_id: str, column: str, value: str | int) -> None:
    changed = conn.execute(
        f"UPDATE chats SET {column} = ? WHERE id = ? AND deleted_at IS NULL", (value, chat_id)
    )
    if changed.rowcount == 0:
        raise no_chat()


def _encode(options: ChatOptions) -> str:
    return storable(msgspec.json.encode(options).decode())


def _chat(row: tuple[str, str, int, int, str | None, str, str]) -> Chat:
    id_, title, created_at, updated_at, head_id, options, draft = row
    return Chat(
        id=id_,
        title=title,
        created_at=created_at,
        updated_at=updated_at,
        head_id=head_id,
        options=msgspec.json.decode(options, type=ChatOptions),
        draft=draft,
    )
