"""How fast news spreads, at what cost, and what hostile nodes can do: many nodes in one simulated network.

The nodes run the same Gossip and Overlay classes as over sockets. Simulated are latency (lognormal per pair,
median 40 ms), lost messages, nodes that crash and are replaced, and hostile ones. Signature checks are
replaced by a comparison; some nodes publish, all of them hand on. Cards of those who do not publish are left
out: whom a node may dial comes from a directory instead, poisoned by the hostile share.

`python -m tests.bench.gossip_sim --nodes 1000 --loss 0.1 --churn 0.05 --hostile 0.3 --seed 1`
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from infraxa.net import codec
from infraxa.net.codec import Signed
from infraxa.net.commands import Changed, Command, Drop, HeartbeatDue, Refused, Send, Sync
from infraxa.net.errors import ProtocolError
from infraxa.net.gossip import Gossip
from infraxa.net.overlay import Dial, Overlay
from infraxa.net.records import Card, Record, State, Status
from infraxa.net.rounds import Round
from infraxa.net.sampling import Candidate
from infraxa.net.wire import BucketsPlease, Push, Root, Tell

NETWORK = codec.network_id("simulated")
GOOD, BAD = b"g" * 64, b"b" * 64
EPOCH_MS = 1_700_000_000_000
PADDED = (64, 256, 1024, 4096, 16384, 60000)
PER_NETWORK = 8
"""Hostile nodes in one /16; the honest ones are spread over 38 400."""
FRAME = 30
"""Bytes around a padded record: WebSocket, TCP and IP not counted."""


@dataclass
class Config:
    """What is simulated."""

    nodes: int = 1000
    loss: float = 0.1
    """Share of messages lost."""
    churn: float = 0.05
    """Share of the nodes per minute that crash and are replaced by new ones."""
    hostile: float = 0.0
    """Share of the nodes that hand nothing on and do what they can."""
    publishers: int = 20
    news: int = 12
    """Changes whose spreading is measured."""
    warm_s: float = 45.0
    measure_s: float = 60.0
    hidden: float = 0.0
    """Share of the honest nodes that nobody can dial (behind a NAT)."""
    seed: int = 1


@dataclass
class Result:
    """What was measured; times in seconds, None when it was not reached."""

    t50: float | None = None
    t99: float | None = None
    t999: float | None = None
    coverage: float = 0.0
    """Of the honest nodes present throughout, after 10 s; the worst of the news."""
    coverage_end: float = 0.0
    copies: float = 0.0
    """Of each of the news, per node that could have it."""
    bytes_per_s: float = 0.0
    """Sent per honest node, padded."""
    links: float = 0.0
    joiner_s: float | None = None
    """From a new node's first link until it lists all that its peers list; median."""
    dead_listed: float = 0.0
    """Share of those listed as there who are not."""
    eclipsed: float = 0.0
    """Share of the honest nodes without a link to an honest one."""
    own_hostile: float = 0.0
    """Share of the links of honest nodes' own choice that lead to hostile ones."""
    rounds_per_min: float = 0.0
    """Of anti-entropy, per node."""
    refused: dict[str, int] = field(default_factory=dict)


