"""The books of users and providers, laid side by side once nobody writes in them any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from infraxa.store import ledger
from infraxa.store.db import Connection
from infraxa.store.folder import DATABASE_NAME


class _Entry(NamedTuple):
    bill: str
    accepted: int
    held: int


class Compared(NamedTuple):
    """What both sides wrote of the same orders."""

    agreed: int
    """Orders that both have closed, at the same amount."""
    amount: int
    """µcr of these."""
    open: int
    """Orders of users that are not closed: their providers died, or their countersigns are on the way."""
    problems: list[str]


def compare(crowd: Path) -> Compared:
    """Of the folder of a crowd that has ended: those of users begin with u, of providers with p."""
    problems: list[str] = []
    bought, sold = (_orders(crowd.glob(f"{role[0]}*"), role, problems) for role in ("user", "provider"))
    agreed = amount = still_open = 0
    for number, mine in bought.items():
        theirs = sold.get(number)
        if mine.bill not in ("closed", "released"):
            still_open += 1
        if mine.bill == "closed" and (theirs is None or theirs.bill != "closed"):
            problems.append(f"order {number.hex()}: closed by its user, {theirs} of its provider")
        if theirs is None or theirs.bill != "closed":
            continue
        if mine.bill not in ("signed", "closed") or mine.accepted != theirs.accepted:
            problems.append(f"order {number.hex()}: {mine} of its user, {theirs} of its provider")
        elif mine.bill == "closed":
            agreed += 1
            amount += mine.accepted
    for number, theirs in sold.items():
        if theirs.bill == "closed" and number not in bought:
            problems.append(f"order {number.hex()}: nobody bought it")
    return Compared(agreed, amount, still_open, problems)


def _orders(folders: Iterable[Path], role: str, problems: list[str]) -> dict[bytes, _Entry]:
    found: dict[bytes, _Entry] = {}
    for folder in folders:
        with contextlib.closing(Connection(folder / DATABASE_NAME)) as conn:
            problems += [f"{folder.name}: {wrong}" for wrong in ledger.check(conn)]
            rows = conn.execute(
                "SELECT id, bill, coalesce(accepted, 0), held FROM orders WHERE role = ?", (role,)
            )
            found |= {number: _Entry(bill, accepted, held) for number, bill, accepted, held in rows}
    return found
