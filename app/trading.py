"""What the books of both roles tell a person: sums, tabs, receipts. Nothing here moves money.

The user's side of an order is in purse.py, the provider's in till.py, the books in store/ledger.py.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from infraxa.app.days import start_ms
from infraxa.app.errors import NodeError
from infraxa.app.intake import PROPOSED
from infraxa.app.receipt_seen import receipt_seen
from infraxa.app.settlements import Settlements, Told
from infraxa.app.till import Till
from infraxa.app.trade import Earnings, ReceiptLine, ReceiptSeen, Role, Settling, Sum, TabSeen
from infraxa.net import codec
from infraxa.net.credits import shown
from infraxa.net.identity import id_text
from infraxa.net.names import clean_name
from infraxa.store import buying, earnings, tabs, trade, verdicts
from infraxa.store.db import Connection, Store
from infraxa.store.records import Verdict
from infraxa.store.trade_records import OrderRow, ReceiptRow, Sums, TabRow
from infraxa.store.trade_records import Sum as SumRow

WEEK_DAYS: Final = 7
MIN_PREFIX: Final = 4
"""Characters of an id that tell a peer from the others."""
MAX_RECEIPTS: Final = 1000
"""Of one page."""

_ROLES: Final[tuple[Role, Role]] = ("provider", "user")


class Trading:
    """Of one node."""

    def __init__(
        self, store: Store, till: Till, settlements: Settlements, limits: Mapping[bytes, int]
    ) -> None:
        """`limits`: how much each driver lets this node owe, where it has said so."""
        self._store = store
        self._till = till
        self._settlements = settlements
        self._limits = limits

    async def earnings(self, since_ms: int) -> Earnings:
        """The sums since then; those of today and of the week are of their own. Raises StoreError."""
        today = datetime.date.today()
        week = today - datetime.timedelta(days=WEEK_DAYS - 1)
        sold, bought, recent, before, listed = await self._store.run(_books, since_ms, start_ms(week))
        canaries = await self._store.run(buying.spent_on_canaries, start_ms(today))
        days = _merged(sold.days, bought.days, str)
        return Earnings(
            since_ms=since_ms,
            total=_total("", days),
            days=tuple(sorted(days, key=lambda one: one.key)),
            models=_merged(sold.models, bought.models, _hex, by_amount=True),
            peers=_merged(sold.peers, bought.peers, _id, by_amount=True),
            today=_total("today", (one for one in recent if one.key >= today.isoformat())),
            week=_total("week", (one for one in recent if one.key >= week.isoformat())),
            owed_to_me=sum(tab.owed for tab in listed if tab.role == "provider"),
            owed_by_me=sum(tab.owed - tab.reversed for tab in listed if tab.role == "user"),
            unsigned=sum(tab.unsigned for tab in listed if tab.role == "provider"),
            disputed=sum(tab.disputed for tab in listed if tab.role == "provider"),
            canaries_today=canaries.spent + canaries.held,
            before=before,
        )

    async def tabs(self) -> list[TabSeen]:
        """All of them, what is owed most first. Raises StoreError."""
        told = await self._settlements.told()
        return [self._tab(tab, told.get(tab.peer)) for tab in await self._store.run(tabs.list_tabs)]

    async def receipts(self, role: Role | None, before: int | None, count: int) -> list[ReceiptSeen]:
        """The newest first. Raises StoreError."""
        limit = max(1, min(count, MAX_RECEIPTS))
        rows, names, audits = await self._store.run(_receipts, role, before, limit)
        return [
            receipt_seen(place, order, row, names.get((row.role, row.peer), ""), audits.get(place))
            for place, order, row in rows
        ]

    async def export(self, order: str | None, before: int | None, count: int) -> list[ReceiptLine]:
        """The newest first, as lines of a file. Raises NodeError `not_found`, StoreError."""
        from infraxa.net import receipt_file

        if order is None:
            limit = max(1, min(count, MAX_RECEIPTS))
            rows = await self._store.run(earnings.list_receipts, None, before=before, limit=limit)
        else:
            rows = await self._store.run(_of_order, order)
            if not rows:
                raise NodeError(
                    "not_found", "There is no receipt of this order.", "infraxa receipts lists them."
                )
        return [
            ReceiptLine(
                place,
                receipt_file.written(
                    codec.decode_signed(row.receipt),
                    None if row.countersign is None else codec.decode_signed(row.countersign),
                    codec.decode_signed(kept.quote) if kept.quote else None,
                ),
            )
            for place, kept, row in rows
        ]

    async def set_limit(self, peer: str, limit: int | None) -> None:
        """How much this user may owe, µcr; None: as much as any stranger. Raises NodeError, StoreError."""
        role, key = await self._named(peer)
        if role == "user":
            raise NodeError(
                "not_yours",
                "The provider of a tab sets how much may be owed on it.",
                "What you may spend is set by cap_request, cap_chat and cap_day.",
            )
        if limit is not None and limit < 0:
            raise NodeError("bad_amount", "A limit is not below 0.")
        await self._till.set_limit(key, limit)

    async def settle(self, peer: str, amount: int | None, note: str) -> str:
        """Reduce a tab other than order by order; what happened, in one sentence. Of a user: agree to what it
        proposed. Of a driver: see Settlements. Raises NodeError, NetError, StoreError."""
        role, key = await self._named(peer)
        if role == "provider":
            return f"Agreed: {shown(await self._till.settle(key, amount))} credits are settled."
        return await self._settlements.settle(key, amount, note)

    async def decline(self, peer: str) -> str:
        """Do not agree to what this user proposed; what happened, in one sentence. Raises NodeError,
        StoreError."""
        role, key = await self._named(peer)
        if role == "user":
            raise NodeError(
                "not_yours",
                "What you owe a driver is settled by its person, who agrees or declines.",
                "To propose it: infraxa tabs settle.",
            )
        return f"Declined: {shown(await self._till.decline(key))} credits are owed as before."

    async def _named(self, text: str) -> tuple[Role, bytes]:
        """The tab of this peer: its whole id or the beginning of it, as people write it."""
        wanted = text.strip().rpartition("·")[2].lower()
        found = [
            (tab.role, tab.peer)
            for tab in await self._store.run(tabs.list_tabs)
            if len(wanted) >= MIN_PREFIX and id_text(tab.peer).startswith(wanted)
        ]
        if len(found) != 1:
            raise NodeError(
                "no_tab",
                "Several tabs begin so." if found else "There is no tab with a peer of this id.",
                "infraxa tabs list shows them.",
            )
        return found[0]

    def _tab(self, tab: TabRow, told: Told | None) -> TabSeen:
        """`told`: of what this node proposed to settle, where the other one is its driver."""
        note = _SYNC if tab.needs_sync else tab.note
        settling: Settling = ""
        if tab.role == "provider" and note.startswith(PROPOSED):
            # What became of the tab meanwhile may have made it void.
            settling, note = ("proposed", note) if self._till.waits(tab) else ("", "")
        elif tab.role == "user" and told is not None and not note:
            settling, note = told
        return TabSeen(
            role=tab.role,
            peer=id_text(tab.peer),
            name=clean_name(tab.name),
            owed=tab.owed - tab.reversed,
            limit=self._limit(tab),
            own_limit=tab.limit is not None,
            unsigned=tab.unsigned,
            held=tab.held - tab.unsigned,
            linked=id_text(tab.node) if tab.node is not None else "",
            last_ms=tab.last_at,
            note=note,
            settling=settling,
        )

    def _limit(self, tab: TabRow) -> int:
        if tab.limit is not None:
            return tab.limit
        return self._till.stranger_limit if tab.role == "provider" else self._limits.get(tab.peer, 0)


_SYNC: Final = "Restored from a backup: nothing is signed before the other side has told its book."


def _of_order(conn: Connection, order: str) -> list[tuple[int, OrderRow, ReceiptRow]]:
    try:
        number = bytes.fromhex(order)
    except ValueError:
        return []
    return trade.receipts_of(conn, number)


def _receipts(
    conn: Connection, role: Role | None, before: int | None, limit: int
) -> tuple[list[tuple[int, OrderRow, ReceiptRow]], dict[tuple[Role, bytes], str], dict[int, Verdict]]:
    """A page, how the peers are called, and what audits found, by place."""
    page = earnings.list_receipts(conn, role, before=before, limit=limit)
    bought = page and role != "provider"
    audits = verdicts.of_receipts(conn, page[-1][0], page[0][0]) if bought else {}
    return page, tabs.names(conn), audits


def _books(
    conn: Connection, since_ms: int, week_ms: int
) -> tuple[Sums, Sums, tuple[Sum, ...], Sum, list[TabRow]]:
    """What was sold and bought since then, the days of the week at least, what was before, the tabs."""
    sold, bought = (earnings.earnings(conn, role, since_ms) for role in _ROLES)
    recent = (sold.days, bought.days)
    if since_ms > week_ms:
        recent = (earnings.days(conn, "provider", week_ms), earnings.days(conn, "user", week_ms))
    earned, spent = ((earnings.total(conn, role, since_ms),) for role in _ROLES)
    return (
        sold,
        bought,
        _merged(*recent, str),
        _total("", _merged(earned, spent, str)),
        tabs.list_tabs(conn),
    )


def _merged(
    sold: Iterable[SumRow],
    bought: Iterable[SumRow],
    text: Callable[[str | bytes], str],
    *,
    by_amount: bool = False,
) -> tuple[Sum, ...]:
    """One sum for each key that was sold or bought; what moved most first if `by_amount`."""
    merged: dict[str | bytes, Sum] = {}
    for row in sold:
        merged[row.key] = Sum(
            text(row.key), clean_name(row.name), row.accepted - row.reversed, 0, row.orders, 0, row.n_out
        )
    for row in bought:
        so_far = merged.get(row.key, Sum(text(row.key), clean_name(row.name)))
        merged[row.key] = replace(
            so_far, spent=row.accepted - row.reversed, bought=row.orders, tokens_bought=row.n_out
        )
    found = tuple(merged.values())
    if by_amount:
        return tuple(sorted(found, key=lambda one: (-max(one.earned, one.spent), one.key)))
    return found


def _total(key: str, sums: Iterable[Sum]) -> Sum:
    listed = list(sums)
    amounts = ("earned", "spent", "sold", "bought", "tokens_sold", "tokens_bought")
    return Sum(key, "", *(sum(getattr(one, name) for one in listed) for name in amounts))


def _hex(key: str | bytes) -> str:
    return key.hex() if isinstance(key, bytes) else key


def _id(key: str | bytes) -> str:
    return id_text(key) if isinstance(key, bytes) else key
