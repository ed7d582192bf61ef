"""Scores on the stream of an order: they arrive as they were, and nothing else is taken."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from infraxa.net import orders, scores, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.orders import Claimed, Done, Frame, FrameReader, Piece, Placed, encode_frame
from infraxa.net.scores import Row, Scoring, decode_row, encode_row
from infraxa.net.vectors import Part

CLAIMED, SCORING = Claimed(100, 1), Scoring("0.3.36/cpu/f16/auto", 77_600)
LOGIT = st.integers(-(2**31), 2**31 - 1)


def packed(row: Row) -> bytes:
    n = len(row.ids)
    return encode_row(struct.pack(f"<{n}I", *row.ids), struct.pack(f"<{n}i", *row.q))


@st.composite
def rows(draw: st.DrawFn, size: int | None = None) -> Row:
    n = size or draw(st.integers(1, scores.TOP))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n, unique=True))
    q = draw(st.lists(LOGIT, min_size=n, max_size=n))
    return Row(tuple(ids), tuple(sorted(q, reverse=True)))


ROW = packed(Row((5, 3), (9, 9)))


def an_order(**changed: Any) -> wire.Order:
    return wire.Order(bytes(16), bytes(32), 10, **{"scores": 2} | changed)


def refused(order: wire.Order, said: list[Frame]) -> str:
    """Why the last of them is; those before it are taken."""
    *before, last = said
    reader = FrameReader(order)
    reader.feed(b"".join(map(encode_frame, before)))
    with pytest.raises(ProtocolError) as error:
        reader.feed(encode_frame(last))
    return error.value.reason


def test_what_the_tokens_say_comes_with_where_they_end() -> None:
    told = Scoring("0.3.36/cpu/f16/auto", 0, -1, bytes(32))
    reader = FrameReader(an_order(scores=1))
    reader.feed(encode_frame(CLAIMED))
    assert reader.feed(encode_frame(told)) == [told]
    for end, text in ((None, bytes(32)), (3, b""), (3, bytes(31))):
        assert refused(an_order(), [CLAIMED, Scoring("", 0, end, text)]) == "malformed"


class _Before(Struct, array_like=True, frozen=True, tag=36):
    """As nodes of before say and read it."""

    profile: str = ""
    noise: int = 0


def test_a_node_of_before_says_nothing_of_it_and_reads_what_it_knows() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(_Before("cpu", 5)), type=Scoring) == Scoring(
        "cpu", 5
    )
    told = msgspec.msgpack.encode(Scoring("cpu", 5, 7, bytes(32)))
    assert msgspec.msgpack.decode(told, type=_Before) == _Before("cpu", 5)


@given(rows())
@settings(deadline=None, max_examples=100)
def test_a_row_arrives_as_it_was(row: Row) -> None:
    assert decode_row(packed(row)) == row


@given(st.integers(1, 5), st.integers(1, scores.TOP), st.integers(0, 100), st.data())
@settings(deadline=None, max_examples=50)
def test_scores_arrive_in_their_order(steps: int, size: int, n_tokens: int, data: st.DataObject) -> None:
    made = [data.draw(rows(size)) for _ in range(steps)]
    parts = [Part(packed(row), 0 if at else n_tokens) for at, row in enumerate(made)]
    said: list[Frame] = [CLAIMED, SCORING, *parts, Done("stop", n_tokens, 0, 0)]
    stream, cut = b"".join(map(encode_frame, said)), data.draw(st.integers(1, 600))
    reader = FrameReader(an_order(scores=steps))
    came = [one for at in range(0, len(stream), cut) for one in reader.feed(stream[at : at + cut])]
    reader.end()
    assert came == said
    assert [decode_row(one.data) for one in came if isinstance(one, Part)] == made


@given(st.binary(max_size=600))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_a_row_or_refused(data: bytes) -> None:
    try:
        row = decode_row(data)
    except ProtocolError:
        return
    assert packed(row) == data
    assert len(set(row.ids)) == len(row.ids) == len(row.q) <= scores.TOP
    assert sorted(row.q, reverse=True) == list(row.q)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(12),
        packed(Row((1, 1), (5, 4))),
        packed(Row((1, 2), (4, 5))),
        packed(Row((2**31, 2), (5, 4))),
        packed(Row(tuple(range(65)), (0,) * 65)),
    ],
    ids=["empty", "short", "odd", "twice", "rising", "no token", "many"],
)
def test_what_is_no_row(data: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        decode_row(data)
    assert error.value.reason == "malformed"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([SCORING], "not_asked"),
        ([CLAIMED, Part(ROW, 5)], "not_asked"),
        ([CLAIMED, SCORING, SCORING], "not_asked"),
        ([CLAIMED, SCORING, Piece((1,), "a")], "not_asked"),
        ([CLAIMED, SCORING, Placed(0)], "not_asked"),
        ([CLAIMED, SCORING, Part(ROW, None)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 101)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 5), Part(ROW, 5)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 5), Part(ROW[:8], 0)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 5), Part(ROW, 0), Part(ROW, 0)], "not_asked"),
        ([CLAIMED, SCORING, Part(ROW, 5), Done("stop", 5, 0, 0)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 5), Part(ROW, 0), Done("stop", 6, 0, 0)], "malformed"),
        ([CLAIMED, SCORING, Part(ROW, 5), Part(ROW, 0), Done("stop", 5, 0, 1)], "malformed"),
    ],
)
def test_what_is_not_scores(said: list[Frame], reason: str) -> None:
    assert refused(an_order(), said) == reason


def test_where_no_scores_are_asked_for_none_may_come() -> None:
    assert refused(an_order(scores=0), [CLAIMED, SCORING]) == "not_asked"
    assert refused(an_order(scores=0, texts=1), [CLAIMED, SCORING]) == "not_asked"


@pytest.mark.parametrize(
    "more", [{"texts": 1}, {"logprobs": 0}, {"mode": "merkle", "prompt_hash": bytes(32), "audit": bytes(32)}]
)
def test_scores_are_asked_for_alone(more: dict[str, Any]) -> None:
    orders.check_order(an_order())
    with pytest.raises(ProtocolError):
        orders.check_order(an_order(**more))
