"""When this machine serves nobody although provider mode is on: outside the hours, on its battery.

Rules on a time that is passed in, and one look at the battery.
"""

from __future__ import annotations

from datetime import datetime, time, tzinfo
from typing import NamedTuple


class Hours(NamedTuple):
    """From `start` until before `end`, over midnight when `end` is not later; equal: the whole day."""

    start: time
    end: time


class Pause(NamedTuple):
    """Why nobody is served."""

    reason: str
    """One sentence."""
    ends: float | None = None
    """Seconds since the epoch; None = not known."""


def parse_hours(text: str) -> Hours:
    """`22:00-07:00`, as the setting is checked to be."""
    start, _, end = text.partition("-")
    return Hours(time.fromisoformat(start), time.fromisoformat(end))


def within(hours: Hours, at: float, zone: tzinfo | None = None) -> bool:
    """Whether the wall clock is in these hours at the time `at` (seconds since the epoch); `zone` None: this
    machine's. In an hour that the clock shows twice, both count; one that it leaves out does not exist."""
    clock = datetime.fromtimestamp(at, zone).time()
    if hours.start < hours.end:
        return hours.start <= clock < hours.end
    return clock >= hours.start or clock < hours.end


def begin(hours: Hours, at: float, zone: tzinfo | None = None) -> float:
    """When these hours begin next after `at`, a time outside of them; both in seconds since the epoch."""
    # By trying: a day may have no such hours, where the clock leaves them out, half of them, or two.
    minute = int(at) // 60 * 60
    while True:
        minute += 60
        if within(hours, minute, zone):
            return minute


def find_pause(
    hours: str | None, pause_on_battery: bool, on_battery: bool, at: float, zone: tzinfo | None = None
) -> Pause | None:
    """Why nobody is to be served at the time `at`; None: no reason."""
    if hours is not None and not within(found := parse_hours(hours), at, zone):
        return Pause(f"It serves only at {hours}, as set.", begin(found, at, zone))
    if pause_on_battery and on_battery:
        return Pause("This machine runs on its battery.")
    return None


def on_battery() -> bool:
    """Whether this machine has a battery and runs on it; False where the system does not say."""
    import psutil

    look = getattr(psutil, "sensors_battery", None)  # not on every system
    battery = None if look is None else look()
    return battery is not None and battery.power_plugged is False
