"""Turns at the cores: one at a time, nobody starves, death gives way; and workers that wait for theirs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine import turns
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Limits
from infraxa.engine.process import worker_environment
from infraxa.engine.turns import Turn, open_turn, shared_folder
from infraxa.engine.types import Delta, Finished, LoadOptions, Request

BOUND = 30.0
OpenEngine = Callable[..., Any]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the turns of this test are, and of its workers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = shared_folder()
    assert folder.parent == tmp_path
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def cores(folder: Path) -> Iterator[int]:
    """A file lock with which the test keeps all others waiting."""
    descriptor = os.open(folder / "cores", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


class Taker:
    """A turn and when it came."""

    def __init__(
        self, folder: Path, *, shared: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.came = threading.Event()
        self.turn = Turn(folder, shared=shared, on_taken=self.came.set, clock=clock)

    def take(self) -> None:
        self.came.clear()
        if not self.turn.take():
            assert self.came.wait(BOUND) and self.turn.mine


def test_one_has_the_turn_until_it_gives_it(folder: Path) -> None:
    one, two = Taker(folder), Taker(folder)
    assert one.turn.take() and one.turn.take()
    assert not two.turn.take() and not two.turn.take()
    assert not two.came.wait(0.05)
    one.turn.give(idle=True)
    assert two.came.wait(BOUND) and two.turn.take()
    assert not one.turn.take()
    two.turn.give(idle=True)
    assert one.came.wait(BOUND)


def test_a_turn_lasts_a_moment_and_longer_after_a_wait(folder: Path) -> None:
    now = 100.0
    one, two = (Taker(folder, clock=lambda: now) for _ in range(2))
    assert one.turn.take()
    now += turns.LEAST_S / 2
    one.turn.give(idle=False)
    assert one.turn.mine, "it is not worth handing it over yet"
    now += turns.LEAST_S
    one.turn.give(idle=False)
    assert not one.turn.mine

    for waited, lasted in ((0.06, 0.06), (0.3, turns.MOST_S), (8.0, 8.0 / turns.LONG_SHARE)):
        assert one.turn.take() and not two.turn.take()
        now += waited
        one.turn.give(idle=False)
        assert two.came.wait(BOUND) and two.turn.mine
        two.came.clear()
        now += lasted * 0.9
        two.turn.give(idle=False)
        assert two.turn.mine
        now += lasted * 0.2
        two.turn.give(idle=False)
        assert not two.turn.mine


def test_nobody_starves(folder: Path) -> None:
    """Each would take it again at once."""
    takers = [Taker(folder) for _ in range(4)]
    counts, most, begin = [0] * 4, 100, threading.Barrier(4)

    def use(number: int) -> None:
        taker = takers[number]
        begin.wait(BOUND)
        while max(counts) < most:
            taker.take()
            counts[number] += 1
            time.sleep(0.002)  # a step
            taker.turn.give(idle=True)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert max(counts) == most and min(counts) >= 10, counts


def test_those_with_few_threads_share_and_give_way_to_one_with_many(folder: Path) -> None:
    few = [Taker(folder, shared=True) for _ in range(2)]
    many = Taker(folder)
    assert few[0].turn.take() and few[1].turn.take()
    assert not many.turn.take()
    few[0].turn.give(idle=True)
    assert not few[0].turn.take(), "somebody waits who was before"
    few[1].turn.give(idle=True)
    assert many.came.wait(BOUND) and not few[0].turn.mine
    many.turn.give(idle=True)
    assert few[0].came.wait(BOUND)


def test_death_gives_the_turn_away(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from infraxa.engine.turns import Turn\n"
        "assert Turn(Path(sys.argv[1]), shared=False, on_taken=print).take()\n"
        "print('taken', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-P", "-c", code, str(folder)]
    with subprocess.Popen(command, env=worker_environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"taken\n"
        taker = Taker(folder)
        assert not taker.turn.take() and not taker.came.wait(0.05)
        process.kill()
        assert taker.came.wait(BOUND)


def test_who_has_waited_too_long_goes_ahead(folder: Path, cores: int) -> None:
    fcntl.flock(cores, fcntl.LOCK_EX)
    now = 100.0
    taker = Taker(folder, clock=lambda: now)
    assert not taker.turn.take() and taker.turn.patience == turns.WAIT_S
    now += turns.WAIT_S - 1
    assert not taker.turn.take()
    now += 1
    assert taker.turn.take() and not taker.turn.mine
    taker.turn.give(idle=True)
    fcntl.flock(cores, fcntl.LOCK_UN)
    assert taker.came.wait(BOUND) and taker.turn.mine


def test_only_the_users_own_folder_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = open_turn(threads=2, cores=2, on_taken=lambda: None)
    assert turn is not None and turn.take()
    sharing = open_turn(threads=1, cores=2, on_taken=lambda: None)
    assert sharing is not None and not sharing.take()
    folder.chmod(0o777)
    with pytest.raises(OSError, match="own folder"):
        open_turn(threads=2, cores=2, on_taken=lambda: None)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert shared_folder() == Path(tempfile.gettempdir()) / f"infraxa-{os.getuid()}"


async def test_a_worker_that_waits_for_its_turn(
    cores: int, open_engine: OpenEngine, endless: Request
) -> None:
    """It is not taken for stuck, lets go at once of what is cancelled, and goes on when it can."""
    fcntl.flock(cores, fcntl.LOCK_EX)
    engine = open_engine(Limits(silence=5.0, step=2.5, stuck=1.0, cancel=3.0))
    pid = (await engine.load(GUIDE_PATH, LoadOptions(threads=1, slots=2))).pid
    generation, other = engine.generate(endless), engine.generate(endless)
    async with asyncio.timeout(BOUND):
        await asyncio.sleep(4.0)  # longer than a step may be
        other.cancel()
        end = [event async for event in other][-1]
        assert isinstance(end, Finished) and (end.reason, end.error) == ("cancelled", None)
        assert engine.status.loaded.pid == pid and engine.status.state == "ready"
        fcntl.flock(cores, fcntl.LOCK_UN)
        async for event in generation:
            if isinstance(event, Delta):
                break
        generation.cancel()
        os.kill(pid, signal.SIGCONT)  # still there
    assert engine.status.loaded.pid == pid


@pytest.fixture
def one_core() -> Iterator[None]:
    """For this process and its children, which take all of it with one thread."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("one_core")
async def test_two_workers_that_take_all_cores_answer_side_by_side(
    cores: int, open_engine: OpenEngine, endless: Request
) -> None:
    engines = [open_engine(), open_engine()]
    for engine in engines:
        await engine.load(GUIDE_PATH, LoadOptions(threads=1, slots=1, n_ctx=512))

    async def count(engine: Any) -> int:
        n_out = 0
        async for event in engine.generate(endless):
            if isinstance(event, Finished):
                assert event.error is None
                n_out = event.usage.n_out
        return n_out

    def both_share() -> bool:
        """Whether nobody has the cores for itself."""
        try:
            fcntl.flock(cores, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(cores, fcntl.LOCK_UN)
        return True

    async with asyncio.timeout(BOUND * 2):
        counting = [asyncio.ensure_future(count(engine)) for engine in engines]
        while both_share():  # noqa: ASYNC110 - a lock tells nobody
            await asyncio.sleep(0.001)
        assert min(await asyncio.gather(*counting)) > 10
