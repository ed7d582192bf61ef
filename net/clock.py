"""Whether this machine's clock can be right, judged by its peers', and whether time went on at all. Pure.

Records are ordered by their numbers, never by time; but a handshake and a number far ahead are refused when
two clocks are apart, so a clock that is off cuts a node off, and its person must hear why.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal

from msgspec import Struct

from infraxa.net.addresses import LOCAL
from infraxa.net.status import Notice

WARN_MS: Final = 60_000
BLOCK_MS: Final = 120_000
"""Beyond this others refuse what this node says, so it stays silent. The same as in a handshake."""
SURE: Final = 3
"""Voices at least, before they may silence this node: of three, one may lie."""
MAX_VOICES: Final = 64
STEP_MS: Final = 2_000
"""By how much the time of day may drift against the monotonic clock between two ticks."""
JUMP: Final = 2.5
"""Ticks that one may take; what is longer was a pause."""


class Judgement(Struct, frozen=True):
    """What the peers' clocks say."""

    skew_ms: int | None = None
    """Median of their clocks minus this one; None when nobody was asked."""
    voices: int = 0
    trusted_ms: int = 0
    """The same, by which the numbers of records are judged; 0 as long as too few were asked."""
    notice: Notice | None = None


class Skew:
    """The peers' clocks against this one, each peer's last word, measured in its handshake.

    A group of addresses has one voice (addresses.group), so that nobody is many; on the local network each
    peer has its own. The median is between two honest voices as long as fewer than half lie.
    """

    def __init__(self) -> None:
        self._voices: OrderedDict[str, int] = OrderedDict()

    def add(self, peer: bytes, group: str, skew_ms: int) -> None:
        """A handshake with `peer` measured its clock minus ours. Also for one that was refused because of
        its time: then nobody proved anything, and `peer` is whom we meant to reach."""
        voice = peer.hex() if group == LOCAL else group
        self._voices[voice] = skew_ms
        self._voices.move_to_end(voice)
        if len(self._voices) > MAX_VOICES:
            self._voices.popitem(last=False)

    def forget(self) -> None:
        """This machine's clock was set: what was measured against it says nothing any more."""
        self._voices.clear()

    def judge(self) -> Judgement:
        """The state of this machine's clock, for the status, the gossip and the person."""
        count = len(self._voices)
        if not count:
            return Judgement()
        ordered = sorted(self._voices.values())
        # Of the two in the middle the one nearer to ours: both are honest, or between two that are.
        skew_ms = min(ordered[(count - 1) // 2], ordered[count // 2], key=abs)
        apart = abs(skew_ms)
        trusted_ms = skew_ms if count >= SURE else 0
        if apart <= WARN_MS:
            return Judgement(skew_ms, count, trusted_ms)
        who = "1 peer says" if count == 1 else f"{count} peers say"
        doubt = "" if count >= SURE else f", which is not sure before {SURE} say so"
        message = (
            f"This machine's clock is {_span(apart)} {'slow' if skew_ms > 0 else 'fast'}: {who} so{doubt}."
        )
        if abs(trusted_ms) > BLOCK_MS:
            message += " Others refuse it, so this node is silent until the clock is right."
        notice = Notice("clock", message, "Set the clock by the network (NTP); infraxa goes on by itself.")
        return Judgement(skew_ms, count, trusted_ms, notice)


class Pulse:
    """Notices that this process did not run, or that the clock was set, from ticks that come regularly."""

    def __init__(self, interval: float, now: float, now_ms: int) -> None:
        """`interval`: seconds between two ticks; the clocks as they are, monotonic seconds and unix ms."""
        self._interval = interval
        self._now = now
        self._now_ms = now_ms

    def tick(self, now: float, now_ms: int) -> Literal["steady", "paused", "stepped"]:
        """`paused`: the process was stopped or starved. `stepped`: the time of day went another way than the
        monotonic clock: the machine slept (Linux stops the one and not the other), or the clock was set; then
        also `Skew.forget`. After both: look at the network cards, and expect no link to have lived."""
        gap, self._now = max(0.0, now - self._now), now
        passed_ms, self._now_ms = now_ms - self._now_ms, now_ms
        if abs(passed_ms - gap * 1000) > STEP_MS:
            return "stepped"
        return "paused" if gap > JUMP * self._interval else "steady"


def _span(ms: int) -> str:
    seconds = ms // 1000
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
