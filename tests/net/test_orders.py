"""What is said on the stream of an order: its course and limits, cuts anywhere, nothing of a prompt shown."""

from __future__ import annotations

import itertools
import re
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from infraxa.net import codec, orders, prompts, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.orders import Claimed, Done, Frame, FrameReader, Piece, Placed, encode_frame, pieces
from infraxa.net.prompts import Prompt, Turn, decode_prompt, encode_prompt

COUNT = st.integers(0, 2**31 - 1)
UNICODE = st.characters(codec="utf-8")
TEXT = st.text(UNICODE, max_size=300)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(("system", "user", "assistant")), TEXT), min_size=1, max_size=9
)
STOPS = st.lists(st.text(UNICODE, min_size=1, max_size=9), max_size=4)
SECRET = "the words of a person"
CLAIMED = Claimed(4096, 1000)


def an_order(**changed: Any) -> wire.Order:
    return wire.Order(bytes(16), bytes(32), 10, **changed)


def read(reader: FrameReader, data: bytes, cuts: list[int] | None = None) -> tuple[list[Frame], str]:
    """What came of it, and why it ended: the reason of a refusal, `open` or `whole`."""
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or ())})
    found: list[Frame] = []
    try:
        for start, stop in itertools.pairwise(borders):
            found += reader.feed(data[start:stop])
        reader.end()
    except ProtocolError as error:
        return found, "open" if error.reason == "truncated" else error.reason
    return found, "whole"


def encoded(*frames: Frame) -> bytes:
    return b"".join(map(encode_frame, frames))


@st.composite
def answers(draw: st.DrawFn) -> list[Frame]:
    """Whole answers."""
    said: list[Frame] = [Placed(before) for before in draw(st.lists(st.integers(0, 65_535), max_size=3))]
    said.append(CLAIMED)
    came: list[Piece] = []
    for ids, text in draw(st.lists(st.tuples(st.lists(COUNT, max_size=5), TEXT), max_size=8)):
        came += pieces(text, tuple(ids))
    said += came
    n_prompt = draw(st.integers(0, 4096))
    counts = (n_prompt, draw(st.integers(0, n_prompt)), sum(len(piece.ids) for piece in came))
    return [
        *said,
        Done(draw(st.sampled_from(("stop", "length"))), *counts, *draw(st.tuples(COUNT, COUNT, COUNT))),
    ]


@given(answers(), st.lists(st.integers(0, 10_000), max_size=30))
@settings(deadline=None, max_examples=200)
def test_chunks_may_be_cut_and_joined_anywhere(said: list[Frame], cuts: list[int]) -> None:
    assert read(FrameReader(an_order()), encoded(*said), cuts) == (said, "whole")


def test_byte_by_byte() -> None:
    said: list[Frame] = [Placed(2), CLAIMED, Piece((1, 2), "né"), Done("stop", 3, 2, 2, 10, 20, 30)]
    data = encoded(*said)
    assert read(FrameReader(an_order()), data, list(range(len(data)))) == (said, "whole")


