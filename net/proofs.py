"""How proofs of fraud reach everybody: told from link to link, and to whoever has linked newly. A pure state
machine, which gossip.py owns.

A proof shows by itself that a provider lied, so it needs no signature of who tells it. What is in one, and
whether it holds, is judged by a check that is given from outside; what does not hold costs its teller as much
as a forged record. One proof of each provider is kept and handed on once, to some links and not to all, its
first teller's own too: nobody sees by it whose answer it was. There are no rounds of anti-entropy: whoever
was away when a proof was told gets some of those that its new links keep.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Final

from infraxa.net.commands import Command, Drop, Refused, Send
from infraxa.net.errors import ProtocolError
from infraxa.net.intake import BAN_S
from infraxa.net.rates import Bucket
from infraxa.net.spreading import FANOUT
from infraxa.net.wire import MAX_PROOF, Proof

KEPT: Final = 256
"""Proofs, one of each provider: 2 MB at most. The oldest goes first."""
JOIN: Final = 12
JOIN_S: Final = 30.0
"""Of those that are kept, what a new link is told, and when: once its node has heard of others."""
LINK_PER_S: Final = 0.1
LINK_AT_ONCE: Final = 24
"""Proofs that were not seen before, of one link: each costs a check, about 2 ms."""
ALL_PER_S: Final = 2.0
ALL_AT_ONCE: Final = 64
"""Of all links together. What is beyond is left, and comes with another link or never."""
SEEN: Final = 4096
"""Hashes of proofs that were judged."""

Check = Callable[[bytes], bytes | None]
"""Who is guilty by a proof; None: it does not hold. Raises ProtocolError `version` for one of a kind that is
not known here, which is nobody's fault."""
OnCaught = Callable[[bytes, bytes], None]
"""Told of a provider, and of the proof against it."""


class _Link:
    __slots__ = ("out", "outbound", "room", "tell_at")

    def __init__(self, outbound: bool, now: float) -> None:
        self.outbound = outbound
        self.tell_at = now + JOIN_S
        self.room = Bucket(LINK_PER_S, LINK_AT_ONCE)
        # A tenth less than the other side allows.
        self.out = Bucket(0.9 * LINK_PER_S, 0.9 * LINK_AT_ONCE)


class Proofs:
    """The proofs of one node, and its links. `on_network`: whether a provider's card is here; of others
    nothing is kept, since anybody can make keys that accuse themselves."""

    def __init__(self, on_network: Callable[[bytes], bool], rng: random.Random) -> None:
        self.check: Check | None = None
        """None: proofs are neither believed nor handed on."""
        self.on_caught: OnCaught = lambda provider, proof: None
        self._on_network = on_network
        self._rng = rng
        self._links: dict[bytes, _Link] = {}
        self._all = Bucket(ALL_PER_S, ALL_AT_ONCE)
        self._kept: dict[bytes, bytes] = {}
        """By provider, the oldest first."""
        self._seen: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def restore(self, proofs: Mapping[bytes, bytes]) -> None:
        """Those that an earlier run was told by others and judged, by provider, the oldest first."""
        for provider, proof in proofs.items():
            self._put(provider, proof)

    def linked(self, peer: bytes, outbound: bool, now: float) -> None:
        """A link with `peer` stands."""
        self._links.setdefault(peer, _Link(outbound, now)).outbound = outbound

    def unlinked(self, peer: bytes) -> None:
        self._links.pop(peer, None)

    def tick(self, now: float) -> list[Command]:
        """What new links are told."""
        out: list[Command] = []
        for peer, link in self._links.items():
            if now >= link.tell_at:
                link.tell_at = float("inf")
                here = [proof for provider, proof in self._kept.items() if self._on_network(provider)]
                told = self._rng.sample(here, min(JOIN, len(here)))
                out += [Send(peer, Proof(proof)) for proof in told if link.out.take(1, now)]
        return out

    def next_tick(self) -> float:
        return min((link.tell_at for link in self._links.values()), default=float("inf"))

    def receive(self, peer: bytes, proof: bytes, now: float) -> list[Command]:
        """What `peer` told unasked."""
        item = _hash(proof)
        if self.check is None or item in self._seen:
            return []
        if not self._links[peer].room.take(1, now):
            return [Refused(peer, "rate")]
        if not self._all.take(1, now):
            return []
        try:
            provider = self.check(proof)
        except ProtocolError as error:
            if error.reason == "version":
                self._see(item)
                return []
            provider = None
        if provider is None:
            return _forged(peer)
        return self._keep(provider, proof, peer, now)

    def publish(self, proof: bytes, now: float) -> list[Command]:
        """A proof that this node has. It goes on as if another node had told it. Raises ProtocolError for
        what does not hold."""
        provider = None if self.check is None or len(proof) > MAX_PROOF else self.check(proof)
        if provider is None:
            raise ProtocolError("malformed", "a proof that does not hold")
        return self._keep(provider, proof, None, now)

    def _keep(self, provider: bytes, proof: bytes, source: bytes | None, now: float) -> list[Command]:
        if not self._on_network(provider):
            return []  # its card may come yet
        if not self._put(provider, proof):
            return []
        self.on_caught(provider, proof)
        return self._hand_on(proof, {source, provider}, now)

    def _put(self, provider: bytes, proof: bytes) -> bool:
        """Whether it is the first of this provider."""
        self._see(_hash(proof))
        if provider in self._kept:
            return False
        self._kept[provider] = proof
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return True

    def _hand_on(self, proof: bytes, but: set[bytes | None], now: float) -> list[Command]:
        """To half of the links, at least FANOUT, and to two that this node chose itself."""
        others = [peer for peer in self._links if peer not in but]
        order = self._rng.sample(others, len(others))
        chosen = [peer for peer in order if self._links[peer].outbound][:2]
        order = chosen + [peer for peer in order if peer not in chosen]
        ready = [peer for peer in order if self._links[peer].out.has(1, now)]
        told = ready[: max(FANOUT, (len(order) + 1) // 2)]
        for peer in told:
            self._links[peer].out.take(1, now)
        return [Send(peer, Proof(proof)) for peer in told]

    def _see(self, item: bytes) -> None:
        self._seen[item] = None
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]


def _hash(proof: bytes) -> bytes:
    return hashlib.sha256(proof).digest()[:16]


def _forged(peer: bytes) -> list[Command]:
    return [Refused(peer, "bad_signature"), Drop(peer, "bad_signature", BAN_S)]
