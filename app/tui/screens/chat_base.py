"""What the parts of the chat view share: its widgets, what is shown, and the painting of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Input, Static

from infraxa.app.config import LOCAL
from infraxa.app.errors import NodeError
from infraxa.app.trade import Bound
from infraxa.app.tui import actions
from infraxa.app.tui.running import RunningAnswers
from infraxa.app.tui.widgets.bills import can_rate
from infraxa.app.tui.widgets.chat_list import ChatList
from infraxa.app.tui.widgets.driver import (
    Driver,
    driver_words,
    find_driver,
    names_in,
    remedy,
    trouble,
    where_to,
)
from infraxa.app.tui.widgets.facts import can_continue, can_move, driver_name, model_label
from infraxa.app.tui.widgets.model_card import Card, ModelCard
from infraxa.app.tui.widgets.prompt import Prompt, SlashCommand
from infraxa.app.tui.widgets.status_bar import Status, StatusBar
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.verdicts import can_audit
from infraxa.app.tui.widgets.welcome import Welcome
from infraxa.engine.types import EngineStatus, ErrorInfo
from infraxa.net.status import NetworkStatus
from infraxa.store.records import AnswerFacts, Chat, ChatOptions, ChatSummary, Turn

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry
    from infraxa.app.facade import NodeFacade
    from infraxa.app.offers import OfferSeen
    from infraxa.app.tui.app import InfraxaApp
    from infraxa.app.tui.widgets.conversation import Conversation

FLASH = 3.0
"""Seconds that a word stays in the status bar."""


class _Partials(Mapping[str, str]):
    """The text so far of running answers, read at the moment a widget is made for one."""

    def __init__(self, node: NodeFacade) -> None:
        self._node = node

    def __getitem__(self, message_id: str) -> str:
        if text := self._node.partial(message_id):
            return text
        raise KeyError(message_id)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class SearchBox(Input):
    """Where the words of a search are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "screen.close_search", "Close", show=False),
        Binding("down", "screen.focus_chats", "To the list", show=False),
    ]


