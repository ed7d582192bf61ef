"""Frames of the control socket: whatever bytes come, the answer is a message or one refusal."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.app.control import messages
from infraxa.app.control.messages import (
    MAX_FRAME,
    MAX_HELLO,
    Call,
    Cancel,
    FrameError,
    FrameReader,
    Hello,
    Item,
    More,
    Stop,
    Told,
    ToNode,
    Welcome,
)
from infraxa.app.events import AnswerGrew

numbers = st.integers(min_value=0, max_value=2**53)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
to_node = st.one_of(
    st.builds(Hello, st.text(max_size=50), st.text(max_size=50)),
    st.builds(Call, numbers, st.text(max_size=50), values.map(messages.encode)),
    st.builds(Stop, numbers),
    st.builds(Cancel, numbers),
    st.builds(More, numbers, numbers),
)


def same(a: ToNode, b: ToNode) -> bool:
    """Equal; the bytes of arguments have no equality of their own."""
    return type(a) is type(b) and msgspec.msgpack.encode(a) == msgspec.msgpack.encode(b)


@given(st.lists(to_node, max_size=6), st.lists(st.integers(1, 64), min_size=1))
@settings(deadline=None, max_examples=100)
def test_messages_come_whole_however_they_are_cut(sent: list[ToNode], cuts: list[int]) -> None:
    stream = b"".join(map(messages.pack, sent))
    reader, come, at = FrameReader(MAX_FRAME), [], 0
    while at < len(stream):
        cut = cuts[at % len(cuts)]
        come += [messages.unpack_to_node(body) for body in reader.feed(stream[at : at + cut])]
        at += cut
    assert len(come) == len(sent) and all(map(same, come, sent))


@given(st.binary(max_size=200) | values.map(msgspec.msgpack.encode))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_a_message_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(FrameError):
        messages.unpack_to_node(body)
    with contextlib.suppress(FrameError):
        messages.unpack_to_front_end(body)


@given(to_node, st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_message_is_a_message_or_a_refusal(message: ToNode, data: st.DataObject) -> None:
    body = bytearray(messages.pack(message)[4:])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FrameError):
        messages.unpack_to_node(bytes(body[: data.draw(st.integers(0, len(body)))]))


def test_nesting_without_end_is_refused() -> None:
    call = b"\x94\xa4call\x01\xa3ask" + b"\x91" * 100_000
    with pytest.raises(FrameError, match="nested"):
        messages.unpack_to_node(call)


def test_a_length_above_the_limit_is_refused_before_anything_is_kept() -> None:
    reader = FrameReader(MAX_HELLO)
    with pytest.raises(FrameError):
        reader.feed((MAX_HELLO + 1).to_bytes(4, "little"))


def test_what_cannot_be_sent_is_said() -> None:
    with pytest.raises(FrameError, match="Unicode"):
        messages.encode("\ud800")
    with pytest.raises(FrameError):
        messages.encode(2**70)
    with pytest.raises(FrameError, match="32 MB"):
        messages.pack(Item(1, messages.encode("x" * (MAX_FRAME + 1))))


def test_hello_and_welcome_stay_as_they_are() -> None:
    # Another version must understand these: their bytes are the interface.
    assert messages.pack(Hello("1.2", "t")) == b"\x0d\0\0\0\x93\xa5hello\xa31.2\xa1t"
    assert messages.pack(Welcome("1.2", 7)) == b"\x0e\0\0\0\x93\xa7welcome\xa31.2\x07"


def test_events_keep_their_kind() -> None:
    told = Told(AnswerGrew("c", "m", "word", 3))
    assert messages.unpack_to_front_end(messages.pack(told)[4:]) == told
