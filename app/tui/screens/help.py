"""The help: every action with its key and slash command, from the registry, and the keys of the parts."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from infraxa.app.tui import actions
from infraxa.app.tui.screens.view import View

PROMPT_KEYS = (
    ("Enter", "send (the setting send_key can make it ctrl+enter)"),
    ("ctrl+j, alt+Enter", "new line, always"),
    ("↑ ↓", "at the first and last line: earlier and later prompts"),
    ("/", "slash commands; // sends a slash"),
    ("Esc", "cancel editing, stop the answer"),
    ("ctrl+c", "copy what is selected; twice without a selection: quit"),
)
MESSAGE_KEYS = (
    ("Tab, shift+Tab", "from the prompt to the messages and back"),
    ("↑ ↓, k j", "from message to message"),
    ("← →, h l", "other versions of a message"),
    ("y, Y", "copy the message, its last code block"),
    ("End", "to the newest text, and follow it"),
)
LIST_KEYS = (
    ("↑ ↓ Enter", "choose a chat and open it"),
    ("F2, F8 or Delete", "rename, delete the chat under the cursor"),
)


def _table(heading: str, rows: Iterable[tuple[str, str, str]]) -> Content:
    lines = [Content.styled(heading, "bold $text-primary")]
    for key, slash, text in rows:
        lines.append(
            Content.assemble((f"{key:<18}", "$footer-key-foreground"), (f"{slash:<12}", "$foreground 60%"), text)
        )
    return Content("\n").join(lines)


def action_rows(scope: actions.Scope) -> list[tuple[str, str, str]]:
    """Key, slash command and sentence of each action of a scope."""
    return [
        (
            actions.key_label(action.key) if action.key else "",
            f"/{action.slash}" if action.slash else "",
            f"{action.title} — {action.help}",
        )
        for action in actions.ACTIONS
        if action.scope == scope
    ]


class HelpScreen(View[None]):
    """Keys and commands."""

    HEADING = "Help"
    KEYS = "↑ ↓ scroll · ctrl+p finds everything by name · Esc closes"

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            for heading, rows in (
                ("Writing", [(key, "", text) for key, text in PROMPT_KEYS]),
                ("Chat", action_rows("chat")),
                ("infraxa", action_rows("app")),
                ("Messages", [(key, "", text) for key, text in MESSAGE_KEYS]),
                ("List of chats", [(key, "", text) for key, text in LIST_KEYS]),
            ):
                yield Static(_table(heading, rows), classes="help-table")

    DEFAULT_CSS = """
    HelpScreen .help-table { width: 1fr; height: auto; margin-bottom: 1; }
    HelpScreen #help { height: 1fr; scrollbar-size-vertical: 1; }
    """
