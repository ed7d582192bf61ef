"""The network as one thing: listens, finds others, keeps links, gossips, and says how all of it is.

Here is when its parts run, and what the rest of the program asks and is shown. What they are, and what each
is told of the others, is in parts.py; what they decide is decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Literal

from infraxa.net import addresses, wire
from infraxa.net.blame import Blame
from infraxa.net.clock import Pulse
from infraxa.net.codec import Signed
from infraxa.net.customers import Auditor, Bargainer
from infraxa.net.discovery import Lan
from infraxa.net.errors import NetError
from infraxa.net.identity import Signer
from infraxa.net.interfaces import Survey, listened
from infraxa.net.invites import Invite
from infraxa.net.invites import encode as encode_invite
from infraxa.net.link import Link
from infraxa.net.options import NetworkOptions as NetworkOptions
from infraxa.net.overview import activity, find_fault, met, notices, peer_infos, seen_nodes
from infraxa.net.parts import Parts
from infraxa.net.portmap import PortMap
from infraxa.net.proofs import Check, OnCaught
from infraxa.net.rating_table import RatingTable
from infraxa.net.reaching import Reaching
from infraxa.net.records import MAX_ADDRESSES, Record
from infraxa.net.sale import Sale
from infraxa.net.status import Load, NetworkStatus, Notice, Offer, PeerInfo, Refused, SeenNode, Waiting
from infraxa.net.tasks import ended
from infraxa.net.trials import ANSWER_S, Trier
from infraxa.net.vocabs import Find

PORT_REMEDY: Final = "Other nodes find it all the same; another listen_port ends this."
NO_NETWORK: Final = Notice(
    "no_interface",
    "This machine is in no network, so only what runs on it is found.",
    "Connect it; infraxa goes on by itself.",
)
TICK_S: Final = 1.0
"""How often the overlay is asked whom to dial, and the clocks are compared."""
RENEW_S: Final = 60.0
STOP_S: Final = 3.5
"""For what looks for others to stop: a router gets its port back, the local network hears a goodbye."""
END_S: Final = 1.5
"""For each of the four steps after it."""
FAILED_REMEDY: Final = "It is tried again every second; if this stays, open infraxa anew."
JOIN_S: Final = 20.0
"""Seconds for joining the node of an invite: its addresses, the handshake, the introduction."""
INVITE_HOURS: Final = 168.0


class Network(Parts):
    """A node's part in the network. Opened by `start`, ended by `close`."""

    async def start(self) -> None:
        """Listen and begin to look for others. Raises NetError `no_interface`, `not_written`."""
        self._activity = "starting"
        now = self._clock.monotonic()
        self._pulse = Pulse(TICK_S, now, self._clock.unix_ms())
        self._look_at, self._renew_at = now, now + RENEW_S
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
        # First what finds something to do, then the links over which that is done.
        parts = (
            self._customers,
            self._watch,
            self._finder,
            self._health,
            self._reaching,
            self._mapping,
            self._lan,
        )
        closing = [part.close() for part in parts if part is not None]
        await ended(STOP_S, "what looks for others", self._tasks.cancel_all(), *closing)
        await ended(END_S, "goodbye", self._presence.leave())
        await ended(END_S, "relayed links", self._relayed.close())
        await ended(END_S, "links", self._peering.close())
        await ended(END_S, "sockets", self._websocket.close())
        await self._tasks.cancel_all()  # what the last links made of their end
        self._activity = "off"
        self._teller.close()

    def sell(
        self,
        handler: Callable[[Sale], Awaitable[None]] | None,
        bargainer: Bargainer | None = None,
        auditor: Auditor | None = None,
    ) -> None:
        """Who answers orders of other nodes; None: nobody. A handler is cancelled when the user cancels or
        goes, and what it leaves unanswered is answered `internal`. `bargainer` answers what is asked about
        quotes, receipts and tabs, `auditor` opens answers that were sold."""
        self._customers.handler = handler
        self._customers.bargainer = bargainer
        self._customers.auditor = auditor

    def offer(self, offer: Offer | None) -> None:
        """What others are told that this node offers: as many models, the first ones, as a card has room for.
        None: nothing. For what stays for minutes, since each change is a new card for everybody."""
        if self._presence.offer(offer) and self._activity in ("starting", "online"):
            self._tasks.spawn(self._presence.renew(), name="tell what is offered")

    def give_vocabularies(self, find: Find) -> None:
        """Whoever asks for the vocabulary of a model gets the file that `find` knows."""
        self._vocabs.find = find

    def try_others(self, trier: Trier | None) -> None:
        """Who buys from peers that ask for it, to say what came of it; None: nobody."""
        self._trials.trier = trier

    async def ask_for_trial(self, node: bytes, model: bytes) -> wire.Tried:
        """Have a peer buy a tiny answer of this model from this node. Raises NetError `unreachable` (it is no
        peer), `timeout`, and what else Link.ask raises."""
        peer = self._peering.peer(node)
        if peer is None:
            raise NetError("unreachable", "There is no link with this node.", "Ask another one.")
        return await peer.link.ask(wire.TryPlease(model), wire.Tried, ANSWER_S)

    async def trial_link(self, node: bytes, account: Signer) -> Link:
        """A new session with a provider that asked to be tried, under an account that is used for nothing
        else; to be closed by who asked for it. Raises NetError."""
        return await self._finder.trial_link(node, account)

    def load(self, load: Load) -> None:
        """How busy this node is: told at once when its status is another one, within some seconds when its
        load moved by an eighth, else with the next heartbeat."""
        self._presence.load(load)

    async def order_link(self, node: bytes) -> Link:
        """A session with a provider on which it learns an account and not which node this is: the one there
        is, or a new one. Raises NetError `unreachable`, `timeout`, `refused`, `busy`, `expired`, `clock`."""
        return await self._finder.order_link(node)

    async def _listen(self) -> None:
        """Another port serves when the wished one is taken: others learn it from the card and by mDNS."""
        hosts, port = self.options.hosts, self.options.port
        if port not in (0, 443) and port < 1024:
            raise NetError(
                "bad_address",
                f"A node does not listen on port {port}: others would not dial it.",
                "Choose a listen_port from 1024 to 65535, 443, or 0 for any.",
            )
        for host in hosts:
            try:
                addresses.read_ip(host)
            except ValueError:
                raise NetError(
                    "bad_address",
                    f"A node listens on IP addresses, and {host} is none.",
                    "Write them in listen_hosts with commas: 127.0.0.1,::1",
                ) from None
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
        await self._lan.start(self._hosts)

    def _found(self, node: bytes, where: tuple[str, ...]) -> None:
        """The local network told of a node."""
        self._finder.book.put(node, where, "mdns")
        self._teller.nodes_changed()
        self._finder.look()

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

    def _after(self, pulse: Literal["steady", "paused", "stepped"]) -> None:
        """This process slept, or the clock was set: see what changed meanwhile, and who is still there."""
        if pulse == "steady":
            return
        if pulse == "stepped":
            self._skew.forget()
        self._watch.look()
        for peer in self._peering.peers():
            peer.link.ping()

    async def _keep(self) -> None:
        """What waits for a disk, so that gossip does not: anchors, and every RENEW_S prekeys and card."""
        await self._keep_anchors()
        if (now := self._clock.monotonic()) >= self._renew_at:
            self._renew_at = now + RENEW_S
            await self._presence.renew()
        await asyncio.sleep(TICK_S)

    async def _keep_anchors(self) -> None:
        if self._overlay.anchors != self._anchors:
            chosen = self._overlay.anchors
            if await self.notices.of(self._keeper.anchors_chosen(chosen), "not_written"):
                self._anchors = chosen

    def _use(self, survey: Survey) -> None:
        """This machine has these addresses."""
        self._survey = survey
        if self._networked:
            self.notices.withdraw(NO_NETWORK.code)
        else:
            self.notices.put(NO_NETWORK)
        self._where.prefixes = survey.prefixes
        ips = map(addresses.read_ip, self._hosts)
        self._where.own = tuple(addresses.format(addresses.at(ip, self._port)) for ip in ips)
        if self._reaching is not None:
            self._reaching.cards(self._hosts)
        if self._mapping is not None:
            four = (host for host in self._hosts if addresses.read_ip(host).version == 4)
            self._tasks.spawn(self._map(self._mapping, next(four, "")), name="map the port")

    @property
    def _hosts(self) -> tuple[str, ...]:
        """The addresses of this machine at which it listens, and which others are told."""
        return listened(self._survey.hosts, self.options.hosts)

    @property
    def _networked(self) -> bool:
        """Whether this machine is in any network."""
        return any(not addresses.read_ip(host).is_loopback for host in self._survey.hosts)

    def _cards_changed(self, survey: Survey) -> None:
        self._use(survey)
        self._teller.status_changed()
        self._tasks.spawn(self._moved(), name="other addresses")

    async def _moved(self) -> None:
        if self._lan is not None:
            await self._lan.update(self._hosts)
        await self._presence.renew()

    def _mapping_changed(self) -> None:
        if self._mapping is not None and self._reaching is not None:
            self._reaching.mapped(self._mapping.address)
        self._teller.status_changed()

    async def _map(self, mapping: PortMap, host: str) -> None:
        """Have the router map the port to `host`, and to no other; empty: to none."""
        async with self._mapping_turn:
            if host != self._mapped_to:
                self._mapped_to = host
                await mapping.close()
                if host:
                    mapping.start(host)

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
        seen = next((seen for seen in self.nodes() if seen.id == node), None)
        return seen if seen is not None and seen.name else met(peer.link)

    async def link_to(self, node: bytes) -> Link:
        """A link to `node`: the one there is, or a new one on which this node does not say who it is. Raises
        NetError."""
        return await self._finder.link_to(node)

    def blame(self, node: bytes, link: Link | None) -> Blame:
        """Whose fault it is that nothing more came from `node` on `link`, or that no link came to be: of this
        machine's network, of the relay, or of the node."""
        now, networked = self._clock.monotonic(), self._networked
        return find_fault(node, link, self._peering, self._finder, networked=networked, now=now)

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

    def judge_proofs(
        self, check: Check | None, on_caught: OnCaught, told: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Who judges the proofs of fraud that others tell, and is told of each provider that one is against,
        once in a run. None: proofs are ignored. `told`: those that others told in earlier runs, by provider,
        the oldest first."""
        self._gossip.proofs.check, self._gossip.proofs.on_caught = check, on_caught
        self._gossip.proofs.restore(told or {})

    def tell_proof(self, proof: bytes) -> None:
        """Tell others a proof of fraud, as if another node had told it. Raises ProtocolError when it does not
        hold."""
        self._peering.exchange.perform(self._gossip.proofs.publish(proof, self._clock.monotonic()))

    @property
    def ratings(self) -> RatingTable:
        """What is said of providers."""
        return self._gossip.ratings.table

    def rate(self, rating: Signed) -> bool:
        """Tell others this node's person's rating, see ratings.filled; False when there is nobody to tell.
        Raises ProtocolError when others would not take it."""
        if not self._peering.peers():
            return False
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        todo = self._gossip.ratings.publish(Record("rating", rating), now, now_ms)
        self._peering.exchange.perform(todo)
        return True

    def watch(self, nodes: tuple[bytes, ...]) -> None:
        """Ask these nodes every second how they are, and no others."""
        self._health.watch(nodes)

    def now_ms(self) -> int:
        return self._clock.unix_ms()

    def nodes(self) -> list[SeenNode]:
        """Everybody but this node, those that are there first, then by the newest news."""
        now = self._clock.monotonic()
        return seen_nodes(self.identity.id, self._gossip, self._peering, self._health, self._finder, now)

    def peers(self) -> list[PeerInfo]:
        return peer_infos(self._gossip, self._peering, self._clock)

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
