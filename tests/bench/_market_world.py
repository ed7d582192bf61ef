"""A simulated market: providers and users in one process, on a clock of its own, by the rules of the program.

The real rules are used: prices, holds and charges (net/market.py), the strangers' pool (net/tab.py), the
choice of a driver (net/routing.py), what is thought of one (net/reputation.py), and when a provider tells its
price and load (net/heartbeat.py). Simulated are machines, persons, tabs, and the time that news takes.

A provider's slots share its machine: alone an answer has the promised speed, with all slots taken half of it.
Users see what was told NEWS_S ago; each has its own evidence, budget and highest price.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from infraxa.net import market, reputation, routing
from infraxa.net.heartbeat import Heartbeat
from infraxa.net.market import BASE_OUT, Demand, Outputs, Rates
from infraxa.net.ratings import Rating
from infraxa.net.records import ModelOffer, PriceNow, State, Status
from infraxa.net.reputation import Counterparty
from infraxa.net.routing import Candidate, Evidence, Outcome, Wanted
from infraxa.net.status import SeenNode
from infraxa.net.tab import DAY_MS as ONE_DAY_MS
from infraxa.net.tab import Pool

MODEL: Final = b"m" * 32
DAY: Final = 20_000
DAY_MS: Final = DAY * ONE_DAY_MS
NEWS_S: Final = 1.0
"""From a provider's telling its state until everybody has it."""
SAMPLE_S: Final = 5.0
MAX_OUT: Final = 512
PREFILL: Final = 8
"""A token of the prompt costs an eighth of one of the answer."""
TAB_LIMIT: Final = 20_000
"""µcr that a known user may owe."""
TRIES: Final = 4
RATES_SHARE: Final = 0.3
"""Of the answers that are rated."""


@dataclass(frozen=True)
class Config:
    """What is simulated."""

    providers: int = 240
    newcomers: float = 1 / 3
    """Share of the providers of which nobody has evidence at the start."""
    users: int = 600
    acquainted: int = 20
    """Of the other providers, those that a user knows well."""
    orders_per_s: float = 9.0
    steps: tuple[tuple[float, float], ...] = ((0.0, 1.0), (600.0, 2.5), (1500.0, 1.0))
    """(from second, times the orders)."""
    end_s: float = 2100.0
    ring: int = 0
    """Hostile providers, all fresh: cheap, praised by themselves, and what they answer is worth nothing."""
    herd: bool = False
    """Everybody takes the very best of all that it sees: what the choice between two is there to prevent."""
    seed: int = 1


class Job:
    """An order at a provider."""

    __slots__ = (
        "at",
        "began",
        "charge",
        "hold",
        "n_out",
        "n_prompt",
        "rates",
        "size",
        "stranger",
        "user",
        "work",
    )

    def __init__(self, user: User, n_prompt: int, n_out: int, rates: Rates, hold: int, at: float) -> None:
        self.user, self.n_prompt, self.n_out = user, n_prompt, n_out
        self.rates, self.hold, self.at = rates, hold, at
        self.size = n_out + n_prompt / PREFILL
        self.began = 0.0
        self.work = 0.0
        """What the provider's counter was when it began."""
        self.charge = 0
        self.stranger = False


@dataclass
class Tab:
    """Of a known user."""

    owed: int = 0
    held: int = 0


