"""What is known of drivers by audits: how many each passed with each model, how often it is audited next, and
who is not chosen any more for what it was found to have done.

What is on disk is in store/verdicts.py, how an answer is audited in auditor.py. Answers from memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from infraxa.app.audits import AuditsSeen
from infraxa.engine import verdicts
from infraxa.engine.verdicts import Record
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VerdictRow

RECENT: Final = 10
"""Audits of which one that was grey has the next ones made more often."""
_HERE: Final = ("no_calibration", "no_noise", "no_referee", "backend")
"""Why nothing was found that is no affair of the driver: such audits are not counted."""
_SENTENCES: Final = {
    "wrong_token": "it drew a token otherwise than it had signed",
    "wrong_leaf": "it signed steps that are none",
    "two_receipts": "it signed two different receipts for one answer",
    "other_model": "its numbers were not those of the model that it sold",
    "other_prompt": "its model was not given the prompt that was sent",
    "other_text": "its text was not that of the tokens that it had signed",
    "bad_opening": "what it showed was not what it had signed",
}


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


class Audited:
    """Of one node."""

    def __init__(self) -> None:
        self._rows: dict[tuple[bytes, bytes], dict[str, VerdictRow]] = {}
        """By driver and model, then by order, the oldest first."""
        self._known: dict[tuple[bytes, bytes], _Known] = {}
        self._guilty: dict[bytes, _Proven] = {}
        """By driver: what is proven of it, whatever model it was."""
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
        if row.verdict.state != "signed":
            self._grey.setdefault(key, deque(maxlen=RECENT)).append(grey)
        self._known[key] = _known(self._rows[key].values())

    def _take(self, row: VerdictRow) -> None:
        rows = self._rows.setdefault((row.peer, row.model), {})
        rows.pop(row.verdict.order, None)
        rows[row.verdict.order] = row
        if row.proof:
            self._guilty[row.peer] = _Proven(f"It is proven: {_said(row)}.", row.verdict.order)

    def seen(self, driver: bytes, model: bytes) -> AuditsSeen:
        """The own audits of this driver with this model."""
        return self._known.get((driver, model), _NOTHING).seen

    def caught(self, driver: bytes, model: bytes) -> str:
        """Why infraxa does not choose this driver with this model any more, as a sentence; empty: it may."""
        if not self._known:
            return ""
        if (proven := self._guilty.get(driver)) is not None:
            return proven.sentence
        return self._known.get((driver, model), _NOTHING).caught

    def proof(self, driver: bytes) -> str:
        """The order, in hex, of which a proof shows that this driver lied; empty: there is none."""
        proven = self._guilty.get(driver)
        return "" if proven is None else proven.order

    def told(self) -> dict[bytes, bytes]:
        """The proofs that came from others, by driver, the oldest first."""
        rows = [row for orders in self._rows.values() for row in orders.values()]
        rows.sort(key=lambda row: row.at_ms)
        return {row.peer: row.proof.encode() for row in rows if row.proof and row.told}

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
    own = [row for row in rows if not row.told]
    fit = sum(row.verdict.state == "signed" for row in own)
    counted = [row for row in own if row.verdict.state in _STATES and not _is_here(row.verdict)]
    counts = {state: sum(row.verdict.state == state for row in counted) for state in _STATES}
    seen = AuditsSeen(**counts, last_ms=max((row.at_ms for row in counted), default=0), fit=fit)
    record, caught = Record(), ""
    for row in own:
        record = record.after(row.verdict.ratio)
        if row.verdict.state == "failed":
            caught = f"It failed an audit: {_said(row)}."
    if not caught and record.suspended:
        caught = "It failed many audits together: its numbers are too far from those of the model."
    return _Known(seen, record, caught)


_STATES: Final = ("passed", "failed", "undetermined")


def _is_here(verdict: Verdict) -> bool:
    return verdict.state == "undetermined" and verdict.why in _HERE


def _said(row: VerdictRow) -> str:
    return _SENTENCES.get(row.verdict.why, "it cheated")
