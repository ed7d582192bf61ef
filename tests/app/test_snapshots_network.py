"""Pictures of the Network view and its dialogs, on a node whose network stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.network import NetworkScreen
from tests.app import still
from tests.app.still import ALONE, NODES, NOW, PEERS, REFUSED, TROUBLED, StillNode
from tests.app.test_snapshots import READY, SIZES, THEMES, SnapCompare, prepare, same_everywhere, settle

assert same_everywhere  # a fixture for all of these too


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An invite says until when it can be used, in the time of this machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def alone(node: StillNode) -> None:
    node.become(ALONE)


def troubled(node: StillNode) -> None:
    node.become(TROUBLED, PEERS, NODES, REFUSED)


def online(node: StillNode) -> None:
    """As it is."""


def make(folder: Path, theme: str, situation: Callable[[StillNode], None]) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = StillNode(settings, folders)
        node.status = READY
        situation(node)
        return node

    settings = Settings(online=False, threads=1, slots=2, theme=theme, reduced_motion=True)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


def pressing(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Open the view, with a minute of traffic behind it, and press more keys."""

    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot, "alt+n")
        view = pilot.app.screen
        assert isinstance(view, NetworkScreen)
        status = pilot.app.node.network  # type: ignore[attr-defined] # it is the app
        steps = [1 + (second * second) % 11 for second in range(60)]
        for second in range(60):
            later = sum(steps[second + 1 :])
            view.traffic.take(
                NOW / 1000 - 59 + second,
                {b"": (status.bytes_in - 900 * later, status.bytes_out - 200 * later)},
            )
        view._paint()
        await settle(pilot, *keys)

    return run


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("situation", [alone, troubled], ids=["alone", "troubled"])
def test_network(
    snap_compare: SnapCompare,
    tmp_path: Path,
    situation: Callable[[StillNode], None],
    size: tuple[int, int],
    theme: str,
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, situation), terminal_size=size, run_before=pressing())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("keys", [("i",), ("j", *still.INVITE[:20], "enter")], ids=["invite", "join-error"])
def test_meeting(
    snap_compare: SnapCompare, tmp_path: Path, keys: tuple[str, ...], size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, online), terminal_size=size, run_before=pressing(*keys))


@pytest.mark.parametrize("part", [1, 2, 3], ids=["nodes", "refused", "this-node"])
def test_other_parts_of_a_narrow_screen(snap_compare: SnapCompare, tmp_path: Path, part: int) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", troubled)
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing(*["tab"] * part))


def test_no_colour(snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", troubled)
    assert snap_compare(app, terminal_size=(120, 36), run_before=pressing())


def test_forty_by_ten(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", troubled)
    assert snap_compare(app, terminal_size=(40, 10), run_before=pressing())
