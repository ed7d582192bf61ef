"""What audits found of an answer of `infraxa ask`: waits until they are through, and says it in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from infraxa.app.audit_reasons import REASONS
from infraxa.app.errors import FAILURES
from infraxa.app.facade import NodeFacade
from infraxa.app.verdict_words import brief, verdict_text
from infraxa.store.records import Bill, Verdict

AUDIT_S: Final = 5.0
"""For an audit to be through, once the receipt is signed."""


async def verdicts_of(node: NodeFacade, bills: Iterable[Bill], seconds: float = AUDIT_S) -> list[Verdict]:
    """What is known of these orders, once no audit of them runs, or so many seconds have passed."""
    try:
        return await node.list_verdicts(tuple(bill.order for bill in bills), seconds)
    except FAILURES:
        return []  # the answer is whole, and its receipt tells what was found


def found(verdict: Verdict) -> str:
    """In one sentence, without its dot; nothing where nothing was looked at."""
    shown = f"{verdict.opened} of {verdict.steps} steps shown"
    match verdict.state:
        case "signed" if verdict.opened and (reason := REASONS.get(verdict.why)):
            return f"audit: {shown}. {reason.full}"
        case "passed":
            return f"audit passed: {shown}, and compared with the model"
        case "checking" if verdict.opened:
            return f"audit: {shown}; the model has not computed them again yet"
        case "checking":
            return "not audited: the driver has not shown its steps yet"
        case "failed" | "undetermined":
            said = verdict_text(verdict.state, brief(verdict.why), proven=verdict.proof)
            return (
                f"{said}; infraxa receipts proof {verdict.order} writes the proof" if verdict.proof else said
            )
    return ""
