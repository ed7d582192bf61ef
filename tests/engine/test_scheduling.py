"""The scheduler alone with random requests: nothing is lost, nobody starves, no budget is exceeded."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infraxa.engine.scheduler import BRIDGE, Job, Scheduler, Span, common_prefix

N_CTX = 40
N_BATCH = 24
SHARE = 8


def make(slots: int = 4, *, rewindable: bool = True) -> Scheduler:
    return Scheduler(slots=slots, n_ctx=N_CTX, n_batch=N_BATCH, prompt_share=SHARE, rewindable=rewindable)


def run_step(scheduler: Scheduler, token: int = 7) -> list[Span]:
    scheduler.admit()
    spans = scheduler.plan()
    scheduler.decoded(spans)
    for span in spans:
        if span.job is not None and span.output:
            span.job.tokens.append(token)
    return spans


class Scheduling(RuleBasedStateMachine):
    """A model of the caches beside the scheduler: each slot's tokens, as llama.cpp would hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make()
        self.caches: list[list[int]] = [[], [], [], []]
        self.jobs: dict[int, Job] = {}
        self.next_id = 0
        self.steps_without_progress: dict[int, int] = {}

    @rule(
        user=st.sampled_from(["", "a", "b"]),
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=N_CTX - 4),
    )
    def submit(self, user: str, prompt: list[int]) -> None:
        self.next_id += 1
        job = self.jobs[self.next_id] = Job(self.next_id, user, prompt)
        self.scheduler.submit(job)

    @rule(token=st.integers(0, 2), finish=st.booleans())
    def step(self, token: int, finish: bool) -> None:
        scheduler = self.scheduler
        for job, n_keep in scheduler.admit():
            assert self.caches[job.slot][:n_keep] == job.tokens[:n_keep]
            assert n_keep < job.n_prompt
            del self.caches[job.slot][n_keep:]
        spans = scheduler.plan()
        rows = sum(s.end - s.start for s in spans)
        assert rows <= N_BATCH
        assert [s.slot for s in spans] == sorted({s.slot for s in spans})
        generating = [s for s in spans if s.job is not None and s.end - s.start == 1 and s.output]
        reading = sum(s.end - s.start for s in spans if s.job is not None and s not in generating)
        if generating and reading:
            assert reading <= SHARE
        moved = {s.job.id for s in spans if s.job is not None}
        for job in scheduler.running():
            assert job.id in moved, "a running request did not move"
        for span in spans:
            cache = self.caches[span.slot]
            assert span.start == len(cache), "the cache is where the scheduler thinks"
            assert span.end <= N_CTX
            if span.job is not None:
                cache += span.job.tokens[span.start : span.end]
        scheduler.decoded(spans)
        for span in spans:
            if span.job is not None and span.output:
                span.job.tokens.append(token)
                if finish or len(span.job.tokens) > N_CTX:
                    self.leave(span.job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.leave(self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))])

    def leave(self, job: Job) -> None:
        slot = job.slot
        self.scheduler.remove(job)
        if slot >= 0:
            del self.caches[slot][len(self.scheduler._cached[slot]) :]
        del self.jobs[job.id]

    @invariant()
    def nothing_is_lost(self) -> None:
        running, waiting = list(self.scheduler.running()), list(self.scheduler.waiting())
        assert sorted(j.id for j in running + waiting) == sorted(self.jobs)
        assert self.scheduler.n_running == len(running)
        assert self.scheduler.n_waiting == len(waiting)
        assert len({j.slot for j in running}) == len(running)
        assert all(0 <= j.slot < 4 for j in running)
        assert all(j.slot == -1 for j in waiting)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 30), st.integers(1, 6)),
        min_size=1,
        max_size=25,
    )
)
def test_every_request_ends(requests: list[tuple[str, int, int]]) -> None:
    scheduler = make()
    left = {}
    for i, (user, n_prompt, n_out) in enumerate(requests):
        job = Job(i, user, [i] * n_prompt)
        left[i] = n_out
        scheduler.submit(job)
    steps = 0
    while left:
        steps += 1
        assert steps <= sum(n_prompt + n_out for _, n_prompt, n_out in requests)
        for span in run_step(scheduler):
            if span.job is not None and span.job.n_out == left[span.job.id]:
                scheduler.remove(span.job)
                del left[span.job.id]


def test_users_take_turns_and_each_is_served_in_order() -> None:
    scheduler = make(slots=1)
    order = []
    for i, user in enumerate("aaaabbc"):
        scheduler.submit(Job(i, user, [1]))
    while scheduler.n_waiting:
        ((job, _),) = scheduler.admit()
        order.append(job.id)
        scheduler.remove(job)
    assert order == [0, 4, 6, 1, 5, 2, 3]


def test_the_person_of_this_machine_comes_before_all_who_wait() -> None:
    scheduler = make(slots=1)
    order = []
    for i, user in enumerate(["a", "b", "", "a", ""]):
        scheduler.submit(Job(i, user, [1]))
    scheduler.submit(Job(9, "b", [1]))
    while scheduler.n_waiting:
        ((job, _),) = scheduler.admit()
        order.append(job.id)
        scheduler.remove(job)
    assert order == [2, 4, 0, 1, 3, 9]