class Provider:
    """One that offers, its machine and its book."""

    def __init__(self, number: int, rng: random.Random, newcomer: bool, ring: bool) -> None:
        self.id = rng.randbytes(32)
        self.number = number
        self.newcomer = newcomer
        self.ring = ring
        self.slots = rng.choice((1, 2, 2, 4, 4, 8))
        self.speed = min(60.0, max(3.0, rng.lognormvariate(2.6, 0.6)))
        """Tokens per second of an answer alone."""
        self.base = BASE_OUT // 4 if ring else round(BASE_OUT * rng.lognormvariate(0.0, 0.4))
        self.fails = 0.0 if ring else rng.choice((0.0, 0.01, 0.01, 0.05))
        self.stars = 1 if ring else 3 if self.fails == 0.05 else 5
        """What is thought of an answer."""
        self.demand = Demand(0)
        self.outputs = Outputs()
        self.pool = Pool()
        self.tabs: dict[bytes, Tab] = {}
        self.running: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.work = 0.0
        """Tokens that each of the running orders had, had it run from the start."""
        self.at = 0.0
        self.turn = 0
        """Counts what makes a foreseen end void."""
        self.heart = Heartbeat(rng)
        self.first_ms = 0
        self.orders = 0
        self.first_order: float | None = None
        self.earned = 0
        offer = market.rates(self.base, 0)
        self.offer = ModelOffer(
            "m", "a", "Q4", MODEL, 8192, 4096, offer.price_in, offer.price_out, speed=round(self.speed * 1000)
        )
        self.plain = self._candidate("online", 0, 0, offer)

    @property
    def most(self) -> float:
        """Tokens per second with all slots taken."""
        return self.slots * self.pace(self.slots)

    def pace(self, running: int) -> float:
        """Tokens per second of each of so many."""
        return self.speed / (1 + (running - 1) / max(1, self.slots - 1))

    def advance(self, now: float) -> None:
        if self.running:
            self.work += self.pace(len(self.running)) * (now - self.at)
        self.at = now

    def feed(self, now: float) -> None:
        """Tell the demand of the work that there is; `advance` was called."""
        left = self.outputs.left(
            [(MAX_OUT, max(0, int(self.work - job.work - job.n_prompt / PREFILL))) for job in self.running]
            + [(MAX_OUT, 0)] * len(self.waiting)
        )
        self.demand.feed(left, round(self.most * 1000), round(now * 1000))

    def rates(self, now: float) -> Rates:
        return market.rates(self.base, self.demand.u_ppm(round(now * 1000)))

    def full(self) -> bool:
        return len(self.running) >= self.slots and len(self.waiting) >= 2 * self.slots

    def state(self, now: float) -> State:
        rates = self.rates(now)
        return State(
            0,
            b"c" * 8,
            "busy" if self.full() else "online",
            255 * len(self.running) // self.slots,
            (PriceNow(0, rates.price_in, rates.price_out),),
            self.first_ms,
        )

    def seen(self, state: State) -> None:
        """What users see from now on."""
        price = state.prices[0]
        self.plain = self._candidate(
            state.status, state.util, state.first_token_ms, Rates(price.price_in, price.price_out, 0)
        )

    def _candidate(self, status: Status, util: int, first_ms: int, rates: Rates) -> Candidate:
        node = SeenNode(
            self.id, "p", status, 0.0, ("ws://x",), (), self.slots, util, (self.offer,), (), first_ms, 20.0
        )
        return Candidate(node, self.offer, price_in=rates.price_in, price_out=rates.price_out)


@dataclass
class User:
    """A person who asks, and what its program remembers."""

    id: bytes
    max_price: int
    """µcr per 1M tokens of the answer."""
    budget: int
    """µcr in the whole of the simulated time."""
    spent: int = 0
    held: int = 0
    evidence: dict[int, Evidence] = field(default_factory=dict)
    """By the provider's number."""
    pending: Counter[int] = field(default_factory=Counter)
    opinions: dict[int, float] = field(default_factory=dict)
    known: dict[bytes, Counterparty] = field(default_factory=dict)


@dataclass
class Sample:
    """The market in SAMPLE_S."""

    at: float
    price: float
    """Price now ÷ base price, mean over what all (but the ring) can compute."""
    busy: float
    """Share of the slots that are taken."""
    asked: int
    began: int
    to_newcomers: int
    to_ring: int
    prices: tuple[float, ...]
    """Of each honest provider, price now ÷ base price."""


