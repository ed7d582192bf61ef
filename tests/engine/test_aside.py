"""What is computed beside the answers: in turn, in pieces that they hardly notice, for a part of the time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from infraxa.engine import aside as module
from infraxa.engine.aside import FIRST_ROWS, PART, PIECE_SECONDS, PROGRESS_STEP, Aside
from infraxa.engine.types import EngineError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    yield clock


def work(clock: Clock, pieces: int, seconds: float, made: str = "made") -> Generator[float, None, str]:
    for i in range(pieces):
        clock.now += seconds
        yield (i + 1) / pieces
    return made


def failed(error: Any) -> str:
    return f"failed: {error.code}"


def test_answers_keep_most_of_the_time(clock: Clock) -> None:
    aside: Aside[str] = Aside()
    aside.submit(1, work(clock, 10_000, 0.1), failed)
    began = clock.now
    for _ in range(1000):
        aside.step(beside=True)
        clock.now += 0.02  # of the answers
    assert 0.8 / PART < aside.steps * 0.1 / (clock.now - began) <= 1.1 / PART


def test_nobody_waits_where_there_are_no_answers(clock: Clock) -> None:
    aside: Aside[str] = Aside()
    aside.submit(1, work(clock, 3, 5.0), failed)
    assert [aside.step(beside=False) for _ in range(4)] == [None, None, None, "made"]
    assert not aside.busy


def test_pieces_are_as_long_as_answers_can_bear(clock: Clock) -> None:
    aside: Aside[str] = Aside()

    def decoding(seconds: float) -> Any:
        def decode(rows: int) -> None:
            clock.now += rows * seconds

        return SimpleNamespace(decode=decode)

    assert aside.rows(512) == 512
    aside.beside = True
    assert aside.rows(512) == FIRST_ROWS and aside.rows(3) == 3
    aside.decode(decoding(0.001), 8)
    assert aside.rows(512) == pytest.approx(PIECE_SECONDS / 0.001, abs=1)
    aside.decode(decoding(1.0), 8)
    assert aside.rows(512) == FIRST_ROWS, "fewer would be read no quicker"
    aside.beside = False
    assert aside.rows(512) == 512


def test_one_after_the_other_and_what_fails_says_so(clock: Clock) -> None:
    def failing() -> Generator[float, None, str]:
        yield 0.5
        raise EngineError("no_memory", "There is none.")

    aside: Aside[str] = Aside()
    aside.submit(1, work(clock, 1, 0.0, "first"), failed)
    aside.submit(2, failing(), failed)
    aside.submit(3, work(clock, 1, 0.0, "never"), failed)
    aside.submit(4, work(clock, 1, 0.0, "last"), failed)
    aside.cancel(3)
    aside.cancel(9)
    told = [aside.step(beside=False) for _ in range(6)]
    assert [one for one in told if one] == ["first", "failed: no_memory", "last"]
    assert not aside.busy


def test_who_is_patient_lets_others_go_before(clock: Clock) -> None:
    aside: Aside[str] = Aside()
    aside.submit(1, work(clock, 50, 0.0, "patient"), failed, lambda done: f"{done:.2f}", patient=True)
    told = [aside.step(beside=False) for _ in range(25)]
    aside.submit(2, work(clock, 2, 0.0, "also patient"), failed, patient=True)
    aside.submit(3, work(clock, 2, 0.0, "first"), failed, lambda done: f"first {done}")
    aside.submit(4, work(clock, 2, 0.0, "second"), failed)
    while aside.busy:
        told.append(aside.step(beside=False))
    done = [one for one in told if one]
    assert done[24:30] == ["0.50", "first 0.5", "first 1.0", "first", "second", "0.52"]
    assert done[-2:] == ["patient", "also patient"]


def test_progress_is_told_as_often_as_somebody_sees_it(clock: Clock) -> None:
    aside: Aside[str] = Aside()
    aside.submit(1, work(clock, 5000, 0.0), failed, lambda done: f"{done:.3f}")
    told = [aside.step(beside=False) for _ in range(5001)]
    assert told[-1] == "made"
    assert 0.9 / PROGRESS_STEP < len([one for one in told if one]) <= 1 / PROGRESS_STEP + 1


def test_what_is_under_way_is_ended_with_it(clock: Clock) -> None:
    ended = []

    def long(number: int) -> Generator[float, None, str]:
        try:
            while True:
                yield 0.0
        finally:
            ended.append(number)

    aside: Aside[str] = Aside()
    for number in (1, 2):
        aside.submit(number, long(number), failed)
    aside.step(beside=False)
    aside.close()
    assert ended == [1], "the other had not begun"
    assert not aside.busy
