"""Guessing what comes next from what was said: never changes an answer, and stops where it does not help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from infraxa.engine.lookup import AGAIN, DEAR, LOSS, MOST, STREAK, Lookup, RowCost
from infraxa.engine.types import Request, Sampling

OpenRoom = Callable[..., Any]
QUOTED = "<|im_start|>user\nwhat is infraxa?<|im_end|>\n<|im_start|>assistant\n"


def ready(tokens: list[int]) -> Lookup:
    """One that was right about the last tokens."""
    cost = RowCost()
    cost.took(0, 1.0)
    lookup = Lookup(cost)
    lookup._streak = STREAK
    return lookup


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 10))
def test_a_draft_is_what_followed_the_same_three_tokens(tokens: list[int], most: int) -> None:
    draft = ready(tokens).draft(tokens, most)
    ends = [i for i in range(3, len(tokens)) if tokens[i - 3 : i] == tokens[-3:]]
    # The latest place, as far as the text goes.
    assert draft == (tokens[ends[-1] :][: min(most, MOST)] if ends else [])


def test_guesses_are_silent_until_some_were_right() -> None:
    text = [*range(20), *range(20)]
    lookup = ready([])
    lookup._streak = 0
    drafts = {n: lookup.draft(text[:n], 100) for n in range(1, 33)}
    # The first guess is possible after three tokens, and is for the fourth.
    assert next(n for n, draft in drafts.items() if draft) == 23 + STREAK
    assert drafts[30] == text[30:37]
    lookup.checked(MOST, MOST)
    assert lookup.draft(text[:38], 1) == [18]
    lookup.checked(1, 0)
    assert not lookup.draft([*text[:38], 3], 5)


def test_whoever_is_not_right_often_enough_is_not_guessed_for() -> None:
    tokens = [1, 2, 3, 4] * 10
    lookup = ready(tokens)
    steps = 0
    while lookup.draft(tokens, 5):
        lookup._cost.took(5, 1 + 5 * DEAR)
        lookup.checked(5, 1)
        lookup._streak = STREAK
        steps += 1
        assert steps <= LOSS
    assert steps == LOSS / (5 * DEAR - 1)
    unmeasured = Lookup(RowCost())
    unmeasured._streak = STREAK
    assert not unmeasured.draft(tokens, 5), "before it is known what a step takes"


def test_where_a_row_is_dear_one_check_in_many_tokens_is_all_it_costs() -> None:
    tokens = [1, 2, 3, 4] * 10
    cost = RowCost()
    cost.took(0, 1.0)
    checks = 0
    for _ in range(2 * AGAIN):
        lookup = Lookup(cost)
        lookup._streak = STREAK
        if draft := lookup.draft(tokens, 7):
            cost.took(len(draft), 1 + 0.8 * len(draft))
            checks += 1
    assert checks == 2
    assert cost.row == pytest.approx(0.8)
    while not cost.low():
        pass
    # It was only busy: one good measurement is believed.
    cost.took(7, 1.7)
    assert cost.row == pytest.approx(0.1)
    assert all(cost.low() for _ in range(10))


def says_again(room: Any, greedy: bool = True, **sampling: Any) -> tuple[str, list[int], int]:
    """An answer whose prompt holds the answer already."""
    room.batcher.submit(1, Request(prompt=QUOTED, sampling=Sampling(temperature=0, max_tokens=60)))
    room.run()
    said = room.text.pop(1)
    values = {"temperature": 0.0 if greedy else 0.9, "seed": 3, "max_tokens": 60, **sampling}
    again = Request(prompt=f"{QUOTED}{said}<|im_end|>\n{QUOTED}", sampling=Sampling(**values))
    before = room.batcher.step_number
    room.batcher.submit(2, again)
    room.run()
    return room.text[2], room.ids[2], room.batcher.step_number - before


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"greedy": False},
        {"max_tokens": 11},
        {"stop": ("infraxa",)},
        {"greedy": False, "repeat_penalty": 1.1},
    ],
)
def test_the_answer_is_the_same_with_and_without(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any]
) -> None:
    room = open_room(slots=2)
    decode = room.batcher._decode
    # However long a step takes here.
    monkeypatch.setattr(room.batcher, "_decode", lambda rows, spans: decode(rows, spans) and 1.0)
    text, ids, steps = says_again(room, **sampling)
    usage = room.ended[2].usage
    monkeypatch.setattr(Lookup, "draft", lambda *_: [])
    plain = open_room(slots=2)
    assert says_again(plain, **sampling)[:2] == (text, ids)
    assert (usage.n_out, room.ended[2].reason) == (plain.ended[2].usage.n_out, plain.ended[2].reason)
    assert room.batcher.scheduler._cached == plain.batcher.scheduler._cached
    if not sampling:
        assert steps < 0.7 * len(ids)


def test_what_was_guessed_wrong_is_not_remembered(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, plain = open_room(slots=2), open_room(slots=2)
    question = Request(prompt=QUOTED, sampling=Sampling(temperature=0, max_tokens=60))
    plain.answer(1, question)
    wrong = [7, 9, 7]
    monkeypatch.setattr(Lookup, "draft", lambda self, tokens, most: wrong[:most])
    room.answer(1, question)
    assert room.ids == plain.ids
    monkeypatch.undo()
    more = Request(
        prompt=f"{QUOTED}{plain.text[1]}<|im_end|>\n{QUOTED}", sampling=Sampling(temperature=0, max_tokens=9)
    )
    assert room.answer(2, more) == plain.answer(2, more)
    assert room.ended[2].usage.n_cached == plain.ended[2].usage.n_cached


def test_a_check_that_is_interrupted_is_made_again(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, plain = open_room(slots=2), open_room(slots=2)
    question = Request(prompt=QUOTED, sampling=Sampling(temperature=0, max_tokens=30))
    monkeypatch.setattr(Lookup, "draft", lambda self, tokens, most: [7, 9, 7][:most])
    room.batcher.submit(1, question)
    for _ in range(4):
        room.batcher.step()
    room.context.abort(True)
    room.batcher.step()
    room.context.abort(False)
    room.run()
    assert room.text[1] == plain.answer(1, question)
