"""The scheduler alone with random requests: nothing is lost, nobody starves, no budget is exceeded."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infraxa.engine.jobs import Admitted, Copy, Job, Span
from infraxa.engine.prefixes import MIN_SHARED, Parked, Parking, common_prefix
from infraxa.engine.scheduler import Scheduler

N_CTX = 200
N_BATCH = 160
SLOTS = 4
STARTS = ([1] * 120, [1] * 60 + [2] * 50, [2] * 90)


def make(
    slots: int = SLOTS, *, rewindable: bool = True, park_bytes: int = 0, separate: bool = True
) -> Scheduler:
    return Scheduler(
        slots=slots,
        n_ctx=N_CTX,
        n_batch=N_BATCH,
        rewindable=rewindable,
        separate=separate,
        parking=Parking(park_bytes),
    )


def run_step(scheduler: Scheduler, token: int = 7, seconds: float = 0.0) -> list[Span]:
    list(scheduler.admit())
    list(scheduler.copies())
    spans = scheduler.plan()
    scheduler.decoded(spans, seconds)
    for span in spans:
        if span.job is not None and span.output:
            span.job.tokens.append(token)
    return spans


def start(scheduler: Scheduler, *jobs: Job, now: float = 0.0) -> list[Admitted]:
    for job in jobs:
        scheduler.submit(job)
    return list(scheduler.admit(now))


def rows(spans: list[Span]) -> dict[int, int]:
    return {span.job.id: span.end - span.start for span in spans if span.job is not None}


class Scheduling(RuleBasedStateMachine):
    """A model of the caches beside the scheduler: each slot's tokens, as llama.cpp would hold them."""

    rewindable = True

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make(rewindable=self.rewindable, park_bytes=400)
        self.caches: list[list[int]] = [[] for _ in range(SLOTS)]
        self.owners = [""] * SLOTS
        self.jobs: dict[int, Job] = {}
        self.next_id = 0
        self.now = 0.0
        self.broken = False
        """Copies fail."""

    @rule(
        user=st.sampled_from(["", "a"]),
        shared=st.sampled_from(STARTS),
        cut=st.integers(0, 120),
        rest=st.lists(st.integers(0, 2), min_size=1, max_size=70),
    )
    def submit(self, user: str, shared: list[int], cut: int, rest: list[int]) -> None:
        self.next_id += 1
        job = self.jobs[self.next_id] = Job(self.next_id, user, shared[cut:] + rest, self.now)
        self.scheduler.submit(job)

    @rule(broken=st.booleans())
    def break_copies(self, broken: bool) -> None:
        self.broken = broken

    @rule(token=st.integers(0, 2), finish=st.booleans(), seconds=st.floats(0, 3))
    def step(self, token: int, finish: bool, seconds: float) -> None:
        scheduler = self.scheduler
        self.now += seconds
        for job, n_keep, park, copy in scheduler.admit(self.now):
            cache = self.caches[job.slot]
            if park is not None and scheduler.parking.make_room(len(cache)):
                user, tokens = park
                assert (tokens, user) == (cache[: len(tokens)], self.owners[job.slot])
                scheduler.parking.add(Parked(user, tokens, len(cache), list(cache)))
            if copy is None:
                assert cache[:n_keep] == job.tokens[:n_keep] and n_keep < job.n_prompt
                assert not n_keep or self.owners[job.slot] == job.user
                assert self.rewindable or n_keep in (0, len(cache))
                del cache[n_keep:]
            else:
                self.copy(copy)
            self.owners[job.slot] = job.user
        for copy in scheduler.copies():
            self.copy(copy)
        spans = scheduler.plan()
        assert spans == scheduler.plan(), "an unfinished step is planned again"
        assert bool(spans) == bool(scheduler.n_running), "somebody always moves"
        assert sum(s.end - s.start for s in spans) <= N_BATCH
        assert [s.slot for s in spans] == sorted({s.slot for s in spans})
        moved = {s.job.id for s in spans if s.job is not None}
        for job in scheduler.running():
            ready = len(job.tokens) - job.n_past == 1 and job.source is None
            assert not ready or job.id in moved, "a generating request did not move"
            assert job.source is None or job.id not in moved
        for span in spans:
            cache = self.caches[span.slot]
            assert span.start == len(cache), "the cache is where the scheduler thinks"
            assert span.end <= N_CTX
            if span.job is not None:
                cache += span.job.tokens[span.start : span.end]
        scheduler.decoded(spans, seconds)
        for span in spans:
            if span.job is not None and span.output:
                span.job.tokens.append(token)
                if finish or len(span.job.tokens) > N_CTX:
                    self.leave(span.job)

    def copy(self, copy: Copy) -> None:
        job, n, slot, parked = copy
        assert n < job.n_prompt and job.source is None
        if self.broken:
            self.caches[job.slot] = []
            self.scheduler.restart(job)
            return
        assert slot != job.slot
        state = self.caches[slot] if parked is None else parked.state
        owner = self.owners[slot] if parked is None else parked.user
        assert owner == job.user, "what another user said does not count"
        assert state[:n] == job.tokens[:n], "what is copied is what the prompt begins with"
        assert self.rewindable or n == len(state)
        if parked is not None and len(parked.tokens) == n:
            self.scheduler.parking.drop(parked)
        self.caches[job.slot] = state[:n]

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
        scheduler = self.scheduler
        running, waiting = list(scheduler.running()), list(scheduler.waiting())
        assert sorted(j.id for j in running + waiting) == sorted(self.jobs)
        assert scheduler.n_running == len(running)
        assert scheduler.n_waiting == len(waiting)
        assert len({j.slot for j in running}) == len(running)
        assert all(0 <= j.slot < SLOTS for j in running)
        assert all(j.slot == -1 for j in waiting)
        assert sorted(j.id for j in running if j.source is not None) == sorted(
            j.id for j in scheduler._sharing
        )
        assert scheduler.parking.n_bytes <= scheduler.parking.budget

    def teardown(self) -> None:
        """Whatever state this is: all who are here get to their end."""
        for _ in range(60 * len(self.jobs) + 1):
            if not self.jobs:
                return
            self.step(1, True, 0.01)
        raise AssertionError("somebody waits for ever")


