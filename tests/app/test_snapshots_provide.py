"""Pictures of the Provide view, its dialogs and the notice, on a node whose provider stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.serving import ProviderStatus, Served
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.provide import ProvideScreen
from tests.app.still import ALONE, NOW, ONLINE
from tests.app.still_earnings import MISSED, TradingNode
from tests.app.still_provider import (
    BLOCKED,
    CLOSED,
    DRAINING,
    ENDED,
    FAILED,
    OFF,
    QUIET,
    REQUESTS,
    SERVING,
    STARTING,
)
from tests.app.test_snapshots import READY, SIZES, THEMES, SnapCompare, prepare, same_everywhere, settle

assert same_everywhere  # a fixture for all of these too

SITUATIONS: dict[str, tuple[ProviderStatus, Sequence[Served]]] = {
    "off": (OFF, []),
    "starting": (STARTING, []),
    "quiet": (QUIET, []),
    "serving": (SERVING, REQUESTS),
    "paused": (CLOSED, ENDED),
    "draining": (DRAINING, REQUESTS[4:]),
    "failed": (FAILED, []),
}


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are those of this machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make(folder: Path, theme: str, situation: str, *, accepted: bool = True) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = TradingNode(settings, folders)
        node.missed = MISSED if situation == "serving" else ()
        node.status, node.accepted = READY, accepted
        status, served = SITUATIONS[situation]
        network = ALONE if situation == "quiet" else ONLINE
        node.become_provider(status, served, blocked=BLOCKED if served else (), network=network)
        return node

    hours = "22:00-07:00" if situation == "paused" else None
    settings = Settings(
        online=False, threads=1, slots=8, theme=theme, reduced_motion=True, provide_hours=hours
    )
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


def pressing(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Open the view, with a minute of speeds behind it, and press more keys."""

    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot, "alt+p")
        view = pilot.app.screen
        assert isinstance(view, ProvideScreen)
        if view._ticking is not None:
            view._ticking.pause()
        view._speeds.clear()
        if view._seen.status.tokens:
            view._speeds.extend(20 + (second * second) % 131 for second in range(60))
        view._paint()
        await settle(pilot, *keys)

    return run


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("situation", ["off", "serving"])
def test_provide(
    snap_compare: SnapCompare, tmp_path: Path, situation: str, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, situation), terminal_size=size, run_before=pressing())


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-dark"), ((120, 36), "infraxa-light")])
@pytest.mark.parametrize("situation", ["starting", "quiet", "paused", "draining", "failed"])
def test_provide_in(
    snap_compare: SnapCompare, tmp_path: Path, situation: str, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, situation), terminal_size=size, run_before=pressing())


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-light"), ((120, 36), "infraxa-dark")])
def test_notice(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, theme, "off", accepted=False)
    assert snap_compare(app, terminal_size=size, run_before=pressing("f7"))


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-dark"), ((120, 36), "infraxa-light")])
@pytest.mark.parametrize(
    "keys",
    [
        ("tab",),
        ("tab", "tab"),
        ("tab", "tab", "tab"),
        ("tab", "tab", "tab", "enter"),
        ("tab", "tab", "tab", *("down",) * 7, "enter"),
        ("tab", "tab", "tab", "down", "down", "enter", "backspace", "0", "enter"),
        ("down", "down", "e"),
    ],
    ids=["missed", "blocked", "offer", "model", "base-price", "capacity-error", "end"],
)
def test_in_the_view(
    snap_compare: SnapCompare, tmp_path: Path, keys: tuple[str, ...], size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, theme, "serving")
    assert snap_compare(app, terminal_size=size, run_before=pressing(*keys))


def test_no_colour(snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", "serving")
    assert snap_compare(app, terminal_size=(120, 36), run_before=pressing())


def test_forty_by_ten(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", "serving")
    assert snap_compare(app, terminal_size=(40, 10), run_before=pressing())
