"""Pictures of the views, at three sizes, dark and light, on a prepared store with a fixed clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import EngineStatus, ErrorInfo, Loaded
from infraxa.store import chats, messages, state
from infraxa.store.db import Store
from infraxa.store.records import AnswerFacts, Chat
from tests.app.still import DAY, HOUR, MINUTE, NOW, StillNode

ANSWER = """A *driver* is the provider that you chose for a chat: **it alone receives the prompt**.

1. You pick it by price, reputation and health.
2. It locks the price, and then answers.

```python
def cost(tokens: int, price: int) -> int:
    return tokens * price // 1_000_000
```

| who | sees the prompt |
| --- | --- |
| the driver | yes |
| a worker | no |
"""
FACTS = AnswerFacts(
    model="guide", finish="stop", n_prompt=512, n_cached=480, n_out=412, first_token_ms=125.0,
    decode_ms=12_000.0, tokens_per_second=33.8,
)  # fmt: skip
OLDER = [
    ("Sums before breakfast", 25 * MINUTE),
    ("A very long title that does not fit into the list of chats at all", 3 * HOUR),
    ("二十四節気とは何ですか", 2 * DAY),
    ("Names for a cat", 40 * DAY),
    ("", 400 * DAY),
]


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures do not depend on the terminal that the tests are run in."""
    for name in ("NO_COLOR", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


class SnapCompare(Protocol):
    """The fixture of pytest-textual-snapshot."""

    def __call__(
        self,
        app: InfraxaApp,
        *,
        terminal_size: tuple[int, int],
        run_before: Callable[[Pilot[None]], Awaitable[None]],
    ) -> bool: ...


READY = EngineStatus(
    "ready", str(GUIDE_PATH), loaded=Loaded(str(GUIDE_PATH), 1024, 1024, 2, 1, 0, pid=1, load_ms=90)
)


async def prepare(folder: Path) -> None:
    """A store with chats whose ages do not change."""
    moment = NOW

    store = await Store.open(folder, clock=lambda: moment)
    try:
        for title, age in reversed(OLDER):
            moment = NOW - age
            await store.run(chats.create_chat, None, title)
        moment = NOW - 2 * MINUTE
        chat: Chat = await store.run(chats.create_chat)
        asked = await store.run(messages.add_message, chat.id, None, "user", "What is a driver?")
        answer = await store.run(messages.add_message, chat.id, asked.id, "assistant", "", "streaming")
        await store.run(messages.finish_message, answer.id, "complete", FACTS, "", ANSWER)
        await store.run(state.set_value, "last_chat", chat.id)
    finally:
        await store.close()


def make(folder: Path, theme: str, *, status: EngineStatus = READY) -> InfraxaApp:
    async def open_node(settings: Settings, folders: Folders) -> Node:
        node = StillNode(settings, folders)
        node.status = status
        return node

    settings = Settings(online=False, threads=1, slots=2, theme=theme, reduced_motion=True)
    return InfraxaApp(settings, Folders.find(folder, {}), open_node=open_node, clock=lambda: NOW / 1000)


async def settle(pilot: Pilot[None], *keys: str) -> None:
    """Wait until the store is open and its chat is shown, press keys, let nothing blink."""
    app = pilot.app
    assert isinstance(app, InfraxaApp)
    async with asyncio.timeout(30):
        while not (app.opened and app.chat_screen.settled):
            await pilot.pause(0.01)
    await pilot.press(*keys)
    await pilot.pause(0.1)
    for text in app.screen.query(TextArea):
        text.cursor_blink = False
    for box in app.screen.query(Input):
        box.cursor_blink = False
    await app.workers.wait_for_complete()
    await pilot.pause()


def pressing(*keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot, *keys)

    return run


SIZES = [(80, 24), (120, 36), (200, 60)]
THEMES = ["infraxa-dark", "infraxa-light"]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", THEMES)
def test_chat(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=pressing())


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-dark"), ((200, 60), "infraxa-light")])
def test_first_run(snap_compare: SnapCompare, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=pressing())


VIEWS = {
    "list": ("ctrl+b",),
    "search": ("ctrl+f", *"driver"),
    "help": ("f1",),
    "palette": ("ctrl+p",),
    "settings": ("f9",),
    "models": ("ctrl+o",),
    "options": ("ctrl+t",),
    "rename": ("f2",),
    "slash": ("/",),
}


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "infraxa-light"), ((120, 36), "infraxa-dark")])
@pytest.mark.parametrize("view", VIEWS)
def test_view(
    snap_compare: SnapCompare, tmp_path: Path, view: str, size: tuple[int, int], theme: str
) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=size, run_before=pressing(*VIEWS[view]))


@pytest.mark.parametrize("theme", ["infraxa-contrast", "infraxa-dusk", "infraxa-paper"])
def test_other_themes(snap_compare: SnapCompare, tmp_path: Path, theme: str) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, theme), terminal_size=(120, 36), run_before=pressing())


def test_forty_by_ten(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    assert snap_compare(make(tmp_path, "infraxa-dark"), terminal_size=(40, 10), run_before=pressing())


def test_too_small(snap_compare: SnapCompare, tmp_path: Path) -> None:
    assert snap_compare(make(tmp_path, "infraxa-dark"), terminal_size=(30, 7), run_before=pressing())


def test_the_engine_failed(snap_compare: SnapCompare, tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    status = EngineStatus(
        "failed",
        error=ErrorInfo("load_failed", "The model cannot be loaded.", "Choose another one with ctrl+o."),
    )
    app = make(tmp_path, "infraxa-dark", status=status)
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing())
