"""What the market shows: one offer of one node, and what this machine has seen of it. Plain values.

How offers are gathered and chosen from is in drivers.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infraxa.app.audit_values import AuditsSeen
from infraxa.net.records import ModelOffer
from infraxa.net.status import SeenNode

Mark = Literal["", "pinned", "blocked"]
"""What the person said of a provider."""


class OfferSeen(msgspec.Struct, frozen=True, gc=False):
    """A model of a node. `gc`: lists of thousands are made again and again, and a value is in no cycle."""

    node: SeenNode
    model: ModelOffer
    price_in: int
    """µcr per 1M prompt tokens, now."""
    price_out: int
    mark: Mark = ""
    answered: int = 0
    """Answers that came from it whole; all counts are of this machine's own requests."""
    failed: int = 0
    success: float | None = None
    """Share of its answers that came whole, newer ones weigh more; None: none was asked for."""
    first_token_ms: float | None = None
    """Measured here; that of the node's own claim is in `node`."""
    tokens_per_second: float | None = None
    stars: float | None = None
    """1 to 5 by own answers and the ratings that weigh; None: nothing of it is known."""
    ratings: int = 0
    """Ratings by those with whom this node has business; they weigh."""
    unweighted: int = 0
    """Ratings by anybody else; they move nothing."""
    new: bool = True
    """Fewer whole answers came from the provider than make it known."""
    cooling_s: float = 0.0
    """For so long it is not chosen by itself, after a fault of its own."""
    problem: str = ""
    """Why it cannot be the driver now; one sentence."""
    audited: AuditsSeen = AuditsSeen()
    """What came of this node's audits of its answers with this model."""
    caught: str = ""
    """Why it is not chosen by itself: what an audit or a proof has shown; one sentence."""
    proof: str = ""
    """The number of the order of which a proof of its lie is kept, in hex; empty: there is none."""

    def same_as(self, other: OfferSeen) -> bool:
        """The same model of the same node."""
        return (self.node.id, self.model.model_id) == (other.node.id, other.model.model_id)

    @property
    def has_room(self) -> bool:
        """It may be chosen now, as far as it says."""
        return not (self.problem or self.caught or self.cooling_s) and self.node.status == "online"
