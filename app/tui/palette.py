"""What the command palette finds: every action, theme, chat and model by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import Command, DiscoveryHit, Hit, Hits, Provider
from textual.widgets.option_list import Option

from infraxa.app.sizes import size_text
from infraxa.app.tui import actions
from infraxa.app.tui.screens.chat import ChatScreen
from infraxa.app.tui.widgets.chat_list import UNTITLED
from infraxa.app.tui.widgets.text import one_line

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry
    from infraxa.app.tui.app import InfraxaApp

MAX_CHATS = 50
"""Chats that are listed before anything is typed."""


class ThemeChoice:
    """Choosing a theme: what the palette runs, recognized again when it is highlighted."""

    def __init__(self, app: InfraxaApp, name: str) -> None:
        self.app = app
        self.name = name

    def __call__(self) -> None:
        self.app.choose_theme(self.name)


def theme_of(option: Option) -> str | None:
    """The theme that an option of the palette chooses."""
    command = option.hit.command if isinstance(option, Command) else None
    return command.name if isinstance(command, ThemeChoice) else None


class Entry(NamedTuple):
    """One thing the palette offers."""

    title: str
    run: Callable[[], object]
    help: str


class _Entries(Provider):
    """Offers what `entries` lists; reads nothing while it matches."""

    _listed: list[Entry]

    @property
    def shell(self) -> InfraxaApp:
        return cast("InfraxaApp", self.app)

    async def entries(self) -> list[Entry]:
        """What there is now."""
        raise NotImplementedError

    async def startup(self) -> None:
        self._listed = await self.entries()

    async def discover(self) -> Hits:
        for entry in self._listed:
            yield DiscoveryHit(entry.title, entry.run, help=entry.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for entry in self._listed:
            if (score := matcher.match(entry.title)) > 0:
                yield Hit(score, matcher.highlight(entry.title), entry.run, help=entry.help)


class Themes(_Entries):
    """The themes; each is shown while it is highlighted."""

    async def entries(self) -> list[Entry]:
        return theme_entries(self.shell)


class Everything(_Entries):
    """Actions that are possible now, chats, models, themes."""

    async def entries(self) -> list[Entry]:
        shell = self.shell
        return [
            *action_entries(shell, in_chat=isinstance(self.screen, ChatScreen)),
            *await model_entries(shell),
            *await chat_entries(shell),
            *(Entry(f"Theme: {entry.title}", entry.run, entry.help) for entry in theme_entries(shell)),
        ]


def action_entries(shell: InfraxaApp, *, in_chat: bool) -> list[Entry]:
    """The actions that are possible now; those of the chat view only when it is on top."""
    return [
        Entry(
            _titled(action),
            partial(shell.action_perform, action.id),
            shell.provider_mode.help if action.id == "provide.toggle" else action.help,
        )
        for action in actions.possible(shell.situation())
        if action.method != "command_palette" and (in_chat or action.scope == "app")
    ]


def _titled(action: actions.Action) -> str:
    return f"{action.title}  ({actions.key_label(action.key)})" if action.key else action.title


async def chat_entries(shell: InfraxaApp) -> list[Entry]:
    """The newest chats."""
    if not shell.opened:
        return []

    def open_chat(chat_id: str) -> None:
        shell.action_chat()
        shell.attempt(shell.chat_screen.open_chat(chat_id), group="open chat", exclusive=True)

    return [
        Entry(
            f"Chat: {one_line(chat.title, 80) or UNTITLED}",
            partial(open_chat, chat.id),
            one_line(chat.preview, 80),
        )
        for chat in (await shell.node.list_chats())[:MAX_CHATS]
    ]


async def model_entries(shell: InfraxaApp) -> list[Entry]:
    """The models that can be used."""
    if not shell.opened:
        return []

    def use(name: str) -> None:
        shell.attempt(shell.use_model(name), group="use model", exclusive=True)

    return [
        Entry(f"Model: {one_line(model.label, 80)}", partial(use, model.name), _described(model))
        for model in await shell.node.list_models()
        if not model.problem
    ]


def _described(model: ModelEntry) -> str:
    return " · ".join(
        part for part in (model.architecture, model.quantization, size_text(model.size)) if part
    )


def theme_entries(shell: InfraxaApp) -> list[Entry]:
    """All themes."""
    themes = shell.available_themes
    return [
        Entry(name, ThemeChoice(shell, name), "dark" if themes[name].dark else "light")
        for name in shell.theme_names()
    ]