def test_a_long_prompt_does_not_stall_an_answer_nor_a_short_prompt() -> None:
    scheduler = make()
    answering = Job(1, "a", [1])
    scheduler.submit(answering)
    run_step(scheduler)
    long, short = Job(2, "b", [2] * 36), Job(3, "c", [3, 3])
    scheduler.submit(long)
    scheduler.submit(short)
    spans = run_step(scheduler)
    assert {s.job.id: s.end - s.start for s in spans if s.job} == {1: 1, 2: 6, 3: 2}
    assert answering.n_out == 2
    assert short.n_out == 1


def test_alone_a_prompt_gets_the_whole_batch() -> None:
    scheduler = make()
    scheduler.submit(Job(1, "a", [1] * 36))
    assert [s.end - s.start for s in run_step(scheduler)] == [N_BATCH - 4]


def test_the_slot_that_remembers_most_is_taken_and_the_last_token_read_again() -> None:
    scheduler = make()
    for i, prompt in enumerate(([1, 2, 3, 4], [1, 2, 9])):
        scheduler.submit(Job(i, "", prompt))
    run_step(scheduler)
    for job in list(scheduler.running()):
        scheduler.remove(job)
    again = Job(5, "", [1, 2, 9])
    scheduler.submit(again)
    ((_, n_keep),) = scheduler.admit()
    assert (again.slot, n_keep, again.n_cached) == (1, 2, 2)
    other = Job(6, "", [1, 2, 3, 5])
    scheduler.submit(other)
    ((_, n_keep),) = scheduler.admit()
    assert (other.slot, n_keep) == (0, 3)


def test_another_conversation_is_not_overwritten_for_a_few_equal_tokens() -> None:
    scheduler = make(slots=2)
    first = Job(1, "", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    scheduler.submit(first)
    run_step(scheduler)
    scheduler.remove(first)
    new = Job(2, "", [1, 2, 9])
    scheduler.submit(new)
    assert scheduler.admit()[0].n_keep == 0
    scheduler.remove(new)
    again = Job(3, "", [1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    scheduler.submit(again)
    assert scheduler.admit()[0].n_keep == 9


def test_what_another_user_said_does_not_count() -> None:
    """Whoever guesses right must not learn it."""
    for rewindable in (True, False):
        scheduler = make(slots=2, rewindable=rewindable)
        said = Job(1, "maple", [1, 2, 3, 4])
        scheduler.submit(said)
        run_step(scheduler)
        scheduler.remove(said)
        guess = Job(2, "birch", [*said.tokens, 9])
        scheduler.submit(guess)
        assert (scheduler.admit()[0].n_keep, guess.n_cached, guess.slot) == (0, 0, 1)
        run_step(scheduler)
        again = Job(3, "maple", [*said.tokens, 9])
        scheduler.submit(again)
        assert scheduler.admit()[0].n_keep == 4


def test_of_equal_slots_the_one_unused_for_longest_is_taken() -> None:
    scheduler = make(slots=2)
    jobs = [Job(i, "", [i]) for i in (1, 2)]
    for job in jobs:
        scheduler.submit(job)
    run_step(scheduler)
    scheduler.remove(jobs[1])
    scheduler.remove(jobs[0])
    new = Job(3, "", [9])
    scheduler.submit(new)
    scheduler.admit()
    assert new.slot == 1


def test_a_cache_that_cannot_be_cut_is_used_whole_or_not_at_all() -> None:
    scheduler = make(slots=1, rewindable=False)
    first = Job(1, "", [1, 2, 3])
    scheduler.submit(first)
    run_step(scheduler, token=4)
    run_step(scheduler, token=5)
    scheduler.remove(first)
    longer = Job(2, "", [1, 2, 3, 4, 6])
    scheduler.submit(longer)
    assert scheduler.admit()[0].n_keep == 4
    scheduler.remove(longer)
    different = Job(3, "", [1, 2, 8])
    scheduler.submit(different)
    assert scheduler.admit()[0].n_keep == 0


@pytest.mark.parametrize("rewindable", [True, False])
def test_small_gaps_between_generating_slots_are_bridged(rewindable: bool) -> None:
    scheduler = make(slots=8, rewindable=rewindable)
    jobs = [Job(i, "", [1, i]) for i in range(8)]
    for job in jobs:
        scheduler.submit(job)
    run_step(scheduler)
    for i in (1, 3, 4, 5):
        scheduler.remove(jobs[i])
    filled = [(s.slot, s.start, s.output) for s in scheduler.plan() if s.job is None]
    # Slot 1 lies between 0 and 2; the gap from 2 to 6 is wider than it is worth.
    assert filled == ([(1, 2, False)] if rewindable else [])
    assert BRIDGE == 2


def test_an_unfinished_step_is_planned_again() -> None:
    scheduler = make()
    scheduler.submit(Job(1, "", [1] * 30))
    scheduler.admit()
    assert scheduler.plan() == scheduler.plan()


def test_slots_that_do_not_fit_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="slots"):
        Scheduler(slots=20, n_ctx=10, n_batch=24, prompt_share=8)


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_common_prefix(a: list[int], b: list[int]) -> None:
    limit = min(len(a), len(b))
    expected = next((i for i in range(limit) if a[i] != b[i]), limit)
    assert common_prefix(a, b, limit) == expected
