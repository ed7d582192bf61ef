"""The model files that the person added. What is in such a file is the engine's knowledge, opaque here."""

from __future__ import annotations

import sqlite3
from typing import Any

from infraxa.store.db import Connection, transaction
from infraxa.store.records import ModelRecord, StoreError

_COLUMNS = "name, path, sha256, size, mtime_ns, added_at, metadata"


def add_model(conn: Connection, record: ModelRecord, taken: frozenset[str] = frozenset()) -> ModelRecord:
    """Remember a model. Its name becomes `name-2`, `name-3`… when another model has it, or `taken` holds it.

    Raises StoreError `exists` when the same file is there under another name.
    """
    with transaction(conn):
        other = conn.execute("SELECT name FROM models WHERE path = ?", (_path(record),)).fetchone()
        if other is not None:
            raise StoreError(
                "exists",
                f"This file was added before, as {other[0]}.",
                f"Use it by that name, or remove it first: infraxa models remove {other[0]}",
            )
        names = taken | {name for (name,) in conn.execute("SELECT name FROM models")}
        name, number = record.name, 1
        while name in names:
            number += 1
            name = f"{record.name}-{number}"
        added = ModelRecord(
            name=name,
            path=record.path,
            sha256=record.sha256,
            size=record.size,
            mtime_ns=record.mtime_ns,
            added_at=record.added_at,
            metadata=record.metadata,
        )
        conn.execute(f"INSERT INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", _row(added))
    return added


def list_models(conn: Connection) -> list[ModelRecord]:
    """All models, in the order in which they were added."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM models ORDER BY added_at, rowid")
    return [ModelRecord(*row) for row in rows]


def get_model(conn: Connection, name: str) -> ModelRecord:
    """The model of this name. Raises StoreError `not_found`."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM models WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise _not_found(name)
    return ModelRecord(*row)


def remove_model(conn: Connection, name: str) -> ModelRecord:
    """Forget the model; its file stays. Gives what was known of it. Raises StoreError `not_found`."""
    with transaction(conn):
        record = get_model(conn, name)
        conn.execute("DELETE FROM models WHERE name = ?", (name,))
    return record


def _row(record: ModelRecord) -> tuple[Any, ...]:
    return (
        record.name,
        _path(record),
        record.sha256,
        record.size,
        record.mtime_ns,
        record.added_at,
        sqlite3.Binary(record.metadata),
    )


def _path(record: ModelRecord) -> str:
    try:
        record.path.encode()
    except UnicodeEncodeError:
        raise StoreError(
            "io", "The path of this model file is not valid UTF-8.", "Rename the file or its folder."
        ) from None
    return record.path


def _not_found(name: str) -> StoreError:
    return StoreError(
        "not_found", f"There is no model named {name}.", "See the names with: infraxa models list"
    )
