"""Patterns, and how people really type: prefixes, contractions, typos, capitals, punctuation."""

import hashlib
import itertools
import re
from random import Random
from typing import NamedTuple

PREFIXES = [
    "please ",
    "hey, ",
    "hi, ",
    "ok, ",
    "so ",
    "can you tell me ",
    "tell me, ",
    "i want to know ",
    "excuse me, ",
    "hello, ",
    "um, ",
    "and ",
    "could you tell me ",
    "i would like to know ",
    "quick question: ",
    "one question: ",
    "in infraxa, ",
    "well, ",
]
SUFFIXES = [" please", " thanks", ", please", " pls", " then", " now"]
ENDINGS = ["??", "!", " ?", "?!", "...", ".", "  "]
NEAR = {a: b for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a, b in itertools.pairwise(row + row[-2])}
ONSETS = "b c d f g h k l m n p r s t v w z br cr dr st tr sh ch th pl gr".split()
VOWELS = "a e i o u a e o ai ou ee".split()
CODAS = ["", "", "n", "s", "r", "x", "l", "th", "nd"]


class Split(NamedTuple):
    train: list[str]
    combinations: list[str]
    """Held out of patterns whose other combinations are trained on."""
    novel: list[str]
    """Of patterns that are never trained on."""


def held(text: str, one_in: int = 12) -> bool:
    """A stable pseudo-random choice of what is kept for evaluation."""
    return int(hashlib.sha256(text.lower().encode()).hexdigest(), 16) % one_in == 0


def expand(pattern: str) -> list[str]:
    """Every text that "(a|b|) c" stands for."""
    choice = re.search(r"\(([^()]*)\)", pattern)
    if not choice:
        return [pattern]
    before, after = pattern[: choice.start()], pattern[choice.end() :]
    return [text for option in choice[1].split("|") for text in expand(before + option + after)]


def split_held(patterns: list[str]) -> Split:
    split = Split([], [], [])
    for pattern in patterns:
        if pattern.startswith("!"):
            split.novel.extend(expand(pattern[1:]))
            continue
        texts = expand(pattern)
        for text in texts:
            (split.combinations if len(texts) > 3 and held(text) else split.train).append(text)
    return split


def typo(r: Random, text: str) -> str:
    letters = [i for i, c in enumerate(text) if c.isalpha()]
    if len(letters) < 5:
        return text
    i = r.choice(letters[1:])
    dropped = text[:i] + text[i + 1 :]
    doubled = text[:i] + text[i] + text[i:]
    swapped = text[: i - 1] + text[i] + text[i - 1] + text[i + 1 :]
    slipped = text[:i] + NEAR.get(text[i].lower(), text[i]) + text[i + 1 :]
    return r.choice([dropped, doubled, swapped, slipped])


def noisy(r: Random, text: str, question: bool = True, typos: bool = True) -> str:
    """The same question as people type it."""
    if r.random() < 0.15:
        text = r.choice(PREFIXES) + text
    elif r.random() < 0.05:
        text += r.choice(SUFFIXES)
    if r.random() < 0.25:
        text = re.sub(r"\bwhat is\b", r.choice(["what's", "whats", "what is"]), text)
        text = text.replace("do not", "don't").replace("does not", "doesn't")
    if typos and r.random() < 0.18:
        text = typo(r, text)
        if r.random() < 0.2:
            text = typo(r, text)
    case = r.random()
    if case < 0.45 and text:
        text = text[0].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
    elif case < 0.50:
        text = text.upper()
    elif case < 0.65:
        text = text.lower()
    end = r.random()
    if end < 0.4:
        return text
    if end < 0.9:
        return text + ("?" if question else ".")
    return text + r.choice(ENDINGS)


def put(r: Random, pattern: str, value: str) -> str:
    """Noise around a value, which itself is kept as typed."""
    return noisy(r, pattern.replace("{v}", "0"), question=False).replace("0", value)


def pseudo(r: Random, syllables: int = 0) -> str:
    """A word that does not exist."""
    syllables = syllables or r.randint(2, 4)
    return "".join(r.choice(ONSETS) + r.choice(VOWELS) for _ in range(syllables)) + r.choice(CODAS)
