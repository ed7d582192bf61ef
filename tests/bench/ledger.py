"""What the ledger costs: orders posted per second, and the Earnings view's queries after a year of use.

Rates are per second of CPU of this process: others use the machine too. What it took in all stands beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from infraxa.store import buying, earnings, ledger, selling, tabs, trade
from infraxa.store.db import Connection, Store, connect, now_ms, transaction
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow

ORDERS = 4000
ROUNDS = 3
ACCOUNTS = 32
YEAR = 100_000
DAY_MS = 24 * 3600 * 1000
START = 1_700_000_000_000
COUNTS = Counts(300, 100, 200)
QUOTE, RECEIPT, COUNTERSIGN, RATING = bytes(250), bytes(450), bytes(220), bytes(180)
"""About as large as the signed ones."""


def oid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def key(kind: str, number: int) -> bytes:
    return kind.encode() * 8 + number.to_bytes(32 - 8 * len(kind), "big")


def sell(conn: Connection, number: int, account: bytes) -> None:
    """A provider's order from its arrival to its countersigned receipt: six steps."""
    steps = (
        lambda: selling.open_order(conn, an_order(number, account), limit=10**9, grace_ms=10_000),
        lambda: trade.move(conn, "provider", account, oid(number), ["pending"], "claimed"),
        lambda: trade.move(conn, "provider", account, oid(number), ["claimed"], "processing"),
        lambda: selling.end_order(conn, account, oid(number), "completed", COUNTS, 700, "stop"),
        lambda: selling.issue_receipt(conn, account, oid(number), lambda *_: RECEIPT),
        lambda: accept(conn, number, account),
    )
    for step in steps:
        with transaction(conn):
            step()


def accept(conn: Connection, number: int, account: bytes) -> ReceiptRow:
    accepted = selling.accept_countersign(
        conn, account, oid(number), countersign=COUNTERSIGN, counted=COUNTS, accepted=700, rating=RATING
    )
    assert isinstance(accepted, ReceiptRow)
    return accepted


def caps(now_ms: int) -> Caps:
    """None is reached; all are looked at."""
    return Caps(request=10**6, chat=10**9, day=10**9, tab=10**9, day_start_ms=now_ms - now_ms % DAY_MS)


def buy(conn: Connection, number: int, provider: bytes, seq: int) -> None:
    """A user's order from its hold to the news that its countersign arrived: five steps."""
    limits = caps(conn.clock())
    steps = (
        lambda: buying.open_hold(conn, an_order(number, provider, f"chat {number // 50}"), limits),
        lambda: buying.mark_sent(conn, provider, oid(number)),
        lambda: buying.count_order(conn, provider, oid(number), "completed", COUNTS, 700, "stop"),
        lambda: buying.sign_receipt(
            conn, provider, oid(number), seq=seq, receipt=RECEIPT, countersign=COUNTERSIGN, billed=COUNTS,
            charge=700, accepted=700,
        ),
        lambda: buying.acknowledge(conn, provider, oid(number), RATING),
    )  # fmt: skip
    for step in steps:
        with transaction(conn):
            step()


def an_order(number: int, peer: bytes, chat: str | None = None) -> OrderRow:
    return OrderRow(
        peer=peer, id=oid(number), model=key("mo", number % 5), model_name=f"model {number % 5}",
        chat_id=chat, quote=QUOTE, price_in=50_000, price_out=200_000, price_cached=12_500, hold=1000,
    )  # fmt: skip


def per_second(folder: Path) -> None:
    """Whole orders, every step a transaction of its own, on each side."""
    rates: dict[str, list[tuple[float, float]]] = {}
    for round_ in range(ROUNDS):
        conn = connect(folder / str(round_), clock=itertools.count(START).__next__)
        with measured(rates, "provider's whole order, 6 transactions"):
            for number in range(ORDERS):
                sell(conn, number, key("ac", number % 20))
        with measured(rates, "user's whole order, 5 transactions, all caps looked at"):
            for number in range(ORDERS):
                buy(conn, number, key("pr", number % 20), number + 1)
        # Only the posts: orders that have ended and whose receipts are out, each of another account.
        for number in range(ORDERS):
            account = key("po", number)
            selling.open_order(conn, an_order(number, account), limit=10**9, grace_ms=10**9)
            selling.end_order(conn, account, oid(number), "completed", COUNTS, 700)
            selling.issue_receipt(conn, account, oid(number), lambda *_: RECEIPT)
        with measured(rates, "posted (countersign kept, tab and sums moved)"):
            for number in range(ORDERS):
                accept(conn, number, key("po", number))
        assert ledger.check(conn) == []
        conn.close()
    for name, found in rates.items():
        cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name}: {cpu:.0f} orders per CPU second ({wall:.0f} per second of this busy machine)")


@contextlib.contextmanager
def measured(rates: dict[str, list[tuple[float, float]]], name: str) -> Iterator[None]:
    began, cpu = time.perf_counter(), time.process_time()
    yield
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    rates.setdefault(name, []).append((ORDERS / cpu, ORDERS / wall))


