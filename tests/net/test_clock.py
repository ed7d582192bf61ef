from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net.clock import MAX_VOICES, WARN_MS, Judgement, Pulse, Skew

skews = st.integers(-(10**12), 10**12)


def heard(*values: int) -> Skew:
    skew = Skew()
    for number, value in enumerate(values):
        skew.add(bytes([number]) * 32, f"8.8.{number}.0/24", value)
    return skew


def test_nobody_asked() -> None:
    assert heard().judge() == Judgement(None, 0, 0, None)


@pytest.mark.parametrize(
    ("values", "median"),
    [([5], 5), ([10, 20], 10), ([-10, -20], -10), ([1, 2, 900], 2), ([-3, -1, 1, 2], -1)],
)
def test_the_median(values: list[int], median: int) -> None:
    judgement = heard(*values).judge()
    assert judgement.skew_ms == median
    assert judgement.voices == len(values)


def test_warned_beyond_a_minute_and_silent_beyond_two() -> None:
    assert heard(*[WARN_MS] * 5).judge().notice is None
    warned = heard(*[WARN_MS + 1] * 5).judge()
    assert warned.trusted_ms == WARN_MS + 1
    assert warned.notice is not None and "60 seconds slow: 5 peers say so." in warned.notice.message
    silent = heard(*[-600_000] * 5).judge()
    assert silent.trusted_ms == -600_000
    assert silent.notice is not None
    assert "10 minutes fast" in silent.notice.message and "silent" in silent.notice.message
    assert "NTP" in silent.notice.remedy


def test_two_voices_warn_and_do_not_silence() -> None:
    judgement = heard(600_000, 600_000).judge()
    assert judgement.trusted_ms == 0
    assert judgement.notice is not None and "silent" not in judgement.notice.message
    assert judgement.notice is not None and "not sure before 3" in judgement.notice.message


def test_one_owner_of_many_addresses_has_one_voice() -> None:
    skew = heard(0, 0, 0)
    for number in range(100):
        skew.add(bytes([number]) * 32, "9.9.9.0/24", 10**9)
    assert skew.judge() == Judgement(0, 4, 0, None)


def test_peers_on_the_local_network_have_one_voice_each() -> None:
    skew = Skew()
    for number in range(3):
        skew.add(bytes([number]) * 32, "local", 300_000)
    skew.add(bytes(32), "local", 300_000)
    assert skew.judge().voices == 3
    assert skew.judge().trusted_ms == 300_000


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30), st.data())
@settings(deadline=None)
def test_fewer_than_half_liars_move_nothing(honest: list[int], data: st.DataObject) -> None:
    lies = data.draw(st.lists(skews, max_size=len(honest) - 1))
    judgement = heard(*data.draw(st.permutations(honest + lies))).judge()
    assert judgement.skew_ms is not None
    assert min(honest) <= judgement.skew_ms <= max(honest)
    assert abs(judgement.trusted_ms) <= 1000
    assert judgement.notice is None


def test_voices_are_bounded_and_the_newest_kept() -> None:
    skew = Skew()
    for number in range(3 * MAX_VOICES):
        skew.add(bytes(32), str(number), 0 if number < 2 * MAX_VOICES else 300_000)
    assert skew.judge().voices == MAX_VOICES
    assert skew.judge().skew_ms == 300_000


def test_a_clock_that_was_set_is_judged_anew() -> None:
    skew = heard(300_000, 300_000, 300_000)
    skew.forget()
    assert skew.judge() == Judgement()


def test_a_pulse() -> None:
    pulse = Pulse(1.0, 100.0, 5_000_000)
    assert pulse.tick(101.0, 5_001_000) == "steady"
    assert pulse.tick(103.4, 5_003_300) == "steady"  # a busy machine
    assert pulse.tick(163.4, 5_063_300) == "paused"  # stopped by a signal
    assert pulse.tick(164.4, 5_064_300) == "steady"
    assert pulse.tick(165.4, 5_064_300 + 3_600_000) == "stepped"  # slept, on Linux
    assert pulse.tick(3765.4, 5_065_300 + 7_200_000) == "paused"  # slept, where both clocks go on
    assert pulse.tick(3766.4, 5_066_300 + 7_200_000) == "steady"
    assert pulse.tick(3767.4, 0) == "stepped"  # set back
    assert pulse.tick(3768.4, 1000) == "steady"
