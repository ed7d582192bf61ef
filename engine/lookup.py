"""Prompt lookup: guesses how an answer goes on from what was said before, for as long as that saves time.

Where a text repeats itself (quotes, code that is changed, tables), the tokens that followed the last three
before are likely to follow again. A step can check several at once for less than a step each. Nothing of the
answer depends on it: each token is chosen as without, and the first that was guessed wrong ends the check.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 7
"""Tokens guessed at once."""
LOSS: Final = 3.0
"""In tokens of time: who lost so much more than was gained is not guessed for again."""
_SMOOTH: Final = 0.2
_GRAM: Final = 3


class Lookup:
    """Of one answer. Pure: times are told."""

    __slots__ = ("_index", "_plain", "_score", "_seen", "_size")

    def __init__(self) -> None:
        self._index: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens, the last time."""
        self._seen = 0
        self._size = 1
        self._score = 0.0
        self._plain: float | None = None

    def draft(self, tokens: list[int], most: int) -> list[int]:
        """Up to `most` tokens that may come next; often none. None before a plain step was measured."""
        if self._score <= -LOSS or self._plain is None or len(tokens) <= _GRAM:
            return []
        index = self._index
        for end in range(max(self._seen, _GRAM), len(tokens)):
            index[tuple(tokens[end - _GRAM : end])] = end
        self._seen = len(tokens)
        at = index.get(tuple(tokens[-_GRAM:]))
        return [] if at is None else tokens[at : at + min(self._size, most, MOST)]

    def plain(self, seconds: float) -> None:
        """A step that checked nothing took so long."""
        self._plain = seconds if self._plain is None else self._plain + _SMOOTH * (seconds - self._plain)

    def checked(self, drafted: int, right: int, seconds: float) -> None:
        """A step that checked so many took so long."""
        self._size = min(2 * drafted, MOST) if right == drafted else 1
        if self._plain:
            self._score = min(LOSS, self._score + right - (seconds / self._plain - 1))
