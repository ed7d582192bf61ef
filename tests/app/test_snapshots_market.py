"""Pictures of the Market view, on a node whose market stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from infraxa.app.tui.screens.market import MarketScreen
from infraxa.net.status import NetworkStatus
from tests.app.still import ALONE, ONLINE, StillNode
from tests.app.test_snapshots import SIZES, THEMES, SnapCompare, prepare, same_everywhere, settle
from tests.app.test_snapshots_network import make

assert same_everywhere  # a fixture for all of these too


def full(node: StillNode) -> None:
    """As it is."""


def alone(node: StillNode) -> None:
    node.become_market([])
    node.become(ALONE)


def off(node: StillNode) -> None:
    node.become_market([])
    node.become(NetworkStatus())


def none_offers(node: StillNode) -> None:
    node.become_market([])
    node.become(msgspec.structs.replace(ONLINE, known=3))


def pressing(*keys: str, on: str = "") -> Callable[[Pilot[None]], Awaitable[None]]:
    """Open the view, put the cursor on this provider, and press more keys."""

    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot, "alt+m")
        view = pilot.app.screen
        assert isinstance(view, MarketScreen)
        names = [getattr(row.of, "node").name for row in view.table.rows]  # noqa: B009 - offers, all of them
        view.table.cursor = names.index(on) if on else 0
        await settle(pilot, *keys)

    return run


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("on", ["juniper", "ostrich farm in the north"], ids=["good", "failed"])
def test_market(
    snap_compare: SnapCompare, tmp_path: Path, on: str, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, full), terminal_size=size, run_before=pressing(on=on))


@pytest.mark.parametrize(
    ("size", "theme"), [((80, 24), "infraxa-dark"), ((120, 36), "infraxa-light"), ((200, 60), "infraxa-dark")]
)
def test_filtered(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    keys = ("o", "/", *"qwen")
    assert snap_compare(make(tmp_path, theme, full), terminal_size=size, run_before=pressing(*keys))


@pytest.mark.parametrize("situation", [off, alone, none_offers])
def test_empty(snap_compare: SnapCompare, tmp_path: Path, situation: Callable[[StillNode], None]) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", situation)
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing())


def test_nothing_matches(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", full)
    assert snap_compare(app, terminal_size=(120, 36), run_before=pressing("/", *"gpt-5", "enter"))


def test_a_chosen_driver(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", full)
    assert snap_compare(
        app, terminal_size=(120, 36), run_before=pressing("enter", "alt+m", "down", on="quartz")
    )


def test_no_colour(snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", full)
    assert snap_compare(app, terminal_size=(120, 36), run_before=pressing())


def test_forty_by_ten(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    app = make(tmp_path, "infraxa-dark", full)
    assert snap_compare(app, terminal_size=(40, 10), run_before=pressing())
