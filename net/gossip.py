"""Gossip: keeps everybody's newest card and state here and hands on what is new. A pure state machine.

Messages, link events and time go in, commands come out (commands.py); the same class runs over sockets and in
the simulator. What comes in is in intake.py, the rules of merging in table.py, of handing on in spreading.py,
of healing in rounds.py, of this node's own state in heartbeat.py. Here they meet.

Two clocks come in: `now`, monotonic seconds, for leases and limits; `now_ms`, unix milliseconds, only to
judge numbers by. After a time in which it did not run (a suspended process, a machine that slept) everybody
who was there counts as there for one more heartbeat: see Table.slept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from msgspec import structs

from infraxa.net import codec, sampling
from infraxa.net.admission import STANDARD, GossipLimits, Room, Verify
from infraxa.net.commands import Changed, Command, HeartbeatDue, Refused, Send, Sync
from infraxa.net.errors import NetError
from infraxa.net.heartbeat import Heartbeat
from infraxa.net.intake import Intake, Taken
from infraxa.net.proofs import Proofs
from infraxa.net.rates import Bucket
from infraxa.net.rating_gossip import RatingGossip
from infraxa.net.records import Card, PriceNow, Record, State, Status, Successor
from infraxa.net.rounds import Answers, AntiEntropy, Round, Schedule
from infraxa.net.spreading import Spreading, Target
from infraxa.net.status import SeenNode
from infraxa.net.table import CLOCKS_APART_MS, Table
from infraxa.net.wire import Proof, Push, Root

ROOT_EVERY_S: Final = 10.0
SLEPT_S: Final = 10.0
"""A tick that comes so much later than the one before means that this node was asleep."""
CHECK_EVERY_S: Final = 120.0
"""After so long without any round one is run although the roots agree: they can be made to."""
ROUNDS_AT_ONCE: Final = 2
ROUNDS_PER_S: Final = 1.0
ROUNDS_BURST: Final = 8
"""With all peers together: each may bring rounds.MAX_ROUND bytes and a thousand signatures."""
TICK_S: Final = 5.0
"""A tick comes at least so often."""


class _Link(Target):
    __slots__ = ("news", "room", "schedule")

    def __init__(self, peer: bytes, outbound: bool, limits: GossipLimits, now: float) -> None:
        # A tenth less than the other side allows: its clock and its sizes are not exactly these.
        super().__init__(peer, outbound, Bucket(0.9 * limits.bytes_per_s, 0.9 * limits.unverified))
        self.room = Room(limits)
        self.schedule = Schedule(now)
        self.news = 0


class Gossip:
    """The table of one node, and its links. `me`: its id; `names`: who had a name in earlier runs, by
    names.name_key."""

    def __init__(
        self,
        me: bytes,
        network: bytes,
        rng: random.Random,
        *,
        verify: Verify = codec.verify,
        limits: GossipLimits = STANDARD,
        names: dict[str, bytes] | None = None,
    ) -> None:
        self._me = me
        self._rng = rng
        self._limits = limits
        self.table = Table(me, network, rng, limits.table)
        self.table.first_named.update(names or {})
        self._links: dict[bytes, _Link] = {}
        self._cards = sampling.Cards()
        self._spreading = Spreading(rng)
        self.intake = Intake(me, self.table, self._spreading, verify, limits)
        """Its counters are for the screen: records, news, duplicates, refused. `seq` is the highest own
        number that is known, to be set to what an earlier run kept."""
        self._answers = Answers(self.table.digests, self.table.records)
        self.ratings = RatingGossip(self.table, rng, verify, limits.ratings)
        """What is said of providers: it has its own limits, and what it needs goes over the same links."""
        self.proofs = Proofs(self._has_card, rng)
        self._heartbeat = Heartbeat(rng)
        self._rounds = Bucket(ROUNDS_PER_S, ROUNDS_BURST)
        self._root_at = float("-inf")
        self._sweep_at = float("-inf")
        self._round_ended = float("-inf")
        self._ran: tuple[float, int] | None = None
        self.skew_ms = 0
        """Median of the peers' clocks minus this one, set by whoever measures it. Numbers are judged by the
        peers' time; beyond CLOCKS_APART_MS this node publishes nothing but that it leaves."""

    def linked(self, peer: bytes, now: float, now_ms: int, *, outbound: bool) -> list[Command]:
        """A link with `peer` stands. Called again when another link of the pair takes its place."""
        out = self._begin(now, now_ms)
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = _Link(peer, outbound, self._limits, now)
        link.outbound = outbound
        self.ratings.linked(peer, outbound, now)
        self.proofs.linked(peer, outbound, now)
        self.contacted(peer)
        out.append(Send(peer, self._root()))
        own = self.table.entries.get(self._me)
        if own is not None and self._me in self.table.digests:
            # Anti-entropy would heal it too, but what comes by that is not handed on.
            out.append(Send(peer, Push(tuple(own.records()))))
        link.schedule.wants = link.schedule.wants or outbound
        return out + self._due_rounds(now)

    def unlinked(self, peer: bytes, now: float) -> None:
        """No link with `peer` is left."""
        link = self._links.pop(peer, None)
        self._answers.forget(peer)
        self.ratings.unlinked(peer)
        self.proofs.unlinked(peer)
        if link is not None and link.schedule.round is not None:
            link.schedule.round.fail(now)

    def contacted(self, node: bytes) -> None:
        """A handshake with `node` succeeded: it is not forgotten for somebody never spoken to."""
        entry = self.table.entries.get(node)
        if entry is not None:
            entry.contacted = True

    def receive(self, peer: bytes, message: Push | Root | Proof, now: float, now_ms: int) -> list[Command]:
        """What `peer` told unasked."""
        out = self._begin(now, now_ms)
        link = self._links.get(peer)
        if link is None:
            self.intake.refused["not_allowed"] += 1
            out.append(Refused(peer, "not_allowed"))
        elif isinstance(message, Root):
            mine = self.table.digests
            link.schedule.compare(
                (message.root, message.count) == (mine.root, len(mine)), now, self._rng.uniform(0, 0.5)
            )
        elif isinstance(message, Proof):
            out += self.proofs.receive(peer, message.proof, now)
        else:
            said = [record for record in message.records if record.kind == "rating"]
            if said:
                out += self.ratings.receive(peer, said, now, now_ms + self.skew_ms)
                message = Push(tuple(record for record in message.records if record.kind != "rating"))
            taken = self.intake.take(peer, message, link.room, now, now_ms + self.skew_ms)
            link.news += taken.news
            link.schedule.wants = link.schedule.wants or taken.wants_card
            out += self._after(taken)
        return out + self._flush(now)

    def learn(self, peer: bytes, push: Push, now: float, now_ms: int) -> list[Command]:
        """Records that `peer` was asked for: the answer to PeersPlease, the card of a handshake."""
        out = self._begin(now, now_ms)
        out += self._after(self.intake.take(peer, push, None, now, now_ms + self.skew_ms))
        return out + self._flush(now)

    def publish(self, record: Record, now: float, now_ms: int, *, leaving: bool = False) -> list[Command]:
        """This node's own record, signed; a card makes a state due that names it. Raises NetError `clock`,
        but not when it is `leaving`, and ProtocolError for what everybody would refuse."""
        out = self._begin(now, now_ms)
        if not self.may_publish and not leaving:
            raise NetError(
                "clock",
                f"This machine's clock is {abs(self.skew_ms) // 1000} s off its peers' clocks.",
                "set the clock, best by network time",
            )
        taken, value = self.intake.take_own(record, now, now_ms + self.skew_ms)
        if isinstance(value, State):
            self._heartbeat.said(value, now)
        elif self._heartbeat.wanted is not None:
            card = self.table.entries[self._me].card_hash
            self._heartbeat.wanted = structs.replace(self._heartbeat.wanted, card=card)
        return out + taken.commands + self._flush(now) + self._due_heartbeat(now, now_ms)

    def say(
        self,
        status: Status,
        now: float,
        now_ms: int,
        *,
        util: int = 0,
        prices: tuple[PriceNow, ...] = (),
        first_token_ms: int = 0,
    ) -> list[Command]:
        """How this node is from now on. HeartbeatDue comes when it must be signed: at once for a new status,
        within 5 s for a load that moved by an eighth and a price that moved by a tenth, else every EVERY_S.
        Needs a card."""
        entry = self.table.entries.get(self._me)
        card = entry.card_hash if entry is not None else b""
        self._heartbeat.wanted = State(0, card, status, util, prices, first_token_ms) if card else None
        return self._due_heartbeat(now, now_ms)

    @property
    def may_publish(self) -> bool:
        return abs(self.skew_ms) <= CLOCKS_APART_MS

    def tick(self, now: float, now_ms: int) -> list[Command]:
        """Batches, roots, rounds, heartbeats, ends of leases."""
        out = self._begin(now, now_ms)
        if now >= self._sweep_at:
            gone, again = self.table.overdue(now)
            self._sweep_at = max(now + 1, again)
            out.extend(Changed(node) for node in gone)
        if now >= self._root_at:
            self._root_at = now + ROOT_EVERY_S * self._rng.uniform(0.9, 1.1)
            root = self._root()
            out.extend(Send(peer, root) for peer in self._links)
            self._check_anyway(now)
        out += self.ratings.tick(now, now_ms + self.skew_ms)
        out += self.proofs.tick(now)
        return out + self._flush(now) + self._due_rounds(now) + self._due_heartbeat(now, now_ms)

    def next_tick(self, now: float) -> float:
        """When `tick` must be called at the latest."""
        return min(
            (self._ran[0] if self._ran else now) + TICK_S,
            self._spreading.flush_at,
            self._root_at,
            self._sweep_at,
            self.ratings.next_tick(),
            self.proofs.next_tick(),
            self._heartbeat.due_at(now) if self.may_publish else float("inf"),
            *(self._rounds_wanted(now)[:1] or [(float("inf"), b"")])[0][:1],
        )

    def round(self, peer: bytes, now: float) -> Round:
        """The round that Sync asked for. Over at once when there is no link any more."""

        def take(push: Push, at: float, at_ms: int) -> tuple[int, list[Command]]:
            out = self._begin(at, at_ms)
            taken = self.intake.take(peer, push, None, at, at_ms + self.skew_ms)
            return taken.news, out + self._after(taken) + self._flush(at)

        def done(one: Round, at: float) -> None:
            link = self._links.get(peer)
            if link is not None:
                link.schedule.ended(one, at, self._rng.uniform(0.9, 1.1))
            self._round_ended = at
            if one.news:
                self._root_at = min(self._root_at, at + 1)  # others may lack it as well

        started = Round(peer, self.table.digests, self._rng, take, done, now)
        link = self._links.get(peer)
        if link is None:
            started.fail(now)
        else:
            link.schedule.round = started
        return started

    def answer(self, peer: bytes, request: AntiEntropy, now: float) -> Iterator[bytes]:
        """The chunks that answer a peer's request. Raises ProtocolError `rate`."""
        if request.ratings:
            return self.ratings.answer(peer, request, now)
        return self._answers.answer(peer, request, now)

    def card(self, node: bytes) -> Card | None:
        """The newest card of `node`, if it may be used."""
        entry = self.table.entries.get(node)
        return sampling.card_of(entry) if entry is not None and entry.retired is None else None

    def raw_card(self, node: bytes) -> bytes:
        """Its encoded Record; empty when there is none."""
        entry = self.table.entries.get(node)
        return codec.encode(entry.card.records[0]) if entry is not None and entry.card.records else b""

    def successor(self, node: bytes) -> bytes | None:
        """The node that took the place of `node`, by the word of its recovery key."""
        entry = self.table.entries.get(node)
        if entry is None or entry.retired is None or entry.retired.kind != "successor":
            return None
        value: Successor = codec.decode(entry.retired.signed.body, Successor)
        return value.successor

    def nodes(self, now: float) -> list[SeenNode]:
        return sampling.seen_nodes(self.table, self._me, list(self._links), self._cards, now)

    def live(self, now: float) -> int:
        """How many others are there: cheap, where `nodes` is not."""
        return sampling.count_live(self.table, self._me, now)

    def candidates(self, now: float, count: int = 64) -> list[sampling.Candidate]:
        """Whom Overlay.wanted may choose from."""
        return sampling.candidates(self.table, self._me, count, self._rng, now)

    def peers_told(self, asker: bytes, count: int, now: float) -> Push:
        """The answer to PeersPlease."""
        return sampling.peers_told(self.table, asker, count, self._rng, now)

    def take_news(self) -> dict[bytes, int]:
        """How many new records each peer brought first, since the last call; for Overlay.supplied."""
        found = {peer: link.news for peer, link in self._links.items() if link.news}
        for peer in found:
            self._links[peer].news = 0
        return found

    def _begin(self, now: float, now_ms: int) -> list[Command]:
        """Find out whether this node was asleep."""
        ran, self._ran = self._ran, (now, now_ms)
        if ran is not None and max(now - ran[0], (now_ms - ran[1]) / 1000) > SLEPT_S:
            self.table.slept(ran[0], now)
            self._root_at = self._sweep_at = now
            self._heartbeat.at_once()
            for link in self._links.values():
                link.schedule = Schedule(now)
        return []

    def _has_card(self, node: bytes) -> bool:
        entry = self.table.entries.get(node)
        return entry is not None and bool(entry.card.records)

    def _after(self, taken: Taken) -> list[Command]:
        if taken.refute:
            self._heartbeat.at_once()
        return taken.commands

    def _root(self) -> Root:
        return Root(self.table.digests.root, len(self.table.digests))

    def _check_anyway(self, now: float) -> None:
        outbound = [link for link in self._links.values() if link.outbound]
        if outbound and now >= self._round_ended + CHECK_EVERY_S:
            self._rng.choice(outbound).schedule.wants = True

    def _rounds_wanted(self, now: float) -> list[tuple[float, bytes]]:
        """When the next rounds are due, and with whom; none while enough are running."""
        if sum(link.schedule.running(now) for link in self._links.values()) >= ROUNDS_AT_ONCE:
            return []
        allowed = now + self._rounds.wait(1, now)
        due = sorted((link.schedule.due_at(), link.peer) for link in self._links.values())
        return [(max(allowed, at), peer) for at, peer in due]

    def _due_rounds(self, now: float) -> list[Command]:
        out: list[Command] = []
        while (wanted := self._rounds_wanted(now)) and wanted[0][0] <= now:
            peer = wanted[0][1]
            self._rounds.take(1, now)
            self._links[peer].schedule.begin(now)
            out.append(Sync(peer))
        return out

    def _due_heartbeat(self, now: float, now_ms: int) -> list[Command]:
        state = self._heartbeat.ask(now) if self.may_publish else None
        if state is None:
            return []
        return [HeartbeatDue(structs.replace(state, seq=max(self.intake.seq + 1, now_ms)))]

    def _flush(self, now: float) -> list[Command]:
        return [Send(peer, push) for peer, push in self._spreading.flush(list(self._links.values()), now)]
