"""Double entry: events that are only ever added, each with postings that sum to 0, and the balances.

An event has a key, and happens once however often it is posted. What events mean is in trade.py and tabs.py;
here is also the check that the books are whole.

Accounts are texts, debits above 0: `tab:provider:<account>` (it owes this node), `tab:user:<provider>` (this
node owes it: below 0), `earned`, `spent`, `settled`, and `adopted` for what a restored backup did not know.
`reversed:user:<provider>`: what this node takes back of what it signed; the tab stays as both signed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from infraxa.store.db import Connection, transaction
from infraxa.store.text import storable
from infraxa.store.trade_records import Role

EventKind = Literal["charge", "settle", "net", "reverse", "adopt"]

QUARTER_MS = 15 * 60 * 1000
"""What sums are kept by: days begin at a multiple of it in every time zone."""


def tab_account(role: Role, peer: bytes) -> str:
    """The account of a tab."""
    return f"tab:{role}:{peer.hex()}"


def reversed_account(provider: bytes) -> str:
    """The account of what this node takes back of what it owes this provider."""
    return f"reversed:user:{provider.hex()}"


def post(
    conn: Connection,
    key: str,
    kind: EventKind,
    postings: Mapping[str, int],
    *,
    order_n: int | None = None,
    note: str = "",
    proof: bytes | None = None,
) -> bool:
    """Add an event, and move the balances; postings of 0 are left out. False when one of this key is there
    already. Raises ValueError when the postings do not sum to 0."""
    if sum(postings.values()) != 0:
        raise ValueError("the postings do not sum to 0")
    with transaction(conn):
        event = conn.execute(
            "INSERT INTO events (key, kind, at, order_n, note, proof) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO NOTHING",
            (key, kind, conn.clock(), order_n, storable(note), proof),
        )
        if event.rowcount == 0:
            return False
        for name, amount in postings.items():
            if amount:
                conn.execute(
                    "INSERT INTO accounts (name, balance) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET balance = balance + excluded.balance",
                    (name, amount),
                )
                conn.execute(
                    "INSERT INTO postings (event, account, amount) "
                    "VALUES (?, (SELECT n FROM accounts WHERE name = ?), ?)",
                    (event.lastrowid, name, amount),
                )
    return True


def balance(conn: Connection, account: str) -> int:
    """What was posted to the account, in all."""
    row = conn.execute("SELECT balance FROM accounts WHERE name = ?", (account,)).fetchone()
    return 0 if row is None else int(row[0])


def owed(conn: Connection, role: Role, peer: bytes) -> int:
    """What the user of this tab owes its provider, by signed receipts and settlements."""
    posted = balance(conn, tab_account(role, peer))
    return posted if role == "provider" else -posted


def check(conn: Connection) -> list[str]:
    """What is wrong with the books, one sentence each; nothing when they are whole.

    Reads all of the ledger: some seconds for 100 000 orders.
    """
    return [
        sentence.format(count=count, example=example)
        for sentence, query in _CHECKS
        for count, example in conn.execute(f"SELECT count(*), min(x) FROM ({query})")
        if count
    ]


_SUMMED = (
    f"SELECT role, opened_at / {QUARTER_MS} AS quarter, peer, model, count(*), sum(accepted), "
    "sum(charge - accepted), sum(reversed) FROM orders WHERE accepted IS NOT NULL GROUP BY 1, 2, 3, 4"
)
_CALLED = (
    f"SELECT opened_at / {QUARTER_MS} AS quarter, sum(accepted) AS accepted FROM orders "
    "WHERE called AND accepted IS NOT NULL GROUP BY 1"
)
_CALLS = "SELECT quarter, accepted FROM calls"
_KEPT = "SELECT role, quarter, peer, model, orders, accepted, disputed, reversed FROM sums"

_CHECKS: tuple[tuple[str, str], ...] = (
    (
        "{count} events do not sum to 0 (event {example}).",
        "SELECT event AS x FROM postings GROUP BY event HAVING sum(amount) <> 0",
    ),
    (
        "{count} balances are not the sum of what was posted ({example}).",
        "SELECT name AS x FROM accounts a WHERE balance <> "
        "(SELECT coalesce(sum(amount), 0) FROM postings p WHERE p.account = a.n)",
    ),
    (
        "The balances sum to {example}, not to 0.",
        "SELECT sum(balance) AS x FROM accounts HAVING sum(balance) <> 0",
    ),
    (
        "{count} orders were accepted for something else than was posted (order {example}).",
        "SELECT o.n AS x FROM orders o LEFT JOIN events e ON e.key = 'charge:' || o.n "
        "LEFT JOIN postings p ON p.event = e.n AND p.account = "
        "(SELECT n FROM accounts WHERE name = CASE o.role WHEN 'user' THEN 'spent' ELSE 'earned' END) "
        "WHERE coalesce(abs(p.amount), 0) <> coalesce(o.accepted, 0)",
    ),
    (
        "{count} orders hold an amount that they should not (order {example}).",
        "SELECT n AS x FROM orders WHERE (bill = 'held' AND held <> hold AND NOT canary) "
        "OR (bill IN ('due', 'issued') AND held <> charge)",
    ),
    (
        "{count} orders and their receipts disagree (order {example}).",
        "SELECT o.n AS x FROM orders o LEFT JOIN receipts r ON r.order_n = o.n "
        "WHERE (o.bill IN ('issued', 'signed', 'closed')) <> (r.order_n IS NOT NULL) "
        "OR (o.bill IN ('signed', 'closed')) <> (r.countersign IS NOT NULL) "
        "OR r.role <> o.role OR r.peer <> o.peer",
    ),
    (
        "{count} receipts have a number that their tab never gave (order {example}).",
        "SELECT r.order_n AS x FROM receipts r JOIN tabs t USING (role, peer) WHERE r.tab_seq > t.seq",
    ),
    (
        "{count} sums of calls are not those of their orders (quarter of an hour {example}).",
        f"SELECT quarter AS x FROM (SELECT * FROM ({_CALLED} EXCEPT {_CALLS}) "
        f"UNION ALL SELECT * FROM ({_CALLS} EXCEPT {_CALLED}))",
    ),
    (
        "{count} sums of days are not those of their orders (quarter of an hour {example}).",
        f"SELECT quarter AS x FROM (SELECT * FROM ({_SUMMED} EXCEPT {_KEPT}) "
        f"UNION ALL SELECT * FROM ({_KEPT} EXCEPT {_SUMMED}))",
    ),
)
