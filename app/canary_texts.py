"""The texts of canaries: conversations that nobody had, of the lengths that are asked for. Pure; the
randomness is given.

What they are made of is in canary_corpus.py. When one is sent, where and for how much is decided in
canary_rules.py; who sends it is canaries.py.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from infraxa.app.canary_corpus import (
    BACKGROUND,
    FOLLOW_UPS,
    LINES,
    OPENERS,
    PASTED,
    QUESTIONS,
    ROLES,
    TAILS,
    WORDS,
)

LEAST_CHARS: Final = 24
"""Of one text, about; what would soon be the same gets longer."""
LEAST_BITS: Final = 18
"""Of chance in each text, at least."""
MOST_CHARS: Final = 8000
"""Of one text: longer ones are made as if this had been asked for."""
KEPT: Final = 20_000
"""Texts that are not made again."""
_TRIES: Final = 20
_SHORT: Final = 100
"""Characters of a text in which there is hardly room for a sentence besides the question."""
_TELLING: Final = tuple(tail for tail in TAILS if "{" in tail)
_DEEP: Final = 3
"""Places in places."""
_PLACE: Final = re.compile(r"\{(\w+)\}")
_NEIGHBOURS: Final = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo",
    "j": "hk", "k": "jl", "l": "ko", "m": "nj", "n": "bm", "o": "ip", "p": "ol", "r": "et", "s": "ad",
    "t": "ry", "u": "yi", "v": "cb", "w": "qe", "y": "tu",
}  # fmt: skip
"""Keys beside others."""


class Persona:
    """Who seems to write one conversation: how, and about what."""

    def __init__(self, rng: random.Random) -> None:
        self.said: dict[str, str] = {}
        """What stands at the places in capitals."""
        self.lower = rng.random() < 0.45
        """It writes no capitals."""
        self.shouts = rng.random() < 0.02
        self.marks = rng.random() < 0.6
        """It ends sentences with what they end with."""
        self.typos = rng.choice((0.0, 0.0, 0.002, 0.008, 0.02))
        """Of its letters."""
        self.polite = rng.random() < 0.4
        self.curly = rng.random() < 0.15
        """Its apostrophes."""


class Author:
    """Writes what no one of its texts said before. Of one node."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bits = 0.0
        """Of chance, in the text that is being made."""
        self._made: OrderedDict[bytes, None] = OrderedDict()
        """Hashes of its texts, the oldest first."""

    def persona(self) -> Persona:
        """Somebody new."""
        return Persona(self._rng)

    def question(self, persona: Persona, chars: int) -> str:
        """A text of about so many characters, with which a conversation begins."""
        return self._new(lambda: self._message(persona, QUESTIONS, chars))

    def follow_up(self, persona: Persona, chars: int) -> str:
        """One that goes on with it."""
        return self._new(lambda: self._message(persona, FOLLOW_UPS, chars))

    def system(self, persona: Persona, chars: int) -> str:
        """A system prompt of about so many characters. Somebody has the same one for long: it may be one that
        there was before."""
        rng, chars = self._rng, min(max(chars, LEAST_CHARS), MOST_CHARS)
        parts = [self._filled(persona, self._choice(ROLES))]
        left: list[str] = []
        while _length(parts) < chars - LEAST_CHARS // 2:
            left = left or rng.sample(WORDS["virtue"], len(WORDS["virtue"]))
            parts.append(left.pop() + ".")
            if not left:
                parts.append(self._filled(persona, self._choice(BACKGROUND)))
        return " ".join(parts)

    def _new(self, make: Callable[[], str]) -> str:
        for _ in range(_TRIES):
            text = make()
            digest = hashlib.blake2b(text.casefold().encode(), digest_size=12).digest()
            if digest not in self._made:
                break
        self._made[digest] = None
        if len(self._made) > KEPT:
            self._made.popitem(last=False)
        return text

    def _message(self, persona: Persona, cores: Sequence[str], chars: int) -> str:
        rng, chars = self._rng, min(max(chars, LEAST_CHARS), MOST_CHARS)
        self._bits = 0.0
        parts = [self._filled(persona, self._core(cores, chars))]
        if rng.random() < 0.35 and _length(parts) + 10 < chars:
            parts.append(self._filled(persona, self._choice(TAILS)))
        while self._bits < LEAST_BITS and chars < _SHORT:
            parts.append(self._filled(persona, self._choice(_TELLING)))
        background = rng.sample(BACKGROUND, len(BACKGROUND))
        most = rng.randint(240, 700)
        while background and (_length(parts) < min(chars, most) - 30 or self._bits < LEAST_BITS):
            self._bits += math.log2(len(background))
            told = self._filled(persona, background.pop())
            parts.insert(rng.choice((0, len(parts), len(parts))), told)
        if rng.random() < (0.5 if persona.polite else 0.2) and _length(parts) + 8 < chars:
            parts.insert(0, self._filled(persona, self._choice(OPENERS)))
        text = _spaced(self._styled(persona, " ".join(parts)))
        if len(text) < chars - 60:
            text = self._with_pasted(persona, text, chars)
        return text

    def _core(self, cores: Sequence[str], chars: int) -> str:
        """Of several the one that is closest to the length, so that short ones are asked for shortly."""
        few = self._rng.sample(cores, 3)
        self._bits += math.log2(len(cores) / len(few))
        return min(few, key=lambda core: abs(len(core) + 4 - chars)) if chars < 80 else few[0]

    def _with_pasted(self, persona: Persona, text: str, chars: int) -> str:
        """With something below it or above it that seems to come from elsewhere."""
        rng = self._rng
        head = self._styled(persona, self._choice(PASTED))
        kinds = rng.sample(LINES, rng.randint(1, 4))
        lines: list[str] = []
        between = rng.choice(("\n", "\n", "\n\n", " "))
        size = len(text) + len(head) + 3
        while size < chars - 30:
            lines.append(_misspelt(rng, self._filled(Persona(rng), rng.choice(kinds)), persona.typos / 4))
            size += len(lines[-1]) + len(between)
        joined = between.join(lines)
        return f"{head}\n\n{joined}\n\n{text}" if rng.random() < 0.35 else f"{text}\n\n{head}\n{joined}"

    def _filled(self, persona: Persona, sentence: str, depth: int = 0) -> str:
        """The sentence without places."""

        def fill(found: re.Match[str]) -> str:
            place = found[1]
            if place.isupper() and place in persona.said:
                return persona.said[place]
            text = self._word(place.lower())
            if depth < _DEEP:
                text = self._filled(persona, text, depth + 1)
            if place.isupper():
                persona.said[place] = text
            return text

        return _PLACE.sub(fill, sentence)

    def _choice(self, texts: Sequence[str]) -> str:
        self._bits += math.log2(len(texts))
        return self._rng.choice(texts)

    def _word(self, place: str) -> str:
        rng = self._rng
        if place in WORDS:
            return self._choice(WORDS[place])
        self._bits += 4
        match place:
            case "age":
                return str(rng.randint(6, 83))
            case "hundred":
                return str(rng.randint(3, 60) * rng.choice((5, 10, 7)))
            case "number":
                return str(
                    rng.choice((rng.randint(2, 99), rng.randint(100, 9999), round(rng.random() * 50, 1)))
                )
            case "euros":
                return str(
                    rng.choice((5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 120, 150, 200, 350))
                )
            case "year":
                return str(rng.randint(1450, 2024))
            case _:
                return f"{rng.randint(6, 23)}:{rng.choice(('00', '15', '30', '45', '20'))}"

    def _styled(self, persona: Persona, text: str) -> str:
        rng = self._rng
        if persona.lower:
            text = text.lower()
        elif persona.shouts:
            text = text.upper()
        else:
            text = re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), text)
            text = re.sub(r"\bi\b", "I", text)
        if not persona.marks:
            text = re.sub(r"[?.!]+(?=$)", "", text)
        elif text[-1].isalnum() and rng.random() < 0.5:
            text += "."
        text = text.replace("dont", "don\u2019t" if persona.curly else rng.choice(("dont", "don't")))
        return _misspelt(rng, text, persona.typos)


def _length(parts: Sequence[str]) -> int:
    return sum(map(len, parts)) + len(parts) - 1


def _spaced(text: str) -> str:
    return re.sub(r" +", " ", text).strip()


def _misspelt(rng: random.Random, text: str, share: float) -> str:
    """With about that share of its letters mistyped."""
    if not share:
        return text
    letters = list(text)
    for at, letter in enumerate(text):
        if not letter.isalpha() or rng.random() >= share:
            continue
        match rng.randrange(4):
            case 0 if at + 1 < len(text) and text[at + 1].isalpha():
                letters[at], letters[at + 1] = letters[at + 1], letters[at]
            case 1:
                letters[at] = ""
            case 2:
                letters[at] = letter * 2
            case _:
                letters[at] = rng.choice(_NEIGHBOURS.get(letter.lower(), letter))
    return "".join(letters)
