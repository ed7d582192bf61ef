"""What gossip wants of whoever drives it, as values."""

from __future__ import annotations

from msgspec import Struct

from infraxa.net.errors import Refusal
from infraxa.net.records import State
from infraxa.net.wire import Tell


class Send(Struct, frozen=True):
    """Tell `peer` this. It may be lost: anti-entropy heals that."""

    peer: bytes
    message: Tell


class Sync(Struct, frozen=True):
    """Run one round of anti-entropy with `peer`: `gossip.round(peer, now)`."""

    peer: bytes


class SyncRatings(Struct, frozen=True):
    """Likewise for ratings: `gossip.ratings.round(peer, now)`."""

    peer: bytes


class Changed(Struct, frozen=True):
    """There is news of a node: card, state, or it is not there any more."""

    node: bytes


class Drop(Struct, frozen=True):
    """End the link with `peer` and refuse it for so long."""

    peer: bytes
    reason: Refusal
    ban_s: float


class Refused(Struct, frozen=True):
    """Something of `peer` was refused: of the peer that brought it, of its signer for `equivocation`."""

    peer: bytes
    reason: Refusal


class HeartbeatDue(Struct, frozen=True):
    """Sign this state, numbered as it is or higher, and `gossip.publish` it."""

    state: State


class CardDue(Struct, frozen=True):
    """Sign and publish a card of this number or higher: an older run's, or somebody else's with this key, has
    the number before."""

    seq: int


Command = Send | Sync | SyncRatings | Changed | Drop | Refused | HeartbeatDue | CardDue
