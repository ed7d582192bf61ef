"""Names that nodes claim: what may be shown of one, and when two count as the same.

A name is only a claim. Every name of a peer passes `clean_name` before it is shown or compared.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_NAME: Final = 32
"""Characters; the same as in a card."""

WORDS: Final = tuple(
    """
    acacia alder amber aspen bamboo basalt bay beech birch brook canyon cedar chalk cherry clay cliff cobalt
    coral creek crystal cypress delta dune elder elm fern fir fjord flint garnet geyser glacier granite grove
    hazel heath hemlock holly island ivy jade jasper juniper lagoon lake larch laurel lichen linden maple
    marble marsh meadow mica moss oak obsidian olive onyx opal pebble pine poplar quartz reef ridge
    river rowan sand sequoia shale slate spring spruce stone sumac summit topaz tundra valley walnut willow
    yew zircon
    """.split()
)

# Letters, marks and symbols that show nothing: they would make two names look the same.
_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_SEPARATOR: Final = "·"
"""Stands between a name and an id, so it is never part of a name."""
_MARKS: Final = 2
"""Combining marks that may follow one another."""


def default_name(node: bytes) -> str:
    """The name of a node whose person gave none: a word chosen by the end of its id, of which the beginning
    is shown beside it."""
    return WORDS[int.from_bytes(node[-4:], "big") % len(WORDS)]


def clean_name(text: str) -> str:
    """`text` as it may be shown in one line: at most MAX_NAME characters, maybe none.

    Without control characters, what reorders or hides text, piles of marks, and the `·` of ids. Characters
    that are variants of another, such as full-width ones, become that one (NFKC).
    """
    text = text[: 4 * MAX_NAME]
    for _ in range(4):  # taking something away can let the rest compose; that ends after a few turns
        cleaned = _one_turn(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def name_key(text: str) -> str:
    """Two names are the same to a reader when this is equal; empty when nothing can be shown of it."""
    return clean_name(clean_name(text).casefold())


def _one_turn(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if character.isspace():
            character = " "
            if not kept or kept[-1] == " ":
                continue
        elif category[0] in "CZ" or character in _BLANK or character == _SEPARATOR:
            continue
        marks = marks + 1 if category[0] == "M" else 0
        if marks <= _MARKS and (marks == 0 or kept):
            kept.append(character)
    return "".join(kept)[:MAX_NAME].strip()
