"""The line at the top: the full-screen views, the shown one marked, and the keys of that view."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from infraxa.app.tui.actions import BY_ID, VIEWS


class ViewTabs(Widget):
    """One line. Everything in it can be clicked; the underlined letter with alt is the key of a view."""

    DEFAULT_CSS = """
    ViewTabs {
        height: 1; width: 1fr; background: $panel; padding: 0 1;
        link-style: none; link-color: $foreground 60%; link-background: transparent;
        link-style-hover: none; link-color-hover: $foreground; link-background-hover: $block-hover-background;
    }
    """

    def __init__(self, shown: str, hints: Sequence[tuple[str, str, str]] = ()) -> None:
        """`shown`: the action of the view; `hints`: key, word and action, the most important first."""
        super().__init__()
        self._shown = shown
        self._hints = hints

    def render(self) -> Content:
        width = self.content_size.width
        tabs = Content.styled("infraxa ", "bold $text-primary")
        for action_id in VIEWS:
            title = BY_ID[action_id].title
            tab = Content.assemble(" ", (title[0], "underline"), title[1:], " ")
            if action_id == self._shown:
                tabs += tab.stylize_before("bold $text-primary on $surface")
            else:
                tabs += tab.stylize(Style.from_meta({"@click": f"app.perform({action_id!r})"}))
        hints = Content("")
        for key, word, action in self._hints:
            hint = Content.assemble((key, "$footer-key-foreground"), (f" {word}", "$foreground 60%"))
            hint = hint.stylize(Style.from_meta({"@click": action}))
            longer = hint if not hints else hints + Content("  ") + hint
            if tabs.cell_length + 2 + longer.cell_length > width:
                break
            hints = longer
        return tabs + Content(" " * (width - tabs.cell_length - hints.cell_length)) + hints
