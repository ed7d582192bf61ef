"""How long a user waits for a driver, and for what: pure, told of what comes and of the time.

    answer → (line →) claimed → upload → reading → words
                                           ↑ ↓ once, see orders.py
                                           line

Each wait has a bound of its own, so that a driver which says nothing, says the same for ever, or says it one
byte a minute is left within one of them. The tokens have a least pace besides, so that an answer of n tokens
is waited for no longer than n × `per_token`, and one `pace`, however they drip. Whether the link lives is for
liveness.py.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from msgspec import Struct

Wait = Literal["answer", "line", "upload", "reading", "words"]
"""For a first word of the driver, a place, the prompt to be taken, the prompt to be read, the next tokens."""


class PatienceLimits(Struct, frozen=True):
    """Seconds."""

    answer: float = 15.0
    """Until any frame; or 3 × the time to first token that the driver promises, at most `line`."""
    line: float = 180.0
    """In line, all in all, each time."""
    placed: float = 15.0
    """Between two places in line, which are said every 5 s."""
    upload: float = 120.0
    """For the prompt to be taken, all in all."""
    taken: float = 30.0
    """In which nothing more of the prompt is taken; a driver says so for every 128 KiB, see streams.py."""
    advance: float = 90.0
    """Of reading the prompt without getting on. A driver whose engine does not for 60 s begins anew."""
    reading: float = 3600.0
    """Of reading the prompt, all in all, each time."""
    silence: float = 15.0
    """Between two tokens; or 5 × the longest such wait so far, at most `longest`."""
    longest: float = 60.0
    per_token: float = 5.0
    """Of each token, on average over `pace`. A large model on an old processor takes 2 s, and it may read the
    prompts of others half of the time. Less for one that promises to be fast, see SLOWER."""
    pace: float = 300.0
    """In which as many tokens must come as `per_token` allows for, in time that they are waited for."""
    pause: float = 5.0
    """What is left after this process did not run."""


LATE: Final = 1.0
"""Seconds; who asks so much later than it was told to did not run in between."""


SLOWER: Final = 30.0
"""So many times slower than it promises is no driver for minutes: it answers several at once, reads their
prompts, and is used by its person, but not all that at its worst."""
HALF: Final = 2.0
SLOWEST: Final = 12.0
"""Who promises little may be so many times slower, up to so many seconds per token."""
NEVER_LESS: Final = 1.0
"""Seconds per token that any driver has, whatever it promises."""


class Bound(NamedTuple):
    """What is waited for, since when, and until when at most; monotonic seconds."""

    wait: Wait
    since: float
    deadline: float
    """Signs of life that stay out end it before, see `Patience.due`."""


class Pace(NamedTuple):
    """How quickly an answer came."""

    tokens: int
    seconds: float


class Overdue(NamedTuple):
    """What did not come in time."""

    wait: Wait
    silent: bool
    """Nothing came at all, rather than nothing new."""
    waited: float
    """Seconds since it got on."""
    pace: Pace | None = None
    """Of tokens that come one by one, but too few of them."""


class Patience:
    """Of one order. `now` is always monotonic seconds."""

    def __init__(
        self, limits: PatienceLimits, now: float, *, first_token: float = 0.0, speed: float = 0.0
    ) -> None:
        """As the driver promises: `first_token`, seconds to it; `speed`, tokens per second after it, 0 = not
        promised."""
        self._limits = limits
        self._wait: Wait = "answer"
        self._began = now
        """When this wait began."""
        self._heard = now
        """When it last got on."""
        self._answer = min(max(limits.answer, 3 * first_token), max(limits.answer, limits.line))
        self._read = 0
        self._gap = 0.0
        """The longest wait between two tokens."""
        per_token = limits.per_token
        if speed > 0:
            per_token = max(min(per_token, SLOWER / speed), NEVER_LESS, min(HALF / speed, SLOWEST))
        self._need = math.ceil(limits.pace / per_token)
        """Tokens in each `pace`."""
        self._tokens = 0
        """Of them, so far."""
        self._spent = 0.0
        """Seconds that they were waited for, until `_asked`."""
        self._asked = now
        """Since when the next one is waited for."""
        self._ready = False
        """That it is was said."""
        self._sign = now
        """When anything came last."""
        self._resumed: float | None = None
        """Until when, after a pause of this process."""

    def placed(self, now: float) -> None:
        """It has a place in line; again, when the prompt was read by an engine that is lost."""
        if self._wait in ("answer", "reading"):
            self._begin("line", now)
            self._read = 0
        self._get_on(now)

    def uploading(self, now: float) -> None:
        """The prompt is being sent, and some of it was taken."""
        if self._wait != "upload":
            self._begin("upload", now)
        self._get_on(now)

    def uploaded(self, now: float) -> None:
        """All of the prompt was taken; or it had been, and has a place of its own again."""
        self._begin("reading", now)

    def progressed(self, done: int, now: float) -> None:
        """So much of the prompt was read; only more than before counts."""
        self._sign = now
        if self._wait == "reading" and done > self._read:
            self._read = done
            self._get_on(now)

    def reads(self, now: float) -> None:
        """This side is ready for what comes next. Until it is, after each piece, the time is its own."""
        if not self._ready:
            self._asked, self._ready = now, True

    def piece(self, now: float, tokens: int = 1) -> None:
        """So many tokens came."""
        if self._wait == "words":
            self._gap = max(self._gap, now - self._heard)
            self._count(tokens, now)
        else:
            self._begin("words", now)
            self._count_anew(now)
        self._ready = False
        self._get_on(now)

    def until(self) -> Bound:
        """What is waited for now."""
        whole, idle = self._bounds()
        if self._wait in ("line", "upload"):
            return Bound(self._wait, self._began, self._began + whole)
        return Bound(self._wait, self._heard, self._heard + idle)

    def due(self) -> float:
        """When to ask whether it is overdue, unless something comes; monotonic seconds."""
        whole, idle = self._bounds()
        due = min(self._began + whole, self._heard + idle)
        if self._wait == "words":
            due = min(due, self._asked + self._limits.pace - self._spent)
        return due if self._resumed is None else max(due, self._resumed)

    def overdue(self, now: float) -> Overdue | None:
        """Whether it was too long. Who asks long after `due` did not run in between: what came meanwhile is
        still to be read, so there is a little time more, once."""
        due = self.due()
        if now < due:
            return None
        if now - due > LATE and self._resumed is None:
            self._resumed = now + self._limits.pause
            self._count_anew(now)
            return None
        _, idle = self._bounds()
        if self._wait == "words" and now < self._heard + idle:
            pace = Pace(self._tokens, self._spent + now - self._asked)
            return Overdue(self._wait, False, now - self._heard, pace)
        silent = self._sign == self._heard and self._heard + idle <= now
        return Overdue(self._wait, silent, now - self._heard)

    def _bounds(self) -> tuple[float, float]:
        """Seconds that this wait may take all in all, and without getting on."""
        limits = self._limits
        match self._wait:
            case "answer":
                return math.inf, self._answer
            case "line":
                return limits.line, limits.placed
            case "upload":
                return limits.upload, limits.taken
            case "reading":
                return limits.reading, limits.advance
            case "words":
                return math.inf, max(limits.silence, min(5 * self._gap, limits.longest))

    def _count(self, tokens: int, now: float) -> None:
        if now - self.due() > LATE:
            self._count_anew(now)  # this process did not run, or read
            return
        self._spent += now - self._asked
        self._asked = now
        self._tokens += tokens
        if self._tokens >= self._need:
            self._count_anew(now)

    def _count_anew(self, now: float) -> None:
        self._tokens, self._spent, self._asked = 0, 0.0, now

    def _begin(self, wait: Wait, now: float) -> None:
        self._wait = wait
        self._began = now
        self._get_on(now)

    def _get_on(self, now: float) -> None:
        self._heard = self._sign = now
        self._resumed = None
