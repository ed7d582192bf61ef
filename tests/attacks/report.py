"""How large an attack is made, and the table of what came of it."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

FULL: Final = os.environ.get("ATTACKS") == "full"
"""Larger numbers and more seeds; set by `python -m tests.attacks`."""


ANSWERS: Final = int(os.environ.get("ATTACK_ANSWERS", "300"))
"""Of each kind of lie, that a full run has audited."""


class Row(NamedTuple):
    attack: str
    weakened: str
    """What the attack got of a node without the defence."""
    ours: str
    """What it got of ours, and by what reason it was counted."""
    cost: str
    """What our node spent on it."""


ROWS: Final[list[Row]] = []


def scale(quick: int, full: int) -> int:
    """How many of something, by the profile."""
    return full if FULL else quick


def tell(attack: str, *, weakened: object, ours: object, cost: str = "") -> None:
    """One line of the table that a full run prints."""
    ROWS.append(Row(attack, str(weakened), str(ours), cost))


def table() -> str:
    """All that was told, in columns."""
    rows = [Row("attack", "weakened node", "our node", "cost"), *sorted(ROWS)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
