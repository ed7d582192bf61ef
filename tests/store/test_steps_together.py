"""Short functions that wait at the same time share a transaction; each is done whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infraxa.store import state
from infraxa.store.db import Connection, Store, connect
from infraxa.store.records import StoreError


class Held:
    """A store whose thread waits, so that what is asked for waits, too."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.said: list[str] = []
        """Statements about transactions."""
        self._go = threading.Event()

    @contextlib.asynccontextmanager
    async def back(self) -> AsyncIterator[None]:
        """What is asked for inside waits until the end of the block."""
        self._go.clear()
        await self.store.run(lambda conn: conn.set_trace_callback(self._hear))
        holding = asyncio.ensure_future(self.store.run(lambda conn: self._go.wait(30)))
        await asyncio.sleep(0)
        yield
        await asyncio.sleep(0)
        self.said.clear()
        self._go.set()
        assert await holding

    def _hear(self, statement: str) -> None:
        if statement.split()[0] in ("BEGIN", "COMMIT", "ROLLBACK"):
            self.said.append(statement)


def put(conn: Connection, name: str, lasting: bool = False) -> str:
    state.set_value(conn, name, name)
    conn.lasting = conn.lasting or lasting
    return name


def refuse(conn: Connection, name: str) -> str:
    put(conn, name)
    raise LookupError(name)


def give_up(conn: Connection, name: str) -> str:
    """As SQLite does by itself when the disk is full."""
    put(conn, name)
    conn.execute("ROLLBACK")
    raise LookupError(name)


async def names(store: Store) -> set[str]:
    return await store.run(lambda conn: {name for (name,) in conn.execute("SELECT name FROM state")})


async def test_those_that_wait_are_one_transaction(tmp_path: Path) -> None:
    async with await Store.open(tmp_path) as store:
        held = Held(store)
        async with held.back():
            steps = [asyncio.ensure_future(store.step(put, f"n{number}")) for number in range(10)]
        assert await asyncio.gather(*steps) == [f"n{number}" for number in range(10)]
        assert [one.split()[0] for one in held.said].count("COMMIT") == 2, "that of who held it, and theirs"


async def test_what_fails_of_them_undoes_itself_alone(tmp_path: Path) -> None:
    async with await Store.open(tmp_path) as store:
        for failing in (refuse, give_up):
            held = Held(store)
            async with held.back():
                steps = [
                    asyncio.ensure_future(store.step(failing if number == 2 else put, f"{failing} {number}"))
                    for number in range(5)
                ]
            found = await asyncio.gather(*steps, return_exceptions=True)
            assert [type(one) for one in found] == [str, str, LookupError, str, str]
            assert {f"{failing} {number}" for number in range(5)} - await names(store) == {f"{failing} 2"}


async def test_they_are_done_in_their_order_and_who_goes_takes_back_its_own(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(conn: Connection, number: int) -> None:
        seen.append(number)

    async with await Store.open(tmp_path) as store:
        held = Held(store)
        async with held.back():
            asked = [store.run if number in (3, 4, 8) else store.step for number in range(12)]
            tasks = [asyncio.ensure_future(ask(note, number)) for number, ask in enumerate(asked)]
            await asyncio.sleep(0)
            tasks[6].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert seen == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


async def test_they_reach_the_disk_together_before_any_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    broken = False

    def look(file: int) -> None:
        if broken:
            raise OSError(errno.EIO, "broken")
        with contextlib.closing(sqlite3.connect(tmp_path / "infraxa.db")) as other:
            synced.append(other.execute("SELECT count(*) FROM state").fetchone()[0])
        assert not any(step.done() for step in steps)

    async with await Store.open(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", look)
        before, held = len(await names(store)), Held(store)
        async with held.back():
            steps = [asyncio.ensure_future(store.step(put, f"n{at}", at % 3 == 1)) for at in range(6)]
        await asyncio.gather(*steps)
        assert synced == [before + 6]
        async with held.back():
            broken = True
            steps = [asyncio.ensure_future(store.step(put, f"m{at}", at % 3 == 1)) for at in range(6)]
        found = await asyncio.gather(*steps, return_exceptions=True)
        assert [type(one) for one in found] == [StoreError] * 6, "they may have read what is not on the disk"
        found = await asyncio.gather(*(store.step(put, f"o{at}") for at in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [StoreError] * 3, "it is not there yet"
        broken, steps = False, []
        await store.step(put, "after")
        assert synced == [before + 6, before + 16]
        await store.step(put, "later")
        assert len(synced) == 2, "who asks for nothing lasting does not wait for the disk"


WRITER = """
import asyncio, sys
from pathlib import Path
from infraxa.store import state
from infraxa.store.db import Store

async def write(store, who):
    for number in range(10_000):
        await store.step(state.set_value, f"{who} {number}", number)
        print(who, number, flush=True)

async def main(folder):
    async with await Store.open(folder) as store:
        await asyncio.gather(*(write(store, who) for who in range(8)))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in another way")
def test_what_was_told_is_there_when_it_is_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    for turn in range(4):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(tmp_path / str(turn))], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(chance.randrange(20, 300))]
        child.kill()
        child.wait(30)
        told += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        conn = connect(tmp_path / str(turn))
        kept = {name for (name,) in conn.execute("SELECT name FROM state")}
        conn.close()
        # The line that was being written may be cut.
        assert {line.strip() for line in told if line.endswith("\n")} <= kept
