"""Small things that the app remembers between runs: named values, and what was typed at the prompt.

Settings are not here: a person reads and writes those in config.toml.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from infraxa.store.db import Connection, transaction
from infraxa.store.text import storable

T = TypeVar("T")

PROMPTS_KEPT = 1000
"""How many prompts the history holds."""


def get_value(conn: Connection, name: str, type_: type[T]) -> T | None:
    """What was last set under `name`; None when nothing was, or when it is not of this type."""
    row = conn.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    try:
        return msgspec.json.decode(row[0], type=type_)
    except msgspec.DecodeError:
        return None


def set_value(conn: Connection, name: str, value: object) -> None:
    """Remember `value` (anything that msgspec can write as JSON) under `name`; None forgets it."""
    if value is None:
        conn.execute("DELETE FROM state WHERE name = ?", (name,))
        return
    conn.execute(
        "INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)",
        (name, storable(msgspec.json.encode(value).decode())),
    )


def list_values(conn: Connection, prefix: str, type_: type[T]) -> list[tuple[str, T]]:
    """Names that begin so, and what is set under them; those of another type are left out."""
    names = [
        name for (name,) in conn.execute("SELECT name FROM state ORDER BY name") if name.startswith(prefix)
    ]
    found = ((name, get_value(conn, name, type_)) for name in names)
    return [(name, value) for name, value in found if value is not None]


def add_prompt(conn: Connection, text: str) -> None:
    """Put a prompt at the end of the history, where it is once; the oldest beyond `PROMPTS_KEPT` go."""
    text = storable(text)
    with transaction(conn):
        conn.execute("DELETE FROM prompts WHERE text = ?", (text,))
        conn.execute(
            "INSERT INTO prompts (n, text) VALUES ((SELECT coalesce(max(n), 0) + 1 FROM prompts), ?)", (text,)
        )
        conn.execute("DELETE FROM prompts WHERE n <= (SELECT max(n) FROM prompts) - ?", (PROMPTS_KEPT,))


def list_prompts(conn: Connection, limit: int = PROMPTS_KEPT) -> list[str]:
    """The newest `limit` prompts, oldest first."""
    rows = conn.execute("SELECT text FROM prompts ORDER BY n DESC LIMIT ?", (limit,)).fetchall()
    return [text for (text,) in reversed(rows)]
