"""The blocks that a Markdown answer is drawn from, and how each fills lines of a given width.

A block knows nothing of widgets, themes or parsing: it turns a width into a height and single lines of styled
content, each computed when asked for, so that an answer of any length costs what is seen of it.
Styles are names: `.em` is a component class of the widget that paints, `$text-accent` a colour of the theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rich.cells import cell_len, chop_cells
from textual.content import Content
from textual.highlight import HighlightTheme

MIN_TEXT_WIDTH = 16
"""Cells that nesting always leaves to the text."""
MAX_HIGHLIGHT = 24_000
"""Characters of code; more is shown without colours, as lexing takes time in proportion."""
COLUMN_MINIMUM = 4
TAB_SIZE = 4
COPY = "copy"


class Mark(NamedTuple):
    """A line within a block that is no part of its text: from here on somebody else writes."""

    at: int
    """Characters of the block's text before it; in a table, rows."""
    label: str


class Line(NamedTuple):
    """One line of a block."""

    content: Content
    join: str = "\n"
    """What stood between this line and the next one in the text: a newline, or what the wrapping took away.
    """
    fill: str = ""
    """Component class for the whole line, its padding included."""
    copy_at: int | None = None
    """Where the word that copies this block stands."""
    aside: bool = False
    """Not of the text: it is never selected or copied."""


class Body(Protocol):
    """What a block shows."""

    def height(self, width: int) -> int:
        """Lines it takes at `width` cells."""

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        """Line `y` at `width`; `theme` gives code its colours."""

    def same(self, other: Body) -> bool:
        """Whether `other` looks the same, so that what was painted can stay."""


def wrap(content: Content, width: int, fill: str = "") -> list[Line]:
    """`content` in lines of at most `width` cells, broken between words; newlines in it are kept."""
    lines: list[Line] = []
    for logical in content.split("\n", allow_blank=True):
        plain = logical.plain
        if len(plain) <= width and cell_len(plain) <= width:
            lines.append(Line(logical, fill=fill))
            continue
        end = 0
        for part in logical.wrap(width):
            start = plain.index(part.plain, end)
            if end:
                lines[-1] = lines[-1]._replace(join=plain[end:start])
            lines.append(Line(part, fill=fill))
            end = start + len(part.plain)
    return lines or [Line(Content(""), fill=fill)]


def marked_line(mark: Mark, width: int) -> Line:
    """The line that shows a mark."""
    return Line(Content(f" {mark.label}").truncate(width, ellipsis=True), fill="moved", aside=True)


def wrap_marked(content: Content, width: int, fill: str, marks: Sequence[Mark]) -> list[Line]:
    """`content` as `wrap` gives it, cut where the marks stand."""
    plain = content.plain
    lines: list[Line] = []
    start = 0
    for mark in marks:
        at = max(start, min(mark.at, len(plain)))
        end = start + len(plain[start:at].rstrip())
        goes_on = at + len(plain[at:]) - len(plain[at:].lstrip())
        if end > start:
            lines += wrap(content[start:end], width, fill)
            if goes_on < len(plain):
                lines[-1] = lines[-1]._replace(join=plain[end:goes_on])
        lines.append(marked_line(mark, width))
        start = goes_on
    return lines + wrap(content[start:], width, fill) if start < len(plain) else lines


def fold(text: str, width: int) -> list[str]:
    """One line of text cut into pieces of at most `width` cells, wherever that falls."""
    if text.isascii():
        return [text[start : start + width] for start in range(0, len(text), width)] or [""]
    return chop_cells(text, max(2, width)) or [""]


