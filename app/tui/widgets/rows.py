"""What lists that are painted line by line have in common: a cursor, the row under the mouse, styles.

So thousands of rows cost nothing. Which lines a row has, and what is on them, is decided by each list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style

R = TypeVar("R")


class PaintedRows(ScrollView, Generic[R], can_focus=True):
    """Rows with a cursor, which up, down and the keys of a page move."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("pageup", "move(-10)", "Page up", show=False),
        Binding("pagedown", "move(10)", "Page down", show=False),
        Binding("home", "move(-1000000)", "First", show=False),
        Binding("end", "move(1000000)", "Last", show=False),
    ]

    cursor: reactive[int] = reactive(0)
    hovered: reactive[int | None] = reactive(None)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's
        super().__init__(id=id, classes=classes)
        self._rows: list[R] = []

    @property
    def rows(self) -> Sequence[R]:
        """As they are shown, first to last."""
        return self._rows

    @property
    def highlighted(self) -> R | None:
        """The row under the cursor."""
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def row_at(self, event: events.MouseEvent) -> int | None:
        """The place of the row under the mouse."""
        raise NotImplementedError

    def action_move(self, rows: int) -> None:
        if self._rows:
            self.cursor = min(len(self._rows) - 1, max(0, self.cursor + rows))

    def watch_hovered(self) -> None:
        self.refresh()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hovered = self.row_at(event)

    def on_leave(self) -> None:
        self.hovered = None

    def _strip(self, content: Content, width: int, style: Style) -> Strip:
        """One line, its styles given as component classes or by themselves."""
        segments = [
            Segment(text, (style + own).rich_style)
            for text, own in content.render(style, end="", parse_style=self._parse)
        ]
        return Strip(segments).adjust_cell_length(width, style.rich_style)

    def _parse(self, style: str | Style) -> Style:
        if isinstance(style, Style):
            return style
        if style.startswith("."):
            return self.get_visual_style(style.removeprefix("."), partial=True)
        return Style.parse(style)
