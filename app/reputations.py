"""What is thought of each provider: own answers and what others said, put together by net/reputation.py.

Ratings and counterparties come from whoever has them; here they meet the evidence. Asked anew for each list:
nothing is remembered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from infraxa.app.audit_values import AuditsSeen
from infraxa.net import reputation, routing
from infraxa.net.ratings import Rating, day_of
from infraxa.net.reputation import Counterparty, Score, Weighted
from infraxa.net.routing import Candidate

_NOTHING = reputation.Evidence()
_UNKNOWN = Score()


class Reputations:
    """Where to ask what others say."""

    def __init__(self) -> None:
        self.ratings_of: Callable[[bytes], Iterable[Rating]] = lambda node: ()
        """What was said of a provider."""
        self.counterparties: Mapping[bytes, Counterparty] = {}
        """Whose word weighs, by account key or node id."""

    def said(self, node: bytes) -> list[Weighted]:
        """The ratings of a provider and what they weigh."""
        return reputation.weighed(self.ratings_of(node), self.counterparties)


def opinion(said: Sequence[Weighted], now_ms: int) -> float:
    """What others think of a provider, 1 to 5 stars; the same for all of whom nobody said what weighs."""
    return reputation.score(_NOTHING, said, day_of(now_ms)).opinion if said else reputation.PRIOR_STARS


def score(candidate: Candidate, said: Sequence[Weighted], audits: AuditsSeen, now_ms: int) -> Score:
    """What is shown of a provider with one of its models: whether its answers come whole counts for all that
    it offers, how fast they come for this one."""
    evidence = candidate.evidence
    if not (said or evidence.answered or evidence.failed or audits.passed or audits.failed):
        return _UNKNOWN  # as most are, in a market of thousands
    whole, broken = routing.weights(evidence, now_ms)
    own = reputation.Evidence(
        receipts=evidence.answered,
        whole=whole,
        broken=broken,
        speed=_ratio(evidence.tokens_per_second, candidate.model.speed / 1000),
        first_token=_ratio(candidate.node.first_token_ms, evidence.first_token_ms),
        passed=audits.passed * (kept := routing.weight_of_age(now_ms - audits.last_ms)),
        caught=audits.failed * kept,
    )
    return reputation.score(own, said, day_of(now_ms))


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None
