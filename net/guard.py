"""What first messages of strangers may cost: how many, how old, how often the same, and for what work.

Pure and bounded. The order in which hellos are judged is in door.py; connections are counted in lobby.py.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from infraxa.net.noise import RandBytes
from infraxa.net.rates import Bucket

MIN_BITS: Final = 16
MAX_BITS: Final = 20
"""Zero bits asked for: about 0.05 and 0.8 seconds of one core in Python. Nobody solves a harder puzzle."""
CHALLENGE: Final = 16
"""Bytes of a challenge."""
NONCE: Final = 8
"""Bytes of a solution."""
EPOCH_SECONDS: Final = 120.0
"""A challenge is good in the epoch that it was given in, and in the next."""


class Rates:
    """How often each source may come; the least recently seen of more than `sources` are forgotten."""

    def __init__(self, sources: int) -> None:
        self._sources = sources
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def allow(self, source: str, per_second: float, burst: float, now: float) -> bool:
        """Whether `source` may come once more now."""
        bucket = self._buckets.pop(source, None) or Bucket(per_second, burst)
        self._buckets[source] = bucket
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return bucket.take(1.0, now)

    def give(self, source: str, amount: float) -> None:
        """Put back what `source` took, if it is remembered."""
        if (bucket := self._buckets.get(source)) is not None:
            bucket.give(amount)


class Load:
    """How many hellos a second came lately, and the proof of work that this calls for."""

    AVERAGED_SECONDS: Final = 2.0

    def __init__(self, free_per_second: float) -> None:
        self._free = free_per_second
        self._count = 0.0
        self._then = 0.0

    def bits(self, now: float) -> int:
        """Count a hello; the zero bits to ask of it: 0, or MIN_BITS and one more for each doubling."""
        passed = max(0.0, now - self._then)
        self._count = self._count * math.exp(-passed / self.AVERAGED_SECONDS) + 1.0
        self._then = now
        excess = self._count / self.AVERAGED_SECONDS / self._free
        return 0 if excess <= 1.0 else min(MAX_BITS, MIN_BITS + int(math.log2(excess)))


class Seen:
    """The keys of first messages, each kept for `seconds`. It never forgets one early: when `entries` are
    kept it is full, and nothing is let in until the oldest has gone."""

    def __init__(self, entries: int, seconds: float) -> None:
        self._entries = entries
        self._seconds = seconds
        self._times: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, key: bytes) -> bool:
        return key in self._times

    def add(self, key: bytes, now: float) -> bool:
        """Keep `key`, which is new; False when there is no room."""
        while self._times and now - next(iter(self._times.values())) >= self._seconds:
            self._times.popitem(last=False)
        if len(self._times) >= self._entries:
            return False
        self._times[key] = now
        return True


class Puzzle(Struct, frozen=True):
    """Find a nonce so that BLAKE2b(prefix ‖ nonce) begins with `bits` zero bits."""

    prefix: bytes
    bits: int


class Challenges:
    """Proof of work that nothing is remembered of: a challenge is a keyed hash of source, prekey and time."""

    def __init__(self, randbytes: RandBytes) -> None:
        self._key = randbytes(32)

    def challenge(self, source: str, prekey_id: bytes, now: float) -> bytes:
        return self._challenge(source, prekey_id, int(now // EPOCH_SECONDS))

    def solved(
        self, source: str, prekey_id: bytes, ephemeral: bytes, nonce: bytes, bits: int, now: float
    ) -> bool:
        """Whether this hello brings the work. One bit less is taken, since the load may have grown after
        the challenge was given."""
        epoch = int(now // EPOCH_SECONDS)
        asked = max(MIN_BITS, bits - 1)
        return any(
            _zero_bits(self._challenge(source, prekey_id, given) + ephemeral + nonce) >= asked
            for given in (epoch, epoch - 1)
        )

    def _challenge(self, source: str, prekey_id: bytes, epoch: int) -> bytes:
        # The prekey id has a fixed size, so that no two sources make the same input.
        data = prekey_id + epoch.to_bytes(8, "big", signed=True) + source.encode()
        return hashlib.blake2b(data, key=self._key, digest_size=CHALLENGE).digest()


def solve(puzzle: Puzzle, stop: Callable[[], bool] = lambda: False) -> bytes | None:
    """The nonce of a puzzle; None after sixteen times the tries that are expected, or when `stop`, which is
    asked every few milliseconds, says so. Takes up to seconds of CPU: not for the event loop."""
    for number in range(2 ** (puzzle.bits + 4)):
        if number % 4096 == 0 and stop():
            return None
        nonce = number.to_bytes(NONCE, "big")
        if _zero_bits(puzzle.prefix + nonce) >= puzzle.bits:
            return nonce
    return None


def _zero_bits(data: bytes) -> int:
    return 64 - int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big").bit_length()
