"""One infraxa per data folder, and never a lock that nobody holds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infraxa.store.folder import LOCK_NAME
from infraxa.store.lock import FolderLock, check_free
from infraxa.store.records import StoreError

HOLD = """
import sys
from pathlib import Path
from infraxa.store.lock import FolderLock
lock = FolderLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with FolderLock.acquire(folder):
        with pytest.raises(StoreError) as caught:
            FolderLock.acquire(folder)
        assert caught.value.code == "locked"
        assert caught.value.message == f"Another infraxa (pid {os.getpid()}) is using {folder}."
        assert caught.value.remedy
        assert stat.S_IMODE((folder / LOCK_NAME).stat().st_mode) == 0o600
    lock = FolderLock.acquire(folder)
    lock.release()
    lock.release()
    FolderLock.acquire(folder).release()


def test_who_only_looks_neither_makes_nor_takes_anything(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    check_free(folder)
    assert not folder.exists()
    with FolderLock.acquire(folder):
        with pytest.raises(StoreError, match=rf"\(pid {os.getpid()}\)") as caught:
            check_free(folder)
        assert caught.value.code == "locked"
    check_free(folder)
    FolderLock.acquire(folder).release()


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"\(pid {child.pid}\)"):
            FolderLock.acquire(tmp_path)
    finally:
        child.kill()
        child.communicate(timeout=30)
    assert str(child.pid) in (tmp_path / LOCK_NAME).read_text()
    FolderLock.acquire(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "\xff", '{"pid": 1, "started_at": 2}' * 100])
def test_whatever_is_in_the_file_it_can_be_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_NAME).write_text(content, encoding="latin-1")
    with FolderLock.acquire(tmp_path), pytest.raises(StoreError, match=rf"\(pid {os.getpid()}\)"):
        FolderLock.acquire(tmp_path)


def test_a_holder_that_left_no_note_is_still_a_holder(tmp_path: Path) -> None:
    with FolderLock.acquire(tmp_path):
        (tmp_path / LOCK_NAME).write_text("")
        with pytest.raises(StoreError, match=r"^Another infraxa is using"):
            FolderLock.acquire(tmp_path)


def test_a_child_process_does_not_inherit_it(tmp_path: Path) -> None:
    lock = FolderLock.acquire(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
    )
    try:
        lock.release()
        FolderLock.acquire(tmp_path).release()
    finally:
        child.kill()
        child.communicate(timeout=30)
