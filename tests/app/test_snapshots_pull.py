"""Pictures of pulling a model: the list, the question, the download and its end, at three sizes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.hub_values import (
    HubFile,
    PullAsked,
    PullChosen,
    PullEvent,
    PullMoved,
    PullPlan,
    PullWaits,
)
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens import pull as pull_screen
from infraxa.app.tui.screens.pull import PullScreen
from tests.app.still import NOW, StillNode
from tests.app.test_snapshots import READY, SnapCompare, prepare, same_everywhere, settle

__all__ = ["same_everywhere"]

SIZE = 2_497_280_256
PLAN = PullPlan(
    repo="Qwen/Qwen3-4B-GGUF",
    commit="0" * 40,
    quant="Q4_K_M",
    files=(HubFile("Qwen3-4B-Q4_K_M.gguf", SIZE, "0" * 64),),
    size=SIZE,
    missing=SIZE,
    name="Qwen3-4B-Q4_K_M",
    license="apache-2.0",
    memory=3_047_000_000,
    free_memory=2_900_000_000,
    note="Q4_K_M is taken, as no quantization was named.",
    warning="It takes about 3.0 GB of memory, and 2.9 GB are free now.",
)
RUNNING = (PullChosen(PLAN), PullMoved(SIZE * 3 // 8, SIZE, 11_400_000.0, 137.0))
WAITING = (*RUNNING, PullWaits("The connection to huggingface.co was cut.", 4.0, 3, 5))


class _Standing:
    """A download that stands still after some events."""

    def __init__(self, events: tuple[PullEvent, ...]) -> None:
        self._events = self._play(events)

    async def _play(self, events: tuple[PullEvent, ...]) -> AsyncGenerator[PullEvent, None]:
        for event in events:
            yield event
        await asyncio.Event().wait()

    def __aiter__(self) -> _Standing:
        return self

    async def __anext__(self) -> PullEvent:
        return await anext(self._events)

    def stop(self) -> None:
        """Nothing moves."""

    async def aclose(self) -> None:
        await self._events.aclose()


def make(folder: Path, theme: str, events: tuple[PullEvent, ...]) -> InfraxaApp:
    class Node(StillNode):
        def pull_model(self, asked: PullAsked) -> _Standing:  # type: ignore[override]
            return _Standing(events)

    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = Node(settings, folders)
        node.status = READY
        return node

    settings = Settings(online=False, threads=1, slots=2, theme=theme, reduced_motion=True)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


@pytest.fixture(autouse=True)
def same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_screen, "free_memory", lambda: 2_900_000_000)


async def calm(pilot: Pilot[None]) -> None:
    await pilot.pause(0.1)
    for box in pilot.app.screen.query(Input):
        box.cursor_blink = False
    await pilot.pause()


async def opened(pilot: Pilot[None]) -> PullScreen:
    app = pilot.app
    assert isinstance(app, InfraxaApp)
    await settle(pilot)
    app.action_pull_model()
    await calm(pilot)
    assert isinstance(app.screen, PullScreen)
    return app.screen


async def listed(pilot: Pilot[None]) -> None:
    await opened(pilot)
    await pilot.press("down", "down", "down", "down")
    await calm(pilot)


async def asked(pilot: Pilot[None]) -> None:
    screen = await opened(pilot)
    screen._ask(PullAsked(PLAN.repo), PLAN)
    await calm(pilot)


async def running(pilot: Pilot[None]) -> None:
    screen = await opened(pilot)
    screen.app.pulls.start(PullAsked(PLAN.repo), PLAN)
    await calm(pilot)


async def left(pilot: Pilot[None]) -> None:
    await running(pilot)
    await pilot.press("escape")
    await calm(pilot)


async def stopped(pilot: Pilot[None]) -> None:
    await running(pilot)
    await pilot.press("c")
    await calm(pilot)


SITUATIONS: dict[str, tuple[Callable[[Pilot[None]], Awaitable[None]], tuple[PullEvent, ...]]] = {
    "list": (listed, ()),
    "question": (asked, ()),
    "running": (running, RUNNING),
    "waiting": (running, WAITING),
    "left": (left, RUNNING),
    "stopped": (stopped, RUNNING),
}
LOOKS = [((80, 24), "infraxa-light"), ((120, 36), "infraxa-dark")]


@pytest.mark.parametrize(("size", "theme"), LOOKS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_pulling(
    snap_compare: SnapCompare, tmp_path: Path, situation: str, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    run, events = SITUATIONS[situation]
    assert snap_compare(make(tmp_path, theme, events), terminal_size=size, run_before=run)


def test_pulling_on_a_large_terminal(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", RUNNING)
    assert snap_compare(app, terminal_size=(200, 60), run_before=running)


def test_pulling_on_a_tiny_terminal(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-light", RUNNING)
    assert snap_compare(app, terminal_size=(40, 14), run_before=running)
