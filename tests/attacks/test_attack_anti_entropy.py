"""Anti-entropy as a weapon: roots that are made up, answers without end, rounds without end."""

from __future__ import annotations

import os
from collections.abc import Iterator

from infraxa.net import codec, gossip, rounds
from infraxa.net.digests import BUCKETS, SIZE, split
from infraxa.net.errors import ProtocolError
from infraxa.net.rounds import MAX_ROUND, Round
from infraxa.net.wire import BucketsPlease, DigestsPlease, Push, RecordsPlease, Root
from tests.attacks import report
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, a_state, node_id

SALT = bytes(16)


class Cheated(Victim):
    """Its rounds of anti-entropy are answered by one who lies."""

    def __init__(self) -> None:
        self.asked = 0
        self.bytes = 0
        self.largest = 0
        """Digests that were kept in one round."""
        super().__init__(PEER)

    def sync(self, peer: bytes) -> None:
        one = self.gossip.round(peer, self.now)
        try:
            while one.request is not None:
                self.asked += 1
                for chunk in self.answer(one):
                    self.bytes += len(chunk)
                    self.do(one.chunk(chunk, self.now, self.now_ms))
                self.largest = max(self.largest, len(one._missing))
                one.end(self.now)
        except ProtocolError as error:
            self.refused[error.reason] += 1

    def answer(self, one: Round) -> Iterator[bytes]:
        """Everything differs; then nothing comes."""
        if isinstance(one.request, BucketsPlease):
            yield os.urandom(BUCKETS * SIZE)

    def last(self, seconds: int) -> None:
        """The peer tells another root each second."""
        for _ in range(seconds):
            self.tell(PEER, Root(os.urandom(8), 7))
            self.wait(1)


def test_a_root_that_is_made_up_each_second() -> None:
    seconds = report.scale(900, 3600)
    with replaced((rounds, "EVERY_S", 0.0001), (rounds, "EVERY_MAX_S", 0.0)):
        weak = Cheated()
        weak.last(seconds)
    ours = Cheated()
    ours.last(seconds)
    assert weak.rounds > 0.9 * seconds
    assert ours.rounds <= seconds / 55 + 8
    report.tell(
        f"anti-entropy: another root each second, {seconds} s",
        weakened=f"{weak.rounds:,} rounds",
        ours=f"{ours.rounds} rounds",
        cost=f"{ours.bytes >> 10} KiB read",
    )


def test_many_peers_whose_roots_are_made_up() -> None:
    peers, seconds = [node_id(number) for number in range(64)], report.scale(30, 300)

    def lie() -> Cheated:
        victim = Cheated()
        for peer in peers:
            victim.link(peer)
        for _ in range(seconds):
            for peer in peers:
                victim.tell(peer, Root(os.urandom(8), 7))
            victim.wait(1)
        return victim

    with replaced((gossip, "ROUNDS_PER_S", 1e9), (rounds, "EVERY_S", 1.0), (rounds, "EVERY_MAX_S", 1.0)):
        weak = lie()
    with replaced((rounds, "EVERY_S", 1.0), (rounds, "EVERY_MAX_S", 1.0)):
        ours = lie()
    assert weak.rounds > 10 * seconds
    assert ours.rounds <= seconds + gossip.ROUNDS_BURST + 1
    report.tell(
        f"anti-entropy: 64 peers who all lie, {seconds} s",
        weakened=f"{weak.rounds:,} rounds",
        ours=f"{ours.rounds} rounds",
        cost="one round a second with all together",
    )


class Endless(Cheated):
    """The digests never end."""

    def answer(self, one: Round) -> Iterator[bytes]:
        yield from super().answer(one)
        if isinstance(one.request, DigestsPlease):
            for _ in range(report.scale(200, 2000)):
                yield os.urandom(24 * 1024)


def test_digests_without_end() -> None:
    with replaced((rounds, "MAX_ROUND", 2**40)):
        weak = Endless()
        weak.last(1)
    ours = Endless()
    ours.last(1)
    assert weak.bytes >= 200 * 24 * 1024
    assert ours.bytes <= MAX_ROUND + 24 * 1024 and ours.largest <= MAX_ROUND // SIZE
    assert ours.refused["too_large"] == 1
    report.tell(
        "anti-entropy: digests without end",
        weakened=f"{weak.bytes >> 10:,} KiB read, {weak.largest:,} digests kept",
        ours=f"{ours.bytes >> 10} KiB; too_large",
        cost="512 KiB a round",
    )


class Elsewhere(Cheated):
    """One bucket differs; the digests are of others."""

    def answer(self, one: Round) -> Iterator[bytes]:
        if isinstance(one.request, BucketsPlease):
            yield b"\xff" + bytes(BUCKETS * SIZE - 1)
        elif isinstance(one.request, DigestsPlease):
            yield b"".join(bytes((1,)) + os.urandom(7) for _ in range(2000))


