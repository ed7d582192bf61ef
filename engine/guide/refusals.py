"""Draws questions and tasks that the guide must refuse."""

import re
from random import Random

from infraxa.engine.guide.facts import FACTS, UNKNOWN, trained
from infraxa.engine.guide.phrasing import noisy, pseudo

TOPICS, FRAMES, TASKS = trained(UNKNOWN.topics), trained(UNKNOWN.frames), trained(UNKNOWN.tasks)
NO_CAPITAL, GIBBERISH = trained(UNKNOWN.capitals), trained(UNKNOWN.gibberish)
CAPITAL_FRAMES = [
    "what is the capital of {c}",
    "capital of {c}",
    "which city is the capital of {c}",
    "what is {c}'s capital",
    "name the capital of {c}",
]
# The frames of the fact tables, to be asked with things that are not in them.
TABLE_FRAMES = [
    "what color is {t}",
    "how many legs does {t} have",
    "what sound does {t} make",
    "how many {t} are in {u}",
    "what day is {t}",
    "what is the opposite of {t}",
    "{t} is the capital of which country",
    "which planet is {t}",
    "who painted {t}",
    "how many days has {t}",
    "what do {t} eat",
    "what is a baby {t} called",
]
ADJECTIVES = [
    "modern ",
    "ancient ",
    "big ",
    "cheap ",
    "good ",
    "red ",
    "the ",
    "german ",
    "famous ",
    "old ",
]


def topic(r: Random) -> str:
    """Something that the guide has never heard of: a real thing, or words that do not exist."""
    if r.random() < 0.5:
        name = r.choice(TOPICS)
        if r.random() < 0.25 and name.split()[0] not in ("a", "an", "my"):
            name = r.choice(ADJECTIVES) + re.sub("^the ", "", name)
        return name
    return " ".join(pseudo(r) for _ in range(r.choice([1, 1, 2, 3])))


def unknown(r: Random) -> tuple[str, str]:
    fallback = FACTS.product.fallback
    k = r.random()
    if k < 0.10:
        place = r.choice(NO_CAPITAL + [pseudo(r).capitalize() for _ in range(25)])
        return noisy(r, r.choice(CAPITAL_FRAMES).format(c=place), typos=False), fallback
    if k < 0.15:
        return noisy(r, r.choice(GIBBERISH + [pseudo(r) for _ in range(20)])), fallback
    if k < 0.20:
        thing = topic(r)
        return noisy(r, r.choice(TABLE_FRAMES).format(t=thing, u=topic(r))), fallback
    if k < 0.65:
        return noisy(r, r.choice(FRAMES).format(t=topic(r), u=topic(r))), fallback
    text = r.choice(TASKS).format(t=topic(r), u=topic(r))
    return noisy(r, text, question=False), FACTS.product.fallback_task
