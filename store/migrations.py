"""The schema, as numbered steps. Imported only when a step is pending: sqlite-utils is slow to import.

A step never changes once it was released; the next change is a new step. `PRAGMA user_version` holds the
number of the last step done, and changes in the step's own transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlite_utils import Database

from infraxa.store.ledger_schema import LEDGER


def _conversations(db: Database) -> None:
    """Chats, the tree of their messages, and the pieces of the answers being written.

    A message's parent is of the same chat: the foreign keys hold both columns. `n` is the row number that
    the full-text index refers to; it stays the same for the life of the row.
    """
    db.executescript(
        """
        CREATE TABLE chats (
            n INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            title TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            deleted_at INTEGER,
            head_id TEXT,
            options TEXT NOT NULL,
            draft TEXT NOT NULL,
            FOREIGN KEY (id, head_id) REFERENCES messages (chat_id, id) DEFERRABLE INITIALLY DEFERRED
        );
        CREATE INDEX chats_by_time ON chats (updated_at, id) WHERE deleted_at IS NULL;

        CREATE TABLE messages (
            n INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
            parent_id TEXT,
            role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
            state TEXT NOT NULL
                CHECK (state IN ('streaming', 'complete', 'stopped', 'failed', 'interrupted')),
            created_at INTEGER NOT NULL,
            facts TEXT,
            error TEXT NOT NULL,
            content TEXT NOT NULL,
            UNIQUE (chat_id, id),
            FOREIGN KEY (chat_id, parent_id) REFERENCES messages (chat_id, id) DEFERRABLE INITIALLY DEFERRED
        );
        CREATE INDEX messages_by_parent ON messages (chat_id, parent_id, id);
        CREATE INDEX messages_being_written ON messages (n) WHERE state = 'streaming';

        CREATE TABLE pieces (
            message INTEGER NOT NULL REFERENCES messages (n) ON DELETE CASCADE,
            seq INTEGER NOT NULL,
            text TEXT NOT NULL,
            PRIMARY KEY (message, seq)
        ) WITHOUT ROWID;
        """
    )


def _search(db: Database) -> None:
    """Full-text indexes over titles and messages, kept by triggers. Diacritics do not matter in a search."""
    for table, column in (("chats", "title"), ("messages", "content")):
        db.table(table).enable_fts([column], create_triggers=True, tokenize="unicode61 remove_diacritics 2")


def _models(db: Database) -> None:
    """The model files that the person added."""
    db.executescript(
        """
        CREATE TABLE models (
            name TEXT PRIMARY KEY,
            path TEXT NOT NULL UNIQUE,
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            added_at INTEGER NOT NULL,
            metadata BLOB NOT NULL
        );
        """
    )


def _memory(db: Database) -> None:
    """Small things that the app remembers between runs, and what was typed at the prompt."""
    db.executescript(
        """
        CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE prompts (n INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
        """
    )


def _peers(db: Database) -> None:
    """What the network remembers. A node that is forgotten loses the names that it had first."""
    db.executescript(
        """
        CREATE TABLE own_seq (node BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE prekeys (
            node BLOB NOT NULL,
            public BLOB NOT NULL,
            secret BLOB NOT NULL,
            made_ms INTEGER NOT NULL,
            expires_ms INTEGER NOT NULL,
            PRIMARY KEY (node, public)
        ) WITHOUT ROWID;
        CREATE TABLE anchors (place INTEGER PRIMARY KEY, node BLOB NOT NULL UNIQUE);

        CREATE TABLE nodes (
            id BLOB PRIMARY KEY,
            name TEXT NOT NULL,
            addresses TEXT NOT NULL,
            last_contact_ms INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX nodes_by_contact ON nodes (last_contact_ms);
        CREATE TABLE names (
            name TEXT PRIMARY KEY,
            node BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE
        ) WITHOUT ROWID;
        CREATE INDEX names_by_node ON names (node);
        CREATE TABLE bans (
            node BLOB PRIMARY KEY,
            until_ms INTEGER NOT NULL,
            reason TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX bans_by_end ON bans (until_ms);

        CREATE TABLE networks (name TEXT PRIMARY KEY, psk BLOB) WITHOUT ROWID;
        CREATE TABLE bootstrap (
            n INTEGER PRIMARY KEY,
            network TEXT NOT NULL REFERENCES networks (name) ON DELETE CASCADE,
            node BLOB NOT NULL,
            addresses TEXT NOT NULL,
            UNIQUE (network, node)
        );
        """
    )


def _market(db: Database) -> None:
    """What this machine saw of drivers, what the person said of them, and which users are not served."""
    db.executescript(
        """
        CREATE TABLE drivers (
            node BLOB NOT NULL,
            model BLOB NOT NULL,
            changed_ms INTEGER NOT NULL,
            evidence BLOB NOT NULL,
            PRIMARY KEY (node, model)
        ) WITHOUT ROWID;
        CREATE INDEX drivers_by_change ON drivers (changed_ms);
        CREATE TABLE marks (
            node BLOB PRIMARY KEY,
            mark TEXT NOT NULL CHECK (mark IN ('pinned', 'blocked'))
        ) WITHOUT ROWID;
        CREATE TABLE blocked_users (
            user BLOB PRIMARY KEY,
            since_ms INTEGER NOT NULL,
            note TEXT NOT NULL
        ) WITHOUT ROWID;
        """
    )


def _ledger(db: Database) -> None:
    """What was bought and sold; see ledger_schema.py."""
    db.executescript(LEDGER)


def _ratings(db: Database) -> None:
    """What others say of providers, and what the person said or may say of answers."""
    db.executescript(
        """
        CREATE TABLE ratings (
            network TEXT NOT NULL,
            hash BLOB NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (network, hash)
        ) WITHOUT ROWID;
        CREATE TABLE own_ratings (
            order_id BLOB PRIMARY KEY,
            network TEXT NOT NULL,
            provider BLOB NOT NULL,
            day INTEGER NOT NULL,
            blank BLOB NOT NULL,
            stars INTEGER CHECK (stars BETWEEN 1 AND 5),
            record BLOB,
            due_ms INTEGER
        ) WITHOUT ROWID;
        CREATE UNIQUE INDEX own_ratings_of_a_day ON own_ratings (provider, day) WHERE stars IS NOT NULL;
        CREATE INDEX own_ratings_by_day ON own_ratings (day);
        CREATE INDEX own_ratings_due ON own_ratings (due_ms) WHERE due_ms IS NOT NULL;
        """
    )


def _forgetting(db: Database) -> None:
    """What is needed to delete an order without reading all orders, or all events that could be about it."""
    db.executescript(
        """
        CREATE INDEX orders_expired ON orders (ended_at) WHERE state = 'expired';
        CREATE INDEX orders_free ON orders (ended_at) WHERE bill = 'due' AND charge = 0;
        CREATE INDEX events_by_order ON events (order_n) WHERE order_n IS NOT NULL;
        """
    )


def _calls(db: Database) -> None:
    """Which orders programs made by calls, and what those of each quarter of an hour cost."""
    db.executescript(
        """
        ALTER TABLE orders ADD COLUMN called INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE calls (quarter INTEGER PRIMARY KEY, accepted INTEGER NOT NULL);
        """
    )


def _proofs(db: Database) -> None:
    """What was promised of orders that can be checked, what checks of them found, and how much a model's own
    numbers differ between honest runs."""
    db.executescript(
        """
        ALTER TABLE orders ADD COLUMN mode TEXT NOT NULL DEFAULT 'none';
        ALTER TABLE orders ADD COLUMN transcript BLOB;
        CREATE TABLE verdicts (
            order_id BLOB NOT NULL,
            peer BLOB NOT NULL,
            model BLOB NOT NULL,
            at_ms INTEGER NOT NULL,
            state TEXT NOT NULL,
            verdict BLOB NOT NULL,
            proof BLOB,
            PRIMARY KEY (order_id, peer)
        );
        CREATE INDEX verdicts_by_driver ON verdicts (peer, model, at_ms);
        CREATE TABLE noise (
            file TEXT NOT NULL,
            kind TEXT NOT NULL,
            mu0 REAL NOT NULL,
            at_ms INTEGER NOT NULL,
            PRIMARY KEY (file, kind)
        ) WITHOUT ROWID;
        """
    )


def _canaries(db: Database) -> None:
    """Which orders are canaries, or audits of these by others."""
    db.executescript(
        """
        ALTER TABLE orders ADD COLUMN canary INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX orders_canaries ON orders (opened_at) WHERE canary;
        """
    )


MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    _conversations,
    _search,
    _models,
    _memory,
    _peers,
    _market,
    _ledger,
    _ratings,
    _forgetting,
    _calls,
    _proofs,
    _canaries,
)
"""Step i + 1 leads from version i to version i + 1."""


def migrate(
    conn: sqlite3.Connection,
    steps: tuple[Callable[[Database], None], ...] = MIGRATIONS,
) -> None:
    """Do the steps that are pending, each in one transaction with its number.

    `conn` has `isolation_level=None`. A step that fails leaves the version before it whole, and raises what
    it met.
    """
    # Plug-ins of sqlite-utils that a person installed for themselves have no business in here.
    db = Database(conn, recursive_triggers=False, execute_plugins=False)
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    for number, step in enumerate(steps[version:], start=version + 1):
        conn.execute("BEGIN IMMEDIATE")
        try:
            step(db)
            conn.execute(f"PRAGMA user_version = {number}")
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
