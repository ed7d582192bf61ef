"""What a table is given: columns, and rows of texts with what they are sorted by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, itemgetter
from typing import Protocol

import msgspec

Cell = str | tuple[str, str]
"""A text, or a text and the style (a component class or `bold`) it has."""

Value = float | str | None
"""What a column sorts a row by; None is the last, either way round."""


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


class AnyRow(Protocol):
    """What a table needs of a row. Of thousands, only those that are seen need their cells, and all of them
    the value of but one column: these may be made when they are asked for."""

    @property
    def key(self) -> bytes: ...

    @property
    def cells(self) -> tuple[Cell, ...] | Callable[[], tuple[Cell, ...]]:
        """What stands in the columns, or what makes it."""
        ...

    @property
    def of(self) -> object:
        """What it is a row of."""
        ...

    @property
    def group(self) -> int:
        """Rows of a lower group stand above those of a higher one, whatever they are sorted by."""
        ...

    def value(self, column: int) -> Value:
        """What this column sorts it by."""
        ...


class Row(msgspec.Struct, frozen=True):
    """One row, all of it at hand."""

    key: bytes
    cells: tuple[Cell, ...]
    order: tuple[Value, ...]
    """For each column what it is sorted by."""
    of: object = None
    group: int = 0

    def value(self, column: int) -> Value:
        return self.order[column]


def sorted_rows(rows: Iterable[AnyRow], column: int, descending: bool) -> list[AnyRow]:
    """By key, where nothing else decides: so a row has its place, in whatever order rows come."""
    by_key = [(row.value(column), row) for row in sorted(rows, key=attrgetter("key"))]
    having = [pair for pair in by_key if pair[0] is not None]
    having.sort(key=itemgetter(0), reverse=descending)  # all floats or all texts
    lacking = [pair for pair in by_key if pair[0] is None]
    return sorted((row for _, row in (*having, *lacking)), key=attrgetter("group"))
