"""The network as one thing: listens, finds others, keeps links, gossips, and says how all of it is.

Made of parts that each do one of these; here is when they start, what they are told of each other, and the
status that screens show. What the parts decide is decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal

from msgspec import Struct

from infraxa.net import addresses, codec, wire
from infraxa.net.book import AddressBook
from infraxa.net.clock import Pulse, Skew
from infraxa.net.commands import CardDue, Changed, Command, HeartbeatDue
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
from infraxa.net.invites import PUBLIC, Invite
from infraxa.net.invites import encode as encode_invite
from infraxa.net.link import Clock, Link, LinkEnd, Stream
from infraxa.net.lobby import Lobby
from infraxa.net.memory import Keeper, KnownNode, Memory
from infraxa.net.names import clean_name
from infraxa.net.notices import Notices
from infraxa.net.overlay import Overlay
from infraxa.net.overview import activity, met, notices, seen_nodes
from infraxa.net.peering import FAILED, Events, Peer, Peering
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
from infraxa.net.status import Activity, NetworkStatus, Notice, PeerInfo, Refused, SeenNode, Waiting
from infraxa.net.tasks import TaskGroup
from infraxa.net.teller import Teller
from infraxa.net.websocket import WebSocketTransport

HOSTS: Final = ("::", "0.0.0.0")
CLOCK_REFUSED: Final = "clock_refused"
"""The notice of a node that refused this one because of its clock."""
PORT_REMEDY: Final = "Other nodes find it all the same; another listen_port ends this."
TICK_S: Final = 1.0
"""How often the overlay is asked whom to dial, and the clocks are compared."""
RENEW_S: Final = 60.0
END_S: Final = 1.5
"""For each of the steps in which a network is closed."""
FAILED_REMEDY: Final = "It is tried again every second; if this stays, open infraxa anew."
REMEMBERED: Final = 64
"""Nodes of earlier runs that are tried again."""
JOIN_S: Final = 20.0
"""Seconds for joining the node of an invite: its addresses, the handshake, the introduction."""
INVITE_HOURS: Final = 168.0

_log = logging.getLogger(__name__)


class NetworkOptions(Struct, frozen=True):
    """How a node takes part."""

    name: str
    network: str = "public"
    psk: bytes | None = None
    """The key of a private network."""
    joined: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
    """Nodes of this network that invites named, and their addresses."""
    hosts: tuple[str, ...] = HOSTS
    """Where to listen."""
    port: int = 7741
    announce: bool = True
    lan: bool = True
    """Look for others on the local network."""
    bootstrap: tuple[str, ...] = ()
    port_mapping: bool = False
    relay: bool = False


class Network:
    """A node's part in the network. Made cheaply, opened by `start`, ended by `close`."""

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
            clock=clock,
            refusals=self._refusals,
            my_card=lambda: self._presence.card,
            events=Events(self._linked, self._unlinked, self._command, self._serve),
        )
        self._presence = Presence(
            Publisher(
                identity, self._gossip, keeper, clock, self._peering.perform, announce=options.announce
            ),
            self._gossip,
            prekeys,
            keeper,
            clock,
            self.notices,
            self._peering.perform,
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
        now = clock.monotonic()
        self._pulse = Pulse(TICK_S, now, clock.unix_ms())
        self._look_at, self._renew_at = now, now + RENEW_S
        self._kick = asyncio.Event()
        self._peering.kick = self._kick.set
        self._anchors = memory.anchors

    async def start(self) -> None:
        """Listen and begin to look for others. Raises NetError `no_interface`, `not_written`."""
        self._activity = "starting"
        self._teller.tell()
        for node, where in self.options.joined:
            self._finder.book.put(node, where, "person")
        for known in self._known:
            self._finder.book.put(known.id, known.addresses, "gossip")
        survey = self._watch.start()
        await self._listen()
        self._start_reaching()
        self._use(survey)
        await self._presence.renew()
        self.say("online")
        self._activity = "online"
        for turn, code in ((self._tick, "tick_failed"), (self._keep, "keep_failed")):
            self._tasks.repeat(turn, name=f"network: {code}", pause_s=TICK_S, ended=partial(self._ran, code))
        self._finder.bootstrap(self.options.bootstrap)
        if self.options.lan:
            await self._start_lan()
        self._teller.tell()

    async def close(self) -> None:
        """Say goodbye to everybody and end; bounded. Nothing of it is left to the next, whatever breaks."""
        self._activity = "closing"
        self._teller.tell()
        self._dialer.close()
        # First what finds something to do, then what does it, then the links over which that is done.
        await self._ended("tasks", self._tasks.cancel_all(), self._watch.close(), self._finder.close())
        await self._ended("goodbye", self._presence.leave())
        around = [part.close() for part in (self._reaching, self._mapping, self._lan) if part is not None]
        await self._ended("surroundings", *around, self._health.close(), self._relayed.close())
        await self._ended("links", self._peering.close())
        await self._ended("sockets", self._websocket.close())
        await self._tasks.cancel_all()  # what the last links made of their end
        self._activity = "off"
        self._teller.close()

    def say(self, status: Literal["online", "busy"]) -> None:
        """How this node is from now on, for everybody to know."""
        self._presence.say(status)

    async def _ended(self, what: str, *closing: Awaitable[object]) -> None:
        """When these have ended, or failed, or END_S are over."""
        try:
            async with asyncio.timeout(END_S):
                results = await asyncio.gather(*closing, return_exceptions=True)
        except TimeoutError:
            _log.warning("closing the network: %s took too long", what)
            return
        for error in results:
            if isinstance(error, Exception):
                _log.error("closing the network: %s failed", what, exc_info=error)

    async def _listen(self) -> None:
        """Another port serves when the wished one is taken: others learn it from the card and by mDNS."""
        hosts, port = self.options.hosts, self.options.port
        if port not in (0, 443) and port < 1024:
            raise NetError(
                "bad_address",
                f"A node does not listen on port {port}: others would not dial it.",
                "Choose a listen_port from 1024 to 65535, 443, or 0 for any.",
            )
        try:
            bound = await self._websocket.listen(hosts, port, self._peering.take)
        except NetError as error:
            if error.code != "port_taken":
                raise
            bound = await self._websocket.listen(hosts, 0, self._peering.take)
            message = f"Port {port} is taken by another program, so this node listens on {bound[0][1]}."
            self.notices.put(Notice("port_taken", message, PORT_REMEDY))
        self._port = bound[0][1]

    def _start_reaching(self) -> None:
        self._reaching = reaching = Reaching(
            self._port,
            gossip=self._gossip,
            peering=self._peering,
            finder=self._finder,
            dialer=self._dialer,
            relayed=self._relayed,
            clock=self._clock,
            on_decision=self._reach_changed,
        )
        reaching.start()
        if self.options.port_mapping:
            self._mapping = PortMap(self._port, on_change=self._mapping_changed, rng=self._rng)

    def _reach_changed(self) -> None:
        self._teller.status_changed()
        self._tasks.spawn(self._presence.renew(), name="tell where this node is")

    def _places(self) -> Places:
        told = self._where.to_announce()
        if self._reaching is None:
            return tuple(told[:MAX_ADDRESSES]), (), False
        decision = self._reaching.decision
        # Global addresses of this machine that others could not reach are not among those to announce.
        local = [text for text in told if addresses.is_local(addresses.read_ip(_host_of(text)))]
        told = list(dict.fromkeys((*decision.announce, *local)))
        relays = self._reaching.relays[:MAX_RELAYS]
        return tuple(told[:MAX_ADDRESSES]), relays, decision.reachability == "reachable"

    def _mapping_changed(self) -> None:
        if self._mapping is not None and self._reaching is not None:
            self._reaching.mapped(self._mapping.address)
        self._teller.status_changed()

    async def _start_lan(self) -> None:
        self._lan = Lan(
            self.identity.id,
            self._network,
            self._port,
            on_found=self._found,
            on_lost=lambda node: self._finder.book.take_away(node, "mdns"),
            on_change=self._teller.status_changed,
            on_refused=lambda reason: self._refusals.add(reason, address="mDNS"),
            announce=self.options.announce,
        )
        await self._lan.start(self._survey.hosts)

    def _ran(self, code: str, well: bool) -> None:
        """What fails is a notice until it does not."""
        if well:
            self.notices.withdraw(code)
        else:
            self.notices.put(Notice(code, "A part of the network fails.", FAILED_REMEDY))

    async def _tick(self) -> None:
        """What is due now; returns when something will be. Waits for nothing else."""
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        if now >= self._look_at:
            self._look_at = now + TICK_S
            self._after(self._pulse.tick(now, now_ms))
            self._judge_clock()
            self._finder.look()
        due = min(self._peering.tick(), self._look_at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - self._clock.monotonic())):
                await self._kick.wait()
        self._kick.clear()

    async def _keep(self) -> None:
        """What waits for a disk, so that gossip does not: anchors, and every RENEW_S prekeys and card."""
        await self._keep_anchors()
        if (now := self._clock.monotonic()) >= self._renew_at:
            self._renew_at = now + RENEW_S
            await self._presence.renew()
        await asyncio.sleep(TICK_S)

    def _after(self, pulse: Literal["steady", "paused", "stepped"]) -> None:
        """This process slept, or the clock was set: see what changed meanwhile, and who is still there."""
        if pulse == "steady":
            return
        if pulse == "stepped":
            self._skew.forget()
        self._watch.look()
        for peer in self._peering.peers():
            peer.link.ping()

    def _judge_clock(self) -> None:
        judgement = self._skew.judge()
        self._gossip.skew_ms = judgement.trusted_ms
        if judgement.notice is not None:
            self.notices.put(judgement.notice)
        else:
            self.notices.withdraw("clock")

    async def _keep_anchors(self) -> None:
        if self._overlay.anchors != self._anchors:
            chosen = self._overlay.anchors
            if await self.notices.of(self._keeper.anchors_chosen(chosen), "not_written"):
                self._anchors = chosen

    def _use(self, survey: Survey) -> None:
        """This machine has these addresses."""
        self._survey = survey
        self._where.prefixes = survey.prefixes
        ips = map(addresses.read_ip, survey.hosts)
        self._where.own = tuple(addresses.format(addresses.at(ip, self._port)) for ip in ips)
        if self._reaching is not None:
            self._reaching.cards(survey.hosts)
        if self._mapping is not None:
            four = (host for host in survey.hosts if addresses.read_ip(host).version == 4)
            self._tasks.spawn(self._map(self._mapping, next(four, "")), name="map the port")

    async def _map(self, mapping: PortMap, host: str) -> None:
        """Have the router map the port to `host`, and to no other; empty: to none."""
        async with self._mapping_turn:
            if host != self._mapped_to:
                self._mapped_to = host
                await mapping.close()
                if host:
                    mapping.start(host)

    def _cards_changed(self, survey: Survey) -> None:
        self._use(survey)
        self._teller.status_changed()
        self._tasks.spawn(self._moved(survey), name="other addresses")

    async def _moved(self, survey: Survey) -> None:
        if self._lan is not None:
            await self._lan.update(survey.hosts)
        await self._presence.renew()

    def _found(self, node: bytes, where: tuple[str, ...]) -> None:
        """The local network told of a node."""
        self._finder.book.put(node, where, "mdns")
        self._finder.look()

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

    async def _remember(self, peer: Peer) -> None:
        """Where a node was reached, for the next run."""
        where = [address for address in self._finder.direct(peer.id) if _host_of(address) == peer.link.remote]
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
        self._peering.perform(self._gossip.learn(node, wire.Push((record,)), now, now_ms))

    async def _serve(self, link: Link, stream: Stream, request: wire.Request) -> None:
        """Requests that are not about links or gossip."""
        refused: Refusal | None = None
        match request:
            case wire.Probe():
                refused = await self._presence.probes.serve(link, stream, self._presence.state)
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

    async def join(self, node: bytes, where: tuple[str, ...]) -> SeenNode:
        """Link with a node that this one's person named. Raises NetError."""
        self._waiting = waiting = Waiting("the node of the invite", self._clock.unix_ms(), JOIN_S)
        self._teller.status_changed()
        try:
            async with asyncio.timeout(JOIN_S):
                peer = await self._finder.join(node, where)
        except TimeoutError:
            raise NetError(
                "timeout",
                f"The node did not answer within {JOIN_S:g} s.",
                "Check that infraxa is open there.",
            ) from None
        finally:
            if self._waiting is waiting:
                self._waiting = None
            self._teller.status_changed()
        return next((seen for seen in self.nodes() if seen.id == node), None) or met(peer.link)

    async def link_to(self, node: bytes) -> Link:
        """A link to `node`: the one there is, or a new one on which this node does not say who it is. Raises
        NetError."""
        return await self._finder.link_to(node)

    def invite(self, hours: float = INVITE_HOURS) -> str:
        """A text with which another node joins this network, for so many hours."""
        expires_ms = self._clock.unix_ms() + round(hours * 3_600_000)
        # Those that reach it from outside first: a mapped port is at no address of this machine.
        outside = self._reaching.decision.announce if self._reaching is not None else ()
        where = dict.fromkeys((*outside, *self._where.own))
        invite = Invite(
            self.identity.id,
            tuple(where)[:MAX_ADDRESSES],
            expires_ms,
            self.options.network,
            self.options.psk,
        )
        return encode_invite(invite)

    def watch(self, nodes: tuple[bytes, ...]) -> None:
        """Ask these nodes every second how they are, and no others."""
        self._health.watch(nodes)

    def now_ms(self) -> int:
        return self._clock.unix_ms()

    def nodes(self) -> list[SeenNode]:
        """Everybody but this node, those that are there first, then by the newest news."""
        now = self._clock.monotonic()
        return seen_nodes(self.identity.id, self._gossip, self._peering, self._health, self._finder.book, now)

    def peers(self) -> list[PeerInfo]:
        return self._peering.info()

    def refused(self) -> list[Refused]:
        """Newest first."""
        return self._refusals.newest()

    @property
    def status(self) -> NetworkStatus:
        peers = len(self._peering.peers())
        judgement = self._skew.judge()
        bytes_in, bytes_out = self._peering.traffic()
        lan = self._lan
        decision = self._reaching.decision if self._reaching is not None else None
        others = [part.notice for part in (lan, self._mapping) if part is not None]
        return NetworkStatus(
            activity=activity(self._activity, peers, may_publish=self._gossip.may_publish),
            id=self.identity.id,
            name=self.options.name,
            network=self.options.network,
            listening=self._where.own,
            reachability=decision.reachability if decision else "unknown",
            reachability_reason=decision.reason if decision else "",
            interfaces=self._survey.interfaces,
            mdns=lan.state if lan is not None else "off",
            peers=peers,
            known=self._gossip.live(self._clock.monotonic()),
            clock_skew_ms=judgement.skew_ms,
            waiting=self._waiting,
            notices=tuple(notices(self.notices, others, decision)),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            gossip_in=self._gossip.intake.records,
            gossip_new=self._gossip.intake.news,
            refused=dict(self._refusals.counts),
            relaying=self._relaying.circuits,
            mdns_echo=lan is not None and lan.echoed,
        )


def _group_of(address: str) -> str:
    """The wide group of an address; that of a relay is the relay itself."""
    return addresses.wide_group(addresses.parse(address).host or address)


def _host_of(address: str) -> str:
    return addresses.parse(address).host
