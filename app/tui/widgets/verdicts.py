"""Whether an answer was computed as was agreed, in words: in the line of facts, and in full below it.

Only what a verdict says is said: a signature is no audit, and what could not be determined is no lie.
"""

from __future__ import annotations

from typing import Final

from textual.content import Content

from infraxa.app.audit_words import WRONG_TEXTS
from infraxa.app.tui.widgets.driver import named
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.store.records import AnswerFacts, Message, Verdict

_RANKS: Final = ("failed", "checking", "undetermined", "unverified", "signed", "passed")
"""The states of verdicts, the one that matters most first: an answer of two drivers is as good as its worse
part."""
_STYLES: Final = {"failed": "$text-error", "passed": "$text-success", "undetermined": "$text-warning"}
QUIET: Final = "$foreground 60%"
_OWN_AFFAIRS: Final = ("no_calibration", "few", "no_referee", "no_noise", "varying")
"""Why nothing was determined that says nothing of the driver."""

_WHY: Final = {
    "sampling": "its sampling cannot be checked",
    "not_offered": "its driver commits to nothing",
    "own_setting": "turned off in Settings",
    "no_calibration": "its model is measured first",
    "backend": "other hardware computed it",
    "silent": "the driver did not show its steps",
    "gone": "its steps are not kept any more",
    "few": "too few tokens",
    "near": "too close to call",
    "varying": "its template varies",
    "no_referee": "no referee computed it",
    "no_noise": "its noise is not known here",
    "one_referee": "nobody confirmed a referee",
    "disagree": "referees do not agree",
    "wrong_token": "wrong token",
    "wrong_leaf": "forged steps",
    "two_receipts": "two receipts",
    "other_model": "another model",
    "other_prompt": "another prompt",
    "other_text": "another text",
    "bad_opening": "its steps do not fit",
}
"""Why, in the line of facts."""
_IN_FULL: Final = {
    "sampling": "An own seed, penalties, formats and forced calls of tools are not part of what is checked",
    "not_offered": "The driver does not offer to commit to its steps: nothing can be checked afterwards",
    "own_setting": "The setting verify is none: nothing was asked for that can be checked",
    "no_file": "Its steps were checked; its numbers were not: the model's file is not here",
    "not_loaded": "Its steps were checked; its numbers were not: the model is not loaded here",
    "no_calibration": "How much honest machines differ by with this model is being measured here: it is "
    "audited after that",
    "backend": "Other hardware computes other numbers, and how far they may be apart is not known",
    "silent": "The driver did not show the steps that it was asked for",
    "gone": "The driver says that it does not keep the steps of this answer any more, as after a restart",
    "few": "The answer has too few tokens to tell noise from another model",
    "varying": "The template of this model puts in the time or something random: its prompt cannot be put "
    "together again",
    "near": "Its numbers are farther off than honest ones mostly are, and not as far as a lie's",
    "no_referee": "No referee computed it: those that were asked refused, failed or could not be reached",
    "no_noise": "How much honest machines differ by with this model cannot be measured here",
    "one_referee": "One referee found other numbers than the model's, and no second one confirmed it: one "
    "alone condemns nobody",
    "disagree": "Some referees found other numbers than the model's, and others did not",
    "wrong_token": "A token is not the one that the driver's own numbers choose",
    "wrong_leaf": "What the driver committed as a step of the answer is none",
    "two_receipts": "The driver signed two different receipts for one answer",
    "other_model": "The numbers are not those of the model that was sold",
    "other_prompt": "The driver's model was not given the prompt that was sent",
    "other_text": "The text is not that of the tokens that the driver signed",
    "bad_opening": "What the driver showed does not fit what it had signed and sent",
}
_BY_REFEREE: Final = {
    "no_noise": "Neither this machine nor the referee knows yet how much honest machines differ by with this "
    "model; ask again in a while",
}
"""In place of those above."""
_UNTIL: Final = "Within an hour of the answer, and while infraxa stays open, v audits it"
_TITLES: Final = {
    "unverified": "unverified",
    "signed": "signed, not audited",
    "checking": "audit running…",
    "passed": "audit passed",
    "failed": WRONG_TEXTS["failed"],
    "undetermined": "undetermined",
}


def verdict_text(facts: AnswerFacts) -> str:
    """`audit passed`, `✗ caught lying: wrong token`, `unverified: …`: the one that matters most of its
    orders. Empty when there is nothing more than signatures to tell of."""
    verdict = worst(facts)
    if verdict is None or verdict.state == "signed":
        return ""
    title = _title(verdict)
    why = "" if verdict.state in ("checking", "passed") else _why(verdict)
    return f"{title}: {why}" if why else title


def _title(verdict: Verdict) -> str:
    return WRONG_TEXTS["caught"] if verdict.proof else _TITLES[verdict.state]


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
    said += Content.styled(_title(verdict), _style(verdict))
    if full := _full(verdict):
        said += Content.styled(f". {full}.", QUIET)
    if verdict.proof:
        back = " Its charge is taken back." if paid else ""
        said += Content.styled(f"{back} infraxa receipts proof {order} writes the proof.", QUIET)
    return said


def _full(verdict: Verdict) -> str:
    if verdict.state == "signed" and not verdict.why:
        return _UNTIL
    texts = _IN_FULL | _BY_REFEREE if verdict.by == "referee" else _IN_FULL
    return texts.get(verdict.why, "")


def _why(verdict: Verdict) -> str:
    """In a few words; a reason that is not known here is said as it is written."""
    return _WHY.get(verdict.why, one_line(verdict.why, 40).replace("_", " "))


def can_audit(message: Message) -> bool:
    """Whether an audit of this answer may find out more."""
    if message.role != "assistant" or message.state == "streaming" or message.facts is None:
        return False
    states = {verdict.state for verdict in message.facts.verdicts}
    return "checking" not in states and not states.isdisjoint(("signed", "undetermined"))