class ChatBase(Screen[None]):
    """The shown chat and the widgets that show it."""

    app: InfraxaApp

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self.chat: Chat | None = None
        """The shown chat; None while the conversation is new and empty."""
        self.running = RunningAnswers()
        self.shown_turns: list[Turn] = []
        """The branch that is shown, oldest first."""
        self._chats: list[ChatSummary] = []
        self._models: list[ModelEntry] = []
        self._options = ChatOptions()
        """Options chosen for a conversation that is not kept yet."""
        self.driver = Driver()
        """Who answers what is sent next."""
        self._offers: list[OfferSeen] | None = None
        """What is offered on the network, as it was last looked at; None: nobody needed to look."""
        self._waiting: tuple[str, str | None] | None = None
        """What was sent before it could be."""
        self._deleted: list[str] = []
        """Deleted chats that can be brought back, the last one at the end."""
        self._text_at_delete: str | None = None
        """What the prompt held when a chat was deleted: as long as it does, ctrl+z brings the chat back."""
        self.bound: Bound | None = None
        """What the next message can cost, as far as it is known."""
        self._showing = asyncio.Lock()
        self._keeping = asyncio.Lock()
        """Held while a conversation that begins is kept."""
        self._draft_timer: Timer | None = None
        self._painted_at = 0.0
        self._flash = ""
        self._engine = EngineStatus()
        self._network = NetworkStatus()
        self.settled = False
        """What there was at the start is shown."""

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    @property
    def conversation(self) -> Conversation:
        from infraxa.app.tui.widgets.conversation import Conversation

        return self.query_one(Conversation)

    @property
    def chat_list(self) -> ChatList:
        return self.query_one(ChatList)

    @property
    def node(self) -> NodeFacade:
        return self.app.node

    def _shows(self, chat_id: str) -> bool:
        return self.chat is not None and self.chat.id == chat_id

    async def _show_branch(self) -> None:
        """Show the turns of the chat as the store has them."""
        async with self._showing:
            chat = self.chat
            if chat is None or not self.app.opened:
                return
            try:
                turns = await self.node.branch(chat.id)
            except NodeError as error:
                if error.code != "gone":
                    raise
                return  # the next node shows it
            if self.chat is None or self.chat.id != chat.id:
                return
            self.shown_turns = [self._as_told(turn) for turn in turns]
            await self.conversation.show(self.shown_turns, streaming=_Partials(self.node))
            self._tell_wait(chat.id)
            self.query_one(ContentSwitcher).current = "conversation" if self.shown_turns else "welcome"
        self._situation_changed()

    def _as_told(self, turn: Turn) -> Turn:
        """A running answer with what was told of its drivers, of which the store may not know yet."""
        progress = self.running.by_chat.get(turn.message.chat_id)
        if progress is None or progress.message_id != turn.message.id or not progress.parts:
            return turn
        facts = turn.message.facts or AnswerFacts()
        first = progress.parts[0].at
        parts = (*(part for part in facts.drivers if part.at < first), *progress.parts)
        told = msgspec.structs.replace(facts, drivers=parts)
        return Turn(msgspec.structs.replace(turn.message, facts=told), turn.sibling_ids)

    def _tell_wait(self, chat_id: str) -> None:
        """Say what the chat's running answer waits for, if its driver does not get on."""
        progress = self.running.by_chat.get(chat_id)
        if progress is not None and progress.waits is not None:
            passed = max(0.0, self.app.clock() - progress.waits.since_ms / 1000)
            self.conversation.set_driver_wait(progress.message_id, progress.waits, passed)

    def _paint_running(self) -> None:
        self.chat_list.show_busy(self.running.by_chat)
        self._paint_status()
        self.refresh_bindings()

    def _paint_status(self) -> None:
        if not self.query(StatusBar):
            return
        self._painted_at = monotonic()
        mine = self.running.by_chat.get(self.chat.id) if self.chat is not None else None
        opening = ""
        if not self.app.opened and not self.app.problem:
            opening = f"{self.app.lost}: taking over" if self.app.lost else "opening your chats"
            if self._waiting is not None:
                opening += ", then your message is sent"
        model = self._model()
        label = model.label if model is not None else model_label(self._model_name())
        here = self.driver.kind == "local"
        status = Status(
            engine=self._engine if here else self._driver_status(answering=mine is not None),
            model=label if here else driver_words(self.driver, self._who_answers()),
            opening=opening,
            problem=self.app.problem,
            attached_to=self.app.attached_to,
            answering=mine is not None,
            waits=mine.waits if mine is not None else None,
            prompt_read=mine.prompt_read if mine is not None else None,
            n_out=mine.n_out if mine is not None else 0,
            rate=mine.rate if mine is not None else None,
            elsewhere=len(self.running) - (mine is not None),
            spent_today=self.bound.spent_today if self.bound is not None else 0,
            flash=self._flash,
            network=self._network,
            role=self.app.provider_mode.role,
            pull=self.app.pulls.running.short if self.app.pulls.running is not None else "",
            gateway=self.app.node.gateway.address if self.app.opened else "",
        )
        self.query_one(StatusBar).status = status
        self.query_one(ModelCard).card = self._card()

    def _driver_status(self, *, answering: bool) -> EngineStatus:
        """That of a driver on the network, in the place of the engine's, which has no part in its answers."""
        wrong = "" if answering else trouble(self.driver)
        if not wrong:
            return EngineStatus("ready")
        who = self.driver.name if self.driver.kind == "node" else "Whoever infraxa chooses"
        return EngineStatus("failed", error=ErrorInfo("no_driver", f"{who} {wrong}: {remedy(self.driver)}."))

    def _model_name(self) -> str:
        options = self.chat.options if self.chat is not None else self._options
        return options.model or self.app.settings.model

    def _model(self) -> ModelEntry | None:
        name = self._model_name()
        return next((entry for entry in self._models if entry.name == name), None)

    def _wanted_driver(self) -> tuple[str, str | None]:
        """The driver of the shown chat, or of the one that begins, and its model, as they are chosen."""
        options = self.chat.options if self.chat is not None else self._options
        return options.driver or self.app.settings.driver, options.driver_model

    def _paint_driver(self) -> None:
        """Show who answers what is sent next, and how that driver is."""
        if not self.query(StatusBar):
            return
        before, (wanted, model) = self.driver, self._wanted_driver()
        names = names_in(turn.message for turn in self.shown_turns) if wanted != LOCAL else {}
        online = not self.app.opened or self._network.activity not in ("off", "closing")
        self.driver = driver = find_driver(wanted, model, self._offers, names, online=online)
        if driver != before or not self.prompt.has_where:
            self.prompt.set_where(where_to(driver), leaves=driver.kind != "local")
            self.query_one(Welcome).driver = driver
        self._paint_status()
        if (driver.kind, driver.id, driver.model_id) != (before.kind, before.id, before.model_id):
            self._driver_changed()

    def _driver_changed(self) -> None:
        """Another driver is the one to show."""

    def _card(self) -> Card:
        if self.driver.kind != "local":
            return Card(
                driver=self.driver, who=self._who_answers(), last=self._last_facts(), bound=self.bound
            )
        entry = self._model()
        if entry is None:
            return Card(label=model_label(self._model_name()))
        loaded = self._engine.loaded
        n_ctx = loaded.n_ctx if loaded is not None and loaded.path == entry.path else entry.context_length
        return Card(
            label=entry.label,
            builtin=entry.builtin,
            architecture=entry.architecture,
            parameters=entry.parameters,
            size=entry.size,
            quantization=entry.quantization,
            license=entry.license,
            n_ctx=n_ctx,
            last=self._last_facts(),
            problem=entry.problem,
        )

    def _who_answers(self) -> str:
        """Who on the network answers in the shown chat now, or did last; empty: nobody yet."""
        mine = self.running.by_chat.get(self.chat.id) if self.chat is not None else None
        facts = self._last_facts() if mine is None else None
        parts = mine.parts if mine is not None else facts.drivers if facts is not None else ()
        return driver_name(parts[-1]) if parts and parts[-1].id else ""

    def _last_facts(self) -> AnswerFacts | None:
        """Of the newest answer of the shown chat."""
        facts = (turn.message.facts for turn in reversed(self.shown_turns) if turn.message.facts is not None)
        return next(facts, None)

    def _paint_model(self) -> None:
        entry = self._model()
        self.query_one(Welcome).builtin = entry is None or entry.builtin
        self._paint_driver()

    def role_changed(self) -> None:
        """Provider mode or the gateway is another one."""
        self._paint_status()

    def pull_changed(self) -> None:
        """A download came further, or ended."""
        self._paint_status()

    def model_changed(self) -> None:
        """Another model is the default."""
        self._paint_model()

    def _painted(self) -> None:
        """The shown chat is another one."""
        self.chat_list.current = self.chat.id if self.chat is not None else None
        self._paint_title()
        self._paint_model()
        self._situation_changed()

    def _paint_title(self) -> None:
        title = one_line(self.chat.title) if self.chat is not None else ""
        self.query_one("#title", Static).update(title)
        self.app.show_title(f"{title} · infraxa" if title else "infraxa")

    def flash(self, text: str) -> None:
        """Show a word in the status bar for a moment."""
        self._flash = text
        self._paint_status()

        def end() -> None:
            if self._flash == text:
                self._flash = ""
                self._paint_status()

        self.set_timer(FLASH, end)

    def situation(self) -> actions.Situation:
        """What decides which actions are possible."""
        answers = [turn.message for turn in self.shown_turns if turn.message.role == "assistant"]
        return actions.Situation(
            opened=self.app.opened,
            stranded=bool(self.app.problem),
            chat=self.chat is not None,
            chats=bool(self._chats),
            answered=bool(answers),
            answering=self.chat is not None and self.chat.id in self.running,
            continuable=bool(answers) and (can_continue(answers[-1]) or can_move(answers[-1])),
            ratable=any(can_rate(answer) for answer in answers),
            auditable=any(can_audit(answer) for answer in answers),
            deleted=bool(self._deleted),
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = actions.BY_METHOD.get(action)
        if known is None:
            return super().check_action(action, parameters)
        if action == "undo_delete" and not parameters and self._text_at_delete != self.prompt.text:
            return False
        return known.enabled(self.situation())

    def _situation_changed(self) -> None:
        self._offer_commands()
        self._paint_status()
        self.refresh_bindings()

    def _offer_commands(self) -> None:
        self.prompt.set_commands(
            [
                SlashCommand(action.slash, action.title, action.argument)
                for action in actions.possible(self.situation())
                if action.slash
            ]
        )
