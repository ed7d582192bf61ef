"""What the distances between committed and own logits say about an answer, and answers about a driver.

All distances are judged in units of mu0, the honest noise of one model file (calibration.py). The bounds
were fixed before the study that tests them (tests/bench/audit_study.py). Pure: no model computes here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from infraxa.engine.types import ScoredRow

LEAST_STEPS: Final = 16
"""Fewer opened steps are too few for a mean: honest ones of a single step reach 4.7 times the noise."""
FLOOR: Final = 0.004
"""Logits. No noise counts as smaller: some models hardly have any."""
FIRST: Final = 10
"""Orders of a driver that are all audited."""
LEAST_RATE: Final = 0.05
ALERT_RATE: Final = 0.5
ALPHA: Final = 0.1
MOST_EWMA: Final = 1.6
MOST_FAILS: Final = 3
"""Confirmed, in a row."""
_UNIT: Final = 4096.0
"""Of a committed logit."""

State = Literal["passed", "grey", "failed", "undetermined"]
Test = Literal["ratio", "step", "token", "logit", "overlap", "short"]


class Distance(NamedTuple):
    """Of one step: how far the committed logits are from one's own, in logits."""

    mean: float
    """Over the committed candidates."""
    most: float
    """The largest of them."""
    token: float
    """Of the token that was chosen; infinite when it is none of the candidates."""
    overlap: float
    """The part of the candidates that are among one's own likeliest."""


class Judged(NamedTuple):
    state: State
    """`grey`: all steps should be opened, then somebody else asked. `failed`: counts once it is confirmed."""
    ratio: float
    """The mean distance in units of the honest noise."""
    test: Test
    """What decided; of those that are equally bad, the first."""
    value: float
    """Of that test, in the units of its bounds."""


class _Bounds(NamedTuple):
    accept: float
    fail: float


BOUNDS: Final[dict[Test, _Bounds]] = {
    "ratio": _Bounds(1.75, 2.2),
    "step": _Bounds(6.0, 9.0),
    "token": _Bounds(12.0, 20.0),
    "logit": _Bounds(18.0, 30.0),
    # What is missing of the overlap.
    "overlap": _Bounds(0.12, 0.20),
}
"""In units of mu0, but the last: measured honest extremes and the nearest cheats lie apart around them."""


def distance(ids: Sequence[int], q: Sequence[int], token: int, own: ScoredRow) -> Distance:
    """Of a committed step: its candidates, their logits in 1/4096 and the token that was chosen. `own` must
    have been scored at these ids. Raises ValueError when it was not."""
    n = len(ids)
    if not n or len(q) != n or len(own.at) != 4 * n:
        raise ValueError(f"{n} candidates, {len(q)} logits and {len(own.at) // 4} scored ones")
    off = [abs(int(a) - b) for a, b in zip(q, struct.unpack(f"<{n}i", own.at), strict=True)]
    known = [int(i) for i in ids]
    of_token = off[known.index(token)] / _UNIT if token in known else math.inf
    mine = struct.unpack(f"<{len(own.ids) // 4}I", own.ids)
    return Distance(sum(off) / n / _UNIT, max(off) / _UNIT, of_token, len(set(known).intersection(mine)) / n)


def judge(steps: Sequence[Distance], mu0: float) -> Judged:
    """What the opened steps of one answer say; those of several short answers may be put together. Fewer than
    `LEAST_STEPS` never pass: they are `undetermined` unless one of them is too far off by itself."""
    if not steps:
        return Judged("undetermined", 0.0, "short", 0.0)
    mu = max(mu0, FLOOR)
    ratio = sum(step.mean for step in steps) / len(steps) / mu
    values: dict[Test, float] = {
        "ratio": ratio,
        "step": max(step.mean for step in steps) / mu,
        "token": max(step.token for step in steps) / mu,
        "logit": max(step.most for step in steps) / mu,
        "overlap": 1.0 - min(step.overlap for step in steps),
    }
    short = len(steps) < LEAST_STEPS
    grey: Judged | None = None
    for test, (accept, fail) in BOUNDS.items():
        value = values[test]
        if test == "ratio" and short:
            continue
        if value > fail:
            return Judged("failed", ratio, test, value)
        if value > accept and grey is None:
            grey = Judged("grey", ratio, test, value)
    if grey is not None:
        return grey
    return Judged("undetermined", ratio, "short", ratio) if short else Judged("passed", ratio, "ratio", ratio)


def rate(n_audited: int, n_grey_recent: int = 0) -> float:
    """The part of a driver's answers to audit: all of the first ones, fewer with each that was audited, and
    half as soon as something recent was grey."""
    earned = 1.0 if n_audited < FIRST else max(LEAST_RATE, FIRST / n_audited)
    return max(earned, ALERT_RATE) if n_grey_recent else earned


class Record(msgspec.Struct, frozen=True):
    """What the audits of one driver and model say together, in their order: it finds one who mixes in a worse
    model so rarely that no single answer shows it."""

    n: int = 0
    """Audits that had a ratio."""
    ewma: float = 0.0
    """Of the ratios, the newest counting `ALPHA`."""
    fails: int = 0
    """In a row, confirmed."""

    def after(self, state: State, ratio: float | None) -> Record:
        """With one more audit. `failed` only when it was confirmed."""
        fails = self.fails + 1 if state == "failed" else 0 if state == "passed" else self.fails
        if ratio is None:
            return Record(self.n, self.ewma, fails)
        ewma = ratio if not self.n else self.ewma + ALPHA * (ratio - self.ewma)
        return Record(self.n + 1, ewma, fails)

    @property
    def suspended(self) -> bool:
        """This driver is not to be asked for this model any more."""
        return self.fails >= MOST_FAILS or (self.n >= FIRST and self.ewma > MOST_EWMA)
