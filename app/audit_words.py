"""How far the answers of an offer are verified, in words that commands and screens share.

What an audit of one answer found is in words in tui/widgets/verdicts.py.
"""

from __future__ import annotations

from typing import Final, Literal

from infraxa.app.audit_values import AuditsSeen
from infraxa.app.offers import OfferSeen
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE

Wrong = Literal["", "caught", "failed"]
"""What a provider is left for: it was caught lying, which a proof shows, or it failed an audit."""

WRONG_TEXTS: Final[dict[Wrong, str]] = {"caught": "✗ caught lying", "failed": "✗ failed an audit"}


def wrong(caught: str | None, proof: str | None) -> Wrong:
    """Of an offer; see OfferSeen."""
    return "" if not caught else "caught" if proof else "failed"


def wrong_of(offer: OfferSeen) -> Wrong:
    return wrong(offer.caught, offer.proof)


def badge(passed: int, *, offered: bool, wrong: Wrong) -> str:
    """How far the answers of an offer are verified, in at most 8 cells: `✗ caught`, `✗ failed`, `12 ✓`,
    `offered`: none was audited; `–`: none can be. `passed`: audits; `offered`: see `commits`."""
    if wrong:
        return f"✗ {wrong}"
    if passed:
        return f"{min(passed, 9999)} ✓"
    return "offered" if offered else "–"


def badge_of(offer: OfferSeen) -> str:
    return badge(offer.audited.passed, offered=commits(offer), wrong=wrong_of(offer))


def commits(offer: OfferSeen) -> bool:
    """Whether it offers to commit to what it computes."""
    return bool(offer.model.modes & (MODE_MERKLE | MODE_FRAUD_PROOF))


def audits_text(seen: AuditsSeen) -> str:
    """`12 of 14 audits passed · 1 failed · other hardware? 2.31 × honest noise`; empty: there was none."""
    count = seen.passed + seen.failed + seen.undetermined
    if not count:
        return ""
    text = f"{seen.passed:,} of {count:,} audit{'s' * (count != 1)} passed"
    if seen.failed:
        text += f" · {seen.failed:,} failed"
    if seen.apart:
        text += f" · other hardware? {', '.join(f'{ratio:.2f}' for ratio in seen.apart)} × honest noise"
    return text
