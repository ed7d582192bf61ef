"""Names that peers claim are safe to show, and impostors' names are seen to be the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net.names import MAX_NAME, WORDS, clean_name, default_name, name_key

NASTY = "\x00\x1b\x07\x9b\u202e\u2066\u200b\u200d\ufeff\u00ad\u0301\u20dd\u3164\u2800\ufe0f\U000e0041\ud800·"
texts = st.text(max_size=200) | st.text(st.sampled_from(NASTY + "aeé ᄀ가각ᆨ\u0327ﷺſK"), max_size=200)
thorough = settings(deadline=None, max_examples=500)


@thorough
@given(texts)
def test_what_is_shown_of_a_name_is_one_short_plain_line(text: str) -> None:
    name = clean_name(text)
    assert len(name) <= MAX_NAME
    assert name == name.strip() and "  " not in name and "·" not in name
    assert all(unicodedata.category(character)[0] not in "CZ" or character == " " for character in name)
    assert not set(name) & set(NASTY) - {"\u0301", "\u20dd"}
    assert clean_name(name) == name
    name.encode()


@thorough
@given(texts)
def test_the_key_of_a_name_does_not_depend_on_how_it_is_written(text: str) -> None:
    key = name_key(text)
    assert name_key(key) == key == name_key(clean_name(text))
    assert key == "" or clean_name(text) != ""


@pytest.mark.parametrize(
    ("claimed", "shown"),
    [
        ("maple", "maple"),
        ("  big   old\tmaple\n", "big old maple"),
        ("Ännchen 栗の木", "Ännchen 栗の木"),
        ("maple\x1b[31m", "maple[31m"),
        ("maple\u202eelpam", "mapleelpam"),
        ("ma\u200bp\u00adl\u2060e\ufe0f", "maple"),
        ("ｍａｐｌｅ", "maple"),
        ("maple·7k2m9x4q", "maple7k2m9x4q"),
        ("m" + "\u0336" * 40 + "aple", "m\u0336\u0336aple"),
        ("\u3164\u2800\u115f", ""),
        ("\u0301maple", "maple"),
        ("x" * 500, "x" * MAX_NAME),
        ("x" * (MAX_NAME - 1) + "  y", "x" * (MAX_NAME - 1)),
        ("\ud800", ""),
        ("\u200b" * 200 + "maple", ""),  # nobody looks further
    ],
)
def test_what_is_left_of_a_name(claimed: str, shown: str) -> None:
    assert clean_name(claimed) == shown


def test_names_that_look_alike_are_the_same() -> None:
    for other in ("Maple", "MAPLE ", "ma\u200dple", "ｍaple", "\u202emaple"):
        assert name_key(other) == name_key("maple") == "maple"
    assert name_key("maples") != name_key("maple")


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_new_node_has_a_name_of_its_own(node: bytes) -> None:
    assert default_name(node) in WORDS
    assert default_name(bytes(28) + node[28:]) == default_name(node)


def test_the_words_are_many_and_pass_as_names() -> None:
    assert len(WORDS) == len(set(WORDS)) >= 64
    assert all(name_key(word) == word and len(word) <= 8 for word in WORDS)
    assert {default_name(number.to_bytes(32, "big")) for number in range(len(WORDS))} == set(WORDS)
