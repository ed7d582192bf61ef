"""What is counted and measured of an answer of drivers, here and not by them."""

from __future__ import annotations

from collections.abc import Callable

from infraxa.app.answering import Times
from infraxa.engine.types import Usage
from infraxa.net.orders import Done
from infraxa.net.routing import Blame


class Part:
    """One order: times in seconds of the tally's clock, None for what has not happened."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.n_out = 0
        """Tokens."""
        self.ordered_at = clock()
        self.placed_at: float | None = None
        """Since when it waits in line; None: it does not now."""
        self.waited: float | None = None
        """Seconds in line, of waits that are over; None: there was none."""
        self.first_at: float | None = None
        self.last_at = 0.0

    def leaves(self) -> None:
        """It goes out only now: what was agreed before took its time."""
        self.ordered_at = self._clock()

    def placed(self) -> None:
        """It has to wait in line."""
        if self.placed_at is None:
            self.placed_at = self._clock()

    def claimed(self) -> None:
        """It has a place, and may yet have to wait for another one."""
        if self.placed_at is not None:
            self.waited = (self.waited or 0.0) + self._clock() - self.placed_at
            self.placed_at = None

    def piece(self, tokens: int) -> None:
        self.last_at = self._clock()
        if self.first_at is None:
            self.first_at = self.last_at
        self.n_out += tokens

    def over(self) -> None:
        """Nothing more comes of it."""
        self.claimed()

    @property
    def decode(self) -> float:
        """Seconds from its first token to its last."""
        return 0.0 if self.first_at is None else self.last_at - self.first_at

    @property
    def first_token_ms(self) -> float | None:
        """From the order to the first token, waiting in line left out."""
        if self.first_at is None:
            return None
        return (self.first_at - self.ordered_at - (self.waited or 0.0)) * 1000

    @property
    def tokens_per_second(self) -> float | None:
        """After the first token; None for too few of them."""
        return (self.n_out - 1) / self.decode if self.n_out > 1 and self.decode > 0 else None


class Tally:
    """Of one answer, over all its orders."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self.dropped_turns = 0
        self.blame: Blame | None = None
        self._parts: list[Part] = []
        self._n_prompt = 0
        self._n_cached = 0
        self._connect: float | None = None

    def connected(self, seconds: float) -> None:
        """A new session took so long."""
        self._connect = (self._connect or 0.0) + seconds

    def order(self) -> Part:
        """An order goes out now."""
        self._parts.append(Part(self.now))
        return self._parts[-1]

    def done(self, done: Done) -> None:
        """The counts that only the driver knows."""
        self._n_prompt += done.n_prompt
        self._n_cached += done.n_cached

    @property
    def n_out(self) -> int:
        return sum(part.n_out for part in self._parts)

    def usage(self) -> Usage:
        """The first token counts from the first order: so long the person waited."""
        firsts = [part.first_at for part in self._parts if part.first_at is not None]
        return Usage(
            n_prompt=self._n_prompt,
            n_cached=self._n_cached,
            n_out=self.n_out,
            queued_ms=sum(self._waits()) * 1000,
            first_token_ms=(firsts[0] - self._parts[0].ordered_at) * 1000 if firsts else None,
            decode_ms=sum(part.decode for part in self._parts) * 1000,
        )

    def times(self) -> Times:
        waits = self._waits()
        return Times(
            connect_ms=None if self._connect is None else self._connect * 1000,
            wait_ms=sum(waits) * 1000 if waits else None,
            blame=self.blame or "",
            dropped_turns=self.dropped_turns,
        )

    def _waits(self) -> list[float]:
        return [part.waited for part in self._parts if part.waited is not None]
