"""From the bytes of tokens to the text of an answer: whole characters only, stop strings left out.

Pure: knows no model. What comes out does not depend on where the tokens' borders are.
"""

from __future__ import annotations

import codecs

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextAssembler:
    """Turns pieces of UTF-8 into text that is decided.

    A character comes out when its last byte is there; bytes that are not UTF-8 become U+FFFD. Text that may
    be the beginning of a stop string is held back until that is decided. Of several stop strings, the one
    that is complete first wins; if two end together, the longer.
    """

    __slots__ = ("_decode", "_held", "_stops", "stopped")

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decode = _new_decoder("replace").decode
        self._stops = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False
        """A stop string is complete: nothing more will come out."""

    def feed(self, piece: bytes) -> str:
        """The text that `piece` decides; may be empty."""
        text = self._decode(piece)
        if not self._stops:
            return text
        return self._until_stop(text)

    def finish(self) -> str:
        """What is still held back: the answer ended here."""
        text = self._decode(b"", True)
        if self._stops:
            text = self._until_stop(text)
        held, self._held = self._held, ""
        return text + held

    def _until_stop(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        hold = max(_overlap(text, stop) for stop in self._stops)
        cut = len(text) - hold
        self._held = text[cut:]
        return text[:cut]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
