"""What the network of a node is made of, and what each part is told of the others.

Each part does one thing and knows only those that it needs; here they meet: who asks for what, what follows
from a link that stands or ends. When all of this runs, and what it shows, is in network.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from infraxa.net import addresses, codec, wire
from infraxa.net.book import AddressBook
from infraxa.net.clock import Skew
from infraxa.net.commands import CardDue, Changed, Command, HeartbeatDue
from infraxa.net.customers import Customers
from infraxa.net.dialer import Dialer
from infraxa.net.discovery import Lan
from infraxa.net.door import Door
from infraxa.net.errors import NetError, Refusal
from infraxa.net.finder import Finder, Where
from infraxa.net.gossip import Gossip
from infraxa.net.health import Health
from infraxa.net.hello import Prekeys
from infraxa.net.identity import Identity
from infraxa.net.interfaces import Survey, Watch
from infraxa.net.invites import PUBLIC
from infraxa.net.link import FAILED, Clock, Link, LinkEnd, Stream
from infraxa.net.lobby import Lobby
from infraxa.net.memory import Keeper, KnownNode, Memory
from infraxa.net.names import clean_name
from infraxa.net.notices import Notices
from infraxa.net.options import NetworkOptions
from infraxa.net.overlay import Overlay
from infraxa.net.overview import met
from infraxa.net.peering import Events, Peer, Peering
from infraxa.net.portmap import PortMap
from infraxa.net.presence import Places, Presence
from infraxa.net.publisher import Publisher
from infraxa.net.reaching import Reaching
from infraxa.net.records import (
    MAX_ADDRESSES,
    MAX_RELAYS,
    Record,
)
from infraxa.net.refusals import Refusals
from infraxa.net.relay import RelayService, RelayTransport
from infraxa.net.status import Activity, NetworkStatus, Notice, Waiting
from infraxa.net.tasks import TaskGroup
from infraxa.net.teller import Teller
from infraxa.net.trials import TrialService
from infraxa.net.vocabs import VocabService
from infraxa.net.websocket import WebSocketTransport

CLOCK_REFUSED: Final = "clock_refused"
"""The notice of a node that refused this one because of its clock."""
REMEMBERED: Final = 64
"""Nodes of earlier runs that are tried again."""


class Parts(ABC):
    """Made cheaply; nothing runs yet."""

    def __init__(
        self,
        identity: Identity,
        options: NetworkOptions,
        memory: Memory,
        keeper: Keeper,
        *,
        on_status: Callable[[NetworkStatus], None] = lambda status: None,
        on_nodes: Callable[[], None] = lambda: None,
        on_peers: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        randbytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`on_status`, `on_nodes` and `on_peers` are told at most every STATUS_S."""
        self.options = options
        self.identity = identity
        self._known = memory.known[:REMEMBERED]
        self._keeper = keeper
        self._clock = clock = clock or Clock()
        rng = rng or random.Random(int.from_bytes(randbytes(16), "big"))
        self._network = codec.network_id(options.network)
        self._tasks = TaskGroup()
        self._teller = Teller(on_status, on_nodes, on_peers, lambda: self.status)
        self._refusals = Refusals(clock.unix_ms, self._teller.status_changed)
        prekeys = Prekeys(memory.prekeys, randbytes)
        self.notices = Notices(self._teller.status_changed)
        self._survey = Survey((), (), ())
        self._watch = Watch(self._cards_changed)
        self._where = Where(
            private=options.psk is not None or (bool(options.joined) and options.network != PUBLIC)
        )
        self._skew = Skew()
        self._gossip = Gossip(identity.id, self._network, rng)
        self._gossip.intake.seq = memory.seq
        self._overlay = Overlay(
            identity.id, rng, memory.anchors, may_dial=self._where.may_dial, group_of=_group_of
        )
        self._customers = Customers(identity)
        lobby = Lobby()
        door = Door(
            node=identity.id,
            network=self._network,
            prekeys=prekeys,
            card=lambda: self._presence.card,
            randbytes=randbytes,
            psk=options.psk,
        )
        self._peering = Peering(
            identity,
            self._gossip,
            self._overlay,
            door=door,
            lobby=lobby,
            customers=self._customers,
            clock=clock,
            refusals=self._refusals,
            my_card=lambda: self._presence.card,
            events=Events(
                self._linked, self._unlinked, self._teller.peers_changed, self._command, self._serve
            ),
        )
        exchange = self._peering.exchange
        self._presence = Presence(
            Publisher(identity, self._gossip, keeper, clock, exchange.perform, announce=options.announce),
            self._gossip,
            prekeys,
            keeper,
            clock,
            self.notices,
            exchange.perform,
            name=options.name,
            network=self._network,
            recovery=identity.recovery,
            relay=options.relay,
            places=self._places,
        )
        self._health = Health(
            lambda node: self._finder.link_to(node),
            lambda link: self._finder.let_go(link),
            self._learn_state,
            self._teller.nodes_changed,
            clock,
        )
        self._websocket = WebSocketTransport(lobby, self._refused_at)
        self._relayed = RelayTransport(lambda relay: self._finder.link_to_relay(relay))
        self._relaying = RelayService(clock=clock)
        self._vocabs = VocabService()
        self._trials = TrialService()
        dialer = Dialer(
            {"ws": self._websocket, "relay": self._relayed},
            network=self._network,
            psk=options.psk,
            clock=clock,
            handler=self._peering.handle,
            on_tell=self._peering.told,
            on_aged=self._aged,
            on_refused=self._refused_at,
        )
        self._dialer = dialer
        self._finder = Finder(
            AddressBook(),
            self._where,
            self._gossip,
            self._overlay,
            self._peering,
            dialer,
            clock,
            self._not_linked,
            identity.account_key,
        )
        self._rng = rng
        self._lan: Lan | None = None
        self._reaching: Reaching | None = None
        self._mapping: PortMap | None = None
        self._mapped_to = ""
        self._mapping_turn = asyncio.Lock()
        self._activity: Activity = "off"
        self._port = 0
        self._waiting: Waiting | None = None
        self._kick = asyncio.Event()
        exchange.kick = self._kick.set
        self._anchors = memory.anchors

    @property
    @abstractmethod
    def status(self) -> NetworkStatus:
        """The network as it is now."""

    @abstractmethod
    def _cards_changed(self, survey: Survey) -> None:
        """This machine has other addresses."""

    def _judge_clock(self) -> None:
        judgement = self._skew.judge()
        self._gossip.skew_ms = judgement.trusted_ms
        if judgement.notice is not None:
            self.notices.put(judgement.notice)
        else:
            self.notices.withdraw("clock")

    def _places(self) -> Places:
        told = self._where.to_announce()
        if self._reaching is None:
            return tuple(told[:MAX_ADDRESSES]), (), False
        decision = self._reaching.decision
        # Global addresses of this machine that others could not reach are not among those to announce.
        local = [text for text in told if addresses.is_local(addresses.read_ip(host_of(text)))]
        told = list(dict.fromkeys((*decision.announce, *local)))
        relays = self._reaching.relays[:MAX_RELAYS]
        return tuple(told[:MAX_ADDRESSES]), relays, decision.reachability == "reachable"

    def _reach_changed(self) -> None:
        self._teller.status_changed()
        self._tasks.spawn(self._presence.renew(), name="tell where this node is")

    def _refused_at(self, reason: Refusal, address: str) -> None:
        """Whoever is there has not said who it is."""
        self._refusals.add(reason, address=address)

    def _not_linked(self, error: NetError) -> None:
        if error.code == "clock":
            self.notices.put(Notice(CLOCK_REFUSED, error.message, error.remedy))

    def _linked(self, peer: Peer, observed: str) -> None:
        if peer.link.skew_ms is not None:
            self._skew.add(peer.id, addresses.group(peer.link.remote), peer.link.skew_ms)
            self._judge_clock()
        self._teller.nodes_changed()
        self._teller.peers_changed()
        peer.link.ping()
        self.notices.withdraw(CLOCK_REFUSED)
        if self._reaching is not None:
            self._reaching.linked(peer, observed)
        if peer.direction == "out":
            self._tasks.spawn(self._remember(peer), name="remember a node")
            asking = self._peering.exchange.ask_for_nodes(peer.id, peer.link)
            self._tasks.spawn(asking, name="ask for other nodes")

    async def _remember(self, peer: Peer) -> None:
        """Where a node was reached, for the next run."""
        where = [address for address in self._finder.direct(peer.id) if host_of(address) == peer.link.remote]
        if where:
            name = clean_name(met(peer.link).name)
            known = KnownNode(peer.id, name, tuple(where), self._clock.unix_ms())
            await self.notices.of(self._keeper.node_met(known), "not_written")

    def _unlinked(self, peer: Peer, end: LinkEnd) -> None:
        self._teller.nodes_changed()
        self._teller.peers_changed()
        if self._reaching is not None:
            self._reaching.unlinked(peer)
        if self._activity == "online":
            self._finder.look()

    def _aged(self, link: Link) -> None:
        """A link takes no new streams for its age: make another one in its place."""
        if self._reaching is not None:
            self._reaching.aged(link)
        peer = next((peer for peer in self._peering.peers() if peer.link is link), None)
        if peer is not None and peer.direction == "out":
            self._tasks.spawn(self._renew(peer), name="renew a link")

    async def _renew(self, peer: Peer) -> None:
        with contextlib.suppress(*FAILED):
            await self._finder.renew(peer.id)

    def _command(self, command: Command) -> None:
        match command:
            case Changed():
                self._teller.nodes_changed()
            case HeartbeatDue(state=state):
                self._tasks.spawn(self._presence.tell(state), name="heartbeat")
            case CardDue(seq=least):
                self._tasks.spawn(self._presence.renew(least), name="sign the card again")

    def _learn_state(self, node: bytes, record: Record) -> None:
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        self._peering.exchange.perform(self._gossip.learn(node, wire.Push((record,)), now, now_ms))

    async def _serve(self, link: Link, stream: Stream, request: wire.Request) -> None:
        """Requests that are not about links or gossip."""
        refused: Refusal | None = None
        match request:
            case wire.Probe():
                refused = await self._presence.probes.serve(link, stream, self._presence.state)
            case wire.Order():
                refused = await self._customers.serve(link, stream, request)
            case (
                wire.QuotePlease()
                | wire.ReceiptPlease()
                | wire.CountersignPlease()
                | wire.TabPlease()
                | wire.LinkPlease()
                | wire.SettlePlease()
            ):
                refused = await self._customers.bargain(link, stream, request)
            case wire.AuditPlease():
                refused = await self._customers.audit(link, stream, request)
            case wire.VocabPlease():
                refused = await self._vocabs.serve(link, stream, request)
            case wire.TryPlease():
                refused = await self._try(link, stream, request)
            case wire.DialBack() if self._reaching is not None:
                refused = await self._reaching.dial_back(link, stream, request)
            case wire.RelayReserve() if self.options.relay:
                refused = await self._relaying.reserve(link, stream)
            case wire.RelayDial() if self.options.relay:
                refused = await self._relaying.dial(link, stream, request)
            case wire.RelayIncoming():
                await self._relayed.incoming(link, stream)
            case _:
                await stream.fail(wire.Failure("unsupported"))
        if refused is not None:
            self._refusals.add(refused, peer=link.peer, address=link.remote)

    async def _try(self, link: Link, stream: Stream, request: wire.TryPlease) -> Refusal | None:
        """For peers alone, and not for those whose word counts for nothing."""
        node, now = link.peer, link.clock.monotonic()
        if node is None or (peer := self._peering.peer(node)) is None or peer.link is not link:
            await stream.fail(wire.Failure("not_allowed"))
            return "not_allowed"
        if not self._overlay.good_standing(node, now) or self.identity.id in self._finder.relays_of(node):
            # Who hands a node on itself does not take the way that others take.
            await stream.fail(wire.Failure("unsupported"))
            return None
        return await self._trials.serve(link, stream, node, request)


def _group_of(address: str) -> str:
    """The wide group of an address; that of a relay is the relay itself."""
    return addresses.wide_group(addresses.parse(address).host or address)


def host_of(address: str) -> str:
    return addresses.parse(address).host
