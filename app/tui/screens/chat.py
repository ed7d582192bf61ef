"""The chat view: the chats, the conversation and the prompt, and who answers.

It asks Node and shows what Node says; it owns no state that the store has. What is typed before the store is
open is kept, and sent when it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Input, Static

from infraxa.app.errors import NodeError
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerStarted,
    BranchChanged,
    ChatsChanged,
    EngineChanged,
    Event,
    ModelsChanged,
    PromptRead,
)
from infraxa.app.tui import actions
from infraxa.app.tui.running import RunningAnswers
from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.chat_list import UNTITLED, ChatList
from infraxa.app.tui.widgets.facts import can_continue, model_label
from infraxa.app.tui.widgets.model_card import Card, ModelCard
from infraxa.app.tui.widgets.prompt import Prompt, SlashCommand
from infraxa.app.tui.widgets.status_bar import Status, StatusBar
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.welcome import Question, Welcome
from infraxa.engine.types import EngineError, EngineStatus
from infraxa.store.records import Chat, ChatOptions, ChatSummary, Message, StoreError, Turn

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry
    from infraxa.app.node import Node
    from infraxa.app.tui.app import InfraxaApp
    from infraxa.app.tui.widgets.conversation import Conversation

DRAFT_AFTER = 1.0
"""Seconds without typing after which what is typed is kept."""
PAINT_STATUS = 0.25
"""Seconds between two paintings of the speed of a running answer."""
FLASH = 3.0


class _Partials(Mapping[str, str]):
    """The text so far of running answers, read at the moment a widget is made for one."""

    def __init__(self, node: Node) -> None:
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


class ChatScreen(Screen[None]):
    """The chat view."""

    app: InfraxaApp
    AUTO_FOCUS = "#prompt PromptArea"
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("chat"),
        Binding("escape", "back", "Back to the prompt", show=False),
    ]

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
        self._waiting: tuple[str, str | None] | None = None
        """What was sent before it could be."""
        self._deleted: list[str] = []
        """Deleted chats that can be brought back, the last one at the end."""
        self._undo_by_key = False
        """ctrl+z brings the chat back: nothing was typed since it was deleted."""
        self._showing = asyncio.Lock()
        self._draft_timer: Timer | None = None
        self._painted_at = 0.0
        self._flash = ""
        self._engine = EngineStatus()
        self.settled = False
        """What there was at the start is shown."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            with Vertical(id="side"):
                with Horizontal(id="brand"):
                    yield Static("infraxa", id="brand-name")
                    yield Static("+ new", id="brand-new")
                yield SearchBox(placeholder="Search chats", id="search", compact=True)
                yield ChatList(id="chats")
            with Vertical(id="main"):
                yield Static("", id="title", markup=False)
                with ContentSwitcher(id="pages", initial="welcome"):
                    yield Welcome(id="welcome")
                yield Prompt(id="prompt", send_key=self.app.settings.send_key)
            yield ModelCard(id="card")
        yield StatusBar([a for a in actions.ACTIONS if a.hint], id="status")
        yield Static("", id="too-small", markup=False)

    # Parts.

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
    def node(self) -> Node:
        return self.app.node

    def on_mount(self) -> None:
        self._offer_commands()
        self._paint_status()
        self.watch(self.prompt.area, "selection", self._typed, init=False)
        self.call_after_refresh(self.app.begin)

    def on_resize(self) -> None:
        width, height = self.size
        if width < 32 or height < 8:
            self.query_one("#too-small", Static).update(
                f"infraxa needs a terminal of 32×8; this one is {width}×{height}."
            )

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
        last = await self.node.last_chat_id()
        if self._waiting is not None:
            text, editing = self._waiting
            self._waiting = None
            await self._send(text, editing)
        elif last is not None and any(chat.id == last for chat in self._chats) and not self.prompt.text:
            await self.open_chat(last)
        self._situation_changed()
        self.settled = True

    # What Node says.

    def hear(self, event: Event) -> None:
        """Take one event of Node's, at once."""
        self.running.take(event)
        match event:
            case AnswerGrew():
                if self._shows(event.chat_id):
                    self.conversation.grow(event.message_id, event.text)
                    if monotonic() - self._painted_at >= PAINT_STATUS or event.n_out <= 1:
                        self._paint_status()
            case PromptRead():
                if self._shows(event.chat_id):
                    self.conversation.set_progress(event.message_id, event.done, event.total)
                    self._paint_status()
            case AnswerStarted() | BranchChanged():
                if self._shows(event.chat_id):
                    self.call_next(self._show_branch)
                self._paint_running()
            case AnswerEnded():
                self.call_next(self._answer_ended, event.message)
                self._paint_running()
            case ChatsChanged():
                self.run_worker(self._list_chats(), group="list", exclusive=True)
            case ModelsChanged():
                self.run_worker(self._list_models(), group="models", exclusive=True)
            case EngineChanged():
                self._engine = event.status
                self._paint_engine()
            case _:
                return

    def _shows(self, chat_id: str) -> bool:
        return self.chat is not None and self.chat.id == chat_id

    async def _show_branch(self) -> None:
        """Show the turns of the chat as the store has them."""
        async with self._showing:
            chat = self.chat
            if chat is None or not self.app.opened:
                return
            self.shown_turns = await self.node.branch(chat.id)
            if self.chat is not chat:
                return
            await self.conversation.show(self.shown_turns, streaming=_Partials(self.node))
            self.query_one(ContentSwitcher).current = "conversation" if self.shown_turns else "welcome"
        self._situation_changed()

    async def _answer_ended(self, message: Message) -> None:
        if self._shows(message.chat_id):
            async with self._showing:
                await self.conversation.finish(message)
                self.shown_turns = [
                    Turn(message, turn.sibling_ids) if turn.message.id == message.id else turn
                    for turn in self.shown_turns
                ]
            self._situation_changed()
        if not self.app.app_focus:
            self.app.bell()
            self.app.show_title("● answered · infraxa")

    def _paint_engine(self) -> None:
        waiting = self._engine.state != "ready"
        if (
            self.chat is not None
            and waiting
            and (progress := self.running.by_chat.get(self.chat.id)) is not None
        ):
            percent = f" {self._engine.progress:.0%}" if self._engine.progress is not None else ""
            self.conversation.set_waiting(progress.message_id, f"waiting for the model to load{percent}")
        self._paint_status()

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
        if not self.app.opened:
            opening = "opening your chats" + (
                ", then your message is sent" if self._waiting is not None else ""
            )
        model = self._model()
        status = Status(
            engine=self._engine,
            model=model.label if model is not None else model_label(self._model_name()),
            opening=opening,
            answering=mine is not None,
            prompt_read=mine.prompt_read if mine is not None else None,
            n_out=mine.n_out if mine is not None else 0,
            rate=mine.rate if mine is not None else None,
            elsewhere=len(self.running) - (mine is not None),
            flash=self._flash,
        )
        self.query_one(StatusBar).status = status
        self.query_one(ModelCard).card = self._card()

    def _model_name(self) -> str:
        options = self.chat.options if self.chat is not None else self._options
        return options.model or self.app.settings.model

    def _model(self) -> ModelEntry | None:
        name = self._model_name()
        return next((entry for entry in self._models if entry.name == name), None)

    def _card(self) -> Card:
        entry = self._model()
        if entry is None:
            return Card(label=model_label(self._model_name()))
        loaded = self._engine.loaded
        n_ctx = loaded.n_ctx if loaded is not None and loaded.path == entry.path else entry.context_length
        facts = (turn.message.facts for turn in reversed(self.shown_turns) if turn.message.facts is not None)
        return Card(
            label=entry.label,
            builtin=entry.builtin,
            architecture=entry.architecture,
            parameters=entry.parameters,
            size=entry.size,
            quantization=entry.quantization,
            license=entry.license,
            n_ctx=n_ctx,
            last=next(facts, None),
            problem=entry.problem,
        )

    def flash(self, text: str) -> None:
        """Show a word in the status bar for a moment."""
        self._flash = text
        self._paint_status()

        def end() -> None:
            if self._flash == text:
                self._flash = ""
                self._paint_status()

        self.set_timer(FLASH, end)

    # What is possible.

    def situation(self) -> actions.Situation:
        """What decides which actions are possible."""
        answers = [turn.message for turn in self.shown_turns if turn.message.role == "assistant"]
        return actions.Situation(
            opened=self.app.opened,
            chat=self.chat is not None,
            chats=bool(self._chats),
            answered=bool(answers),
            answering=self.chat is not None and self.chat.id in self.running,
            continuable=bool(answers) and can_continue(answers[-1]),
            deleted=bool(self._deleted),
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = actions.BY_METHOD.get(action)
        if known is None:
            return super().check_action(action, parameters)
        if action == "undo_delete" and not self._undo_by_key and not parameters:
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

    # The list.

    async def _list_chats(self) -> None:
        self._chats = await self.node.list_chats()
        if self.chat is not None:
            known = next((chat for chat in self._chats if chat.id == self.chat.id), None)
            if known is not None and known.title != self.chat.title:
                self.chat = await self.node.get_chat(self.chat.id)
        self._paint_title()
        await self._search()
        self._situation_changed()

    async def _list_models(self) -> None:
        self._models = await self.node.list_models()
        self._paint_model()

    def _paint_model(self) -> None:
        entry = self._model()
        self.query_one(Welcome).builtin = entry is None or entry.builtin
        self._paint_status()

    def model_changed(self) -> None:
        """Another model is the default."""
        self._paint_model()

    async def _search(self) -> None:
        words = self.query_one(SearchBox).value.strip()
        chats = self.chat_list
        if words:
            hits = await self.node.search(words)
            if words == self.query_one(SearchBox).value.strip():
                chats.show_hits(hits, words)
        else:
            chats.show_chats(self._chats, int(self.app.clock() * 1000))
        chats.show_busy(self.running.by_chat)
        chats.current = self.chat.id if self.chat is not None else None

    @on(SearchBox.Changed, "#search")
    def _search_changed(self, event: SearchBox.Changed) -> None:
        if self.app.opened:
            self.run_worker(self._search(), group="search", exclusive=True)

    @on(SearchBox.Submitted, "#search")
    def _search_submitted(self) -> None:
        self.chat_list.focus()
        self.chat_list.action_open()

    def action_search_chats(self, words: str = "") -> None:
        self._open_side()
        box = self.query_one(SearchBox)
        if words:
            box.value = words
        box.focus()

    def action_close_search(self) -> None:
        self.query_one(SearchBox).value = ""
        self.action_back()

    def action_focus_chats(self) -> None:
        self.chat_list.focus()

    def _open_side(self) -> None:
        self.remove_class("-list-closed")
        self.add_class("-drawer")

    def action_toggle_chats(self) -> None:
        """Show or hide the list: beside the conversation, or over it where there is no room."""
        if self.has_class("-narrow") or self.has_class("-too-narrow"):
            self.toggle_class("-drawer")
            shown = self.has_class("-drawer")
        else:
            self.toggle_class("-list-closed")
            shown = not self.has_class("-list-closed")
        if shown:
            self.chat_list.focus()
        else:
            self.prompt.focus()

    def action_back(self) -> None:
        """Back to the prompt; the drawer closes."""
        self.remove_class("-drawer")
        self.prompt.focus()

    @on(ChatList.Opened)
    async def _row_opened(self, event: ChatList.Opened) -> None:
        self.app.attempt(self.open_chat(event.chat_id), group="open chat", exclusive=True)
        self.action_back()

    @on(ChatList.DeleteRequested)
    def _row_deleted(self, event: ChatList.DeleteRequested) -> None:
        self.app.attempt(self._delete(event.chat_id))

    def on_click(self, event: object) -> None:
        if getattr(getattr(event, "widget", None), "id", None) == "brand-new":
            self.action_new_chat()

    def _target(self) -> str | None:
        """The chat that rename and delete mean: the one under the cursor of the list, else the shown one."""
        row = self.chat_list.highlighted
        if self.chat_list.has_focus and row is not None:
            return row.chat_id
        return self.chat.id if self.chat is not None else None

    # Chats.

    async def open_chat(self, chat_id: str) -> None:
        """Show this chat, with what was typed in it and not sent."""
        if self._shows(chat_id):
            return
        await self.keep_draft()
        chat = await self.node.get_chat(chat_id)
        self.prompt.cancel()
        self.chat = chat
        self.prompt.text = chat.draft
        self._painted()
        await self._show_branch()
        await self.node.remember_last_chat(chat_id)

    def action_new_chat(self) -> None:
        """An empty conversation; it is kept from its first message on."""
        self.app.attempt(self._new_chat(), group="open chat", exclusive=True)

    async def _new_chat(self) -> None:
        await self.keep_draft()
        self.prompt.cancel()
        if self.chat is not None:
            self.prompt.text = ""
        self._forget_chat()
        self.action_back()

    def _forget_chat(self) -> None:
        self.chat = None
        self.shown_turns = []
        self._options = ChatOptions()
        self.query_one(ContentSwitcher).current = "welcome"
        self._painted()

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

    async def keep_draft(self) -> None:
        """Keep what is typed and not sent, also when the conversation is new."""
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        if not self.app.opened or self.prompt.editing is not None:
            return
        text = self.prompt.text
        if self.chat is None and text.strip():
            chat = await self.node.create_chat()
            await self.node.save_draft(chat.id, text)
            await self.node.remember_last_chat(chat.id)
        elif self.chat is not None:
            await self.node.save_draft(self.chat.id, text)

    def _typed(self) -> None:
        self._undo_by_key = False
        if self._draft_timer is not None:
            self._draft_timer.reset()
        elif self.chat is not None:
            self._draft_timer = self.set_timer(DRAFT_AFTER, self._keep_draft_later)

    def _keep_draft_later(self) -> None:
        self._draft_timer = None
        if self.chat is not None:
            self.app.attempt(self.keep_draft(), group="draft")

    def action_next_chat(self) -> None:
        self._step(1)

    def action_previous_chat(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        ids = [chat.id for chat in self._chats]
        if not ids:
            return
        index = ids.index(self.chat.id) + by if self.chat is not None and self.chat.id in ids else 0
        if 0 <= index < len(ids):
            self.app.attempt(self.open_chat(ids[index]), group="open chat", exclusive=True)

    def action_rename_chat(self, title: str = "") -> None:
        chat_id = self._target()
        if chat_id is None:
            return
        if title:
            self.app.attempt(self.node.rename_chat(chat_id, title))
            return
        from infraxa.app.tui.screens.dialogs import Ask

        old = next((chat.title for chat in self._chats if chat.id == chat_id), "")

        def named(title: str | None) -> None:
            if title:
                self.app.attempt(self.node.rename_chat(chat_id, title))

        self.app.push_screen(
            Ask("Rename the chat", one_line(old), placeholder="Title", accept="Rename"), named
        )

    def action_delete_chat(self) -> None:
        if (chat_id := self._target()) is not None:
            self.app.attempt(self._delete(chat_id))

    async def _delete(self, chat_id: str) -> None:
        title = next((chat.title for chat in self._chats if chat.id == chat_id), "")
        await self.node.delete_chat(chat_id)
        self._deleted.append(chat_id)
        self._undo_by_key = True
        if self._shows(chat_id):
            self.prompt.text = ""
            self._forget_chat()
        self.app.notify(
            f"“{one_line(title, 40) or UNTITLED}” is deleted · ctrl+z undoes", timeout=8, markup=False
        )
        self._undo_by_key = True

    def action_undo_delete(self) -> None:
        if self._deleted:
            self.app.attempt(self._undo(self._deleted.pop()))

    async def _undo(self, chat_id: str) -> None:
        self._undo_by_key = bool(self._deleted)
        await self.node.restore_chat(chat_id)
        self.app.clear_notifications()
        await self.open_chat(chat_id)

    def action_chat_options(self) -> None:
        from infraxa.app.tui.screens.chat_options import ChatOptionsScreen

        options = self.chat.options if self.chat is not None else self._options

        def chosen(new: ChatOptions | None) -> None:
            if new is not None and new != options:
                self.app.attempt(self._set_options(new))

        self.app.push_screen(ChatOptionsScreen(options, self._models, self.app.settings), chosen)

    async def _set_options(self, options: ChatOptions) -> None:
        if self.chat is None:
            self._options = options
        else:
            await self.node.set_chat_options(self.chat.id, options)
            self.chat = await self.node.get_chat(self.chat.id)
        self._paint_model()

    def action_export_chat(self, path: str = "") -> None:
        if self.chat is None:
            return
        from infraxa.app.tui.export import check_target, default_target, write

        chat = self.chat

        async def export(target: str) -> None:
            text = await self.node.export_markdown(chat.id)
            written = await asyncio.to_thread(write, Path(target), text)
            self.flash(f"written to {written}")

        def chosen(target: str | None) -> None:
            if target:
                self.app.attempt(export(target))

        if path and not check_target(path):
            self.app.attempt(export(path))
            return
        from infraxa.app.tui.screens.dialogs import Ask

        self.app.push_screen(
            Ask(
                "Export the chat to Markdown",
                path or str(default_target(one_line(chat.title))),
                placeholder="File",
                accept="Write",
                check=check_target,
            ),
            chosen,
        )

    # Talking.

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        if not self.app.opened:
            self._waiting = (event.text, event.editing)
            self._paint_status()
            return
        self.app.attempt(self._send(event.text, event.editing), group="send")

    @on(Question.Asked)
    def _asked(self, event: Question.Asked) -> None:
        event.stop()
        self.post_message(Prompt.Submitted(event.text, None))
        self.prompt.focus()

    async def _send(self, text: str, editing: str | None) -> None:
        try:
            if editing is not None:
                await self.node.edit(editing, text)
                return
            if self.chat is None:
                chat = await self.node.create_chat()
                if self._options != ChatOptions():
                    await self.node.set_chat_options(chat.id, self._options)
                    chat = await self.node.get_chat(chat.id)
                self.chat = chat
                await self.node.remember_last_chat(chat.id)
                self._painted()
            await self.node.send(self.chat.id, text)
        except (NodeError, EngineError, StoreError):
            self.prompt.put_back(text, editing)
            raise

    @on(Prompt.CommandEntered)
    async def _command(self, event: Prompt.CommandEntered) -> None:
        action = actions.BY_SLASH.get(event.name)
        if action is not None:
            await self.app.action_perform(action.id, event.argument)

    def action_stop(self) -> None:
        if self.chat is not None:
            self.app.attempt(self.node.stop(self.chat.id))

    def _last(self, role: str) -> Message | None:
        return next((turn.message for turn in reversed(self.shown_turns) if turn.message.role == role), None)

    def action_regenerate(self) -> None:
        if (answer := self._last("assistant")) is not None:
            self.app.attempt(self.node.regenerate(answer.id), group="send")

    def action_continue(self) -> None:
        if (answer := self._last("assistant")) is not None:
            self.app.attempt(self.node.continue_answer(answer.id), group="send")

    def action_edit_last(self) -> None:
        if (said := self._last("user")) is not None:
            self.prompt.begin_edit(said.id, said.content)

    def action_copy_answer(self) -> None:
        if (answer := self._last("assistant")) is not None:
            self.app.copy(answer.content, "answer")

    async def copy_text(self, text: str, what: str) -> None:
        """Put `text` on the clipboard by whatever works, and say what did."""
        from infraxa.app.tui import clipboard

        copied = await clipboard.copy(text, self.app.copy_to_clipboard)
        self.flash(f"{what} copied ({copied.way}). {copied.note}".rstrip())

    @on(requests.CopyRequested)
    def _copy_requested(self, event: requests.CopyRequested) -> None:
        self.app.copy(event.text, event.what)

    @on(requests.RegenerateRequested)
    def _regenerate_requested(self, event: requests.RegenerateRequested) -> None:
        self.app.attempt(self.node.regenerate(event.message_id), group="send")

    @on(requests.DropOldestRequested)
    def _drop_oldest_requested(self, event: requests.DropOldestRequested) -> None:
        self.app.attempt(self.node.regenerate(event.message_id, drop_oldest=True), group="send")

    @on(requests.ContinueRequested)
    def _continue_requested(self, event: requests.ContinueRequested) -> None:
        self.app.attempt(self.node.continue_answer(event.message_id), group="send")

    @on(requests.VersionRequested)
    def _version_requested(self, event: requests.VersionRequested) -> None:
        self.app.attempt(self.node.select_version(event.message_id), group="send")

    @on(requests.EditRequested)
    def _edit_requested(self, event: requests.EditRequested) -> None:
        self.prompt.begin_edit(event.message_id, event.text)

    @on(requests.StopRequested)
    def _stop_requested(self) -> None:
        self.action_stop()

    @on(requests.PromptRequested)
    def _prompt_requested(self) -> None:
        self.prompt.focus()

    @on(requests.LinkClicked)
    def _link_clicked(self, event: requests.LinkClicked) -> None:
        from infraxa.app.tui.screens.dialogs import Link, may_open, safe_link

        href = safe_link(event.href)
        if not self.app.settings.confirm_links and may_open(href):
            self.app.open_url(href)
            return

        def chosen(what: str | None) -> None:
            if what == "open":
                self.app.open_url(href)
            elif what == "copy":
                self.app.copy(href, "link")

        self.app.push_screen(Link(href), chosen)