async def before_the_first_token(folder: Path) -> None:
    """Through the store's thread: what an order waits for before it runs."""
    async with await Store.open(folder / "store") as store:
        waits = []
        limits = caps(now_ms())
        for number in range(500):
            began = time.perf_counter()
            await store.run(buying.open_hold, an_order(number, key("pr", 1)), limits)
            await store.run(buying.mark_sent, key("pr", 1), oid(number))
            order = an_order(number, key("ac", 1))
            await store.run(selling.open_order, order, limit=10**9, grace_ms=10**9)
            await store.run(trade.move, "provider", order.peer, order.id, ["pending"], "claimed")
            waits.append((time.perf_counter() - began) * 1000)
            await store.run(buying.release, key("pr", 1), oid(number))
            await store.run(selling.expire_order, order.peer, order.id)
            await store.run(selling.end_order, order.peer, order.id, "failed", Counts(), 0)
            await store.run(selling.issue_receipt, order.peer, order.id, lambda *_: RECEIPT)
            await store.run(
                selling.accept_countersign, order.peer, order.id, countersign=COUNTERSIGN, counted=COUNTS,
                accepted=0,
            )  # fmt: skip
        waits.sort()
        print(
            f"hold, sent, taken and claimed, both sides: median {statistics.median(waits):.2f} ms, "
            f"99 in 100 within {waits[len(waits) * 99 // 100]:.2f} ms"
        )


async def through_the_store(folder: Path) -> None:
    """A provider's whole orders of many accounts at a time: each step alone, and those that wait together."""
    rates: dict[str, list[float]] = {"alone": [], "together": []}
    for round_ in range(ROUNDS):
        for how, found in rates.items():
            async with await Store.open(folder / f"{how} {round_}") as store:
                began = time.perf_counter()
                each = ORDERS // ACCOUNTS // 4
                await asyncio.gather(
                    *(_sold(store, how == "together", key("ac", at), each) for at in range(ACCOUNTS))
                )
                found.append(each * ACCOUNTS / (time.perf_counter() - began))
    alone, together = (statistics.median(found) for found in rates.values())
    print(
        f"{ACCOUNTS} accounts at a time, receipts brought to the disk: {together:.0f} orders per second, "
        f"{together / alone:.1f} × as many as with each step alone ({alone:.0f})"
    )


async def _sold(store: Store, together: bool, account: bytes, count: int) -> None:
    step = store.step if together else store.run
    for number in range(count):
        await step(selling.open_order, an_order(number, account), limit=10**9, grace_ms=10**9)
        await step(trade.move, "provider", account, oid(number), ["pending"], "claimed")
        await step(trade.move, "provider", account, oid(number), ["claimed"], "processing")
        await step(selling.end_order, account, oid(number), "completed", COUNTS, 700, "stop")
        await step(selling.issue_receipt, account, oid(number), lambda *_: RECEIPT)
        await step(accept, number, account)


def a_year(folder: Path) -> None:
    """Receipts over a year, sold and bought, from many peers; then what the Earnings view asks for."""
    chance = random.Random(1)
    moments = sorted(START + chance.randrange(365 * DAY_MS) for _ in range(YEAR))
    at = 0

    def clock() -> int:
        return moments[min(at, YEAR - 1)]

    conn = connect(folder / "year", clock=clock)
    conn.execute("PRAGMA synchronous = OFF")
    with transaction(conn):
        for at in range(YEAR):
            if at % 3:
                sell(conn, at, key("ac", chance.randrange(500)))
            else:
                buy(conn, at, key("pr", chance.randrange(100)), at + 1)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    size = (folder / "year" / "infraxa.db").stat().st_size
    views, busy = [], []
    for _ in range(5):
        conn = connect(folder / "year")
        began, cpu = time.perf_counter(), time.process_time()
        sums = earnings.earnings(conn, "provider")
        page = earnings.list_receipts(conn, "provider", limit=50)
        listed = tabs.list_tabs(conn)
        views.append((time.perf_counter() - began) * 1000)
        busy.append((time.process_time() - cpu) * 1000)
        assert sum(one.orders for one in sums.days) == sum(at % 3 > 0 for at in range(YEAR))
        assert len(page) == 50 and len(listed) == 600
        conn.close()
    conn = connect(folder / "year")
    cpu = time.process_time()
    assert ledger.check(conn) == []
    checked = time.process_time() - cpu
    conn.close()
    print(
        f"{YEAR} receipts in a year ({size / 2**20:.0f} MiB): earnings, first page and tabs in "
        f"{statistics.median(views):.0f} ms (worst {max(views):.0f}; {statistics.median(busy):.0f} of CPU); "
        f"the whole check {checked:.1f} s of CPU"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        per_second(Path(folder))
        asyncio.run(before_the_first_token(Path(folder)))
        asyncio.run(through_the_store(Path(folder)))
        a_year(Path(folder))
