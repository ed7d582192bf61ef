"""Anti-entropy: one round with one peer, the asking and the answering side.

A round pulls: buckets under a fresh salt, the digests in those that differ, then the records that are missing
here, at most MAX_ROUND bytes of it all. The other side pulls for itself, so both are healed by one round
each. What is missing is asked for in random order: rounds with several peers bring different parts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from infraxa.net import codec
from infraxa.net.commands import Command
from infraxa.net.digests import BUCKETS, SIZE, Digests, Salted, differing, split
from infraxa.net.errors import ProtocolError
from infraxa.net.rates import Bucket
from infraxa.net.records import Record
from infraxa.net.spreading import pushes, sized
from infraxa.net.wire import BucketsPlease, DigestsPlease, Push, RecordsPlease, Tell

MAX_ROUND: Final = 512 * 1024
"""Bytes that one round may bring."""
MAX_ITEMS: Final = 1024
"""Digests in one RecordsPlease."""
MAX_DIGEST_CHUNK: Final = 24 * 1024
ROUND_S: Final = 30.0
"""A round takes no longer."""
SALTS_EVERY_S: Final = 10.0
SALTS_BURST: Final = 4
"""How often one peer may start a round with this node: each costs milliseconds when the table is full."""
MAX_SNAPSHOTS: Final = 8

EVERY_S: Final = 10.0
AT_ONCE: Final = 3
"""Rounds with one peer that may follow one another while each brings much; fewer than SALTS_BURST."""
EVERY_MAX_S: Final = 60.0
"""Between rounds with one peer; doubled each time that one brought nothing, so that a peer which makes its
root up costs 2 kB a minute."""

AntiEntropy = BucketsPlease | DigestsPlease | RecordsPlease


class Round:
    """The asking side. The driver sends `request` and feeds the chunks of the answer until it is None:

    while round.request: stream = await link.request(round.request); each chunk → round.chunk(...); then
    round.end(now), or round.fail(now) when the stream failed.
    """

    def __init__(
        self,
        peer: bytes,
        digests: Digests,
        rng: random.Random,
        learn: Callable[[Push, float, int], tuple[int, list[Command]]],
        done: Callable[[Round, float], None],
        now: float,
        most: int | None = None,
        ratings: bool = False,
    ) -> None:
        """`most`: bytes that it may bring, MAX_ROUND if not said. `ratings`: of those, not of the nodes."""
        self.peer = peer
        self._ratings = ratings
        self._rng = rng
        self._learn = learn
        self._done = done
        self._mine = digests.salted(rng.randbytes(16))
        self._buckets = b""
        self._missing: list[bytes] = []
        self._left = MAX_ROUND if most is None else most
        self._records_left = 0
        self.deadline = now + ROUND_S
        self.news = 0
        """Records that were new here."""
        self.more = False
        """Not all that was missing fitted."""
        self.failed = False
        self.request: AntiEntropy | None = BucketsPlease(self._mine.salt, ratings)
        """What to ask now; None: the round is over."""

    def chunk(self, chunk: bytes, now: float, now_ms: int) -> list[Command]:
        """One chunk of the answer; returns Commands. Raises ProtocolError: too_large, malformed, not_asked;
        the round is over then."""
        try:
            self._left -= len(chunk)
            if self._left < 0:
                raise ProtocolError("too_large", "anti-entropy")
            if isinstance(self.request, BucketsPlease):
                self._take_buckets(chunk)
            elif isinstance(self.request, DigestsPlease):
                self._take_digests(chunk)
            elif isinstance(self.request, RecordsPlease):
                return self._take_records(chunk, now, now_ms)
            else:
                raise ProtocolError("not_asked", "anti-entropy")
        except ProtocolError:
            self.fail(now)
            raise
        return []

    def end(self, now: float) -> None:
        """The answer ended."""
        request, salt = self.request, self._mine.salt
        self.request = None
        if isinstance(request, BucketsPlease):
            changed = differing(self._mine.buckets(), self._buckets) if self._buckets else b""
            if changed:
                self._buckets = changed
                self.request = DigestsPlease(salt, changed, self._ratings)
        elif isinstance(request, DigestsPlease) and self._missing:
            self._rng.shuffle(self._missing)
            self.more = len(self._missing) > MAX_ITEMS
            self._missing = self._missing[:MAX_ITEMS]
            # A card, a rival to it, a state and a rival to that: the most that one item is.
            self._records_left = 4 * len(self._missing)
            self.request = RecordsPlease(salt, b"".join(self._missing), self._ratings)
        if self.request is None:
            self._done(self, now)

    def fail(self, now: float) -> None:
        """The answer will not come: the stream failed, or what came broke the rules."""
        if self.failed:
            return
        self.request = None
        self.failed = True
        self._done(self, now)

    def _take_buckets(self, chunk: bytes) -> None:
        if self._buckets or len(chunk) != BUCKETS * SIZE:
            raise ProtocolError("malformed", "buckets")
        self._buckets = chunk

    def _take_digests(self, chunk: bytes) -> None:
        if len(chunk) % SIZE:
            raise ProtocolError("malformed", "digests")
        for digest in split(chunk):
            if digest[0] not in self._buckets:
                raise ProtocolError("not_asked", "a digest of another bucket")
            if digest not in self._mine:
                self._missing.append(digest)

    def _take_records(self, chunk: bytes, now: float, now_ms: int) -> list[Command]:
        push = codec.decode(chunk, Tell)
        if not isinstance(push, Push):
            raise ProtocolError("malformed", "not a push")
        self._records_left -= len(push.records)
        if self._records_left < 0:
            raise ProtocolError("not_asked", "more records than were asked for")
        news, commands = self._learn(push, now, now_ms)
        self.news += news
        return commands


class Schedule:
    """When to run a round with one peer."""

    __slots__ = ("_at", "_deadline", "_every", "_rounds", "round", "wants")

    def __init__(self, now: float) -> None:
        self.wants = False
        """The peer's table differs, or may."""
        self.round: Round | None = None
        """The one that runs."""
        self._at = now
        self._every = EVERY_S
        self._rounds = Bucket(1 / EVERY_S, AT_ONCE)
        self._deadline = float("-inf")

    def compare(self, same: bool, now: float, jitter: float) -> None:
        """The peer told its root."""
        if same:
            self._every = EVERY_S
        elif not self.wants:
            self._at = max(self._at, now + jitter)
        self.wants = not same

    def running(self, now: float) -> bool:
        return now < self._deadline

    def due_at(self) -> float:
        """Infinity when no round is wanted."""
        return max(self._at, self._deadline) if self.wants else float("inf")

    def begin(self, now: float) -> None:
        """A round was asked for; it must be over in ROUND_S."""
        if self.round is not None:
            self.round.fail(now)
        self._rounds.take(1, now)
        self._deadline = now + ROUND_S

    def ended(self, one: Round, now: float, jitter: float) -> None:
        """`jitter`: a factor around 1."""
        self.round = None
        self.wants = one.more and one.news > 0
        self._deadline = float("-inf")
        self._every = EVERY_S if one.news else min(EVERY_MAX_S, 2 * self._every)
        # A peer could have a little news and much that is missing for ever.
        again = self.wants and self._rounds.has(1, now)
        self._at = now if again else now + self._every * jitter


