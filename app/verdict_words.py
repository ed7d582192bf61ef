"""What is known of how one answer was computed, in words that messages, receipts and commands share.

How far the answers of an offer are verified is in audit_words.py.
"""

from __future__ import annotations

from typing import Final

from infraxa.app.audit_reasons import REASONS
from infraxa.app.audit_words import WRONG_TEXTS

TITLES: Final = {
    "unverified": "unverified",
    "signed": "signed, not audited",
    "checking": "audit running…",
    "passed": "audit passed",
    "failed": WRONG_TEXTS["failed"],
    "undetermined": "undetermined",
}


def title(state: str, *, proven: bool) -> str:
    """`audit passed`, `✗ caught lying`. `state`: of a verdict; `proven`: a proof of it is kept."""
    return WRONG_TEXTS["caught"] if proven else TITLES[state]


def brief(why: str) -> str:
    """A code of store.records.Verdict.why in a few words; one that is not known here as it is written."""
    reason = REASONS.get(why)
    return why.replace("_", " ") if reason is None else reason.brief


def verdict_text(state: str, why: str, *, proven: bool) -> str:
    """`audit passed`, `✗ caught lying: wrong token`. `why`: in words, or empty."""
    said = title(state, proven=proven)
    return f"{said}: {why}" if why else said
