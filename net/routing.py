"""Which driver is chosen when the person leaves it to the program: what was seen of each, and the rules.

Values and times in, values out; who keeps the evidence is not known here. Protocol §8. The evidence of a node
is of this machine's own requests alone; what others say of it comes as one number (reputation.py).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from infraxa.net.market import MILLION
from infraxa.net.records import DOES_ANSWERS, ModelOffer
from infraxa.net.reputation import NEW_RECEIPTS, PRIOR_STARS
from infraxa.net.status import SeenNode

Blame = Literal["own", "relay", "peer"]
"""Whose fault it was: this machine's own network, a relay between, the driver."""

Reason = Literal[
    "blocked",
    "offline",
    "no_way",
    "no_slots",
    "caught",
    "other_model",
    "too_small",
    "too_dear",
    "busy",
    "asked_to_wait",
    "cooling",
]
"""Why a candidate is not chosen; one that has several has the first of them."""

HALF_LIFE_MS: Final = 30 * 24 * 3600 * 1000
"""After so long an answer says half as much."""
NEW_ANSWERS: Final = NEW_RECEIPTS
"""Whoever gave fewer whole answers, with all of its models together, is NEW."""
NEW_SHARE: Final = 0.05
"""Of the automatic choices, those that go to the new ones while there are others."""
COOL_MS: Final = 8_000
"""Cool-down after a first fault; doubled with each that follows without an answer between."""
MAX_COOL_MS: Final = 8 * 60_000
MAX_WAIT_MS: Final = 10 * 60_000
"""A provider that asks for a longer wait is asked again after this one."""
N_PROMPT: Final = 256
"""Tokens of a prompt of which nothing is known."""
N_OUT: Final = 256
"""Likewise of an answer."""
VALUE_OF_TIME: Final = 4.0
"""µcr that a second of waiting is worth: at the default price (market.BASE_OUT) an answer that comes twice as
fast as 10 tokens per second may cost twice as much, which is 4 µcr for each second that it saves."""

_NEWEST: Final = 0.3
"""Weight of the last answer in what is measured."""
_LEAST, _MOST = 1e-3, 1e9
"""What is measured beyond these was not."""
_PRIOR: Final = (1.8, 2.0)
"""A node of which nothing is known counts as if of two answers nine in ten had come whole."""
_FAILURE_MS: Final = 15_000.0
"""What a failure costs: so long a silent driver is waited for (protocol §6)."""
_FIRST_TOKEN_MS: Final = 1_000.0
_SPEED: Final = 10.0
"""Tokens per second, for want of a measurement and of a promise."""
_MAX_PROMISE: Final = 200.0
"""Tokens per second: a promise is not believed beyond it."""
_WAITS_MS: Final = {
    "busy": 2_000,
    "rate_limited": 5_000,
    "expired": 10_000,
    "leaving": 30_000,
    "model_gone": 60_000,
    "strangers_full": 60_000,
    "not_allowed": MAX_WAIT_MS,
    "unsupported": MAX_WAIT_MS,
}
"""How long a provider that refused an order is left alone when it did not say, by the code on the wire. The
other codes are about the order, not about the provider."""
_LEAST_WAIT_MS: Final = 250
"""One that asks for less would be asked again and again."""


class Outcome(Struct, frozen=True):
    """How a request to a driver ended."""

    kind: Literal["answered", "failed", "cancelled", "refused"]
    """`answered`: it came whole. `cancelled`: by the person."""
    blame: Blame = "peer"
    """Of a failure."""
    code: str = ""
    """Of a refusal: a wire.ErrorCode."""
    retry_after_ms: int = 0
    """Of a refusal; 0 = not said."""
    first_token_ms: float | None = None
    """From the order's being sent, waiting in line left out; None: it was not measured."""
    tokens_per_second: float | None = None


class Evidence(Struct, frozen=True):
    """What was seen of one node with one model, or with all its models together."""

    answered: int = 0
    failed: int = 0
    """By a fault of its own."""
    whole: float = 0.0
    """Weight of the answers, at `weighed_ms`."""
    broken: float = 0.0
    """Weight of the failures."""
    weighed_ms: int = 0
    first_token_ms: float | None = None
    """Exponentially weighted mean, as the next one."""
    tokens_per_second: float | None = None
    faults: int = 0
    """Of the peer since its last answer; those during one cool-down are one."""
    fault_ms: int = 0
    """When the cool-down began."""
    refused_ms: int = 0
    wait_ms: int = 0
    """So long after `refused_ms` it is left alone."""


class Candidate(Struct, frozen=True):
    """A model of a node."""

    node: SeenNode
    model: ModelOffer
    pinned: bool = False
    blocked: bool = False
    evidence: Evidence = Evidence()
    """As `of_candidate` makes it."""
    pending: int = 0
    """Orders of this machine that it has not answered yet: newer than what it says of its load."""
    price_in: int = 0
    """µcr per 1M tokens of the prompt, now."""
    price_out: int = 0
    """Of the answer."""
    opinion: float = PRIOR_STARS
    """What others think of the node: reputation.Score.opinion, 1 to 5."""
    caught: str = ""
    """What it was found to have done, as a sentence: then it is chosen by nobody but a person."""


