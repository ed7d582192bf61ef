"""How far the answers of an offer are verified, in words that commands and screens share.

What an audit of one answer found is in words in tui/widgets/verdicts.py.
"""

from __future__ import annotations

from infraxa.app.audits import AuditsSeen
from infraxa.app.offers import OfferSeen
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE


def badge(passed: int, *, signs: bool, caught: bool) -> str:
    """How far the answers of an offer are verified, in at most 8 cells: `✗ caught`, `12 ✓`, `signed`; `–`: it
    commits to nothing. `passed`: audits; `signs`: see `commits`."""
    if caught:
        return "✗ caught"
    if passed:
        return f"{min(passed, 9999)} ✓"
    return "signed" if signs else "–"


def badge_of(offer: OfferSeen) -> str:
    return badge(offer.audited.passed, signs=commits(offer), caught=bool(offer.caught))


def commits(offer: OfferSeen) -> bool:
    """Whether it offers to commit to what it computes."""
    return bool(offer.model.modes & (MODE_MERKLE | MODE_FRAUD_PROOF))


def audits_text(seen: AuditsSeen) -> str:
    """`12 of 14 audits passed · 1 failed`; empty: there was none."""
    count = seen.passed + seen.failed + seen.undetermined
    if not count:
        return ""
    text = f"{seen.passed:,} of {count:,} audit{'s' * (count != 1)} passed"
    return f"{text} · {seen.failed:,} failed" if seen.failed else text
