"""How the machine's time is shared between prompts that are read and answers that are generated.

Processor sharing: of the time, prompts get reading / (reading + generating), so one newcomer among four
answers slows them by a fifth, however long its prompt is. A bounded debt lets short prompts be read at once.
Works with measured times; the clock is its caller's.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 512
"""Rows of prompts that may be read before the time for them was earned."""
PIECE: Final = 65
"""Rows from which on reading is as cheap per row as it gets on a CPU: less is read only to end a prompt.
llama.cpp's attention is half as fast again from 64 rows on, and one may be decoded with the neighbours'."""
STEP_SECONDS: Final = 0.05
"""What a piece of a prompt may add to a step of those who generate, where `PIECE` rows take less."""
_LEAST: Final = 1e-7
"""Seconds; no row is quicker."""
_SMOOTH: Final = 0.25
"""Weight of the newest measurement."""


class TimeShare:
    def __init__(self) -> None:
        self.step: float | None = None
        """Seconds of a step that only generates; None = not measured yet."""
        self.row: float | None = None
        """Seconds that a row of a prompt adds."""
        self.debt = 0.0
        """Seconds that prompts took above their share."""

    def enough(self) -> int | None:
        """Rows from which on another prompt in the same step only makes the first ones wait for it; None =
        not measured yet."""
        return max(PIECE, int(STEP_SECONDS / self.row)) if self.row else None

    def rows(self) -> int:
        """Rows of prompts that the next step may read while others generate."""
        most = self.enough()
        if most is None or not self.row:
            return PIECE
        return max(0, min(most, int(BURST - self.debt / self.row)))

    def decoded(self, seconds: float, rows: int, *, reading: int, generating: int, slowed: int) -> None:
        """A step took `seconds` and read `rows` rows of prompts.

        `reading`: who waits for a first token; `generating`: who got one; `slowed`: how many of those were
        there before the prompts came, and are owed the time.
        """
        if not rows:
            self.step = _smooth(self.step, seconds)
            own = seconds
        else:
            known = self.step if generating and self.step is not None else 0.0
            own = min(known, seconds) if generating else 0.0
            if known or not generating:
                self.row = _smooth(self.row, max(_LEAST, (seconds - own) / rows))
        if not slowed:
            self.debt = 0.0
            return
        earned = own * max(1, reading) / slowed
        self.debt = max(0.0, self.debt + (seconds - own) - earned)


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTH * (new - old)
