"""Whole characters and stop strings, wherever the borders of tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from infraxa.engine.text import TextAssembler

SAMPLE = "naïve 🦜 – 日本語\r\n\u200d👩‍🚀 end"


def feed_all(pieces: Sequence[bytes], stop: tuple[str, ...] = ()) -> str:
    text = TextAssembler(stop)
    parts = []
    for piece in pieces:
        parts.append(text.feed(piece))
        if text.stopped:
            break
    return "".join(parts) + text.finish()


def cut(data: bytes, borders: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(b % (len(data) + 1) for b in borders), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


def test_every_byte_border_gives_the_same_text() -> None:
    data = SAMPLE.encode()
    for border in range(len(data) + 1):
        assert feed_all([data[:border], data[border:]]) == SAMPLE
    assert feed_all([bytes([b]) for b in data]) == SAMPLE


def test_a_character_comes_out_with_its_last_byte() -> None:
    text = TextAssembler()
    assert [text.feed(bytes([b])) for b in "🦜".encode()] == ["", "", "", "🦜"]


def test_an_unfinished_character_at_the_end_is_replaced() -> None:
    assert feed_all(["ab🦜".encode()[:-1]]) == "ab�"


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_any_bytes_give_what_decoding_them_at_once_gives(data: bytes, borders: list[int]) -> None:
    assert feed_all(cut(data, borders)) == data.decode("utf-8", "replace")


def reference(text: str, stop: tuple[str, ...]) -> str:
    """Character by character: ends before the stop string that is complete first, the longest of those."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stop if s and text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


small = st.text(alphabet="abé🦜", max_size=14)


@given(
    small,
    st.lists(st.text(alphabet="abé🦜", max_size=4), max_size=3),
    st.lists(st.integers(0, 60), max_size=9),
)
@example("xabcd", ["abcd", "bc"], [4])
@example("aab", ["ab", "aab"], [1, 2])
@example("ab", ["abc"], [])
def test_stop_strings_do_not_depend_on_borders(text: str, stop: list[str], borders: list[int]) -> None:
    stops = tuple(stop)
    assert feed_all(cut(text.encode(), borders), stops) == reference(text, stops)


def test_what_may_become_a_stop_string_is_held_back_until_decided() -> None:
    text = TextAssembler(("</end>",))
    assert text.feed(b"a</e") == "a"
    assert text.feed(b"x") == "</ex"
    assert text.feed(b"y</end>z") == "y"
    assert text.stopped
    assert text.feed(b"more") == ""
    assert text.finish() == ""
