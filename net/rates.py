"""How much of something is allowed in a time: a token bucket that is one number, on a clock that is passed in
(seconds, monotonic)."""

from __future__ import annotations


class Bucket:
    """Allows `burst` at once and `rate` per second after; full at the start."""

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

    def give(self, amount: float) -> None:
        """Put `amount` back, as if it had not been taken."""
        self._full_at -= amount / self.rate

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` is allowed; 0 when it is."""
        return 0.0 if self.has(amount, now) else (amount - self.left(now)) / self.rate
