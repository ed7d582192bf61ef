"""Prints for people on a terminal and for programs in a pipe. Nothing printed can control a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.table import Table

# All control characters but tab and newline, and those that reorder the text around them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` without what a terminal would obey."""
    return _CONTROL.sub("", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it, with a terminal that can do more than print lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def note(line: str) -> None:
    """One line for the person, beside the output."""
    if sys.stderr is not None:
        print(clean(line).rstrip(), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """`value` (builtins and msgspec structs) as JSON, indented."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table on a terminal; in a pipe, each row on a line, its cells separated by tabs, without the header.

    `right` names the columns of numbers.
    """
    if not is_terminal(sys.stdout):
        for row in rows:
            print("\t".join(map(_one_line, row)))
        return
    from rich.console import Console

    Console().print(table(columns, rows, right=right))


GAP = 2
"""Spaces after a column of a table."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """The table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_one_line(cell)) for cell in row))
    return made


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line, aligned on a terminal; those without a value are left out."""
    shown = [(name, _one_line(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}" if is_terminal(sys.stdout) else f"{name}\t{value}")


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()))
