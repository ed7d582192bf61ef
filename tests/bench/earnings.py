"""What it costs to open the Earnings view after a year of use: 100 000 receipts, sold and bought.

The app runs on a real store through Textual's pilot: from the key to the view with its sums, its tabs and the
first page of receipts, painted. Beside it stands what the reads of the store take of that.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace
from textual.widgets import Static

from infraxa.app.days import start_ms
from infraxa.app.facade import NodeFacade
from infraxa.app.tui.screens.earnings import PAGE, EarningsScreen
from infraxa.app.tui.widgets.earnings_chart import PERIODS
from infraxa.app.tui.widgets.table import Table
from infraxa.store.db import Connection, connect, now_ms, transaction
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VERDICTS_KEPT
from tests.app.shell import Shell, shell
from tests.bench.ledger import DAY_MS, buy, key, sell

RECEIPTS = 100_000
PEERS = 200
ROUNDS = 9
BUDGET_MS = 300


def fill(folder: Path) -> None:
    """A year that ends today: as many sold as bought, of 5 models, with 200 peers."""
    chance, now = random.Random(1), now_ms()
    moments = sorted(now - chance.randrange(365 * DAY_MS) for _ in range(RECEIPTS))
    at = 0
    conn = connect(folder, clock=lambda: moments[min(at, RECEIPTS - 1)])
    conn.execute("PRAGMA synchronous = OFF")
    with transaction(conn):
        for at in range(RECEIPTS):
            # Half of the peers are gone since the first month.
            peer = chance.randrange(PEERS // 2 if at < RECEIPTS // 12 else PEERS // 4)
            if at % 2:
                sell(conn, at, key("ac", peer))
            else:
                buy(conn, at, key("pr", peer), at + 1)
        audit(conn)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


def audit(conn: Connection) -> None:
    """As many verdicts on what was bought as are kept, and the newest."""
    verdict = Verdict("", "", "undetermined", "few", "own", 64, 200, 1.25)
    newest = conn.execute(
        "SELECT id, peer, model FROM orders WHERE role = 'user' ORDER BY n DESC LIMIT ?", (VERDICTS_KEPT,)
    ).fetchall()
    conn.executemany(
        "INSERT INTO verdicts (order_id, peer, model, at_ms, state, verdict) VALUES (?, ?, ?, 1, ?, ?)",
        ((*one, verdict.state, msgspec.json.encode(replace(verdict, order=one[0].hex()))) for one in newest),
    )


async def reads(node: NodeFacade) -> None:
    """Each by itself, with the pages of the file in memory."""
    today = PERIODS[1].since(datetime.date.today())
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "sums of 30 days": lambda: node.earnings(start_ms(today)),
        "sums of 52 weeks": lambda: node.earnings(start_ms(PERIODS[2].since(datetime.date.today()))),
        "tabs": node.list_tabs,
        "a page of receipts": lambda: node.list_receipts(count=PAGE),
    }
    for name, ask in asked.items():
        took = []
        for _ in range(ROUNDS):
            cpu = time.process_time()
            await ask()
            took.append((time.process_time() - cpu) * 1000)
        print(f"{name}: {statistics.median(took):.1f} ms of CPU")


async def opens(it: Shell) -> tuple[float, float, float]:
    """Milliseconds until there are sums, until all is painted, and of CPU until then."""
    began, cpu = time.perf_counter(), time.process_time()
    await it.pilot.press("alt+e")
    first = 0.0
    while not (isinstance(screen := it.app.screen, EarningsScreen) and _whole(screen)):
        if not first and isinstance(screen, EarningsScreen) and "0." in _totals(screen):
            first = time.perf_counter()
        await asyncio.sleep(0.005)
    await it.pilot.pause()
    now = time.perf_counter()
    found = ((first or now) - began) * 1000, (now - began) * 1000, (time.process_time() - cpu) * 1000
    await it.pilot.press("escape")
    await it.until(lambda: it.app.screen is it.chat, "the chat")
    return found


def _whole(screen: EarningsScreen) -> bool:
    listed = screen.query_one("#receipts Table", Table).rows
    tabs = screen.query_one("#tabs Table", Table).rows
    return " all" in _totals(screen) and len(listed) >= PAGE and len(tabs) == PEERS


def _totals(screen: EarningsScreen) -> str:
    return str(screen.query_one("#totals", Static).content)


async def bench(folder: Path) -> None:
    async with shell(folder, size=(160, 50)) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        await reads(it.node)
    new = []
    for _ in range(3):
        async with shell(folder, size=(160, 50)) as it:
            await it.opened()
            new.append(await opens(it))
            again = [await opens(it) for _ in range(ROUNDS)]
    for name, found in (("opened first", new), ("opened again", again)):
        sums, whole, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        print(
            f"{name}: sums after {sums:.0f} ms, all painted after {whole:.0f} ms "
            f"({'within' if whole <= BUDGET_MS else 'OVER'} {BUDGET_MS}), {cpu:.0f} ms of CPU"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        asyncio.run(bench(Path(folder)))


if __name__ == "__main__":
    main()
