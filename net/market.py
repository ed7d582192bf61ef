"""The rules of the market in numbers: the price now, what an order may cost and does, how a charge is split.

Integers throughout: µcr for amounts, µcr per 1M tokens for prices, parts per million for ratios, milliseconds
for times, which are passed in. Every rounding is upwards, so that what has a price never becomes free; who
owes whom how much is in tab.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from infraxa.net.deals import Outcome
from infraxa.net.records import Micro

MILLION: Final = 1_000_000
BASE_OUT: Final = 200_000
"""The default base price, µcr per 1M tokens of the answer."""
MAX_PRICE: Final = 10**12
"""No price is higher: what 2³² tokens cost at this one still fits into 64 bits."""
HALF_LIFE_MS: Final = 10_000
"""After so long the price has done half of its way to where the demand takes it."""
WORK_MS: Final = 60_000
"""Work for so long, running and waiting, is a demand of 1."""
FIRST_OUT: Final = 256
"""Tokens that an answer is thought to have while none was seen."""
FIRST_SPEED: Final = 10_000
"""Thousandths of a token per second, while nothing was measured."""
UNBOUNDED: Final = 2**31 - 1
"""Tokens, where the price sets no limit."""

_UNIT: Final = 32
"""Bits behind the point in the sums of `Demand`."""
_NEWEST: Final = 8
"""The newest answer counts as one in so many of the mean."""
_DRIVER, _WORKERS, _VALIDATOR = 15, 70, 15
"""Hundredths of a pipeline's charge."""


class Rates(Struct, array_like=True, frozen=True):
    """What an order pays, µcr per 1M tokens."""

    price_in: Micro
    price_out: Micro
    price_cached: Micro
    """Of tokens of the prompt that the driver had computed before."""


FREE: Final = Rates(0, 0, 0)


def rates(base_out: int, u_ppm: int, *, floor: int | None = None, ceiling: int | None = None) -> Rates:
    """The prices at a base price and a demand: base × (1 + u)² for the answer, a quarter of it for the
    prompt, a quarter of that for a cached prefix (protocol §6).

    `floor` and `ceiling`, µcr per 1M tokens of the answer, are the provider's own choice; where they
    contradict each other the ceiling holds. A base price of 0 is free at any demand and with any floor.
    """
    if base_out <= 0:
        return FREE
    price = _up(base_out * (MILLION + max(u_ppm, 0)) ** 2, MILLION**2)
    price = max(price, floor or 0)
    if ceiling is not None:
        price = min(price, ceiling)
    price = min(price, MAX_PRICE)
    price_in = _up(price, 4)
    return Rates(price_in, price, _up(price_in, 4))


class Outputs:
    """How long the answers of one model are: their running mean."""

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = FIRST_OUT << _UNIT

    def ended(self, n_out: int) -> None:
        """An answer was over after `n_out` tokens."""
        self._mean += ((n_out << _UNIT) - self._mean) // _NEWEST

    @property
    def mean(self) -> int:
        """Tokens, rounded."""
        return max(1, (self._mean + (1 << _UNIT - 1)) >> _UNIT)

    def left(self, orders: Iterable[tuple[int, int]]) -> int:
        """Tokens that are still to be computed for these orders, running and waiting, each (`max_out`,
        delivered): the mean at most, since most answers end before their limit."""
        mean = self.mean
        return sum(max(0, min(max_out, mean) - delivered) for max_out, delivered in orders)


