"""When this node must sign a new state of its own: heartbeats, and changes that cannot wait for one."""

from __future__ import annotations

import random
from typing import Final

from infraxa.net.rates import Bucket
from infraxa.net.records import PriceNow, State

EVERY_S: Final = 30.0
JITTER: Final = 0.1
PRICE_EVERY_S: Final = 5.0
UTIL_STEP: Final = 32
"""An eighth of all slots: less is told with the next state."""
KEPT: Final = 2
"""Changes at once that are kept for a new status, however the load moves."""
ASK_AGAIN_S: Final = 5.0
"""A state that was due and not published is asked for again after this."""


class Heartbeat:
    """Compares what should be said with what was said last."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.wanted: State | None = None
        """What the next state says; its number means nothing."""
        self._said: State | None = None
        self._beat_at = float("-inf")
        self._priced_at = float("-inf")
        self._asked_at = float("-inf")
        # Others hand on no more than this of one signer, see spreading.py; more often would be lost.
        self._changes = Bucket(0.2, 4)

    def said(self, state: State, now: float) -> None:
        """`state` was published."""
        if self._said is None or state.prices != self._said.prices:
            self._priced_at = now
        if self._said is not None and (_another(self._said, state) or _busier(self._said, state)):
            self._changes.take(1, now)
        self._said = state
        self._asked_at = float("-inf")
        self._beat_at = now + EVERY_S * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def at_once(self) -> None:
        """The next state is due, whatever it says."""
        self._beat_at = self._asked_at = float("-inf")

    def due_at(self, now: float) -> float:
        """When to sign the wanted state; infinity when there is none."""
        wanted, said = self.wanted, self._said
        if wanted is None:
            return float("inf")
        at = now if said is None else self._beat_at
        if said is not None and _another(said, wanted):
            at = min(at, now + self._changes.wait(1, now))
        if said is not None and _busier(said, wanted):
            at = min(at, now + self._changes.wait(1 + KEPT, now))
        if said is not None and moved(said.prices, wanted.prices):
            at = min(at, self._priced_at + PRICE_EVERY_S)
        return max(at, self._asked_at + ASK_AGAIN_S)

    def ask(self, now: float) -> State | None:
        """The state to sign now, or None. Asks once, and again when it was not published."""
        if self.due_at(now) > now:
            return None
        self._asked_at = now
        return self.wanted


def moved(old: tuple[PriceNow, ...], new: tuple[PriceNow, ...]) -> bool:
    """Whether a price moved by 10 % or more, or is there for the first or the last time."""
    before = {price.model: price for price in old}
    return len(before) != len(new) or any(
        price.model not in before
        or _by_a_tenth(before[price.model].price_in, price.price_in)
        or _by_a_tenth(before[price.model].price_out, price.price_out)
        for price in new
    )


def _by_a_tenth(old: int, new: int) -> bool:
    return old != new and 10 * abs(new - old) >= old


def _another(old: State, new: State) -> bool:
    return old.status != new.status or old.card != new.card


def _busier(old: State, new: State) -> bool:
    """Or less busy."""
    return abs(new.util - old.util) >= UTIL_STEP
