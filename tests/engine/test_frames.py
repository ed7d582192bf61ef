"""Frames survive any cut of the byte stream, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine import frames
from infraxa.engine.types import ChatMessage, Finished, Request, Scored, ScoredRow, Usage

MESSAGES: list[frames.ToHost] = [
    frames.Loading(0.5),
    frames.Steps(
        7,
        2,
        1,
        (frames.Reading(3, 10, 20),),
        (frames.Emitted(4, "é🦜", (1, 2)),),
        (frames.Ended(4, Finished("stop", Usage(n_out=2))),),
    ),
    frames.Beat(9),
    frames.Counted(1, 12),
    frames.ScoreMade(2, Scored(1, bytes(4), (ScoredRow(b"ids", b"q", b"at"),))),
    frames.Calibrating(3, 0.5),
]


@given(st.lists(st.integers(1, 40)))
def test_messages_survive_any_cut(sizes: list[int]) -> None:
    stream = b"".join(frames.pack(m) for m in MESSAGES)
    reader = frames.FrameReader()
    got: list[frames.ToHost] = []
    for size in [*sizes, len(stream)]:
        got += map(frames.unpack_to_host, reader.feed(stream[:size]))
        stream = stream[size:]
    assert got == MESSAGES


def test_a_request_arrives_as_it_was_sent() -> None:
    message = frames.Generate(5, Request((ChatMessage("user", "naïve 🦜"),), user="maple"))
    (body,) = frames.FrameReader().feed(frames.pack(message))
    assert frames.unpack_to_worker(body) == message


def test_a_broken_length_is_refused_before_anything_is_stored() -> None:
    with pytest.raises(frames.FrameError, match="announced"):
        frames.FrameReader().feed(struct.pack("<I", frames.MAX_FRAME + 1))


def test_a_message_of_the_wrong_side_is_refused() -> None:
    (body,) = frames.FrameReader().feed(frames.pack(frames.Close()))
    with pytest.raises(frames.FrameError):
        frames.unpack_to_host(body)


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused(body: bytes) -> None:
    try:
        message = frames.unpack_to_host(body)
    except frames.FrameError:
        return
    assert frames.unpack_to_host(frames.pack(message)[4:]) == message


def test_text_that_is_not_unicode_cannot_be_sent() -> None:
    with pytest.raises(frames.FrameError, match="Unicode"):
        frames.pack(frames.Count(1, (ChatMessage("user", "\ud800"),)))
