"""What must be so of a crowd when nobody asks any more: nothing is left of a question, nothing has grown, and
both sides' books are the same. Each look returns what is wrong, in words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil

from infraxa.app.auditor import WAITING
from infraxa.app.commands.demo import Provider
from infraxa.app.commands.front import attached_node
from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.net.credits import shown
from infraxa.net.stream import Stream
from infraxa.store.folder import DATABASE_NAME
from tests.books import compare
from tests.crowd import Crowd

QUIET_S = 20
"""Seconds after the last question in which everything has come to rest."""
GROWTH = 1.15
"""At the end, by that after a sixth of the time."""
SPARE = 2
"""Tasks of one name that may be under way by chance, more than before there were questions; also links of a
user that are being made anew."""
OF_A_LINK = (
    "link reader",
    "link writer",
    "link ticker",
    "attend to a link",  # of those that were begun here
    "RequestHandler.start",  # of the server of this process, for links that others began
    "RequestHandler._handle_request",
)
"""Tasks of which each link has one at most."""

STREAMS: WeakSet[Stream] = WeakSet()
"""Of this process, since this module was imported. Not found by gc.get_objects, which also shows, and spoils,
a tuple that another thread is making."""


def _count_streams() -> None:
    made = Stream.__init__

    def make(self: Stream, *args: Any, **kwargs: Any) -> None:
        STREAMS.add(self)
        made(self, *args, **kwargs)

    Stream.__init__ = make  # type: ignore[method-assign]


_count_streams()

Sample = tuple[float, dict[str, float]]
"""Seconds since the start, and `sizes` then."""


def sizes(kept_pid: int) -> dict[str, float]:
    """Of this process, in which the users are, and of a provider with the process of its model."""
    here = psutil.Process()
    kept: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        kept = [psutil.Process(kept_pid), *psutil.Process(kept_pid).children(recursive=True)]
    return {
        "MB of users": _megabytes(here),
        "files of users": _files(here),
        "MB of the kept provider": _total(kept, _megabytes),
        "files of the kept provider": _total(kept, _files),
    }


def _total(processes: Sequence[psutil.Process], size: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            total += size(process)
    return total


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _files(process: psutil.Process) -> float:
    return float(process.num_fds())


def in_words(sizes: dict[str, float]) -> str:
    return ", ".join(f"{size:.0f} {what}" for what, size in sizes.items())


def growth(samples: Sequence[Sample]) -> list[str]:
    """What is larger at the end than it was, at most, in the fifth of the run that came after a sixth."""
    end, last = samples[-1]
    settled = [sample for at, sample in samples if at >= end / 6]
    early = settled[: len(settled) // 5 or 1]
    problems = []
    for what, late in last.items():
        most = max(sample[what] for sample in early)
        print(f"{what}: {most:.1f} after a sixth of the time, {late:.1f} at the end")
        if late > most * GROWTH:
            problems.append(f"{what} grew from {most:.1f} to {late:.1f}")
    return problems


def task_names() -> Counter[str]:
    """Tasks of this process by their names, without what tells two of a kind apart."""
    return Counter(_name(task) for task in asyncio.all_tasks())


def _name(task: asyncio.Task[object]) -> str:
    name = task.get_name()
    if re.fullmatch(r"Task-\d+", name):  # nobody named it
        return getattr(task.get_coro(), "__qualname__", name)
    return re.sub(r"\S*\d\S*", "…", name)


async def leaks(crowd: Crowd, before: Counter[str], users: int) -> list[str]:
    """What is left of questions: streams, slots and places of providers, tasks beyond those `before`."""
    problems = await _settled(_streams)
    for provider in crowd.providers:
        problems += await _slots(provider)
    # Each user is a peer of each provider and of the other users, and has a session for its orders with each
    # provider, on which it does not say which peer it is.
    links = users * (2 * len(crowd.providers) + users - 1)
    limits = dict.fromkeys(OF_A_LINK, links + users * SPARE)
    limits["audit an answer"] = users * WAITING  # which go on for hours
    return problems + await _settled(lambda: _tasks(before, limits))


async def _settled(look: Callable[[], str]) -> list[str]:
    """What is still wrong after QUIET_S."""
    problem = ""
    for _ in range(QUIET_S):
        if not (problem := look()):
            return []
        await asyncio.sleep(1)
    return [problem]


def _streams() -> str:
    gc.collect()
    return f"{len(STREAMS)} streams are left" if STREAMS else ""


async def _slots(provider: Provider) -> list[str]:
    async with attached_node(Folders.find(provider.folder, {}), Settings()) as node:
        if node is None:
            return [f"{provider.name} does not answer"]

        def look() -> str:
            status = node.provider
            left = f"{status.running} running and {status.waiting} waiting"
            return f"{provider.name} has {left}" if status.running or status.waiting else ""

        return await _settled(look)


def _tasks(before: Counter[str], known: dict[str, int]) -> str:
    names = task_names()
    limits = {name: before[name] + SPARE for name in names} | known
    over = {name: count for name, count in names.items() if count > limits[name]}
    return f"tasks are left: {over} of {dict(names)}, {dict(before)} before" if over else ""


def books(folder: Path) -> list[str]:
    """Of the folder of a crowd that has ended."""
    compared = compare(folder)
    size = sum(path.stat().st_size for path in folder.glob(f"u*/{DATABASE_NAME}*"))
    print(
        f"both books: {compared.agreed} agree, {shown(compared.amount)} credits; {compared.open} open; "
        f"users keep {size / 1e6:.1f} MB"
    )
    return compared.problems if compared.agreed else ["no order was settled", *compared.problems]
