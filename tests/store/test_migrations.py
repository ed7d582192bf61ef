"""Each step from the version before it, with data in it; one that fails or is killed leaves that version."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_utils import Database

from infraxa.store import drivers, earnings, ledger, migrations, peers, ratings, tabs
from infraxa.store.chats import get_chat
from infraxa.store.db import SCHEMA_VERSION, connect
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.messages import mark_interrupted, shown_branch
from infraxa.store.migrations import MIGRATIONS, migrate
from infraxa.store.models import get_model, list_models
from infraxa.store.records import (
    BanRecord,
    DriverRecord,
    ModelRecord,
    NetworkRecord,
    NodeRecord,
    PrekeyRecord,
)
from infraxa.store.search import search
from infraxa.store.state import get_value, list_prompts

CHAT, QUESTION, ANSWER = (f"01HF00000000000000000000{n:02}" for n in range(3))


def at_version(folder: Path, version: int) -> None:
    """A database as the program of that version left it, with something in every table that it had."""
    conn = sqlite3.connect(folder / DATABASE_NAME, isolation_level=None)
    migrate(conn, MIGRATIONS[:version])
    conn.execute("PRAGMA journal_mode = WAL")
    if version >= 1:
        conn.execute("BEGIN")
        conn.execute(
            "INSERT INTO chats (id, title, created_at, updated_at, options, draft, head_id) "
            "VALUES (?, 'Planets', 1, 2, '{\"seed\": 3}', 'and Mars?', ?)",
            (CHAT, ANSWER),
        )
        conn.executemany(
            "INSERT INTO messages (id, chat_id, parent_id, role, state, created_at, facts, error, content) "
            "VALUES (?, ?, ?, ?, ?, 2, NULL, '', ?)",
            [
                (QUESTION, CHAT, None, "user", "complete", "How large is Jupiter?"),
                (ANSWER, CHAT, QUESTION, "assistant", "streaming", "Eleven "),
            ],
        )
        conn.executemany(
            "INSERT INTO pieces SELECT n, ?, ? FROM messages WHERE id = ?",
            [(1, "times ", ANSWER), (2, "the Earth.", ANSWER)],
        )
        conn.execute("COMMIT")
    if version >= 3:
        conn.execute("INSERT INTO models VALUES ('m', '/m.gguf', 'ab', 1, 2, 3, x'7b7d')")
    if version >= 4:
        conn.execute("INSERT INTO state VALUES ('last_chat', '\"x\"')")
        conn.execute("INSERT INTO prompts VALUES (1, 'How large is Jupiter?')")
    if version >= 5:
        conn.execute("INSERT INTO own_seq VALUES (x'01', 7)")
        conn.execute("INSERT INTO prekeys VALUES (x'01', x'02', x'03', 4, 5)")
        conn.execute("INSERT INTO anchors VALUES (0, x'0a')")
        conn.execute("INSERT INTO nodes VALUES (x'0a', 'maple', '[\"ws://192.0.2.1:7741\"]', 9)")
        conn.execute("INSERT INTO names VALUES ('maple', x'0a')")
        conn.execute("INSERT INTO bans VALUES (x'0b', 9000000000000, 'tampered')")
        conn.execute("INSERT INTO networks VALUES ('home', x'ff')")
        conn.execute("INSERT INTO bootstrap VALUES (1, 'home', x'0a', '[]')")
    if version >= 6:
        conn.execute("INSERT INTO drivers VALUES (x'0a', x'0c', 8, x'7b7d')")
        conn.execute("INSERT INTO marks VALUES (x'0a', 'pinned')")
        conn.execute("INSERT INTO blocked_users VALUES (x'0d', 7, 'rude')")
    if version >= 7:
        conn.execute("BEGIN")
        conn.execute(
            "INSERT INTO tabs (role, peer, seq, signed_seq, name) VALUES ('user', x'0e', 4, 4, 'oak')"
        )
        conn.execute(
            "INSERT INTO orders (role, peer, id, state, bill, model, model_name, quote, price_in, price_out, "
            "price_cached, hold, held, charge, accepted, outcome, opened_at) VALUES ('user', x'0e', x'0f', "
            "'completed', 'closed', x'0c', 'm', x'', 1, 2, 3, 9, 0, 7, 7, 'stop', 1800000)"
        )
        conn.execute("INSERT INTO receipts VALUES (1, 'user', x'0e', 4, x'aa', x'bb', NULL, 5, 6)")
        conn.execute("INSERT INTO accounts VALUES (1, 'spent', 7), (2, 'tab:user:0e', -7)")
        conn.execute("INSERT INTO events VALUES (1, 'charge:1', 'charge', 6, 1, '', NULL)")
        conn.execute("INSERT INTO postings VALUES (1, 1, 7), (1, 2, -7)")
        conn.execute("INSERT INTO sums VALUES ('user', 2, x'0e', x'0c', 'm', 1, 5, 0, 6, 7, 0, 0)")
        conn.execute("COMMIT")
    if version >= 8:
        conn.execute("INSERT INTO ratings VALUES ('home', x'0e', x'0f')")
        conn.execute("INSERT INTO own_ratings VALUES (x'10', 'home', x'0a', 20000, x'11', 4, x'12', 9)")
    if version >= 11:
        conn.execute("UPDATE orders SET mode = 'merkle', transcript = x'13'")
        conn.execute("INSERT INTO verdicts VALUES (x'0f', x'0e', x'0c', 9, 'passed', x'14', NULL)")
        conn.execute("INSERT INTO noise VALUES ('ab', 'cpu', 0.04, 9)")
    if version >= 12:
        conn.execute("UPDATE orders SET canary = 1")
    conn.close()


@pytest.mark.parametrize("version", range(SCHEMA_VERSION + 1))
def test_from_each_version_with_data_in_it(tmp_path: Path, version: int) -> None:
    at_version(tmp_path, version)
    conn = connect(tmp_path)
    assert conn.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    if version >= 1:
        chat = get_chat(conn, CHAT)
        assert (chat.title, chat.draft, chat.options.seed) == ("Planets", "and Mars?", 3)
        question, answer = shown_branch(conn, CHAT)
        assert question.message.content == "How large is Jupiter?"
        assert answer.message.content == "Eleven times the Earth."
        assert [hit.message_id for hit in search(conn, "jupiter")] == [QUESTION]
        assert [hit.message_id for hit in search(conn, "planets")] == [None]
        assert mark_interrupted(conn) == [ANSWER]
        assert [hit.message_id for hit in search(conn, "earth")] == [ANSWER]
    if version >= 3:
        assert get_model(conn, "m") == ModelRecord("m", "/m.gguf", "ab", 1, 2, 3, b"{}")
    assert list_models(conn) == ([get_model(conn, "m")] if version >= 3 else [])
    assert list_prompts(conn) == (["How large is Jupiter?"] if version >= 4 else [])
    assert get_value(conn, "last_chat", str) == ("x" if version >= 4 else None)
    if version >= 5:
        assert peers.last_seq(conn, b"\x01") == 7
        assert peers.list_prekeys(conn, b"\x01") == (PrekeyRecord(b"\x03", b"\x02", 4, 5),)
        assert peers.list_anchors(conn) == (b"\x0a",)
        assert peers.list_names(conn) == {"maple": b"\x0a"}
        assert peers.list_bans(conn) == [BanRecord(b"\x0b", 9_000_000_000_000, "tampered")]
        assert peers.get_network(conn, "home") == NetworkRecord("home", b"\xff", ((b"\x0a", ()),))
    known = NodeRecord(b"\x0a", "maple", ("ws://192.0.2.1:7741",), 9)
    assert peers.list_nodes(conn) == ([known] if version >= 5 else [])
    driver = DriverRecord(b"\x0a", b"\x0c", 8, b"{}")
    assert drivers.list_drivers(conn) == ([driver] if version >= 6 else [])
    assert drivers.list_marks(conn) == ({b"\x0a": "pinned"} if version >= 6 else {})
    blocked = conn.execute("SELECT user, since_ms, note FROM blocked_users").fetchall()
    assert blocked == ([(b"\x0d", 7, "rude")] if version >= 6 else [])
    assert ledger.check(conn) == []
    assert [(tab.name, tab.owed, tab.seq) for tab in tabs.list_tabs(conn)] == (
        [("oak", 7, 4)] if version >= 7 else []
    )
    receipts = [receipt.countersign for _, _, receipt in earnings.list_receipts(conn)]
    assert receipts == ([b"\xbb"] if version >= 7 else [])
    orders = conn.execute("SELECT mode, transcript FROM orders").fetchall()
    kept = [("merkle", b"\x13")] if version >= 11 else [("none", None)]
    assert orders == (kept if version >= 7 else [])
    canaries = [canary for (canary,) in conn.execute("SELECT canary FROM orders")]
    assert canaries == ([version >= 12] if version >= 7 else [])
    assert ratings.list_ratings(conn, "home") == ([b"\x0f"] if version >= 8 else [])
    assert ratings.list_due(conn, "home", 9) == ([(b"\x10", b"\x12")] if version >= 8 else [])
    conn.close()


def test_what_every_version_leads_to_is_the_same(tmp_path: Path) -> None:
    schemas = []
    for version in range(SCHEMA_VERSION + 1):
        folder = tmp_path / str(version)
        folder.mkdir()
        at_version(folder, version)
        conn = connect(folder)
        schemas.append(
            conn.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        )
        conn.close()
    assert len(schemas[0]) > 10
    assert all(schema == schemas[0] for schema in schemas)


def test_the_version_in_the_file_is_true_as_soon_as_a_step_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older program reads there, without SQLite, decides whether it may touch the file."""
    at_version(tmp_path, SCHEMA_VERSION - 1)
    seen: list[int] = []

    def migrate_and_look(conn: sqlite3.Connection) -> None:
        migrate(conn)
        seen.append(int.from_bytes((tmp_path / DATABASE_NAME).read_bytes()[60:64], "big"))

    monkeypatch.setattr(migrations, "migrate", migrate_and_look)
    connect(tmp_path).close()
    assert seen == [SCHEMA_VERSION]


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    def fails(db: Database) -> None:
        db.executescript("CREATE TABLE half (a); DELETE FROM pieces;")
        raise LookupError("in the middle")

    at_version(tmp_path, 1)
    conn = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    with pytest.raises(LookupError, match="in the middle"):
        migrate(conn, (*MIGRATIONS[:2], fails))
    assert conn.execute("PRAGMA user_version").fetchone()[0] == 2
    assert conn.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    assert conn.execute("SELECT count(*) FROM pieces").fetchone()[0] == 2
    conn.close()


