"""How long a user waits for a driver, and for what: pure, told of what comes and of the time.

    answer → (line →) claimed → upload → reading → words
                                           ↑ ↓ once, see orders.py
                                           line

Each wait has a bound of its own, so that a driver which says nothing, says the same for ever, or says it one
byte a minute is left within one of them. Whether the link lives is for liveness.py.
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
    pause: float = 5.0
    """What is left after this process did not run."""


LATE: Final = 1.0
"""Seconds; who asks so much later than it was told to did not run in between."""


class Bound(NamedTuple):
    """What is waited for, since when, and until when at most; monotonic seconds."""

    wait: Wait
    since: float
    deadline: float
    """Signs of life that stay out end it before, see `Patience.due`."""


class Overdue(NamedTuple):
    """What did not come in time."""

    wait: Wait
    silent: bool
    """Nothing came at all, rather than nothing new."""
    waited: float
    """Seconds since it got on."""


class Patience:
    """Of one order. `now` is always monotonic seconds."""

    def __init__(self, limits: PatienceLimits, now: float, *, first_token: float = 0.0) -> None:
        """`first_token`: seconds to the first token as the driver promises."""
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

    def piece(self, now: float) -> None:
        """A token came."""
        if self._wait == "words":
            self._gap = max(self._gap, now - self._heard)
        else:
            self._begin("words", now)
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
        return due if self._resumed is None else max(due, self._resumed)

    def overdue(self, now: float) -> Overdue | None:
        """Whether it was too long. Who asks long after `due` did not run in between: what came meanwhile is
        still to be read, so there is a little time more, once."""
        due = self.due()
        if now < due:
            return None
        if now - due > LATE and self._resumed is None:
            self._resumed = now + self._limits.pause
            return None
        _, idle = self._bounds()
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

    def _begin(self, wait: Wait, now: float) -> None:
        self._wait = wait
        self._began = now
        self._get_on(now)

    def _get_on(self, now: float) -> None:
        self._heard = self._sign = now
        self._resumed = None
