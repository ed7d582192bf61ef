"""Text from models and strangers made safe to draw: here is what may never reach the terminal.

Only characters are judged here. That markup is off and links are confirmed is the widgets' business.
"""

from __future__ import annotations

import re

_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 (but tab and newline), DEL and C1: escape sequences start with these
    "\u202a-\u202e\u2066-\u2069"  # bidirectional overrides: text that reads as another one
    "\U000e0000-\U000e007f"  # tag characters: invisible text
    "\ufff9-\ufffb]"  # interlinear annotation
)
_LINE_BREAKS = re.compile("\r\n?|[\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without control characters and bidirectional overrides; tabs and newlines stay.

    Other line breaks become newlines; halves of surrogate pairs, which no terminal can be sent, become
    U+FFFD.
    """
    return _SURROGATES.sub("\ufffd", _HOSTILE.sub("", _LINE_BREAKS.sub("\n", text)))


class Cleaner:
    """`clean` for text that comes in pieces: a carriage return and its newline may be in two of them."""

    def __init__(self) -> None:
        self._after_return = False

    def __call__(self, text: str) -> str:
        after_return = self._after_return
        if text:
            self._after_return = text.endswith("\r")
        if after_return:
            text = text.removeprefix("\n")
        return clean(text)


def one_line(text: str, limit: int = 200) -> str:
    """`text` cleaned, on one line, cut with an ellipsis after `limit` characters."""
    line = " ".join(clean(text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
