"""What several referees of one answer find together, none of whose word is enough to condemn anybody. Pure.

How many have to agree is in engine/verdicts.py, how each is asked in referees.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from infraxa.engine.verdicts import Judged, State, agreed


class Vote(NamedTuple):
    """What one of them found."""

    judged: Judged
    why: str = ""
    """Which lie, as of store.records.Verdict.why."""


def lie_of(votes: Sequence[Vote]) -> str:
    """The lie that most of them found; empty: none did."""
    whys = [vote.why for vote in votes if vote.why]
    return max(whys, key=whys.count, default="")


def state_of(votes: Sequence[Vote]) -> State:
    """See verdicts.agreed: who found another lie does not confirm this one."""
    lie = lie_of(votes)
    return agreed([vote.judged.state if vote.why in ("", lie) else "grey" for vote in votes])


def unsure_of(votes: Sequence[Vote]) -> str:
    """Why they came to nothing; empty: none of them said what counts."""
    states = [vote.judged.state for vote in votes]
    if "failed" not in states:
        return "near" if states else ""
    return "one_referee" if len(states) == 1 else "disagree"


def ratio_of(votes: Sequence[Vote]) -> float | None:
    """That of the last one, who saw the most steps."""
    ratio = votes[-1].judged.ratio if votes else math.inf
    return ratio if math.isfinite(ratio) else None
