"""The overlay: whom to link with, whom to accept, whom to let go. A pure state machine.

A node keeps `active` links; at least `own` of them it chose itself, each in another wide group of addresses
(/16, /32), so that nobody who owns one network, or many ids, becomes all of its peers (Heilman et al., USENIX
Security 2015). Whom nobody can dial chooses them all. Two anchors are dialled first after a restart. Inbound
links have caps of their own; when they are full the least useful goes, but never the oldest, the nearest and
the best suppliers, which an attacker cannot all be. Every FEELER_S somebody never tried is dialled; who turns
out better than a useless link takes its place.

An address that a peer tells of is a target that the peer chose. `may_dial` decides which may be dialled at
all (addresses.may_dial), tries.py how often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from msgspec import Struct, structs

from infraxa.net.addresses import LOCAL, Source
from infraxa.net.errors import NetError, Refusal
from infraxa.net.sampling import Candidate
from infraxa.net.standing import Direction as Direction
from infraxa.net.standing import Peer, least_useful
from infraxa.net.tries import Tries

ATTEMPT_S: Final = 30.0
"""A dial of which nothing was heard for so long is over."""
STOOD_S: Final = 60.0
"""A link that ends earlier counts as a failure."""
OWN_ADDRESS_S: Final = 24 * 3600.0
USELESS_AFTER_S: Final = 300.0
USELESS_SHARE: Final = 0.25
"""A link older than USELESS_AFTER_S that supplied less than this share of the median may be replaced."""
BAN_S: Final = 600.0
"""For a peer that became intolerable."""
MAX_BANS: Final = 4096
TRUSTED: Final = ("mdns", "person")


class OverlayLimits(Struct, frozen=True):
    active: int = 8
    """The simulated mean: half of them its own, half dialled by others."""
    own: int = 4
    anchors: int = 2
    local_counted: int = 2
    """Local links that count as its own while there is somebody further away."""
    local_outbound: int = 16
    inbound: int = 64
    inbound_per_group: int = 4
    protected: int = 4
    """Of each kind: oldest, nearest, best suppliers."""
    feeler_s: float = 120.0
    dials_at_once: int = 4


STANDARD: Final = OverlayLimits()


class Dial(Struct, frozen=True):
    """Dial `node` at these addresses, then call `linked` or `failed`."""

    node: bytes
    addresses: tuple[str, ...]
    feeler: bool = False


class _Attempt(Struct, frozen=True):
    addresses: tuple[str, ...]
    groups: frozenset[str]
    trusted: bool
    feeler: bool
    since: float


class Overlay:
    """The links of one node, by a number that the driver gives each, and the dials under way.

    `group_of`: the wide group of an address text, LOCAL for what is not routed globally.
    """

    def __init__(
        self,
        me: bytes,
        rng: random.Random,
        anchors: Sequence[bytes] = (),
        *,
        may_dial: Callable[[str, Source], bool],
        group_of: Callable[[str], str],
        limits: OverlayLimits = STANDARD,
    ) -> None:
        self._me = me
        self._rng = rng
        self._limits = limits
        self._may_dial = may_dial
        self._group_of = group_of
        self._anchors = tuple(anchors)[: limits.anchors]
        self._peers: dict[bytes, Peer] = {}
        self._by_link: dict[int, Peer] = {}
        self._dialing: dict[bytes, _Attempt] = {}
        self._tries = Tries()
        self._banned: dict[bytes, float] = {}
        self._feeler_at = float("-inf")
        self._far = False
        """There is somebody to dial who is not local."""

    @property
    def peers(self) -> tuple[bytes, ...]:
        return tuple(self._peers)

    @property
    def anchors(self) -> tuple[bytes, ...]:
        """The links of its own choice that stood longest, filled up with earlier anchors; to be kept."""
        own = sorted(self._own(), key=lambda peer: peer.since)
        return tuple(dict.fromkeys((*(peer.node for peer in own), *self._anchors)))[: self._limits.anchors]

    def may_accept(self, group: str, now: float) -> Refusal | None:
        """Before a handshake: whether there is room for one more link from `group` (addresses.group)."""
        inbound = [peer for peer in self._peers.values() if peer.direction == "in"]
        if group != LOCAL:
            same = sum(peer.group == group for peer in inbound)
            if same >= self._limits.inbound_per_group:
                return "full"
        full = len(inbound) >= self._limits.inbound
        return "full" if full and least_useful(inbound, self._limits.protected, now) is None else None

    def linked(self, link: int, node: bytes, group: str, direction: Direction, now: float) -> tuple[int, ...]:
        """A link stands and `node` is who it says. Returns the links to close, maybe this one.

        `group`: of the other side's address; addresses.group for `in`, wide_group for `out`.
        """
        attempt = self._dialing.pop(node, None) if direction == "out" else None
        if attempt is not None:
            for address in attempt.addresses:
                self._tries.ended(address, "linked", attempt.trusted, now)
        if node == self._me:
            for address in attempt.addresses if attempt else ():
                self._tries.never(address, now + OWN_ADDRESS_S)
            return (link,)
        if self.banned(node, now):
            return (link,)
        peer = Peer(link, node, group, direction, now)
        if attempt is not None:
            peer.addresses, peer.trusted = attempt.addresses, attempt.trusted
        other = self._peers.get(node)
        if other is not None:
            if other.direction != direction:
                dialler = self._me if direction == "out" else node
                if dialler != min(self._me, node):
                    return (link,)
            peer.since, peer.standing, peer.rtt_ms = other.since, other.standing, other.rtt_ms
            self._remove(other)
        out = [other.link] if other is not None else []
        self._add(peer)
        if direction == "in":
            out.extend(self._make_room(peer, now))
        elif attempt is not None and attempt.feeler:
            out.extend(self._after_feeler(peer, now))
        return tuple(out)

    def unlinked(self, link: int, now: float) -> None:
        """A link ended, whoever ended it. Unknown ones are none of the view's: they were to be closed."""
        peer = self._by_link.get(link)
        if peer is None:
            return
        self._remove(peer)
        for address in peer.addresses:
            self._tries.ended(address, "lost" if now - peer.since >= STOOD_S else "failed", peer.trusted, now)

    def failed(self, node: bytes, now: float) -> None:
        """A dial came to nothing."""
        attempt = self._dialing.pop(node, None)
        for address in attempt.addresses if attempt else ():
            self._tries.ended(address, "failed", attempt is not None and attempt.trusted, now)

    def measured(self, node: bytes, rtt_ms: float) -> None:
        if node in self._peers:
            self._peers[node].rtt_ms = rtt_ms

    def supplied(self, node: bytes, records: int, now: float) -> None:
        """`node` brought so many records before anybody else."""
        if node in self._peers:
            self._peers[node].standing.supplied(records, now)

    def refused(self, node: bytes, reason: Refusal, now: float) -> int | None:
        """Something of `node` was refused. Returns its link when that is to be closed."""
        peer = self._peers.get(node)
        if peer is None:
            return None
        peer.standing.refused(reason, now)
        if peer.standing.tolerable(now):
            return None
        self.ban(node, BAN_S, now)
        return peer.link

    def good_standing(self, node: bytes, now: float) -> bool:
        """Whether what `node` says of others is followed: peer exchange."""
        return node in self._peers and self._peers[node].standing.good(now)

    def ban(self, node: bytes, seconds: float, now: float) -> None:
        if len(self._banned) >= MAX_BANS:
            self._banned = {other: until for other, until in self._banned.items() if now < until}
        while len(self._banned) >= MAX_BANS:
            del self._banned[min(self._banned, key=self._banned.__getitem__)]
        self._banned[node] = now + seconds

    def banned(self, node: bytes, now: float) -> bool:
        return now < self._banned.get(node, now)

    def wanted(self, now: float, candidates: Iterable[Candidate]) -> tuple[Dial, ...]:
        """Whom to dial now. Call it every second or two, and when a link ended."""
        for node, attempt in list(self._dialing.items()):
            if now - attempt.since >= ATTEMPT_S:
                self.failed(node, now)
        feel = now >= self._feeler_at
        if self._missing(True) <= 0 and not feel:
            return ()
        options = self._options(candidates, now)
        far = self._far = any(option.groups != {LOCAL} for _, option in options)
        dials: list[Dial] = []
        for candidate, option in options:
            if self._missing(far) <= 0 or len(self._dialing) >= self._limits.dials_at_once:
                break
            # Another one of these may just have been dialled at the same host.
            free = all(self._tries.may_try(one, option.trusted, now) for one in option.addresses)
            if free and self._free(option.groups):
                dials.append(self._dial(candidate.node, option))
        if feel and not dials and self._missing(far) <= 0:
            self._feeler_at = now + self._limits.feeler_s * self._rng.uniform(0.9, 1.1)
            for candidate, option in options:
                if not candidate.tried and self._free(option.groups):
                    dials.append(self._dial(candidate.node, structs.replace(option, feeler=True)))
                    break
        return tuple(dials)

    def sampled(self, candidate: Candidate, now: float) -> Dial | None:
        """A dial for another purpose than this view, of a node that no person named: by the same rules, but
        it may be one more in its group. None when it may not be dialled now."""
        option = next((option for _, option in self._options((candidate,), now)), None)
        return self._dial(candidate.node, option) if option is not None else None

    def _options(self, candidates: Iterable[Candidate], now: float) -> list[tuple[Candidate, _Attempt]]:
        """Whoever may be dialled, and where: anchors first, then those that others than gossip told of, then
        in turn one that was spoken to before and one that was not."""
        found: list[tuple[Candidate, _Attempt]] = []
        for candidate in candidates:
            node = candidate.node
            if node == self._me or node in self._peers or node in self._dialing or self.banned(node, now):
                continue
            trusted = candidate.source in TRUSTED or candidate.tried
            usable = (
                address
                for address in candidate.addresses
                if self._tries.may_try(address, trusted, now) and self._allowed(address, candidate.source)
            )
            addresses = self._tries.one_each(usable, trusted)
            groups = frozenset(self._group_of(address) for address in addresses)
            if addresses:
                found.append((candidate, _Attempt(addresses, groups, trusted, False, now)))
        self._rng.shuffle(found)
        places = {True: 0, False: 1}

        def rank(option: tuple[Candidate, _Attempt]) -> tuple[int, int]:
            candidate = option[0]
            if candidate.node in self._anchors:
                return (0, 0)
            if candidate.source in TRUSTED:
                return (1, 0)
            places[candidate.tried] += 2
            return (2, places[candidate.tried])

        return sorted(found, key=rank)

    def _allowed(self, address: str, source: Source) -> bool:
        try:
            return self._may_dial(address, source)
        except NetError:
            return False  # a text that is no address

    def _missing(self, far: bool) -> int:
        """How many links of its own choice are missing; those being dialled count as there. `far`: there is
        somebody to dial who is not local, so that a LAN cannot be the whole view."""
        limits = self._limits
        groups = [{peer.group} for peer in self._own()]
        inbound = len(self._peers) - len(groups)
        groups += [set(attempt.groups) for attempt in self._dialing.values() if not attempt.feeler]
        local = groups.count({LOCAL})
        outbound = len(groups) - (max(0, local - limits.local_counted) if far else 0)
        return max(limits.own, limits.active - inbound) - outbound

    def _free(self, groups: frozenset[str]) -> bool:
        """Whether one more link of its own choice may lead there."""
        taken = [peer.group for peer in self._own()]
        taken += [group for attempt in self._dialing.values() for group in attempt.groups]
        return all(
            taken.count(group) < (self._limits.local_outbound if group == LOCAL else 1) for group in groups
        )

    def _dial(self, node: bytes, attempt: _Attempt) -> Dial:
        self._dialing[node] = attempt
        for address in attempt.addresses:
            self._tries.started(address, attempt.trusted, attempt.since)
        return Dial(node, attempt.addresses, attempt.feeler)

    def _own(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.direction == "out"]

    def _add(self, peer: Peer) -> None:
        self._peers[peer.node] = self._by_link[peer.link] = peer

    def _remove(self, peer: Peer) -> None:
        del self._by_link[peer.link]
        del self._peers[peer.node]

    def _make_room(self, new: Peer, now: float) -> tuple[int, ...]:
        """After one more inbound link: which one goes."""
        inbound = [peer for peer in self._peers.values() if peer.direction == "in"]
        same = sum(peer.group == new.group for peer in inbound)
        if new.group != LOCAL and same > self._limits.inbound_per_group:
            self._remove(new)
            return (new.link,)
        if len(inbound) <= self._limits.inbound:
            return ()
        others = [peer for peer in inbound if peer is not new]
        least = least_useful(others, self._limits.protected, now) or new
        self._remove(least)
        return (least.link,)

    def _after_feeler(self, new: Peer, now: float) -> tuple[int, ...]:
        """A node that was dialled only to see whether it is there: it stays if somebody useless can go."""
        own = [peer for peer in self._own() if peer is not new]
        supplies = [peer.standing.supply(now) for peer in own]
        old = [peer for peer in own if now - peer.since >= USELESS_AFTER_S]
        worst = min(old, key=lambda peer: peer.standing.score(now), default=None)
        if worst is None or worst.standing.score(now) >= USELESS_SHARE * median(supplies):
            if self._missing(self._far) >= 0:
                return ()
            worst = new
        self._remove(worst)
        return (worst.link,)
