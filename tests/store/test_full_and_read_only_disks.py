"""A disk that is full, and one that cannot be written: on a small file system of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraxa.store.chats import create_chat, list_chats
from infraxa.store.db import Store, connect
from infraxa.store.lock import FolderLock
from infraxa.store.messages import add_message, append_text, finish_message, get_message, shown_branch
from infraxa.store.records import StoreError


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    mounted = run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path))
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    yield tmp_path
    # Lazily: a test that failed may have left a file open, and the mount must not outlive it.
    assert run("umount", "--lazy", str(tmp_path)).returncode == 0


def fill(disk: Path) -> Path:
    """Leave nothing free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return filler


async def test_a_full_disk_costs_nothing_that_was_saved(disk: Path) -> None:
    folder = disk / "data"
    async with await Store.open(folder) as store:
        chat = await store.run(create_chat)
        question = await store.run(add_message, chat.id, None, "user", "Why?")
        answer = await store.run(add_message, chat.id, question.id, "assistant", "", "streaming")
        await store.run(append_text, answer.id, "Because ")
        filler = fill(disk)

        saved = 0
        with pytest.raises(StoreError) as caught:
            for saved in range(1000):
                await store.run(append_text, answer.id, f"{saved:8000}")
        assert caught.value.code == "disk_full"
        assert str(folder) in caught.value.message
        assert caught.value.remedy

        # Reading goes on, with all that was saved.
        text = "Because " + "".join(f"{n:8000}" for n in range(saved))
        assert (await store.run(get_message, answer.id)).content == text
        assert len(await store.run(list_chats)) == 1
        with pytest.raises(StoreError, match="is full"):
            await store.run(finish_message, answer.id, "complete", text="x" * 2_000_000)
        assert (await store.run(get_message, answer.id)).content == text

        # And so does writing, once there is space.
        filler.unlink()
        await store.run(finish_message, answer.id, "complete", text=" End.")
        assert (await store.run(get_message, answer.id)).content == text + " End."
    conn = connect(folder)
    assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert shown_branch(conn, chat.id)[-1].message.content == text + " End."
    conn.close()


def test_starting_on_a_full_disk(disk: Path) -> None:
    folder = disk / "data"
    folder.mkdir()
    filler = fill(disk)
    with pytest.raises(StoreError) as caught:
        connect(folder)
    assert caught.value.code == "disk_full"
    # The lock holds without a byte to write who holds it.
    with FolderLock.acquire(folder), pytest.raises(StoreError) as caught:
        FolderLock.acquire(folder)
    assert caught.value.code == "locked"

    filler.unlink()
    conn = connect(folder)
    create_chat(conn, title="kept")
    conn.close()
    fill(disk)
    with pytest.raises(StoreError) as caught:
        connect(folder)
    assert caught.value.code == "disk_full"


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_cannot_be_written(disk: Path, exists: bool) -> None:
    folder = disk / "data"
    if exists:
        conn = connect(folder)
        create_chat(conn)
        conn.close()
        FolderLock.acquire(folder).release()
    assert run("mount", "-o", "remount,ro", str(disk)).returncode == 0
    try:
        for use in (connect, FolderLock.acquire):
            with pytest.raises(StoreError) as caught:
                use(folder)
            assert caught.value.code == "read_only"
            assert str(folder) in caught.value.message
            assert caught.value.remedy
    finally:
        assert run("mount", "-o", "remount,rw", str(disk)).returncode == 0


def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    connect(folder).close()
    FolderLock.acquire(folder).release()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("permissions do not bind this user")
        for use in (connect, FolderLock.acquire):
            with pytest.raises(StoreError) as caught:
                use(folder)
            assert caught.value.code == "read_only"
    finally:
        folder.chmod(0o700)


async def test_writing_is_refused_while_it_is_used(tmp_path: Path) -> None:
    async with await Store.open(tmp_path) as store:
        chat = await store.run(create_chat)
        # What SQLite says when the disk has become read-only, without the need to make it so.
        await store.run(lambda conn: conn.execute("PRAGMA query_only = ON"))
        with pytest.raises(StoreError) as caught:
            await store.run(create_chat)
        assert caught.value.code == "read_only"
        assert [found.id for found in await store.run(list_chats)] == [chat.id]
