"""How much of something is allowed in a time: a token bucket, on a clock that is passed in."""

from __future__ import annotations


class Bucket:
    """Allows `burst` at once and `rate` per second after; full at the start."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Whether `amount` is allowed now; nothing is taken when it is not."""
        self._refill(now)
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` is allowed; 0 when it is."""
        self._refill(now)
        return max(0.0, (amount - self._level) / self.rate)

    def _refill(self, now: float) -> None:
        # A clock that steps back gives nothing, and takes nothing.
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
