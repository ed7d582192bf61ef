"""Draws what users tell of themselves, and ask for later in the same chat."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from infraxa.engine.guide.facts import UNKNOWN, trained
from infraxa.engine.guide.phrasing import noisy, pseudo, put

NAMES, CITIES = trained(UNKNOWN.names), trained(UNKNOWN.cities)


class Memory(NamedTuple):
    """Something that the user tells of himself and asks for later."""

    tell: list[str]
    heard: str
    ask: list[str]
    answer: str
    missing: str
    value: Callable[[Random], str]


def person(r: Random) -> str:
    name = r.choice(NAMES) if r.random() < 0.5 else pseudo(r, r.randint(1, 3)).capitalize()
    return name.lower() if r.random() < 0.25 else name


def home(r: Random) -> str:
    return r.choice(CITIES) if r.random() < 0.6 else pseudo(r).capitalize()


MEMORIES = {
    "name": Memory(
        [
            "my name is {v}",
            "i am {v}",
            "i'm {v}",
            "call me {v}",
            "you can call me {v}",
            "hi, i am {v}",
            "hello, my name is {v}",
            "the name is {v}",
            "my name's {v}",
            "they call me {v}",
            "hi my name is {v}",
        ],
        "Nice to meet you, {v}!",
        [
            "what is my name",
            "what's my name",
            "who am i",
            "do you remember my name",
            "do you know my name",
            "whats my name",
            "say my name",
            "can you remember my name",
            "what am i called",
            "tell me my name",
            "my name",
        ],
        "Your name is {v}.",
        "You have not told me your name yet.",
        person,
    ),
    "colour": Memory(
        [
            "my favourite colour is {v}",
            "my favorite color is {v}",
            "i like the color {v} best",
            "the colour i like most is {v}",
        ],
        "I will remember that you like {v}.",
        [
            "what is my favourite colour",
            "what is my favorite color",
            "which color do i like",
            "do you remember my favourite colour",
        ],
        "Your favourite colour is {v}.",
        "You have not told me your favourite colour yet.",
        lambda r: r.choice(UNKNOWN.colours),
    ),
    "city": Memory(
        [
            "i live in {v}",
            "i am from {v}",
            "my city is {v}",
            "i'm from {v}",
            "i come from {v}",
            "my home is in {v}",
        ],
        "I will remember that you live in {v}.",
        [
            "where do i live",
            "where am i from",
            "what is my city",
            "do you remember where i live",
            "in which city do i live",
        ],
        "You live in {v}.",
        "You have not told me where you live yet.",
        home,
    ),
}


def remembered(r: Random, memory: dict[str, str]) -> tuple[str, str]:
    what = r.choices(list(MEMORIES), [6, 1.3, 2])[0]
    m = MEMORIES[what]
    if (what in memory and r.random() < 0.75) or (what not in memory and r.random() < 0.22):
        text = noisy(r, r.choice(m.ask))
        return text, m.answer.replace("{v}", memory[what]) if what in memory else m.missing
    memory[what] = m.value(r)
    return put(r, r.choice(m.tell), memory[what]), m.heard.replace("{v}", memory[what])
