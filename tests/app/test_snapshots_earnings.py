"""Pictures of the Earnings view and its dialogs, on a node whose books stand still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from tests.app.still import NOW
from tests.app.still_earnings import TradingNode
from tests.app.test_snapshots import (
    READY,
    SIZES,
    THEMES,
    SnapCompare,
    prepare,
    pressing,
    same_everywhere,
)

assert same_everywhere  # a fixture for all of these too


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Days, times of day and the folder are those of this machine."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/home/maple"))
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make(folder: Path, theme: str, *, empty: bool = False) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = TradingNode(settings, folders)
        node.status = READY
        if empty:
            node.become_books(())
        return node

    settings = Settings(online=False, threads=1, slots=8, theme=theme, reduced_motion=True)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
def test_earnings(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=pressing("alt+e"))


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-light"), ((120, 36), "infraxa-dark")])
def test_nothing_yet(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, theme, empty=True)
    assert snap_compare(app, terminal_size=size, run_before=pressing("alt+e", "tab"))


IN_THE_VIEW = {
    "week": ("d", "d"),
    "year": ("d",),
    "tabs": ("tab",),
    "linked": ("tab", "down"),
    "receipts": ("tab", "tab", "down", "down"),
    "models": ("tab", "tab", "tab"),
    "peers": ("tab", "tab", "tab", "tab"),
    "limit": ("tab", "l"),
    "settle": ("tab", "down", "t"),
    "agree": ("tab", "down", "down", "t"),
    "receipt": ("tab", "tab", *("down",) * 5, "enter"),
    "export": ("tab", "tab", "e"),
}


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-dark"), ((120, 36), "infraxa-light")])
@pytest.mark.parametrize("keys", IN_THE_VIEW.values(), ids=IN_THE_VIEW)
def test_in_the_view(
    snap_compare: SnapCompare, tmp_path: Path, keys: tuple[str, ...], size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, theme)
    assert snap_compare(app, terminal_size=size, run_before=pressing("alt+e", *keys))


def test_no_colour(snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark")
    assert snap_compare(app, terminal_size=(120, 36), run_before=pressing("alt+e"))


def test_forty_by_ten(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark")
    assert snap_compare(app, terminal_size=(40, 10), run_before=pressing("alt+e"))
