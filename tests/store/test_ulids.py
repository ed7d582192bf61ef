from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from infraxa.store.db import connect
from infraxa.store.ulid import UlidSource, decode, encode


def test_the_specification_example() -> None:
    """The time part of the example at github.com/ulid/spec."""
    assert encode(decode("01ARZ3NDEKTSV4RRFFQ69G5FAV")) == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    source = UlidSource(lambda: 1469918176385, lambda n: b"\xff" * n)
    assert source.new() == "01ARYZ6S41" + "Z" * 16


@given(st.integers(0, 2**128 - 1))
def test_encoding_keeps_value_and_length(value: int) -> None:
    ulid = encode(value)
    assert len(ulid) == 26
    assert decode(ulid) == value


@given(st.lists(st.integers(0, 2**48 - 2), min_size=1), st.integers(0))
def test_each_is_greater_whatever_the_clock_does(times: list[int], seed: int) -> None:
    clock = iter(times)
    source = UlidSource(clock.__next__, random.Random(seed).randbytes)
    ulids = [source.new() for _ in times]
    assert ulids == sorted(set(ulids))


def test_all_random_bits_used_up_in_one_millisecond_carry_on() -> None:
    source = UlidSource(lambda: 5, lambda n: b"\xff" * n)
    first, second = source.new(), source.new()
    assert decode(second) == decode(first) + 1


def test_ids_go_on_after_those_of_an_earlier_run_with_a_later_clock(tmp_path: object) -> None:
    from pathlib import Path

    from infraxa.store.chats import create_chat

    folder = Path(str(tmp_path))
    late = connect(folder, clock=lambda: 2_000_000_000_000)
    before = create_chat(late).id
    late.close()
    early = connect(folder, clock=lambda: 1_000_000_000_000)
    assert create_chat(early).id > before
    early.close()