class Member:
    """One node of the simulation; hostile ones have no gossip and no view of their own."""

    def __init__(self, simulation: Simulation, hostile: bool, now: float) -> None:
        rng = simulation.rng
        self.id = rng.randbytes(32)
        self.hostile = hostile
        self.up = True
        self.hidden = not hostile and rng.random() < simulation.config.hidden
        # Hostile nodes own some networks; honest ones are everywhere.
        first, second = (
            (66, rng.randrange(simulation.hostile_networks))
            if hostile
            else (rng.randrange(70, 220), rng.randrange(256))
        )
        third = rng.randrange(4 if hostile else 256)
        self.wide, self.narrow = f"{first}.{second}", f"{first}.{second}.{third}"
        self.address = f"ws://{self.narrow}.{rng.randrange(256)}:{rng.randrange(1024, 65536)}"
        self.links: dict[bytes, int] = {}
        self.born = now
        self.linked_at: float | None = None
        self.complete_at: float | None = None
        self.tick_at = float("inf")
        self.seq = 0
        self.publishes = False
        self.flavour = rng.choice(("censor", "liar", "flood", "equivocate")) if hostile else ""
        if not hostile:
            self.gossip = Gossip(self.id, NETWORK, rng, verify=lambda tag, signed: signed.signature == GOOD)
            self.overlay = Overlay(self.id, rng, may_dial=lambda address, source: True, group_of=_wide)

    def card(self, seq: int) -> Record:
        card = Card(1, seq, "node", NETWORK, (self.address,), (), self.id, EPOCH_MS * 2, b"r" * 32)
        return Record("card", Signed(codec.encode(card), self.id, GOOD))

    def state(self, state: State) -> Record:
        return Record("state", Signed(codec.encode(state), self.id, GOOD))


def _wide(address: str) -> str:
    return ".".join(address[5:].split(".")[:2])


