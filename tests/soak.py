"""A long run: 20 streams without a pause, providers that come, go, die and freeze. Memory must stay flat, no
question may hang, and both sides' books are the same.

`make soak`, or `python -m tests.soak --minutes 5`. It prints a line a minute and a verdict, and ends with 1
when something leaked, hung, was lost or was mixed up. What must be so afterwards is in at_rest.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infraxa.app import auditor
from infraxa.app.attempt import CONNECT_S, NO_PLACE, PRICE_S
from infraxa.app.buying import BUSY_S, FIND_S, MAX_DRIVERS
from infraxa.app.commands.demo import Provider
from infraxa.app.node import Node
from infraxa.net.liveness import LivenessLimits
from infraxa.net.tasks import TaskGroup
from tests import at_rest
from tests.crowd import Asked, Crowd, ask

PROVIDERS, USERS, STREAMS = 4, 2, 20
CHANGE_S = (10.0, 25.0)
"""Seconds between two providers that leave, die or freeze."""
FROZEN_S = (2.0, 25.0)
CANCELLED = 0.1
"""Share of the questions that are given up in the middle."""
LONGEST_S: Final = FIND_S + BUSY_S + MAX_DRIVERS * (CONNECT_S + PRICE_S + LivenessLimits().dead)
"""A question that is not over by then hangs: nobody is known, then nobody has room, then one driver after the
other lets it wait for a session, for a price and for words, each as long as that is waited for. The lines
here, of a few answers of a second, have time in that."""
KEPT_S = 120.0
"""What both sides keep of an answer so that it can be audited: for an hour else, in which it would grow up to
its bound. Here it is steady soon, and what has no bound is seen."""
SERVING = (
    "-c",
    "import sys; from infraxa.app import cli, transcripts; "
    f"transcripts.WINDOW_S = {KEPT_S}; sys.exit(cli.main())",
)
"""`infraxa` that keeps it for so long."""
END_S = 15.0
"""A question that is given up is over by then; its driver is told so within 5 s."""


class Soak:
    """One run."""

    def __init__(self, crowd: Crowd, users: Sequence[Node], seed: int) -> None:
        self._crowd = crowd
        self._users = users
        self._rng = random.Random(seed)
        self._tasks = TaskGroup()
        self._over = asyncio.Event()
        """Nobody asks any more."""
        self.kept = crowd.providers[0]
        """The one that neither leaves, dies nor freezes."""
        self.problems: list[str] = []
        self.answered = self.given_up = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.slowest = 0.0
        self.changes: Counter[str] = Counter()
        self.samples: list[at_rest.Sample] = []
        self.stop_s: list[float] = []
        """How long providers that were asked to end took."""

    async def run(self, seconds: float) -> None:
        """Until the time is over, or something ended that should not; returns when nobody asks any more."""
        began, next_line = time.monotonic(), 0.0
        working = [
            self._tasks.spawn(self._ask_on(number), name=f"stream {number}") for number in range(STREAMS)
        ]
        working.append(self._tasks.spawn(self._change(), name="the coming and going"))
        early: set[asyncio.Task[None]] = set()
        while (passed := time.monotonic() - began) < seconds and not early:
            self.sample(passed)
            if passed >= next_line:
                next_line += 60
                print(self.line(), flush=True)
            left = min(5.0, seconds - passed)
            early, _ = await asyncio.wait(working, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self._over.set()
        _, late = await asyncio.wait(working, timeout=LONGEST_S + END_S)
        for task in working:
            if task in late:
                self.problems.append(f"{task.get_name()} does not end")
                task.cancel()
            elif (error := task.exception()) is not None or task in early:
                self.problems.append(f"{task.get_name()} ended too early: {error!r}")
        if not self.changes:
            self.problems.append("no provider came or went")

    async def _ask_on(self, number: int) -> None:
        while not self._over.is_set():
            number += STREAMS
            one = await self._ask(number)
            if one is not None and one.finish == "failed":
                await asyncio.sleep(self._rng.uniform(0.2, 1.0))

    async def _ask(self, number: int) -> Asked | None:
        """One question; None: it was given up, or hung."""
        gives_up = self._rng.random() < CANCELLED
        asking = self._tasks.spawn(ask(self._users[number % len(self._users)], number), name="one question")
        await asyncio.wait([asking], timeout=self._rng.uniform(0.0, 0.5) if gives_up else LONGEST_S)
        if asking.done():
            return self._count(asking.result())
        asking.cancel()
        await asyncio.wait([asking], timeout=END_S)
        if not gives_up:
            self.problems.append(f"question {number} was not over within {LONGEST_S:g} s")
        elif not asking.done():
            self.problems.append(f"question {number} was given up, and not over within {END_S:g} s")
        else:
            self.given_up += 1
        return None

    def _count(self, one: Asked) -> Asked:
        self.slowest = max(self.slowest, one.whole_s)
        if one.finish in ("stop", "length"):
            self.answered += 1
        else:
            (self.refused if one.code in NO_PLACE else self.failed)[one.code or one.finish] += 1
        if one.mixed_up:
            self.problems.append(f"mixed up: {one}")
        if one.finish == "failed" and not one.reason:
            self.problems.append(f"without a reason: {one}")
        return one

    async def _change(self) -> None:
        while not await self._is_over_in(self._rng.uniform(*CHANGE_S)):
            victim = self._rng.choice([one for one in self._crowd.providers if one is not self.kept])
            how = self._rng.choice(("leaves", "dies", "freezes"))
            self.changes[how] += 1
            if how == "freezes":
                os.kill(victim.pid, signal.SIGSTOP)
                try:
                    await self._is_over_in(self._rng.uniform(*FROZEN_S))
                finally:
                    os.kill(victim.pid, signal.SIGCONT)
                continue
            self._crowd.providers.remove(victim)
            began = time.monotonic()
            if how == "dies":
                os.kill(victim.pid, signal.SIGKILL)
            else:
                victim.stop()
            await asyncio.to_thread(victim.wait_stopped)
            if how == "leaves":
                self.stop_s.append(time.monotonic() - began)
            await asyncio.to_thread(self._crowd.start_provider().wait_serving)

    async def _is_over_in(self, seconds: float) -> bool:
        """Returns after so long, or at once when nobody asks any more."""
        waiting = self._tasks.spawn(self._over.wait(), name="over")
        await asyncio.wait([waiting], timeout=seconds)
        waiting.cancel()
        return self._over.is_set()

    def sample(self, passed: float) -> None:
        self.samples.append((passed, at_rest.sizes(self.kept.pid)))

    def line(self) -> str:
        passed, sizes = self.samples[-1]
        asked = self.answered + self.given_up + self.refused.total() + self.failed.total()
        gc.collect()
        return (
            f"{passed / 60:5.1f} min  {asked} questions: {self.answered} answered, {self.given_up} given up, "
            f"refused {dict(self.refused)}, failed {dict(self.failed)}; slowest {self.slowest:.1f} s  "
            f"{at_rest.in_words(sizes)}  {len(asyncio.all_tasks())} tasks, {len(at_rest.STREAMS)} streams  "
            f"{dict(self.changes)}"
        )


async def soak(minutes: float, seed: int) -> int:
    auditor.KEPT_S = KEPT_S  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="infraxa-soak-") as folder:
        crowd = Crowd(Path(folder), command=SERVING)
        try:
            await crowd.start(PROVIDERS)
            async with crowd.users(USERS, failover="auto") as users:
                before = at_rest.task_names()
                run = Soak(crowd, users, seed)
                await run.run(minutes * 60)
                problems = run.problems + await at_rest.leaks(crowd, before, USERS)
                run.sample(minutes * 60)
                print(run.line(), flush=True)
                problems += at_rest.growth(run.samples)
            problems += await _stop(crowd.providers)
            problems += at_rest.books(Path(folder))
        finally:
            crowd.close()
    print(f"providers that left took {_spread(run.stop_s)}")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


async def _stop(providers: Sequence[Provider]) -> list[str]:
    """A provider that has an order which never ends would wait for it before it ends itself."""
    began = time.monotonic()
    for provider in providers:
        provider.stop()
    for provider in providers:
        await asyncio.to_thread(provider.wait_stopped)
    took = time.monotonic() - began
    print(f"all providers ended within {took:.1f} s")
    return [] if took < 5 else [f"a provider took {took:.1f} s to end: an order was left in it"]


def _spread(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f} s" if seconds else "no time: none left"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return asyncio.run(soak(min(given.minutes, 24 * 60), given.seed))


if __name__ == "__main__":
    sys.exit(main())
