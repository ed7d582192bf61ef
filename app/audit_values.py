"""What screens and commands are told of audits. Plain values; how answers are audited is in auditor.py, what
came of one answer is store.records.Verdict."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MOST_REFEREES: Final = 3
"""Of one answer: those that are asked one after the other, once a person agreed or where nobody of this
machine wrote what it answers (canaries); those that say nothing useful included."""


Place = tuple[str, str]
"""Chat and message."""


class AuditsSeen(msgspec.Struct, frozen=True):
    """This node's own audits of one driver with one model."""

    passed: int = 0
    failed: int = 0
    undetermined: int = 0
    last_ms: int = 0
    """When the last one ended; 0: there was none."""
    fit: int = 0
    """Others, without the model: what was opened is what was signed."""
    apart: tuple[float, ...] = ()
    """Ratios of those that other hardware may explain, since the last one that passed."""


class AuditPlan(msgspec.Struct, frozen=True):
    """What an audit of one answer would be, before it is asked for."""

    state: Literal["own", "referee", "checking", "done", "none"]
    """`own`: by this machine, which has the file. `referee`: by another provider, who would see the chat.
    `checking`: one runs. `done`: it has a verdict. `none`: it cannot be audited, see the reason."""
    reason: str = ""
    remedy: str = ""
    referees: int = 0
    """Providers that could be asked."""
    most: int = 0
    """µcr that it costs at most."""