class Simulation:
    """The network: an ordered list of what happens next."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rng = random.Random(config.seed)
        self.hostile_networks = max(1, round(config.nodes * config.hostile / PER_NETWORK))
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._latency: dict[tuple[bytes, bytes], float] = {}
        self._link_ends: dict[int, tuple[Member, Member]] = {}
        self.honest: list[Member] = []
        self.hostiles: list[Member] = []
        self.by_id: dict[bytes, Member] = {}
        self.publishers: list[Member] = []
        self.news_of: dict[bytes, list[int]] = {}
        self.told: dict[tuple[bytes, int], float] = {}
        """(publisher, number) → when it was published."""
        self.got: dict[tuple[bytes, int], dict[bytes, float]] = {}
        self.copies = 0
        self.sent_bytes = 0
        self.rounds = 0
        self.measuring = False

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, arguments))

    def run(self) -> Result:
        config = self.config
        hostile = round(config.nodes * config.hostile)
        for number in range(config.nodes):
            self.at(self.rng.uniform(0, 5), self._join, number < hostile)
        self._until(8)
        self.publishers = self.rng.sample([one for one in self.honest if one.up], config.publishers)
        for member in self.publishers:
            self.at(self.now + self.rng.uniform(0, 20), self._begin_publishing, member)
        if config.churn:
            self.at(self.now, self._churn)
        self._until(config.warm_s)
        self.measuring = True
        for number in range(config.news):
            self.at(self.now + (number + 0.5) * config.measure_s / 2 / config.news, self._change, number)
        self._until(config.warm_s + config.measure_s)
        return self._result()

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        self.now = end

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.now * 1000)

    # Nodes come and go

    def _join(self, hostile: bool) -> None:
        member = Member(self, hostile, self.now)
        self.by_id[member.id] = member
        (self.hostiles if hostile else self.honest).append(member)
        self.at(self.now + self.rng.uniform(0, 0.2), self._attack if hostile else self._maintain, member)

    def _churn(self) -> None:
        self.at(self.now + self.rng.expovariate(self.config.nodes * self.config.churn / 60), self._churn)
        member = self.rng.choice(self.honest)
        self.honest.remove(member)
        member.up = False
        for link in list(member.links.values()):
            self.at(self.now + self.rng.uniform(2, 6), self._close, link)
        self._join(False)

    def _begin_publishing(self, member: Member) -> None:
        if member.up:
            member.publishes = True
            self._apply(member, member.gossip.publish(member.card(self.now_ms), self.now, self.now_ms))
            self._apply(member, member.gossip.say("online", self.now, self.now_ms))

    def _change(self, number: int) -> None:
        """A publisher's status changes: news that is measured."""
        alive = [one for one in self.publishers if one.up]
        member = alive[number % len(alive)]
        status: Status = "busy" if number // len(alive) % 2 == 0 else "online"
        self._apply(member, member.gossip.say(status, self.now, self.now_ms))
        self.told[member.id, member.seq] = self.now
        self.news_of.setdefault(member.id, []).append(member.seq)
        self.got[member.id, member.seq] = {member.id: self.now}

    # Links

    def _maintain(self, member: Member) -> None:
        if not member.up:
            return
        self.at(self.now + self.rng.uniform(1.5, 2.5), self._maintain, member)
        for peer, count in member.gossip.take_news().items():
            member.overlay.supplied(peer, count, self.now)
        for dial in member.overlay.wanted(self.now, self._candidates(member)):
            other = self.by_id[dial.node]
            self.at(self.now + 3 * self._delay(member, other), self._dialled, member, other, dial)

    def _candidates(self, member: Member) -> list[Candidate]:
        # As sampling.candidates: of each network alike; the hostile ones doubled, by whom they told of it.
        share = 0.0
        if self.hostiles:
            share = min(0.9, 2 * self.hostile_networks / (self.hostile_networks + len(self.honest)))
        pool = [
            self.rng.choice(self.hostiles if self.rng.random() < share else self.honest) for _ in range(24)
        ]
        return [Candidate(one.id, (one.address,)) for one in pool if not one.hidden and one is not member]

    def _dialled(self, member: Member, other: Member, dial: Dial | None) -> None:
        if not member.up:
            return
        reached = other.up and (other.hostile or other.overlay.may_accept(member.narrow, self.now) is None)
        if not reached:
            if dial is not None:
                member.overlay.failed(other.id, self.now)
            return
        self._count += 1
        link = self._count
        self._link_ends[link] = (member, other)
        closed: list[int] = []
        if not member.hostile:
            closed += member.overlay.linked(link, other.id, other.wide, "out", self.now)
        if not other.hostile:
            closed += other.overlay.linked(link, member.id, member.narrow, "in", self.now)
        for one in closed:
            self._close(one)
        if link in closed:
            return
        for end, peer, outbound in ((member, other, True), (other, member, False)):
            end.links[peer.id] = link
            if not end.hostile:
                end.linked_at = end.linked_at if end.linked_at is not None else self.now
                linked = end.gossip.linked(peer.id, self.now, self.now_ms, outbound=outbound)
                self._apply(end, linked)

    def _close(self, link: int) -> None:
        for end, peer in _both(self._link_ends.pop(link, None)):
            if not end.hostile:
                end.overlay.unlinked(link, self.now)
            if end.links.get(peer.id) == link:
                del end.links[peer.id]
                if not end.hostile:
                    end.gossip.unlinked(peer.id, self.now)

    # Messages

    def _apply(self, member: Member, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send):
                self._send(member, command.peer, command.message)
            elif isinstance(command, Changed):
                self._changed(member, command.node)
            elif isinstance(command, HeartbeatDue):
                member.seq = command.state.seq
                record = member.state(command.state)
                self._apply(member, member.gossip.publish(record, self.now, self.now_ms))
            elif isinstance(command, Sync):
                self.rounds += self.measuring
                self._ask(member, member.gossip.round(command.peer, self.now))
            elif isinstance(command, Drop):
                member.overlay.ban(command.peer, command.ban_s, self.now)
                if command.peer in member.links:
                    self._close(member.links[command.peer])
            elif isinstance(command, Refused):
                close = member.overlay.refused(command.peer, command.reason, self.now)
                if close is not None:
                    self._close(close)
        self._plan(member)

    def _plan(self, member: Member) -> None:
        when = max(self.now + 0.001, member.gossip.next_tick(self.now))
        if when < member.tick_at - 0.001:
            member.tick_at = when
            self.at(when, self._tick, member, when)

    def _tick(self, member: Member, when: float) -> None:
        if member.up and member.tick_at == when:
            member.tick_at = float("inf")
            self._apply(member, member.gossip.tick(self.now, self.now_ms))

    def _send(self, member: Member, peer: bytes, message: Tell) -> None:
        other = self.by_id[peer]
        if self.measuring and not member.hostile:
            size = len(codec.encode(message))
            self.sent_bytes += FRAME + next(pad for pad in PADDED if size + 12 <= pad)
            if isinstance(message, Push):
                self.copies += sum(1 for record in message.records if self._is_news(record))
        if self.rng.random() >= self.config.loss:
            self.at(self.now + self._delay(member, other), self._deliver, member, other, message)

    def _is_news(self, record: Record) -> bool:
        if record.kind != "state" or not self.got:
            return False
        state: State = codec.decode(record.signed.body, State)
        return (record.signed.signer, state.seq) in self.got

    def _deliver(self, member: Member, other: Member, message: Tell) -> None:
        if not other.up or member.id not in other.links:
            return
        if other.hostile:
            if isinstance(message, Root) and other.flavour != "liar":
                self._send(other, member.id, message)  # "I have exactly what you have"
            return
        self._apply(other, other.gossip.receive(member.id, message, self.now, self.now_ms))

    def _changed(self, member: Member, node: bytes) -> None:
        for seq in self.news_of.get(node, ()):
            entry = member.gossip.table.entries[node]
            if entry.states.seq >= seq:
                self.got[node, seq].setdefault(member.id, self.now)
        if self.measuring and member.complete_at is None and member.born > self.config.warm_s:
            entries = member.gossip.table.entries
            if all(one.id in entries and entries[one.id].live(self.now) for one in self.publishers if one.up):
                member.complete_at = self.now

    def _ask(self, member: Member, one: Round) -> None:
        """The next step of a round of anti-entropy: a request there, the answer back."""
        other = self.by_id[one.peer]
        if one.request is None or not member.up:
            return
        lost = self.rng.random() < 1 - (1 - self.config.loss) ** 2
        if lost or not other.up or (other.hostile and other.flavour != "liar"):
            self.at(self.now + 5, one.fail, self.now + 5)
            return
        delay = self._delay(member, other) + self._delay(other, member)
        self.at(self.now + delay, self._answered, member, other, one)

    def _answered(self, member: Member, other: Member, one: Round) -> None:
        if one.request is None or not member.up:
            return
        try:
            if other.hostile:
                chunks = [self.rng.randbytes(2048)] if isinstance(one.request, BucketsPlease) else []
            else:
                chunks = list(other.gossip.answer(member.id, one.request, self.now))
            for chunk in chunks:
                if self.measuring:
                    self.sent_bytes += FRAME + len(chunk)
                self._apply(member, one.chunk(chunk, self.now, self.now_ms))
            one.end(self.now)
        except ProtocolError:
            one.fail(self.now)
        self._ask(member, one)
        self._plan(member)

    # What hostile nodes do

    def _attack(self, member: Member) -> None:
        """Dial many honest nodes, to be most of what they are linked with; then each in its own way."""
        if len(member.links) < 12 and self.honest:
            self._dialled(member, self.rng.choice(self.honest), None)
        attackers = [one for one in self.hostiles if one.flavour == member.flavour]
        if member.flavour == "liar":
            for peer in member.links:
                self._send(member, peer, Root(self.rng.randbytes(8), self.rng.randrange(1000)))
        elif self.measuring and member in attackers[:3]:  # a few are enough: all the network hears of it
            if member.flavour == "equivocate":
                member.seq = self.now_ms
                for peer in member.links:
                    state = State(member.seq, bytes(8), "online", self.rng.randrange(2))
                    self._send(member, peer, Push((member.card(EPOCH_MS), member.state(state))))
            elif member.flavour == "flood":
                for peer in list(member.links)[:3]:
                    made = [Member(self, True, self.now).card(self.now_ms) for _ in range(20)]
                    self._send(member, peer, Push(tuple(made)))
        self.at(self.now + self.rng.uniform(3, 7), self._attack, member)

    # What is measured

    def _delay(self, one: Member, other: Member) -> float:
        pair = (one.id, other.id) if one.id < other.id else (other.id, one.id)
        base = self._latency.get(pair)
        if base is None:
            base = self._latency[pair] = self.rng.lognormvariate(-3.22, 0.6)
        return base * self.rng.uniform(0.9, 1.3) + 0.002

    def _result(self) -> Result:
        config = self.config
        stayed = [one for one in self.honest if one.born < config.warm_s]
        result = Result()
        t50, t99, t999, coverage, coverage_end = [], [], [], [], []
        for key, at in self.told.items():
            times = sorted(self.got[key][one.id] - at for one in stayed if one.id in self.got[key])
            t50.append(_reached(times, len(stayed), 0.5))
            t99.append(_reached(times, len(stayed), 0.99))
            t999.append(_reached(times, len(stayed), 0.999))
            coverage.append(sum(one <= 10 for one in times) / len(stayed))
            coverage_end.append(len(times) / len(stayed))
        result.t50, result.t99, result.t999 = _mean(t50), _mean(t99), _mean(t999)
        result.coverage, result.coverage_end = min(coverage), min(coverage_end)
        result.copies = self.copies / len(self.told) / len(self.honest)
        result.bytes_per_s = self.sent_bytes / config.measure_s / len(self.honest)
        result.rounds_per_min = self.rounds / config.measure_s * 60 / len(self.honest)
        result.links = statistics.mean(len(one.links) for one in self.honest)
        joined = [
            one.complete_at - one.linked_at
            for one in self.honest
            if one.complete_at is not None and one.linked_at is not None
        ]
        result.joiner_s = statistics.median(joined) if joined else None
        listed = dead = 0
        for member in self.honest:
            for entry in member.gossip.table.entries.values():
                if entry.live(self.now) and entry.id in self.by_id:
                    listed += 1
                    dead += not self.by_id[entry.id].up
        result.dead_listed = dead / max(1, listed)
        own_links = own_hostile = eclipsed = 0
        for member in stayed:
            peers = [(self.by_id[peer], link) for peer, link in member.links.items()]
            eclipsed += not any(not peer.hostile and peer.up for peer, _ in peers)
            for peer, link in peers:
                if self._link_ends[link][0] is member:
                    own_links += 1
                    own_hostile += peer.hostile
        result.eclipsed = eclipsed / len(stayed)
        result.own_hostile = own_hostile / max(1, own_links)
        for member in self.honest:
            for reason, count in member.gossip.intake.refused.items():
                result.refused[reason] = result.refused.get(reason, 0) + count
        return result


