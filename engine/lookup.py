"""Prompt lookup: guesses how an answer goes on from what was said before, for as long as that saves time.

Where a text repeats itself (quotes, code that is changed, tables), the tokens that followed the last three
before are likely to follow again. A step can check several at once for less than a step each. Nothing of the
answer depends on it: each token is chosen as without, and the first that was guessed wrong ends the check.

Rows are not free: on two cores, each adds 0.8 of a step, and nothing is gained however good the guesses are;
on a GPU, or with many cores, a few cost next to nothing. So what a row costs is measured, and guesses are
checked only where it is little. They are first made silently, which costs nothing, and several are checked
only where the last ones were right.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 7
"""Tokens guessed at once."""
STREAK: Final = 3
"""Right guesses in a row before any is checked."""
LOSS: Final = 2.0
"""In tokens of time: who lost so much more than was gained is not guessed for again."""
DEAR: Final = 0.4
"""A guess that adds more of a step than this is not worth it."""
AGAIN: Final = 2000
"""Tokens after which a machine on which guesses were too dear is tried again: it may have been busy."""
_SMOOTH: Final = 0.2
_GRAM: Final = 3


class RowCost:
    """What a guess costs on this machine, with this model. Pure: times are told."""

    __slots__ = ("_left", "plain", "row")

    def __init__(self) -> None:
        self.plain: float | None = None
        """Seconds of a step that checks nothing; None = not measured yet."""
        self.row: float | None = None
        """What a guess adds, in steps; None = not measured yet."""
        self._left = 0

    def low(self) -> bool:
        """Asked once for each token that could be guessed for."""
        if self.plain is None:
            return False
        if self.row is None or self.row <= DEAR:
            return True
        self._left -= 1
        return self._left < 0

    def took(self, guesses: int, seconds: float) -> None:
        """A step that checked so many took so long."""
        if not guesses:
            self.plain = seconds if self.plain is None else self.plain + _SMOOTH * (seconds - self.plain)
        elif self.plain:
            row = max(0.0, seconds / self.plain - 1) / guesses
            # What was measured long ago, and was too dear, does not count any more.
            if self.row is None or self.row > DEAR:
                self.row = row
            else:
                self.row += _SMOOTH * (row - self.row)
            self._left = AGAIN


class Lookup:
    """Of one answer."""

    __slots__ = ("_cost", "_guess", "_index", "_score", "_seen", "_streak")

    def __init__(self, cost: RowCost) -> None:
        self._cost = cost
        self._index: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens, the last time."""
        self._seen = 0
        self._guess = (0, -1)
        """At which place which token was thought to come; -1 is none."""
        self._streak = 0
        self._score = 0.0

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
        if self._streak < STREAK or not self._cost.low():
            return []
        return tokens[at : at + min(MOST, most)]

    def checked(self, drafted: int, right: int) -> None:
        """So many guesses were checked, and so many were right. After `RowCost.took`."""
        self._guess = (0, -1)
        if right < drafted:
            self._streak = 0
        self._score = min(LOSS, self._score + right - drafted * (self._cost.row or 0.0))
