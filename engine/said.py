"""What the tokens of an answer say, and which of them ends it: by these, whoever has the model's file tells
whether somebody was shown what was sampled. Pure: what a token stands for is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from hashlib import sha256

from infraxa.engine.text import TextAssembler


class _Hash:
    """Of a text that comes in parts, or of its first `chars` characters."""

    def __init__(self, chars: int = 0) -> None:
        self._left = chars or math.inf
        self._hash = sha256(b"infraxa/text/1")

    def add(self, text: str) -> None:
        if len(text) > self._left:
            text = text[: int(self._left)]
        self._left -= len(text)
        self._hash.update(text.encode())

    def digest(self) -> bytes:
        return self._hash.digest()


def text_hash(text: str) -> bytes:
    """SHA-256 of "infraxa/text/1" and the text in UTF-8."""
    whole = _Hash()
    whole.add(text)
    return whole.digest()


class Said:
    """Of one answer, as its engine makes it (TextAssembler)."""

    def __init__(
        self, piece: Callable[[int], bytes | None], stop: tuple[str, ...] = (), chars: int = 0
    ) -> None:
        """`piece`: the bytes of a token; None: it ends the turn. `stop`: the stop strings that were asked
        for. `chars`: so many characters of the text are hashed, from its beginning on; 0: all of it."""
        self.end = -1
        """The first token that ends the turn, or completes a stop string; -1: none does."""
        self._piece = piece
        self._text = TextAssembler(stop)
        self._hash = _Hash(chars)
        self._count = 0

    def add(self, tokens: Iterable[int]) -> None:
        """The next ones."""
        for token in tokens:
            piece = self._piece(token)
            self._hash.add(self._text.feed(piece or b""))
            if self.end < 0 and (piece is None or self._text.stopped):
                self.end = self._count
            self._count += 1

    def finish(self) -> bytes:
        """The hash of the text; there are no more tokens."""
        self._hash.add(self._text.finish())
        return self._hash.digest()
