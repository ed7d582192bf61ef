"""What the simulation of the market shows, in numbers: settling, oscillation, newcomers, rings."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from infraxa.net import market, reputation
from infraxa.net.market import BASE_OUT, MILLION
from infraxa.net.ratings import Rating
from infraxa.net.reputation import FULL_AMOUNT, PRIOR_STARS, PRIOR_WEIGHT, Counterparty
from infraxa.net.tab import Pool, Quota
from tests.bench._market_world import DAY, SAMPLE_S, Sample, World

BAND = 0.1
"""Settled: from then on within a tenth of where it ends. A price is told when it moved as much."""
SMOOTH = 3
"""Samples of which the market's price is the mean."""
LAGS_S = 100.0
"""Oscillations of up to twice this period are looked for. News takes a second, an answer about twenty."""


@dataclass(frozen=True)
class Settling:
    """How the price goes from one demand to another."""

    before: float
    after: float
    """Mean of the last third; price ÷ base price, as all here."""
    rise_s: float
    """From the step until nine tenths of the way are done."""
    settled_s: float
    """From the step until it stays within BAND of `after`."""
    overshoot: float
    """The highest (after a step down: the lowest) beyond `after`, ÷ the step; 0 = none."""
    amplitude: float
    """In the last third: half of what lies between the 5th and 95th percentile, ÷ mean; of the market."""
    provider_amplitude: float
    """Likewise of one provider's own price: the median of all whose price moved."""
    swing: float
    """The lowest autocorrelation of a provider's own price after the first third, mean of all: 0 = what it
    was is forgotten and does not come back, -1 = it swings to and fro."""


def settling(samples: Sequence[Sample], step_s: float, end_s: float) -> Settling:
    """Of a step in the demand at `step_s`; the next one is at `end_s`."""
    before = [one.price for one in samples if step_s - 200 <= one.at <= step_s]
    during = [one for one in samples if step_s < one.at <= end_s]
    last = during[-len(during) // 3 :]
    start, level = statistics.mean(before), statistics.mean(one.price for one in last)
    prices = [
        statistics.mean(one.price for one in during[max(0, number - SMOOTH + 1) : number + 1])
        for number in range(len(during))
    ]
    outside = [one.at for one, price in zip(during, prices, strict=True) if abs(price / level - 1) > BAND]
    ways = [(price - start) / (level - start) for price in prices]
    own = [
        [one.prices[number] for one in during[len(during) // 3 :]] for number in range(len(last[0].prices))
    ]
    amplitudes = [amplitude(prices[-len(last) :]) for prices in own]
    return Settling(
        before=start,
        after=level,
        rise_s=next(one.at for one, way in zip(during, ways, strict=True) if way >= 0.9) - step_s,
        settled_s=(max(outside) if outside else step_s) - step_s,
        overshoot=max(ways) - 1,
        amplitude=amplitude([one.price for one in last]),
        provider_amplitude=statistics.median(one for one in amplitudes if one > 0),
        swing=swing(own),
    )


def swing(series: Sequence[Sequence[float]]) -> float:
    """See Settling. Each of `series` is sampled as the market is; those that never move are left out."""
    moving = []
    for one in series:
        mean = statistics.mean(one)
        if max(one) > min(one):
            moving.append([value - mean for value in one])
    lags = range(1, round(LAGS_S / SAMPLE_S) + 1)
    return min(statistics.mean(_correlation(one, lag) for one in moving) for lag in lags)


def _correlation(series: Sequence[float], lag: int) -> float:
    products = [value * later for value, later in zip(series, series[lag:], strict=False)]
    return sum(products) / sum(value * value for value in series)


def amplitude(prices: Sequence[float]) -> float:
    """Half of what lies between the 5th and the 95th percentile, ÷ mean."""
    ordered = sorted(prices)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    return (high - low) / 2 / statistics.mean(ordered)


@dataclass(frozen=True)
class Newcomers:
    """What those got whom nobody knew."""

    capacity: float
    """Their share of what all can compute."""
    orders: float
    """Their share of the orders."""
    served: float
    """Share of them that got one at all."""
    median_s: float
    """Until the first; who got none counts as the whole time."""
    per_hour: float
    """Orders of one, mean."""


def newcomers(world: World) -> Newcomers:
    new = [one for one in world.honest if one.newcomer]
    end_s = world.config.end_s
    return Newcomers(
        sum(one.most for one in new) / sum(one.most for one in world.honest),
        sum(one.orders for one in new) / sum(one.orders for one in world.honest),
        sum(one.orders > 0 for one in new) / len(new),
        statistics.median(end_s if one.first_order is None else one.first_order for one in new),
        sum(one.orders for one in new) / len(new) * 3600 / end_s,
    )


@dataclass(frozen=True)
class Gain:
    """What a ring got, and what the rules allow."""

    got: float
    bound: float


def praised(settled: int, count: int, seed: int) -> Gain:
    """The opinion that somebody has of a provider which `count` fresh accounts praise, and as often an
    account that settled `settled` µcr with the reader before.

    Bound: that of one counterparty's ratings together weighing `settled` ÷ FULL_AMOUNT, all five stars.
    """
    rng = random.Random(seed)
    provider, friend = rng.randbytes(32), rng.randbytes(32)
    known = {friend: Counterparty(settled)} if settled else {}
    ratings = [
        Rating(provider, rng.randbytes(32), 5, DAY, rng.randrange(1, 62), rng.randbytes(16))
        for _ in range(count)
    ] + [Rating(provider, friend, 5, DAY, rng.randrange(1, 62), rng.randbytes(16)) for _ in range(count)]
    heard = reputation.weighed(ratings, known)
    weight = settled / FULL_AMOUNT
    bound = (PRIOR_WEIGHT * PRIOR_STARS + 5 * weight) / (PRIOR_WEIGHT + weight)
    return Gain(reputation.score(reputation.Evidence(), heard, DAY).opinion, bound)


def credit(accounts: int, groups: int, seed: int) -> Gain:
    """µcr for which one provider serves fresh accounts in a day that never pay. `groups`: of addresses from
    which they come; half of them come through relays as well.

    Bound: the pool, or less: 10 000 µcr for each group of addresses, and once for all relays.
    """
    rng, pool, got = random.Random(seed), Pool(), 0
    for number in range(accounts):
        account, group = rng.randbytes(32), None if number % 2 else str(rng.randrange(groups))
        rates = market.rates(BASE_OUT, rng.randrange(2 * MILLION))
        n_prompt, n_out = rng.randrange(1, 4096), rng.randrange(1, 2048)
        hold = market.hold(n_prompt, 2048, rates)
        if pool.take(account, group, hold, DAY) is None:
            charge = market.charge(n_prompt, 0, n_out, rates, hold)
            pool.count(account, group, charge - hold, DAY)
            got += charge
    return Gain(got, min(pool.in_all, groups * pool.per_group + pool.per_relayed))


def free_requests(accounts: int, groups: int, seed: int) -> Gain:
    """Free answers of one provider in a day for fresh accounts. Bound: 3 for each group of addresses, none
    through a relay, 1000 in all."""
    rng, quota, got = random.Random(seed), Quota(), 0
    for number in range(accounts):
        group = None if number % 2 else str(rng.randrange(groups))
        account = rng.randbytes(32)
        while quota.take(account, group, 1, DAY) is None:
            got += 1
    return Gain(got, min(quota.in_all, groups * quota.per_group))