@dataclass
class Prose:
    """A paragraph or a heading."""

    content: Content
    fill: str = ""
    """`h1` to `h6` for headings."""
    marks: tuple[Mark, ...] = ()
    _lines: list[Line] = field(default_factory=list, repr=False)
    _width: int = -1

    def height(self, width: int) -> int:
        if width != self._width:
            self._lines = (
                wrap_marked(self.content, width, self.fill, self.marks)
                if self.marks
                else wrap(self.content, width, self.fill)
            )
            self._width = width
        return len(self._lines)

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        self.height(width)
        return self._lines[y]

    def same(self, other: Body) -> bool:
        return (
            isinstance(other, Prose)
            and self.fill == other.fill
            and self.marks == other.marks
            and self.content.is_same(other.content)
        )


@dataclass
class Plain:
    """Text shown as it is, cut at the width: for what is too long or too deep to be read as Markdown."""

    text: str
    marks: tuple[Mark, ...] = ()
    _pieces: list[tuple[str, bool] | Mark] = field(default_factory=list, repr=False)
    """Of each line on the screen: its text, and whether a line of the text ends with it."""
    _width: int = -1

    def height(self, width: int) -> int:
        if width != self._width:
            self._pieces = []
            start = 0
            for mark in self.marks:
                at = max(start, min(mark.at, len(self.text)))
                if at > start:
                    self._fold(self.text[start:at], width, cut=at < len(self.text))
                self._pieces.append(mark)
                start = at
            if start < len(self.text) or not self.marks:
                self._fold(self.text[start:], width)
            self._width = width
        return len(self._pieces)

    def _fold(self, text: str, width: int, *, cut: bool = False) -> None:
        """`cut`: the text goes on after this part, maybe in the middle of a line."""
        ends = not cut or text.endswith("\n")
        lines = (text.removesuffix("\n") if cut else text).expandtabs(TAB_SIZE).split("\n")
        for number, line in enumerate(lines):
            pieces = fold(line, width)
            last = number == len(lines) - 1
            self._pieces += [
                (piece, index == len(pieces) - 1 and (ends or not last)) for index, piece in enumerate(pieces)
            ]

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        self.height(width)
        found = self._pieces[y]
        if isinstance(found, Mark):
            return marked_line(found, width)
        piece, ends = found
        return Line(Content(piece, strip_control_codes=False), "\n" if ends else "")

    def same(self, other: Body) -> bool:
        return isinstance(other, Plain) and self.text == other.text and self.marks == other.marks


@dataclass
class Rule:
    """A horizontal rule."""

    marks: tuple[Mark, ...] = ()

    def height(self, width: int) -> int:
        return 1 + len(self.marks)

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        return Line(Content.styled("─" * width, ".rule")) if not y else marked_line(self.marks[y - 1], width)

    def same(self, other: Body) -> bool:
        return isinstance(other, Rule) and self.marks == other.marks


