"""Prompts and answers share the machine's time: the scheduler with a simulated machine, and no clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from infraxa.engine.jobs import Job
from infraxa.engine.scheduler import Scheduler
from infraxa.engine.sharing import BURST, PIECE, TimeShare


class Machine:
    """Steps take what they cost: a pass over the weights, and each row. The defaults are a small model's."""

    def __init__(self, *, slots: int = 8, pass_s: float = 0.02, row_s: float = 0.002) -> None:
        self.scheduler = Scheduler(slots=slots, n_ctx=8192, n_batch=512)
        self.pass_s = pass_s
        self.row_s = row_s
        self.now = 0.0
        self.first: dict[int, float] = {}
        """When each request's first token came."""
        self.steps: list[tuple[float, int]] = []
        """Seconds, and how many tokens of answers they gave."""
        self.next_id = 0

    def submit(self, n_prompt: int) -> Job:
        self.next_id += 1
        job = Job(self.next_id, "", [self.next_id] * n_prompt, self.now)
        self.scheduler.submit(job)
        return job

    def step(self) -> float:
        scheduler = self.scheduler
        list(scheduler.admit(self.now))
        list(scheduler.copies())
        spans = scheduler.plan()
        read = sum(s.end - s.start for s in spans if s.end - s.start > 1)
        ones = sum(s.end - s.start == 1 for s in spans)
        seconds = (self.pass_s if ones else 0) + (self.pass_s if read else 0) + (read + ones) * self.row_s
        scheduler.decoded(spans, seconds)
        self.now += seconds
        answered = 0
        for span in spans:
            if span.job is not None and span.output:
                answered += span.job.n_out > 0
                span.job.tokens.append(7)
                self.first.setdefault(span.job.id, self.now)
        self.steps.append((seconds, answered))
        return seconds

    def until(self, done: Callable[[], bool], most: int = 20_000) -> None:
        for _ in range(most):
            if done():
                return
            self.step()
        raise AssertionError(f"not done after {most} steps")

    def warm(self, streams: int) -> list[Job]:
        """So many answers that have been running for a while."""
        jobs = [self.submit(20) for _ in range(streams)]
        while self.now < 1 or len(self.steps) < 60:
            self.step()
        self.steps.clear()
        for _ in range(3):
            self.step()
        return jobs

    def rate(self) -> float:
        """Tokens per second of all answers."""
        return sum(n for _, n in self.steps) / sum(seconds for seconds, _ in self.steps)


machines = st.tuples(st.floats(0.0005, 0.1), st.floats(0.00005, 0.01))


@settings(deadline=None, max_examples=25)
@given(machines, st.integers(4, 7))
def test_running_answers_lose_a_quarter_at_most_to_a_long_prompt(
    machine: tuple[float, float], streams: int
) -> None:
    m = Machine(pass_s=machine[0], row_s=machine[1])
    m.warm(streams)
    alone = m.rate()
    m.steps.clear()
    long = m.submit(4000)
    m.until(lambda: long.id in m.first)
    assert m.rate() / alone > 0.75
    # And they are never silent for longer than a piece of a prompt takes, nor is the prompt left alone.
    assert max(s for s, _ in m.steps) <= 2 * m.pass_s + (PIECE + streams) * m.row_s + 0.1
    share = 1 / (streams + 1)
    assert m.now - long.arrived < 2 * (4000 * m.row_s + 63 * m.pass_s) / share + 1


@pytest.mark.parametrize("streams", [1, 4, 7])
def test_a_short_prompt_does_not_wait(streams: int) -> None:
    m = Machine()
    m.warm(streams)
    m.steps.clear()
    short = m.submit(100)
    m.until(lambda: short.id in m.first)
    assert len(m.steps) <= 2


def test_what_came_early_is_paid_back() -> None:
    m = Machine()
    m.warm(4)
    alone = m.rate()
    m.steps.clear()
    end = m.now + 60
    while m.now < end:
        if m.scheduler.n_running == 4:
            m.submit(200)
        m.step()
        for job in list(m.scheduler.running()):
            if job.id > 4 and job.n_out:
                m.scheduler.remove(job)
    # One reads at any time: a fifth of the time is its, however short each prompt is.
    assert m.rate() / alone > 0.75


@settings(deadline=None, max_examples=40)
@given(machines, st.lists(st.integers(20, 3000), min_size=2, max_size=8))
def test_who_comes_together_has_first_tokens_as_soon_as_slot_by_slot(
    machine: tuple[float, float], prompts: list[int]
) -> None:
    m = Machine(pass_s=machine[0], row_s=machine[1])
    jobs = [m.submit(n) for n in prompts]
    m.until(lambda: len(m.first) == len(jobs))
    ours = statistics.mean(m.first.values())
    # llama-server: batches of up to 2048 rows, filled slot by slot, and nobody hears of one before its end.
    theirs: list[float] = []
    now, room, ended = 0.0, 2048, 0
    left = list(prompts)
    while any(left):
        taken, generating = 0, ended
        for i, n in enumerate(left):
            rows = min(n, room - taken - generating)
            left[i] -= rows
            taken += rows
            ended += bool(rows) and not left[i]
        now += (-(-taken // 512) + bool(generating)) * m.pass_s + (taken + generating) * m.row_s
        theirs += [now] * (ended - generating)
    # An answer's own tokens in between, and a pass more for the end of each prompt.
    slack = 4 * len(jobs) * (m.pass_s + len(jobs) * m.row_s)
    assert ours <= statistics.mean(theirs) + slack


def test_prompts_that_come_together_do_not_wait_for_each_other() -> None:
    m = Machine()
    measured = m.submit(200)
    m.until(lambda: measured.id in m.first)
    jobs = [m.submit(200) for _ in range(4)]
    began = m.now
    m.until(lambda: all(job.id in m.first for job in jobs))
    waited = [m.first[job.id] - began for job in jobs]
    assert waited == sorted(waited)
    assert waited[0] < 0.35 * waited[-1]


def test_a_long_prompt_among_many_short_ones_gets_on() -> None:
    m = Machine(slots=4)
    long = m.submit(4000)
    for _ in range(3):
        m.submit(300)
    steps = 0
    while long.id not in m.first:
        steps += 1
        assert steps < 200
        m.step()
        for job in list(m.scheduler.running()):
            if job is not long and job.n_out:
                m.scheduler.remove(job)
                m.submit(300)


def test_those_who_wait_for_a_slot_are_newcomers_when_they_get_it() -> None:
    m = Machine(slots=5)
    running = m.warm(5)
    waiting = m.submit(4000)
    for _ in range(100):
        m.step()
    m.scheduler.remove(running[0])
    before = m.now
    m.step()
    assert waiting.arrived == before
    assert m.scheduler.n_slowed == 4


def test_what_is_not_measured_yet_is_read_in_small_pieces() -> None:
    share = TimeShare()
    assert share.rows() == PIECE
    share.decoded(0.1, 0, reading=1, generating=2, slowed=2)
    share.decoded(0.1 + PIECE * 0.001, PIECE, reading=1, generating=2, slowed=2)
    assert share.row == pytest.approx(0.001)
    # Earned: half of a step that took 0.1 s.
    assert share.debt == pytest.approx(max(0.0, PIECE * 0.001 - 0.1 / 2))
    share.debt = BURST * 0.001
    assert share.rows() == 0
    for _ in range(20):
        share.decoded(0.1, 0, reading=1, generating=2, slowed=2)
    assert share.debt == 0
    assert share.rows() == PIECE
    share.debt = 1.0
    share.decoded(1, 512, reading=2, generating=0, slowed=0)
    assert share.debt == 0, "nobody was slowed"
