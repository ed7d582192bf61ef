"""The stream of an answer that is to be checked: both halves of the draw, checkpoints, counts, sizes."""

from __future__ import annotations

import itertools
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec, deals, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.orders import (
    CHECKPOINT,
    MAX_OUT,
    Checkpoint,
    Claimed,
    Course,
    Done,
    Frame,
    FrameReader,
    Piece,
    Placed,
    check_checkpoint,
    check_order,
    checkpoint,
    encode_frame,
    pieces,
)

DRAW = bytes(range(32))
COMMIT = codec.digest("draw", DRAW)
CLAIMED = Claimed(4096, 1000, COMMIT)
FIRST = Piece((1,), "a", draw=DRAW)
MORE = Piece((1,), "a")
DRIVER = Signer(bytes(32))


def an_order(**changed: Any) -> wire.Order:
    fields: dict[str, Any] = {"mode": "merkle", "prompt_hash": bytes(32), "audit": bytes(32)}
    return wire.Order(bytes(16), bytes(32), 10, **(fields | changed))


def at(n: int) -> Checkpoint:
    return Checkpoint(n, bytes(32), bytes(64))


def so_many(count: int, draw: bytes = b"") -> Piece:
    return Piece((1,) * count, "a" * count, (), draw)


def taken(frames: list[Frame], order: wire.Order | None = None) -> str:
    """Why they are refused; `whole`, `open`."""
    course = Course(order or an_order())
    try:
        for frame in frames:
            course.take(frame)
    except ProtocolError as error:
        return f"{error.reason}: {error.detail}"
    return "whole" if course.done else "open"


def test_an_answer_that_is_to_be_checked_and_one_that_is_not() -> None:
    whole: list[Frame] = [
        Placed(1),
        CLAIMED,
        so_many(60, DRAW),
        at(64),
        so_many(60),
        at(128),
        Done("stop", 3, 0, 120, steps=130),
    ]
    assert taken(whole) == "whole"
    full: list[Frame] = [Claimed(63, 100, COMMIT), at(64), Done("stop", 0, 0, 0, steps=64)]
    assert taken(full) == "whole", "the last need not fit"
    plain: list[Frame] = [Claimed(4096, 1000), so_many(200), Done("stop", 3, 0, 200)]
    assert taken(plain, wire.Order(bytes(16), bytes(32), 10)) == "whole"


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([Claimed(4096, 100)], "malformed"),  # to nothing
        ([Claimed(4096, 100, COMMIT[:31])], "malformed"),
        ([CLAIMED, Placed(0), Claimed(4096, 100, bytes(32))], "equivocation"),
        ([CLAIMED, MORE], "equivocation"),  # no draw
        ([CLAIMED, Piece((1,), "a", draw=DRAW[:31])], "equivocation"),
        ([CLAIMED, Piece((1,), "a", draw=bytes(32))], "equivocation"),  # another one
        ([CLAIMED, FIRST, FIRST], "not_asked"),
        ([at(64)], "not_asked"),
        ([Placed(1), at(64)], "not_asked"),
        ([CLAIMED, at(63)], "malformed"),
        ([CLAIMED, at(0)], "malformed"),
        ([CLAIMED, at(128)], "malformed"),
        ([CLAIMED, at(64), at(64)], "malformed"),
        ([CLAIMED, at(64), Placed(0)], "not_asked"),  # it cannot begin anew
        (
            [Claimed(63, 100, COMMIT), at(64), Done("stop", 0, 0, 0, steps=64)],
            "whole",
        ),  # the last need not fit
        ([Claimed(62, 100, COMMIT), at(64)], "too_large"),
        ([CLAIMED, so_many(64, DRAW), MORE], "not_asked"),  # 64 were said and not committed to
        ([CLAIMED, so_many(64, DRAW), Piece((), "a"), at(64), so_many(64), MORE], "not_asked"),
        ([CLAIMED, FIRST, Done("stop", 0, 0, 1)], "malformed"),  # fewer steps than tokens
        ([CLAIMED, FIRST, Done("stop", 0, 0, 1, steps=64)], "malformed"),  # without their checkpoint
        ([CLAIMED, at(64), FIRST, Done("stop", 0, 0, 1, steps=63)], "malformed"),
        ([CLAIMED, at(64), FIRST, Done("stop", 0, 0, 1, steps=128)], "malformed"),
        ([Claimed(10, 10, COMMIT), FIRST, Done("stop", 0, 0, 1, steps=12)], "malformed"),
    ],
)
def test_what_is_refused_of_an_answer_that_is_to_be_checked(frames: list[Frame], reason: str) -> None:
    assert taken(frames).partition(":")[0] == reason
    *before, _ = frames
    assert taken(before) == "open", "no earlier"


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([CLAIMED], "malformed"),
        ([Claimed(4096, 100), FIRST], "not_asked"),
        ([Claimed(4096, 100), at(64)], "not_asked"),
        ([Claimed(4096, 100), MORE, Done("stop", 0, 0, 1, steps=1)], "not_asked"),
    ],
)
def test_nothing_of_it_is_said_of_an_answer_that_is_not(frames: list[Frame], reason: str) -> None:
    assert taken(frames, wire.Order(bytes(16), bytes(32), 10)).partition(":")[0] == reason