class AnyBucket(Round):
    """Takes what it is given."""

    def _take_digests(self, chunk: bytes) -> None:
        self._missing += [digest for digest in split(chunk) if digest not in self._mine]


def test_digests_of_another_bucket() -> None:
    with replaced((gossip, "Round", AnyBucket)):
        weak = Elsewhere()
        weak.last(1)
    ours = Elsewhere()
    ours.last(1)
    assert weak.largest == 2000 and weak.asked == 3
    assert ours.largest == 0 and ours.asked == 2 and ours.refused["not_asked"] == 1
    report.tell(
        "anti-entropy: digests of another bucket",
        weakened=f"asks for {weak.largest:,} of them",
        ours="the round is over; not_asked",
    )


class Drip(Cheated):
    """Much is missing for ever, and each round brings a little that is new."""

    def answer(self, one: Round) -> Iterator[bytes]:
        yield from super().answer(one)
        if isinstance(one.request, DigestsPlease):
            yield os.urandom(SIZE * 2000)
        elif isinstance(one.request, RecordsPlease):
            card, _ = sybils(1, 1)
            yield codec.encode(Push((card, a_state(card, self.now_ms + self.asked))))


def test_rounds_that_always_bring_a_little() -> None:
    seconds = report.scale(20, 100)
    with replaced((rounds, "AT_ONCE", 10**9), (gossip, "ROUNDS_PER_S", 1e9)):
        weak = Drip()
        weak.last(seconds)
    ours = Drip()
    ours.last(seconds)
    assert weak.rounds > 10 * seconds
    assert ours.rounds <= seconds / 9 + 4
    report.tell(
        f"anti-entropy: rounds that bring a little, {seconds} s",
        weakened=f"{weak.rounds:,} rounds",
        ours=f"{ours.rounds} rounds",
        cost=f"{ours.bytes >> 10} KiB read",
    )


def asked(count: int, *, salts: bool) -> tuple[int, int, Victim]:
    """A peer asks for everything so many times within a minute, each time by another salt or always by the
    same. How often it was answered, and with how many bytes."""
    victim = Victim(PEER)
    victim.learn(PEER, sybils(1, 400))
    answered = size = 0
    for number in range(count):
        salt = number.to_bytes(16, "big") if salts else SALT
        try:
            digests = b"".join(
                victim.gossip.answer(PEER, DigestsPlease(salt, bytes(range(256))), victim.now)
            )[: 1024 * SIZE]
            chunks = [*victim.gossip.answer(PEER, RecordsPlease(salt, digests), victim.now)]
        except ProtocolError as error:
            assert error.reason == "rate"
        else:
            answered += 1
            size += len(digests) + sum(map(len, chunks))
        victim.wait(60 / count)
    return answered, size, victim


def test_a_peer_that_asks_all_the_time() -> None:
    count = report.scale(50, 500)
    with replaced((rounds, "SALTS_BURST", 10**9)):
        weakened, read, _ = asked(count, salts=True)
    assert weakened == count
    ours, size, victim = asked(count, salts=True)
    assert ours <= 4 + 6 + 1 and size <= ours * MAX_ROUND
    assert len(victim.gossip._answers._snapshots) == 1
    report.tell(
        f"anti-entropy: asked {count} times in a minute",
        weakened=f"{weakened} answers, {read >> 10:,} KiB",
        ours=f"{ours} answers; rate",
        cost=f"{size >> 10:,} KiB",
    )


def test_a_peer_that_asks_the_same_again() -> None:
    """8 KiB of questions make no 512 KiB of answers each time."""
    count = report.scale(50, 500)
    with replaced((rounds, "MAX_ROUND", 2**40)):
        weakened, read, _ = asked(count, salts=False)
    assert weakened == count
    ours, size, _ = asked(count, salts=False)
    assert size <= MAX_ROUND < read and ours < 10
    report.tell(
        f"anti-entropy: the same question {count} times",
        weakened=f"{read >> 10:,} KiB",
        ours=f"{size >> 10} KiB; rate",
        cost="512 KiB a round",
    )


def test_digests_that_do_not_exist() -> None:
    victim = Victim(PEER)
    victim.learn(PEER, sybils(1, 50))
    list(victim.gossip.answer(PEER, BucketsPlease(SALT), victim.now))
    assert not list(victim.gossip.answer(PEER, RecordsPlease(SALT, os.urandom(8192)), victim.now))


def test_snapshots_of_many_peers_are_bounded() -> None:
    """Each is a table under a salt: 150 bytes for each node of it."""
    peers = [os.urandom(32) for _ in range(report.scale(30, 300))]
    victim = Victim(PEER, *peers)
    victim.learn(PEER, sybils(1, 50))
    for peer in peers:
        list(victim.gossip.answer(peer, BucketsPlease(os.urandom(16)), victim.now))
    assert len(victim.gossip._answers._snapshots) == rounds.MAX_SNAPSHOTS
