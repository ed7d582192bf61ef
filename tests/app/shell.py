"""The terminal app for tests: on a folder of its own, with the real node, waited for with a bound."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from textual.pilot import Pilot

from infraxa.app.config import Settings
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.chat import ChatScreen
from infraxa.store.records import Message

SETTINGS = Settings(online=False, threads=1, slots=2, reduced_motion=True)
LIMIT = 30.0
"""Seconds of any wait."""


class Shell:
    """The app and the keys to it."""

    def __init__(self, app: InfraxaApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def chat(self) -> ChatScreen:
        return self.app.chat_screen

    @property
    def node(self) -> NodeFacade:
        return self.app.node

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds; what it is about is said when it never does."""
        try:
            async with asyncio.timeout(LIMIT):
                while not condition():
                    await self.pilot.pause(0.01)
        except TimeoutError:
            raise AssertionError(f"waited {LIMIT:g} s for: {what}") from None
        await self.pilot.pause()

    async def type(self, text: str, *keys: str) -> None:
        """Type into whatever has the focus, then press keys."""
        await self.pilot.press(*text, *keys)

    async def opened(self) -> None:
        """The store is open and the model answers."""
        await self.until(lambda: self.app.opened and self.node.engine.state == "ready", "the model")

    async def ask(self, text: str) -> Message:
        """Ask by typing; the answer as it ended."""
        await self.type(text, "enter")
        await self.until(lambda: self.said(text) and not self.chat.running, "an answer")
        return self.turns[-1]

    def said(self, text: str) -> bool:
        """Whether the shown conversation ends with this question and an answer."""
        return len(self.turns) > 1 and self.turns[-2].content == text

    @property
    def turns(self) -> list[Message]:
        """The messages that are shown."""
        return [turn.message for turn in self.chat.shown_turns]

    @property
    def toasts(self) -> list[str]:
        """What the notices say."""
        return [notification.message for notification in self.app._notifications]

    def screen_text(self) -> str:
        """What is on the screen, as text."""
        width = self.app.size.width
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip)[:width].rstrip() for strip in strips)


@contextlib.asynccontextmanager
async def shell(
    path: Path,
    *,
    size: tuple[int, int] = (120, 36),
    settings: Settings = SETTINGS,
    node: type[Node] = Node,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Shell]:
    """The app on the folder `path`."""

    async def open_node(settings: Settings, folders: Folders) -> Node:
        return node(settings, folders)

    folders = Folders.find(path, {})
    app = InfraxaApp(settings, folders, open_node=open_node, **({} if clock is None else {"clock": clock}))
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Shell(app, pilot)
    await app.close_node()
