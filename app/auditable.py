"""An answer that can be audited, and what is known of it so far. Whether it is audited is auditor.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from infraxa.app.audit_values import Place
from infraxa.app.examining import Openings
from infraxa.app.verifying import Kept
from infraxa.app.votes import Vote
from infraxa.net import deals
from infraxa.net.codec import Signed
from infraxa.store.records import Verdict

LATE_S: Final = 60.0
"""So long before it is dropped no driver is asked any more: its hour may have begun before this node's."""


class Answer:
    """One that can be audited."""

    def __init__(self, kept: Kept, place: Place | None, expires: asyncio.TimerHandle) -> None:
        self.kept = kept
        self.place = place
        self.expires = expires
        self.until = expires.when() - LATE_S
        """Until then its driver can be asked to open it."""
        self.signed: Signed | None = None
        """Its receipt."""
        self.receipt: deals.Receipt | None = None
        self.canary = False
        """Nobody wanted it: referees may read it."""
        self.considered = False
        self.busy = False
        """An audit of it runs, or is about to."""
        self.wanted = False
        """The person asked for that audit."""
        self.waits = False
        """It has come so far as it can before the model is loaded."""
        self.quiet = asyncio.Event()
        """It was decided whether it is audited, and if so, the audit is over, or waits."""
        self.counted = False
        """An audit of it came to something."""
        self.openings = Openings()
        self.near: Vote | None = None
        """What the model of this machine found, where that was too close to call."""
        self.verdict: Verdict | None = None
        """As it was told last."""

    @property
    def state(self) -> str:
        return "" if self.verdict is None else self.verdict.state

    @property
    def steps(self) -> int:
        """That its receipt says were computed; 0 before there is one."""
        said = None if self.receipt is None else self.receipt.transcript
        return 0 if said is None else said.steps


def drivers_of(answers: Iterable[Answer]) -> frozenset[bytes]:
    return frozenset(answer.kept.provider for answer in answers)
