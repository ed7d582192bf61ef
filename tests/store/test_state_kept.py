"""Small values and the history of prompts."""

from __future__ import annotations

import pytest

from infraxa.store import state
from infraxa.store.db import Connection
from infraxa.store.state import add_prompt, get_value, list_prompts, set_value


def test_values(conn: Connection) -> None:
    assert get_value(conn, "last_chat", str) is None
    set_value(conn, "last_chat", "a")
    set_value(conn, "last_chat", "b")
    set_value(conn, "sizes", [1, 2])
    assert get_value(conn, "last_chat", str) == "b"
    assert get_value(conn, "sizes", list[int]) == [1, 2]
    assert get_value(conn, "sizes", str) is None
    set_value(conn, "last_chat", None)
    assert get_value(conn, "last_chat", str) is None


def test_prompts_are_there_once_newest_last(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PROMPTS_KEPT", 3)
    for text in ("a", "b", "c", "a", "d", "multi\nline", "\udcff"):
        add_prompt(conn, text)
    assert list_prompts(conn) == ["d", "multi\nline", "\ufffd"]
    assert list_prompts(conn, limit=1) == ["\ufffd"]
    add_prompt(conn, "d")
    assert list_prompts(conn) == ["multi\nline", "\ufffd", "d"]
