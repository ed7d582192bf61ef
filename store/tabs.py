"""Tabs: what this node and another one owe each other, and how it is settled other than by orders.

A tab is one balance with a number that rises with every change; the creditor (the provider) gives the
numbers. After a restored backup the numbers that were used since are not known: `mark_restored`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infraxa.store import state
from infraxa.store.db import Connection, transaction
from infraxa.store.ledger import EventKind, post, tab_account
from infraxa.store.text import storable
from infraxa.store.trade import NEW_TAB, OPEN_BILLS, RESTORED
from infraxa.store.trade_records import MAX_AMOUNT, Refused, Role, SyncResult, TabRow

RESTORE_GAP = 1_000_000
"""A restored provider continues its numbers so much higher, and not below the time in ms, so that one backup
can be put back twice. The gap tells nobody anything and keeps even a user who hides what it signed from
getting a number twice."""


def get_tab(conn: Connection, role: Role, peer: bytes) -> TabRow:
    """The tab; one at 0 when there is none yet."""
    row = conn.execute(f"{_TABS} WHERE t.role = ? AND t.peer = ?", (role, peer)).fetchone()
    return _tab(row) if row is not None else TabRow(role=role, peer=peer, owed=0, held=0, seq=0, signed_seq=0)


def list_tabs(conn: Connection, role: Role | None = None) -> list[TabRow]:
    """All tabs of the role, the one that owes the most first."""
    which, given = ("", ()) if role is None else (" WHERE t.role = ?", (role,))
    return [_tab(row) for row in conn.execute(f"{_TABS}{which} ORDER BY owed DESC, t.role, t.peer", given)]


def names(conn: Connection) -> dict[tuple[Role, bytes], str]:
    """What each peer was called last, by role and peer."""
    rows = conn.execute("SELECT role, peer, name FROM tabs WHERE name <> ''")
    return {(role, peer): name for role, peer, name in rows}


def settled(conn: Connection) -> dict[bytes, int]:
    """What was settled or netted with each node that is known to be behind a tab, all in all."""
    rows = conn.execute(
        "SELECT coalesce(t.node, t.peer), sum(abs(p.amount)) FROM tabs t "
        "JOIN accounts a ON a.name = 'tab:' || t.role || ':' || lower(hex(t.peer)) "
        "JOIN postings p ON p.account = a.n JOIN events e ON e.n = p.event "
        "WHERE e.kind IN ('settle', 'net') AND (t.role = 'user' OR t.node IS NOT NULL) GROUP BY 1"
    )
    return dict(rows.fetchall())


def set_limit(conn: Connection, role: Role, peer: bytes, limit: int | None) -> None:
    """How far the tab may go; None: as the settings say."""
    _set(conn, role, peer, "credit", limit)


def set_note(conn: Connection, role: Role, peer: bytes, note: str) -> None:
    """What the person wrote about it."""
    _set(conn, role, peer, "note", storable(note))


def link_node(conn: Connection, account: bytes, node: bytes | None) -> None:
    """The account proved to belong to this node: what is owed in both directions can be netted."""
    _set(conn, "provider", account, "node", node)


def promise(conn: Connection, provider: bytes, seq: int) -> None:
    """This side puts its name to a change of this number, to which the provider may agree at any time.

    Nothing of a lower number is to be signed any more (TabRow.seq): else the older balance, agreed to later,
    would be the newer one.
    """
    with transaction(conn):
        _make(conn, "user", provider)
        conn.execute("UPDATE tabs SET seq = max(seq, ?) WHERE role = 'user' AND peer = ?", (seq, provider))


def settle(
    conn: Connection, key: str, role: Role, peer: bytes, amount: int, note: str, proof: bytes, *, seq: int
) -> Refused | None:
    """The tab owes `amount` less, by agreement: the Settlement that both signed is `proof`, its number `seq`.

    Once per `key`. A provider's `seq` must be the tab's next number, which is used by this; a user's must be
    above the last. Refused: `seq_used`; `out_of_step`; a provider's `receipt_due` (a receipt is to be signed
    first). Raises ValueError unless 0 < amount <= MAX_AMOUNT.
    """
    if not 0 < amount <= MAX_AMOUNT:
        raise ValueError(f"a settlement of {amount}")
    postings = {**_less(role, peer, amount), "settled": amount if role == "provider" else -amount}
    return _change(conn, "settle", key, [(role, peer, seq)], postings, note, proof)


def net_tabs(
    conn: Connection,
    key: str,
    account: bytes,
    provider: bytes,
    amount: int,
    note: str,
    proof: bytes,
    *,
    account_seq: int,
    provider_seq: int,
) -> Refused | None:
    """What `account` owes this node and what this node owes `provider`, the same person's, both shrink by
    `amount`, in one event: serving back. Otherwise as `settle`; `account_seq` numbers this node's own tab,
    `provider_seq` the other."""
    if not 0 < amount <= MAX_AMOUNT:
        raise ValueError(f"a settlement of {amount}")
    postings = {**_less("provider", account, amount), **_less("user", provider, amount)}
    numbers: list[tuple[Role, bytes, int]] = [
        ("provider", account, account_seq),
        ("user", provider, provider_seq),
    ]
    return _change(conn, "net", key, numbers, postings, note, proof)


def mark_restored(conn: Connection) -> None:
    """After an old backup was put back: nothing is signed on any tab before the other side told its highest
    countersigned state (`adopt_state`), and a provider's numbers go on RESTORE_GAP higher, or at the time.

    A provider's orders that were open, or had no receipt yet, are released: what became of them is in that
    state. A user's open orders are asked for again. Tabs that are new from now on may have been there, too.
    """
    with transaction(conn):
        state.set_value(conn, RESTORED, conn.clock())
        conn.execute("UPDATE tabs SET needs_sync = 1")
        conn.execute(
            "UPDATE tabs SET seq = max(seq + ?, ?) WHERE role = 'provider'", (RESTORE_GAP, conn.clock())
        )
        conn.execute(
            "UPDATE orders SET bill = 'released', held = 0, outcome = 'restored', "
            "state = CASE WHEN ended_at IS NULL THEN 'failed' ELSE state END, "
            "ended_at = coalesce(ended_at, ?) "
            f"WHERE role = 'provider' AND {OPEN_BILLS} AND bill IN ('held', 'due')",
            (conn.clock(),),
        )
        conn.execute(
            "UPDATE orders SET sent_at = opened_at "
            f"WHERE role = 'user' AND {OPEN_BILLS} AND bill = 'held' AND sent_at IS NULL"
        )


def adopt_state(
    conn: Connection, role: Role, peer: bytes, seq: int, owed: int, proof: bytes = b""
) -> SyncResult:
    """The other side's highest state that this side signed (verified by the caller; `proof`): the higher of
    the two counts, and the tab is in step again.

    `same`: as here. `adopted`: it was ahead, the difference is posted. `ahead`: this side's is newer, the
    other adopts that. `differs`: one number, two balances; nothing is changed, persons have to decide.
    """
    with transaction(conn):
        tab = get_tab(conn, role, peer)
        if seq == tab.signed_seq and owed != tab.owed:
            return "differs"
        _make(conn, role, peer)
        if seq > tab.signed_seq:
            more = owed - tab.owed if role == "provider" else tab.owed - owed
            postings = {tab_account(role, peer): more, "adopted": -more}
            post(conn, f"adopt:{role}:{peer.hex()}:{seq}", "adopt", postings, proof=proof)
        conn.execute(
            "UPDATE tabs SET seq = max(seq, ?1), needs_sync = 0, signed_seq = max(signed_seq, ?1), "
            "adopted_seq = CASE WHEN ?1 > signed_seq THEN ?1 ELSE adopted_seq END "
            "WHERE role = ?2 AND peer = ?3",
            (seq, role, peer),
        )
    if seq == tab.signed_seq:
        return "same"
    return "adopted" if seq > tab.signed_seq else "ahead"


_TABS = (
    "SELECT t.role, t.peer, t.seq, t.signed_seq, t.needs_sync, t.disputed, t.credit, t.name, t.node, t.note, "
    "coalesce(a.balance, 0) * CASE t.role WHEN 'user' THEN -1 ELSE 1 END AS owed, "
    "(SELECT coalesce(sum(held), 0) FROM orders o "
    f"WHERE o.role = t.role AND o.peer = t.peer AND {OPEN_BILLS}), "
    "(SELECT coalesce(sum(held), 0) FROM orders o WHERE o.role = t.role AND o.peer = t.peer "
    f"AND {OPEN_BILLS} AND o.ended_at IS NOT NULL), "
    "(SELECT r.issued_at FROM receipts r WHERE r.role = t.role AND r.peer = t.peer "
    "ORDER BY r.order_n DESC LIMIT 1), "
    "coalesce((SELECT balance FROM accounts v "
    "WHERE v.name = 'reversed:' || t.role || ':' || lower(hex(t.peer))), 0) FROM tabs t "
    "LEFT JOIN accounts a ON a.name = 'tab:' || t.role || ':' || lower(hex(t.peer))"
)


def _tab(row: tuple[Any, ...]) -> TabRow:
    role, peer, seq, signed_seq, needs_sync, disputed, limit, name, node, note = row[:10]
    owes, held, unsigned, last, back = row[10:]
    return TabRow(
        role=role,
        peer=peer,
        owed=owes,
        held=held,
        reversed=back,
        unsigned=unsigned,
        last_at=last or 0,
        disputed=disputed,
        seq=seq,
        signed_seq=signed_seq,
        needs_sync=bool(needs_sync),
        limit=limit,
        name=name,
        node=node,
        note=note,
    )


def _make(conn: Connection, role: Role, peer: bytes) -> None:
    conn.execute(f"{NEW_TAB} ON CONFLICT DO NOTHING", (role, peer, ""))


def _set(conn: Connection, role: Role, peer: bytes, column: str, value: int | str | bytes | None) -> None:
    with transaction(conn):
        _make(conn, role, peer)
        conn.execute(f"UPDATE tabs SET {column} = ? WHERE role = ? AND peer = ?", (value, role, peer))


def _less(role: Role, peer: bytes, amount: int) -> dict[str, int]:
    """The posting by which the user of this tab owes less."""
    return {tab_account(role, peer): -amount if role == "provider" else amount}


def _change(
    conn: Connection,
    kind: EventKind,
    key: str,
    numbers: Iterable[tuple[Role, bytes, int]],
    postings: dict[str, int],
    note: str,
    proof: bytes,
) -> Refused | None:
    """Post a change of one or two tabs, each with its number; nothing when it was posted before, as `proof`
    says it."""
    tabs = list(numbers)
    # No peer can make another one's change look as if it had been posted.
    whole_key = ":".join([kind, *(f"{role}:{peer.hex()}" for role, peer, _ in tabs), key])
    with transaction(conn):
        known = conn.execute("SELECT proof FROM events WHERE key = ?", (whole_key,)).fetchone()
        if known is not None:
            # Another one under its name would be signed as if it had been agreed to.
            return None if known[0] == proof else Refused("seq_used", limit=max(seq for *_, seq in tabs))
        for role, peer, seq in tabs:
            _make(conn, role, peer)
            refused = _number(conn, role, peer, seq)
            if refused is not None:
                return refused
        post(conn, whole_key, kind, postings, note=note, proof=proof)
        for role, peer, seq in tabs:
            conn.execute(
                "UPDATE tabs SET seq = max(seq, ?1), signed_seq = ?1 WHERE role = ?2 AND peer = ?3",
                (seq, role, peer),
            )
        conn.lasting = True
    return None


def _number(conn: Connection, role: Role, peer: bytes, seq: int) -> Refused | None:
    """Whether `seq` can be the number of the next change of the tab."""
    tab = get_tab(conn, role, peer)
    if tab.needs_sync:
        return Refused("out_of_step")
    if role == "user":
        return None if seq > tab.signed_seq else Refused("seq_used", limit=tab.signed_seq)
    issued = conn.execute("SELECT id FROM orders WHERE peer = ? AND bill = 'issued'", (peer,)).fetchone()
    if issued is not None:
        return Refused("receipt_due", order=issued[0])
    return None if seq == tab.seq + 1 else Refused("seq_used", limit=tab.seq)
