"""A table that is painted line by line when seen: columns give way to each other, rows keep their cursor.

It shows the rows it is given in the order a person chose. Cells are plain text or Content, never markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import ClassVar

import msgspec
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from infraxa.app.tui.widgets.rows import PaintedRows

GAP = 2
"""Cells between two columns."""

Cell = str | tuple[str, str]
"""A text, or a text and the style (a component class or `bold`) it has."""


class Column(msgspec.Struct, frozen=True):
    """One column."""

    title: str
    width: int
    """The least number of cells it has."""
    grow: int = 0
    """Its share of what is left."""
    right: bool = False
    """Its text stands at the right."""
    from_width: int = 0
    """It is shown in a table of at least so many cells,"""
    below_width: int = 10_000
    """and of fewer than these."""
    tail: int = 0
    """So many characters at the end of its text are never cut."""
    descending: bool = False
    """The largest first when it is chosen to sort by."""


def _cut(text: str, room: int, tail: int) -> Content:
    """`text` in at most `room` cells; what is cut is before its last `tail` characters."""
    whole = Content(text)
    if not tail or whole.cell_length <= room or tail >= len(text):
        return whole.truncate(room, ellipsis=True)
    end = Content(text[-tail:])
    return Content(text[:-tail]).truncate(max(1, room - end.cell_length), ellipsis=True) + end


class Row(msgspec.Struct, frozen=True):
    """One row: `order` has for each column what it is sorted by; None is the last, either way round."""

    key: bytes
    cells: tuple[Cell, ...] | Callable[[], tuple[Cell, ...]]
    """What stands in the columns, or what makes it: of thousands of rows only those that are seen need it."""
    order: tuple[float | str | None, ...]
    of: object = None
    """What it is a row of."""
    group: int = 0
    """Rows of a lower group stand above those of a higher one, whatever they are sorted by."""


def _sorted(rows: Sequence[Row], column: int, descending: bool) -> list[Row]:
    """By key, where nothing else decides: so a row has its place, in whatever order rows come."""
    by_key = sorted(rows, key=lambda row: row.key)
    having = [row for row in by_key if row.order[column] is not None]
    having.sort(key=lambda row: row.order[column], reverse=descending)  # type: ignore[arg-type,return-value] # all floats or all texts
    lacking = [row for row in by_key if row.order[column] is None]
    return sorted((*having, *lacking), key=lambda row: row.group)


class Table(PaintedRows[Row]):
    """↑ ↓ move, a click on a heading or `s` sorts by another column, `S` the other way round; Enter and a
    double click choose a row."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--heading",
        "table--sorted",
        "table--cursor",
        "table--hover",
        "table--aside",
        "table--good",
        "table--warn",
        "table--mark",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort", show=False),
        Binding("S", "turn", "Turn round", show=False),
        Binding("enter", "choose", "Choose", show=False),
    ]
    DEFAULT_CSS = """
    Table {
        height: auto; width: 1fr; background: $background; overflow-x: hidden; scrollbar-size-vertical: 1;
    }
    Table > .table--heading { color: $foreground 60%; }
    Table > .table--sorted { color: $foreground 60%; text-style: underline; }
    Table > .table--cursor {
        background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold;
    }
    Table > .table--hover { background: $block-hover-background; }
    Table > .table--aside { color: $foreground 60%; }
    Table > .table--good { color: $text-success; }
    Table > .table--warn { color: $text-warning; }
    Table > .table--mark { color: $text-accent; }
    """

    @dataclass
    class Moved(Message):
        """Another row, or the same one with other contents, is under the cursor."""

        table: Table

        @property
        def control(self) -> Table:
            return self.table

    @dataclass
    class Chosen(Message):
        """The row under the cursor was chosen."""

        table: Table

        @property
        def control(self) -> Table:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str,
        sort_by: int = 0,
        id: str | None = None,  # noqa: A002 - Textual's name for it
    ) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self.empty = empty
        """What is said when there are no rows."""
        self.sorted_by = sort_by
        self.descending = columns[sort_by].descending
        self._placed: dict[bytes, Row] = {}
        """The shown rows as they were when they were given their places."""

    def show(self, rows: Sequence[Row], *, keep_places: bool = False) -> None:
        """Show these rows; the cursor stays on its row, and in sight if it was.

        `keep_places`: rows that are shown already stay in their order, whatever they are sorted by says now;
        new ones come between them.
        """
        under = self.highlighted
        seen = self._in_sight(self.cursor)
        taller = len(rows) != len(self._rows)
        placed = self._placed if keep_places else {}
        self._placed = {row.key: placed.get(row.key, row) for row in rows}
        now = {row.key: row for row in rows}
        self._rows = [
            now[row.key] for row in _sorted([*self._placed.values()], self.sorted_by, self.descending)
        ]
        place = next(
            (at for at, row in enumerate(self._rows) if under is not None and row.key == under.key), None
        )
        if place is None:
            place = max(0, min(self.cursor, len(self._rows) - 1))
        moved = place != self.cursor
        self.set_reactive(Table.cursor, place)
        self._measure()
        if moved and seen:
            self._reveal()
        self.refresh(layout=taller)
        self.post_message(self.Moved(self))

    def _in_sight(self, at: int) -> bool:
        """Whether the row at this place is on the screen."""
        return 0 <= at - self.scroll_offset.y < self.size.height - 1

    @property
    def in_sight(self) -> Sequence[Row]:
        """The rows that are on the screen, from the top."""
        first = self.scroll_offset.y
        return self._rows[first : first + max(0, self.size.height - 1)]

    @property
    def _room(self) -> int:
        """Cells of a line: all but those of the scrollbar."""
        return self.scrollable_content_region.width

    def _measure(self) -> None:
        width = self._room
        self.virtual_size = Size(width, self._lines(width))

    def _lines(self, width: int) -> int:
        return 1 + len(self._rows) if self._rows else len(self._said(width))

    def _said(self, width: int) -> list[str]:
        return [line for part in self.empty.split("\n") for line in wrap(part, max(10, width)) or [""]]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._lines(width)

    def on_resize(self) -> None:
        self._measure()

    def _reveal(self) -> None:
        # One line more than the row: the first line of the table is its heading.
        self.scroll_to_region(Region(0, self.cursor, 1, 2), animate=False, force=True)

    def watch_cursor(self) -> None:
        self._reveal()
        self.refresh()
        self.post_message(self.Moved(self))

    def action_sort(self) -> None:
        """Sort by the next column that is shown."""
        shown = [at for at, _ in self._layout(self._room)]
        after = [at for at in shown if at > self.sorted_by]
        self.sort_by((after or shown)[0])

    def action_turn(self) -> None:
        """The other way round."""
        self.sort_by(self.sorted_by)

    def sort_by(self, column: int) -> None:
        """Sort by this column; by the same one again, the other way round."""
        if column == self.sorted_by:
            self.descending = not self.descending
        else:
            self.sorted_by, self.descending = column, self._columns[column].descending
        self.show(self._rows)

    def action_choose(self) -> None:
        """Say that the row under the cursor is the one."""
        if self.highlighted is not None:
            self.post_message(self.Chosen(self))

    def _layout(self, width: int) -> list[tuple[int, int]]:
        """The columns that are shown, each with its cells."""
        shown = [
            at for at, column in enumerate(self._columns) if column.from_width <= width < column.below_width
        ]
        least = sum(self._columns[at].width for at in shown) + GAP * (len(shown) - 1)
        left = max(0, width - least)
        parts = sum(self._columns[at].grow for at in shown)
        result = []
        for at in shown:
            column = self._columns[at]
            more = left * column.grow // parts if parts else 0
            result.append((at, column.width + more))
        return result

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.visual_style
        if not self._rows:
            said = self._said(self._room)
            line = y + self.scroll_offset.y
            text = said[line] if line < len(said) else ""
            return self._strip(Content.styled(text, ".table--aside"), width, base)
        if y == 0:
            return self._strip(self._heading(), width, base)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self._rows):
            return self._strip(Content(""), width, base)
        under = self.has_focus and at == self.cursor
        if under:
            base = self.get_visual_style("table--cursor")
        elif at == self.hovered:
            base = self.get_visual_style("table--hover")
        return self._strip(self._line(self._rows[at], plain=under), width, base)

    def _heading(self) -> Content:
        cells: list[Cell] = []
        for at, column in enumerate(self._columns):
            mark = ("▾" if self.descending else "▴") if at == self.sorted_by else ""
            cells.append((column.title + mark, ".table--sorted" if mark else ".table--heading"))
        return self._joined(cells)

    def _line(self, row: Row, *, plain: bool) -> Content:
        """`plain`: in the colours of the cursor alone."""
        cells = row.cells() if callable(row.cells) else row.cells
        return self._joined([cell[0] if plain and isinstance(cell, tuple) else cell for cell in cells])

    def _joined(self, cells: Sequence[Cell]) -> Content:
        parts: list[Content] = []
        for at, room in self._layout(self._room):
            cell = cells[at]
            text, style = cell if isinstance(cell, tuple) else (cell, "")
            content = _cut(text, room, self._columns[at].tail)
            if style:
                content = content.stylize(style)
            gap = Content(" " * (room - content.cell_length))
            parts.append(gap + content if self._columns[at].right else content + gap)
        return Content(" " * GAP).join(parts)

    def row_at(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        at = offset.y - 1 + self.scroll_offset.y if offset is not None and offset.y else None
        return at if at is not None and at < len(self._rows) else None

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or not self._rows:
            return
        if offset.y:
            at = offset.y - 1 + self.scroll_offset.y
            if at < len(self._rows):
                self.cursor = at
                if event.chain == 2:
                    self.action_choose()
            return
        start = 0
        for at, room in self._layout(self._room):
            if start <= offset.x < start + room + GAP:
                self.sort_by(at)
                return
            start += room + GAP