@dataclass
class Code:
    """A code block: a line with the language and a word to copy it, then the code, folded at the width."""

    code: str
    language: str = ""
    open: bool = False
    """Still being written: shown without colours, which come once when it is closed."""
    marks: tuple[Mark, ...] = ()
    _folded: list[tuple[int, int, int]] = field(default_factory=list, repr=False)
    """For each line on the screen: number of the line of code, and the part of it; -1 and its place for a
    mark."""
    _lines: list[str] = field(default_factory=list, repr=False)
    _width: int = -1
    _coloured: list[Content] | None = field(default=None, repr=False)
    _theme: type[HighlightTheme] | None = None

    def height(self, width: int) -> int:
        if width != self._width:
            room = max(4, width - 2)
            self._lines = self.code.expandtabs(TAB_SIZE).split("\n")
            self._folded = []
            for number, text in enumerate(self._lines):
                start = 0
                for piece in fold(text, room) if len(text) * 2 > room else (text,):
                    self._folded.append((number, start, start + len(piece)))
                    start += len(piece)
            for index, mark in enumerate(self.marks):
                self._cut(index, mark)
            self._width = width
        return len(self._folded) + 1

    def _cut(self, index: int, mark: Mark) -> None:
        """Put a mark among the lines on the screen; one that it falls into becomes two."""
        number = self.code.count("\n", 0, mark.at)
        column = len(self.code[self.code.rfind("\n", 0, mark.at) + 1 : mark.at].expandtabs(TAB_SIZE))
        for place, (line, start, end) in enumerate(self._folded):
            if line == number and (column < end or column == end == len(self._lines[number])):
                before = [(line, start, column)] if column > start or start == end else []
                after = [(line, column, end)] if column < end else []
                self._folded[place : place + 1] = [*before, (-1, index, 0), *after]
                return

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        self.height(width)
        if y == 0:
            return self._label(width)
        number, start, end = self._folded[y - 1]
        if number < 0:
            return marked_line(self.marks[start], width)
        text = self._lines[number]
        coloured = self._colours(theme)
        content = coloured[number][start:end] if coloured else Content(text[start:end])
        ends = all(line != number for line, _, _ in self._folded[y : y + 1 + len(self.marks)])
        return Line(Content(" ") + content, "\n" if ends else "", "fence")

    def _label(self, width: int) -> Line:
        label = Content.styled(self.language[: max(0, width - 8)], ".fence-label")
        gap = " " * max(1, width - label.cell_length - len(COPY) - 2)
        left = Content(" ") + label + Content(gap)
        return Line(left + Content.styled(COPY, ".fence-copy"), fill="fence", copy_at=len(left.plain))

    def _colours(self, theme: type[HighlightTheme]) -> list[Content] | None:
        if self.open or not self.language or len(self.code) > MAX_HIGHLIGHT:
            return None
        if self._coloured is None or self._theme is not theme:
            # Pygments is imported with the first code block that is seen, not with the app.
            from textual.highlight import highlight

            text = self.code.expandtabs(TAB_SIZE)
            lines = highlight(text, language=self.language, theme=theme).split("\n", allow_blank=True)
            # A lexer may normalise line ends; then its lines are not ours.
            self._coloured = (
                lines if len(lines) == len(self._lines) else [Content(line) for line in self._lines]
            )
            self._theme = theme
        return self._coloured

    def same(self, other: Body) -> bool:
        return (
            isinstance(other, Code)
            and self.code == other.code
            and self.language == other.language
            and self.open == other.open
            and self.marks == other.marks
        )