class Answers:
    """The answering side, for all peers. `records`: those of some items of `digests`, at a time."""

    def __init__(
        self,
        digests: Digests,
        records: Callable[[Iterable[bytes], float], Iterable[Record]],
        most: int | None = None,
    ) -> None:
        """`most`: bytes that a peer may have in one round, MAX_ROUND if not said."""
        self._digests = digests
        self._of = records
        self._most = MAX_ROUND if most is None else most
        self._snapshots: dict[bytes, _Snapshot] = {}
        self._salts: dict[bytes, Bucket] = {}

    def forget(self, peer: bytes) -> None:
        """`peer` has no link any more."""
        self._snapshots.pop(peer, None)
        self._salts.pop(peer, None)

    def answer(self, peer: bytes, request: AntiEntropy, now: float) -> Iterator[bytes]:
        """The chunks of the answer. Raises ProtocolError `rate` before the first of them."""
        snapshot = self._snapshot(peer, request.salt, now)
        salted = snapshot.salted
        if snapshot.left <= 0:
            raise ProtocolError("rate", "bytes of one round of anti-entropy")
        if isinstance(request, BucketsPlease):
            return snapshot.spend(iter((salted.buckets(),)))
        if isinstance(request, DigestsPlease):
            return snapshot.spend(_cut(salted.digests(request.buckets)))
        found = self._of(salted.nodes(request.digests[: MAX_ITEMS * SIZE]), now)
        return snapshot.spend(codec.encode(push) for push in pushes(sized(found)))

    def _snapshot(self, peer: bytes, salt: bytes, now: float) -> _Snapshot:
        found = self._snapshots.get(peer)
        if found is not None and found.salted.salt == salt:
            return found
        allowance = self._salts.setdefault(peer, Bucket(1 / SALTS_EVERY_S, SALTS_BURST))
        if not allowance.take(1, now):
            raise ProtocolError("rate", "rounds of anti-entropy")
        while len(self._snapshots) >= MAX_SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        snapshot = self._snapshots[peer] = _Snapshot(self._digests.salted(salt), self._most)
        return snapshot


class _Snapshot:
    """The items as they were when a peer's round began, and how many bytes that may still have."""

    def __init__(self, salted: Salted, most: int) -> None:
        self.salted = salted
        self.left = most

    def spend(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.left -= len(chunk)
            if self.left < 0:
                return
            yield chunk


def _cut(digests: bytes) -> Iterator[bytes]:
    for start in range(0, len(digests), MAX_DIGEST_CHUNK):
        yield digests[start : start + MAX_DIGEST_CHUNK]
