"""Where in the blocks of an answer another driver goes on: found from the text before that place.

The text before is read by itself; where it ends is a block, and a place in what that block shows. Text that
comes later may show a block in another way (`**` becomes bold, lines become a table): then the place is found
again in what is shown now. A mark is drawn as a line of its own (`blocks.py`), so no text is changed by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from infraxa.app.tui.widgets.blocks import Block, Body, Code, Mark, Plain, Prose, Rule, Table
from infraxa.app.tui.widgets.reading import read

_MARKUP = frozenset("\\`*_~[]()<>!|#&")
"""Characters that are shown until what follows makes markup of them."""


class Place(NamedTuple):
    """Where a text ended when no more of it was there."""

    block: int
    """Index of the block in which it ended."""
    body: Body | None
    """That block, as it was; None when there was none."""
    label: str


def place(before: str, label: str) -> Place:
    """Where the whole text `before` ends."""
    blocks = read(before)
    return Place(len(blocks) - 1, blocks[-1].body, label) if blocks else Place(0, None, label)


def put(block: Block, index: int, places: Iterable[Place]) -> Block:
    """`block`, which stands at `index`, with the marks that belong to it and no others."""
    found = sorted(_mark(block.body, each) for each in places if each.block == index)
    return replace(block, body=_with_marks(block.body, tuple(found)))


def _mark(body: Body, place: Place) -> Mark:
    before = place.body
    if isinstance(body, Table):
        return Mark(len(before.rows) if isinstance(before, Table) else 0, place.label)
    return Mark(aligned(_text(before), _text(body)), place.label)


def _with_marks(body: Body, marks: tuple[Mark, ...]) -> Body:
    # A copy has its own cache of lines; -1 is a width that nothing has.
    match body:
        case Rule():
            return replace(body, marks=marks)
        case Prose() | Plain() | Code() | Table():
            return replace(body, marks=marks, _width=-1)
    return body


def _text(body: Body | None) -> str:
    match body:
        case Prose():
            return body.content.plain
        case Plain():
            return body.text
        case Code():
            return body.code
    return ""


def aligned(before: str, whole: str) -> int:
    """After how many characters of `whole` comes what was not in `before`, which was shown of its beginning
    while less was known."""
    if whole.startswith(before):
        return len(before)
    at = 0
    for character in before:
        if whole[at : at + 1] == character:
            at += 1
        elif character not in _MARKUP:
            break
    return at