class Wanted(Struct, frozen=True):
    """What a driver is needed for."""

    model_id: bytes | None = None
    """None: any model."""
    context: int = 1
    """Tokens of the prompt and the answer together."""
    n_prompt: int = N_PROMPT
    n_out: int = N_OUT
    """Tokens that the answer will have, about."""
    max_price: int | None = None
    """µcr per 1M tokens, of the answer and of the prompt; None: any."""
    does: int = DOES_ANSWERS
    """What the model has to do: one of records.DOES_*."""
    fallback: Collection[bytes] = ()
    """Models that are taken only where no other one can be."""


def observed(evidence: Evidence, outcome: Outcome, now_ms: int) -> Evidence:
    """The evidence with one outcome more. `now_ms` may go back: then nothing is older than it."""
    kind, blame = outcome.kind, outcome.blame
    if kind == "refused":
        if outcome.code != "internal":
            wait_ms = min(outcome.retry_after_ms or _WAITS_MS.get(outcome.code, 0), MAX_WAIT_MS)
            if wait_ms > 0:
                evidence = replace(evidence, refused_ms=now_ms, wait_ms=max(wait_ms, _LEAST_WAIT_MS))
            return evidence
        kind, blame = "failed", "peer"
    evidence = replace(
        evidence,
        first_token_ms=_mean(evidence.first_token_ms, outcome.first_token_ms),
        tokens_per_second=_mean(evidence.tokens_per_second, outcome.tokens_per_second),
    )
    if kind == "cancelled" or (kind == "failed" and blame != "peer"):
        return evidence
    kept = _kept(evidence, now_ms)
    if kind == "answered":
        return replace(
            evidence,
            answered=evidence.answered + 1,
            whole=evidence.whole * kept + 1,
            broken=evidence.broken * kept,
            weighed_ms=now_ms,
            faults=0,
            wait_ms=0,
        )
    return replace(
        evidence,
        failed=evidence.failed + 1,
        whole=evidence.whole * kept,
        broken=evidence.broken * kept + 1,
        weighed_ms=now_ms,
        # Requests that ran side by side fail side by side: that is one fault.
        faults=evidence.faults + (cooling_ms(evidence, now_ms) == 0),
        fault_ms=now_ms,
    )


def of_candidate(node: Evidence, model: Evidence) -> Evidence:
    """What a choice goes by: of the node whether its answers come whole, since another model is announced in
    no time and would shed every failure; of its model how fast they come, and what it refused."""
    return replace(
        node,
        first_token_ms=model.first_token_ms,
        tokens_per_second=model.tokens_per_second,
        refused_ms=model.refused_ms,
        wait_ms=model.wait_ms,
    )


def success(evidence: Evidence) -> float | None:
    """Share of the answers that came whole, newer ones weigh more; None when none was asked for."""
    total = evidence.whole + evidence.broken
    return evidence.whole / total if total else None


def weights(evidence: Evidence, now_ms: int) -> tuple[float, float]:
    """What the answers that came whole and the failures weigh now, each 1 when it was new."""
    if not (evidence.whole or evidence.broken):
        return 0.0, 0.0
    kept = _kept(evidence, now_ms)
    return evidence.whole * kept, evidence.broken * kept


def weight_of_age(age_ms: int) -> float:
    """What evidence of this age says of what it said when it was new."""
    return float(0.5 ** (max(0, age_ms) / HALF_LIFE_MS))


def is_new(evidence: Evidence) -> bool:
    return evidence.answered < NEW_ANSWERS


def cooling_ms(evidence: Evidence, now_ms: int) -> int:
    """How much longer it is not chosen by itself after a fault of its own; at most MAX_COOL_MS."""
    if not evidence.faults:
        return 0
    # From the seventh fault on it would be more than the most.
    return _left(evidence.fault_ms, min(COOL_MS << min(evidence.faults - 1, 6), MAX_COOL_MS), now_ms)


def waiting_ms(evidence: Evidence, now_ms: int) -> int:
    """How much longer it is left alone because it refused; at most MAX_WAIT_MS."""
    return _left(evidence.refused_ms, evidence.wait_ms, now_ms)


def expected_ms(candidate: Candidate, now_ms: int, n_out: int = N_OUT) -> float:
    """When an answer of `n_out` tokens would be whole, on average, failures and load included.

    What was measured here goes before what the node says of itself. The time t of one attempt counts once for
    the answer, and each failed attempt before it, (1 − p) ÷ p on average, costs what a silent driver costs.
    """
    node, evidence = candidate.node, candidate.evidence
    first_ms = evidence.first_token_ms
    if first_ms is None:
        first_ms = (node.first_token_ms or _FIRST_TOKEN_MS) + (node.rtt_ms or 0.0)
    speed = evidence.tokens_per_second
    if speed is None:
        speed = min(candidate.model.speed / 1000, _MAX_PROMISE) or _SPEED
    decode_ms = n_out / speed * 1000
    slots = max(node.slots, 1)
    util = max(node.util / 255, min(1.0, candidate.pending / slots))
    # Answers share the machine; when all slots are taken, one of them is free after a slots-th of the mean
    # answer (exponential service times), for each who is before.
    line = max(int(node.util == 255), candidate.pending + 1 - slots)
    line_ms = line * decode_ms / slots
    p = _likelihood(evidence, now_ms)
    return first_ms * (1 + util) + decode_ms * (1 + util) + line_ms + (1 - p) / p * _FAILURE_MS


