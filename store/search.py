"""Full-text search over the titles of chats and their messages; deleted chats are left out.

An answer is found once it has ended: see messages.py.
"""

from __future__ import annotations

import re

from infraxa.store.db import Connection
from infraxa.store.records import SearchHit
from infraxa.store.text import storable

SNIPPET_TOKENS = 16
"""Words around a match."""

MATCH_START, MATCH_END = "\ue000", "\ue001"


def search(conn: Connection, text: str, limit: int = 50) -> list[SearchHit]:
    """Chats and messages that contain all the words of `text`, the last of which may be unfinished.

    Titles come first and take a quarter of `limit` at most; each kind is in the order of rank (bm25), best
    first. Any text can be asked for, and one without words finds nothing.
    """
    query = _query(text)
    if not query:
        return []
    # No text that is in the store can hold an id that is made now, and so pass for a match.
    nonce = conn.ids.new()
    start, end = MATCH_START + nonce, MATCH_END + nonce
    titles = conn.execute(
        """
        SELECT c.id, c.title, NULL, snippet(chats_fts, 0, ?2, ?3, '…', ?4)
        FROM chats_fts f CROSS JOIN chats c ON c.n = f.rowid
        WHERE chats_fts MATCH ?1 AND c.deleted_at IS NULL
        ORDER BY f.rank LIMIT ?5
        """,
        (query, start, end, SNIPPET_TOKENS, max(1, limit // 4)),
    ).fetchall()
    messages = conn.execute(
        """
        SELECT c.id, c.title, m.id, snippet(messages_fts, 0, ?2, ?3, '…', ?4)
        FROM messages_fts f CROSS JOIN messages m ON m.n = f.rowid CROSS JOIN chats c ON c.id = m.chat_id
        WHERE messages_fts MATCH ?1 AND c.deleted_at IS NULL
        ORDER BY f.rank LIMIT ?5
        """,
        (query, start, end, SNIPPET_TOKENS, limit - len(titles)),
    ).fetchall()
    return [
        SearchHit(chat, title, message, _marked(snippet, start, end))
        for chat, title, message, snippet in titles + messages
    ]


def _query(text: str) -> str:
    """FTS5's query for the words of `text`: each in quotes, so that none is taken for an operator.

    The tokenizer cuts what is in the quotes as it cut the messages: `well-known` finds these two words side
    by side.
    """
    # A phrase without a letter or digit would match nothing, and so would the whole query. FTS5 stops
    # reading at a NUL.
    words = [word for word in storable(text).replace("\0", " ").split() if any(map(str.isalnum, word))]
    return " AND ".join('"' + word.replace('"', '""') + '"' for word in words) + "*" if words else ""


def _marked(snippet: str, start: str, end: str) -> str:
    """The snippet with one character at either side of a match, and these nowhere else."""
    marks = {start: MATCH_START, end: MATCH_END}
    return "".join(
        marks.get(part) or re.sub(f"[{MATCH_START}{MATCH_END}]", "", part)
        for part in re.split(f"({start}|{end})", snippet)
    )
