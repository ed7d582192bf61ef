"""Every action of the app, once: keys, palette, slash commands, hints and the help come from here.

What an action does is a method `action_<method>` of the app or of the chat screen; here is only what people
see of it, where it works, and when it is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from textual.binding import Binding

Scope = Literal["app", "chat"]
"""Where an action works: everywhere, or in the chat view. Also whose method it is."""


class Situation(msgspec.Struct, frozen=True):
    """What is possible now depends on these facts."""

    opened: bool = False
    """The store is open."""
    chat: bool = False
    """The shown conversation is kept (an empty one is not, until its first message)."""
    chats: bool = False
    """There are chats in the list."""
    answered: bool = False
    """The conversation holds an answer."""
    answering: bool = False
    """The shown conversation is being answered."""
    continuable: bool = False
    """The last answer ended before its end."""
    ratable: bool = False
    """One of its answers can be rated."""
    auditable: bool = False
    """One of its answers can be audited."""
    stranded: bool = False
    """There is no node, and nothing is being done about it."""
    deleted: bool = False
    """A chat was deleted and can be brought back."""


def _always(_: Situation) -> bool:
    return True


class Action(msgspec.Struct, frozen=True):
    """One thing a person can do."""

    id: str
    title: str
    help: str
    """One sentence."""
    method: str
    key: str = ""
    """Keys, separated by commas, as Textual names them. The first is shown."""
    scope: Scope = "chat"
    slash: str = ""
    """Its name after `/` in the prompt."""
    argument: str = ""
    """What may follow the slash name; empty = nothing."""
    enabled: Callable[[Situation], bool] = _always
    priority: bool = True
    """The key works while text is being edited too. False: what is being edited comes first."""


ACTIONS: tuple[Action, ...] = (
    Action(
        "chat.new", "New chat", "Begin an empty conversation.", "new_chat", "ctrl+n",
        slash="new",
    ),
    Action(
        "answer.stop", "Stop the answer", "End it now; what was said stays.", "stop", "escape",
        slash="stop", enabled=lambda now: now.answering, priority=False,
    ),
    Action(
        "answer.regenerate", "Regenerate", "Answer the last question again, beside the answer that is there.",
        "regenerate", "ctrl+r", slash="retry", enabled=lambda now: now.answered and not now.answering,
    ),
    Action(
        "answer.continue", "Continue the answer", "Go on where the last answer was cut.", "continue", "f5",
        slash="continue", enabled=lambda now: now.continuable and not now.answering,
    ),
    Action(
        "answer.rate", "Rate the answer",
        "1 to 5 stars for its driver: of the focused answer, or the last. 4 named says whose they are.",
        "rate", slash="rate", argument="stars", enabled=lambda now: now.ratable,
    ),
    Action(
        "answer.audit", "Audit this answer",
        "Was it the model that was sold? Within an hour of the answer, and while infraxa stays open.",
        "audit", slash="audit", enabled=lambda now: now.auditable,
    ),
    Action(
        "message.edit", "Edit the last message", "Change what you said last and have it answered again.",
        "edit_last", "f4", slash="edit", enabled=lambda now: now.chat and not now.answering,
    ),
    Action(
        "answer.copy", "Copy the last answer", "Copy its Markdown to the clipboard.", "copy_answer", "f3",
        slash="copy", enabled=lambda now: now.answered,
    ),
    Action(
        "chat.search", "Search chats", "Find chats by their title and by what was said.",
        "search_chats", "ctrl+f", slash="search", argument="words", enabled=lambda now: now.opened,
    ),
    Action(
        "chat.list", "Show or hide the chats", "The list on the left.", "toggle_chats", "ctrl+b",
        slash="chats",
    ),
    Action(
        "chat.next", "Next chat", "Open the chat below in the list.", "next_chat", "alt+down",
        enabled=lambda now: now.chats,
    ),
    Action(
        "chat.previous", "Previous chat", "Open the chat above in the list.", "previous_chat", "alt+up",
        enabled=lambda now: now.chats,
    ),
    Action(
        "chat.rename", "Rename the chat", "Give it another title.", "rename_chat", "f2",
        slash="rename", argument="title", enabled=lambda now: now.chat or now.chats,
    ),
    Action(
        "chat.options", "Options of this chat", "Its driver, model, system prompt and sampling.",
        "chat_options", "ctrl+t", slash="options", enabled=lambda now: now.opened,
    ),
    Action(
        "chat.driver", "Driver of this chat", "This machine answers, whoever infraxa chooses, or a provider.",
        "driver", "alt+d", slash="driver", argument="words", enabled=lambda now: now.opened,
    ),
    Action(
        "chat.export", "Export the chat", "Write it to a Markdown file.", "export_chat", "ctrl+s",
        slash="export", argument="file", enabled=lambda now: now.chat,
    ),
    Action(
        "chat.delete", "Delete the chat", "It can be brought back.", "delete_chat", "f8",
        slash="delete", enabled=lambda now: now.chat or now.chats,
    ),
    Action(
        "chat.undo_delete", "Undo delete", "Bring the deleted chat back.", "undo_delete", "ctrl+z",
        slash="undo", enabled=lambda now: now.deleted,
    ),
    Action(
        "app.chat", "Chat", "The conversations; Esc leads back to them too.", "chat", "alt+c", "app",
        slash="chat",
    ),
    Action(
        "app.market", "Market", "Who offers which model; choose who answers the chat.", "market", "alt+m",
        "app", slash="market", enabled=lambda now: now.opened,
    ),
    Action(
        "app.provide", "Provide", "Provider mode: who is served, with what, within which limits.", "provide",
        "alt+p", "app", slash="provide", enabled=lambda now: now.opened,
    ),
    Action(
        "provide.toggle", "Provider mode", "Serve this machine's model to others; the same key ends it.",
        "toggle_provider", "f7", "app", slash="serve", enabled=lambda now: now.opened,
    ),
    Action(
        "gateway.toggle", "API gateway", "An OpenAI-compatible API for programs on this machine, on or off.",
        "toggle_gateway", scope="app", slash="gateway", enabled=lambda now: now.opened,
    ),
    Action(
        "app.earnings", "Earnings", "What came in and went out, tabs with limits, receipts.", "earnings",
        "alt+e", "app", slash="earnings", enabled=lambda now: now.opened,
    ),
    Action(
        "app.network", "Network", "Peers, links, reachability, what was refused.", "network", "alt+n", "app",
        slash="network", enabled=lambda now: now.opened,
    ),
    Action(
        "app.next_view", "Next view", "From one full-screen view to the next.", "next_view", "ctrl+g", "app",
        enabled=lambda now: now.opened,
    ),
    Action(
        "network.invite", "Invite a node", "Make a text with which another node finds this one.", "invite",
        scope="app", slash="invite", enabled=lambda now: now.opened,
    ),
    Action(
        "network.join", "Join with an invite", "Connect to the node that made it.", "join",
        scope="app", slash="join", argument="invite", enabled=lambda now: now.opened,
    ),
    Action(
        "app.models", "Models", "Choose the model that answers, add one, remove one.", "models", "ctrl+o",
        "app", slash="models", enabled=lambda now: now.opened,
    ),
    Action(
        "app.pull", "Pull a model…", "Download one from the hub: of a short list, or by its name.",
        "pull_model", scope="app", slash="pull", argument="name", enabled=lambda now: now.opened,
    ),
    Action(
        "app.theme", "Change the theme", "See each as you move through the list.", "themes", "f6", "app",
        slash="theme", argument="name", priority=False,
    ),
    Action(
        "app.settings", "Settings", "Everything that can be set.", "settings", "f9", "app", slash="settings"
    ),
    Action("app.log", "Log", "What llama.cpp and infraxa say.", "log", "ctrl+l", "app", slash="log"),
    Action("app.help", "Help", "Keys and commands.", "help", "f1", "app", slash="help"),
    Action(
        "app.palette", "Command palette", "Every action, theme, chat and model by name.",
        "command_palette", "ctrl+p", "app", slash="commands",
    ),
    Action(
        "app.reopen", "Open again", "Try again to take over what another infraxa had open.", "reopen", "f12",
        "app", slash="reopen", enabled=lambda now: now.stranded,
    ),
    Action(
        "app.quit", "Quit", "Running answers are kept as far as they are.", "quit", "ctrl+q", "app",
        slash="quit",
    ),
)  # fmt: skip

HINTS = {
    "app.help": "help",
    "app.palette": "commands",
    "chat.new": "new",
    "chat.list": "chats",
    "app.models": "models",
}
"""What the status bar says of actions, by id; what comes first is shown where room is short."""

VIEWS = ("app.chat", "app.market", "app.provide", "app.earnings", "app.network")
"""The actions that lead to the full-screen views, in the order of their tabs."""

BY_ID = {action.id: action for action in ACTIONS}
BY_METHOD = {action.method: action for action in ACTIONS}
BY_SLASH = {action.slash: action for action in ACTIONS if action.slash}


def bindings(scope: Scope) -> list[Binding]:
    """The key bindings of a scope. Each has the action's id, by which a keymap can give it another key."""
    return [
        Binding(
            action.key,
            action.method,
            action.title,
            show=action.id in HINTS,
            priority=action.priority,
            tooltip=action.help,
            id=action.id,
        )
        for action in ACTIONS
        if action.scope == scope and action.key
    ]


def possible(situation: Situation) -> list[Action]:
    """The actions that can be done now."""
    return [action for action in ACTIONS if action.enabled(situation)]


_KEY_NAMES = {"escape": "Esc", "enter": "Enter", "up": "↑", "down": "↓", "pageup": "PgUp", "pagedown": "PgDn"}


def key_label(keys: str) -> str:
    """The first of the keys as people write it: `ctrl+N` is `ctrl+n`, `f1` is `F1`."""
    parts = keys.split(",")[0].split("+")
    last = parts[-1]
    if last[:1] == "f" and last[1:].isdigit():
        last = last.upper()
    return "+".join([*parts[:-1], _KEY_NAMES.get(last, last)])


def slash_help(actions: Iterable[Action]) -> list[tuple[str, str]]:
    """Name and title of each slash command, for the prompt's completion."""
    return [(action.slash, action.title) for action in actions if action.slash]
