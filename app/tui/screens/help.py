"""The help: every action with its key and slash command, from the registry, and the keys of the parts."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

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
    ("alt+a", "select all"),
    ("Esc", "cancel editing, stop the answer"),
    ("ctrl+c", "copy what is selected; twice without a selection: quit"),
)
MESSAGE_KEYS = (
    ("Tab, shift+Tab", "from the prompt to the messages and back"),
    ("↑ ↓, k j", "from message to message"),
    ("← →, h l", "other versions of a message"),
    ("y, Y", "copy the message, its last code block"),
    ("1 – 5", "rate the answer of a driver; the stars under it can be clicked"),
    ("v", "audit the answer of a driver, within an hour of it and while infraxa stays open"),
    ("End", "to the newest text, and follow it"),
)
LIST_KEYS = (
    ("↑ ↓ Enter", "choose a chat and open it"),
    ("F2, F8 or Delete", "rename, delete the chat under the cursor"),
)

MODELS_KEYS = (
    ("Enter", "new chats are answered by the model under the cursor"),
    ("p", "pull a model from the hub; there c cancels a download, and Esc lets it go on"),
    ("a, Delete", "add a file, forget the model under the cursor"),
)

MARKET_KEYS = (
    ("Enter", "the provider under the cursor answers the shown chat; so does a double click"),
    ("a, A", "infraxa chooses for each answer; only among those with the model under the cursor"),
    ("l", "this machine answers"),
    ("/", "filter by provider or model; Esc shows all"),
    ("f, o", "only what is free, only who is online"),
    ("m", "only what is not dearer than the setting max_price, when it is set"),
    ("s, S", "sort by the next column, the other way round; ★ is the best first"),
    ("~", "before a number: the provider claims it, nothing was measured here yet"),
    ("p, b", "pin, block the provider; again, or ctrl+z, takes it back"),
    ("y", "copy the id of the provider"),
)

NETWORK_KEYS = (
    ("i, j", "make an invite, join with one"),
    ("Tab, shift+Tab", "from part to part: peers, nodes, refused, this node"),
    ("↑ ↓", "from row to row; below the tables stands all of the row"),
    ("s, S", "sort by the next column, the other way round"),
    ("y, Y", "copy the id under the cursor, this node's own"),
)


PROVIDE_KEYS = (
    ("F7", "provider mode on and off, from everywhere"),
    ("Tab, shift+Tab", "from part to part: requests, why am I not earning?, blocked users, offer"),
    ("Enter", "change the setting under the cursor: prices, limits, hours"),
    ("ctrl+z", "undo the last change of a setting"),
    ("e", "end the request under the cursor"),
    ("b", "block its user; again takes it back"),
    ("y", "copy the user's key"),
    ("s, S", "sort by the next column, the other way round"),
)


EARNINGS_KEYS = (
    ("d", "another time: 7 days, 30 days, 52 weeks"),
    ("Tab, shift+Tab", "from part to part: over time, tabs, receipts, models, peers"),
    ("← →", "in the chart from bar to bar; below stands what it is"),
    ("l", "set how much the user of the tab under the cursor may owe; ctrl+z takes it back"),
    ("t, Enter", "settle the tab under the cursor: by serving back, or as two persons agree"),
    ("⇄", "after a name: you owe that node too, or may, and one can pay the other"),
    ("Enter", "the receipt under the cursor in full, with the counts of both sides"),
    ("e", "write that receipt to a file, which can be checked offline"),
    ("r", "receipts of what was sold, of what was bought, or both"),
    ("y", "copy the id of the peer"),
)


def table(heading: str, rows: Iterable[tuple[str, str, str]], width: int) -> Content:
    """Rows of key, slash command and text, the text wrapped in its own column."""
    key_width, slash_width = (18, 12) if width >= 70 else (14, 0)
    lines = [Content.styled(heading, "bold $text-primary")]
    for key, slash, text in rows:
        room = max(16, width - key_width - slash_width)
        for index, part in enumerate(wrap(text, room) or [""]):
            lines.append(
                Content.assemble(
                    (f"{key if not index else '':<{key_width}}", "$footer-key-foreground"),
                    (f"{slash if not index else '':<{slash_width}}"[:slash_width], "$foreground 60%"),
                    part,
                )
            )
    return Content("\n").join(lines)


def action_rows(scope: actions.Scope) -> list[tuple[str, str, str]]:
    """Key, slash command and sentence of each action of a scope."""
    return [
        (
            actions.key_label(action.key) if action.key else "",
            f"/{action.slash}" if action.slash else "",
            f"{action.title}: {action.help[0].lower()}{action.help[1:]}",
        )
        for action in actions.ACTIONS
        if action.scope == scope
    ]


def sections() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """All of the help: headings and their rows."""
    return [
        ("Writing", [(key, "", text) for key, text in PROMPT_KEYS]),
        ("Chat", action_rows("chat")),
        ("infraxa", action_rows("app")),
        ("Messages", [(key, "", text) for key, text in MESSAGE_KEYS]),
        ("List of chats", [(key, "", text) for key, text in LIST_KEYS]),
        ("Models", [(key, "", text) for key, text in MODELS_KEYS]),
        ("Market", [(key, "", text) for key, text in MARKET_KEYS]),
        ("Provide", [(key, "", text) for key, text in PROVIDE_KEYS]),
        ("Earnings", [(key, "", text) for key, text in EARNINGS_KEYS]),
        ("Network", [(key, "", text) for key, text in NETWORK_KEYS]),
    ]


class HelpScreen(View[None]):
    """Keys and commands."""

    HEADING = "Help"
    KEYS = "↑ ↓ scroll · ctrl+p finds everything by name · Esc closes"

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static("", id="help-text", markup=False)

    def on_resize(self) -> None:
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        width = self.query_one("#help").scrollable_content_region.width
        tables = [table(heading, rows, width) for heading, rows in sections()]
        self.query_one("#help-text", Static).update(Content("\n\n").join(tables))

    DEFAULT_CSS = """
    HelpScreen #help-text { width: 1fr; height: auto; }
    HelpScreen #help { height: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """
