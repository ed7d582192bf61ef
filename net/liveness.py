"""When to ask a silent peer for a sign of life, and when to take it for dead. Pure: ticks and times in.

Only time in which this process ran counts. After a suspension, a closed lid or a starved machine the clock
has jumped while nothing could be read: the peer is then asked at once, and has its time to answer.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct


class LivenessLimits(Struct, frozen=True):
    """Seconds."""

    tick: float = 1.0
    ping: float = 5.0
    """Between two pings."""
    dead: float = 15.0
    """Of silence."""
    stuck: float = 30.0
    """In which the carrier takes nothing: the peer does not read."""


JUMP: Final = 2.5
"""Ticks that one may take; what is longer was a jump."""


class Liveness:
    def __init__(self, limits: LivenessLimits, now: float) -> None:
        self._limits = limits
        self._at = now
        self._pinged = now
        self._silent = 0.0
        self._stuck = 0.0
        self._sending = False

    def heard(self) -> None:
        """Something authentic came."""
        self._silent = 0.0

    def sending(self, sending: bool) -> None:
        """The carrier was given a frame, or took it."""
        self._sending = sending
        self._stuck = 0.0

    def tick(self, now: float) -> Literal["wait", "ping", "dead"]:
        """To be called every `limits.tick` seconds."""
        limits = self._limits
        gap, self._at = max(0.0, now - self._at), now
        jumped = gap > JUMP * limits.tick
        awake = limits.tick if jumped else gap
        self._silent += awake
        if self._sending:
            self._stuck += awake
        if self._silent >= limits.dead or self._stuck >= limits.stuck:
            return "dead"
        if jumped or now - self._pinged >= limits.ping:
            self._pinged = now
            return "ping"
        return "wait"
