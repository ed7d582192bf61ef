"""Whether an answer was computed as was agreed, in words: in the line of facts, and in full below it.

Only what a verdict says is said: a signature is no audit, and what could not be determined is no lie.
"""

from __future__ import annotations

from typing import Final

from textual.content import Content

from infraxa.app import verdict_words
from infraxa.app.audit_reasons import REASONS
from infraxa.app.tui.widgets.driver import named
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.verdict_words import brief, title
from infraxa.store.records import AnswerFacts, Message, Verdict

_RANKS: Final = ("failed", "checking", "undetermined", "unverified", "signed", "passed")
"""The states of verdicts, the one that matters most first: an answer of two drivers is as good as its worse
part."""
_STYLES: Final = {"failed": "$text-error", "passed": "$text-success", "undetermined": "$text-warning"}
QUIET: Final = "$foreground 60%"
_OWN_AFFAIRS: Final = ("no_calibration", "few", "no_referee", "no_noise", "varying")
"""Why nothing was determined that says nothing of the driver."""

_UNTIL: Final = "Within an hour of the answer, and while infraxa stays open, v audits it"


def verdict_text(facts: AnswerFacts) -> str:
    """`audit passed`, `✗ caught lying: wrong token`, `unverified: …`: the one that matters most of its
    orders. Empty when there is nothing more than signatures to tell of."""
    verdict = worst(facts)
    if verdict is None or verdict.state == "signed":
        return ""
    why = "" if verdict.state in ("checking", "passed") else one_line(brief(verdict.why), 40)
    return verdict_words.verdict_text(verdict.state, why, proven=verdict.proof)


def verdict_style(facts: AnswerFacts) -> str:
    """That of `verdict_text`."""
    verdict = worst(facts)
    return QUIET if verdict is None else _style(verdict)


def _style(verdict: Verdict) -> str:
    return QUIET if verdict.why in _OWN_AFFAIRS else _STYLES.get(verdict.state, QUIET)


def worst(facts: AnswerFacts) -> Verdict | None:
    """The verdict that matters most of an answer's orders."""
    return min(facts.verdicts, key=lambda verdict: _RANKS.index(verdict.state), default=None)


def verdict_lines(facts: AnswerFacts | None) -> list[Content]:
    """Each of its verdicts in full."""
    if facts is None:
        return []
    names = {part.id: part.name for part in facts.drivers}
    names |= {reader.id: reader.name for reader in facts.readers}
    paid = {bill.order for bill in facts.bills if bill.charge}
    return [
        _line(verdict, names.get(verdict.driver, ""), paid=verdict.order in paid)
        for verdict in facts.verdicts
    ]


def _line(verdict: Verdict, name: str, *, paid: bool) -> Content:
    order = one_line(verdict.order, 32)[:8]
    parts = [named(name, verdict.driver), f"order {order}"]
    if verdict.opened:
        parts.append(f"{thousands(verdict.opened)} of {thousands(verdict.steps)} steps shown")
    if verdict.ratio is not None:
        parts.append(f"{verdict.ratio:.2f} × honest noise")
    if verdict.by and verdict.why != "no_referee":
        parts.append("checked by this machine" if verdict.by == "own" else "checked by a referee")
    said = Content.styled(" · ".join(parts) + " · ", QUIET)
    said += Content.styled(title(verdict.state, proven=verdict.proof), _style(verdict))
    if full := _full(verdict):
        said += Content.styled(f". {full}.", QUIET)
    if verdict.proof:
        back = " Its charge is taken back." if paid else ""
        said += Content.styled(f"{back} infraxa receipts proof {order} writes the proof.", QUIET)
    return said


def _full(verdict: Verdict) -> str:
    if verdict.state == "signed" and not verdict.why:
        return _UNTIL
    if (reason := REASONS.get(verdict.why)) is None:
        return ""
    return (verdict.by == "referee" and reason.by_referee) or reason.full


def can_audit(message: Message) -> bool:
    """Whether an audit of this answer may find out more."""
    if message.role != "assistant" or message.state == "streaming" or message.facts is None:
        return False
    states = {verdict.state for verdict in message.facts.verdicts}
    return "checking" not in states and not states.isdisjoint(("signed", "undetermined"))
