"""What is kept of drivers: the newest evidence within bounds, one mark per provider."""

from __future__ import annotations

import sqlite3

import pytest

from infraxa.store import drivers
from infraxa.store.db import Connection
from infraxa.store.drivers import keep_drivers, list_drivers, list_marks, set_mark
from infraxa.store.records import DriverRecord


def record(node: int, model: int = 0, *, at: int = 0, evidence: bytes = b"{}") -> DriverRecord:
    return DriverRecord(node.to_bytes(32, "big"), model.to_bytes(32, "big"), at, evidence)


def test_what_is_newer_takes_the_place_of_the_same_node_and_model(conn: Connection) -> None:
    keep_drivers(conn, [record(1, at=5), record(1, 1, at=4), record(2, at=3)])
    assert list_drivers(conn) == [record(2, at=3), record(1, 1, at=4), record(1, at=5)]
    keep_drivers(conn, [record(2, at=9, evidence=b"new")])
    assert list_drivers(conn) == [record(1, 1, at=4), record(1, at=5), record(2, at=9, evidence=b"new")]


def test_beyond_the_bound_the_oldest_are_forgotten(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "DRIVERS_KEPT", 3)
    keep_drivers(conn, [record(number, at=number) for number in range(3)])
    assert len(list_drivers(conn)) == 3
    keep_drivers(conn, [record(0, at=9), record(7, at=8)])
    assert list_drivers(conn) == [record(2, at=2), record(7, at=8), record(0, at=9)]
    keep_drivers(conn, [])
    assert len(list_drivers(conn)) == 3


def test_a_provider_has_one_mark_or_none(conn: Connection) -> None:
    node, other = b"n" * 32, b"o" * 32
    set_mark(conn, node, "pinned")
    set_mark(conn, other, "blocked")
    assert list_marks(conn) == {node: "pinned", other: "blocked"}
    set_mark(conn, node, "blocked")
    assert list_marks(conn) == {node: "blocked", other: "blocked"}
    set_mark(conn, node, "")
    set_mark(conn, node, "")
    assert list_marks(conn) == {other: "blocked"}
    with pytest.raises(sqlite3.IntegrityError):
        set_mark(conn, node, "loved")
