"""What is kept of ratings: those of others as they are now, and of one's own one a day and provider."""

from __future__ import annotations

import sqlite3

import pytest

from infraxa.store import ratings
from infraxa.store.db import Connection
from infraxa.store.ratings import (
    delay,
    get_blank,
    keep_blank,
    list_due,
    list_ratings,
    rate,
    stars_of,
    told,
    write_ratings,
)
from infraxa.store.records import StoreError

MAPLE, ELM = b"m" * 32, b"e" * 32
DAY = 20_000
HOME = "home"


def order(number: int) -> bytes:
    return number.to_bytes(16, "big")


def code(conn: Connection, number: int) -> str:
    with pytest.raises(StoreError) as failed:
        rate(conn, order(number), 3, b"record", 5)
    return failed.value.code


def test_records_of_others_come_and_go_together(conn: Connection) -> None:
    write_ratings(conn, HOME, {b"1": b"one", b"2": b"two", b"3": None})
    assert list_ratings(conn, HOME) == [b"one", b"two"] and list_ratings(conn, "public") == []
    write_ratings(conn, HOME, {b"1": None, b"2": b"two", b"4": b"four"})
    assert list_ratings(conn, HOME) == [b"two", b"four"]
    with pytest.raises(sqlite3.Error):
        write_ratings(conn, HOME, {b"5": b"five", b"6": "no bytes", b"7": object()})  # type: ignore[dict-item]
    assert list_ratings(conn, HOME) == [b"two", b"four"]


def test_an_answer_is_rated_once_it_may_be_and_told_once(conn: Connection) -> None:
    assert code(conn, 1) == "not_found" and get_blank(conn, order(1)) is None
    keep_blank(conn, HOME, order(1), MAPLE, DAY, b"blank")
    keep_blank(conn, HOME, order(1), ELM, DAY + 1, b"another")
    assert get_blank(conn, order(1)) == (MAPLE, b"blank") and stars_of(conn, order(1)) is None
    rate(conn, order(1), 2, b"two", 100)
    rate(conn, order(1), 4, b"four", 200)
    assert stars_of(conn, order(1)) == 4
    assert list_due(conn, HOME, 199) == list_due(conn, "public", 200) == [] and list_due(conn, HOME, 200) == [
        (order(1), b"four")
    ]
    told(conn, order(1))
    assert list_due(conn, HOME, 10**9) == [] and stars_of(conn, order(1)) == 4
    assert code(conn, 1) == "exists"


def test_one_a_day_and_provider_counts_the_last_that_was_not_told(conn: Connection) -> None:
    for number, (provider, day) in enumerate([(MAPLE, DAY), (MAPLE, DAY), (MAPLE, DAY + 1), (ELM, DAY)]):
        keep_blank(conn, HOME, order(number), provider, day, b"blank")
        rate(conn, order(number), 5 - number, b"%d" % number, number)
    assert [stars_of(conn, order(number)) for number in range(4)] == [None, 4, 3, 2]
    assert [record for _, record in list_due(conn, HOME, 10)] == [b"1", b"2", b"3"]
    told(conn, order(1))
    assert code(conn, 0) == code(conn, 1) == "exists"
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("UPDATE own_ratings SET stars = 1 WHERE order_id = ?", (order(0),))
    assert [record for _, record in list_due(conn, HOME, 10)] == [b"2", b"3"]


def test_what_was_due_while_nothing_ran_is_put_off(conn: Connection) -> None:
    for number in range(3):
        keep_blank(conn, HOME, order(number), MAPLE, DAY + number, b"blank")
        rate(conn, order(number), 5, b"%d" % number, 100 * number)
    told(conn, order(0))
    delay(conn, 150, 999)
    assert [found for found, _ in list_due(conn, HOME, 998)] == [order(2)]
    assert {found for found, _ in list_due(conn, HOME, 999)} == {order(1), order(2)}


def test_the_oldest_answers_beyond_the_bound_cannot_be_rated_any_more(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratings, "BLANKS_KEPT", 3)
    keep_blank(conn, HOME, order(0), MAPLE, DAY - 1, b"blank")
    rate(conn, order(0), 5, b"waits to be told", 100)
    for number in range(1, 5):
        keep_blank(conn, HOME, order(number), MAPLE, DAY + number, b"blank")
    assert [number for number in range(5) if get_blank(conn, order(number))] == [0, 3, 4]
