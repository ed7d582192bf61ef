"""Made-up conversations: of the lengths that are asked for, never twice the same, about one thing."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.app import canary_corpus
from infraxa.app.canary_texts import LEAST_CHARS, MOST_CHARS, Author

SENTENCES = (
    *canary_corpus.QUESTIONS,
    *canary_corpus.FOLLOW_UPS,
    *canary_corpus.BACKGROUND,
    *canary_corpus.LINES,
    *canary_corpus.PASTED,
    *canary_corpus.OPENERS,
    *canary_corpus.TAILS,
    *canary_corpus.ROLES,
    *(word for words in canary_corpus.WORDS.values() for word in words),
)
NUMBERS = {"age", "hundred", "number", "euros", "year", "hour"}


def test_every_place_has_something_to_stand_there() -> None:
    for sentence in SENTENCES:
        assert sentence == sentence.strip() != ""
        for place in re.findall(r"\{(.*?)\}", sentence):
            assert place.lower() in canary_corpus.WORDS.keys() | NUMBERS, sentence
        assert re.sub(r"\{\w+\}", "", sentence).isprintable()
        assert not set("{}") & set(re.sub(r"\{\w+\}", "", sentence)), sentence


@given(st.integers(0, 2**32), st.integers(0, 3 * MOST_CHARS))
def test_texts_are_about_as_long_as_is_asked_for(seed: int, chars: int) -> None:
    author = Author(random.Random(seed))
    persona = author.persona()
    for text in (author.question(persona, chars), author.follow_up(persona, chars)):
        assert text == text.strip() and not set("{}") & set(text)
        wanted = min(max(chars, LEAST_CHARS), MOST_CHARS)
        assert abs(len(text) - wanted) <= 160
    system = author.system(persona, chars)
    assert not set("{}") & set(system)
    assert abs(len(system) - min(max(chars, LEAST_CHARS), MOST_CHARS)) <= 130


@pytest.mark.parametrize("chars", [1, 30, 60, 200])
def test_none_is_said_twice_though_it_is_made_anew_after_each_start(chars: int) -> None:
    for seed in range(5):
        authors = (Author(random.Random(f"{seed} {start}")) for start in range(100))
        said = [
            text.casefold()
            for author in authors
            for persona in (author.persona(),)
            for text in (author.question(persona, chars), author.follow_up(persona, chars))
        ]
        assert len(said) == len(set(said)) == 200


def test_what_was_made_once_is_not_made_again() -> None:
    """By one author, also where chance would repeat itself."""

    class Stuck(random.Random):
        """Begins anew after each text."""

        texts = 0

        def restart(self) -> None:
            self.seed(self.texts // 2)
            self.texts += 1

    rng = Stuck()
    author = Author(rng)
    said = set()
    for _ in range(40):
        rng.restart()
        said.add(author.question(author.persona(), 60).casefold())
    assert len(said) == 40


def test_one_conversation_is_about_one_thing_and_in_one_hand() -> None:
    author = Author(random.Random(5))
    same = lower = 0
    for _ in range(200):
        persona = author.persona()
        author.question(persona, 200)
        known = dict(persona.said)
        more = author.follow_up(persona, 200)
        assert known.items() <= persona.said.items()
        same += any(value.casefold() in more.casefold() for value in known.values())
        if persona.lower:
            lower += 1
            assert more == more.lower()
    assert same > 40 and lower > 50
    assert len({author.question(author.persona(), 80)[:20] for _ in range(100)}) > 80
