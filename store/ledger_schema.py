"""The tables of what was bought and sold: orders, their receipts, the tabs, and the events that moved money.

Events and postings are never changed or deleted. `balance`, `sums` and what `tabs` and `orders` count up are
derived, and kept in the transaction of what they follow from. This is a step of migrations.py: it never
changes once it was released.
"""

LEDGER = """
CREATE TABLE tabs (
    role TEXT NOT NULL CHECK (role IN ('user', 'provider')),
    peer BLOB NOT NULL,
    seq INTEGER NOT NULL DEFAULT 0,
    signed_seq INTEGER NOT NULL DEFAULT 0,
    adopted_seq INTEGER NOT NULL DEFAULT 0,
    needs_sync INTEGER NOT NULL DEFAULT 0,
    disputed INTEGER NOT NULL DEFAULT 0,
    credit INTEGER,
    name TEXT NOT NULL DEFAULT '',
    node BLOB,
    note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (role, peer),
    CHECK (signed_seq <= seq AND adopted_seq <= signed_seq)
) WITHOUT ROWID;

CREATE TABLE orders (
    n INTEGER PRIMARY KEY,
    role TEXT NOT NULL,
    peer BLOB NOT NULL,
    id BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('pending', 'claimed', 'processing', 'completed', 'failed', 'cancelled', 'expired')),
    bill TEXT NOT NULL CHECK (bill IN
        ('held', 'counted', 'signed', 'due', 'issued', 'closed', 'released')),
    model BLOB NOT NULL,
    model_name TEXT NOT NULL,
    chat_id TEXT,
    message_id TEXT,
    quote BLOB NOT NULL,
    price_in INTEGER NOT NULL,
    price_out INTEGER NOT NULL,
    price_cached INTEGER NOT NULL,
    hold INTEGER NOT NULL CHECK (hold >= 0),
    held INTEGER NOT NULL CHECK (held BETWEEN 0 AND hold),
    billed_prompt INTEGER,
    billed_cached INTEGER,
    billed_out INTEGER,
    counted_prompt INTEGER,
    counted_cached INTEGER,
    counted_out INTEGER,
    charge INTEGER CHECK (charge >= 0),
    accepted INTEGER CHECK (accepted BETWEEN 0 AND charge AND accepted <= hold),
    reversed INTEGER NOT NULL DEFAULT 0 CHECK (reversed BETWEEN 0 AND coalesce(accepted, 0)),
    outcome TEXT NOT NULL,
    requeued INTEGER NOT NULL DEFAULT 0,
    opened_at INTEGER NOT NULL,
    sent_at INTEGER,
    claimed_at INTEGER,
    ended_at INTEGER,
    unclaimed_until INTEGER,
    UNIQUE (role, peer, id),
    FOREIGN KEY (role, peer) REFERENCES tabs (role, peer),
    CHECK (held = 0 OR bill IN ('held', 'counted', 'due', 'issued')),
    CHECK (bill NOT IN ('signed', 'closed') OR accepted IS NOT NULL)
);
CREATE INDEX orders_unsettled ON orders (role, peer) WHERE bill NOT IN ('closed', 'released');
CREATE UNIQUE INDEX orders_issued ON orders (peer) WHERE bill = 'issued';
CREATE INDEX orders_by_chat ON orders (chat_id) WHERE chat_id IS NOT NULL;

CREATE TABLE receipts (
    order_n INTEGER PRIMARY KEY REFERENCES orders (n),
    role TEXT NOT NULL,
    peer BLOB NOT NULL,
    tab_seq INTEGER NOT NULL,
    receipt BLOB NOT NULL,
    countersign BLOB,
    rating BLOB,
    issued_at INTEGER NOT NULL,
    signed_at INTEGER,
    UNIQUE (role, peer, tab_seq)
);
CREATE INDEX receipts_by_role ON receipts (role, order_n);
CREATE INDEX receipts_by_peer ON receipts (role, peer, order_n);

CREATE TABLE accounts (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    balance INTEGER NOT NULL CHECK (typeof(balance) = 'integer')
);
CREATE TABLE events (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('charge', 'settle', 'net', 'reverse', 'adopt')),
    at INTEGER NOT NULL,
    order_n INTEGER REFERENCES orders (n),
    note TEXT NOT NULL,
    proof BLOB
);
CREATE TABLE postings (
    event INTEGER NOT NULL REFERENCES events (n),
    account INTEGER NOT NULL REFERENCES accounts (n),
    amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount <> 0),
    PRIMARY KEY (event, account)
) WITHOUT ROWID;
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER postings_last BEFORE DELETE ON postings BEGIN SELECT raise(ABORT, 'append only'); END;

CREATE TABLE sums (
    role TEXT NOT NULL,
    quarter INTEGER NOT NULL,
    peer BLOB NOT NULL,
    model BLOB NOT NULL,
    model_name TEXT NOT NULL,
    orders INTEGER NOT NULL,
    n_prompt INTEGER NOT NULL,
    n_cached INTEGER NOT NULL,
    n_out INTEGER NOT NULL,
    accepted INTEGER NOT NULL CHECK (typeof(accepted) = 'integer'),
    disputed INTEGER NOT NULL,
    reversed INTEGER NOT NULL,
    PRIMARY KEY (role, quarter, peer, model)
) WITHOUT ROWID;
"""
