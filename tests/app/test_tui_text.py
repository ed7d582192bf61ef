"""What comes from models and strangers reaches the terminal without control characters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.app.tui.widgets.text import Cleaner, clean, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07done", "]52;c;aGk=done"),
        ("\x1b[2J\x9b31mred", "[2J31mred"),
        ("a\u202eb\u2066c\U000e0041", "abc"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("日本語 👩‍💻 é", "日本語 👩‍💻 é"),
    ],
)
def test_control_characters_are_left_out(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    cleaned = clean(text)
    assert all(c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cs") for c in cleaned)
    assert clean(cleaned) == cleaned


@given(st.text(alphabet="a\r\n\x1b"), st.integers(1, 5))
def test_pieces_are_cleaned_like_the_whole(text: str, size: int) -> None:
    cleaner = Cleaner()
    assert "".join(cleaner(text[i : i + size]) for i in range(0, len(text), size)) == clean(text)


def test_one_line_is_one_line() -> None:
    assert one_line("a\n b\t\x1bc") == "a b c"
    assert one_line("x" * 300, 10) == "x" * 9 + "…"
