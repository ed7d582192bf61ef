"""How long a user waits for a driver: each wait has its bound, whatever the driver does to prolong it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net.patience import LATE, Overdue, Pace, Patience, PatienceLimits

LIMITS = PatienceLimits()
Act = Callable[[Patience, float], None]


def patience(*acts: str, first_token: float = 0.0) -> Patience:
    """At the time 0, after this has happened."""
    made = Patience(LIMITS, 0.0, first_token=first_token)
    for act in acts:
        ACTS[act](made, 0.0)
    return made


def left_after(made: Patience, act: Act | None, every: float, now: float = 0.0) -> tuple[float, Overdue]:
    """When the user leaves a driver that does the same for ever, from `now` on."""
    following = now
    while now < 1e6:
        deadline = made.due()
        following = following + every if act else 1e9
        now = min(deadline, following)
        if act and now == following and now < deadline:
            act(made, now)
        elif overdue := made.overdue(now):
            return now, overdue
    raise AssertionError("for ever")


ACTS: dict[str, Act] = {
    "placed": Patience.placed,
    "uploading": Patience.uploading,
    "uploaded": Patience.uploaded,
    "the same": lambda made, now: made.progressed(5, now),
    "piece": Patience.piece,
    "ten": lambda made, now: made.piece(now, 10),
}


@pytest.mark.parametrize(
    ("said", "act", "every", "left", "overdue"),
    [
        ([], None, 1, 15, Overdue("answer", True, 15)),
        ([], "the same", 1, 15, Overdue("answer", False, 15)),
        (["placed"], None, 1, 15, Overdue("line", True, 15)),
        (["placed"], "placed", 5, 180, Overdue("line", False, 5)),
        (["placed", "uploading"], None, 1, 30, Overdue("upload", True, 30)),
        (["uploading"], "uploading", 29, 120, Overdue("upload", False, 4)),
        (["uploading", "uploaded"], None, 1, 90, Overdue("reading", True, 90)),
        (["uploading", "uploaded", "the same"], "the same", 1, 90, Overdue("reading", False, 90)),
        (["uploading", "uploaded", "the same", "placed"], "placed", 5, 180, Overdue("line", False, 5)),
        (["uploading", "uploaded", "the same", "placed"], "the same", 1, 15, Overdue("line", False, 15)),
        (["uploading", "uploaded", "placed", "uploaded"], None, 1, 90, Overdue("reading", True, 90)),
        (["uploading", "uploaded", "piece"], None, 1, 15, Overdue("words", True, 15)),
        (["uploading", "uploaded", "piece"], "the same", 1, 15, Overdue("words", False, 15)),
        (["uploading", "uploaded", "piece"], "piece", 14, 300, Overdue("words", False, 6, Pace(21, 300))),
        (["uploading", "uploaded", "piece"], "piece", 5.5, 300, Overdue("words", False, 3, Pace(54, 300))),
    ],
)
def test_a_driver_that_does_the_same_for_ever(
    said: list[str], act: str | None, every: float, left: float, overdue: Overdue
) -> None:
    assert left_after(patience(*said), ACTS[act] if act else None, every) == (left, overdue)


def test_who_reads_a_token_a_minute_has_an_hour() -> None:
    made = patience("uploading", "uploaded")
    read = iter(range(1, 10_000))
    now, overdue = left_after(made, lambda made, now: made.progressed(next(read), now), 50)
    assert now == 3600
    assert overdue.wait == "reading" and not overdue.silent


def test_progress_that_gets_on_is_waited_for() -> None:
    made = patience("uploading", "uploaded")
    for step in range(1, 30):
        made.progressed(step, 50.0 * step)
    assert made.overdue(50.0 * 29 + 89) is None
    assert made.overdue(50.0 * 29 + 90) == Overdue("reading", True, 90)


def test_what_is_read_again_counts_again() -> None:
    made = patience("uploading", "uploaded")
    made.progressed(500, 50.0)
    made.placed(100.0)
    made.uploaded(110.0)
    made.progressed(5, 190.0)
    assert made.overdue(279.0) is None


@pytest.mark.parametrize(
    ("first_token", "bound"), [(0.0, 15.0), (4.0, 15.0), (20.0, 60.0), (60.0, 180.0), (1e9, 180.0)]
)
def test_a_driver_that_promises_to_be_slow_has_longer(first_token: float, bound: float) -> None:
    """But none can make itself waited for as long as it likes."""
    made = patience(first_token=first_token)
    assert made.until() == ("answer", 0.0, bound)
    assert made.due() == bound


@pytest.mark.parametrize(
    ("gaps", "bound"),
    [([0.05], 15), ([2.0], 15), ([4.0, 1.0], 20), ([10.0], 50), ([14.0], 60), ([14.0, 59.0], 60)],
)
def test_a_slow_model_may_be_silent_for_longer(gaps: list[float], bound: float) -> None:
    made = patience("uploading", "uploaded", "piece")
    now = 0.0
    for gap in gaps:
        now += gap
        assert made.overdue(now) is None
        made.piece(now)
    assert made.overdue(now + bound - 0.01) is None
    assert made.overdue(now + bound) == Overdue("words", True, bound)


def test_an_answer_that_drips_is_left_within_minutes() -> None:
    """Though no wait for a token is too long, and however fast it began."""
    made = patience("uploading", "uploaded", "piece")
    for step in range(4000):
        made.piece(step / 100)
    made.piece(53.0)
    left, overdue = left_after(made, ACTS["piece"], 59, 53.0)
    assert left < 53 + 300 and overdue.pace is not None
    assert overdue.pace.tokens < 60 and overdue.pace.seconds == pytest.approx(300)


def test_tokens_that_come_together_are_all_counted() -> None:
    with pytest.raises(AssertionError, match="for ever"):
        left_after(patience("uploading", "uploaded", "piece", "ten", "ten"), ACTS["ten"], 14)


@pytest.mark.parametrize(
    ("speed", "per_token"),
    [(0.0, 5.0), (0.5, 5.0), (6.0, 5.0), (10.0, 3.0), (30.0, 1.0), (1e6, 1.0), (0.2, 10.0), (1e-3, 12.0)],
)
def test_who_promises_to_be_fast_is_left_before_who_does_not(speed: float, per_token: float) -> None:
    """But nobody for a token a second, and who promises to be slow is waited for somewhat longer."""

    def answer(every: float) -> float:
        made = Patience(LIMITS, 0.0, speed=speed)
        for act in ("uploading", "uploaded", "piece"):
            ACTS[act](made, 0.0)
        try:
            return left_after(made, ACTS["piece"], every)[0]
        except AssertionError:
            return 0.0

    assert answer(per_token * 1.1) == pytest.approx(300)
    assert answer(per_token * 0.98) == 0.0


def test_a_slow_driver_that_reads_the_prompts_of_others_is_waited_for() -> None:
    """A token each 2 s, and half a minute of nothing in each minute."""
    made = patience("uploading", "uploaded", "piece")
    now = 0.0
    for _ in range(100):
        for wait in [2.0] * 15 + [30.0]:
            now += wait
            if wait == 2.0:
                assert made.overdue(now) is None
                made.piece(now)


def test_the_time_in_which_this_side_does_not_read_is_its_own() -> None:
    """A token that was said long ago, taken every 10 s."""
    made = patience("uploading", "uploaded", "piece")
    for step in range(1, 1000):
        made.reads(10.0 * step)
        made.reads(10.0 * step + 0.1)  # again, as when a wait is judged
        assert made.overdue(10.0 * step + 0.1) is None
        made.piece(10.0 * step + 0.2)
    left, overdue = left_after(made, ACTS["piece"], 10.0, 9990.2)
    assert left < 9990.2 + 600 and overdue.pace is not None


def test_a_slow_answer_is_counted_anew_when_this_process_did_not_run() -> None:
    made = patience("uploading", "uploaded")
    made.piece(0.0)
    for step in range(1, 22):
        made.piece(14.0 * step)
    assert made.due() == 300
    assert made.overdue(4000.0) is None and made.due() == 4005  # it slept
    made.piece(4001.0)
    for step in range(1, 21):
        made.piece(4001.0 + 14.0 * step)
    assert made.due() == 4300
    overdue = made.overdue(4300.0)
    assert overdue is not None and overdue.pace == Pace(21, 300)


def test_the_wait_for_the_first_token_is_no_gap_between_two() -> None:
    made = patience("uploading", "uploaded")
    made.progressed(9, 50.0)
    made.piece(100.0)
    assert made.until() == ("words", 100.0, 115.0)


def test_a_place_in_line_after_another_does_not_begin_the_line_anew() -> None:
    made = patience("placed")
    for second in range(5, 180, 5):
        made.placed(float(second))
    assert made.until() == ("line", 0.0, 180.0)
    assert made.due() == 180.0


def test_what_came_while_this_process_did_not_run_is_read_first() -> None:
    made = patience("uploading", "uploaded", "piece")
    assert made.overdue(600.0) is None
    assert made.due() == 605.0
    made.piece(600.1)
    assert made.due() == 600.1 + 60
    assert made.overdue(1200.0) is None  # and again, after something came
    assert made.overdue(1205.0) is not None


def test_what_is_shown_is_the_whole_wait() -> None:
    """Even though it ends before when the signs of life stay out."""
    made = patience("placed")
    assert (made.until(), made.due()) == (("line", 0.0, 180.0), 15.0)
    made.placed(10.0)
    assert (made.until(), made.due()) == (("line", 0.0, 180.0), 25.0)


def test_a_pause_is_forgiven_once() -> None:
    made = patience()
    assert made.overdue(15.0 + 2 * LATE) is None
    assert made.overdue(15.0 + 2 * LATE + 4.9) is None
    assert made.overdue(600.0) == Overdue("answer", True, 600.0)


def test_a_timer_that_is_a_little_late_is_no_pause() -> None:
    assert patience().overdue(15.0 + LATE / 2) is not None


@given(
    st.lists(st.sampled_from(("placed", "the same")), max_size=3),
    st.lists(
        st.tuples(st.floats(0.01, 20), st.sampled_from(("placed", "the same"))), min_size=1, max_size=60
    ),
)
@settings(deadline=None, max_examples=300)
def test_no_mixture_of_signs_without_an_answer_is_waited_for_longer_than_the_line(
    begun: list[str], told: list[tuple[float, str]]
) -> None:
    made = patience(*begun)
    now, turn = 0.0, 0
    while now < 1000:
        gap, act = told[turn % len(told)]
        turn += 1
        deadline = made.due()
        assert deadline <= LIMITS.answer + LIMITS.line
        if now + gap >= deadline:
            assert made.overdue(deadline) is not None
            return
        now += gap
        ACTS[act](made, now)
    raise AssertionError("for ever")


@given(st.lists(st.floats(0.01, 100), max_size=50))
@settings(deadline=None, max_examples=200)
def test_silence_between_tokens_is_never_waited_for_longer_than_its_longest(gaps: list[float]) -> None:
    made = patience("uploading", "uploaded", "piece")
    now = 0.0
    for gap in gaps:
        wait, since, deadline = made.until()
        assert (wait, since) == ("words", now)
        assert now + LIMITS.silence <= deadline == made.due() <= now + LIMITS.longest
        if made.overdue(now + gap):
            assert gap >= LIMITS.silence
            return
        now += gap
        made.piece(now, 60)  # as many as must come in all this time
