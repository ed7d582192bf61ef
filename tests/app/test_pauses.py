"""Hours over midnight and over changes of the clock, and the battery."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infraxa.app.pauses import begin, find_pause, on_battery, parse_hours, within

BERLIN = ZoneInfo("Europe/Berlin")
"""The clock goes from 02:00 to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25."""


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("hours", "time", "inside"),
    [
        ("22:00-07:00", "2026-06-01T21:59:59", False),
        ("22:00-07:00", "2026-06-01T22:00", True),
        ("22:00-07:00", "2026-06-01T00:00", True),
        ("22:00-07:00", "2026-06-01T06:59:59", True),
        ("22:00-07:00", "2026-06-01T07:00", False),
        ("09:00-17:00", "2026-06-01T09:00", True),
        ("09:00-17:00", "2026-06-01T17:00", False),
        ("09:00-09:00", "2026-06-01T03:00", True),
    ],
)
def test_hours(hours: str, time: str, inside: bool) -> None:
    assert within(parse_hours(hours), at(time), BERLIN) is inside


@pytest.mark.parametrize(
    ("hours", "now", "next_one"),
    [
        ("22:00-07:00", at("2026-06-01T12:00"), at("2026-06-01T22:00")),
        ("09:00-17:00", at("2026-06-01T17:00"), at("2026-06-02T09:00")),
        # Ten hours on the wall are nine in that night.
        ("05:00-06:00", at("2026-03-28T19:00"), at("2026-03-28T19:00") + 9 * 3600),
        ("05:00-06:00", at("2026-10-24T19:00"), at("2026-10-24T19:00") + 11 * 3600),
        # That time is left out on that day: it begins where the clock goes on.
        ("02:30-04:00", at("2026-03-29T00:00"), at("2026-03-29T03:00")),
        # All of it is left out: the next day.
        ("02:10-02:50", at("2026-03-29T00:00"), at("2026-03-30T02:10")),
        # It comes twice in that night.
        ("02:10-02:20", at("2026-10-25T02:20"), at("2026-10-25T02:10", fold=1)),
    ],
)
def test_when_hours_begin(hours: str, now: float, next_one: float) -> None:
    assert begin(parse_hours(hours), now, BERLIN) == next_one


@given(
    st.integers(0, 24 * 60 - 1),
    st.integers(0, 24 * 60 - 1),
    st.integers(int(at("2026-03-27T00:00")), int(at("2026-11-01T00:00"))),
)
@settings(deadline=None, max_examples=200)
@example(121, 182, int(at("2026-03-28T03:02")))
def test_a_pause_ends_where_hours_begin(start: int, end: int, now: int) -> None:
    text = "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (start, end))
    pause = find_pause(text, False, False, now, BERLIN)
    if pause is None:
        assert within(parse_hours(text), now, BERLIN)
        return
    assert text in pause.reason
    assert pause.ends is not None and now < pause.ends <= now + 50 * 3600
    assert find_pause(text, False, False, pause.ends, BERLIN) is None
    assert find_pause(text, False, False, pause.ends - 1, BERLIN) is not None


def test_the_time_of_this_machine_is_used_by_default() -> None:
    now = datetime.now().astimezone()
    text = f"{now:%H:%M}-{now + timedelta(minutes=2):%H:%M}"
    assert find_pause(text, False, False, now.timestamp()) is None
    other = timezone((now.utcoffset() or timedelta()) + timedelta(hours=5))
    assert find_pause(text, False, False, now.timestamp(), other) is not None


def test_battery() -> None:
    assert find_pause(None, True, True, 0.0) is not None
    assert find_pause(None, False, True, 0.0) is None
    assert find_pause(None, True, False, 0.0) is None


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (None, False),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=None), False),
        (SimpleNamespace(power_plugged=False), True),
    ],
)
def test_the_look_at_the_battery(monkeypatch: pytest.MonkeyPatch, battery: object, expected: bool) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert on_battery() is expected


def test_a_system_that_knows_no_batteries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert on_battery() is False
