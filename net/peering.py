"""The links of a node: who is who on them, what each may ask and is answered, what gossip sends over them.

Whom to link with is decided in overlay.py, what is believed in gossip.py; here is what carries both out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, NamedTuple
from weakref import WeakSet

from infraxa.net import addresses, auth, codec, wire
from infraxa.net.auth import ANSWER_S
from infraxa.net.commands import Command
from infraxa.net.connect import Target, accept
from infraxa.net.customers import Customers
from infraxa.net.dialer import Dialer
from infraxa.net.door import Door
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.exchange import Exchange
from infraxa.net.gossip import Gossip
from infraxa.net.identity import Identity
from infraxa.net.link import FAILED, Clock, Link, LinkClosed, LinkEnd, Stream
from infraxa.net.lobby import Lobby
from infraxa.net.overlay import Dial, Direction, Overlay
from infraxa.net.pipe import Pipe
from infraxa.net.refusals import Refusals
from infraxa.net.strangers import Strangers
from infraxa.net.tasks import TaskGroup

MAX_EARLY: Final = 8
"""Messages that a node may tell before it has answered to whom."""
ENDED_S: Final = 120.0
"""How long a link that fell silent tells something about this machine's network."""
MAX_ENDED: Final = 32
PEER_REQUESTS: Final = 8
"""Requests at a time of a node that said who it is; a stranger has one."""


class Peer(NamedTuple):
    """A link with a node that proved who it is."""

    number: int
    id: bytes
    link: Link
    direction: Direction


class Heard(NamedTuple):
    """When something came last on a link."""

    node: bytes | None
    """Known of whom this node dialled, and of peers."""
    remote: str
    at: float


class Events(NamedTuple):
    """What the peering tells its owner."""

    linked: Callable[[Peer, str], None]
    """A link with a node stands; it sees this one at that address ("" when it did not say)."""
    unlinked: Callable[[Peer, LinkEnd], None]
    sessions: Callable[[], None]
    """Another link came or went, or its account is known now."""
    command: Callable[[Command], None]
    """A command of gossip that is not about links."""
    serve: Callable[[Link, Stream, wire.Request], Awaitable[None]]
    """A request that is not about links or gossip."""


