"""Being reached: asks peers to dial this node back, dials others back, maps a port, keeps places at relays.

What the answers mean is decided in reach.py; the relay itself is in relay.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from infraxa.net import addresses, codec
from infraxa.net.connect import Target
from infraxa.net.dialer import Dialer
from infraxa.net.errors import NetError, Refusal
from infraxa.net.finder import Finder
from infraxa.net.gossip import Gossip
from infraxa.net.identity import short_id
from infraxa.net.link import FAILED, Clock, Link, Stream
from infraxa.net.peering import Peer, Peering
from infraxa.net.reach import ASK_S, Decision, DialBacks, Reach
from infraxa.net.records import FEATURE_RELAY
from infraxa.net.relay import RelayTransport, is_relayed
from infraxa.net.sampling import Candidate
from infraxa.net.tasks import TaskGroup
from infraxa.net.wire import DialBack, DialedBack, Failure

RELAYS: Final = 2
"""Places kept at once: one may go away."""
RELAY_AGAIN_S: Final = 30.0
"""Until a relay is looked for again."""
RELAY_TRIES: Final = 3
"""Nodes that are asked for a place each time."""
BACK_S: Final = 6.0
"""For a dial-back. Less than ASK_S, for which who asked waits: most that cannot be reached are behind what
drops packets without a word."""

_log = logging.getLogger(__name__)


class Reaching:
    """Carries out what Reach decides. `on_decision` is told when the card or the status has to change."""

    def __init__(
        self,
        port: int,
        *,
        gossip: Gossip,
        peering: Peering,
        finder: Finder,
        dialer: Dialer,
        relayed: RelayTransport,
        clock: Clock,
        on_decision: Callable[[], None],
    ) -> None:
        self._gossip = gossip
        self._peering = peering
        self._finder = finder
        self._dialer = dialer
        self._relayed = relayed
        self._clock = clock
        self._on_decision = on_decision
        self._reach = Reach(port, clock.monotonic())
        self._backs = DialBacks()
        self._tasks = TaskGroup()
        self._news = asyncio.Event()
        self._places: dict[bytes, Link] = {}
        self._relay_at = float("-inf")
        self._asked_at: dict[bytes, float] = {}
        self._seeking: asyncio.Task[None] | None = None
        self.decision: Decision = self._reach.decide(clock.monotonic())
        self._told = (self.decision, self.relays)

    @property
    def relays(self) -> tuple[bytes, ...]:
        """Nodes that keep a place for this one, for its card."""
        return tuple(sorted(self._places))

    def start(self) -> None:
        self._tasks.repeat(self._turn, name="reachability", pause_s=RELAY_AGAIN_S)

    async def close(self) -> None:
        await self._tasks.cancel_all()

    def cards(self, hosts: tuple[str, ...]) -> None:
        """This machine has these addresses now."""
        self._reach.cards(hosts)
        self._news.set()

    def mapped(self, address: str) -> None:
        """A router maps this address to this node; empty: none any more."""
        self._reach.mapped(address)
        self._news.set()

    def linked(self, peer: Peer, observed: str) -> None:
        group = addresses.group(peer.link.remote)
        self._reach.linked(peer.id, group)
        if observed:
            self._reach.observed(peer.id, observed)
        if peer.direction == "in":
            self._reach.came_in(group, self._clock.monotonic())
        self._news.set()

    def unlinked(self, peer: Peer) -> None:
        self._reach.unlinked(peer.id)
        self._news.set()

    def aged(self, link: Link) -> None:
        """`link` takes no new circuits any more: get a place on another one."""
        if link in self._places.values():
            self._relay_at = float("-inf")
            self._news.set()

    async def _turn(self) -> None:
        """Decide, carry out, and wait until there is something else to decide."""
        self._news.clear()
        now = self._clock.monotonic()
        places = self._places.items()
        self._places = {node: link for node, link in places if not (link.closed or link.aged)}
        self._reach.relayed(len(self._places))
        self.decision = decision = self._reach.decide(now)
        if decision.ask is not None:
            self._reach.asked(*decision.ask, now)
            self._tasks.spawn(self._ask(*decision.ask), name="ask to be dialled back")
        wait = decision.next_s
        if decision.relay_wanted and len(self._places) < RELAYS:
            wait = min(wait, RELAY_AGAIN_S)
            if now >= self._relay_at and (self._seeking is None or self._seeking.done()):
                self._relay_at = now + RELAY_AGAIN_S
                self._seeking = self._tasks.spawn(self._reserve(), name="look for a relay")
        if self._told != (decision, self.relays):
            self._told = (decision, self.relays)
            self._on_decision()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()

    async def _ask(self, node: bytes, address: str) -> None:
        reached: bool | None = None
        if (peer := self._peering.peer(node)) is not None:
            try:
                answer = await peer.link.ask(DialBack(address), DialedBack, ASK_S)
                reached = answer.reached
            except FAILED as error:
                _log.info("%s did not dial back: %s", short_id(node), error)
        self._reach.dialled_back(node, address, reached, self._clock.monotonic())
        self._news.set()

    async def dial_back(self, link: Link, stream: Stream, request: DialBack) -> Refusal | None:
        """Answer DialBack: dial the node of this link at the address, and see that it is that node. Returns
        why that was refused."""
        if link.peer is None:
            await stream.fail(Failure("not_allowed"))
            return "not_allowed"
        where = self._backs.admit(request.address, link.remote, self._clock.monotonic())
        if where == "not_allowed":
            await stream.fail(Failure("not_allowed"))
            return "address"
        if where == "rate_limited":
            await stream.fail(Failure("rate_limited", retry_after_ms=60_000))
            return "rate"
        card = self._gossip.raw_card(link.peer) or None
        answer = DialedBack(True)
        try:
            async with asyncio.timeout(BACK_S):
                made = await self._dialer.dial(Target(link.peer, card), (addresses.format(where),))
        except NetError as error:
            answer = DialedBack(False, error.code)
        except TimeoutError:
            answer = DialedBack(False, "timeout")
        else:
            # Not after the answer: who asked may take it away at any moment.
            self._tasks.spawn(made.close(), name="end a dial-back")
        await stream.send(codec.encode(answer))
        return None

    async def _reserve(self) -> None:
        """Get a place at one more relay."""
        for node, candidate in self._willing()[:RELAY_TRIES]:
            self._asked_at[node] = self._clock.monotonic()
            try:
                link = await self._link_with(node, candidate)
                await self._relayed.listen(link, self._peering.take)
            except FAILED as error:
                _log.info("no place at the relay %s: %s", short_id(node), error)
                continue
            self._places[node] = link
            self._tasks.spawn(self._notice_end(link), name="a place at a relay")
            self._news.set()
            return

    def _willing(self) -> list[tuple[bytes, Candidate | None]]:
        """Nodes that say they relay, and at which there is no place yet: those that are linked, then others,
        with where they say they are."""
        linked = [peer.id for peer in self._peering.peers() if not is_relayed(peer.link)]
        known: list[tuple[bytes, Candidate | None]] = [(node, None) for node in linked]
        sampled = self._gossip.candidates(self._clock.monotonic())
        known += [(one.node, one) for one in sampled if one.node not in linked]
        willing = [one for one in known if one[0] not in self._places and self._relays_for_others(one[0])]
        # Those that had no place before come last.
        self._asked_at = {node: self._asked_at[node] for node, _ in willing if node in self._asked_at}
        return sorted(willing, key=lambda one: self._asked_at.get(one[0], 0.0))

    def _relays_for_others(self, node: bytes) -> bool:
        card = self._gossip.card(node)
        return card is not None and bool(card.features & FEATURE_RELAY)

    async def _link_with(self, node: bytes, candidate: Candidate | None) -> Link:
        """A link on which the relay knows which node this is."""
        peer = self._peering.peer(node)
        if peer is not None and not (peer.link.aged or is_relayed(peer.link)):
            return peer.link
        if peer is None and candidate is not None:
            # Anybody can say that it relays, at anybody's address.
            return (await self._finder.link_sampled(candidate)).link
        return (await self._finder.link_with(node)).link

    async def _notice_end(self, link: Link) -> None:
        await link.wait_closed()
        self._relay_at = float("-inf")
        self._news.set()