class Demand:
    """How much work there is, smoothed by time alone: the `u` of the price.

    The smoothing is u' = (load − u) × ln 2 ÷ half-life with the load that was said last, so that it does not
    matter how often it is said, in how many orders the same tokens come, nor how often the price is asked.
    """

    __slots__ = ("_at_ms", "_load", "_u")

    def __init__(self, now_ms: int) -> None:
        """`now_ms`: of the monotonic clock."""
        self._u = 0
        self._load = 0
        self._at_ms = now_ms

    def feed(self, tokens: int, speed: int, now_ms: int) -> None:
        """From now on `tokens` are to be computed (Outputs.left), at `speed` thousandths of a token per
        second, all slots together; 0: it was not measured."""
        work_ms = max(tokens, 0) * MILLION // (speed if speed > 0 else FIRST_SPEED)
        load = _up(work_ms << _UNIT, WORK_MS)
        if load == self._load:
            return  # so that saying the same again cannot even change a rounding
        self._u = self._at(now_ms)
        self._load = load
        self._at_ms = max(now_ms, self._at_ms)

    def u_ppm(self, now_ms: int) -> int:
        return self._at(now_ms) * MILLION >> _UNIT

    def _at(self, now_ms: int) -> int:
        age_ms = max(0, now_ms - self._at_ms)
        kept = round(math.exp2(_UNIT - age_ms / HALF_LIFE_MS))
        return (self._u * kept + self._load * ((1 << _UNIT) - kept)) >> _UNIT


def hold(n_prompt: int, max_out: int, rates: Rates) -> int:
    """The most that an order can cost: µcr to be reserved before it is sent."""
    return _cost(n_prompt, 0, max_out, rates)


def affordable(hold: int, n_prompt: int, n_cached: int, rates: Rates) -> int:
    """How many tokens an answer may have without costing more than `hold`; -1: not even the prompt is paid
    by it. UNBOUNDED when they cost nothing."""
    left = hold * MILLION - _parts(n_prompt, n_cached, 0, rates)
    if left < 0:
        return -1
    return min(left // rates.price_out, UNBOUNDED) if rates.price_out else UNBOUNDED


def charge(n_prompt: int, n_cached: int, n_out: int, rates: Rates, hold: int) -> int:
    """µcr for a prompt of `n_prompt` tokens, `n_cached` of them from a cache, and `n_out` of the answer;
    never above `hold`."""
    return min(_cost(n_prompt, n_cached, n_out, rates), hold)


def charge_of(
    outcome: Outcome, n_prefilled: int, n_prompt: int, n_cached: int, n_out: int, rates: Rates, hold: int
) -> int:
    """As `charge`, by how the answer ended. Before the first token: nothing when the driver ended it; what
    was computed of the prompt, `n_prefilled` tokens with those from the cache, when the user did. Vectors
    and scores are of no tokens."""
    if n_out > 0 or outcome in ("embedded", "scored"):
        return charge(n_prompt, n_cached, n_out, rates, hold)
    if outcome != "cancelled":
        return 0
    return charge(min(n_prefilled, n_prompt), n_cached, 0, rates, hold)


def split(
    charge: int, layers: Sequence[tuple[bytes, int]], driver: bytes, validator: bytes
) -> dict[bytes, int]:
    """Who gets how much of a pipeline's charge: the driver 15 %, the validator 15 %, the workers 70 % by
    their `layers`; whoever has several roles gets the sum. Without layers of others the driver is the whole
    model, and takes all. The parts add up to the charge (largest remainder; between equals, by id)."""
    total = sum(count for _, count in layers)
    if not total:
        return {driver: charge}
    weights: dict[bytes, int] = {}
    for node, weight in (
        (driver, _DRIVER * total),
        (validator, _VALIDATOR * total),
        *((worker, _WORKERS * count) for worker, count in layers),
    ):
        weights[node] = weights.get(node, 0) + weight
    whole = 100 * total
    parts = {node: charge * weight // whole for node, weight in weights.items()}
    short = charge - sum(parts.values())
    for node in sorted(weights, key=lambda node: (-(charge * weights[node] % whole), node))[:short]:
        parts[node] += 1
    return parts


def _cost(n_prompt: int, n_cached: int, n_out: int, rates: Rates) -> int:
    return _up(_parts(n_prompt, n_cached, n_out, rates), MILLION)


def _parts(n_prompt: int, n_cached: int, n_out: int, rates: Rates) -> int:
    """Millionths of a µcr."""
    n_cached = min(n_cached, n_prompt)
    return (n_prompt - n_cached) * rates.price_in + n_cached * rates.price_cached + n_out * rates.price_out


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)
