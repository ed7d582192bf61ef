"""Sends canaries: after an answer that somebody asked a driver for, now and then, one that nobody asked for,
through the same path, to have it judged by a referee.

What they say is canary_texts.py's, when and for how much canary_rules.py's, how they are judged auditor.py's.
Nothing of them is kept but in memory, in the ledger and what an audit found.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Final, NamedTuple, TypeVar

from infraxa.app import canary_money, canary_rules
from infraxa.app.answering import Billed
from infraxa.app.audit_history import AuditHistory
from infraxa.app.buyer import Buyer
from infraxa.app.buying import Buying
from infraxa.app.canary_rules import MOST_DRIVERS, MOST_SAID, Habits, Key, Shape, shape_of
from infraxa.app.canary_texts import Author, Persona
from infraxa.app.config import Settings
from infraxa.app.counting import LEAST_OUT, planned, prompt_most
from infraxa.app.ends import WHOLE
from infraxa.app.errors import FAILURES
from infraxa.app.offers import OfferSeen
from infraxa.app.ordering import tokens
from infraxa.app.purse import Purse
from infraxa.app.wanted import Wanted
from infraxa.app.watch import Bought
from infraxa.engine.types import ChatMessage, Delta, Finished, Request
from infraxa.net.identity import id_text
from infraxa.net.market import Rates
from infraxa.net.tasks import TaskGroup

_SYSTEM: Final = 0.2
"""Parts by which a system prompt may be longer or shorter than one that is asked for."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Talk(NamedTuple):
    """A made-up conversation."""

    persona: Persona
    shape: Shape
    """As which it began; `chars` are those of its last question."""
    said: tuple[ChatMessage, ...] = ()
    at: float = 0.0
    """When its last answer came, monotonic."""

    @property
    def turns(self) -> int:
        return sum(one.role == "user" for one in self.said)


