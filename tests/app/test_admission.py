"""Who gets a slot: never too many, none lost, fair, bounded; whatever order things happen in."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from infraxa.app.admission import IN_LINE_S, RETRY_MS, Admission

LANES = "abc"
USERS = ("x", "y")


class Orders(RuleBasedStateMachine):
    """Orders come, are let in, end, are given up, at any time."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(2)
        self.number = 0
        self.keys: dict[int, tuple[str, str]] = {}
        self.running: set[int] = set()
        self.waiting: list[int] = []
        self.overtaken: Counter[int] = Counter()

    @rule(target=live, lane=st.sampled_from(LANES), user=st.sampled_from(USERS))
    def arrive(self, lane: str, user: str) -> int:
        admission = self.admission
        self.number += 1
        before = sum(self.keys[n][0] == lane for n in self.waiting)
        full = len(self.running) + len(self.waiting) >= admission.capacity
        let_in = admission.arrive(self.number, lane, (lane, user), float(self.number))
        if let_in:
            self.keys[self.number] = (lane, user)
            self.waiting.append(self.number)
        else:
            assert full
            room = 2 * admission.capacity
            assert len(self.waiting) >= room or before >= room // 2, "refused without a reason"
        self.admit()
        return self.number

    @rule(number=consumes(live))
    def leave(self, number: int) -> None:
        known = number in self.running or number in self.waiting
        assert self.admission.leave(number) is known
        self.running.discard(number)
        if number in self.waiting:
            self.waiting.remove(number)
        assert self.admission.leave(number) is False
        self.admit()

    @rule(number=live)
    def give_back(self, number: int) -> None:
        """What it ran on is lost."""
        if number in self.running:
            self.admission.give_back(number, float(number))
            self.running.remove(number)
            self.waiting.append(number)
            self.admit()

    @rule(capacity=st.integers(1, 4))
    def resize(self, capacity: int) -> None:
        self.admission.capacity = capacity
        self.admit()

    def admit(self) -> None:
        expected = self.admission.line()
        admitted = self.admission.admit()
        assert admitted == expected[: len(admitted)]
        for number in admitted:
            self.check_fair(number)
            self.waiting.remove(number)
            self.running.add(number)

    def check_fair(self, number: int) -> None:
        """At the moment when `number` gets its slot."""
        lane, user = self.keys[number]
        slots = Counter(self.keys[n][0] for n in self.running)
        slots_of = Counter(self.keys[n] for n in self.running)
        for other in self.waiting:
            its_lane, its_user = self.keys[other]
            assert slots[lane] <= slots[its_lane], "somebody who waits has fewer"
            if its_lane == lane:
                assert slots_of[lane, user] <= slots_of[lane, its_user]
                if its_user == user:
                    assert number <= other, "a user's own orders go as they came"

    @invariant()
    def holds(self) -> None:
        admission = self.admission
        assert admission.running == len(self.running)
        assert admission.waiting == len(self.waiting)
        assert sorted(admission.line()) == sorted(self.waiting)
        if self.waiting:
            assert admission.running >= admission.capacity, "a slot is lost"


TestOrders = Orders.TestCase
TestOrders.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


@given(st.lists(st.sampled_from(["arrive", "end"]), max_size=60), st.integers(1, 5))
@settings(deadline=None, max_examples=100)
def test_never_more_run_than_there_are_slots(steps: list[str], capacity: int) -> None:
    admission = Admission(capacity)
    running: list[int] = []
    for number, step in enumerate(steps):
        if step == "arrive":
            admission.arrive(number, number % 3, number % 3, 0.0)
        elif running:
            admission.leave(running.pop(0))
        running += admission.admit()
        assert len(running) == admission.running <= capacity
        assert admission.waiting <= 2 * capacity


