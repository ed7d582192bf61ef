"""Makes records and runs small networks of Gossip for the tests. Signatures are compared, not computed."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable

from infraxa.net import codec
from infraxa.net.admission import STANDARD, GossipLimits
from infraxa.net.codec import Signed, Tag
from infraxa.net.commands import Command, Drop, HeartbeatDue, Refused, Send, Sync, SyncRatings
from infraxa.net.errors import ProtocolError
from infraxa.net.gossip import Gossip
from infraxa.net.records import Card, PriceNow, Record, Revoke, State, Status, Successor
from infraxa.net.wire import Push, Tell

NETWORK = codec.network_id("test")
START = 1000.0
START_MS = 1_700_000_000_000
PEER = b"p" * 32
RECOVERY = b"R" * 32


def verify(tag: Tag, signed: Signed) -> bool:
    return signed.signature == _signature(tag, signed.body, signed.signer)


def _signature(tag: str, body: bytes, signer: bytes) -> bytes:
    return hashlib.sha512(tag.encode() + b"\0" + signer + body).digest()


def sign(kind: str, body: bytes, signer: bytes) -> Record:
    return Record(kind, Signed(body, signer, _signature(kind, body, signer)))


def node_id(number: int) -> bytes:
    return hashlib.sha256(b"node %d" % number).digest()


def a_card(
    signer: bytes,
    seq: int,
    name: str = "maple",
    *,
    network: bytes = NETWORK,
    version: int = 1,
    addresses: tuple[str, ...] = ("ws://8.8.8.8:7741",),
    recovery: bytes = RECOVERY,
) -> Record:
    recovery_hash = hashlib.sha256(recovery).digest()
    card = Card(version, seq, name, network, addresses, (), b"k" * 32, 2**50, recovery_hash)
    return sign("card", codec.encode(card), signer)


def a_state(
    card: Record,
    seq: int,
    status: Status = "online",
    *,
    util: int = 0,
    prices: tuple[PriceNow, ...] = (),
) -> Record:
    state = State(seq, codec.digest("card", card.signed.body)[:8], status, util, prices)
    return sign("state", codec.encode(state), card.signed.signer)


def a_revoke(node: bytes, seq: int, recovery: bytes = RECOVERY) -> Record:
    return sign("revoke", codec.encode(Revoke(node, seq)), recovery)


def a_successor(node: bytes, successor: bytes, seq: int, recovery: bytes = RECOVERY) -> Record:
    return sign("successor", codec.encode(Successor(node, successor, seq)), recovery)


def a_gossip(number: int = 0, limits: GossipLimits = STANDARD) -> Gossip:
    return Gossip(node_id(number), NETWORK, random.Random(number), verify=verify, limits=limits)


def linked_gossip(*peers: bytes, limits: GossipLimits = STANDARD) -> Gossip:
    gossip = a_gossip(limits=limits)
    for peer in peers or (PEER,):
        gossip.linked(peer, START, START_MS, outbound=True)
    return gossip


def refusals(commands: list[Command]) -> list[str]:
    return [command.reason for command in commands if isinstance(command, Refused)]


def sent(commands: list[Command]) -> list[Record]:
    """All records in the pushes."""
    return [
        record
        for command in commands
        if isinstance(command, Send) and isinstance(command.message, Push)
        for record in command.message.records
    ]


def held(gossip: Gossip) -> dict[bytes, list[bytes]]:
    """What of each node is held, and whether it is used."""
    return {
        node: [codec.encode(record) for record in entry.records()]
        for node, entry in gossip.table.entries.items()
        if entry.card.records
    }


class World:
    """Some nodes, linked and cut at will; messages arrive in order, at once when `settle` runs."""

    def __init__(self, count: int, *, publishing: bool = True) -> None:
        self.now = START
        self.now_ms = START_MS
        self.nodes = [a_gossip(number) for number in range(count)]
        self.ids = [node_id(number) for number in range(count)]
        self.down: set[int] = set()
        self.links: set[tuple[int, int]] = set()
        self.queue: deque[tuple[int, int, Tell]] = deque()
        self.dropped: list[Drop] = []
        self.refused: list[str] = []
        self.rounds = 0
        if publishing:
            for number in range(count):
                self.publish(number)

    def publish(self, number: int) -> None:
        gossip = self.nodes[number]
        card = a_card(self.ids[number], max(gossip.intake.seq + 1, self.now_ms), f"n{number}")
        self.apply(number, gossip.publish(card, self.now, self.now_ms))
        self.apply(number, gossip.say("online", self.now, self.now_ms))

    def link(self, one: int, other: int) -> None:
        if (one, other) in self.links or (other, one) in self.links:
            return
        self.links.add((one, other))
        self.apply(one, self.nodes[one].linked(self.ids[other], self.now, self.now_ms, outbound=True))
        self.apply(other, self.nodes[other].linked(self.ids[one], self.now, self.now_ms, outbound=False))

    def cut(self, one: int, other: int) -> None:
        for pair in ((one, other), (other, one)):
            self.links.discard(pair)
            self.nodes[pair[0]].unlinked(self.ids[pair[1]], self.now)

    def apply(self, number: int, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send | Sync | SyncRatings) and command.peer not in self.ids:
                continue  # a peer that only brings what it is told to
            if isinstance(command, Send):
                self.queue.append((number, self.ids.index(command.peer), command.message))
            elif isinstance(command, HeartbeatDue):
                body = codec.encode(command.state)
                record = sign("state", body, self.ids[number])
                self.apply(number, self.nodes[number].publish(record, self.now, self.now_ms))
            elif isinstance(command, Sync):
                self.run_round(number, self.ids.index(command.peer))
            elif isinstance(command, SyncRatings):
                self.run_round(number, self.ids.index(command.peer), ratings=True)
            elif isinstance(command, Drop):
                self.dropped.append(command)
            elif isinstance(command, Refused):
                self.refused.append(command.reason)

    def run_round(self, asker: int, other: int, *, ratings: bool = False) -> int:
        """One whole round of anti-entropy; returns how many records were news."""
        self.rounds += not ratings
        gossip = self.nodes[asker]
        one = (gossip.ratings if ratings else gossip).round(self.ids[other], self.now)
        while one.request is not None:
            try:
                chunks = list(self.nodes[other].answer(self.ids[asker], one.request, self.now))
            except ProtocolError:
                one.fail(self.now)
                break
            for chunk in chunks:
                self.apply(asker, one.chunk(chunk, self.now, self.now_ms))
            one.end(self.now)
        return one.news

    def settle(self) -> None:
        """Everything under way arrives."""
        for _ in range(100_000):
            if not self.queue:
                return
            source, target, message = self.queue.popleft()
            if {(source, target), (target, source)} & self.links and target not in self.down:
                received = self.nodes[target].receive(self.ids[source], message, self.now, self.now_ms)
                self.apply(target, received)
        raise AssertionError("messages without end")

    def run(self, seconds: float, step: float = 0.5, watch: Callable[[], None] = lambda: None) -> None:
        """Time passes; those who are down do nothing."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.now_ms += int(step * 1000)
            for number, gossip in enumerate(self.nodes):
                for _ in range(20):
                    if number in self.down or gossip.next_tick(self.now) > self.now:
                        break
                    self.apply(number, gossip.tick(self.now, self.now_ms))
                else:
                    raise AssertionError("a driver would never rest")
            self.settle()
            watch()

    def live(self, number: int) -> set[int]:
        """Whom this node lists as there."""
        return {
            self.ids.index(seen.id) for seen in self.nodes[number].nodes(self.now) if seen.status != "offline"
        }
