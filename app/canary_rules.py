"""When a canary is sent, how large it is, and for how much. Pure; times and randomness are given.

A canary is an order that nobody wrote, by which a driver is audited whose model is not here. Its answer is
the only one that a referee may read without seeing anything of the person. Its texts are made in
canary_texts.py.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from typing import Final, NamedTuple

from infraxa.engine.types import Request, Sampling

SHARE_PPM: Final = 30_000
"""Of what may be spent in a day, for canaries and their referees together."""
PARTS: Final = 3
"""Of what is left of that one part is for the driver, at most: two referees may have to read as much."""
AFTER: Final = 0.5
"""For each answer that would be audited if the model were here, so many canaries, all turns counted."""
RECENT: Final = 20
"""Own answers whose sizes are remembered, of each driver and model, and pauses between them."""
MOST_DRIVERS: Final = 64
"""With their models: of which sizes are remembered."""
MOST_SAID: Final = 16_000
"""Characters of a made-up conversation, with its answers, that is gone on with."""
GOES_ON_S: Final = 24 * 3600.0
"""After so long without a turn a made-up conversation is over."""
LEAST_DELAY_S: Final = 4.0
"""After a real answer."""
MOST_DELAY_S: Final = 300.0
_PAUSE_S: Final = 25.0
"""Between an answer and the next question, where nothing is known of that."""
_CHARS_PER_S: Final = 6.0
"""That somebody types."""
_LEAST_TYPING_S: Final = 1.0
_MOST_TYPING_S: Final = 20.0

Key = tuple[bytes, bytes]
"""Driver and model."""


class Shape(NamedTuple):
    """Of one own question: its sizes, and what is asked for besides, but nothing of what it says."""

    system: int
    """Characters of the system prompt; 0: there was none."""
    chars: int
    """Of the last turn."""
    turns: int
    """Of the person, this one included."""
    sampling: Sampling
    logprobs: int | None = None
    called: bool = False
    """A program asked."""


def shape_of(request: Request, *, called: bool = False) -> Shape | None:
    """None: nothing like it can be made up."""
    said = request.messages
    if not said or said[-1].role != "user" or request.tools or request.format is not None:
        return None
    if any(one.role == "tool" or one.tool_calls for one in said):
        return None
    system = sum(len(one.content) for one in said if one.role == "system")
    turns = sum(one.role == "user" for one in said)
    return Shape(system, len(said[-1].content), turns, request.sampling, request.logprobs, called)


class Habits:
    """What is remembered of the person's own use, in memory alone."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[Key, deque[Shape]] = OrderedDict()
        self._pauses: deque[float] = deque(maxlen=RECENT)

    def asked(self, key: Key, shape: Shape) -> None:
        """An answer of this driver came."""
        shapes = self._shapes.pop(key, None) or deque(maxlen=RECENT)
        shapes.append(shape)
        self._shapes[key] = shapes
        while len(self._shapes) > MOST_DRIVERS:
            self._shapes.popitem(last=False)

    def paused(self, seconds: float) -> None:
        """So long after an answer the next one was asked for."""
        if seconds <= MOST_DELAY_S:
            self._pauses.append(seconds)

    def shape(self, rng: random.Random, key: Key) -> Shape | None:
        """One like those of this driver; None: it gave no answer that can be imitated."""
        if not (shapes := self._shapes.get(key)):
            return None
        shape = rng.choice(shapes)
        return shape._replace(chars=max(1, round(shape.chars * rng.lognormvariate(0.0, 0.25))))

    def turns(self, key: Key) -> float:
        """Of a made-up conversation with this driver, on average; 1 or more."""
        shapes = self._shapes.get(key)
        return sum(one.turns for one in shapes) / len(shapes) if shapes else 1.0

    def delay_s(self, rng: random.Random) -> float:
        """From an answer until a canary: as from an answer until the person's next question."""
        pause = rng.choice(self._pauses) if self._pauses else _PAUSE_S
        return min(max(pause * rng.lognormvariate(0.0, 0.5), LEAST_DELAY_S), MOST_DELAY_S)


def typing_s(rng: random.Random, chars: int) -> float:
    """So long somebody types such a text, and has a price locked meanwhile."""
    return min(max(chars / _CHARS_PER_S * rng.uniform(0.6, 1.5), _LEAST_TYPING_S), _MOST_TYPING_S)


def looks_s(rng: random.Random) -> float:
    """So long after an order left, a price for the next message is asked for where somebody types."""
    return rng.uniform(0.2, 0.8)


def is_followed(rng: random.Random, rate: float, turns: float) -> bool:
    """Whether a canary follows an answer of a driver of which the part `rate` is to be audited. One that
    begins has so many `turns` on average: the fewer begin."""
    return rng.random() < AFTER * rate / turns


def goes_on(turns: int, chars: int, age_s: float, shape: Shape, most: int = MOST_SAID) -> bool:
    """Whether a made-up conversation of so many turns and characters, begun as one of this shape, has another
    turn of its length. `most`: characters that can be paid."""
    return turns < shape.turns and chars + shape.chars <= min(most, MOST_SAID) and age_s <= GOES_ON_S


def shortened(shape: Shape, most: int) -> Shape:
    """One whose system prompt and question have no more than `most` characters together."""
    system = min(shape.system, max(most // 2, most - shape.chars))
    return shape._replace(system=system, chars=max(1, min(shape.chars, most - system)))


def share(cap_day: int) -> int:
    """µcr of a day for canaries, of what may be spent in it."""
    return cap_day * SHARE_PPM // 1_000_000


class Today(NamedTuple):
    """µcr that are spent or held, of today."""

    orders: int
    """By all of them."""
    canaries: int


def part(cap: int, spent: Today) -> int:
    """µcr that may be reserved for one canary, of `cap` for those of the day."""
    return max(0, cap - spent.canaries) // PARTS


def reserved(hold: int, least: int, cap: int, cap_day: int, cap_request: int, spent: Today) -> int | None:
    """µcr that may be reserved for a canary with this hold, of which the driver is told; None: it is not
    sent. `least`: with less it is not worth it. `cap`: of the day, for canaries. What a message of the person
    may cost is always left of the day."""
    held = min(hold, part(cap, spent))
    if held < min(least, hold) or spent.orders + held + cap_request > cap_day:
        return None
    return held


def leaves_room(hold: int, most: int, room: int) -> bool:
    """Whether a canary with this hold leaves enough of the tab's `room` for the person: `most`, which a
    message like it could cost, or half of it."""
    return room - hold >= min(most, room // 2)


def most_tokens(held: int, prompt_cost: int, price_out: int, in_flight: int) -> int:
    """After so many tokens a canary is stopped, to cost no more than what is reserved for it; `in_flight`:
    tokens that come all the same. `price_out`: µcr per 1M tokens, above 0."""
    return max(0, (held - prompt_cost) * 1_000_000 // price_out - in_flight)
