"""The books of a program that is killed, and of a disk that is full, in the middle of a post."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from infraxa.store import buying, ledger, selling, tabs, trade
from infraxa.store.db import Connection, Store, connect
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow

PROVIDER, ACCOUNT, MODEL = b"p" * 32, b"a" * 32, b"m" * 32

TRADER = """
import asyncio, sys
from pathlib import Path
from infraxa.store import buying, selling, tabs, trade
from infraxa.store.db import Store
from infraxa.store.trade_records import Caps, Counts, OrderRow

PROVIDER, ACCOUNT, MODEL = b"p" * 32, b"a" * 32, b"m" * 32

async def run(folder):
    async with await Store.open(folder) as store:
        done = 0
        while True:
            number = (await store.run(lambda conn: conn.execute("SELECT count(*) FROM orders").fetchone()))[0]
            order_id = number.to_bytes(16, "big")
            counts = Counts(number % 7, 0, 1)
            bought = OrderRow(peer=PROVIDER, id=order_id, model=MODEL, hold=10)
            sold = OrderRow(peer=ACCOUNT, id=order_id, model=MODEL, hold=10)
            await store.run(buying.open_hold, bought, Caps())
            print(order_id.hex(), "held", flush=True)
            await store.run(buying.mark_sent, PROVIDER, order_id)
            print(order_id.hex(), "sent", flush=True)
            await store.run(selling.open_order, sold, limit=10**9, grace_ms=10**9)
            print(order_id.hex(), "opened", flush=True)
            await store.run(trade.move, "provider", ACCOUNT, order_id, ["pending"], "claimed")
            await store.run(selling.end_order, ACCOUNT, order_id, "completed", counts, 7)
            print(order_id.hex(), "ended", flush=True)
            await store.run(buying.count_order, PROVIDER, order_id, "completed", counts, 7)
            receipt = await store.run(
                selling.issue_receipt, ACCOUNT, order_id, lambda order, seq, owed: b"%d %d" % (seq, owed)
            )
            print(order_id.hex(), "issued", receipt.tab_seq, flush=True)
            await store.run(
                buying.sign_receipt, PROVIDER, order_id, seq=receipt.tab_seq, receipt=receipt.receipt,
                countersign=b"c", billed=counts, charge=7, accepted=7,
            )
            print(order_id.hex(), "signed", flush=True)
            await store.run(
                selling.accept_countersign, ACCOUNT, order_id, countersign=b"c", counted=counts, accepted=7
            )
            print(order_id.hex(), "accepted", flush=True)
            await store.run(buying.acknowledge, PROVIDER, order_id)
            print(order_id.hex(), "acknowledged", flush=True)

asyncio.run(run(Path(sys.argv[1])))
"""


def take_up(conn: Connection) -> None:
    """What both sides do after a start: ask for what is open, sign it, hear that it is accepted."""
    buying.release_unsent(conn)
    selling.fail_open_orders(conn)
    for order in trade.unsettled(conn, "provider") + trade.unsettled(conn, "user"):
        receipt = selling.issue_receipt(
            conn, ACCOUNT, order.id, lambda order, seq, owed: b"%d %d" % (seq, owed)
        )
        if not isinstance(receipt, ReceiptRow):
            assert receipt.reason == "unknown"
            buying.release(conn, PROVIDER, order.id)
            continue
        signed = buying.sign_receipt(
            conn, PROVIDER, order.id, seq=receipt.tab_seq, receipt=receipt.receipt, countersign=b"c",
            billed=Counts(), charge=receipt.charge, accepted=receipt.charge,
        )  # fmt: skip
        assert isinstance(signed, ReceiptRow) and signed.accepted is not None
        selling.accept_countersign(
            conn, ACCOUNT, order.id, countersign=b"c", counted=Counts(), accepted=signed.accepted
        )
        buying.acknowledge(conn, PROVIDER, order.id)
    assert trade.unsettled(conn, "provider") == trade.unsettled(conn, "user") == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in another way")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(11)
    connect(tmp_path).close()
    told: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    last = set()
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", TRADER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randrange(1, 120))]
        time.sleep(chance.random() / 1000)
        child.kill()
        child.wait(30)
        rest = child.stdout.read()
        child.stdout.close()
        for line in "".join([*lines, rest]).splitlines(keepends=True):
            if line.endswith("\n"):  # the one that was being written may be cut
                order, step, *number = line.split()
                told.setdefault(order, []).append(step)
                if number:
                    # A number that was let out is never given to another order.
                    assert int(number[0]) not in {n for o, n in numbers.items() if o != order}
                    numbers[order] = int(number[0])
        last.add(step)

        conn = connect(tmp_path)
        assert ledger.check(conn) == []
        take_up(conn)
        assert ledger.check(conn) == []
        for order, number_given in numbers.items():
            kept = trade.get_receipt(conn, "provider", ACCOUNT, bytes.fromhex(order))
            assert kept is not None and (kept.tab_seq, kept.accepted) == (number_given, 7)
        ended = {order for order, steps in told.items() if "ended" in steps}
        owed = tabs.get_tab(conn, "user", PROVIDER).owed
        assert owed == tabs.get_tab(conn, "provider", ACCOUNT).owed
        assert 0 <= owed - 7 * len(ended) <= 7 * 8  # the end of the last one may be untold
        spent = buying.spent_since(conn, 0)
        assert (spent.spent, spent.held) == (owed, 0)
        conn.close()
    assert len(last) > 2


async def test_what_is_signed_is_on_the_disk_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that was let out, or a countersign, does not come back after a loss of power."""
    synced: list[tuple[int, int]] = []
    fsync = os.fsync

    def look(file: int) -> None:
        log = (tmp_path / f"{DATABASE_NAME}-wal").stat()
        assert os.fstat(file).st_ino == log.st_ino
        fsync(file)
        with contextlib.closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as other:
            synced.append(other.execute("SELECT count(*), count(countersign) FROM receipts").fetchone())

    async with await Store.open(tmp_path) as store:
        bought = OrderRow(peer=PROVIDER, id=bytes(16), model=MODEL, hold=10)
        monkeypatch.setattr(os, "fsync", look)
        await store.run(buying.open_hold, bought, Caps())
        await store.run(
            selling.open_order, msgspec.structs.replace(bought, peer=ACCOUNT), limit=10, grace_ms=0
        )
        await store.run(selling.end_order, ACCOUNT, bought.id, "completed", Counts(), 7)
        assert synced == []  # nobody is told anything that binds
        await store.run(selling.issue_receipt, ACCOUNT, bought.id, lambda *_: b"receipt")
        assert synced == [(1, 0)]
        await store.run(
            buying.sign_receipt, PROVIDER, bought.id, seq=1, receipt=b"receipt", countersign=b"c",
            billed=Counts(), charge=7, accepted=7,
        )  # fmt: skip
        assert synced == [(1, 0), (2, 1)]
        await store.run(buying.acknowledge, PROVIDER, bought.id)
        assert len(synced) == 2
        await store.run(tabs.settle, "s", "user", PROVIDER, 7, "", b"", seq=2)
        assert len(synced) == 3


