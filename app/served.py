"""What is known of the requests of other nodes: those that are here, the last that ended, and counts.

Numbers, times and states; nothing of a prompt or an answer ever comes here.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from infraxa.app.serving import Served, ServedState
from infraxa.net.identity import short_id
from infraxa.net.rates import Bucket

ENDED_KEPT: Final = 200
RATE_S: Final = 10
"""Seconds over which a rate is measured."""
MEDIAN_OF: Final = 50
UNANSWERED_PER_S: Final = 1.0
"""Lines in the log for requests of which nothing was answered, after a burst."""
UNANSWERED_BURST: Final = 20.0
SPEED_TOKENS: Final = 8
"""Answers of fewer tokens say little of how quick the model is."""


@dataclass(eq=False)
class Row:
    """One request."""

    number: int
    user: bytes
    where: str
    since_ms: int
    state: ServedState = "waiting"
    ended_ms: int = 0
    place: int = 0
    prompt_read: int = 0
    n_prompt: int = 0
    n_out: int = 0
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    reason: str = ""
    charge: int | None = None

    def served(self) -> Served:
        return Served(**vars(self))

    def in_words(self) -> str:
        """What came of it, for a person who reads the log."""
        facts = [f"{self.n_out} tokens"] if self.n_out else []
        if self.first_token_ms is not None:
            facts.append(f"{self.first_token_ms:.0f} ms to the first")
        if self.tokens_per_second is not None:
            facts.append(f"{self.tokens_per_second:.1f} tokens/s")
        return ", ".join([*facts, f"{self.state}: {self.reason}" if self.reason else self.state])


class Rate:
    """How many per second, over the last RATE_S whole seconds of a clock that is passed in."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()

    def add(self, count: int, now: float) -> None:
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))
        self._forget(second)

    def per_second(self, now: float) -> float:
        self._forget(int(now))
        return sum(count for _, count in self._seconds) / RATE_S

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RATE_S:
            self._seconds.popleft()


class Records:
    """Of one provider; counts begin when provider mode is turned on, numbers with the program."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        """Those that are here."""
        self._ended: deque[Served] = deque(maxlen=ENDED_KEPT)
        self._last = 0
        self._rate = Rate()
        self.reset()

    def reset(self) -> None:
        """Count anew."""
        self.answered = self.failed = self.cancelled = self.tokens = self.bytes_out = 0
        self.refused: Counter[str] = Counter()
        self._first_tokens: deque[float] = deque(maxlen=MEDIAN_OF)
        self._speeds: deque[float] = deque(maxlen=MEDIAN_OF)
        self.first_token_ms = 0
        """Median of the last answers, at least 1; 0 = none yet."""
        self.speed = 0.0
        """Tokens per second of one answer, median of the last; 0 = none yet."""

    def begin(self, user: bytes, where: str, now_ms: int) -> Row:
        """A request came."""
        self._last += 1
        row = self.rows[self._last] = Row(self._last, user, where, now_ms)
        return row

    def sent(self, row: Row, tokens: int, now: float) -> None:
        """Tokens of its answer went out."""
        row.n_out += tokens
        self.tokens += tokens
        self._rate.add(tokens, now)

    def timed(self, row: Row, first_token_ms: float | None, tokens_per_second: float | None) -> None:
        """What the engine measured of its answer."""
        row.first_token_ms, row.tokens_per_second = first_token_ms, tokens_per_second
        if first_token_ms is not None:
            self._first_tokens.append(first_token_ms)
            self.first_token_ms = max(1, round(median(self._first_tokens)))
        if tokens_per_second is not None and row.n_out >= SPEED_TOKENS:
            self._speeds.append(tokens_per_second)
            self.speed = median(self._speeds)

    def end(self, row: Row, state: ServedState, code: str, reason: str, now_ms: int) -> None:
        """It is over; `code`: of a refusal, as on the wire."""
        row.state, row.reason, row.ended_ms, row.place = state, reason, now_ms, 0
        if state == "done":
            self.answered += 1
        elif state == "failed":
            self.failed += 1
        elif state == "cancelled":
            self.cancelled += 1
        else:
            self.refused[code] += 1
        del self.rows[row.number]
        self._ended.append(row.served())

    def served(self) -> list[Served]:
        """Those that are here in the order in which they came, then those that ended, the last first."""
        return [*(row.served() for row in self.rows.values()), *reversed(self._ended)]

    def tokens_per_second(self, now: float) -> float:
        """Of all answers together."""
        return self._rate.per_second(now)


class RequestLog:
    """A line for each request that ended, for a person; fewer for those that got no answer, since anybody can
    ask."""

    def __init__(self) -> None:
        self._unanswered = Bucket(UNANSWERED_PER_S, UNANSWERED_BURST)
        self._left_out = 0
        """Since the last line."""

    def line(self, row: Row, now: float) -> str | None:
        """What to write of it, if anything."""
        if not row.n_out and row.state != "done" and not self._unanswered.take(1, now):
            self._left_out += 1
            return None
        more = f" ({self._left_out} more without an answer before it)" if self._left_out else ""
        self._left_out = 0
        return f"{self.again(row)}{more}"

    def again(self, row: Row) -> str:
        """What to write of one that begins again; each engine that is lost is cause for few."""
        return f"Request {row.number} of {short_id(row.user)}: {row.in_words()}"
