"""One answer of one driver, or of several where another goes on with what one began: whom to ask, what to do
when it fails, and what is told of it.

How an order is spoken is net/purchase.py's, how a driver is found or chosen drivers.py's, what is stored
answers.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from infraxa.app import order_words, verifying
from infraxa.app.answering import Billed, Item, Moved, Waits
from infraxa.app.at_driver import AtDriver
from infraxa.app.attempt import NO_PLACE, Attempt, Checked, Ordering, Setback, Telling
from infraxa.app.config import ANY
from infraxa.app.drivers import Drivers
from infraxa.app.ends import WHOLE
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.app.ordering import TOKEN_CHARS, need, order_of, prompt_of, shortened
from infraxa.app.pulled import End, Pulled
from infraxa.app.spending import Spending
from infraxa.app.tally import Tally
from infraxa.app.wanted import Wanted
from infraxa.app.watch import Bought, Nobody, Watch
from infraxa.engine.types import ErrorInfo, Finished, Request
from infraxa.net.errors import NetError
from infraxa.net.identity import id_text
from infraxa.net.names import clean_name
from infraxa.net.orders import Done
from infraxa.net.patience import PatienceLimits
from infraxa.net.prompts import Prompt, encode_prompt
from infraxa.net.records import DOES_ANSWERS, DOES_VECTORS
from infraxa.net.status import SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.net.wire import Mode, Order
from infraxa.store.db import now_ms
from infraxa.store.records import Bill, DriverPart, StoreError

MAX_DRIVERS: Final = 3
"""Of one answer."""
FIND_S: Final = 10.0
"""For a first node to be heard of, after the start."""
SETTLE_S: Final = 2.0
"""For the others after it."""
BUSY_S: Final = 30.0
"""All in all for places of busy drivers, and as much for their refusals."""
LOOK_S: Final = 0.25
"""Between two looks whether anybody has room."""
MAX_REFUSALS: Final = 8
"""Drivers without room that are asked in a row, before it is waited."""
RETRY_S: Final = 1.0
"""Until a driver is asked again that is busy and does not say for how long."""
CUTS: Final = 6
"""How often oldest turns are left out of a conversation that is too long for the driver."""


class Buying(Pulled):
    """A Source, see Buyer.generate.

    What it waits for is bounded, whatever drivers do. Refusals for want of room may take BUSY_S all in all,
    and the waits for a place as much; every other driver that does not answer to the end is one of
    MAX_DRIVERS. So there are at most MAX_DRIVERS orders that take long, and one more for each session that
    was stale and for each of CUTS. Each is bounded by its Patience: 6 minutes before the driver has a place,
    then what the prompt and the tokens take. Where nobody else may be asked, the same driver is asked again
    as long as the waits for its place are within BUSY_S.
    """

    def __init__(
        self,
        network: Ordering,
        drivers: Drivers,
        limits: PatienceLimits,
        tasks: TaskGroup,
        request: Request,
        wanted: Wanted,
        texts: tuple[str, ...] = (),
        *,
        at_driver: AtDriver,
        drop_oldest: bool,
    ) -> None:
        """`texts`: their vectors are asked for, and no answer."""
        super().__init__(tasks, "answer of a driver")
        self.spending: Spending | None = None
        """Its money; None: nothing of money is asked."""
        self._network = network
        self._drivers = drivers
        self._at_driver = at_driver
        self._limits = limits
        self._request = request
        self._texts = texts
        self._does = DOES_VECTORS if texts else DOES_ANSWERS
        self._said = request.messages
        self._wanted = wanted
        self._cuts = CUTS if drop_oldest else 0
        self._tally = Tally(time.monotonic)
        self._text = ""
        """So far."""
        self._tried: list[bytes] = []
        """Drivers that failed: none is asked twice for one answer."""
        self._refused: set[bytes] = set()
        """Those that had no room, since the last time that one was waited for."""
        self._renewed: set[bytes] = set()
        """Drivers with which a stale session was made anew."""
        self._busy_until: float | None = None
        self._refusing_s = 0.0
        """What refusals for want of room took."""
        self._bills: tuple[Bill, ...] = ()
        self._rebilled = asyncio.Event()
        self.preferred: OfferSeen | None = None
        """Who is asked first where infraxa chooses."""
        self.watch: Watch = Nobody()
        self.called = False
        """A program asked for it."""
        self._bought: Bought | None = None
        self.verify: Mode = "none"
        """What drivers are asked to commit to, where they offer it and the sampling allows it."""
        self.random: verifying.Random = secrets.token_bytes

    def _last(self, end: End) -> list[Item]:
        return [self._tally.times(), Finished(end.reason, self._tally.usage(), end.error)]

    def billed(self, bills: tuple[Bill, ...]) -> None:
        """What its orders cost is something else."""
        self._bills = bills
        self._rebilled.set()
        self._say(Billed(bills))

    async def settled(self, seconds: float) -> tuple[Bill, ...]:
        """Its bills, when all of them are settled or after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(bill.state in ("open", "due") for bill in self._bills):
                    self._rebilled.clear()
                    await self._rebilled.wait()
        return self._bills

    async def _work(self) -> End:
        self.watch.began()
        try:
            return await self._answered()
        finally:
            self.watch.ended(self._bought)

    async def _answered(self) -> End:
        try:
            offer, reason = await self._first()
            while True:
                ended = await self._ask(offer, reason)
                if isinstance(ended, End):
                    return ended
                following = await self._after(offer, ended)
                if following is None:
                    return End("failed", ended.error)
                if following.node.id != offer.node.id:
                    reason = ended.error.message
                offer = following
        except (NodeError, NetError, StoreError) as error:
            return End("failed", ErrorInfo(error.code, error.message, error.remedy))

    async def _first(self) -> tuple[OfferSeen, str]:
        """The first driver, and why it is not the one that was wanted. Shortly after the start nobody is
        known yet: then it waits. Raises NodeError."""
        began_ms = now_ms()
        limit = time.monotonic() + FIND_S
        heard = _heard(self._network.nodes())
        while True:
            nodes = self._network.nodes()
            try:
                return self._look(nodes), ""
            except NodeError as error:
                if error.code == "busy" and (found := await self._wait_for_place(self._free)) is not None:
                    return found, ""
                now = time.monotonic()
                if heard or now >= limit:
                    if self._wanted.may_move and self._wanted.driver != ANY:
                        return self._chosen(nodes), error.message
                    raise
                if _heard(nodes):
                    limit = min(limit, now + SETTLE_S)
            if not nodes and (status := self._network.status).activity in ("off", "blocked"):
                raise order_words.offline(status)
            self._say(Waits(order_words.A_DRIVER, began_ms, FIND_S))
            await asyncio.sleep(0.1)

    def _look(self, nodes: list[SeenNode]) -> OfferSeen:
        if self._wanted.driver == ANY:
            return self._preferred(nodes) or self._chosen(nodes)
        return self._drivers.find(nodes, self._wanted.driver, self._wanted.driver_model, does=self._does)

    def _preferred(self, nodes: list[SeenNode]) -> OfferSeen | None:
        """The one whose price the person was shown, if it has room now."""
        shown, self.preferred = self.preferred, None
        if shown is None:
            return None
        offers = self._drivers.offers([node for node in nodes if node.id == shown.node.id])
        return next((offer for offer in offers if offer.same_as(shown) and offer.has_room), None)

    def _chosen(self, nodes: list[SeenNode]) -> OfferSeen:
        model_id = self._wanted.model_id
        found = self._drivers.choose(
            nodes,
            model_id,
            self._need(),
            self._refused,
            max_price=self._wanted.max_price,
            does=self._does,
        )
        if found is None:
            raise self._drivers.nobody(
                nodes, model_id, self._need(), max_price=self._wanted.max_price, does=self._does
            )
        return found

    def _free(self) -> OfferSeen | None:
        try:
            return self._chosen(self._network.nodes())
        except NodeError as error:
            if error.code != "busy":
                raise
            return None

    def _need(self) -> int:
        """Tokens that the context must hold, about."""
        if self._texts:
            return max(map(len, self._texts)) // TOKEN_CHARS + 1
        return 1 if self._cuts else need(self._request)

    async def _after(self, offer: OfferSeen, setback: Setback) -> OfferSeen | None:
        """Who is asked after this; None: nobody."""
        if setback.stale and offer.node.id not in self._renewed:
            self._renewed.add(offer.node.id)
            return offer
        if self._tally.n_out and not self._wanted.goes_on:
            return None
        too_large = setback.code == "too_large"
        if too_large and self._shorten(setback.limit or offer.model.context):
            return offer
        no_place = setback.code in NO_PLACE and not (self._wanted.may_move and self._refusing_s > BUSY_S)
        if no_place:
            self._refused.add(offer.node.id)
        elif offer.node.id not in self._tried:
            self._tried.append(offer.node.id)
        if self._wanted.may_move:
            if len(self._tried) >= MAX_DRIVERS:
                return None
            need = max(self._need(), setback.limit + 1) if too_large else self._need()
            if (other := self._other(offer, need)) is not None:
                return other
            return await self._wait_for_place(lambda: self._other(offer, need)) if no_place else None
        if no_place:
            return await self._wait_for(offer, max(setback.retry_s or RETRY_S, LOOK_S))
        return None

    def _other(self, offer: OfferSeen, context: int) -> OfferSeen | None:
        """One that was not tried: with the same model or, if none was asked for, with any."""
        nodes, exclude = self._network.nodes(), [*self._tried, *self._refused]
        most = self._wanted.max_price
        if len(self._refused) >= MAX_REFUSALS:
            return None
        found = self._drivers.choose(
            nodes, offer.model.model_id, context, exclude, max_price=most, does=self._does
        )
        if found is None and self._wanted.driver_model is None:
            found = self._drivers.choose(nodes, None, context, exclude, max_price=most, does=self._does)
        return found

    def _patience_left(self) -> float:
        """Seconds that may still be waited for a place, from the first wait on."""
        now = time.monotonic()
        if self._busy_until is None:
            self._busy_until = now + BUSY_S
        return self._busy_until - now

    async def _wait_for_place(self, look: Callable[[], OfferSeen | None]) -> OfferSeen | None:
        """Whoever has room first: those that said when to ask again are left alone until then."""
        began_ms, limit = now_ms(), self._patience_left()
        if limit <= 0:
            return None
        self._refused.clear()
        while (found := look()) is None:
            model_id, most = self._wanted.model_id, self._wanted.max_price
            wait = self._drivers.room_in(
                self._network.nodes(), model_id, self._need(), self._tried, max_price=most, does=self._does
            )
            if wait is None or wait > self._patience_left() or self._patience_left() <= 0:
                return None
            self._say(Waits(order_words.A_PLACE, began_ms, limit))
            await asyncio.sleep(min(LOOK_S, self._patience_left()))
        return found

    async def _wait_for(self, offer: OfferSeen, retry_s: float) -> OfferSeen | None:
        """The same driver, after the time that it asks for; None when that is too long."""
        if retry_s > self._patience_left():
            return None
        name = order_words.display_name(offer.node.name, offer.node.id)
        self._say(Waits(order_words.busy(name, retry_s), now_ms(), retry_s))
        await asyncio.sleep(retry_s)
        return offer

    def _shorten(self, context: int) -> bool:
        """Leave out oldest turns; whether that was asked for and there were any."""
        if not self._cuts:
            return False
        self._cuts -= 1
        self._said, dropped = shortened(self._said, context)
        self._tally.dropped_turns += dropped
        return dropped > 0

    async def _ask(self, offer: OfferSeen, reason: str) -> End | Setback:
        """One order. `reason`: why it is not the driver before. Raises NodeError `offline`, NetError for what
        cannot be sent."""
        left = self._request.sampling.max_tokens
        if left is not None:
            left -= self._tally.n_out
            if left <= 0:
                return End("length")
        if self._texts:
            prompt = Prompt(texts=self._texts)
        else:
            prompt = prompt_of(msgspec.structs.replace(self._request, messages=self._said), self._text)
        order = order_of(os.urandom(16), offer.model.model_id, 1, self._request, left)
        order = msgspec.structs.replace(order, texts=len(self._texts))
        asked, drawn = verifying.asked(self.verify, offer.model.modes, order, prompt), None
        if asked.mode != "none":
            drawn = verifying.drawn(self.random)
            prompt = verifying.salted(prompt, drawn)
        try:
            encoded = encode_prompt(prompt)
        except NetError as error:
            if error.code != "too_large":
                raise
            return Setback(error.code, ErrorInfo(order_words.PROMPT_TOO_LONG, error.message, error.remedy))
        order = msgspec.structs.replace(order, prompt_bytes=len(encoded))
        if drawn is not None:
            order = verifying.committing(order, asked.mode, drawn, encoded)
        attempt = Attempt(
            self._network,
            self._drivers,
            self._limits,
            Telling(self._say, self._tell),
            self._tally,
            offer,
            Moved(_part(offer, len(self._text), reason)),
            self.spending,
            Checked(asked.why, drawn),
        )
        attempt.in_line = lambda: self.watch.waits(offer.node.id)
        whole = not self._text
        with self._drivers.asked(offer.node.id):
            ended = await self._in_turn(offer, attempt, order, prompt)
        self._text += "".join(attempt.texts)
        if whole and not isinstance(ended, Setback) and ended.finish in WHOLE:
            self._bought = Bought(offer, self._request, asked.mode != "none", self.called)
        return ended if isinstance(ended, Setback) else End(ended.finish)

    async def _in_turn(
        self, offer: OfferSeen, attempt: Attempt, order: Order, prompt: Prompt
    ) -> Done | Setback:
        """When there is room at the driver for one more order of this node."""
        node, patience = offer.node, BUSY_S
        if node.slots <= 1 or self._at_driver.busy(node.id, node.slots):
            self.watch.waits(node.id)
        if self._at_driver.busy(node.id, node.slots):
            patience = self._patience_left()
            self._say(Waits(order_words.A_PLACE, now_ms(), patience))
        try:
            async with self._at_driver.turn(node.id, node.slots, patience):
                if self.spending is not None and self.spending.behind(node.id):
                    async with asyncio.timeout(self._patience_left()):
                        await self.spending.caught_up(node.id)
                began = time.monotonic()
                ended = await attempt.run(order, prompt)
                if isinstance(ended, Setback) and ended.code in NO_PLACE:
                    self._refusing_s += time.monotonic() - began
                return ended
        except TimeoutError:
            name = order_words.display_name(node.name, node.id)
            return Setback("busy", order_words.ended("busy", name))


def _heard(nodes: list[SeenNode]) -> bool:
    return any(node.status != "offline" for node in nodes)


def _part(offer: OfferSeen, at: int, reason: str) -> DriverPart:
    node = offer.node
    return DriverPart(
        id_text(node.id), clean_name(node.name), order_words.label(offer.model.name), at, reason
    )