def _both(ends: tuple[Member, Member] | None) -> list[tuple[Member, Member]]:
    return [] if ends is None else [ends, ends[::-1]]


def _reached(times: list[float], nodes: int, share: float) -> float | None:
    index = -(-int(share * nodes * 1000) // 1000) - 1
    return times[index] if index < len(times) else None


def _mean(times: list[float | None]) -> float | None:
    """None when it was not reached even once."""
    found = [one for one in times if one is not None]
    return statistics.mean(found) if len(found) == len(times) else None


def report(config: Config) -> None:
    started = time.process_time()
    result = Simulation(config).run()
    used = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(" ".join(f"{one.name}={getattr(config, one.name)}" for one in fields(config)))
    for one in fields(result):
        value = getattr(result, one.name)
        print(f"  {one.name:<15}{f'{value:.4g}' if isinstance(value, float) else value}")
    print(f"  {used:.0f} s CPU, {memory:.1f} GiB at most", flush=True)


def main() -> None:
    """The table of the benchmarks."""
    for hostile in (0.0, 0.3):
        report(Config(hostile=hostile))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in fields(Config):
        parser.add_argument(
            f"--{option.name.replace('_', '-')}", type=type(option.default), default=option.default
        )
    report(Config(**vars(parser.parse_args())))
