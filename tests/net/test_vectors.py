"""Vectors and logprobs on the stream of an order: they arrive as they were, and nothing else is taken."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import orders, vectors, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.orders import Claimed, Done, Frame, FrameReader, Logprob, Piece, Placed, encode_frame, pieces
from infraxa.net.vectors import MAX_DIMENSION, MAX_PART, Part, parts

CLAIMED = Claimed(4096, 1000)
COUNT = st.integers(0, 2**31 - 1)
NATS = st.integers(-(2**31), 0)
TOKEN = st.binary(max_size=orders.MAX_TOKEN)
LOGPROBS = st.builds(
    Logprob, TOKEN, NATS, st.lists(st.tuples(COUNT, TOKEN, NATS), max_size=wire.MAX_TOP).map(tuple)
)
NAMED = st.lists(st.tuples(COUNT, LOGPROBS), max_size=20)


def an_order(**changed: Any) -> wire.Order:
    return wire.Order(bytes(16), bytes(32), 10, **changed)


def refused(order: wire.Order, said: list[Frame]) -> str:
    """Why the last of them is; those before it are taken."""
    *before, last = said
    reader = FrameReader(order)
    reader.feed(b"".join(map(encode_frame, before)))
    with pytest.raises(ProtocolError) as error:
        reader.feed(encode_frame(last))
    return error.value.reason


def numbers(count: int, value: float = 0.5) -> bytes:
    return struct.pack(f"<{count}f", *[value] * count)


@given(st.text(max_size=3000), NAMED)
@settings(deadline=None, max_examples=100)
def test_logprobs_arrive_with_their_tokens(text: str, named: list[tuple[int, Logprob]]) -> None:
    ids, logprobs = tuple(token for token, _ in named), tuple(one for _, one in named)
    said = list(pieces(text, ids, logprobs))
    reader = FrameReader(an_order(logprobs=wire.MAX_TOP))
    came = reader.feed(encode_frame(CLAIMED) + b"".join(map(encode_frame, said)))[1:]
    assert came == said
    found = [piece for piece in came if isinstance(piece, Piece)]
    assert "".join(piece.text for piece in found) == text
    assert tuple(token for piece in found for token in piece.ids) == ids
    assert tuple(one for piece in found for one in piece.logprobs) == logprobs


ONE, TWO = Logprob(b"a", -1), Logprob(b"a", -1, ((1, b"a", -1), (2, b"b", -2)))


@pytest.mark.parametrize(
    ("asked", "piece", "reason"),
    [
        (None, Piece((1,), "a", (ONE,)), "not_asked"),
        (0, Piece((1,), "a"), "malformed"),
        (0, Piece((1, 2), "ab", (ONE,)), "malformed"),
        (0, Piece((), "ab", (ONE,)), "malformed"),
        (0, Piece((1,), "a", (TWO,)), "too_large"),
        (1, Piece((1,), "a", (TWO,)), "too_large"),
    ],
)
def test_other_logprobs_than_were_asked_for(asked: int | None, piece: Piece, reason: str) -> None:
    assert refused(an_order(logprobs=asked), [CLAIMED, piece]) == reason


def test_the_longest_logprobs_are_a_frame() -> None:
    token = b"\xff" * orders.MAX_TOKEN
    longest = Logprob(token, -(2**31), ((2**31 - 1, token, -(2**31)),) * wire.MAX_TOP)
    said = list(pieces("\U0001f600" * orders.MAX_TEXT * 3, (2**31 - 1,) * 50, (longest,) * 50))
    assert sum(len(piece.ids) for piece in said) == 50
    for piece in said:
        assert len(encode_frame(piece)) <= orders.MAX_FRAME + 2


@given(
    st.integers(1, 3000).flatmap(
        lambda size: st.lists(
            st.tuples(st.floats(-1, 1, width=32), st.integers(0, 4096)), min_size=1, max_size=5
        ).map(lambda made: [(numbers(size, value), n_tokens) for value, n_tokens in made])
    ),
    st.lists(st.integers(0, 10**6), max_size=20),
)
@settings(deadline=None, max_examples=60)
def test_vectors_arrive_as_they_were(made: list[tuple[bytes, int]], cuts: list[int]) -> None:
    said: list[Frame] = [Placed(1), CLAIMED]
    for vector, n_tokens in made:
        said += parts(vector, n_tokens)
    said.append(Done("stop", sum(n_tokens for _, n_tokens in made), 0, 0))
    data = b"".join(map(encode_frame, said))
    borders = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    reader = FrameReader(an_order(texts=len(made)))
    came = [one for at, to in itertools.pairwise(borders) for one in reader.feed(data[at:to])]
    reader.end()
    assert came == said
    whole = b"".join(part.data for part in came if isinstance(part, Part))
    assert whole == b"".join(vector for vector, _ in made)


SHORT = numbers(2)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([Part(SHORT, 1)], "not_asked"),  # before the claim
        ([CLAIMED, Piece((1,), "a")], "not_asked"),
        ([CLAIMED, Done("stop", 0, 0, 0)], "malformed"),  # without any
        ([CLAIMED, Part(SHORT, 1), Done("stop", 1, 0, 0)], "malformed"),
        ([CLAIMED, Part(SHORT, 1), Part(SHORT, 1), Done("stop", 3, 0, 0)], "malformed"),  # other tokens
        ([CLAIMED, Part(SHORT, 1), Part(SHORT, 1), Done("stop", 1, 0, 0)], "malformed"),
        ([CLAIMED, Part(SHORT, 1), Part(SHORT, 1), Part(SHORT, 1)], "not_asked"),
        ([CLAIMED, Part(SHORT, 1), Part(numbers(1), 1)], "malformed"),
        ([CLAIMED, Part(SHORT, 1), Part(numbers(3), 1)], "too_large"),
        ([CLAIMED, Part(SHORT, 4097)], "malformed"),
        ([CLAIMED, Part(SHORT)], "malformed"),
        ([CLAIMED, Part(numbers(MAX_PART // 4)), Part(numbers(MAX_PART // 4 - 1))], "malformed"),
        ([CLAIMED, Part(SHORT + b"\0", 1)], "malformed"),
        ([CLAIMED, Part(numbers(1, float("nan")), 1)], "malformed"),
        ([CLAIMED, Part(numbers(1, float("inf")) + numbers(1, float("-inf")), 1)], "malformed"),
        (
            [CLAIMED, *[Part(numbers(MAX_PART // 4))] * (MAX_DIMENSION * 4 // MAX_PART), Part(SHORT)],
            "too_large",
        ),
        ([CLAIMED, Part(SHORT, 1), Placed(1)], "not_asked"),
    ],
)
def test_what_is_no_vector_of_a_text(said: list[Frame], reason: str) -> None:
    assert refused(an_order(texts=2), said) == reason


def test_vectors_that_nobody_asked_for() -> None:
    assert refused(an_order(), [CLAIMED, Part(SHORT, 1)]) == "not_asked"


def test_all_vectors_of_an_order_are_bounded() -> None:
    largest = list(parts(numbers(MAX_DIMENSION), 1))
    reader, taken = FrameReader(an_order(texts=wire.MAX_TEXTS)), 0
    reader.feed(encode_frame(CLAIMED))
    frames = b"".join(map(encode_frame, largest))
    with pytest.raises(ProtocolError) as error:
        for _ in range(wire.MAX_TEXTS):
            reader.feed(frames)
            taken += 1
    assert error.value.reason == "too_large"
    assert taken == vectors.MAX_VECTORS // (4 * MAX_DIMENSION)


def test_a_part_says_nothing_of_its_numbers() -> None:
    assert repr(Part(SHORT, 1)) == "Part(8 bytes)"
    assert repr(Logprob(b"secret", -1)) == "Logprob(0 tokens)"
