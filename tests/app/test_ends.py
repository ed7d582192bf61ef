"""Where an answer may end, and whether what was shown of it is what its tokens say."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.app import ends
from infraxa.app.verifying import Kept
from infraxa.engine.said import text_hash
from infraxa.engine.transcript import EOS, LENGTH, STOP, Leaf, decode_leaf
from infraxa.engine.types import Budget
from infraxa.net.prompts import Prompt
from tests.app.lies import DRIVER, ORDER, Ran, run

STEPS, N_PROMPT = 20, 40
ASKED = replace(ORDER, max_tokens=64, hold=1_000_000)


def kept(text: str = "", *, stop: tuple[str, ...] = (), finish: str = "stop", **changed: Any) -> Kept:
    order = replace(ASKED, **{name: changed.pop(name) for name in ("max_tokens", "hold") if name in changed})
    raw = changed.pop("raw", "a" * N_PROMPT)
    given: dict[str, Any] = {"context": 4096, "max_out": 1024} | changed
    prompt = Prompt(raw=raw, stop=stop)
    return Kept(
        DRIVER.id, order, prompt, b"", b"", b"", (), (), STEPS, 4097, 0, finish=finish, text=text, **given
    )


def ran(outcome: str, flag: int = 0, **said: Any) -> Ran:
    return run(STEPS, order=ASKED, flags={STEPS - 1: flag}, outcome=outcome, **said)


def last(one: Ran) -> Leaf:
    return decode_leaf(one.leaves[-1])


def is_allowed(known: Kept, outcome: str, flag: int, **said: Any) -> bool:
    one = ran(outcome, flag, **said)
    return ends.is_allowed(known, one.said, last(one))


def is_true(known: Kept, outcome: str, flag: int, end: int | None, n_prompt: int = 0) -> bool:
    one = ran(outcome, flag)
    return ends.is_true(known, one.said, last(one), end, n_prompt)


@pytest.mark.parametrize(
    ("full", "known"),
    [
        (False, {}),
        (True, {"max_tokens": STEPS}),
        (False, {"max_tokens": STEPS + 1}),
        (False, {"max_tokens": 0}),
        (True, {"max_out": STEPS}),
        (False, {"max_out": STEPS + 1}),
        # The last token of a full context needs no room.
        (True, {"context": N_PROMPT + STEPS - 1}),
        (False, {"context": N_PROMPT + STEPS}),
        # What is reserved is not enough for one more token.
        (True, {"hold": 6}),
        (True, {"hold": 5}),
        (False, {"hold": 7}),
        # Nothing is known of what the driver had said of its room.
        (True, {"context": 0}),
    ],
)
def test_the_longest_answer_is_as_long_as_it_may_be(full: bool, known: dict[str, Any]) -> None:
    one = ran("length", LENGTH)
    rates = Budget(1, one.said.price_in, one.said.price_out)
    assert (rates.per_million_in, rates.per_million_out, one.said.n_prompt) == (50_000, 200_000, N_PROMPT)
    assert is_allowed(kept(finish="length", **known), "length", LENGTH) is full
    # By the tokens of the prompt as they were counted here.
    assert ends.is_full(kept(context=100), one.said, 81) and not ends.is_full(kept(context=100), one.said, 80)


def test_what_is_free_is_bounded_by_no_money() -> None:
    free = {"price_in": 0, "price_out": 0, "price_cached": 0}
    assert not is_allowed(kept(hold=0), "length", LENGTH, **free)
    assert is_allowed(kept(hold=0, max_tokens=STEPS), "length", LENGTH, **free)


def test_a_stop_string_ends_only_what_it_was_asked_for() -> None:
    assert is_allowed(kept("a", stop=("b",)), "stop", STOP)
    assert not is_allowed(kept("a"), "stop", STOP)
    assert is_allowed(kept("a"), "stop", EOS)
    # It would have ended there.
    for flag in (EOS, STOP):
        assert not is_allowed(kept("abc", stop=("x", "b")), "stop", flag)


@pytest.mark.parametrize("outcome", ["cancelled", "failed"])
@pytest.mark.parametrize("flag", [0, EOS, STOP, LENGTH])
def test_whoever_cancels_or_fails_may_end_anywhere(outcome: str, flag: int) -> None:
    assert is_allowed(kept("ab", stop=("b",)), outcome, flag)
    for end in (None, -1, STEPS - 1):
        assert is_true(kept(), outcome, flag, end, N_PROMPT)
    # But none goes on after its end.
    assert not is_true(kept(), outcome, flag, 3)


def test_its_last_token_ends_it_when_it_says_so_and_only_then() -> None:
    at = STEPS - 1
    for flag in (EOS, STOP):
        assert is_true(kept(), "stop", flag, at)
        assert not is_true(kept(), "stop", flag, -1) and not is_true(kept(), "stop", flag, at - 1)
    full = kept(max_tokens=STEPS)
    assert is_true(full, "length", LENGTH, -1) and not is_true(full, "length", LENGTH, at)
    # Nobody told.
    assert is_true(kept(), "stop", EOS, None)


def test_a_prompt_that_is_said_to_be_longer_than_it_is_makes_no_room_scarce() -> None:
    long = kept(context=N_PROMPT + STEPS - 1)
    one = ran("length", LENGTH)
    assert ends.is_allowed(long, one.said, last(one))
    assert ends.is_true(long, one.said, last(one), -1, N_PROMPT)
    assert not ends.is_true(long, one.said, last(one), -1, N_PROMPT - 1)


def test_no_prompt_is_longer_than_its_bytes_allow() -> None:
    one, room = ran("length", LENGTH, n_prompt=4000), 4000 + STEPS - 1
    assert ends.is_allowed(kept(raw="a" * 4000, context=room, hold=10**9), one.said, last(one))
    assert not ends.is_allowed(kept(raw="a", context=room, hold=10**9), one.said, last(one))


def test_the_text_is_that_of_the_tokens() -> None:
    whole = kept("what came")
    assert ends.hashed_chars(whole) == 0 and ends.same_text(whole, text_hash("what came"))
    assert not ends.same_text(whole, text_hash("what came.")) and not ends.same_text(kept(), text_hash("a"))
    assert ends.same_text(whole, b""), "nobody told"
    begun = kept("what c", finish="")
    assert ends.hashed_chars(begun) == 6 and ends.same_text(begun, text_hash("what c"))
    assert ends.same_text(kept(finish=""), text_hash("what came")), "nothing came"