class World:
    """The market: an ordered list of what happens next."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rng = rng = random.Random(config.seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        new = round(config.providers * config.newcomers)
        self.providers = [
            Provider(number, rng, newcomer=number < new, ring=False) for number in range(config.providers)
        ] + [
            Provider(config.providers + number, rng, newcomer=True, ring=True)
            for number in range(config.ring)
        ]
        self.honest = self.providers[: config.providers]
        self.by_id = {provider.id: provider for provider in self.providers}
        self.users = [self._user() for _ in range(config.users)]
        self.readers: dict[bytes, list[User]] = {user.id: [] for user in self.users}
        for user in self.users:
            for other in rng.sample(self.users, 4):
                if other is not user:
                    user.known[other.id] = Counterparty(5_000)
                    self.readers[other.id].append(user)
        self.ratings: dict[int, list[Rating]] = {provider.number: [] for provider in self.providers}
        for provider in self.providers[config.providers :]:
            self.ratings[provider.number] = praise(provider.id, 100, rng)
        self.samples: list[Sample] = []
        self.ends: Counter[str] = Counter()
        """How requests ended; `answered`, `failed`, or why nobody took it."""
        self.refused = 0
        """Orders that came to a provider which had no room."""
        self.free_choices = 0
        """Choices while somebody known was ready."""
        self.free_ring = 0
        """Of them, those of the ring."""
        self._asked = self._began = self._to_new = self._to_ring = 0

    def _user(self) -> User:
        rng, config = self.rng, self.config
        user = User(
            rng.randbytes(32),
            max_price=round(BASE_OUT * rng.lognormvariate(1.1, 0.7)),
            budget=round(rng.lognormvariate(9.3, 0.8)),
        )
        old = [provider.number for provider in self.honest if not provider.newcomer]
        for number in rng.sample(old, min(config.acquainted, len(old))):
            provider = self.providers[number]
            count = rng.randrange(10, 30)
            user.evidence[number] = Evidence(
                answered=count, whole=float(count), weighed_ms=DAY_MS, tokens_per_second=provider.speed * 0.8
            )
            provider.tabs[user.id] = Tab()
        return user

    # Time

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, arguments))

    def run(self) -> World:
        self.at(self._next_order(), self._order)
        for provider in self.providers:
            self.at(self.rng.random(), self._beat, provider)
        self.at(SAMPLE_S, self._sample)
        while self._events and self._events[0][0] <= self.config.end_s:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        return self

    def times(self, when: float) -> float:
        """How many times the usual orders there are."""
        return [factor for since, factor in self.config.steps if since <= when][-1]

    def _next_order(self) -> float:
        # A Poisson process whose rate changes, by thinning: exact, and the same draws at every rate.
        most = max(factor for _, factor in self.config.steps)
        when = self.now
        while True:
            when += self.rng.expovariate(self.config.orders_per_s * most)
            if self.rng.random() * most < self.times(when):
                return when

    @property
    def now_ms(self) -> int:
        return DAY_MS + round(self.now * 1000)

    # Users

    def _order(self) -> None:
        self.at(self._next_order(), self._order)
        rng = self.rng
        user = rng.choice(self.users)
        n_prompt = min(4000, round(rng.lognormvariate(5.0, 0.9)) + 8)
        n_out = min(MAX_OUT, round(rng.lognormvariate(5.0, 0.7)) + 1)
        self._asked += 1
        self.ends[self._try(user, n_prompt, n_out)] += 1

    def _try(self, user: User, n_prompt: int, n_out: int) -> str:
        """`began`, or why nobody took it."""
        wanted = Wanted(MODEL, n_prompt + MAX_OUT, n_prompt, max_price=user.max_price)
        exclude: list[bytes] = []
        why = "nobody"
        for _ in range(TRIES):
            candidates = self._candidates(user)
            chosen = self._choose(candidates, wanted, exclude)
            if chosen is None:
                return why
            provider = self.by_id[chosen.node.id]
            rates = provider.rates(self.now)
            exclude.append(provider.id)
            if rates.price_out > user.max_price:
                why = "dearer than seen"
                continue
            hold = market.hold(n_prompt, MAX_OUT, rates)
            if user.spent + user.held + hold > user.budget:
                return "budget"
            job = Job(user, n_prompt, n_out, rates, hold, self.now)
            refusal = self._take(provider, job)
            if refusal is None:
                self._note(provider, candidates, wanted, exclude[:-1])
                return "began"
            why = refusal
            self.refused += refusal == "busy"
            self._observe(user, provider, Outcome("refused", code=refusal))
        return why

    def _candidates(self, user: User) -> list[Candidate]:
        found = []
        for provider in self.providers:
            plain, number = provider.plain, provider.number
            evidence = user.evidence.get(number)
            opinion = user.opinions.get(number)
            if evidence is not None or opinion is not None or user.pending[number]:
                plain = Candidate(
                    plain.node,
                    plain.model,
                    evidence=evidence or Evidence(),
                    pending=user.pending[number],
                    price_in=plain.price_in,
                    price_out=plain.price_out,
                    opinion=reputation.PRIOR_STARS if opinion is None else opinion,
                )
            found.append(plain)
        return found

    def _choose(self, candidates: list[Candidate], wanted: Wanted, exclude: list[bytes]) -> Candidate | None:
        if self.config.herd:
            return min(
                (
                    one
                    for one in candidates
                    if one.node.id not in exclude and routing.why_not(one, wanted, self.now_ms) is None
                ),
                key=lambda one: routing.expected_cost(one, wanted, self.now_ms),
                default=None,
            )
        return routing.choose(candidates, wanted, self.now_ms, self.rng, exclude)

    def _note(
        self, provider: Provider, candidates: list[Candidate], wanted: Wanted, exclude: list[bytes]
    ) -> None:
        self._began += 1
        self._to_new += provider.newcomer and not provider.ring
        self._to_ring += provider.ring
        if self.config.ring and any(
            not routing.is_new(one.evidence)
            and one.node.id not in exclude
            and routing.why_not(one, wanted, self.now_ms) is None
            for one in candidates
        ):
            self.free_choices += 1
            self.free_ring += provider.ring

    def _observe(self, user: User, provider: Provider, outcome: Outcome) -> None:
        evidence = user.evidence.get(provider.number, Evidence())
        user.evidence[provider.number] = routing.observed(evidence, outcome, self.now_ms)

    # Providers

    def _take(self, provider: Provider, job: Job) -> str | None:
        """Begin or line up, or why not."""
        provider.advance(self.now)
        if provider.full():
            return "busy"
        user = job.user
        known = provider.tabs.get(user.id)
        if known is None:
            if provider.pool.take(user.id, user.id.hex(), job.hold, DAY) is not None:
                return "strangers_full"
            job.stranger = True
        else:
            if known.owed + known.held + job.hold > TAB_LIMIT:
                return "tab_limit"
            known.held += job.hold
        user.held += job.hold
        user.pending[provider.number] += 1
        provider.orders += 1
        if provider.first_order is None:
            provider.first_order = self.now
        if len(provider.running) < provider.slots:
            self._begin(provider, job)
        else:
            provider.waiting.append(job)
        self._changed(provider)
        return None

    def _begin(self, provider: Provider, job: Job) -> None:
        job.began, job.work = self.now, provider.work
        provider.running.append(job)

    def _changed(self, provider: Provider) -> None:
        """Its load is another one; `advance` was called."""
        provider.turn += 1
        if provider.running:
            first = min(job.work + job.size for job in provider.running)
            wait = max(0.0, first - provider.work) / provider.pace(len(provider.running))
            self.at(self.now + wait, self._end, provider, provider.turn)
        provider.feed(self.now)
        self._tell(provider)

    def _end(self, provider: Provider, turn: int) -> None:
        if turn != provider.turn:
            return
        provider.advance(self.now)
        job = min(provider.running, key=lambda job: job.work + job.size)
        provider.running.remove(job)
        if provider.waiting:
            self._begin(provider, provider.waiting.popleft())
        self._bill(provider, job)
        self._changed(provider)

    def _bill(self, provider: Provider, job: Job) -> None:
        user = job.user
        failed = self.rng.random() < provider.fails
        n_out = 0 if failed else job.n_out
        charge = market.charge_of(
            "failed" if failed else "stop", job.n_prompt, job.n_prompt, 0, n_out, job.rates, job.hold
        )
        if job.stranger:
            provider.pool.count(user.id, user.id.hex(), charge - job.hold, DAY)
        else:
            known = provider.tabs[user.id]
            known.held -= job.hold
            known.owed += charge
        user.held -= job.hold
        user.spent += charge
        user.pending[provider.number] -= 1
        provider.earned += charge
        self.ends["failed" if failed else "answered"] += 1
        if failed:
            self._observe(user, provider, Outcome("failed"))
        else:
            provider.outputs.ended(n_out)
            took = self.now - job.began
            first = took * job.n_prompt / PREFILL / job.size
            provider.first_ms = round(first * 1000)
            speed = n_out / max(took - first, 1e-3)
            answered = Outcome("answered", first_token_ms=first * 1000, tokens_per_second=speed)
            self._observe(user, provider, answered)
        if self.rng.random() < RATES_SHARE:
            self._rate(user, provider, 1 if failed else provider.stars, charge)

    def _rate(self, user: User, provider: Provider, stars: int, charge: int) -> None:
        ratings = self.ratings[provider.number]
        ratings.append(Rating(provider.id, user.id, stars, DAY, charge.bit_length(), self.rng.randbytes(16)))
        for reader in self.readers[user.id]:
            heard = reputation.weighed(ratings, reader.known)
            reader.opinions[provider.number] = reputation.score(reputation.Evidence(), heard, DAY).opinion

    def _beat(self, provider: Provider) -> None:
        self.at(self.now + 1, self._beat, provider)
        provider.advance(self.now)
        provider.feed(self.now)
        self._tell(provider)

    def _tell(self, provider: Provider) -> None:
        heart = provider.heart
        heart.wanted = provider.state(self.now)
        state = heart.ask(self.now)
        if state is not None:
            heart.said(state, self.now)
            self.at(self.now + NEWS_S, provider.seen, state)

    def _sample(self) -> None:
        self.at(self.now + SAMPLE_S, self._sample)
        honest = self.honest
        prices = tuple(one.rates(self.now).price_out / one.base for one in honest)
        price = sum(price * one.most for price, one in zip(prices, honest, strict=True))
        price /= sum(one.most for one in honest)
        busy = sum(len(one.running) for one in honest) / sum(one.slots for one in honest)
        counted = self._asked, self._began, self._to_new, self._to_ring
        self.samples.append(Sample(self.now, price, busy, *counted, prices))
        self._asked = self._began = self._to_new = self._to_ring = 0


def praise(provider: bytes, count: int, rng: random.Random) -> list[Rating]:
    """Five stars each by fresh accounts, for the largest amounts that can be written."""
    return [Rating(provider, rng.randbytes(32), 5, DAY, 40, rng.randbytes(16)) for _ in range(count)]
