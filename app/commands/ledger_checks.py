"""The checks of `infraxa doctor` for money: that the ledger is whole, that receipts get signed, and that tabs
are the same on both sides.

Counts and sums alone are said: nobody is named, since the output is made to be pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from infraxa.app.commands.checkup import Check, Finding
from infraxa.app.folders import Folders
from infraxa.net.credits import shown
from infraxa.store.db import Connection, now_ms
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.records import StoreError
from infraxa.store.trade_records import OrderRow, TabRow

LATE_MS: Final = 3_600_000
"""Receipts are signed within a second of the end of an answer, unless somebody has gone."""


async def _ledger(folders: Folders) -> Finding:
    return await _ask(folders, _ledger_now)


def _ledger_now(conn: Connection) -> Finding:
    from infraxa.store import ledger

    (events,) = conn.execute("SELECT count(*) FROM events").fetchone()
    if wrong := ledger.check(conn):
        return Finding("fail", " ".join(wrong), "Put back a copy of the data folder that was good.")
    return Finding("ok", f"Whole: the postings of {events} events sum to 0.")


async def _receipts(folders: Folders) -> Finding:
    return await _ask(folders, _receipts_now)


def _receipts_now(conn: Connection) -> Finding:
    from infraxa.store import trade

    sold, bought = list(_late(trade.unsettled(conn, "provider"))), list(_late(trade.unsettled(conn, "user")))
    said = []
    if sold:
        said.append(
            f"{_orders(sold)} that this node sold were not countersigned for more than an hour, "
            f"{_worth(sold)} credits: their users may be gone, and are not served before they do."
        )
    if bought:
        said.append(
            f"{_orders(bought)} of drivers are not settled for more than an hour, "
            f"{_worth(bought)} credits are held for them."
        )
    if not said:
        return Finding("ok", "None is waited for.")
    remedy = "They are settled as soon as both sides are online; infraxa tabs list shows with whom."
    return Finding("warn", " ".join(said), remedy)


async def _tabs(folders: Folders) -> Finding:
    return await _ask(folders, _tabs_now)


def _tabs_now(conn: Connection) -> Finding:
    from infraxa.store import tabs

    found = tabs.list_tabs(conn)
    restored = [tab for tab in found if tab.needs_sync]
    differing = [tab for tab in found if not tab.needs_sync and _differs(tab)]
    if differing:
        why = " ".join(sorted({tab.note for tab in differing}))
        return Finding(
            "fail",
            f"{len(differing)} of {len(found)} tabs are not as the other side has them. {why}",
            "infraxa tabs list shows which: ask the person of the other node, or order from another one.",
        )
    if restored:
        return Finding(
            "warn",
            f"{len(restored)} of {len(found)} tabs come from a backup, and wait for the other side's book.",
            "They are compared as soon as both nodes are online.",
        )
    return Finding("ok", f"{len(found)}, and no difference with the other side is known.")


LEDGER_CHECKS: Final = (
    Check("ledger", _ledger, 60, "The disk is slow, or the ledger is very big."),
    Check("receipts", _receipts, 30, "The disk is slow, or the ledger is very big."),
    Check("tabs", _tabs, 30, "The disk is slow, or the ledger is very big."),
)


async def _ask(folders: Folders, look: Callable[[Connection], Finding]) -> Finding:
    """What is wrong with the store itself is said by its own check, once."""
    from infraxa.store.db import Store

    if not (folders.data / DATABASE_NAME).exists():
        return Finding("ok", "Nothing was bought or sold yet.")
    try:
        async with await Store.open(folders.data) as store:
            return await store.run(look)
    except StoreError:
        return Finding("warn", "Not checked: the store cannot be read.", "See the check of the store.")


def _late(orders: Iterable[OrderRow]) -> Iterable[OrderRow]:
    """What can cost something, is over, and is not settled for long."""
    now = now_ms()
    return (order for order in orders if order.held and order.ended_at and now - order.ended_at > LATE_MS)


def _differs(tab: TabRow) -> bool:
    from infraxa.app.intake import PROPOSED

    return bool(tab.note) and not tab.note.startswith(PROPOSED)


def _orders(orders: list[OrderRow]) -> str:
    return "1 answer" if len(orders) == 1 else f"{len(orders)} answers"


def _worth(orders: list[OrderRow]) -> str:
    return shown(sum(order.held for order in orders))
