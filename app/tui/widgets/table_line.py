"""A line of a table as the terminal gets it: texts cut to the cells of their columns, in as few pieces as
they have styles. The same few texts come again and again, so what cutting them gives is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip

Piece = tuple[str, Style]
"""A text and how it looks."""

_CUT = 16384
"""Texts that are kept as they were cut: all names, and most numbers, of the rows of a long table."""


@lru_cache(_CUT)
def cut(text: str, room: int, tail: int) -> tuple[str, int]:
    """`text` in at most `room` cells, and how many it has; what is cut is before its last `tail`
    characters."""
    whole = Content(text)
    if not tail or whole.cell_length <= room or tail >= len(text):
        short = whole.truncate(room, ellipsis=True)
    else:
        end = Content(text[-tail:])
        short = Content(text[:-tail]).truncate(max(1, room - end.cell_length), ellipsis=True) + end
    return short.plain, short.cell_length


def strip(pieces: Iterable[Piece], cells: int) -> Strip:
    """The pieces, `cells` wide together, neighbours of the very same style as one."""
    segments: list[Segment] = []
    texts: list[str] = []
    last: Style | None = None
    for text, style in pieces:
        if not text:
            continue
        if style is not last and texts:
            segments.append(Segment("".join(texts), last))
            texts.clear()
        last = style
        texts.append(text)
    if texts:
        segments.append(Segment("".join(texts), last))
    return Strip(segments, cells)
