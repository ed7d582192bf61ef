"""What a provider is worth by what is known of it: stars from own receipts, own audits and ratings.

Values in, values out. Protocol §8. Evidence in falling weight: an answer that this machine received, an audit
that it made, a rating by somebody with whom it has business. Ratings by anybody else are counted and move
nothing: a provider can issue them to itself. A Bayesian mean, so that little evidence says little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from infraxa.net.ratings import Rating

HALF_LIFE_DAYS: Final = 30
"""After so long evidence says half as much."""
NEW_RECEIPTS: Final = 10
"""Whoever gave fewer whole answers here is NEW."""
PRIOR_STARS: Final = 3.0
"""What is thought of a provider of which nothing is known: the middle."""
PRIOR_WEIGHT: Final = 4.0
OWN_RECEIPT: Final = 4.0
"""What an own receipt weighs, in ratings of the highest weight."""
OWN_AUDIT: Final = 2.0
FULL_AMOUNT: Final = 1_000
"""µcr: a rating for so much weighs 1, for less in proportion, so that nobody gains by cutting an amount into
pieces. 5000 tokens at the default price."""
FAR: Final = 0.25
"""What a rating weighs when not this machine but a counterparty of it has business with its writer."""


class Evidence(Struct, frozen=True):
    """What this machine saw of a provider itself."""

    receipts: int = 0
    """Answers that came whole, whenever."""
    whole: float = 0.0
    """What they weigh now, each 1 when it came."""
    broken: float = 0.0
    """Likewise, of answers that did not come or were cut."""
    speed: float | None = None
    """Tokens per second, measured ÷ promised; None: not measured or not promised."""
    first_token: float | None = None
    """Time to the first token, promised ÷ measured."""
    passed: float = 0.0
    """Weight of the audits that it passed."""
    caught: float = 0.0
    """Weight of those that it did not."""


class Counterparty(Struct, frozen=True):
    """Somebody with whom there is a settled or served-back tab."""

    amount: int
    """µcr that were settled or served back: its ratings weigh as much as ratings for this amount at most."""
    near: bool = True
    """With this machine; False: with a counterparty of it."""


class Weighted(Struct, frozen=True):
    """A rating and what it weighs here."""

    stars: int
    day: int
    weight: float = 0.0
    """0 to 1, before its age; 0 = shown as one more and moves nothing."""


class Score(Struct, frozen=True):
    """What is shown of a provider."""

    stars: float | None = None
    """1 to 5; None: nothing that weighs is known."""
    ratings: int = 0
    """Those that weigh."""
    unweighted: int = 0
    new: bool = True
    """Fewer than NEW_RECEIPTS own receipts."""
    opinion: float = PRIOR_STARS
    """Stars by the ratings that weigh alone, with the prior: what the others' word is worth in a choice."""


def weighed(ratings: Iterable[Rating], known: Mapping[bytes, Counterparty]) -> list[Weighted]:
    """`ratings` of one provider with their weights. `known`: by account key or node id.

    The amount of a counterparty is used up by its ratings, newest first: all ratings of one weigh together at
    most its amount ÷ FULL_AMOUNT, however many there are.
    """
    left = {key: one.amount for key, one in known.items()}
    found = []
    for rating in sorted(ratings, key=lambda one: (-one.day, one.order, one.account)):
        key = rating.account if rating.account in known else rating.node
        weight = 0.0
        if key in known:
            amount = max(0, min(rating.amount, FULL_AMOUNT, left[key]))
            left[key] -= amount
            weight = amount / FULL_AMOUNT * (1.0 if known[key].near else FAR)
        found.append(Weighted(rating.stars, rating.day, weight))
    return found


def score(own: Evidence, ratings: Iterable[Weighted], now_day: int) -> Score:
    """What is to be thought of a provider today."""
    said = said_weight = 0.0
    heavy = light = 0
    for one in ratings:
        if one.weight <= 0:
            light += 1
            continue
        heavy += 1
        weight = one.weight * aged(now_day - one.day)
        said += weight * one.stars
        said_weight += weight
    seen_weight = OWN_RECEIPT * (own.whole + own.broken) + OWN_AUDIT * (own.passed + own.caught)
    seen = OWN_RECEIPT * (own.whole + own.broken) * own_stars(own)
    seen += OWN_AUDIT * (5 * own.passed + own.caught)
    prior = PRIOR_WEIGHT * PRIOR_STARS
    known = seen_weight + said_weight > 0
    return Score(
        stars=(prior + seen + said) / (PRIOR_WEIGHT + seen_weight + said_weight) if known else None,
        ratings=heavy,
        unweighted=light,
        new=own.receipts < NEW_RECEIPTS,
        opinion=(prior + said) / (PRIOR_WEIGHT + said_weight),
    )


def own_stars(own: Evidence) -> float:
    """1 to 5 by what this machine saw: 5 when every answer came whole and as fast as promised. What comes at
    half the promised speed, or after twice the promised time, loses an eighth of them for each."""
    total = own.whole + own.broken
    if total <= 0:
        return PRIOR_STARS
    kept = 0.5 + 0.25 * _part(own.speed) + 0.25 * _part(own.first_token)
    return 1 + 4 * own.whole / total * kept


def aged(days: int) -> float:
    """What is left of a weight after so many days."""
    return float(0.5 ** (max(0, days) / HALF_LIFE_DAYS))


def _part(kept: float | None) -> float:
    return 1.0 if kept is None else min(1.0, max(0.0, kept))
