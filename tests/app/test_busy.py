"""When this machine is left to other programs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from infraxa.app.busy import BUSY, CALM, FOR_S, OthersBusy, Sampler, Used, processor_times
from tests.app.selling import scripted


def test_it_takes_ten_seconds_of_work_and_ten_of_calm() -> None:
    others = OthersBusy()
    looks = [(0.0, 1.0, False), (9.9, 0.9, False), (10.0, 0.8, True), (11.0, 0.5, True)]
    looks += [(100.0, 0.3, True), (109.0, 0.3, True), (109.5, 0.5, True), (110.0, 0.3, True)]
    looks += [(119.9, 0.0, True), (120.0, 0.0, False), (121.0, 0.5, False), (140.0, 0.5, False)]
    for now, share, busy in looks:
        assert others.look(share, now) is busy, now
    assert CALM < BUSY and FOR_S == 10.0


def test_a_moment_of_calm_begins_anew() -> None:
    others = OthersBusy()
    for now in range(100):
        assert not others.look(0.5 if now % 9 == 8 else 1.0, float(now))


class Machine:
    """Of four processors."""

    def __init__(self) -> None:
        self.now = 0.0
        self.used = 0.0
        self.own: dict[int, float] = {}

    def measure(self, pids: Iterable[int]) -> Used:
        return Used(4 * self.now, self.used, dict(self.own))

    def passes(self, seconds: float, others: float, **own: float) -> None:
        self.now += seconds
        for name, share in own.items():
            pid = int(name[1:])
            self.own[pid] = self.own.get(pid, 0.0) + 4 * seconds * share
            self.used += 4 * seconds * share
        self.used += 4 * seconds * others


def test_what_the_node_and_its_worker_use_is_left_out() -> None:
    machine = Machine()
    machine.own = {1: 50.0, 2: 100.0}
    sampler = Sampler(machine.measure, lambda: machine.now)
    assert sampler.share((2,)) == 0.0
    machine.passes(2, 0.25, p1=0.1, p2=0.6)
    assert round(sampler.share((2,)), 6) == 0.25
    machine.passes(0.5, 1.0)
    assert round(sampler.share((2,)), 6) == 0.25, "too short to be measured"
    machine.passes(1.5, 1.0)
    assert round(sampler.share((2,)), 6) == 1.0
    del machine.own[2]
    machine.passes(2, 0.5, p1=0.5)
    assert round(sampler.share(()), 6) == 0.5


def test_the_machine_is_measured_as_it_is() -> None:
    import os

    before = processor_times((os.getpid(), 2**30))
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    after = processor_times((os.getpid(), 2**30))
    assert set(after.own) == {os.getpid()}
    assert 0.25 <= after.own[os.getpid()] - before.own[os.getpid()] <= 5
    assert after.whole > before.whole and 0 <= after.used - before.used <= after.whole - before.whole + 0.1


async def test_provider_mode_pauses_while_others_are_busy_if_that_is_set(tmp_path: Path) -> None:
    share, asked = 1.0, list[tuple[int, ...]]()

    def others(workers: Iterable[int]) -> float:
        asked.append(tuple(workers))
        return share

    async with scripted(tmp_path) as shop:
        provider = shop.provider
        provider._others_share = others
        await shop.open()
        assert not asked, "nobody asked for it"
        provider._busy.busy = True
        await shop.use(pause_when_busy=True)
        await shop.mode("paused")
        assert provider.status.reason == "Other programs keep this machine busy." and asked[-1]
        user = await shop.user()
        refused = await user.refused(model=bytes(32))
        assert (refused.code, refused.retry_after_ms > 0) == ("busy", True)
        (missed,) = provider.missed(unreachable=False)
        assert (missed.reason, missed.count) == ("paused", 1)
        provider._busy.busy = False
        share = 0.0
        await shop.mode("serving")