class Canaries:
    """Of one node, a Watch of its buyer. `close` it before the store."""

    def __init__(
        self,
        buyer: Buyer,
        purse: Purse,
        history: AuditHistory,
        offers: Callable[[], list[OfferSeen]],
        copy: Callable[[bytes], Awaitable[object | None]],
        reachable: Callable[[bytes, int, Collection[bytes]], bool],
        *,
        rng: random.Random | None = None,
    ) -> None:
        """`offers`: those that are there. `copy`: the own file of a model; None: it is not here. `reachable`:
        see Referees."""
        self._on = False
        self._buyer = buyer
        self._purse = purse
        self._history = history
        self._offers = offers
        self._copy = copy
        self._reachable = reachable
        self._rng = rng or random.SystemRandom()
        self._author = Author(self._rng)
        self._habits = Habits()
        self._running = 0
        """Answers that somebody asked for."""
        self._ended_at: float | None = None
        """When the last of them was over; None: the next one has begun."""
        self._owed = OrderedDict[Key, None]()
        """Where one was to be sent, when somebody asked for something."""
        self._task: asyncio.Task[None] | None = None
        self._to: Key | None = None
        """Where that sends one."""
        self._buying: Buying | None = None
        """The one that is sent."""
        self._talks = OrderedDict[Key, _Talk]()
        self._systems = OrderedDict[Key, tuple[int, str]]()
        """The system prompt that was made up last, and the characters that were asked for."""
        self._tasks = TaskGroup()
        buyer.watch = self

    def use(self, settings: Settings) -> None:
        """Send some, or none, as these settings say."""
        self._on = settings.canaries and settings.audit == "auto" and settings.verify != "none"
        if not self._on:
            self._owed.clear()
            if self._task is not None:
                self._task.cancel()

    async def close(self) -> None:
        """End the one that is under way."""
        self._on = False
        await self._tasks.cancel_all()

    def began(self) -> None:
        """See Watch, as the next two."""
        self._running += 1
        if self._ended_at is not None:
            self._habits.paused(time.monotonic() - self._ended_at)
            self._ended_at = None
        if self._task is not None and self._to is not None and self._buying is None:
            self._owe(self._to)
            self._task.cancel()
            self._task = None

    def waits(self, driver: bytes) -> None:
        if self._buying is not None and self._to is not None and self._to[0] == driver:
            self._buying.cancel()

    def ended(self, bought: Bought | None) -> None:
        self._running -= 1
        self._ended_at = time.monotonic()
        shape = None if bought is None else shape_of(bought.request, called=bought.called)
        if bought is None or shape is None or not bought.verified:
            return
        key = bought.offer.node.id, bought.offer.model.model_id
        self._habits.asked(key, shape)
        rate, turns = self._history.rate(*key), self._habits.turns(key)
        if not self._on or not (key in self._owed or canary_rules.is_followed(self._rng, rate, turns)):
            return
        if self._running or self._task is not None:
            self._owe(key)
            return
        self._owed.pop(key, None)
        self._to = key
        self._task = self._tasks.spawn(self._send(key), name="send a canary")
        self._task.add_done_callback(self._sent)

    def _owe(self, key: Key) -> None:
        _keep(self._owed, key, None)

    def _sent(self, task: asyncio.Task[None]) -> None:
        if task is self._task:
            self._task = self._to = None

    async def _send(self, key: Key) -> None:
        try:
            began = False
            while await self._go(key, begins=not began) and self._goes_on(key) is not None:
                began = True
                if self._running:
                    self._owe(key)  # after that answer
                    break
        except FAILURES as error:
            _log.debug("a canary was not sent: %s", error.code)

    async def _go(self, key: Key, *, begins: bool) -> bool:
        """One turn; whether there was an answer. `begins`: also the first one of a conversation."""
        shape = self._habits.shape(self._rng, key)
        if shape is None or (offer := await self._offer(key)) is None:
            return False
        most = await self._most_chars(offer, shape)
        talk = self._talk(key, shape, most, begins=begins)
        if talk is None or not await self._is_possible(offer, talk):
            return False
        shape = talk.shape
        delay = self._habits.delay_s(self._rng)
        typing = 0.0 if shape.called else canary_rules.typing_s(self._rng, len(talk.said[-1].content))
        await asyncio.sleep(max(0.0, delay - typing))
        if typing and not self._purse.is_free(offer):
            self._purse.locked.ask_soon(*key)
        await asyncio.sleep(min(typing, delay))
        now = await self._offer(key)
        if now is None or not await self._is_possible(now, talk):
            return False
        answer = await self._answer(key, talk, asks=bool(typing) and not self._purse.is_free(now))
        if answer:
            said = (*talk.said, ChatMessage("assistant", answer))
            _keep(self._talks, key, talk._replace(said=said, at=time.monotonic()))
        return bool(answer)

    def _goes_on(self, key: Key, most: int = MOST_SAID) -> _Talk | None:
        """The conversation that has another turn, within `most` characters; None: another one begins."""
        if (talk := self._talks.get(key)) is None:
            return None
        chars = sum(len(one.content) for one in talk.said)
        age_s = time.monotonic() - talk.at
        return talk if canary_rules.goes_on(talk.turns, chars, age_s, talk.shape, most) else None

    def _talk(self, key: Key, shape: Shape, most: int, *, begins: bool) -> _Talk | None:
        """With what is to be said next, within `most` characters; None: nothing is."""
        if (talk := self._goes_on(key, most)) is not None:
            left = most - sum(len(one.content) for one in talk.said)
            shape = talk.shape._replace(chars=min(shape.chars, left))
            text = self._author.follow_up(talk.persona, shape.chars)
            return talk._replace(shape=shape, said=(*talk.said, ChatMessage("user", text)))
        if not begins:
            return None
        shape = canary_rules.shortened(shape, most)
        persona = self._author.persona()
        said = ChatMessage("user", self._author.question(persona, shape.chars))
        if not shape.system:
            return _Talk(persona, shape, (said,))
        chars, system = self._systems.get(key, (0, ""))
        if abs(chars - shape.system) > _SYSTEM * shape.system:
            system = self._author.system(persona, shape.system)
            _keep(self._systems, key, (shape.system, system))
        return _Talk(persona, shape, (ChatMessage("system", system), said))

    async def _offer(self, key: Key) -> OfferSeen | None:
        """Whom one may be sent to; None: none is, since it need not or could not be judged."""
        model = key[1]
        offers = self._offers()
        offer = next(
            (one for one in offers if (one.node.id, one.model.model_id) == key and one.has_room), None
        )
        if not self._on or offer is None or await self._copy(model) is not None:
            return None
        priced = bool(offer.price_in or offer.price_out)
        if priced and self._purse.is_free(offer):
            return None  # what it gives away is the person's
        return offer

    async def _most_chars(self, offer: OfferSeen, shape: Shape) -> int:
        """Of the whole prompt of the next one. Raises StoreError, NodeError."""
        caps = self._purse.caps()
        spent = await self._purse.store.run(canary_money.today, caps.day_start_ms)
        part = canary_rules.part(caps.canaries or 0, spent)
        return canary_money.most_chars(part, shape.sampling.max_tokens or 0, _rates(offer))

    async def _is_possible(self, offer: OfferSeen, talk: _Talk) -> bool:
        """Somebody could judge it, and there is room for it. Raises StoreError, NodeError."""
        if not self._reachable(offer.model.model_id, tokens(talk.said) + LEAST_OUT, {offer.node.id}):
            return False
        rates = _rates(offer)
        n_prompt, context = prompt_most(one.content for one in talk.said), offer.model.context
        plan = planned(n_prompt, context, talk.shape.sampling.max_tokens or 0, context, rates)
        caps, least = self._purse.caps(), canary_money.least_of(plan, rates)
        spent = await self._purse.store.run(canary_money.today, caps.day_start_ms)
        held = canary_rules.reserved(
            plan.most, least, caps.canaries or 0, caps.day or 0, caps.request or 0, spent
        )
        return held is not None

    async def _answer(self, key: Key, talk: _Talk, *, asks: bool) -> str:
        """Empty: it was not whole. `asks`: also for the price of a next one."""
        (driver, model), shape = key, talk.shape
        wanted = Wanted(id_text(driver), shape.sampling, model.hex(), "off")
        request = Request(talk.said, shape.sampling, logprobs=shape.logprobs)
        self._buying = buying = self._buyer.canary(request, wanted, called=shape.called)
        came, n_out, whole = list[str](), 0, False
        try:
            async for item in buying:
                match item:
                    case Billed() if asks:  # it is about to leave
                        asks = False
                        self._tasks.spawn(self._look(key), name="look at the next price")
                    case Delta():
                        came.append(item.text)
                        n_out += len(item.token_ids)
                        most = None if buying.spending is None else buying.spending.most_out
                        if most is not None and n_out >= most:
                            buying.cancel()
                    case Finished():
                        whole = item.reason in WHOLE
        finally:
            self._buying = None
            buying.cancel()
        return "".join(came) if whole else ""

    async def _look(self, key: Key) -> None:
        """As the app does while somebody sits before it."""
        await asyncio.sleep(canary_rules.looks_s(self._rng))
        if self._on:
            self._purse.locked.ask_soon(*key)


def _rates(offer: OfferSeen) -> Rates:
    return Rates(offer.price_in, offer.price_out, offer.price_in)


def _keep(known: OrderedDict[Key, T], key: Key, value: T) -> None:
    """As the newest of not too many."""
    known.pop(key, None)
    known[key] = value
    while len(known) > MOST_DRIVERS:
        known.popitem(last=False)