KILLED = """
import os, signal, sqlite3, sys
from infraxa.store.migrations import MIGRATIONS, migrate

def killed(db):
    # More than the cache holds, so that some of it is in the file by now.
    db.executescript("CREATE TABLE half (a); DELETE FROM pieces; UPDATE messages SET content = 'gone';")
    db.conn.executemany("INSERT INTO half VALUES (?)", ((os.urandom(3000),) for _ in range(2000)))
    assert os.path.getsize(sys.argv[1]) > 2_000_000
    os.kill(os.getpid(), signal.SIGKILL)

conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA cache_size = 20")
conn.execute("PRAGMA journal_mode = DELETE")
migrate(conn, (*MIGRATIONS[:2], killed))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_crash_in_the_middle_of_a_step_leaves_the_version_before_it(tmp_path: Path) -> None:
    at_version(tmp_path, 1)
    path = tmp_path / DATABASE_NAME
    child = subprocess.run([sys.executable, "-P", "-c", KILLED, str(path)], timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    assert path.with_name(path.name + "-journal").exists()

    conn = connect(tmp_path)
    assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert conn.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    assert shown_branch(conn, CHAT)[1].message.content == "Eleven times the Earth."
    assert [hit.message_id for hit in search(conn, "jupiter")] == [QUESTION]
    conn.close()
