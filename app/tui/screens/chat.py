"""The chat view: the chats, the conversation and the prompt, and who answers.

It asks Node and shows what Node says; it owns no state that the store has. What is typed before the store is
open is kept, and sent when it is.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Static

from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerMoved,
    AnswerStarted,
    AnswerWaits,
    BranchChanged,
    ChatsChanged,
    EngineChanged,
    Event,
    FactsChanged,
    ModelsChanged,
    NetworkChanged,
    PromptRead,
)
from infraxa.app.tui import actions
from infraxa.app.tui.running import RunningAnswers
from infraxa.app.tui.screens.chat_audit import Auditing
from infraxa.app.tui.screens.chat_base import SearchBox
from infraxa.app.tui.terminal import tell_too_small
from infraxa.app.tui.widgets.chat_list import ChatList
from infraxa.app.tui.widgets.facts import model_label
from infraxa.app.tui.widgets.model_card import ModelCard
from infraxa.app.tui.widgets.prompt import Prompt
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.app.tui.widgets.welcome import Welcome
from infraxa.engine.types import EngineStatus
from infraxa.net.status import NetworkStatus
from infraxa.store.records import Message, StoreError, Turn

if TYPE_CHECKING:
    from infraxa.app.tui.widgets.conversation import Conversation

PAINT_STATUS = 0.25
"""Seconds between two paintings of the speed of a running answer."""


class ChatScreen(Auditing):
    """The chat view."""

    AUTO_FOCUS = "#prompt PromptArea"
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("chat"),
        Binding("escape", "back", "Back to the prompt", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield ViewTabs("app.chat")
        with Horizontal(id="body"):
            with Vertical(id="side"):
                with Horizontal(id="brand"):
                    yield Static("Chats", id="brand-name")
                    yield Static("+ new", id="brand-new")
                yield SearchBox(placeholder="Search chats", id="search", compact=True)
                yield ChatList(id="chats")
            with Vertical(id="main"):
                yield Static("", id="title", markup=False)
                with ContentSwitcher(id="pages", initial="welcome"):
                    yield Welcome(id="welcome")
                yield Prompt(id="prompt", send_key=self.app.settings.send_key, time_of_day=self.app.clock)
            yield ModelCard(id="card")
        yield StatusBar(id="status", time_of_day=self.app.clock)
        yield Static("", id="too-small", markup=False)

    def on_mount(self) -> None:
        self._offer_commands()
        self._paint_driver()
        self.watch(self.prompt.area, "selection", self._typed, init=False)
        self.call_after_refresh(self.app.begin)

    def on_resize(self) -> None:
        tell_too_small(self)

    async def mount_conversation(self) -> None:
        """Add the conversation, which an empty chat does not need: reading Markdown takes long to import."""

        def load() -> type[Conversation]:
            from infraxa.app.tui.widgets.conversation import Conversation

            return Conversation

        conversation = (await asyncio.to_thread(load))(id="conversation", label=self._label)
        await self.query_one(ContentSwitcher).add_content(conversation)

    def _label(self, name: str) -> str:
        """What to show for a model's name."""
        return next((entry.label for entry in self._models if entry.name == name), model_label(name))

    async def node_opened(self) -> None:
        """The store is open: show the chats, go on with the last one, send what waits."""
        self._paint_status()
        self.prompt.set_history(await self.node.prompt_history())
        await self._list_models()
        await self._list_chats()
        self._engine = self.node.engine
        if self.chat is not None:
            await self._show_again(self.chat.id)
        last = await self.node.last_chat_id()
        if self._waiting is not None:
            text, editing = self._waiting
            self._waiting = None
            await self._send(text, editing)
        elif (
            self.chat is None
            and last is not None
            and any(chat.id == last for chat in self._chats)
            and not self.prompt.text
        ):
            await self.open_chat(last)
        self._situation_changed()
        self.settled = True

    def node_lost(self) -> None:
        """There is no node now: what is shown and typed stays, what was running runs no more."""
        self.running = RunningAnswers()
        self._engine = EngineStatus()
        self._network = NetworkStatus()
        self._show_bound(None)
        self._paint_running()
        self._paint_driver()
        self._situation_changed()

    async def _show_again(self, chat_id: str) -> None:
        """Show the chat as another node has it; what it answers may have gone on meanwhile."""
        try:
            self.chat = await self.node.get_chat(chat_id)
        except StoreError as error:
            if error.code != "not_found":
                raise
            self._forget_chat()
            return
        if any(turn.message.state == "streaming" for turn in self.shown_turns):
            async with self._showing:
                await self.conversation.show([])
        await self._show_branch()
        self._painted()

    def hear(self, event: Event) -> None:
        """Take one event of Node's, at once."""
        self.running.take(event)
        match event:
            case AnswerGrew():
                if self._shows(event.chat_id) and self.app.opened:
                    self.conversation.grow(event.message_id, event.text)
                    if monotonic() - self._painted_at >= PAINT_STATUS or event.n_out <= 1:
                        self._paint_status()
            case PromptRead():
                if self._shows(event.chat_id) and self.app.opened:
                    self.conversation.set_progress(event.message_id, event.done, event.total)
                    self._paint_status()
            case AnswerWaits():
                if self._shows(event.chat_id) and self.app.opened:
                    self._tell_wait(event.chat_id)
                    self._paint_status()
            case AnswerMoved():
                if self._shows(event.chat_id) and self.app.opened:
                    self.conversation.move(event.message_id, event.part)
            case AnswerStarted() | BranchChanged():
                if self._shows(event.chat_id):
                    self.call_next(self._show_branch)
                self._paint_running()
            case AnswerEnded():
                self.call_next(self._answer_ended, event.message)
                self._paint_running()
            case FactsChanged():
                if self._shows(event.chat_id):
                    self.call_next(self._facts_changed, event)
            case ChatsChanged():
                self.app.attempt(self._list_chats(), group="list", exclusive=True, screen=self)
            case ModelsChanged():
                self.app.attempt(self._list_models(), group="models", exclusive=True, screen=self)
            case EngineChanged():
                self._engine = event.status
                self._paint_engine()
            case NetworkChanged():
                self._network = event.status
                self._paint_driver()
            case _:
                self.hear_driver(event)

    async def _answer_ended(self, message: Message) -> None:
        if self._shows(message.chat_id):
            async with self._showing:
                await self.conversation.finish(message)
                self.shown_turns = [
                    Turn(message, turn.sibling_ids) if turn.message.id == message.id else turn
                    for turn in self.shown_turns
                ]
            if message.facts is not None and message.facts.readers:
                await self._show_branch()  # they could read what was said before, too
            self._situation_changed()
        if not self.app.app_focus:
            self.app.bell()
            self.app.show_title("● answered · infraxa")

    async def _facts_changed(self, event: FactsChanged) -> None:
        async with self._showing:
            if not self._shows(event.chat_id):
                return
            self.conversation.show_facts(event.message_id, event.facts)
            self.shown_turns = [
                Turn(msgspec.structs.replace(turn.message, facts=event.facts), turn.sibling_ids)
                if turn.message.id == event.message_id
                else turn
                for turn in self.shown_turns
            ]
        self._situation_changed()

    def _paint_engine(self) -> None:
        waiting = self._engine.state != "ready"
        if (
            self.chat is not None
            and waiting
            and self.driver.kind == "local"
            and (progress := self.running.by_chat.get(self.chat.id)) is not None
        ):
            percent = f" {self._engine.progress:.0%}" if self._engine.progress is not None else ""
            self.conversation.set_waiting(progress.message_id, f"waiting for the model to load{percent}")
        self._paint_status()