async def test_a_receipt_that_did_not_reach_the_disk_is_told_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept already when it is asked for again: by the same program, or by the next one."""
    fsync, broken, synced = os.fsync, True, 0

    def look(file: int) -> None:
        nonlocal synced
        if broken:
            raise OSError(errno.EIO, "broken")
        fsync(file)
        synced += 1

    async def ask(store: Store) -> object:
        return await store.run(selling.issue_receipt, ACCOUNT, bytes(16), lambda *_: b"receipt")

    async with await Store.open(tmp_path) as store:
        order = OrderRow(peer=ACCOUNT, id=bytes(16), model=MODEL, hold=10)
        await store.run(selling.open_order, order, limit=10, grace_ms=0)
        await store.run(selling.end_order, ACCOUNT, order.id, "completed", Counts(), 7)
        monkeypatch.setattr(os, "fsync", look)
        for _ in range(3):
            with pytest.raises(StoreError):
                await ask(store)
        async with await Store.open(tmp_path) as after:  # as if the first one had been killed
            with pytest.raises(StoreError):
                await ask(after)
            broken = False
            assert isinstance(await ask(after), ReceiptRow) and synced == 1
        assert isinstance(await ask(store), ReceiptRow) and synced == 2
        assert isinstance(await ask(store), ReceiptRow) and synced == 2, "it is there"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if sys.platform != "linux" or run("id", "-u").stdout.strip() != "0":
        pytest.skip("mounting a small file system needs root on Linux")
    mounted = run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path))
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    yield tmp_path
    assert run("umount", "--lazy", str(tmp_path)).returncode == 0


async def test_a_disk_that_is_full_in_the_middle_of_a_post(disk: Path) -> None:
    """Nothing of the step that met it stays, and the same step is done once there is space."""
    counts = Counts(1, 0, 1)
    async with await Store.open(disk / "data") as store:
        for number in range(2):
            order = OrderRow(peer=PROVIDER, id=bytes([number] * 16), model=MODEL, hold=10)
            assert await store.run(buying.open_hold, order, Caps()) is None
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

        signed = 0

        async def sign(number: int, receipt: bytes) -> object:
            return await store.run(
                buying.sign_receipt, PROVIDER, bytes([number] * 16), seq=number + 1, receipt=receipt,
                countersign=b"c", billed=counts, charge=7, accepted=7,
            )  # fmt: skip

        with pytest.raises(StoreError) as caught:
            for signed in range(2):
                # One page more than the log has had room for until now.
                await sign(signed, bytes(300_000))
        assert caught.value.code == "disk_full"
        tab = await store.run(tabs.get_tab, "user", PROVIDER)
        assert (tab.owed, tab.seq, tab.held) == (7 * signed, signed, 10 * (2 - signed))
        assert await store.run(ledger.check) == []
        assert await store.run(trade.get_receipt, "user", PROVIDER, bytes([signed] * 16)) is None

        filler.unlink()
        assert isinstance(await sign(signed, b"receipt"), ReceiptRow)
        tab = await store.run(tabs.get_tab, "user", PROVIDER)
        assert (tab.owed, tab.seq) == (7 * (signed + 1), signed + 1)
        assert await store.run(ledger.check) == []
