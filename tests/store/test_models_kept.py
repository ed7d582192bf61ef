"""The models that a person added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from infraxa.store.db import Connection
from infraxa.store.models import add_model, get_model, list_models, remove_model
from infraxa.store.records import ModelRecord, StoreError

MODEL = ModelRecord("qwen", "/m/qwen.gguf", "ab" * 32, 1 << 40, 1_700_000_000_123_456_789, 5, b'{"a": 1}')


def test_what_is_added_is_there(conn: Connection) -> None:
    assert add_model(conn, MODEL) == MODEL
    assert get_model(conn, "qwen") == MODEL
    assert list_models(conn) == [MODEL]


def test_names_are_made_unique(conn: Connection) -> None:
    names = [add_model(conn, replace(MODEL, path=f"/{n}"), frozenset({"guide"})).name for n in range(3)]
    assert names == ["qwen", "qwen-2", "qwen-3"]
    assert add_model(conn, replace(MODEL, name="guide", path="/g"), frozenset({"guide"})).name == "guide-2"
    remove_model(conn, "qwen-2")
    assert add_model(conn, replace(MODEL, path="/9")).name == "qwen-2"
    assert [model.name for model in list_models(conn)] == ["qwen", "qwen-3", "guide-2", "qwen-2"]


def test_the_same_file_twice_names_the_other(conn: Connection) -> None:
    add_model(conn, MODEL)
    with pytest.raises(StoreError) as caught:
        add_model(conn, replace(MODEL, name="other"))
    assert caught.value.code == "exists"
    assert "qwen" in caught.value.message
    assert list_models(conn) == [MODEL]


def test_removing_gives_what_was_known(conn: Connection) -> None:
    add_model(conn, MODEL)
    assert remove_model(conn, "qwen") == MODEL
    assert list_models(conn) == []


def test_names_that_are_not_there(conn: Connection) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: get_model(conn, "x"),
        lambda: remove_model(conn, "x"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="no model named x") as caught:
            attempt()
        assert caught.value.code == "not_found"


def test_a_path_that_is_not_text_is_refused(conn: Connection) -> None:
    with pytest.raises(StoreError, match="not valid UTF-8"):
        add_model(conn, replace(MODEL, path="/m/\udcff.gguf"))