class Peering:
    """The links, by node. Everything that comes over one passes here."""

    def __init__(
        self,
        identity: Identity,
        gossip: Gossip,
        overlay: Overlay,
        *,
        door: Door,
        lobby: Lobby,
        customers: Customers,
        clock: Clock,
        refusals: Refusals,
        my_card: Callable[[], bytes],
        events: Events,
    ) -> None:
        self._identity = identity
        self._gossip = gossip
        self._overlay = overlay
        self._door = door
        self._lobby = lobby
        self._clock = clock
        self._refusals = refusals
        self._my_card = my_card
        self._events = events
        self._tasks = TaskGroup()
        self._numbers = count(1)
        self._peers: dict[int, Peer] = {}
        self._by_node: dict[bytes, Peer] = {}
        self._strangers = Strangers()
        self._customers = customers
        self.exchange = Exchange(gossip, overlay, clock, refusals, self._link_of, events.command)
        self._ended: deque[Heard] = deque(maxlen=MAX_ENDED)
        self._past = (0, 0)
        """Bytes in and out of links that have ended."""
        self._turned_away: WeakSet[Link] = WeakSet()
        """Links for whose nodes there was no room: each may ask once."""
        self._introducing: dict[Link, list[wire.Tell]] = {}
        """Links on which the answer to `Auth` is waited for, and what was told meanwhile."""
        self._arrival: asyncio.Future[None] | None = None
        """Done when the next link with a node stands."""

    def peer(self, node: bytes) -> Peer | None:
        return self._by_node.get(node)

    def _link_of(self, node: bytes) -> Link | None:
        peer = self._by_node.get(node)
        return peer.link if peer is not None else None

    async def linked_with(self, node: bytes) -> Peer:
        """Returns when a link with `node` stands; the caller sets the time limit."""
        while (peer := self._by_node.get(node)) is None:
            await self._arrived()
        return peer

    async def _arrived(self) -> None:
        """Returns when the next link with a node stands."""
        self._arrival = self._arrival or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._arrival)

    def peers(self) -> list[Peer]:
        return list(self._by_node.values())

    def sessions(self) -> list[Link]:
        """The links that are not with peers: of strangers, of accounts, and those on which this node did not
        say who it is."""
        return [*self._strangers, *self._customers]

    def heard(self) -> list[Heard]:
        """Every link, and those that fell silent a short time ago."""
        recent = self._clock.monotonic() - ENDED_S
        ended = [heard for heard in self._ended if heard.at >= recent]
        return [*(Heard(link.peer, link.remote, link.heard_at) for link in self._all_links()), *ended]

    def traffic(self) -> tuple[int, int]:
        """Bytes in and out, of all links since the start."""
        links = self._all_links()
        return (
            self._past[0] + sum(link.bytes_in for link in links),
            self._past[1] + sum(link.bytes_out for link in links),
        )

    async def take(self, pipe: Pipe) -> None:
        """A pipe came in: have its other side prove itself, then attend to its link until that ends."""
        try:
            link = await accept(
                pipe,
                self._door,
                source=addresses.group(pipe.remote),
                lobby=self._lobby,
                handler=self.handle,
                on_tell=self.told,
                clock=self._clock,
            )
        except ProtocolError as error:
            self._refusals.add(error.reason, address=pipe.remote)
            return
        await self._attend(link)

    async def _attend(self, link: Link) -> None:
        """Until the link ends; then it is forgotten."""
        # It may have said who it is while it was accepted.
        if self._peer_on(link) is None and link not in self._customers:
            if (goes := self._strangers.add(link)) is not None:
                self._crowded_out(goes)
            self._events.sessions()
        try:
            end = await link.wait_closed()
        finally:
            self._strangers.discard(link)
            self._customers.discard(link)
            self._events.sessions()
            self._past = (self._past[0] + link.bytes_in, self._past[1] + link.bytes_out)
        if end.reason in ("silent", "truncated"):
            self._ended.append(Heard(link.peer, link.remote, link.heard_at))
        if end.reason is not None and end.by != "peer":
            self._refusals.add(end.reason, peer=link.peer, address=link.remote)
        if (peer := self._peer_on(link)) is not None:
            self._forget(peer, end)

    def _forget(self, peer: Peer, end: LinkEnd) -> None:
        now = self._clock.monotonic()
        del self._peers[peer.number]
        self._overlay.unlinked(peer.number, now)
        if self._by_node.get(peer.id) is not peer:
            return
        others = [other for other in self._peers.values() if other.id == peer.id]
        if others:
            self._by_node[peer.id] = others[0]
            return
        del self._by_node[peer.id]
        self._gossip.unlinked(peer.id, now)
        self._events.unlinked(peer, end)

    def keep(self, link: Link) -> None:
        """Attend to a link that was dialled here."""
        self._tasks.spawn(self._attend(link), name="attend to a link")

    async def dial(self, dialer: Dialer, wanted: Dial) -> Peer:
        """Link with a node and tell it who this one is. Raises what FAILED lists; the overlay is told."""
        try:
            card = self._gossip.raw_card(wanted.node)
            link = await dialer.dial(Target(wanted.node, card or None), wanted.addresses)
            return await self.introduce(link)
        except FAILED:
            self._overlay.failed(wanted.node, self._clock.monotonic())
            raise

    async def introduce(self, link: Link) -> Peer:
        """Tell the node of a link that was dialled here which node this one is. Raises what FAILED lists."""
        assert link.peer is not None
        if link not in self._strangers:
            self.keep(link)
        hello = auth.prove(self._identity, "node", link)
        # The other side begins to gossip as soon as it knows who this is: before its answer is read here.
        self._introducing[link] = []
        try:
            answer = await link.ask(hello, wire.Authenticated, ANSWER_S)
            peer = self._linked(link, link.peer, "out", answer.observed)
            early = self._introducing[link]
        except FAILED:
            await link.close()
            raise
        finally:
            del self._introducing[link]
        try:
            for message in early:
                self.told(link, message)
        except ProtocolError as error:
            await link.close(error.reason)
            raise
        return peer

    def _linked(self, link: Link, node: bytes, direction: Direction, observed: str) -> Peer:
        """Raises LinkClosed when the overlay has no room for it."""
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        peer = Peer(next(self._numbers), node, link, direction)
        group = addresses.wide_group if direction == "out" else addresses.group
        self._peers[peer.number] = peer
        link.in_flight = max(link.in_flight, PEER_REQUESTS)
        ended = self._overlay.linked(peer.number, node, group(link.remote), direction, now)
        for number in ended:
            if other := self._peers.get(number):
                self._tasks.spawn(other.link.close(), name="close a link")
        if peer.number in ended:
            del self._peers[peer.number]
            self._gossip.contacted(node)
            raise LinkClosed("full")
        self._strangers.discard(link)
        self._by_node[node] = peer
        if self._arrival is not None:
            self._arrival.set_result(None)
            self._arrival = None
        self.exchange.perform(self._gossip.linked(node, now, now_ms, outbound=direction == "out"))
        self._events.linked(peer, observed)
        return peer

    async def handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        """Answer a request. ProtocolError closes the link."""
        self._check_named(link)
        if isinstance(request, wire.Auth):
            await self._authenticate(link, stream, request)
        elif isinstance(request, wire.BucketsPlease | wire.DigestsPlease | wire.RecordsPlease):
            node = await self._introduced(link)
            for chunk in self._gossip.answer(node, request, self._clock.monotonic()):
                await stream.send(chunk)
        elif isinstance(request, wire.PeersPlease):
            node = peer.id if (peer := self._peer_on(link)) is not None else b""
            refusal = await self.exchange.answer_list(link, stream, request.count, node)
            if refusal is not None:
                self._refusals.add(refusal, peer=link.peer, address=link.remote)
        elif isinstance(request, wire.CardPlease):
            # None is there while none could be signed.
            await (stream.send(card) if (card := self._my_card()) else stream.fail(wire.Failure("internal")))
        else:
            await self._events.serve(link, stream, request)

    def _check_named(self, link: Link) -> None:
        """Where this node did not say who it is, any answer could show it. Raises ProtocolError."""
        if link.initiator and link not in self._introducing and self._peer_on(link) is None:
            raise ProtocolError("not_allowed", "by a node that was only to be asked")

    async def _introduced(self, link: Link) -> bytes:
        """As _node_of, when the introduction that is under way is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while link in self._introducing:
                    await self._arrived()
        return self._node_of(link)

    def _node_of(self, link: Link) -> bytes:
        """Raises ProtocolError for a stranger."""
        peer = self._peer_on(link)
        if peer is None:
            raise ProtocolError("not_allowed", "on a link that is not one of two peers")
        return peer.id

    def _peer_on(self, link: Link) -> Peer | None:
        return next((peer for peer in self._peers.values() if peer.link is link), None)

    def _all_links(self) -> list[Link]:
        return [*(peer.link for peer in self._peers.values()), *self.sessions()]

    async def _authenticate(self, link: Link, stream: Stream, request: wire.Auth) -> None:
        if link.initiator or link.peer is not None or link.account is not None:
            raise ProtocolError("not_asked", "it is known who that is")
        auth.check(request, link)
        if link in self._turned_away:
            raise ProtocolError("rate", "auth on one link")
        if request.role == "account":
            refusal = self._open_account(link, request.key)
        else:
            refusal = self._overlay.may_accept(addresses.group(link.remote), self._clock.monotonic())
        if refusal is not None:
            self._turned_away.add(link)
            peer = request.key if request.role == "node" else None
            self._refusals.add(refusal, peer=peer, address=link.remote)
            await stream.fail(wire.Failure("busy", retry_after_ms=60_000))
            return
        if request.role == "node":
            link.peer = request.key
            try:
                # Without a pause: whoever reads the answer may gossip at once.
                self._linked(link, request.key, "in", "")
            except LinkClosed:
                await link.close()
                return
        answer = wire.Authenticated(auth.observed_address(link.remote), self._clock.unix_ms())
        await stream.send(codec.encode(answer))

    def _open_account(self, link: Link, account: bytes) -> Refusal | None:
        """Give the link of an account a place among the order sessions; why there is none."""
        goes = self._customers.add(link, account)
        for other in goes:
            if other is not link:
                self._crowded_out(other)
        if link in goes:
            return "full"
        self._strangers.discard(link)
        self._events.sessions()
        return None

    def _crowded_out(self, link: Link) -> None:
        self._refusals.add("full", peer=link.peer, address=link.remote)
        self._tasks.spawn(link.close(), name="make room for another link")

    def told(self, link: Link, message: wire.Tell) -> None:
        """What a peer tells unasked."""
        early = self._introducing.get(link)
        if early is not None:
            if len(early) >= MAX_EARLY:
                raise ProtocolError("rate", "before it answered")
            early.append(message)
            return
        node = self._node_of(link)
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        self.exchange.perform(self._gossip.receive(node, message, now, now_ms))

    def tick(self) -> float:
        """Let gossip do what is due; returns when to call again at the latest."""
        for peer in self._by_node.values():
            if peer.link.rtt_ms is not None:
                self._overlay.measured(peer.id, peer.link.rtt_ms)
        return self.exchange.tick()

    async def close(self) -> None:
        """End every link in good order; bounded."""
        links = self._all_links()
        for link in links:
            self._tasks.spawn(link.close(), name="close a link")
        for link in links:
            await link.wait_closed()
        await self.exchange.close()
        await self._tasks.cancel_all()
