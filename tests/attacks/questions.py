"""What the users of an attack ask: something else each time."""

from __future__ import annotations

import itertools
import random
from typing import Final

from infraxa.engine.guide.facts import FACTS
from infraxa.engine.types import ChatMessage

_THINGS: Final = "the sea,a lamp,a dog,a clock,the moon,a cook,a door,a bridge,snow,tea".split(",")
_KNOWN: Final = [(ask, one.said[0]) for one in FACTS.intent + FACTS.fact for ask in one.always]
_LONG: Final = [(ask, said) for ask, said in _KNOWN if len(said) >= 110]


def question(number: int) -> tuple[ChatMessage, ...]:
    """Another conversation for each number, of one to three turns; the guide says enough to its last one."""
    time, last = divmod(number, len(_LONG))
    some = random.Random(number).sample(_KNOWN, number % 2)
    turns = [*([_KNOWN[time % len(_KNOWN)], *some] if time else []), _LONG[last]]
    said = [one for ask, told in turns for one in (ChatMessage("user", ask), ChatMessage("assistant", told))]
    return tuple(said[:-1])


def unsure(number: int) -> tuple[ChatMessage, ...]:
    """Another one for each number, up to 720; the guide was taught no answer to it."""
    some = list(itertools.permutations(_THINGS, 3))
    one, other, last = some[number * 11 % len(some)]
    return (ChatMessage("user", f"Tell me a story about {one}, {other} and {last}."),)
