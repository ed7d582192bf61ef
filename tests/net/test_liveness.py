"""When a peer is asked whether it lives, and when it is taken for dead."""

from __future__ import annotations

from infraxa.net.liveness import Liveness, LivenessLimits
from infraxa.net.rates import Bucket

LIMITS = LivenessLimits()


def ticks(liveness: Liveness, begin: float, end: float) -> list[tuple[float, str]]:
    """All ticks in this time, one a second, but those that say nothing."""
    found = ((float(now), liveness.tick(float(now))) for now in range(int(begin) + 1, int(end) + 1))
    return [(now, said) for now, said in found if said != "wait"]


def test_a_silent_peer_is_asked_and_then_dead() -> None:
    said = ticks(Liveness(LIMITS, 0.0), 0, 15)
    assert said == [(5.0, "ping"), (10.0, "ping"), (15.0, "dead")]


def test_who_answers_lives() -> None:
    liveness = Liveness(LIMITS, 0.0)
    for begin in range(0, 100, 10):
        assert "dead" not in dict(ticks(liveness, begin, begin + 10)).values()
        liveness.heard()


def test_after_a_suspension_the_peer_is_asked_first() -> None:
    liveness = Liveness(LIMITS, 0.0)
    ticks(liveness, 0, 10)
    assert liveness.tick(3600.0) == "ping"
    assert ticks(liveness, 3600, 3603) == []
    assert ticks(liveness, 3603, 3604) == [(3604.0, "dead")]  # ten seconds before, one of it, four after


def test_a_starved_machine_does_not_blame_the_peer() -> None:
    """A tick every ten seconds."""
    liveness = Liveness(LIMITS, 0.0)
    assert [liveness.tick(10.0 * step) for step in range(1, 10)] == ["ping"] * 9


def test_a_clock_that_steps_back_counts_nothing() -> None:
    liveness = Liveness(LIMITS, 100.0)
    assert [liveness.tick(100.0 - step) for step in range(20)] == ["wait"] * 20


def test_who_takes_nothing_is_dead_though_it_speaks() -> None:
    liveness = Liveness(LIMITS, 0.0)
    liveness.sending(True)
    for now in range(1, 30):
        liveness.heard()
        assert liveness.tick(float(now)) != "dead"
    liveness.heard()
    assert liveness.tick(30.0) == "dead"


def test_each_frame_that_is_taken_counts() -> None:
    liveness = Liveness(LIMITS, 0.0)
    for now in range(1, 100):
        liveness.sending(True)
        liveness.heard()
        assert liveness.tick(float(now)) != "dead"
        liveness.sending(False)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3.0)
    assert [bucket.take(1, 0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(1, 0.0) == 0.5
    assert not bucket.take(1, 0.25)
    assert bucket.take(1, 0.5)
    assert (bucket.left(0.75), bucket.has(0.5, 0.75), bucket.has(0.6, 0.75)) == (0.5, True, False)
    assert bucket.wait(1, 100.0) == 0.0
    assert [bucket.take(1, 100.0) for _ in range(4)] == [True, True, True, False]
