"""Every way an order can end has a sentence and a remedy, and of a peer only its name is in them."""

from __future__ import annotations

import itertools
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.app import order_words
from infraxa.app.order_words import FOUND_HERE, ended
from infraxa.net import wire
from infraxa.net.patience import Pace
from infraxa.net.routing import Blame

BY_NETWORK = frozenset({"unreachable", "timeout", "refused"})
CODES = sorted({*get_args(wire.ErrorCode), *FOUND_HERE, *BY_NETWORK})
NODE = bytes(range(32))


@pytest.mark.parametrize("code", CODES)
def test_each_has_a_sentence_with_the_name_and_a_remedy(code: str) -> None:
    assert order_words.known(code)
    for blame, shown, retry, limit in itertools.product(get_args(Blame), (False, True), (0, 3), (0, 9)):
        error = ended(code, "maple", blame=blame, shown=shown, retry_after_s=retry, limit=limit)
        assert "maple" in error.message
        for text in (error.message, error.remedy):
            assert re.fullmatch(r"[^{}\n]+[.]", text) and "  " not in text and " ." not in text
        assert error.code == (order_words.PROMPT_TOO_LONG if code == "too_large" else code)


def test_two_ends_are_not_the_same_sentence() -> None:
    assert len({ended(code, "maple").message for code in CODES}) == len(CODES)


def test_a_code_that_nobody_knows_is_an_error_of_the_driver() -> None:
    error = ended("\x1b[31mevil", "maple")
    assert (error.code, error.message) == ("internal", "maple met an error of its own.")


def test_when_and_how_much() -> None:
    assert ended("busy", "maple", retry_after_s=2.6).remedy == "Try again in 3 s, or choose another driver."
    assert ended("busy", "maple", retry_after_s=600).remedy.startswith("Try again in 10 min,")
    assert ended("too_large", "maple", limit=512).message.endswith("hold, 512 tokens.")
    said = "longer than what maple can hold: it is about 4,100 tokens, where 2,048 fit."
    assert ended("too_large", "maple", limit=2048, need=4100).message.endswith(said)
    # What this machine thinks is fewer, the driver counted.
    assert ended("too_large", "maple", limit=512, need=400).message.endswith("hold, 512 tokens.")


def test_how_slowly_it_came() -> None:
    error = ended("stalled", "maple", shown=True, pace=Pace(3, 300.2))
    assert error.message == "maple gave 3 tokens in 5 min, which is too slow to wait for."
    assert ended("stalled", "ma{p}le", pace=Pace(1, 60)).message.startswith("ma{p}le gave 1 token in 60 s,")
    assert "gave" not in ended("stalled", "maple", blame="own", pace=Pace(3, 300.0)).message


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=200)
def test_a_name_may_be_anything(name: str) -> None:
    shown = order_words.display_name(name, NODE)
    assert shown and shown.isprintable()
    assert ended("busy", shown).message == f"{shown} is busy with other answers."
    assert order_words.label(name).isprintable()
