"""Tabs: what this node and another one owe each other, and how it is settled other than by orders.

A tab is one balance with a number that rises with every change; the creditor (the provider) gives the
numbers. After a restored backup the numbers that were used since are not known: `mark_restored`.
"""

from __future__ import annotations

from infraxa.store.db import Connection
from infraxa.store.trade_records import Refused, Role, SyncResult, TabRow

RESTORE_GAP = 1_000_000
"""A restored provider continues its numbers so much higher. More than one tab can change between two backups;
the gap tells nobody anything and keeps even a user who hides what it signed from getting a number twice."""


def get_tab(conn: Connection, role: Role, peer: bytes) -> TabRow:
    """The tab; one at 0 when there is none yet."""
    raise NotImplementedError


def list_tabs(conn: Connection, role: Role | None = None) -> list[TabRow]:
    """All tabs of the role, the one that owes the most first."""
    raise NotImplementedError


def set_limit(conn: Connection, role: Role, peer: bytes, limit: int | None) -> None:
    """How far the tab may go; None: as the settings say."""
    raise NotImplementedError


def set_note(conn: Connection, role: Role, peer: bytes, note: str) -> None:
    """What the person wrote about it."""
    raise NotImplementedError


def link_node(conn: Connection, account: bytes, node: bytes | None) -> None:
    """The account proved to belong to this node: what is owed in both directions can be netted."""
    raise NotImplementedError


def settle(
    conn: Connection, key: str, role: Role, peer: bytes, amount: int, note: str, proof: bytes, *, seq: int
) -> Refused | None:
    """The tab owes `amount` less, by agreement: the Settlement that both signed is `proof`, its number `seq`.

    Once per `key`. A provider's `seq` must be the tab's next number, which is used by this; a user's must be
    above the last. Refused: `seq_used`; `out_of_step`; a provider's `receipt_due` (a receipt is to be signed
    first). Raises ValueError unless amount > 0.
    """
    raise NotImplementedError


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
    raise NotImplementedError


def reverse(
    conn: Connection,
    key: str,
    role: Role,
    peer: bytes,
    order_id: bytes,
    amount: int,
    note: str,
    proof: bytes,
    *,
    seq: int,
) -> Refused | None:
    """Take back `amount` of what was accepted for an order; otherwise as `settle`. Raises ValueError for more
    than is left of it. Refused also: `unknown`."""
    raise NotImplementedError


def mark_restored(conn: Connection) -> None:
    """After an old backup was put back: nothing is signed on any tab before the other side told its highest
    countersigned state (`adopt_state`), and a provider's numbers go on RESTORE_GAP higher.

    A provider's orders that were open, or had no receipt yet, are released: what became of them is in that
    state. A user's open orders are asked for again.
    """
    raise NotImplementedError


def adopt_state(
    conn: Connection, role: Role, peer: bytes, seq: int, owed: int, proof: bytes = b""
) -> SyncResult:
    """The other side's highest state that this side signed (verified by the caller; `proof`): the higher of
    the two counts, and the tab is in step again.

    `same`: as here. `adopted`: it was ahead, the difference is posted. `ahead`: this side's is newer, the
    other adopts that. `differs`: one number, two balances; nothing is changed, persons have to decide.
    """
    raise NotImplementedError
