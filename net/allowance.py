"""How much of something is allowed in a time: a token bucket that is one number."""

from __future__ import annotations


class Allowance:
    """`burst` at once, refilled with `rate` per second. Time is passed in (seconds, monotonic)."""

    __slots__ = ("_full_at", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._full_at = float("-inf")

    def has(self, amount: float, now: float) -> bool:
        # The sum of many small steps is not exact.
        return amount <= self.left(now) + 1e-6

    def left(self, now: float) -> float:
        """What could be taken now."""
        return self.burst - max(0.0, self._full_at - now) * self.rate

    def take(self, amount: float, now: float) -> bool:
        """Take `amount`, or nothing when there is less."""
        if not self.has(amount, now):
            return False
        self._full_at = max(self._full_at, now) + amount / self.rate
        return True
