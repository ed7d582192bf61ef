"""`infraxa backup`, `restore` and `wipe`: all of it or nothing, and nothing is lost unasked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from infraxa.net.identity import base32, short_id
from infraxa.net.keyfile import IDENTITY_NAME, load_or_make, read
from infraxa.net.sealing import MARK
from infraxa.store import chats, tabs
from infraxa.store.db import SCHEMA_VERSION, connect
from infraxa.store.folder import DATABASE_NAME, LOCK_NAME
from infraxa.store.ledger import post
from infraxa.store.lock import FolderLock
from tests.app.command_line import COMMAND, LIMIT, environment, infraxa, one_line
from tests.app.test_cli_failures import disk, fill
from tests.e2e.terminal import Terminal

__all__ = ["disk"]  # a fixture

SECRET = {"INFRAXA_PASSPHRASE": "grün 1"}
THEME = 'name = "mine"\n'


def make_node(data: Path, title: str) -> None:
    """A node with a key, a chat, settings and a theme."""
    with closing(connect(data)) as conn:
        chats.rename_chat(conn, chats.create_chat(conn).id, title)
    load_or_make(data)
    (data / "config.toml").write_text(f'name = "{title}"\n')
    (data / "themes").mkdir()
    (data / "themes" / "mine.toml").write_text(THEME)


def titles(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / DATABASE_NAME)) as conn:
        return [title for (title,) in conn.execute("SELECT title FROM chats ORDER BY n")]


def state_of(data: Path) -> dict[str, str]:
    """All that is in it, but the lock and what SQLite makes beside a database."""
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name != LOCK_NAME and path.suffix not in (".db-shm", ".db-wal")
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_node(tmp_path / "data", "old oak")
    return tmp_path / "data"


@pytest.fixture
def saved(data: Path, tmp_path: Path) -> Path:
    file = tmp_path / "node.backup"
    assert infraxa("backup", str(file), data=data).code == 0
    return file


def test_what_is_in_a_backup(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.backup"
    with closing(connect(data)), FolderLock.acquire(data):  # an infraxa is open
        ran = infraxa("backup", str(file), data=data)
    assert (ran.code, ran.err) == (0, "")
    assert f"In {file}: 1 chat, 0 receipts, keys, settings, themes; " in ran.out
    assert "not sealed: whoever has it can read the messages and be this node" in ran.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "node.backup"]
    assert not list(data.glob("backup-*"))
    with tarfile.open(file) as tar:
        assert tar.getnames() == [
            "manifest.json", "identity.key", "recovery.key", DATABASE_NAME, "config.toml", "themes/mine.toml"
        ]  # fmt: skip

    before = file.read_bytes()
    one_line(infraxa("backup", str(file), data=data), "is there already", "--force")
    assert file.read_bytes() == before
    shown = json.loads(infraxa("backup", str(file), "--force", "--json", data=data).out)
    assert (shown["chats"], shown["sealed"], shown["bytes"]) == (1, False, file.stat().st_size)


def test_where_nothing_is_nothing_is_made(tmp_path: Path) -> None:
    data, file = tmp_path / "none", tmp_path / "file"
    one_line(infraxa("backup", str(file), data=data), "nothing to back up")
    one_line(infraxa("restore", str(file), data=data), "cannot be read")
    ran = infraxa("wipe", "--yes", data=data)
    assert (ran.code, "Nothing of infraxa" in ran.out) == (0, True)
    assert not data.exists() and not file.exists()
    assert infraxa("backup", data=data).code == 2
    assert "Example: infraxa restore" in infraxa("restore", "--help", data=data).out


def test_a_backup_comes_back_in_another_place(data: Path, saved: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    ran = infraxa("restore", str(saved), data=new)
    assert (ran.code, ran.err) == (0, "")
    assert f"This is node {short_id(read(data / IDENTITY_NAME).id)}, as it was " in ran.out
    assert "one machine at a time" in ran.out and "before" not in ran.out
    assert titles(new) == ["old oak"]
    same = {name: value for name, value in state_of(data).items() if name != DATABASE_NAME}
    assert {name: value for name, value in state_of(new).items() if name != DATABASE_NAME} == same
    assert stat.S_IMODE((new / IDENTITY_NAME).stat().st_mode) == 0o600
    assert infraxa("identity", "show", data=new).out.startswith("shown as\told oak·")


def test_what_was_there_is_moved_aside(data: Path, saved: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    make_node(here, "young ash")
    with closing(sqlite3.connect(here / DATABASE_NAME)) as conn:
        node = read(data / IDENTITY_NAME).id
        conn.execute("INSERT INTO own_seq VALUES (?, 99)", (node,))
        conn.commit()
    before = state_of(here)
    one_line(infraxa("restore", str(saved), data=here), "There is a node", "--force")
    assert state_of(here) == before
    told = json.loads(infraxa("restore", str(saved), "--force", "--json", data=here).out)
    aside = Path(told["aside"])
    assert aside.parent == tmp_path and aside.name.startswith("here.before-20")
    assert (titles(here), titles(aside)) == (["old oak"], ["young ash"])
    assert read(here / IDENTITY_NAME) == read(data / IDENTITY_NAME)
    assert state_of(aside) == before
    with closing(sqlite3.connect(here / DATABASE_NAME)) as conn:
        assert conn.execute("SELECT seq FROM own_seq WHERE node = ?", (node,)).fetchall() == [(99,)]
    again = infraxa("restore", str(saved), "--force", data=here)
    assert f"What was there before is in {aside}-2; back to it: infraxa --data-dir" in again.out


def test_a_used_folder_is_refused(saved: Path, tmp_path: Path) -> None:
    used = tmp_path / "used"
    with FolderLock.acquire(used):
        for command in (("restore", str(saved), "--force"), ("wipe", "--yes")):
            if command[0] == "wipe":
                load_or_make(used)
            one_line(infraxa(*command, data=used), "Another infraxa (pid ", str(used))


def test_a_sealed_backup(data: Path, tmp_path: Path) -> None:
    file, new = tmp_path / "sealed", tmp_path / "new"
    ran = infraxa("backup", str(file), "--passphrase", data=data, env=SECRET)
    assert ran.code == 0 and "It is sealed" in ran.out
    inside = file.read_bytes()
    assert inside.startswith(MARK) and b"oak" not in inside
    assert base32(read(data / IDENTITY_NAME).secret).encode()[:16] not in inside
    one_line(infraxa("restore", str(file), data=new), "A passphrase is needed")
    one_line(infraxa("restore", str(file), data=new, env={"INFRAXA_PASSPHRASE": "no"}), "passphrase is wrong")
    file.write_bytes(inside[:-40])
    one_line(infraxa("restore", str(file), data=new, env=SECRET), "damaged")
    file.write_bytes(inside + b"x")
    one_line(infraxa("restore", str(file), data=new, env=SECRET), "damaged")
    assert [path.name for path in new.iterdir()] == [LOCK_NAME]
    file.write_bytes(inside)
    assert infraxa("restore", str(file), data=new, env=SECRET).code == 0
    assert titles(new) == ["old oak"]


Files = dict[str, bytes]


def files_of(saved: Path) -> Files:
    with tarfile.open(saved) as tar:
        return {info.name: (tar.extractfile(info) or io.BytesIO()).read() for info in tar}


def packed(files: Files, *, honest: bool = True) -> bytes:
    """A backup of these; the manifest is made to fit."""
    manifest = json.loads(files["manifest.json"])
    if honest:
        manifest["files"] = [
            {"name": name, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            for name, text in files.items()
            if name != "manifest.json"
        ]
    out = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=out) as tar:
        for name, text in (files | {"manifest.json": json.dumps(manifest).encode()}).items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


def changed_database(saved: Path, change: Callable[[sqlite3.Connection], object]) -> bytes:
    files = files_of(saved)
    path = saved.with_name("changed.db")
    path.write_bytes(files[DATABASE_NAME])
    with closing(sqlite3.connect(path)) as conn:
        change(conn)
        conn.commit()
    return packed(files | {DATABASE_NAME: path.read_bytes()})


def unbalanced(conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO accounts (name, balance) VALUES ('earned', 6)")


def broken_pages(saved: Path) -> bytes:
    files = files_of(saved)
    text = bytearray(files[DATABASE_NAME])
    text[4096 * 3 : 4096 * 9] = b"\xa5" * (4096 * 6)
    return packed(files | {DATABASE_NAME: bytes(text)})


def without(saved: Path, name: str) -> bytes:
    files = files_of(saved)
    del files[name]
    return packed(files, honest=False)


def flipped(saved: Path, name: str) -> bytes:
    files = files_of(saved)
    text = bytearray(files[name])
    text[len(text) // 2] ^= 1
    return packed(files | {name: bytes(text)}, honest=False)


def newer_format(saved: Path) -> bytes:
    files = files_of(saved)
    manifest = json.loads(files["manifest.json"]) | {"infraxa_backup": 2}
    return packed(files | {"manifest.json": json.dumps(manifest).encode()})


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "something else": (lambda saved: b"hello", "not a backup of infraxa"),
    "empty": (lambda saved: b"", "not a backup of infraxa"),
    "another archive": (lambda saved: gzip.compress(b"hello" * 500), "damaged"),
    "cut": (lambda saved: saved.read_bytes()[:-900], "damaged"),
    "a file is missing": (lambda saved: without(saved, IDENTITY_NAME), "damaged"),
    "a changed key": (lambda saved: flipped(saved, IDENTITY_NAME), "damaged"),
    "a changed database": (lambda saved: flipped(saved, DATABASE_NAME), "damaged"),
    "broken pages": (broken_pages, "damaged"),
    "books that do not balance": (lambda saved: changed_database(saved, unbalanced), "damaged"),
    "a newer schema": (
        lambda saved: changed_database(
            saved, lambda conn: conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        ),
        "newer infraxa",
    ),
    "a newer format": (newer_format, "newer infraxa"),
    "a way out": (lambda saved: packed(files_of(saved) | {"../evil.key": b"x"}), "damaged"),
    "a damaged key": (lambda saved: packed(files_of(saved) | {IDENTITY_NAME: b"infraxa-key 1\n"}), "damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_whole_changes_nothing(saved: Path, data: Path, kind: str) -> None:
    make, word = BAD[kind]
    saved.write_bytes(make(saved))
    before = state_of(data)
    one_line(infraxa("restore", str(saved), "--force", data=data), word)
    assert state_of(data) == before
    assert not list(data.parent.glob("data.before-*")) and not list(data.parent.rglob("evil*"))


KILLS = """
import os, shutil, signal, sys
from pathlib import Path
from infraxa.app.backups import restore
from infraxa.app.folders import Folders
from infraxa.store.lock import FolderLock

