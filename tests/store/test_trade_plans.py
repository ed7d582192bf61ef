"""No step of an order reads more of the ledger than what it is about, however long that has grown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infraxa.store import buying, earnings, selling, tabs, trade
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, Counts, OrderRow

PROVIDER, ACCOUNT, ORDER, MODEL = b"p" * 32, b"a" * 32, bytes(16), b"m" * 32
COUNTS = Counts(1, 0, 1)
BOUGHT = OrderRow(
    peer=PROVIDER, id=ORDER, model=MODEL, chat_id="chat", hold=10, called=True, canary=True, held=10
)
SOLD = OrderRow(peer=ACCOUNT, id=ORDER, model=MODEL, hold=10)
CAPS = Caps(request=100, chat=100, day=100, calls=100, canaries=100, tab=100)

STEPS: dict[str, Callable[[Connection], object]] = {
    "hold": lambda conn: buying.open_hold(conn, BOUGHT, CAPS),
    "send": lambda conn: buying.mark_sent(conn, PROVIDER, ORDER),
    "count": lambda conn: buying.count_order(conn, PROVIDER, ORDER, "completed", COUNTS, 7),
    "silence": lambda conn: buying.mark_unclaimed(conn, PROVIDER, ORDER, 2**60),
    "silence is over": buying.release_unclaimed,
    "open": lambda conn: selling.open_order(conn, SOLD, limit=10, grace_ms=0),
    "claim": lambda conn: trade.move(conn, "provider", ACCOUNT, ORDER, ["pending"], "claimed"),
    "requeue": lambda conn: selling.requeue(conn, ACCOUNT, ORDER),
    "forget": lambda conn: selling.forget_expired(conn, 2**60, 2**60),
    "end": lambda conn: selling.end_order(conn, ACCOUNT, ORDER, "completed", COUNTS, 7),
    "restart of the provider": lambda conn: (
        selling.expire_open_orders(conn),
        selling.fail_open_orders(conn),
        selling.held_since(conn, 0),
    ),
    "restart of the user": buying.release_unsent,
    "what is due": lambda conn: selling.due(conn, ACCOUNT),
    "what is open": lambda conn: (trade.unsettled(conn, "user"), trade.unsettled(conn, "user", PROVIDER)),
    "issue": lambda conn: selling.issue_receipt(conn, ACCOUNT, ORDER, lambda *_: b"r"),
    "sign": lambda conn: buying.sign_receipt(
        conn, PROVIDER, ORDER, seq=1, receipt=b"r", countersign=b"c", billed=COUNTS, charge=7, accepted=7
    ),
    "accept": lambda conn: selling.accept_countersign(
        conn, ACCOUNT, ORDER, countersign=b"c", counted=COUNTS, accepted=7
    ),
    "acknowledge": lambda conn: buying.acknowledge(conn, PROVIDER, ORDER, b"rating"),
    "release": lambda conn: buying.release(conn, PROVIDER, ORDER),
    "spent": lambda conn: (
        buying.spent_since(conn, 0),
        buying.spent_in_chat(conn, "chat"),
        buying.spent_by_calls(conn, 0),
        buying.spent_on_canaries(conn, 0),
    ),
    "a tab": lambda conn: tabs.get_tab(conn, "provider", ACCOUNT),
    "settle": lambda conn: tabs.settle(conn, "s", "provider", ACCOUNT, 5, "", b"", seq=2),
    "adopt": lambda conn: tabs.adopt_state(conn, "user", PROVIDER, 9, 9),
    "a page": lambda conn: (
        earnings.list_receipts(conn, "user", before=9),
        earnings.list_receipts(conn, "user", peer=PROVIDER),
        earnings.list_receipts(conn),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_statement_reads_a_whole_table(conn: Connection, name: str) -> None:
    for before in list(STEPS)[: list(STEPS).index(name)]:
        STEPS[before](conn)
    statements: list[str] = []
    conn.set_trace_callback(statements.append)  # with the values in them
    STEPS[name](conn)
    conn.set_trace_callback(None)
    asked = [one for one in statements if one.split()[0] in {"SELECT", "UPDATE", "INSERT", "DELETE"}]
    assert asked != []
    for statement in asked:
        plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}")]
        # To go down an index from its end is no more than the page that is asked for.
        whole = [step for step in plan if step.startswith("SCAN") and "ORDER BY" not in statement]
        # All orders of a role are as good as all.
        whole += [step for step in plan if step.endswith("INDEX sqlite_autoindex_orders_1 (role=?)")]
        assert whole == [], statement