@given(
    answers(), st.binary(max_size=40), st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=9)
)
@settings(deadline=None, max_examples=200)
def test_what_is_refused_does_not_depend_on_the_cuts(
    said: list[Frame], odd: bytes, at: int, cuts: list[int]
) -> None:
    """Garbage anywhere in an answer: the same verdict, and nothing comes that would not have come whole."""
    data = encoded(*said)
    at %= len(data) + 1
    data = data[:at] + odd + data[at + len(odd) // 2 :]
    whole, verdict = read(FrameReader(an_order()), data, list(range(len(data))))
    found, same = read(FrameReader(an_order()), data, cuts)
    assert same == verdict
    assert found == whole[: len(found)]


LETTERS: dict[str, Frame] = {"p": Placed(1), "c": CLAIMED, "t": Piece((7,), "x"), "d": Done("stop", 1, 0, 0)}


@given(st.text("pctd", max_size=8))
@settings(deadline=None, max_examples=500)
def test_frames_come_in_their_order(letters: str) -> None:
    """Placed* Claimed [Placed+ Claimed] Piece* Done, and its beginnings, are taken; nothing else is."""
    out = letters.partition("d")[0].count("t")
    said = [Done("stop", 1, 0, out) if letter == "d" else LETTERS[letter] for letter in letters]
    found, verdict = read(FrameReader(an_order()), encoded(*said))
    if re.fullmatch("p*c(p+c)?t*d", letters):
        assert (found, verdict) == (said, "whole")
    elif re.fullmatch("p*(c(p+(ct*)?|t*))?", letters):
        assert (found, verdict) == (said, "open")
    else:
        assert verdict == "not_asked"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([CLAIMED, Done("stop", 5, 0, 1)], "malformed"),  # of no token
        ([CLAIMED, Piece((1, 2), "ab"), Done("stop", 5, 0, 1)], "malformed"),
        ([CLAIMED, Piece((1, 2), "ab"), Done("stop", 5, 0, 3)], "malformed"),
        ([CLAIMED, Done("stop", 5, 6, 0)], "malformed"),  # more cached than there is
        ([CLAIMED, Done("stop", 4097, 0, 0)], "malformed"),  # a prompt that has no room in the context
        ([CLAIMED, Piece((), "")], "malformed"),
        ([Claimed(4096, 2), Piece((1, 2, 3), "abc")], "too_large"),
        ([CLAIMED, *[Piece((1,), "a")] * 1001], "too_large"),
        ([CLAIMED, *[Piece((), "a" * 2048)] * 9], "too_large"),  # text of no token
        ([Placed(1)] * (orders.MAX_PLACED + 1), "rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_driver_may_not_say(said: list[Frame], reason: str) -> None:
    *before, last = said
    reader = FrameReader(an_order())
    assert read(reader, encoded(*before))[1] == "open"
    with pytest.raises(ProtocolError) as error:
        reader.feed(encode_frame(last))
    assert error.value.reason == reason


def test_no_more_tokens_than_the_order_asks_for() -> None:
    """Also when the driver says that it gives more."""
    reader = FrameReader(an_order(max_tokens=2))
    assert len(reader.feed(encoded(CLAIMED, Piece((1, 2), "ab")))) == 2
    with pytest.raises(ProtocolError):
        reader.feed(encode_frame(Piece((3,), "c")))


def test_no_longer_text_than_tokens_can_be() -> None:
    """What is allowed is what any known model says: its longest tokens are half as long on average."""
    reader = FrameReader(an_order())
    reader.feed(encode_frame(Claimed(2**20, orders.MAX_OUT)))
    long = encode_frame(Piece((1,) * 16, "—" * 682))  # 3 bytes each: 128 for each token
    for _ in range(1000):
        reader.feed(long)
    with pytest.raises(ProtocolError) as error:
        for _ in range(2000):
            reader.feed(encode_frame(Piece((1,), "—" * 682)))
    assert error.value.reason == "too_large"
    assert reader.course.n_out < 16_000 + 2000


@pytest.mark.parametrize(("tokens", "size"), [(1000, 2048), (16, 2048)])
def test_an_answer_is_bounded_as_a_whole(tokens: int, size: int) -> None:
    reader = FrameReader(an_order())
    reader.feed(encode_frame(Claimed(2**24, orders.MAX_OUT)))
    piece = encode_frame(Piece((1,) * tokens, "a" * size))
    taken = 0
    with pytest.raises(ProtocolError) as error:
        for _ in range(100_000):
            reader.feed(piece)
            taken += 1
    assert error.value.reason == "too_large"
    assert taken == min(orders.MAX_OUT // tokens, orders.MAX_ANSWER // size)


def test_nothing_follows_an_answer() -> None:
    whole = encoded(CLAIMED, Done("stop", 5, 0, 0))
    for rest in (b"\x00", encoded(Placed(1)), encoded(CLAIMED)[:-1]):
        assert read(FrameReader(an_order()), whole + rest)[1] == "not_asked"


def test_a_frame_that_is_announced_too_long_is_not_waited_for() -> None:
    reader = FrameReader(an_order())
    with pytest.raises(ProtocolError) as error:
        reader.feed((orders.MAX_FRAME + 1).to_bytes(2, "big"))
    assert error.value.reason == "too_large"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x92\x1e",
        b"\x92\x63\x01",  # of an unknown kind
        b"\x92\x1e\xff",
        b"\x94\x20\x90",
        codec.encode(Piece((2**31,), "x")),
        codec.encode(Piece((-1,), "x")),
        codec.encode(Piece(tuple(range(1025)), "x")),
        codec.encode(Piece((1,), "x" * 2049)),
        codec.encode(Placed(65_536)),
        codec.encode(Claimed(0, 1)),
        codec.encode(Claimed(1, 0)),
        codec.encode(Claimed(1, orders.MAX_OUT + 1)),
        codec.encode(Done("cancelled", 1, 0, 0)),  # type: ignore[arg-type]
        codec.encode(Done("stop", -1, 0, 0)),
        codec.encode(Piece((1,), "x")).replace(b"x", b"\xff"),
    ],
)
def test_what_is_no_frame(body: bytes) -> None:
    reader = FrameReader(an_order())
    reader.feed(encode_frame(CLAIMED) if body[1:2] in (b"\x20", b"\x21") else b"")
    with pytest.raises(ProtocolError) as error:
        reader.feed(len(body).to_bytes(2, "big") + body)
    assert error.value.reason == "malformed"


@given(st.lists(st.binary(max_size=60), max_size=6))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_read_or_refused(chunks: list[bytes]) -> None:
    reader = FrameReader(an_order())
    try:
        for chunk in chunks:
            reader.feed(chunk)
        reader.end()
    except ProtocolError:
        pass


@given(st.text(UNICODE, max_size=9000), st.lists(COUNT, max_size=3000))
@settings(deadline=None, max_examples=100)
def test_a_long_delta_is_said_in_pieces(text: str, ids: list[int]) -> None:
    parts = list(pieces(text, tuple(ids)))
    assert "".join(part.text for part in parts) == text
    assert [token for part in parts for token in part.ids] == ids
    found, _ = read(FrameReader(an_order()), encoded(Claimed(4096, 3000), *parts))
    if len(text.encode()) <= orders.SPARE_BYTES:
        assert found[1:] == parts
    assert len(parts) <= max(len(text) / orders.MAX_TEXT, len(ids) / orders.MAX_IDS) + 1


def test_the_longest_piece_is_a_frame() -> None:
    longest = Piece((2**31 - 1,) * orders.MAX_IDS, "\U0001f600" * orders.MAX_TEXT)
    assert len(encode_frame(longest)) <= orders.MAX_FRAME + 2
    assert len(encode_frame(longest)) < wire.MAX_BODY // 2  # so that several fit in a chunk


def test_what_is_not_unicode_is_not_said() -> None:
    for frame in (Piece((1,), "\ud800"), Piece((1,), SECRET + "\udfff")):
        with pytest.raises(ValueError, match="not Unicode") as error:
            encode_frame(frame)
        assert SECRET not in "".join(traceback.format_exception(error.value))
    with pytest.raises(NetError) as refused:
        encode_prompt(Prompt((Turn("user", SECRET + "\ud800"),)))
    assert refused.value.code == "bad_request"
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@given(TURNS, STOPS)
@settings(deadline=None, max_examples=200)
def test_a_prompt_arrives_as_it_was(turns: list[Turn], stop: list[str]) -> None:
    prompt = Prompt(tuple(turns), tuple(stop))
    assert decode_prompt(encode_prompt(prompt)) == prompt


LONG = Turn("user", "a" * wire.MAX_PROMPT)
USER = Turn("user", "a")


@pytest.mark.parametrize(
    ("prompt", "code", "reason"),
    [
        (Prompt(()), "bad_request", "malformed"),
        (Prompt((LONG,)), "too_large", "too_large"),
        (Prompt((USER,) * (prompts.MAX_TURNS + 1)), "too_large", "malformed"),
        (Prompt((USER,), ("a",) * 17), "bad_request", "malformed"),
        (Prompt((USER,), ("a" * 257,)), "bad_request", "malformed"),
        (Prompt((USER,), ("",)), "bad_request", "malformed"),
    ],
)
def test_limits_of_a_prompt(prompt: Prompt, code: str, reason: str) -> None:
    """They are the same on both sides, so that nobody is blamed for what could be said here."""
    with pytest.raises(NetError) as error:
        encode_prompt(prompt)
    assert error.value.code == code
    with pytest.raises(ProtocolError) as refused:
        decode_prompt(codec.encode(prompt))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        codec.encode(Prompt((Turn("critic", "x"),))),  # type: ignore[arg-type]
        codec.encode(Prompt((USER,)))[:-1],
        codec.encode(Prompt((USER,))) + b"\x00",
        b"\x92\xdd\xff\xff\xff\xff",
        b"\x91" * 2000,
    ],
)
def test_what_is_no_prompt(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_prompt(data)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_prompt_or_refused(data: bytes) -> None:
    try:
        assert decode_prompt(data).turns
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "value", [Turn("user", SECRET), Prompt((Turn("user", SECRET),), (SECRET,)), Piece((31_337,), SECRET)]
)
def test_a_value_that_is_shown_hides_what_it_says(value: object) -> None:
    for shown in (repr(value), str(value), f"{value}", pretty_repr(value), pretty_repr([value])):
        assert SECRET not in shown
        assert "31337" not in shown


def test_a_refusal_holds_nothing_of_it() -> None:
    hostile = [
        codec.encode(Prompt((Turn(SECRET, SECRET),))),  # type: ignore[arg-type]
        codec.encode(Prompt((Turn("user", SECRET),), (SECRET * 20,))),
        codec.encode(Prompt((Turn("user", SECRET),))).replace(SECRET.encode(), b"\xff" + SECRET.encode()[1:]),
    ]
    for data in hostile:
        with pytest.raises(ProtocolError) as error:
            decode_prompt(data)
        assert SECRET[1:] not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "changed",
    [
        {"max_tokens": -1},
        {"temperature": 5_000_001},
        {"top_p": 1_000_001},
        {"min_p": -1},
        {"seed": 2**32},
        {"repeat_penalty": 0.5},
    ],
)
def test_an_order_beyond_its_limits(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(codec.encode(an_order(**changed)), wire.Order)