def expected_cost(candidate: Candidate, wanted: Wanted, now_ms: int) -> float:
    """What an answer would cost in µcr, the time until it is whole included. Below a middling opinion of the
    others the same answer counts for more, above it for less: at one star for three times as much."""
    money = (candidate.price_in * wanted.n_prompt + candidate.price_out * wanted.n_out) / MILLION
    seconds = expected_ms(candidate, now_ms, wanted.n_out) / 1000
    return (money + seconds * VALUE_OF_TIME) * PRIOR_STARS / candidate.opinion


def why_not(candidate: Candidate, wanted: Wanted, now_ms: int) -> Reason | None:
    """Why this one is not chosen by itself; None: it can be."""
    node, evidence = candidate.node, candidate.evidence
    if candidate.blocked:
        return "blocked"
    if node.status == "offline":
        return "offline"
    if not node.dialable:
        return "no_way"
    if node.slots == 0:
        return "no_slots"
    if candidate.caught:
        return "caught"
    if wanted.model_id is not None and candidate.model.model_id != wanted.model_id:
        return "other_model"
    if not candidate.model.does & wanted.does:
        return "other_model"
    if candidate.model.context < wanted.context:
        return "too_small"
    if wanted.max_price is not None and max(candidate.price_in, candidate.price_out) > wanted.max_price:
        return "too_dear"
    if node.status == "busy":
        return "busy"
    if waiting_ms(evidence, now_ms):
        return "asked_to_wait"
    if cooling_ms(evidence, now_ms):
        return "cooling"
    return None


def choose(
    candidates: Iterable[Candidate],
    wanted: Wanted,
    now_ms: int,
    rng: random.Random,
    exclude: Collection[bytes] = (),
) -> Candidate | None:
    """The driver, or None when nobody can be. `exclude`: nodes that are not to be asked.

    Of two that are drawn the one with the better expected cost and time: users who all see the same do not
    all go to the same one (the power of two choices, Mitzenmacher 2001). Those that cool down are taken only
    when there is nobody else, the one that has cooled most first; those that are pinned before all others.
    """
    ready: list[Candidate] = []
    cooling: list[Candidate] = []
    for candidate in candidates:
        if candidate.node.id in exclude:
            continue
        reason = why_not(candidate, wanted, now_ms)
        if reason is None:
            ready.append(candidate)
        elif reason == "cooling":
            cooling.append(candidate)
    if not ready:
        return min(cooling, key=lambda one: cooling_ms(one.evidence, now_ms), default=None)
    pool = [candidate for candidate in ready if candidate.pinned] or ready
    pool = [candidate for candidate in pool if candidate.model.model_id not in wanted.fallback] or pool
    if not pool[0].pinned:
        pool = _lane(pool, rng)
    # Nodes are drawn, not models: a card full of models is no more likely.
    nodes = list(dict.fromkeys(candidate.node.id for candidate in pool))
    drawn = rng.sample(nodes, min(2, len(nodes)))
    return min(
        # In the order in which they were drawn: between equals, that decides.
        (candidate for node in drawn for candidate in pool if candidate.node.id == node),
        key=lambda one: expected_cost(one, wanted, now_ms),
    )


def _lane(ready: list[Candidate], rng: random.Random) -> list[Candidate]:
    """The new ones or the others, by lot; nobody can take over by being many and new."""
    known = [candidate for candidate in ready if not is_new(candidate.evidence)]
    new = [candidate for candidate in ready if is_new(candidate.evidence)]
    if not known or not new:
        return ready
    return new if rng.random() < NEW_SHARE else known


def _kept(evidence: Evidence, now_ms: int) -> float:
    """What the weights are multiplied by since they were last weighed."""
    return weight_of_age(now_ms - evidence.weighed_ms)


def _likelihood(evidence: Evidence, now_ms: int) -> float:
    """That the next answer comes whole: the mean of what was seen and of the prior. Between 0 and 1."""
    came, failed = weights(evidence, now_ms)
    whole, total = _PRIOR
    return (whole + came) / (total + came + failed)


def _mean(so_far: float | None, newest: float | None) -> float | None:
    if newest is None or not _LEAST <= newest <= _MOST:
        return so_far
    return newest if so_far is None else so_far + _NEWEST * (newest - so_far)


def _left(since_ms: int, length_ms: int, now_ms: int) -> int:
    """What is left of a time; nothing when the clock went back before its beginning."""
    return max(0, since_ms + length_ms - now_ms) if now_ms >= since_ms else 0
