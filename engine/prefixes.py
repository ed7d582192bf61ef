"""Beginnings of prompts that were read before: how much two token lists share, and the conversations that
are parked in main memory. Bookkeeping only: a parked state is an opaque value (`caches.py` has it made).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

MIN_SHARED: Final = 32
"""Tokens; for fewer, a copy is not worth the interruption."""
COPY: Final = 1 / 16
"""What copying one token's part of a cache costs at most, in tokens read. Measured on two cores: 1/28 in a
model of 5 million parameters, 1/100 in one of 300 million; more than that only where a GPU reads."""
LEAST_PARKED: Final = 128
"""Tokens that would be forgotten; fewer are read again as soon as they are saved and restored."""
MAX_PARKED: Final = 128
"""Conversations; each is compared with every prompt of its user."""

State = TypeVar("State")


def common_prefix(a: list[int], b: list[int], limit: int) -> int:
    """How many of the first `limit` tokens of both are equal."""
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit
    # Comparing slices runs in C: halving is far quicker than a loop over a long conversation.
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Parked(Generic[State]):
    """One conversation that lost its slot."""

    __slots__ = ("n_bytes", "state", "tokens", "user")

    def __init__(self, user: str, tokens: list[int], n_bytes: int, state: State) -> None:
        self.user = user
        self.tokens = tokens
        self.n_bytes = n_bytes
        self.state = state


class Parking(Generic[State]):
    """Parked conversations within a budget of bytes; the one unused for longest leaves first."""

    def __init__(self, budget: int) -> None:
        """`budget`: bytes of all states; 0 = nothing is ever parked."""
        self.budget = budget
        self.n_bytes = 0
        self._entries: OrderedDict[int, Parked[State]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, user: str) -> Iterator[Parked[State]]:
        return (entry for entry in self._entries.values() if entry.user == user)

    def make_room(self, n_bytes: int) -> bool:
        """Lets go of the oldest until so many bytes fit; False when they never will."""
        if n_bytes > self.budget:
            return False
        while self._entries and (self.n_bytes + n_bytes > self.budget or len(self._entries) >= MAX_PARKED):
            self.drop(next(iter(self._entries.values())))
        return True

    def add(self, entry: Parked[State]) -> None:
        """What it goes on from is replaced by it. Needs `make_room` before."""
        n = len(entry.tokens)
        for other in [e for e in self.of(entry.user) if len(e.tokens) <= n]:
            if entry.tokens[: len(other.tokens)] == other.tokens:
                self.drop(other)
        self._entries[id(entry)] = entry
        self.n_bytes += entry.n_bytes

    def used(self, entry: Parked[State]) -> None:
        """Does nothing when it is gone: what was parked meanwhile may have taken its room."""
        if id(entry) in self._entries:
            self._entries.move_to_end(id(entry))

    def drop(self, entry: Parked[State]) -> None:
        """Does nothing when it is gone."""
        if self._entries.pop(id(entry), None) is not None:
            self.n_bytes -= entry.n_bytes

    def clear(self) -> None:
        """Lets go of all, for good: memory is short."""
        self._entries.clear()
        self.n_bytes = 0
