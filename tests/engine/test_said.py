"""What the tokens of an answer say: the text that an engine makes of them, and the token that ends it."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine.said import Said, text_hash
from infraxa.engine.text import TextAssembler

PIECES = {0: b"a", 1: b"b", 2: "€".encode()[:1], 3: "€".encode()[1:], 4: b"", 5: b"ab", 6: None}
ENDS = 6
TOKENS = st.lists(st.integers(0, 5), max_size=12)
STOPS = st.lists(st.sampled_from(["a", "ab", "ba", "€", "bb€"]), max_size=2).map(tuple)


def said(tokens: list[int], stop: tuple[str, ...] = (), chars: int = 0) -> Said:
    made = Said(PIECES.__getitem__, stop, chars)
    made.add(tokens)
    return made


def spoken(tokens: list[int], stop: tuple[str, ...]) -> tuple[str, int]:
    """As an engine says it: the text, and where a stop string is complete."""
    text, end = TextAssembler(stop), -1
    parts = []
    for at, token in enumerate(tokens):
        parts.append(text.feed(PIECES[token] or b""))
        if text.stopped and end < 0:
            end = at
    return "".join(parts) + text.finish(), end


@given(TOKENS, STOPS, st.booleans())
def test_it_is_the_text_that_an_engine_makes(tokens: list[int], stop: tuple[str, ...], ends: bool) -> None:
    text, end = spoken(tokens, stop)
    last = [ENDS] if ends and end < 0 else []
    made = said(tokens + last, stop)
    assert made.finish() == text_hash(text)
    assert made.end == (len(tokens) if last else end)


@given(TOKENS, STOPS, st.integers(1, 15))
def test_the_beginning_of_it(tokens: list[int], stop: tuple[str, ...], chars: int) -> None:
    text, _ = spoken(tokens, stop)
    assert said(tokens, stop, chars).finish() == text_hash(text[:chars])


@given(TOKENS, st.integers(0, 12))
def test_in_parts_it_is_the_same(tokens: list[int], cut: int) -> None:
    made = said(tokens[:cut])
    made.add(tokens[cut:])
    assert made.finish() == said(tokens).finish()


def test_the_first_end_counts_and_what_is_said_after_it_is_said() -> None:
    made = said([0, ENDS, 1, ENDS])
    assert (made.end, made.finish()) == (1, text_hash("ab"))
    assert said([]).end == said([0, 4]).end == -1


def test_the_hash_is_one_of_its_own() -> None:
    assert text_hash("€") == hashlib.sha256(b"infraxa/text/1" + "€".encode()).digest()
