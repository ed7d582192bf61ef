"""The last change of a tab that both sides have signed, with what was kept to prove it."""

from __future__ import annotations

from typing import Literal

import msgspec

from infraxa.store.db import Connection
from infraxa.store.ledger import tab_account
from infraxa.store.trade_records import Role


class Change(msgspec.Struct, frozen=True):
    """One of the three, encoded by whoever kept it."""

    kind: Literal["receipt", "settlement", "adopted"]
    proof: bytes
    """The receipt; what both signed; what was told by the other side."""
    countersign: bytes = b""


def last_change(conn: Connection, role: Role, peer: bytes) -> Change | None:
    """The change that the tab's signed_seq is the number of; None when there was none, or nothing is kept."""
    row = conn.execute(
        "SELECT r.receipt, r.countersign FROM receipts r "
        "JOIN tabs t ON t.role = r.role AND t.peer = r.peer AND t.signed_seq = r.tab_seq "
        "WHERE r.role = ? AND r.peer = ? AND r.countersign IS NOT NULL",
        (role, peer),
    ).fetchone()
    if row is not None:
        return Change("receipt", row[0], row[1])
    row = conn.execute(
        "SELECT e.proof FROM tabs t JOIN events e "
        "ON e.key = 'adopt:' || t.role || ':' || lower(hex(t.peer)) || ':' || t.signed_seq "
        "WHERE t.role = ? AND t.peer = ? AND t.adopted_seq = t.signed_seq",
        (role, peer),
    ).fetchone()
    if row is not None:
        return Change("adopted", row[0] or b"")
    row = conn.execute(
        "SELECT e.proof FROM accounts a JOIN postings p ON p.account = a.n JOIN events e ON e.n = p.event "
        "WHERE a.name = ? AND e.kind IN ('settle', 'net') ORDER BY e.n DESC LIMIT 1",
        (tab_account(role, peer),),
    ).fetchone()
    return None if row is None else Change("settlement", row[0] or b"")


def adopted(conn: Connection, role: Role, peer: bytes, seq: int) -> bytes | None:
    """What the other side told when the state of this number was adopted; None: it was not."""
    key = f"adopt:{role}:{peer.hex()}:{seq}"
    row = conn.execute("SELECT proof FROM events WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0] or b""
