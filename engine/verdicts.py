"""What the distances between committed and own logits say about an answer, and answers about a driver.

All distances are judged in units of mu0, the honest noise of one model file (calibration.py). The bounds
were fixed on other answers than those of the study that tests them (tests/bench/audit_study.py). Pure: no
model computes here.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from infraxa.engine.gumbel import UNIT
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
CONFIRM: Final = 2
"""Others that have to find the same."""

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
    """What decided."""
    value: float
    """Of that test, in the units of its bounds; of single steps, of the worst one."""
    steps: int = 0
    """Of which it says so."""


class _Bounds(NamedTuple):
    """What honest steps reach by themselves."""

    common: float
    """Some steps of an answer."""
    rare: float
    """One step of a few answers, and more of the longest."""
    never: float


class _Ratios(NamedTuple):
    steps: int
    """Of so many steps or more."""
    accept: float
    """Ratios up to it are honest ones."""
    fail: float
    """Those above it are not."""


RATIOS: Final = (_Ratios(64, 1.6, 1.85), _Ratios(LEAST_STEPS, 1.75, 2.2))
"""The mean of many steps is surer: of the built-in guide, honest ones of 16 steps are at most 1.42 and those
of 64 at most 1.06; Q6_K in place of Q8_0 gives 1.70 and 2.11 at least."""
BOUNDS: Final[dict[Test, _Bounds]] = {
    "step": _Bounds(6.0, 9.0, 27.0),
    "token": _Bounds(12.0, 20.0, 60.0),
    "logit": _Bounds(18.0, 30.0, 90.0),
    # What is missing of the overlap.
    "overlap": _Bounds(0.12, 0.20, 0.50),
}
"""Of single steps, in units of mu0, but the last. Models can be unstable at single steps: of 19 000 honest
ones of the built-in guide, 4 were beyond `rare`, each of another answer, and 36 beyond `common`."""
COMMON: Final = 0.003
"""The part of honest steps beyond `common`, no more of which is likely by that count, and beyond `rare`:"""
RARE: Final = 0.0005
NEAR: Final = 0.05
"""The chance that an honest answer, of so many such steps, is looked at again."""
FALSE: Final = 1e-4
"""And that it fails by them."""
FEW: Final = 2
"""They are too many from the next one on, in the shortest answer too: unstable steps can come together."""

ELSEWHERE: Final = 6.0
"""The ratio above which no other kind of hardware is why. Such hardware was only imitated, by the same
weights in 16-bit numbers: 1.53 at most. Q4_0 in place of Q8_0 was seen at 6.9 at least. What lies between is
left open, since no GPU was measured."""


def distance(ids: Sequence[int], q: Sequence[int], token: int, own: ScoredRow) -> Distance:
    """Of a committed step: its candidates, their logits in 1/4096 and the token that was chosen. `own` must
    have been scored at these ids. Raises ValueError when it was not."""
    n = len(ids)
    if not n or len(q) != n or len(own.at) != 4 * n:
        raise ValueError(f"{n} candidates, {len(q)} logits and {len(own.at) // 4} scored ones")
    off = [abs(int(a) - b) for a, b in zip(q, struct.unpack(f"<{n}i", own.at), strict=True)]
    known = [int(i) for i in ids]
    of_token = off[known.index(token)] / UNIT if token in known else math.inf
    mine = struct.unpack(f"<{len(own.ids) // 4}I", own.ids)
    return Distance(sum(off) / n / UNIT, max(off) / UNIT, of_token, len(set(known).intersection(mine)) / n)


def distance_of_common(
    ids: Sequence[int], q: Sequence[int], token: int, own_ids: Sequence[int], own_q: Sequence[int]
) -> Distance:
    """As `distance`, from the likeliest tokens of somebody who was not told the committed candidates: as many
    as those, the likeliest first. The mean is that of the candidates which both have. One that only the
    committed ones have is no likelier to the other than the last of its own: it is off by that much at least,
    and by no more for all that is known. Raises ValueError for another number of them."""
    n = len(ids)
    if not n or len(q) != n or len(own_ids) != n or len(own_q) != n:
        raise ValueError(f"{n} candidates, {len(q)} logits and {len(own_ids)} of somebody else")
    mine, last = dict(zip(map(int, own_ids), map(int, own_q), strict=True)), int(own_q[-1])
    off, common = {}, []
    for one, logit in zip(map(int, ids), map(int, q), strict=True):
        if one in mine:
            off[one] = abs(logit - mine[one])
            common.append(off[one])
        else:
            off[one] = max(0, logit - last)
    if not common:
        return Distance(math.inf, math.inf, math.inf, 0.0)
    of_token = off[token] / UNIT if token in off else math.inf
    return Distance(sum(common) / len(common) / UNIT, max(off.values()) / UNIT, of_token, len(common) / n)


def agreed(votes: Sequence[State]) -> State:
    """What several, none of whose word is enough to condemn anybody, find together, each by `judge`; `grey`:
    another one is to be asked. One that finds nothing wrong is enough while nobody else does, and two are
    else; two that find the same lie condemn."""
    passed, failed = votes.count("passed"), votes.count("failed")
    if failed >= CONFIRM:
        return "failed"
    clear = not failed and "grey" not in votes
    return "passed" if passed >= CONFIRM or (passed and clear) else "grey"


def judge(steps: Sequence[Distance], mu0: float) -> Judged:
    """What the opened steps of one answer say; those of several short answers may be put together. Fewer than
    `LEAST_STEPS` never pass: they are `undetermined` unless some of them are too far off by themselves."""
    if not steps:
        return Judged("undetermined", 0.0, "short", 0.0)
    mu = max(mu0, FLOOR)
    ratio = sum(step.mean for step in steps) / len(steps) / mu
    bounds = next((one for one in RATIOS if len(steps) >= one.steps), None)
    if bounds is not None and ratio > bounds.fail:
        return Judged("failed", ratio, "ratio", ratio, len(steps))
    single = [_worst(step, mu) for step in steps]
    common, rare, never = (sum(one.level > level for one in single) for level in range(3))
    worst = max(single)
    n = len(steps)
    if never or rare > max(FEW, beyond(n, RARE, FALSE)):
        return Judged("failed", ratio, worst.test, worst.value, n)
    if bounds is not None and ratio > bounds.accept:
        return Judged("grey", ratio, "ratio", ratio, n)
    if rare > beyond(n, RARE, NEAR) or common > max(FEW, beyond(n, COMMON, NEAR)):
        return Judged("grey", ratio, worst.test, worst.value, n)
    if bounds is None:
        return Judged("undetermined", ratio, "short", ratio, n)
    return Judged("passed", ratio, "ratio", ratio, n)


def may_be_hardware(judged: Judged, mu0: float) -> bool:
    """Whether an answer that did not pass may be an honest one of another kind of hardware. A noise no larger
    than the floor, which files without quantization have, says nothing of hardware that rounds more."""
    return judged.steps < LEAST_STEPS or mu0 <= FLOOR or judged.ratio <= ELSEWHERE


@functools.lru_cache(1024)
def beyond(n: int, honest: float, chance: float) -> int:
    """The number that so many of `n` steps exceed with no more than that chance, each by itself beyond a
    bound with the chance `honest` (the binomial distribution's quantile)."""
    k, part = 0, (1 - honest) ** n
    left = 1 - part
    while left > chance and k < n:
        part *= (n - k) / (k + 1) * honest / (1 - honest)
        left -= part
        k += 1
    return k


class _Worst(NamedTuple):
    """Of one step's tests."""

    level: int
    """How many of its bounds it is beyond."""
    beyond: float
    """In parts of `rare`."""
    test: Test
    value: float


def _worst(step: Distance, mu: float) -> _Worst:
    values: dict[Test, float] = {
        "step": step.mean / mu,
        "token": step.token / mu,
        "logit": step.most / mu,
        "overlap": 1.0 - step.overlap,
    }
    return max(
        _Worst(sum(value > bound for bound in BOUNDS[test]), value / BOUNDS[test].rare, test, value)
        for test, value in values.items()
    )


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

    def after(self, ratio: float | None) -> Record:
        """With one more audit; None: it had no ratio."""
        if ratio is None:
            return self
        ewma = ratio if not self.n else self.ewma + ALPHA * (ratio - self.ewma)
        return Record(self.n + 1, ewma)

    @property
    def suspended(self) -> bool:
        """This driver is not to be asked for this model any more."""
        return self.n >= FIRST and self.ewma > MOST_EWMA
