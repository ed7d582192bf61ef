"""Prompt lookup: guesses how an answer goes on from what was said before, for as long as that saves time.

Where a text repeats itself (quotes, code that is changed, tables), the tokens that followed the last three
before are likely to follow again. A step can check several at once for less than a step each. Nothing of the
answer depends on it: each token is chosen as without, and the first that was guessed wrong ends the check.

Rows are not free: on two cores, a step of 2 takes 2.4 times as long as one of 1, a step of 8 takes 5 times as
long. So guesses are first made silently, which costs nothing, and several are checked only where the last
ones were right.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 7
"""Tokens guessed at once."""
STREAK: Final = 3
"""Right guesses in a row before any is checked."""
LOSS: Final = 4.0
"""In tokens of time: who lost so much more than was gained is not guessed for again."""
_SMOOTH: Final = 0.2
_GRAM: Final = 3


class Lookup:
    """Of one answer. Pure: times are told."""

    __slots__ = ("_guess", "_index", "_plain", "_score", "_seen", "_streak")

    def __init__(self) -> None:
        self._index: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens, the last time."""
        self._seen = 0
        self._guess = (0, -1)
        """At which place which token was thought to come; -1 is none."""
        self._streak = 0
        self._score = 0.0
        self._plain: float | None = None

    def draft(self, tokens: list[int], most: int) -> list[int]:
        """Up to `most` tokens that are worth checking; mostly none."""
        if self._score <= -LOSS or len(tokens) <= _GRAM:
            return []
        place, token = self._guess
        if token >= 0 and place < len(tokens):
            self._streak = self._streak + 1 if tokens[place] == token else 0
        index = self._index
        for end in range(max(self._seen, _GRAM), len(tokens)):
            index[tuple(tokens[end - _GRAM : end])] = end
        self._seen = len(tokens)
        at = index.get(tuple(tokens[-_GRAM:]))
        if at is None:
            self._streak = 0
            self._guess = (0, -1)
            return []
        self._guess = (len(tokens), tokens[at])
        if self._streak < STREAK or self._plain is None:
            return []
        return tokens[at : at + min(MOST, most)]

    def plain(self, seconds: float) -> None:
        """A step that checked nothing took so long."""
        self._plain = seconds if self._plain is None else self._plain + _SMOOTH * (seconds - self._plain)

    def checked(self, drafted: int, right: int, seconds: float) -> None:
        """A step that checked so many took so long."""
        self._guess = (0, -1)
        if right < drafted:
            self._streak = 0
        if self._plain:
            self._score = min(LOSS, self._score + right - (seconds / self._plain - 1))
