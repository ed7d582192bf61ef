"""Pictures of money in the chat and in the Market: the cost before Enter, the bill, prices, stars."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.pilot import Pilot

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.trade import Bound, PricePoint
from infraxa.app.tui.app import InfraxaApp
from infraxa.store.records import AnswerFacts
from tests.app.offered import MAPLE, part
from tests.app.priced import ASKING, CAPPED, DISPUTED, LOCKED, OF_TWO, RAISED, SIGNED, PricedNode, with_bills
from tests.app.still import HOUR, NOW
from tests.app.still import OFFERS as MARKET
from tests.app.test_snapshots import ANSWER, READY, SnapCompare, prepare, same_everywhere, settle
from tests.app.test_snapshots_driver import choose
from tests.app.test_snapshots_market import pressing

assert same_everywhere  # a fixture for all of these too

DARK, LIGHT = "infraxa-dark", "infraxa-light"
OFFERED = [
    replace(
        offer,
        price_in=price // 4,
        price_out=price,
        stars=None if at % 3 == 0 else 2.0 + 0.9 * (at % 4),
        ratings=at * 7,
        unweighted=at % 2 * 40,
        new=at % 5 == 0,
    )
    for at, offer in enumerate(MARKET)
    for price in [(200_000, 0, 310_000, 450_000)[at % 4]]
]
"""A market with prices, some of them free, some of them newcomers."""


def past(price: int) -> list[PricePoint]:
    """How the price of today came about."""
    shares = (100, 100, 130, 180, 220, 160, 110, 90, 100)
    return [
        PricePoint(NOW - (27 - 3 * at) * HOUR, price * share // 100) for at, share in enumerate(shares, 1)
    ]


def make(folder: Path, theme: str, bound: Bound = LOCKED) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = PricedNode(settings, folders)
        node.status = READY
        node.bounds = bound
        return node

    settings = Settings(online=False, threads=1, slots=2, theme=theme, reduced_motion=True, max_price=0.35)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await pilot.pause(0.02)


async def before(pilot: Pilot[None]) -> None:
    """Maple is to answer, and what that can cost is said."""
    app, _ = await choose(pilot)
    await until(pilot, lambda: app.chat_screen.bound is not None)
    await settle(pilot)


def after(facts: AnswerFacts, *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Maple has answered, and this is known of it."""

    async def run(pilot: Pilot[None]) -> None:
        app, node = await choose(pilot)
        chat = app.chat_screen
        await pilot.press(*"Tell me more", "enter")
        await until(pilot, lambda: bool(chat.running) and bool(chat.shown_turns))
        await until(pilot, lambda: chat.shown_turns[-1].message.state == "streaming")
        answer = chat.shown_turns[-1].message
        node.move(answer, part(MAPLE))
        node.grow(answer, ANSWER)
        await node.end(answer, "complete", facts)
        await until(pilot, lambda: not chat.running and chat.shown_turns[-1].message.state == "complete")
        await until(pilot, lambda: chat._price_timer is None)
        await settle(pilot, *keys)

    return run


SIZES = [((80, 24), DARK), ((120, 36), LIGHT), ((200, 60), DARK)]


@pytest.mark.parametrize(("size", "theme"), SIZES)
@pytest.mark.parametrize(
    "bound", [LOCKED, RAISED, ASKING, CAPPED], ids=["locked", "raised", "asking", "capped"]
)
def test_before_enter(
    snap_compare: SnapCompare, tmp_path: Path, bound: Bound, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme, bound), terminal_size=size, run_before=before)


@pytest.mark.parametrize(("size", "theme"), [*SIZES, ((80, 24), LIGHT)])
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(after(replace(SIGNED, stars=4), "shift+tab"), id="rated"),
        pytest.param(after(OF_TWO, "shift+tab"), id="two"),
        pytest.param(after(with_bills(DISPUTED), "shift+tab"), id="disputed"),
    ],
)
def test_after_it(
    snap_compare: SnapCompare,
    tmp_path: Path,
    run: Callable[[Pilot[None]], Awaitable[None]],
    size: tuple[int, int],
    theme: str,
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=run)


@pytest.mark.parametrize(
    ("size", "theme"), [((80, 24), DARK), ((120, 36), DARK), ((120, 36), LIGHT), ((200, 60), LIGHT)]
)
def test_prices(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot)
        app = pilot.app
        assert isinstance(app, InfraxaApp) and isinstance(app.node, PricedNode)
        app.node.histories = {offer.node.id: past(offer.price_out) for offer in OFFERED}
        app.node.become_market(OFFERED)
        await pressing(on="juniper")(pilot)

    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=run)


def test_a_low_terminal(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, DARK), terminal_size=(40, 10), run_before=before)