class NotRewindable(Scheduling):
    rewindable = False


TestNotRewindable = NotRewindable.TestCase
TestNotRewindable.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 90), st.integers(1, 6)),
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
        ((job, *_),) = scheduler.admit()
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
        ((job, *_),) = scheduler.admit()
        order.append(job.id)
        scheduler.remove(job)
    assert order == [2, 4, 0, 1, 3, 9]


def test_alone_a_prompt_gets_the_whole_batch() -> None:
    scheduler = make()
    start(scheduler, Job(1, "a", [1] * 190))
    assert rows(run_step(scheduler)) == {1: N_BATCH}


def test_the_slot_that_remembers_most_is_taken_and_the_last_token_read_again() -> None:
    scheduler = make()
    for i, prompt in enumerate(([1, 2, 3, 4], [1, 2, 9])):
        scheduler.submit(Job(i, "", prompt))
    run_step(scheduler)
    for job in list(scheduler.running()):
        scheduler.remove(job)
    again = Job(5, "", [1, 2, 9])
    scheduler.submit(again)
    ((_, n_keep, *_),) = scheduler.admit()
    assert (again.slot, n_keep, again.n_cached) == (1, 2, 2)
    other = Job(6, "", [1, 2, 3, 5])
    scheduler.submit(other)
    ((_, n_keep, *_),) = scheduler.admit()
    assert (other.slot, n_keep) == (0, 3)


