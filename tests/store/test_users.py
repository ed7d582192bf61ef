"""The users that are not served."""

from __future__ import annotations

from infraxa.store.db import Connection
from infraxa.store.users import block_user, list_blocked_users, unblock_user

ONE, TWO = b"1" * 32, b"2" * 32


def test_blocked_until_it_is_unblocked(conn: Connection) -> None:
    assert list_blocked_users(conn) == []
    block_user(conn, ONE)
    block_user(conn, TWO, "asks all day")
    assert [(user.user, user.note) for user in list_blocked_users(conn)] == [(TWO, "asks all day"), (ONE, "")]
    unblock_user(conn, TWO)
    unblock_user(conn, TWO)
    assert [user.user for user in list_blocked_users(conn)] == [ONE]


def test_blocked_again_is_blocked_since_then(conn: Connection) -> None:
    block_user(conn, ONE, "first")
    (before,) = list_blocked_users(conn)
    block_user(conn, ONE, "second")
    (after,) = list_blocked_users(conn)
    assert (after.since_ms, after.note) == (before.since_ms, "second")