@dataclass
class Table:
    """A table: columns as wide as they need, narrowed together when they do not fit, cells wrapped."""

    head: Sequence[Content]
    rows: list[list[Content]]
    aligns: Sequence[str]
    """`left`, `center` or `right` for each column."""
    marks: tuple[Mark, ...] = ()
    _width: int = -1
    _columns: list[int] = field(default_factory=list, repr=False)
    _places: list[tuple[int, int]] = field(default_factory=list, repr=False)
    """For each line on the screen: the row (-1 the head, -2 the rule) and the line in it; -3 and its place
    for a mark."""
    _wrapped: dict[tuple[int, int], list[list[Content]]] = field(default_factory=dict, repr=False)

    def height(self, width: int) -> int:
        if width != self._width:
            self._columns = self._fit(width)
            self._wrapped.clear()
            self._places = [(-1, line) for line in range(self._row_height(-1))] + [(-2, 0)]
            roomy = self._columns == self._natural()
            self._places += [(-3, at) for at, mark in enumerate(self.marks) if mark.at <= 0]
            for row in range(len(self.rows)):
                self._places += [(row, line) for line in range(1 if roomy else self._row_height(row))]
                if self.marks:
                    self._places += [(-3, at) for at, mark in enumerate(self.marks) if mark.at == row + 1]
            self._width = width
        return len(self._places)

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> Line:
        self.height(width)
        row, line = self._places[y]
        if row == -2:
            return Line(Content.styled("─┼─".join("─" * column for column in self._columns), ".table-line"))
        if row == -3:
            return marked_line(self.marks[line], width)
        separator = Content.styled(" │ ", ".table-line")
        parts: list[Content] = []
        for column, lines in enumerate(self._cells(row)):
            width_left = self._columns[column]
            cell = lines[line] if line < len(lines) else Content("")
            cell = cell.truncate(width_left)
            space = width_left - cell.cell_length
            align = self.aligns[column] if column < len(self.aligns) else "left"
            left = {"right": space, "center": space // 2}.get(align, 0)
            parts.append(cell.pad(left, space - left))
        content = separator.join(parts)
        return Line(content.stylize_before(".table-head") if row == -1 else content)

    def _natural(self) -> list[int]:
        columns = [max(1, cell.cell_length) for cell in self.head]
        for row in self.rows:
            for index, cell in enumerate(row[: len(columns)]):
                if cell.cell_length > columns[index]:
                    columns[index] = cell.cell_length
        return columns

    def _fit(self, width: int) -> list[int]:
        """Widths of the columns: the widest give way first."""
        columns = self._natural()
        room = width - 3 * (len(columns) - 1)
        excess = sum(columns) - room
        while excess > 0 and max(columns) > COLUMN_MINIMUM:
            widest = max(columns)
            tops = [index for index, column in enumerate(columns) if column == widest]
            below = max((column for column in columns if column < widest), default=COLUMN_MINIMUM)
            step = min(widest - max(below, COLUMN_MINIMUM), -(-excess // len(tops)))
            for index in tops:
                cut = min(max(1, step), excess)
                columns[index] -= cut
                excess -= cut
        return columns

    def _row_height(self, row: int) -> int:
        return max((len(lines) for lines in self._cells(row)), default=1)

    def _cells(self, row: int) -> list[list[Content]]:
        key = (row, 0)
        if key not in self._wrapped:
            cells = self.head if row == -1 else self.rows[row]
            self._wrapped[key] = [
                [line.content for line in wrap(cell, column)]
                for cell, column in zip(cells, self._columns, strict=False)
            ]
        return self._wrapped[key]

    def same(self, other: Body) -> bool:
        return (
            isinstance(other, Table)
            and len(self.rows) == len(other.rows)
            and list(self.aligns) == list(other.aligns)
            and self.marks == other.marks
            and all(
                len(mine) == len(theirs) and all(a.is_same(b) for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip([self.head, *self.rows], [other.head, *other.rows], strict=True)
            )
        )


@dataclass
class Block:
    """A body and what stands left of it: bullets, numbers, the bars of quotes."""

    body: Body
    first: Content = field(default_factory=lambda: Content(""))
    """Left of the first line."""
    rest: Content = field(default_factory=lambda: Content(""))
    """Left of the others; as wide as `first`."""
    gap: Content | None = None
    """The empty line above, with the bars that go through it; None = no line."""

    def _room(self, width: int) -> tuple[int, int]:
        """Width of the prefix and of the body."""
        prefix = min(self.rest.cell_length, max(0, width - MIN_TEXT_WIDTH))
        return prefix, max(1, width - prefix)

    def height(self, width: int) -> int:
        """Lines at `width`, the empty one above included."""
        return self.body.height(self._room(width)[1]) + (self.gap is not None)

    def line(self, width: int, y: int, theme: type[HighlightTheme]) -> tuple[Content, Line]:
        """What stands left, and the line itself."""
        if self.gap is not None:
            if y == 0:
                return self.gap.truncate(self._room(width)[0]), Line(Content(""))
            y -= 1
        prefix, room = self._room(width)
        left = self.first if y == 0 else self.rest
        return left.truncate(prefix), self.body.line(room, y, theme)

    def same(self, other: Block) -> bool:
        """Whether `other` looks the same."""
        gaps = (self.gap, other.gap)
        return (
            self.first.is_same(other.first)
            and self.rest.is_same(other.rest)
            and (None not in gaps or gaps == (None, None))
            and self.body.same(other.body)
        )
