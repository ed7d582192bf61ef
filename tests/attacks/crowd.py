"""One node of gossip without sockets, whoever attacks it, and what that costs the node, counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from infraxa.net import codec
from infraxa.net.admission import STANDARD, GossipLimits
from infraxa.net.codec import Signed, Tag
from infraxa.net.commands import Command, Drop, Refused, Send, Sync
from infraxa.net.gossip import Gossip
from infraxa.net.records import Record
from infraxa.net.table import TableLimits
from infraxa.net.wire import MAX_PUSH, Push, Root
from tests.net.gossiping import NETWORK, START, START_MS, a_card, a_state, node_id, verify

ME = node_id(0)
STEP_S = 4.0

WIDE_OPEN = GossipLimits(
    table=TableLimits(cards=10**9, per_introducer=10**9, retired=10**9),
    bytes_per_s=1e12,
    unverified=1e12,
    all_bytes_per_s=1e12,
    new_ids_per_min=1e12,
    unknown_per_min=1e12,
)
"""The limits of a node that trusts everybody to be modest."""


class Victim:
    """A node and what it did. `peers`: who is linked with it, having dialled it."""

    def __init__(self, *peers: bytes, limits: GossipLimits = STANDARD, gullible: bool = False) -> None:
        self.gullible = gullible
        """Believes every signature."""
        self.now = START
        self.checked = 0
        """Signatures."""
        self.sent: Counter[str] = Counter()
        """Records handed on, by kind; each copy counts."""
        self.sent_bytes = 0
        self.refused: Counter[str] = Counter()
        self.dropped: list[bytes] = []
        self.rounds = 0
        self.gossip = Gossip(ME, NETWORK, random.Random(1), verify=self._verify, limits=limits)
        for peer in peers:
            self.link(peer)

    def _verify(self, tag: Tag, signed: Signed) -> bool:
        self.checked += 1
        return self.gullible or verify(tag, signed)

    @property
    def now_ms(self) -> int:
        return START_MS + int((self.now - START) * 1000)

    @property
    def known(self) -> int:
        return len(self.gossip.table)

    def link(self, peer: bytes, *, outbound: bool = False) -> None:
        self.do(self.gossip.linked(peer, self.now, self.now_ms, outbound=outbound))

    def tell(self, peer: bytes, records: Iterable[Record] | Root) -> None:
        """What a peer tells unasked, in as many messages as it takes."""
        if isinstance(records, Root):
            self.do(self.gossip.receive(peer, records, self.now, self.now_ms))
            return
        for push in in_pushes(records):
            self.do(self.gossip.receive(peer, push, self.now, self.now_ms))

    def learn(self, peer: bytes, records: Iterable[Record]) -> None:
        """What a peer tells in a round of anti-entropy."""
        for push in in_pushes(records):
            self.do(self.gossip.learn(peer, push, self.now, self.now_ms))

    def do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Send) and isinstance(command.message, Push):
                self.sent.update(record.kind for record in command.message.records)
                self.sent_bytes += sum(len(codec.encode(record)) for record in command.message.records)
            elif isinstance(command, Refused):
                self.refused[command.reason] += 1
            elif isinstance(command, Drop):
                self.dropped.append(command.peer)
                self.gossip.unlinked(command.peer, self.now)
            elif isinstance(command, Sync):
                self.rounds += 1
                self.sync(command.peer)

    def sync(self, peer: bytes) -> None:
        """A round of anti-entropy is due; here nobody answers."""
        self.gossip.round(peer, self.now).fail(self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, and the node does what is due."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.now + 0.01, self.gossip.next_tick(self.now)), self.now + STEP_S)
            self.do(self.gossip.tick(self.now, self.now_ms))

    def status(self, node: bytes) -> str:
        """By which `node` is shown; empty when it is not."""
        return next((seen.status for seen in self.gossip.nodes(self.now) if seen.id == node), "")


def in_pushes(records: Iterable[Record]) -> Iterable[Push]:
    told = list(records)
    for at in range(0, len(told), MAX_PUSH):
        yield Push(tuple(told[at : at + MAX_PUSH]))


def sybils(first: int, count: int, seq: int = START_MS, *, live: bool = True) -> list[Record]:
    """Cards of made-up nodes in four networks, each followed by a state when they are to be `live`."""
    made: list[Record] = []
    for number in range(first, first + count):
        card = a_card(
            node_id(number), seq, f"s{number}", addresses=(f"ws://66.{number % 4}.{number % 251}.9:7741",)
        )
        made.append(card)
        if live:
            made.append(a_state(card, seq))
    return made
