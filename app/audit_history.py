"""What is known of drivers by audits: how many each passed with each model, how often it is audited next, and
who is not chosen any more for what it was found to have done.

What is on disk is in store/verdicts.py, how an answer is audited in auditor.py. Answers from memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from infraxa.app.audit_reasons import REASONS
from infraxa.app.audit_values import AuditsSeen
from infraxa.engine import verdicts
from infraxa.engine.verdicts import Record
from infraxa.net.proofs import KEPT
from infraxa.store.records import Verdict
from infraxa.store.verdicts import TOLD_KEPT, VerdictRow

RECENT: Final = 10
"""Audits of which one that was grey has the next ones made more often."""
MOST_UNJUDGED: Final = 3
"""Audits that came to nothing since the driver says that its version is another one; and since it says so
of its hardware, with none between them that passed."""
MOST_GONE: Final = 5
"""Answers that it could not open any more, where fewer audits passed: a driver that is asked right after the
receipt, and has lost it again and again, does not want to be audited."""
ROWS: Final = 1000
"""Audits of one driver with one model, besides those that failed."""
_UNJUDGED: Final = ("other_prompt", "other_text", "wrong_end")
_HERE: Final = ("no_calibration", "no_noise", "no_referee", "varying")
"""Why nothing was found that is no affair of the driver: such audits are not counted."""


class _Known(NamedTuple):
    """Of one driver with one model."""

    seen: AuditsSeen
    record: Record
    caught: str


_NOTHING: Final = _Known(AuditsSeen(), Record(), "")


class _Proven(NamedTuple):
    """Of one driver."""

    sentence: str
    order: str
    """Its number, in hex."""
    told: bool
    """By somebody else."""


class AuditHistory:
    """Of one node."""

    def __init__(self) -> None:
        self._rows: dict[tuple[bytes, bytes], dict[str, VerdictRow]] = {}
        """Own audits by driver and model, then by order, the oldest first, without proofs."""
        self._known: dict[tuple[bytes, bytes], _Known] = {}
        self._guilty: dict[bytes, _Proven] = {}
        """By driver: what is proven of it, whatever model it was. Those told first are first."""
        self._told: dict[bytes, bytes] = {}
        """By driver: the newest proofs that others told."""
        self._grey: dict[tuple[bytes, bytes], deque[bool]] = {}

    def open(self, rows: Iterable[VerdictRow]) -> None:
        """Remember what was found before, the oldest first."""
        for row in rows:
            self._take(row)
        for key in self._rows:
            self._known[key] = _known(self._rows[key].values())

    def add(self, row: VerdictRow, *, grey: bool = False) -> None:
        """One more audit, or proof of somebody else. `grey`: its first look was not clear."""
        key = row.peer, row.model
        self._take(row)
        if row.told:
            return
        if row.verdict.state != "signed" or grey:
            self._grey.setdefault(key, deque(maxlen=RECENT)).append(grey)
        self._known[key] = _known(self._rows[key].values())

    def _take(self, row: VerdictRow) -> None:
        known = self._guilty.get(row.peer)
        if row.proof and (known is None or known.told or not row.told):
            self._guilty.pop(row.peer, None)
            self._guilty[row.peer] = _Proven(f"It is proven: {_said(row)}.", row.verdict.order, row.told)
        if row.told:
            self._tell(row)
            return
        rows = self._rows.setdefault((row.peer, row.model), {})
        rows.pop(row.verdict.order, None)
        rows[row.verdict.order] = replace(row, proof="")
        if len(rows) > ROWS:
            left = (order for order, one in rows.items() if one.verdict.state != "failed")
            if (oldest := next(left, None)) is not None:
                del rows[oldest]

    def _tell(self, row: VerdictRow) -> None:
        if row.proof:
            self._told.pop(row.peer, None)
            self._told[row.peer] = row.proof.encode()
        if len(self._told) > KEPT:
            del self._told[next(iter(self._told))]
        told = [driver for driver, proven in self._guilty.items() if proven.told]
        if len(told) > TOLD_KEPT:
            del self._guilty[told[0]]

    def seen(self, driver: bytes, model: bytes) -> AuditsSeen:
        """The own audits of this driver with this model."""
        return self._known.get((driver, model), _NOTHING).seen

    def caught(self, driver: bytes, model: bytes) -> str:
        """Why infraxa does not choose this driver with this model any more, as a sentence; empty: it may."""
        if (proven := self._guilty.get(driver)) is not None:
            return proven.sentence
        return self._known.get((driver, model), _NOTHING).caught

    def proof(self, driver: bytes) -> str:
        """The order, in hex, of which a proof shows that this driver lied; empty: there is none."""
        proven = self._guilty.get(driver)
        return "" if proven is None else proven.order

    def told(self) -> dict[bytes, bytes]:
        """The proofs that came from others, by driver, the oldest first; as many as are told on."""
        return dict(self._told)

    def is_guilty(self, driver: bytes) -> bool:
        """A proof of fraud is known."""
        return driver in self._guilty

    def rate(self, driver: bytes, model: bytes, *, compared: bool = True) -> float:
        """Which part of its answers is to be audited. `compared`: with the model; else what can be checked
        without one is worth less with each answer for which it was."""
        seen = self.seen(driver, model)
        grey = sum(self._grey.get((driver, model), ()))
        return verdicts.rate(seen.passed + seen.failed + (0 if compared else seen.fit), grey)


def _known(rows: Iterable[VerdictRow]) -> _Known:
    own = list(rows)
    fit = sum(row.verdict.state == "signed" for row in own)
    counted = [row for row in own if row.verdict.state in _STATES and not _is_here(row.verdict)]
    counts = {state: sum(row.verdict.state == state for row in counted) for state in _STATES}
    apart = [one.ratio for one in _apart(own)[-MOST_UNJUDGED:] if one.ratio is not None]
    last_ms = max((row.at_ms for row in counted), default=0)
    record = Record()
    for row in own:
        record = record.after(None if _is_here(row.verdict) else row.verdict.ratio)
    seen = AuditsSeen(**counts, last_ms=last_ms, fit=fit, apart=tuple(apart))
    return _Known(seen, record, _caught(own, seen, record))


def _caught(own: list[VerdictRow], seen: AuditsSeen, record: Record) -> str:
    """See AuditHistory.caught."""
    if failed := [row for row in own if row.verdict.state == "failed"]:
        return f"It failed an audit: {_said(failed[-1])}."
    if len(_apart(own)) >= MOST_UNJUDGED:
        return "Three audits in a row came to nothing: it names other hardware, and its numbers are far off."
    if record.suspended:
        return "It failed many audits together: its numbers are too far from those of the model."
    if sum(_is_unjudged(row.verdict) for row in own) >= MOST_UNJUDGED:
        return "It could not be judged three times: it names other hardware or another version."
    gone = sum(row.verdict.state == "undetermined" and row.verdict.why == "gone" for row in own)
    if gone >= MOST_GONE and gone > seen.passed:
        return "Too many of its answers could not be audited: it had lost what opens them."
    return ""


_STATES: Final = ("passed", "failed", "undetermined")


def _is_unjudged(verdict: Verdict) -> bool:
    """By its driver's own word; that of a referee excludes nobody."""
    return verdict.state == "undetermined" and verdict.why in _UNJUDGED and verdict.by != "referee"


def _apart(rows: Iterable[VerdictRow]) -> list[Verdict]:
    """Those that other hardware may explain, since the last one that passed. Two referees say so where the
    model is not here."""
    found: list[Verdict] = []
    for row in rows:
        if row.verdict.state == "passed":
            found.clear()
        elif row.verdict.state == "undetermined" and row.verdict.why == "backend":
            found.append(row.verdict)
    return found


def _is_here(verdict: Verdict) -> bool:
    return verdict.state == "undetermined" and verdict.why in _HERE


def _said(row: VerdictRow) -> str:
    reason = REASONS.get(row.verdict.why)
    return reason.done if reason is not None and reason.done else "it cheated"
