"""Linked peers and how they have behaved: what they supplied, what they were refused; both fade.

Only what is cheap to judge and dear to fake: records that it brought first, and broken rules. What a peer
failed to bring is not held against it; that punishes quiet networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from infraxa.net.errors import Refusal

Direction = Literal["in", "out"]

FADE_PER_S: Final = 0.9**0.1
"""A tenth in ten seconds, half in 66 (gossipsub v1.1's decay)."""
MAX_SUPPLY: Final = 1000.0
BAD: Final = 10.0
"""From here on a peer is not in good standing: nothing it says about others is followed."""
INTOLERABLE: Final = 50.0
PENALTIES: Final[dict[Refusal, float]] = {
    "malformed": 10,
    "too_large": 10,
    "bad_signature": 50,
    "not_asked": 10,
    "not_allowed": 5,
    "equivocation": 25,
    "version": 1,
    "network": 5,
    # An honest peer can run into these: after a cut has healed, or when its table is not up to date.
    "rate": 0.1,
    "stale": 0.1,
    "full": 0.1,
}
OTHER_PENALTY: Final = 1.0


class Fading:
    """A sum whose parts fade."""

    __slots__ = ("_at", "_sum")

    def __init__(self) -> None:
        self._sum = 0.0
        self._at = 0.0

    def at(self, now: float) -> float:
        return self._sum * float(FADE_PER_S ** max(0.0, now - self._at))

    def add(self, amount: float, now: float, most: float = float("inf")) -> None:
        self._sum = min(most, self.at(now) + amount)
        self._at = now


class Standing:
    """Of one peer."""

    __slots__ = ("_offences", "_supply")

    def __init__(self) -> None:
        self._supply = Fading()
        self._offences = Fading()

    def supplied(self, records: int, now: float) -> None:
        self._supply.add(records, now, MAX_SUPPLY)

    def refused(self, reason: Refusal, now: float) -> None:
        self._offences.add(PENALTIES.get(reason, OTHER_PENALTY), now)

    def supply(self, now: float) -> float:
        return self._supply.at(now)

    def score(self, now: float) -> float:
        return self._supply.at(now) - self._offences.at(now)

    def good(self, now: float) -> bool:
        return self._offences.at(now) < BAD

    def tolerable(self, now: float) -> bool:
        return self._offences.at(now) < INTOLERABLE


class Peer:
    """A linked node."""

    __slots__ = ("addresses", "direction", "group", "link", "node", "rtt_ms", "since", "standing", "trusted")

    def __init__(self, link: int, node: bytes, group: str, direction: Direction, now: float) -> None:
        self.link = link
        self.node = node
        self.group = group
        self.direction = direction
        self.since = now
        self.rtt_ms = float("inf")
        self.standing = Standing()
        self.addresses: tuple[str, ...] = ()
        """Where it was dialled."""
        self.trusted = False


def least_useful(inbound: Sequence[Peer], count: int, now: float) -> Peer | None:
    """Whom to let go when there are too many: never the `count` oldest, nearest and best suppliers; None when
    there is nobody else."""
    protected = {
        peer.node
        for best in (
            sorted(inbound, key=lambda peer: peer.since),
            sorted(inbound, key=lambda peer: peer.rtt_ms),
            sorted(inbound, key=lambda peer: -peer.standing.supply(now)),
        )
        for peer in best[:count]
    }
    crowd = Counter(peer.group for peer in inbound)
    # Of those that supplied nothing yet the newest of the largest crowd: a flood pushes out itself.
    return min(
        (peer for peer in inbound if peer.node not in protected),
        key=lambda peer: (round(peer.standing.score(now)), -crowd[peer.group], -peer.since),
        default=None,
    )
