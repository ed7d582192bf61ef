"""Opening the database: who may read it, how it is set up, and what is refused without being touched."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from infraxa.store import db
from infraxa.store.chats import create_chat, get_chat, list_chats
from infraxa.store.db import SCHEMA_VERSION, Connection, Store, connect, transaction
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.messages import add_message, get_message
from infraxa.store.migrations import MIGRATIONS
from infraxa.store.records import StoreError


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_only_this_person_can_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    conn = connect(folder)
    create_chat(conn)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    conn.close()
    assert modes.keys() > {DATABASE_NAME, DATABASE_NAME + "-wal"}
    assert set(modes.values()) == {0o600}


def test_the_connection_is_set_up(conn: Connection) -> None:
    def pragma(name: str) -> object:
        return conn.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 1
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") == 5000
    assert pragma("user_version") == SCHEMA_VERSION == len(MIGRATIONS)


def test_opening_again_does_not_import_the_schema_tools(tmp_path: Path) -> None:
    connect(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; "
        "from infraxa.store import chats, db, lock, markdown, messages, models, search, state; "
        "db.connect(Path(sys.argv[1])).close(); "
        "print(sorted({'sqlite_utils', 'markdown_it'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path, unfinished: bool) -> None:
    made = tmp_path / "made"
    conn = connect(made)
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.execute("PRAGMA user_version = 99")
    conn.execute("PRAGMA journal_mode = WAL")
    create_chat(conn)
    if not unfinished:
        conn.close()
    # With the connection open, what is copied is what a crash leaves: chats in the log, not in the database.
    folder = tmp_path / "data"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = contents(folder)
    assert (DATABASE_NAME + "-wal" in before) == unfinished

    with pytest.raises(StoreError) as caught:
        connect(folder)
    assert caught.value.code == "newer_schema"
    assert "99" in caught.value.message
    assert str(SCHEMA_VERSION) in caught.value.message
    assert "\n" not in caught.value.message
    assert contents(folder) == before
    conn.close()


def test_a_newer_schema_that_only_the_log_knows_is_refused(tmp_path: Path) -> None:
    connect(tmp_path / "made").close()
    conn = sqlite3.connect(tmp_path / "made" / DATABASE_NAME, isolation_level=None)
    conn.execute("PRAGMA user_version = 99")
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (tmp_path / "made").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    conn.close()
    with pytest.raises(StoreError) as caught:
        connect(folder)
    assert caught.value.code == "newer_schema"


@pytest.mark.parametrize("content", [b"not a database", b"x" * 5000])
def test_another_kind_of_file_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(StoreError) as caught:
        connect(tmp_path)
    assert caught.value.code == "corrupt"
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy
    assert contents(tmp_path) == before


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    connect(tmp_path).close()
    path = tmp_path / DATABASE_NAME
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        connect(tmp_path)
    assert caught.value.code == "corrupt"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        connect(tmp_path / "data")


async def test_an_error_at_opening_comes_out_and_ends_the_thread(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"not a database")
    before = set(threading.enumerate())
    with pytest.raises(StoreError):
        await Store.open(tmp_path)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "store":
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def test_functions_run_in_order_on_one_other_thread(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(_: Connection, number: int) -> None:
        seen.append((number, threading.get_ident()))

    async with await Store.open(tmp_path) as store:
        await asyncio.gather(*(store.run(note, number) for number in range(50)))
    assert [number for number, _ in seen] == list(range(50))
    assert len({ident for _, ident in seen}) == 1
    assert seen[0][1] != threading.get_ident()


async def test_a_function_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(conn: Connection) -> None:
        create_chat(conn)
        raise LookupError("in the middle")

    async with await Store.open(tmp_path) as store:
        with pytest.raises(LookupError, match="in the middle"):
            await store.run(half)
        assert await store.run(list_chats) == []
        chat = await store.run(create_chat)
        assert await store.run(get_chat, chat.id) == chat


async def test_what_was_asked_for_is_done_before_closing_and_nothing_after(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    pending = [asyncio.ensure_future(store.run(create_chat)) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert len(await asyncio.gather(*pending)) == 20
    with pytest.raises(StoreError) as caught:
        await store.run(create_chat)
    assert caught.value.code == "closed"
    async with await Store.open(tmp_path) as again:
        assert len(await again.run(list_chats)) == 20


async def test_a_cancelled_caller_leaves_the_store_usable(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        begun.set()
        assert go.wait(30)
        create_chat(conn)

    async with await Store.open(tmp_path) as store:
        running = asyncio.ensure_future(store.run(slow))
        waiting = asyncio.ensure_future(store.run(create_chat, title="never"))
        assert await asyncio.to_thread(begun.wait, 30)
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        go.set()
        assert [chat.title for chat in await store.run(list_chats)] == [""]


async def test_closing_interrupts_a_query_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def endless(conn: Connection) -> None:
        begun.set()
        conn.execute(
            "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
        ).fetchone()

    monkeypatch.setattr(db, "CLOSE_TIMEOUT_S", 0.5)
    store = await Store.open(tmp_path)
    running = asyncio.ensure_future(store.run(endless))
    assert await asyncio.to_thread(begun.wait, 30)
    await asyncio.wait_for(store.close(), 30)
    with pytest.raises(StoreError):
        await asyncio.wait_for(running, 30)


async def test_a_file_that_another_program_keeps_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.05)
    async with await Store.open(tmp_path) as store:
        other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            await store.run(create_chat)
        assert caught.value.code == "locked"
        assert str(tmp_path) in caught.value.message
        other.close()
        await store.run(create_chat)


def test_nobody_writes_between_what_is_read_and_what_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with closing(connect(folder)) as app, closing(connect(folder)) as command:
        command.execute("PRAGMA busy_timeout = 0")
        chat = create_chat(app)
        with transaction(app):
            assert get_chat(app, chat.id).title == chat.title
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                create_chat(command)
            message = add_message(app, chat.id, None, "user", "hi")
        create_chat(command)
        assert get_message(command, message.id).content == "hi"
