"""When canaries are sent, how large they are and what they may cost: for all values."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.app import canary_rules as rules
from infraxa.app.canary_rules import Habits, Shape, Today, shape_of
from infraxa.app.counting import Plan, hold_in
from infraxa.engine.types import ChatMessage, Format, Request, Sampling, Tool, ToolCall
from infraxa.engine.verdicts import LEAST_RATE, rate

AMOUNTS = st.integers(0, 10**7)
SHAPE = Shape(0, 40, 1, Sampling())
KEY = bytes(32), bytes(32)


def said(*texts: str) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage("assistant" if at % 2 else "user", text) for at, text in enumerate(texts))


def test_of_a_question_its_sizes_are_known_and_nothing_that_it_says() -> None:
    sampling = Sampling(temperature=0.3, max_tokens=100)
    messages = (ChatMessage("system", "be kind"), *said("my secret", "what of it", "the other one"))
    shape = shape_of(Request(messages, sampling, logprobs=2), called=True)
    assert shape == Shape(7, 13, 2, sampling, 2, True)
    assert not any(one.content in repr(shape) for one in messages)


@pytest.mark.parametrize(
    "request_",
    [
        Request(prompt="raw"),
        Request(),
        Request(said("a", "goes on")),
        Request(said("a"), tools=(Tool("f"),)),
        Request(said("a"), format=Format("json_object")),
        Request((ChatMessage("user", "a"), ChatMessage("tool", "b"), ChatMessage("user", "c"))),
        Request(
            (
                ChatMessage("user", "a"),
                ChatMessage("assistant", "", (ToolCall("1", "f", "{}"),)),
                ChatMessage("user", "c"),
            )
        ),
    ],
)
def test_what_cannot_be_imitated_is_not(request_: Request) -> None:
    assert shape_of(request_) is None


@given(st.lists(st.integers(1, 10_000), max_size=50), st.integers(0, 2**32))
def test_sizes_are_those_of_the_last_questions(sizes: list[int], seed: int) -> None:
    habits, rng = Habits(), random.Random(seed)
    for chars in sizes:
        habits.asked(KEY, SHAPE._replace(chars=chars, turns=chars))
    shape = habits.shape(rng, KEY)
    if not sizes:
        assert shape is None
        return
    assert shape is not None and shape.turns in sizes[-rules.RECENT :]
    assert shape.turns / 4 - 1 < shape.chars < 4 * shape.turns + 1
    assert habits.shape(rng, (bytes(32), b"1" * 32)) is None


def test_sizes_of_few_drivers_are_remembered() -> None:
    habits = Habits()
    keys = [(number.to_bytes(32, "big"), bytes(32)) for number in range(rules.MOST_DRIVERS + 1)]
    for key in keys:
        habits.asked(key, SHAPE)
    known = [habits.shape(random.Random(1), key) is not None for key in keys]
    assert known == [False] + [True] * rules.MOST_DRIVERS


@given(st.lists(st.floats(0, 10**6), max_size=50), st.integers(0, 2**32))
def test_it_waits_for_seconds_to_minutes(pauses: list[float], seed: int) -> None:
    habits = Habits()
    for pause in pauses:
        habits.paused(pause)
    delay = habits.delay_s(random.Random(seed))
    assert rules.LEAST_DELAY_S <= delay <= rules.MOST_DELAY_S
    assert 0.2 <= rules.looks_s(random.Random(seed)) <= 0.8
    assert 0 < rules.typing_s(random.Random(seed), 10**9) <= rules.MOST_DELAY_S


def test_it_waits_as_the_person_does() -> None:
    slow, quick, rng = Habits(), Habits(), random.Random(1)
    for _ in range(rules.RECENT):
        slow.paused(200.0)
        slow.paused(10**4)  # was away
        quick.paused(8.0)
    assert sum(quick.delay_s(rng) for _ in range(100)) * 5 < sum(slow.delay_s(rng) for _ in range(100))


def test_newcomers_are_sent_more_and_it_falls() -> None:
    rng = random.Random(3)
    sent = [
        sum(rules.is_followed(rng, rate(audited), 1.0) for _ in range(2000)) / 2000
        for audited in (0, 20, 10_000)
    ]
    assert 0.45 < sent[0] < 0.55 and 0.2 < sent[1] < 0.3 and LEAST_RATE / 4 < sent[2] < LEAST_RATE
    assert not any(rules.is_followed(rng, 0.0, 1.0) for _ in range(1000))


def test_long_chats_are_imitated_by_as_many_canaries_in_long_ones() -> None:
    rng, habits = random.Random(5), Habits()
    for turn in range(1, 11):
        habits.asked(KEY, SHAPE._replace(turns=turn))
    assert habits.turns(KEY) == 5.5 and habits.turns((bytes(32), b"1" * 32)) == 1.0
    sent: list[int] = []
    for _ in range(4000):
        if rules.is_followed(rng, 1.0, habits.turns(KEY)):
            shape, turns = habits.shape(rng, KEY), 0
            assert shape is not None
            while not turns or rules.goes_on(turns, 100 * turns, 12 * 3600.0, shape):
                turns += 1
                sent.append(turns)
    assert 0.4 < len(sent) / 4000 < 0.6
    assert sum(turn == 1 for turn in sent) < len(sent) / 4 and max(sent) == 10


def test_a_conversation_has_no_more_turns_than_the_persons_own() -> None:
    shape = SHAPE._replace(turns=3)
    assert rules.goes_on(2, 500, 60.0, shape)
    assert not rules.goes_on(3, 500, 60.0, shape)
    assert not rules.goes_on(2, rules.MOST_SAID, 60.0, shape)
    assert not rules.goes_on(2, 500, rules.GOES_ON_S + 1, shape)


@given(st.integers(0, 10**5), st.integers(1, 10**5), st.integers(1, 10**5))
def test_what_cannot_be_paid_is_shortened(system: int, chars: int, most: int) -> None:
    shape = SHAPE._replace(system=system, chars=chars, turns=5)
    short = rules.shortened(shape, most)
    assert short.chars + short.system <= max(most, 1) and 0 < short.chars <= chars
    assert short == shape or system + chars > most
    assert rules.goes_on(2, 500, 60.0, SHAPE._replace(turns=5), most) == (500 + SHAPE.chars <= most)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_what_is_reserved_is_within_the_share(
    hold: int, least: int, cap_day: int, cap_request: int, day: int, canaries: int
) -> None:
    share = rules.share(cap_day)
    held = rules.reserved(hold, least, share, cap_day, cap_request, Today(day, canaries))
    if held is None:
        return
    assert min(least, hold) <= held <= hold
    assert not held or canaries + rules.PARTS * held <= cap_day * 3 // 100
    assert day + held + cap_request <= cap_day


@given(
    st.integers(0, 10**6), st.lists(st.tuples(AMOUNTS, st.integers(0, 10**6), st.floats(0, 1)), max_size=60)
)
def test_a_day_of_canaries_and_their_referees_costs_no_more(
    cap_day: int, sent: list[tuple[int, int, float]]
) -> None:
    spent = 0
    for hold, least, part in sent:
        held = rules.reserved(hold, least, rules.share(cap_day), cap_day, 0, Today(spent, spent))
        if held is not None:
            # Two referees read as much as it may have cost.
            spent += round(held * part) + 2 * held
        assert spent <= rules.share(cap_day) <= cap_day * 3 / 100


@given(AMOUNTS, st.integers(1, 10**9), st.integers(0, 10**6), st.integers(0, 512))
def test_it_is_stopped_before_it_costs_more(
    held: int, price_out: int, prompt_cost: int, in_flight: int
) -> None:
    n_out = rules.most_tokens(held, prompt_cost, price_out, in_flight)
    assert n_out >= 0
    if n_out:
        assert prompt_cost + -(-(n_out + in_flight) * price_out // 1_000_000) <= held


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_order_takes_the_whole_tab_and_a_canary_no_more_than_half(
    least: int, more: int, room: int
) -> None:
    plan = Plan(10, 10, least, least + more)
    if room < least:
        return
    hold = hold_in(plan, room)
    assert least <= hold <= min(plan.most, room)
    if plan.most <= room:
        assert hold == plan.most
    elif room >= 2 * least:
        assert hold == room // 2
    if rules.leaves_room(hold, plan.most, room):
        # A message of the same kind can have as much, or half of what there was.
        assert room - hold >= min(plan.most, room // 2)
        assert room - hold >= min(least, room // 2)
    else:
        assert room < 2 * plan.most