def test_another_conversation_is_not_overwritten_for_a_few_equal_tokens() -> None:
    scheduler = make(slots=2)
    first = Job(1, "", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    scheduler.submit(first)
    run_step(scheduler)
    scheduler.remove(first)
    new = Job(2, "", [1, 2, 9])
    scheduler.submit(new)
    assert next(scheduler.admit()).n_keep == 0
    scheduler.remove(new)
    again = Job(3, "", [1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    scheduler.submit(again)
    assert next(scheduler.admit()).n_keep == 9


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
        assert (next(scheduler.admit()).n_keep, guess.n_cached, guess.slot) == (0, 0, 1)
        run_step(scheduler)
        again = Job(3, "maple", [*said.tokens, 9])
        scheduler.submit(again)
        assert next(scheduler.admit()).n_keep == 4


def test_of_equal_slots_the_one_unused_for_longest_is_taken() -> None:
    scheduler = make(slots=2)
    jobs = [Job(i, "", [i]) for i in (1, 2)]
    for job in jobs:
        scheduler.submit(job)
    run_step(scheduler)
    scheduler.remove(jobs[1])
    scheduler.remove(jobs[0])
    new = Job(3, "", [9])
    start(scheduler, new)
    assert new.slot == 1


@pytest.mark.parametrize("gone", list(itertools.permutations(range(4))))
def test_those_who_run_are_neighbours_however_others_left(gone: tuple[int, ...]) -> None:
    scheduler = make(slots=6)
    for turn in range(4):
        jobs = [Job(10 * turn + i, "", [turn, i, 5]) for i in range(4)]
        start(scheduler, *jobs)
        slots = sorted(job.slot for job in jobs)
        assert slots == list(range(slots[0], slots[0] + 4))
        for i in gone:
            run_step(scheduler)
            scheduler.remove(jobs[i])


def test_a_long_conversation_far_from_who_runs_goes_on_beside_them() -> None:
    scheduler = Scheduler(slots=8, n_ctx=4096, n_batch=2048)
    jobs = [Job(i, "", [i] * (1000 if i == 6 else 2)) for i in range(8)]
    start(scheduler, *jobs)
    run_step(scheduler)
    for job in jobs[1:]:
        scheduler.remove(job)
    again = Job(9, "", [6] * 1000 + [1])
    ((job, _, _, copy),) = start(scheduler, again)
    assert (job.slot, job.n_past, copy and copy.slot) == (1, 1000, 6)


def test_a_cache_that_cannot_be_cut_is_used_whole_or_not_at_all() -> None:
    scheduler = make(slots=1, rewindable=False)
    first = Job(1, "", [1, 2, 3])
    scheduler.submit(first)
    run_step(scheduler, token=4)
    run_step(scheduler, token=5)
    scheduler.remove(first)
    longer = Job(2, "", [1, 2, 3, 4, 6])
    scheduler.submit(longer)
    assert next(scheduler.admit()).n_keep == 4
    scheduler.remove(longer)
    different = Job(3, "", [1, 2, 8])
    scheduler.submit(different)
    assert next(scheduler.admit()).n_keep == 0


@pytest.mark.parametrize(
    ("slots", "gone", "bridges"),
    [
        (8, (2,), [2]),
        (8, (2, 3, 4), [2, 3, 4]),
        (8, (1,), [1]),
        (8, (1, 2), []),
        (8, (1, 3, 5, 7), []),
        (8, (1, 3, 4, 5, 6, 7), []),
        (8, (2, 4), [2, 4]),
        (10, (2, 3, 4, 5), []),
    ],
)
def test_small_gaps_between_generating_slots_are_bridged(
    slots: int, gone: tuple[int, ...], bridges: list[int]
) -> None:
    for rewindable, separate in ((True, True), (True, False), (False, True)):
        scheduler = make(slots=slots, rewindable=rewindable, separate=separate)
        jobs = [Job(i, "", [1, i]) for i in range(slots)]
        start(scheduler, *jobs)
        run_step(scheduler)
        for i in gone:
            scheduler.remove(jobs[i])
        filled = [(s.slot, s.start, s.output) for s in scheduler.plan() if s.job is None]
        wanted = bridges if rewindable and separate else []
        assert filled == [(slot, 2, False) for slot in wanted]


def test_slots_that_do_not_fit_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="slots"):
        Scheduler(slots=20, n_ctx=10, n_batch=24)


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_common_prefix(a: list[int], b: list[int]) -> None:
    limit = min(len(a), len(b))
    expected = next((i for i in range(limit) if a[i] != b[i]), limit)
    assert common_prefix(a, b, limit) == expected


SYSTEM = list(range(100, 200))


def test_what_came_together_and_begins_alike_is_read_once() -> None:
    scheduler = make()
    jobs = [Job(i, "", [*SYSTEM, i, i]) for i in range(4)]
    admitted = start(scheduler, *jobs)
    assert [a.copy for a in admitted] == [None] * 4
    assert rows(run_step(scheduler)) == {0: 100}, "up to where the others part"
    assert [(c.job.id, c.n, c.slot) for c in scheduler.copies()] == [(i, 100, 0) for i in (1, 2, 3)]
    assert rows(run_step(scheduler)) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert [job.n_cached for job in jobs] == [0, 100, 100, 100]


def test_answers_to_one_prompt_read_it_once() -> None:
    scheduler = make()
    jobs = [Job(i, "", SYSTEM) for i in range(3)]
    start(scheduler, *jobs)
    assert rows(run_step(scheduler)) == {0: 99}
    assert rows(run_step(scheduler)) == {0: 1, 1: 1, 2: 1}
    assert all(job.n_out == 1 for job in jobs)


def test_when_the_one_who_reads_for_others_leaves_another_reads_on() -> None:
    scheduler = make()
    jobs = [Job(i, "", [*SYSTEM * 1, *[50 + i // 2] * 60, i]) for i in range(4)]
    start(scheduler, *jobs)
    assert rows(run_step(scheduler)) == {0: 100}
    list(scheduler.copies())
    scheduler.remove(jobs[0])
    spans = run_step(scheduler)
    # 1 and 2 had their copy of what all share; 3 waits for 2.
    assert set(rows(spans)) == {1, 2}
    scheduler.remove(jobs[2])
    assert 3 in rows(run_step(scheduler))
    while any(not job.n_out for job in (jobs[1], jobs[3])):
        run_step(scheduler)


def test_a_running_answer_lends_its_beginning() -> None:
    scheduler = make()
    first = Job(1, "", [*SYSTEM, 1])
    start(scheduler, first)
    run_step(scheduler)
    ((_, n_keep, _, copy),) = start(scheduler, Job(2, "", [*SYSTEM, 2]))
    assert copy is not None and (copy.n, copy.slot, n_keep) == (100, 0, 0)
    ((*_, none),) = start(scheduler, Job(3, "someone else", [*SYSTEM, 3]))
    assert none is None
    ((*_, few),) = start(scheduler, Job(4, "", [*SYSTEM[: MIN_SHARED - 1], 3]))
    assert few is None


def test_a_conversation_that_would_be_cut_is_copied_into_a_free_slot() -> None:
    scheduler = make(slots=2)
    first = Job(1, "", [*SYSTEM, *[1] * 90])
    start(scheduler, first)
    while not first.n_out:
        run_step(scheduler)
    scheduler.remove(first)
    ((job, _, _, copy),) = start(scheduler, Job(2, "", [*SYSTEM, 2]))
    assert (job.slot, copy and (copy.n, copy.slot)) == (1, (100, 0))


LONG = list(range(100, 250))


def test_what_lost_its_slot_is_parked_and_comes_back() -> None:
    scheduler = make(slots=1, park_bytes=1000)
    first = Job(1, "maple", LONG)
    start(scheduler, first)
    run_step(scheduler)
    scheduler.remove(first)
    ((second, _, park, _),) = start(scheduler, Job(2, "birch", LONG))
    assert park == ("maple", LONG)
    assert scheduler.parking.make_room(400)
    scheduler.parking.add(Parked("maple", LONG, 400, "state"))
    scheduler.remove(second)
    ((third, _, _, copy),) = start(scheduler, Job(3, "birch", [*LONG, 5]))
    assert copy is None, "parked things belong to their user too"
    scheduler.remove(third)
    ((_, _, _, copy),) = start(scheduler, Job(4, "maple", [*LONG, 5]))
    assert copy is not None and copy.parked is not None
    assert (copy.n, copy.slot, copy.parked.state) == (150, -1, "state")


def test_parking_keeps_its_budget_and_lets_the_oldest_go() -> None:
    parking: Parking[None] = Parking(100)
    assert not parking.make_room(101)
    entries = [Parked("", [i], 40, None) for i in range(3)]
    for entry in entries[:2]:
        assert parking.make_room(40)
        parking.add(entry)
    parking.used(entries[0])
    assert parking.make_room(40)
    parking.add(entries[2])
    assert set(parking.of("")) == {entries[0], entries[2]}
    longer = Parked("", [0, 5], 20, None)
    parking.make_room(20)
    parking.add(longer)
    assert set(parking.of("")) == {entries[2], longer}, "it says what the shorter one said"
    parking.drop(longer)
    parking.drop(longer)
    assert parking.n_bytes == 40
    parking.clear()
    assert (len(parking), parking.n_bytes) == (0, 0)