LETTERS = "ptkd"


@given(st.text(LETTERS, max_size=9), st.integers(0, 40))
@settings(deadline=None, max_examples=400)
def test_what_is_said_was_committed_to_before_more_is(letters: str, extra: int) -> None:
    """Pieces of 40 tokens, checkpoints, ends, in any order: taken as long as no token follows 64 that were
    not committed to, and the end has all checkpoints of its steps and no more."""
    frames: list[Frame] = [CLAIMED]
    tokens = checkpoints = 0
    right, over = True, False
    for letter in letters:
        right = not over
        match letter:
            case "p":
                right = right and len(frames) == 1
                frames += [Placed(0), CLAIMED]
            case "t":
                right = right and tokens < CHECKPOINT * (checkpoints + 1)
                frames.append(so_many(40, b"" if tokens else DRAW))
                tokens += 40
            case "k":
                checkpoints += 1
                frames.append(at(CHECKPOINT * checkpoints))
            case "d":
                steps = tokens + extra
                frames.append(Done("stop", 0, 0, tokens, steps=steps))
                right, over = right and steps // CHECKPOINT == checkpoints, True
        if not right:
            break
    assert (taken(frames) in ("open", "whole")) == right


@given(st.integers(0, 5000), st.integers(0, 5000), st.binary(min_size=32, max_size=32) | st.just(b""))
@settings(deadline=None, max_examples=100)
def test_pieces_of_any_size_have_the_draw_once_and_first(n_text: int, n_ids: int, draw: bytes) -> None:
    made = list(pieces("a" * n_text, tuple(range(n_ids)), (), draw))
    assert [piece.draw for piece in made] == [draw, *[b""] * (len(made) - 1)][: len(made)]
    assert "".join(piece.text for piece in made) == "a" * n_text
    assert [token for piece in made for token in piece.ids] == list(range(n_ids))