@given(st.lists(st.permutations("abc"), min_size=20, max_size=40), st.integers(2, 5))
@settings(deadline=None, max_examples=100)
def test_who_asks_for_much_gets_no_more_than_others(turns: list[list[str]], capacity: int) -> None:
    """One lane asks until it is refused, the others have one order that waits; answers take equally long."""
    admission, served = Admission(capacity), Counter[str]()
    lane_of: dict[int, str] = {}
    running: list[int] = []
    for turn in turns:
        for lane in turn:
            let_in = True
            while let_in and (lane == "a" or lane not in {lane_of[n] for n in admission.line()}):
                number = len(lane_of)
                lane_of[number] = lane
                let_in = admission.arrive(number, lane, lane, 0.0)
                assert let_in or lane == "a"
                running += admission.admit()
        ended = running.pop(0)
        served[lane_of[ended]] += 1
        admission.leave(ended)
        running += admission.admit()
    counts = [served[lane] for lane in "abc"]
    assert max(counts) - min(counts) <= capacity + 2  # the first may take all slots


def come(admission: Admission, number: int, lane: str = "", user: str = "") -> bool:
    """An order comes, as to somebody who gives free slots away at once."""
    let_in = admission.arrive(number, lane or number, user or lane or number, 0.0)
    admission.admit()
    return let_in


def test_one_lane_alone_has_all_slots_and_half_of_the_room() -> None:
    admission = Admission(3)
    let_in = [come(admission, number, "a") for number in range(20)]
    assert admission.running == 3
    assert sum(let_in) == 3 + 3
    assert come(admission, 100, "b"), "there is room for others"
    assert not admission.full


def test_a_crowd_of_users_in_one_lane_counts_as_one() -> None:
    admission = Admission(2)
    for number in range(4):
        come(admission, number, "crowd", f"user {number}")
    come(admission, 10, "alone")
    assert admission.line() == [10, 2, 3]
    admission.leave(0)
    assert admission.admit() == [10]


def test_places_in_line_are_those_in_which_slots_are_given() -> None:
    admission = Admission(1)
    for number in range(3):
        come(admission, number)
    line = admission.line()
    got = []
    running = 0
    while admission.waiting:
        admission.leave(running)
        (running,) = admission.admit()
        got.append(running)
    assert got == line == [1, 2]


def test_who_gives_a_slot_back_keeps_its_place() -> None:
    admission = Admission(3)
    for number, who in enumerate(["ax", "ay", "bx", "ay", "ax", "bx", "cx"]):
        assert come(admission, number, who[0], who)
    assert (admission.running, admission.line()) == (3, [6, 5, 3, 4])
    for number in (2, 0, 1):  # however the news of it come
        admission.give_back(number, 50.0)
    assert (admission.running, admission.waiting) == (0, 7), "more than there is room"
    assert admission.line() == [0, 2, 6, 1, 5, 4, 3]
    assert admission.deadline(0) == 50.0 + IN_LINE_S
    assert admission.admit() == [0, 2, 6]


def test_the_line_has_an_end_in_time() -> None:
    admission = Admission(1)
    admission.arrive(1, "a", "a", 5.0)
    assert admission.deadline(1) == 5.0 + IN_LINE_S


def test_who_is_refused_is_told_a_time_that_was_measured() -> None:
    quick, slow = Admission(2), Admission(2)
    for _ in range(100):
        quick.took(2.0)
        slow.took(20.0)
    for admission in (quick, slow):
        for number in range(6):
            come(admission, number)
        assert admission.full
    assert 1000 <= quick.retry_after_ms() <= 4000
    assert 10_000 <= slow.retry_after_ms() <= 40_000
    for _ in range(100):
        slow.took(100_000.0)
    assert slow.retry_after_ms() == RETRY_MS[1]


def test_fewer_slots_than_run_take_nothing_away() -> None:
    admission = Admission(3)
    for number in range(4):
        come(admission, number)
    assert admission.line() == [3]
    admission.capacity = 1
    assert admission.leave(0) and admission.admit() == []
    assert admission.leave(1) and admission.admit() == []
    assert admission.leave(2) and admission.admit() == [3]