base, saved = Path(sys.argv[1]), Path(sys.argv[2])
STEPS = ("replace", "unlink", "mkdir", "fsync")

def die_at(step):
    left = [step]
    def counted(do):
        def call(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*args, **more)
        return call
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))

def main():
    for step in range(1000):
        work = base / str(step)
        shutil.copytree(base / "data", work / "data")
        child = os.fork()
        if not child:
            die_at(step)
            restore(Folders.find(work / "data", {}), saved, str, force=True)
            os._exit(0)
        killed = os.waitpid(child, 0)[1]
        FolderLock.acquire(work / "data").release()
        print(step, flush=True)
        if not killed:
            return
main()
"""


def test_killed_at_any_moment_it_is_the_old_state_or_the_new_one(saved: Path, tmp_path: Path) -> None:
    base = tmp_path / "kills"
    make_node(base / "data", "young ash")
    (base / "data" / "recovery.key").unlink()
    old = state_of(base / "data")
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLS, str(base), str(saved)],
        capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    steps = [int(line) for line in done.stdout.split()]
    seen = []
    for step in steps:
        here = base / str(step) / "data"
        asides = list(here.parent.glob("data.before-*"))
        assert not (here / "restore").exists()
        if titles(here) == ["young ash"]:
            assert state_of(here) == old and asides == []
            seen.append("old")
        else:
            assert titles(here) == ["old oak"] and 'name = "old oak"' in (here / "config.toml").read_text()
            assert (here / "recovery.key").exists() and not (here / f"{DATABASE_NAME}-wal").exists()
            assert [state_of(aside) for aside in asides] == [old]
            seen.append("new")
    assert len(steps) > 20 and seen == sorted(seen, reverse=True) and {*seen} == {"old", "new"}


def test_a_command_that_only_looks_finishes_it(saved: Path, tmp_path: Path) -> None:
    base = tmp_path / "kills"
    make_node(base / "data", "young ash")
    kill = KILLS.replace("range(1000)", "[int(sys.argv[3])]").replace(
        'FolderLock.acquire(work / "data").release()', "pass"
    )
    for step in range(5, 100, 3):
        subprocess.run(
            [sys.executable, "-P", "-c", kill, str(base), str(saved), str(step)],
            capture_output=True, timeout=LIMIT, check=True,
        )  # fmt: skip
        here = base / str(step) / "data"
        if (here / "restore" / "ready.json").exists():
            assert infraxa("identity", "show", data=here).out.startswith("shown as\told oak·")
            assert not (here / "restore").exists()
            return
    raise AssertionError("no step after which it is decided")


def test_a_copy_is_of_one_moment(data: Path, tmp_path: Path) -> None:
    """Two rows are always written together, while copies are made."""
    writer = subprocess.Popen(
        [
            sys.executable, "-P", "-c",
            "import sys, pathlib\n"
            "from infraxa.store import chats\n"
            "from infraxa.store.db import connect, transaction\n"
            "conn = connect(pathlib.Path(sys.argv[1]))\n"
            "print('on', flush=True)\n"
            "while True:\n"
            "    with transaction(conn):\n"
            "        chats.rename_chat(conn, chats.create_chat(conn).id, 'pair')\n"
            "        chats.rename_chat(conn, chats.create_chat(conn).id, 'pair')\n",
            str(data),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"on\n"
        for number in range(2):
            file, new = tmp_path / f"{number}.backup", tmp_path / f"{number}"
            assert infraxa("backup", str(file), data=data).code == 0
            assert infraxa("restore", str(file), data=new).code == 0
            assert titles(new).count("pair") % 2 == 0
        assert writer.poll() is None and titles(new).count("pair") > 0
    finally:
        writer.kill()
        writer.communicate()


def test_a_restored_node_does_not_use_its_numbers_again(data: Path, tmp_path: Path) -> None:
    with closing(connect(data)) as conn:
        tabs.set_note(conn, "provider", b"a" * 32, "")
        conn.execute("UPDATE tabs SET seq = 7")
    file = tmp_path / "file"
    assert infraxa("backup", str(file), data=data).code == 0
    assert infraxa("restore", str(file), "--force", data=data).code == 0
    with closing(connect(data)) as conn:
        tab = tabs.get_tab(conn, "provider", b"a" * 32)
        assert tab.needs_sync and tab.seq > 1_000_000


def test_wiping(data: Path, saved: Path) -> None:
    (data / "notes.txt").write_text("mine")
    (data / "logs").mkdir()
    (data / "logs" / "infraxa.log").write_text("x")
    before = state_of(data)
    ran = infraxa("wipe", data=data)
    assert ran.code == 2 and "nobody to ask" in ran.err
    assert "Lost for ever: 1 chat, 0 receipts." in ran.out and state_of(data) == before
    ran = infraxa("wipe", "--yes", data=data)
    assert ran.code == 0 and "It is deleted." in ran.out
    assert sorted(state_of(data)) == ["config.toml", "notes.txt", "themes/mine.toml"]
    assert infraxa("wipe", "--yes", "--all", data=data).code == 0
    assert sorted(state_of(data)) == ["notes.txt"]
    assert infraxa("restore", str(saved), data=data).code == 0 and titles(data) == ["old oak"]


def test_no_room(data: Path, saved: Path, disk: Path) -> None:
    file = disk / "node.backup"
    file.write_bytes(b"kept")
    here = disk / "here"
    here.mkdir()
    (here / "config.toml").write_text("")
    fill(disk)
    one_line(infraxa("backup", str(file), "--force", data=data), str(file), "No space left")
    one_line(infraxa("restore", str(saved), "--force", data=here), str(disk), "Free some space")
    assert file.read_bytes() == b"kept"
    assert {path.name for path in disk.iterdir()} == {"node.backup", "here", "filler"}
    assert {path.name for path in here.iterdir()} <= {"config.toml", LOCK_NAME}


def test_on_a_terminal_it_asks_before_it_wipes(data: Path) -> None:
    before = state_of(data)
    for answer, code in (("no", 1), ("yes", 0)):
        with closing(Terminal([*COMMAND, "wipe"], environment(data), size=(160, 30))) as terminal:
            terminal.wait_for("Delete it all? Type yes:")
            assert state_of(data) == before
            terminal.send(f"{answer}\r")
            assert terminal.wait_exit(seconds=60) == code
            assert ("Nothing was deleted." in terminal.text) == (answer == "no")
        assert (data / IDENTITY_NAME).exists() == (answer == "no")


def test_what_is_owed_is_said_before_it_is_wiped(data: Path) -> None:
    with closing(connect(data)) as conn:
        post(conn, "a", "settle", {f"tab:provider:{'ab' * 32}": 2_000_000, "earned": -2_000_000})
        post(conn, "b", "settle", {f"tab:user:{'cd' * 32}": -500_000, "spent": 500_000})
    out = infraxa("wipe", data=data).out
    assert "Others owe it 2.00 credits" in out and "It owes others 0.50 credits" in out
