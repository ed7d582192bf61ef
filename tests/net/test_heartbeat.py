"""When a state is due: a new status at once, a load that moved soon, and never more than others hand on."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from infraxa.net.heartbeat import EVERY_S, KEPT, UTIL_STEP, Heartbeat
from infraxa.net.records import State, Status
from infraxa.net.spreading import SIGNER_BURST, SIGNER_RATE

FREE = State(0, bytes(8), "online")


class Beating:
    """A heartbeat whose states are published as they are asked for."""

    def __init__(self) -> None:
        self.heart = Heartbeat(random.Random(1))
        self.now = 1000.0
        self.said: list[tuple[float, State]] = []
        self.want(FREE)

    def want(self, state: State) -> None:
        self.heart.wanted = state
        self._look()

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.heart.due_at(self.now), self.now + 0.01))
            self._look()

    def load(self, util: int, status: Status = "online") -> None:
        self.want(structs.replace(FREE, util=util, status=status))

    def _look(self) -> None:
        if (state := self.heart.ask(self.now)) is not None:
            self.said.append((self.now, state))
            self.heart.said(state, self.now)


def test_a_load_that_moved_by_an_eighth_is_told_at_once_and_less_with_the_next_heartbeat() -> None:
    it = Beating()
    it.load(UTIL_STEP)
    assert it.said[-1] == (it.now, it.heart.wanted) and len(it.said) == 2
    it.load(2 * UTIL_STEP - 1)
    it.pass_(EVERY_S / 2)
    assert len(it.said) == 2
    it.pass_(EVERY_S)
    assert it.said[2][1].util == 2 * UTIL_STEP - 1


def test_a_load_that_moves_all_the_time_leaves_room_for_a_new_status() -> None:
    it = Beating()
    for step in range(600):
        it.load(255 * (step % 2))
        it.pass_(0.1)
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(it.said[4:])]
    assert 8 <= len(gaps) <= 14 and min(gaps) > 4.5
    for status in ("busy", "online")[:KEPT]:
        it.load(0, status)
        assert it.said[-1][0] == it.now and it.said[-1][1].status == status


def test_a_load_that_came_back_in_time_is_not_told() -> None:
    it = Beating()
    for util in (100, 200, 100):
        it.load(util)
    count = len(it.said)
    it.load(it.said[-1][1].util)
    it.pass_(EVERY_S / 2)
    assert len(it.said) == count


moves = st.tuples(st.floats(0, 3), st.integers(0, 255), st.sampled_from(["online", "busy"]))


@settings(deadline=None, max_examples=60)
@given(st.lists(moves, max_size=60))
def test_no_more_is_said_than_others_hand_on_and_the_last_word_is_said(
    moved: list[tuple[float, int, Status]],
) -> None:
    it = Beating()
    for seconds, util, status in moved:
        it.pass_(seconds)
        it.load(util, status)
    heard = [at for at, _ in it.said[1:]]
    for first, at in enumerate(heard):
        within = [later for later in heard[first:] if later - at <= 20]
        # Heartbeats come besides; one in 27 s at most.
        assert len(within) <= SIGNER_BURST + 20 * SIGNER_RATE + 1
    it.pass_(20)
    last = it.said[-1][1]
    assert it.heart.wanted is not None
    assert last.status == it.heart.wanted.status and abs(last.util - it.heart.wanted.util) < UTIL_STEP
