"""Pictures of a chat whose driver is another node: before Enter, while it answers, when another goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from infraxa.net.identity import display, id_text
from infraxa.store.records import Message
from tests.app.offered import CEDAR, MAPLE, MEASURED, OFFERS, QWEN, OfferedNode, moved_facts, part
from tests.app.still import NOW
from tests.app.test_snapshots import (
    ANSWER,
    READY,
    SIZES,
    SnapCompare,
    prepare,
    same_everywhere,
    settle,
)

assert same_everywhere  # a fixture for all of these too

AT = ANSWER.index("return")
SILENT = "maple fell silent in mid-answer."

Step = Callable[[Pilot[None], OfferedNode, Message], Awaitable[None]]


def make(folder: Path, theme: str) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = OfferedNode(settings, folders)
        node.status = READY
        return node

    settings = Settings(online=False, threads=1, slots=2, theme=theme, reduced_motion=True)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


async def choose(pilot: Pilot[None]) -> tuple[InfraxaApp, OfferedNode]:
    """Have maple answer the shown chat."""
    await settle(pilot)
    app = pilot.app
    assert isinstance(app, InfraxaApp)
    node = app.node
    assert isinstance(node, OfferedNode)
    chat = app.chat_screen
    await chat.use_driver(id_text(MAPLE.id), QWEN.model_id.hex(), display("maple", MAPLE.id))
    await chat._list_offers()
    chat._flash = ""  # it would end by itself after some seconds
    chat._paint_status()
    return app, node


def asked(step: Step, *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Ask maple something, let `step` play the answer, press more keys."""

    async def run(pilot: Pilot[None]) -> None:
        app, node = await choose(pilot)
        await pilot.press(*"Tell me more", "enter")
        chat = app.chat_screen
        async with asyncio.timeout(30):
            while not chat.shown_turns or chat.shown_turns[-1].message.state != "streaming":
                await pilot.pause(0.02)
        await step(pilot, node, chat.shown_turns[-1].message)
        async with asyncio.timeout(30):
            while chat.running or chat.shown_turns[-1].message.state == "streaming":
                await pilot.pause(0.02)
        await settle(pilot, *keys)
        assert app.screen.is_modal is bool(keys)

    return run


async def chosen(pilot: Pilot[None]) -> None:
    await choose(pilot)
    await settle(pilot)


async def offline(pilot: Pilot[None]) -> None:
    app, node = await choose(pilot)
    gone = msgspec.structs.replace(MAPLE, status="offline", age_s=190.0)
    node.become_market([msgspec.structs.replace(OFFERS[1], node=gone)])
    await app.chat_screen._list_offers()
    await settle(pilot)


async def moved(pilot: Pilot[None], node: OfferedNode, answer: Message) -> None:
    node.move(answer, part(MAPLE))
    node.grow(answer, ANSWER[:AT])
    node.move(answer, part(CEDAR, at=AT), SILENT)
    node.grow(answer, ANSWER[AT:])
    await node.end(answer, "complete", moved_facts(AT))


async def failed(pilot: Pilot[None], node: OfferedNode, answer: Message) -> None:
    node.move(answer, part(MAPLE))
    node.grow(answer, ANSWER[:AT])
    facts = msgspec.structs.replace(MEASURED, finish="failed", blame="peer", error_code="silent")
    await node.end(answer, "failed", facts, f"{SILENT} Try again, or choose another driver.")


@pytest.mark.parametrize(
    ("size", "theme"), [*((size, "infraxa-dark") for size in SIZES), ((80, 24), "infraxa-light")]
)
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(chosen, id="chosen"),
        pytest.param(offline, id="offline"),
        pytest.param(asked(moved), id="moved"),
        pytest.param(asked(failed), id="failed"),
        pytest.param(asked(failed, "f5"), id="elsewhere"),
    ],
)
def test_a_driver(
    snap_compare: SnapCompare,
    tmp_path: Path,
    run: Callable[[Pilot[None]], Awaitable[None]],
    size: tuple[int, int],
    theme: str,
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=run)


def test_a_low_terminal(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, "infraxa-dark"), terminal_size=(40, 10), run_before=chosen)


def test_who_answers_is_picked(snap_compare: SnapCompare, tmp_path: Path) -> None:
    async def run(pilot: Pilot[None]) -> None:
        await choose(pilot)
        await settle(pilot, "alt+d")

    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, "infraxa-dark"), terminal_size=(120, 36), run_before=run)