@given(st.integers(1, MAX_OUT // CHECKPOINT), st.binary(min_size=32, max_size=32))
@settings(deadline=None, max_examples=50)
def test_a_checkpoint_is_signed_for_one_order_and_what_it_says(number: int, root: bytes) -> None:
    order, n = an_order(), number * CHECKPOINT
    said = checkpoint(order, n, root, DRIVER)
    check_checkpoint(said, order, DRIVER.id)
    other = bytes((root[0] ^ 1,)) + root[1:]
    for wrong, asked, driver in (
        (Checkpoint(n + CHECKPOINT, root, said.signature), order, DRIVER.id),
        (Checkpoint(n, other, said.signature), order, DRIVER.id),
        (said, wire.Order(bytes(15) + b"1", bytes(32), 10), DRIVER.id),
        (said, order, Signer(b"1" * 32).id),
    ):
        with pytest.raises(ProtocolError) as refused:
            check_checkpoint(wrong, asked, driver)
        assert refused.value.reason == "bad_signature"


def test_a_signature_for_something_else_is_no_checkpoint() -> None:
    order = an_order()
    body = codec.encode(checkpoint(order, 64, bytes(32), DRIVER))
    for tag in ("receipt", "state"):
        signature = DRIVER.sign(tag, body).signature
        with pytest.raises(ProtocolError):
            check_checkpoint(Checkpoint(64, bytes(32), signature), order, DRIVER.id)


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt_hash": b""},
        {"audit": b""},
        {"prompt_hash": bytes(31)},
        {"audit": bytes(16)},
        {"mode": "none"},
        {"mode": "none", "audit": b""},
        {"texts": 1},
        {"repeat_penalty": 1_100_000},
        {"presence_penalty": -1},
        {"frequency_penalty": 1},
    ],
)
def test_orders_that_cannot_be_checked_or_hold_what_they_must_not(changed: dict[str, Any]) -> None:
    check_order(an_order())
    check_order(an_order(mode="fraud_proof", temperature=0, top_k=0, logprobs=2))
    check_order(wire.Order(bytes(16), bytes(32), 10, repeat_penalty=1_100_000, texts=0))
    with pytest.raises(ProtocolError) as refused:
        check_order(an_order(**changed))
    assert refused.value.reason == "malformed"


def test_who_does_not_know_what_an_answer_is_checked_by_refuses_the_order() -> None:
    """An older node must not ignore it, so the order has another tag; an unknown mode is no order."""
    assert wire.Order.__struct_config__.tag == 37
    data = codec.encode(an_order())
    assert codec.decode(data, wire.Request) == an_order()
    with pytest.raises(ProtocolError):
        codec.decode(data.replace(b"merkle", b"zk_rol"), wire.Request)


@given(st.lists(st.integers(0, 400), max_size=12), st.lists(st.integers(0, 10_000), max_size=9))
@settings(deadline=None, max_examples=100)
def test_chunks_may_be_cut_and_joined_anywhere(cuts: list[int], more: list[int]) -> None:
    order = an_order()
    said: list[Frame] = [
        CLAIMED,
        so_many(60, DRAW),
        checkpoint(order, 64, os.urandom(32), DRIVER),
        so_many(40),
        Done("length", 3, 0, 100, steps=101),
    ]
    data = b"".join(map(encode_frame, said))
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in (*cuts, *more))})
    reader = FrameReader(order)
    found = [frame for start, stop in itertools.pairwise(borders) for frame in reader.feed(data[start:stop])]
    reader.end()
    assert found == said


def test_what_it_costs_on_the_wire() -> None:
    order = an_order()
    biggest = checkpoint(order, MAX_OUT, b"\xff" * 32, DRIVER)
    assert len(encode_frame(biggest)) / CHECKPOINT <= 2.5 / 1.25, "with what the stream adds"

    hash_, most = b"\xff" * 32, 2**62
    transcript = deals.Transcript("fraud_proof", hash_, MAX_OUT, hash_, hash_, hash_, hash_, "x" * 64)
    receipt = deals.Receipt(
        bytes(16), hash_, hash_, hash_, hash_, most, most, most, 2**31 - 1, 2**31 - 1, 2**31 - 1, most,
        "cancelled", 2**48, 2**48, 2**62, most, transcript,
    )  # fmt: skip
    signed = deals.sign(receipt, DRIVER)
    assert len(codec.encode(signed)) <= 700
    assert deals.opened_receipt(signed, DRIVER.id) == receipt


def test_receipts_of_before_are_read_as_receipts_without_a_transcript() -> None:
    fields = [bytes(16), *[bytes(32)] * 3, b"", 1, 2, 3, 4, 0, 5, 6, "stop", 7, 8, 9, 10]
    signed = DRIVER.sign("receipt", msgspec.msgpack.encode(fields))
    found = deals.opened_receipt(signed, DRIVER.id)
    assert (found.owed_before, found.transcript) == (10, None)
