"""A table that is painted line by line when seen: columns give way to each other, rows keep their cursor.

It shows the rows it is given in the order a person chose. Cells are plain text or Content, never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import ClassVar

from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from infraxa.app.tui.widgets.rows import PaintedRows
from infraxa.app.tui.widgets.table_line import Piece, cut, strip
from infraxa.app.tui.widgets.table_rows import AnyRow, sorted_rows
from infraxa.app.tui.widgets.table_rows import Cell as Cell
from infraxa.app.tui.widgets.table_rows import Column as Column
from infraxa.app.tui.widgets.table_rows import Row as Row

GAP = 2
"""Cells between two columns."""


class Table(PaintedRows[AnyRow]):
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
        self.left_out: frozenset[int] = frozenset()
        """Columns that have nothing to say of these rows; to be set before they are shown."""
        self.sorted_by = sort_by
        self.descending = columns[sort_by].descending
        self._laid_out: tuple[object, list[tuple[int, int]]] = (None, [])
        """A width and what is left out there, and what `_layout` says of it."""
        self._styles: dict[tuple[str, str], RichStyle] = {}
        """What `_style` found: finding it takes longer than painting with it."""
        self._placed: dict[bytes, AnyRow] = {}
        """The shown rows as they were when they were given their places."""

    def show(self, rows: Sequence[AnyRow], *, keep_places: bool = False) -> None:
        """Show these rows; the cursor stays on its row, and in sight if it was.

        `keep_places`: rows that are shown already stay in their order, whatever they are sorted by says now;
        new ones come between them.
        """
        under = self.highlighted
        seen = self._in_sight(self.cursor)
        taller = len(rows) != len(self._rows)
        now = {row.key: row for row in rows}
        keys = [row.key for row in self._rows]
        if not keep_places or now.keys() != self._placed.keys():
            placed = self._placed if keep_places else {}
            self._placed = {key: placed.get(key, row) for key, row in now.items()}
            keys = [row.key for row in sorted_rows(self._placed.values(), self.sorted_by, self.descending)]
        self._rows = [now[key] for key in keys]
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
    def in_sight(self) -> Sequence[AnyRow]:
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
        by = width, self.left_out
        if self._laid_out[0] != by:
            self._laid_out = by, self._lay_out(width)
        return self._laid_out[1]

    def _lay_out(self, width: int) -> list[tuple[int, int]]:
        shown = [
            at
            for at, column in enumerate(self._columns)
            if column.from_width <= width < column.below_width and at not in self.left_out
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
        if not self._rows:
            said = self._said(self._room)
            line = y + self.scroll_offset.y
            text = said[line] if line < len(said) else ""
            return self._strip(Content.styled(text, ".table--aside"), width, self.visual_style)
        if y == 0:
            return self._painted(self._heading(), width)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self._rows):
            return self._strip(Content(""), width, self.visual_style)
        row = self._rows[at]
        cells = row.cells() if callable(row.cells) else row.cells
        if self.has_focus and at == self.cursor:  # in the colours of the cursor alone
            plain = [cell[0] if isinstance(cell, tuple) else cell for cell in cells]
            return self._painted(plain, width, "table--cursor")
        return self._painted(cells, width, "table--hover" if at == self.hovered else "")

    def _heading(self) -> list[Cell]:
        cells: list[Cell] = []
        for at, column in enumerate(self._columns):
            mark = ("▾" if self.descending else "▴") if at == self.sorted_by else ""
            cells.append((column.title + mark, ".table--sorted" if mark else ".table--heading"))
        return cells

    def _painted(self, cells: Sequence[Cell], width: int, line: str = "") -> Strip:
        """The cells of the columns that are shown. `line`: the component class of all of the line, if it has
        one."""
        between = self._style(line, "")
        pieces: list[Piece] = []
        painted = blank = 0  # cells: up to here, and since the last text
        for at, room in self._layout(self._room):
            column, cell = self._columns[at], cells[at]
            text, style = cell if isinstance(cell, tuple) else (cell, "")
            text, length = cut(text, room, column.tail)
            left = max(0, room - length)
            blank += left if column.right else 0
            pieces += (" " * blank, between), (text, self._style(line, style) if style else between)
            painted += blank + length
            blank = GAP if column.right else GAP + left
        return strip(pieces, painted).adjust_cell_length(width, between)

    def _style(self, line: str, cell: str) -> RichStyle:
        """How a cell looks, or what is between two (`cell` is empty), in such a line."""
        if (found := self._styles.get((line, cell))) is None:
            base = self.get_visual_style(line) if line else self.visual_style
            found = (base + self._parse(cell) if cell else base).rich_style
            self._styles[line, cell] = found
        return found

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

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
