"""Asks other providers of a model to compute the steps of an answer again, for a person without its file.

A referee reads the chat up to the answer, and the answer: nobody is asked but for an answer of which the
person has agreed to that, or to what nobody of this machine wrote (canaries). What the driver committed to is
not told, so there is nothing to copy. One referee may lie as any driver may, so what its word counts for is
decided by verdicts.agreed. Who is asked is decided in owners.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from infraxa.app import ends, order_words
from infraxa.app.answering import Item, Moved, Sent, Vectors
from infraxa.app.attempt import Attempt, Ordering, Setback, Telling
from infraxa.app.audit_values import MOST_REFEREES, Place
from infraxa.app.bounds import spent_of
from infraxa.app.counting import most_of, planned_texts
from infraxa.app.drivers import Drivers
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.app.opened import Shown
from infraxa.app.owners import Lot, Owner, drawn, owners
from infraxa.app.purse import STEP, Purse
from infraxa.app.replaying import Compared, no_token
from infraxa.app.tally import Tally
from infraxa.app.terms import backend_of, kv_type_of, versions_of
from infraxa.app.verifying import Kept
from infraxa.engine.transcript import packed
from infraxa.engine.verdicts import Distance, distance_of_common
from infraxa.net import deals, market
from infraxa.net.errors import NetError
from infraxa.net.patience import PatienceLimits
from infraxa.net.prompts import Prompt, encode_prompt
from infraxa.net.records import DOES_SCORES
from infraxa.net.scores import MAX_NOISE, Scoring, decode_row
from infraxa.net.status import SeenNode
from infraxa.net.wire import Order
from infraxa.store.records import DriverPart, Reader
from infraxa.store.trade_records import RefusalReason

PATIENCE: Final = PatienceLimits(line=60.0, reading=900.0)
"""There may be others to ask, and nobody waits at the screen."""
MOST_TRIES: Final = 8
"""Referees that are tried for one audit, until MOST_REFEREES of them computed something."""
DEAR: Final = 2
"""Who asks for more than so many times what others do is not asked."""
LOOKS: Final = 8
"""Nodes that are dialled at once, to see where they are; each for:"""
LOOK_S: Final = 10.0
LOOK_EVERY_S: Final = 60.0
_MILLION: Final = 1_000_000

_log = logging.getLogger(__name__)


class Cost(NamedTuple):
    """Of asking all referees that may be asked about one answer, µcr."""

    least: int
    """Of the cheapest of them alone."""
    most: int


class Referees:
    """Of one node."""

    def __init__(
        self,
        network: Ordering,
        drivers: Drivers,
        purse: Purse,
        read_by: Callable[[str, str, Reader], Awaitable[None]],
        *,
        limits: PatienceLimits | None = None,
    ) -> None:
        """`read_by`: takes down who may read a message of a chat from now on; raises StoreError."""
        self._network = network
        self._drivers = drivers
        self._purse = purse
        self._read_by = read_by
        self._limits = limits or PATIENCE
        self._look_at = 0.0

    def available(self, kept: Kept, receipt: deals.Receipt, avoided: Collection[bytes]) -> list[OfferSeen]:
        """Who can be asked, in the order in which they would be: by chance, which the driver could not know
        when it answered, nor anybody choose. `avoided`: those that gave the answer. No two of them all
        probably have the same owner, see owners.py."""
        said = receipt.transcript
        assert said is not None
        lot = functools.partial(_lot, kept.secret, said.root)
        found = self._drawn(kept.order.model, receipt.n_prompt + said.steps, avoided, lot)
        return _not_dear(found, receipt.price_in)

    def reachable(self, model: bytes, tokens: int, avoided: Collection[bytes]) -> bool:
        """Whether anybody could be asked about an answer of this model that with its prompt has so many
        tokens; `avoided` as for `available`."""
        return bool(self._drawn(model, tokens, avoided, lambda what: what))

    def _drawn(self, model: bytes, tokens: int, avoided: Collection[bytes], lot: Lot) -> list[OfferSeen]:
        nodes = self._network.nodes()
        found = {
            offer.node.id: offer for offer in self._judging(nodes, model) if offer.model.context >= tokens
        }
        return [found[node] for node in drawn(found, avoided, owners(nodes), lot)]

    def _judging(self, nodes: list[SeenNode], model: bytes) -> list[OfferSeen]:
        """Who computes the steps of answers of this model."""
        return [
            offer
            for offer in self._drivers.offers(nodes)
            if offer.model.model_id == model
            and offer.model.does & DOES_SCORES
            and offer.has_room
            and offer.mark != "blocked"
        ]

    async def look(self, model: bytes, driver: bytes) -> None:
        """Find out who is in this node's private network, where the driver was found in no other one: of whom
        only its card says so, a dial tells. Bounded, seldom, and it never fails."""
        nodes, now = self._network.nodes(), time.monotonic()
        known = owners(nodes)
        if known.get(driver, Owner()).found or now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        unsure = [offer.node.id for offer in self._judging(nodes, model) if _may_be_near(offer.node, known)]
        chosen = random.sample(unsure, min(LOOKS, len(unsure)))
        await asyncio.gather(*map(self._reach, chosen))

    async def _reach(self, node: bytes) -> None:
        with contextlib.suppress(NetError, NodeError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._network.order_link(node)

    def cost(self, kept: Kept, receipt: deals.Receipt, offers: list[OfferSeen]) -> Cost:
        """What these can cost, by what they ask for now."""
        said = receipt.transcript
        assert said is not None
        most = most_of(_prompt(kept, said, (), (0,))) + said.steps
        costs = sorted((self._cost(offer, most) for offer in offers), reverse=True)
        return Cost(costs[-1], sum(costs[:MOST_REFEREES])) if costs else Cost(0, 0)

    def _cost(self, offer: OfferSeen, most: int) -> int:
        """Of so many tokens, or of as many as it can read."""
        if self._purse.is_free(offer):
            return 0
        # What it locks may be above what was heard of by so much.
        price_in, price_out = (price + price // STEP for price in (offer.price_in, offer.price_out))
        rates = market.Rates(price_in, price_out, price_in)
        return planned_texts([min(most, offer.model.context)], rates).most

    async def check_caps(self, chat_id: str, least: int) -> None:
        """Raises NodeError when the person's caps leave less than that, StoreError."""
        caps = self._purse.caps()
        spent = await self._purse.store.run(spent_of, b"", chat_id, caps.day_start_ms)
        limits: tuple[tuple[RefusalReason, int | None, int], ...] = (
            ("request_cap", caps.request, 0),
            ("chat_cap", caps.chat, spent.chat),
            ("day_cap", caps.day, spent.day),
        )
        for reason, cap, used in limits:
            if least and cap is not None and cap - used < least:
                raise order_words.cap_reached(reason, cap, used, least)

    def panel(
        self, kept: Kept, receipt: deals.Receipt, offers: list[OfferSeen], place: Place | None
    ) -> Panel:
        """Of those that are `available`, for one audit of the answer at that place, which the person has
        agreed to; None: it is a canary's, in which there is nothing of the person."""
        # Its caps hold for all of them together.
        chat_id = None if place is None else place[0]
        spending = self._purse.spending(lambda bills: None, chat_id, canary=place is None)

        async def told(item: Item) -> None:
            if isinstance(item, Sent) and place is not None:
                await self._read_by(*place, item.reader)

        def attempt(offer: OfferSeen, told_too: Callable[[Item], None]) -> Attempt:
            async def tell(item: Item) -> None:
                told_too(item)
                await told(item)

            return Attempt(
                self._network,
                self._drivers,
                self._limits,
                Telling(lambda item: None, tell),
                Tally(time.monotonic),
                offer,
                Moved(DriverPart()),
                spending,
            )

        return Panel(attempt, kept, receipt, offers)


class Panel:
    """Of one audit: its referees are asked one after the other."""

    def __init__(
        self,
        attempt: Callable[[OfferSeen, Callable[[Item], None]], Attempt],
        kept: Kept,
        receipt: deals.Receipt,
        offers: list[OfferSeen],
    ) -> None:
        """`attempt`: one order at a referee, what comes of which is told."""
        assert receipt.transcript is not None
        self._attempt = attempt
        self._kept = kept
        self._said = receipt.transcript
        self._offers = offers[:MOST_TRIES]
        self._answered = 0
        """So many of them computed something, for which they are paid."""

    async def following(self, shown: Shown) -> Compared | None:
        """What the next referee computes of what was shown, each of whom is another one; None: there is
        nobody left who does. Raises StoreError, and NodeError where nobody did and somebody was not asked, as
        by a cap."""
        refused: NodeError | None = None
        while self._offers and self._answered < MOST_REFEREES:
            try:
                compared = await self._ask(self._offers.pop(0), shown)
            except NodeError as error:
                refused = error  # another one may cost less
                continue
            except NetError as error:
                _log.debug("an answer cannot be shown to a referee: %s", error.code)
                return None
            if compared is not None:
                return compared
        if refused is not None and not self._answered:
            raise refused
        return None

    async def _ask(self, offer: OfferSeen, shown: Shown) -> Compared | None:
        """None: it gave nothing that is of use."""
        prompt = _prompt(self._kept, self._said, shown.tokens, [leaf.step for leaf in shown.leaves])
        for _ in range(2):
            came: list[Item] = []
            attempt = self._attempt(offer, came.append)
            order = Order(
                os.urandom(16), offer.model.model_id, len(encode_prompt(prompt)), 1, scores=len(prompt.steps)
            )
            ended = await attempt.run(order, prompt)
            if attempt.scoring is not None or (isinstance(ended, Setback) and ended.no_token):
                self._answered += 1
            if not isinstance(ended, Setback):
                (vectors,) = (item.vectors for item in came if isinstance(item, Vectors))
                assert attempt.scoring is not None  # which orders.Course sees to
                return _compared(attempt.scoring, vectors, self._said, shown)
            if ended.no_token:
                return no_token(MAX_NOISE / _MILLION)  # as it is beyond any noise
            _log.debug("a referee gave no scores: %s", ended.code)
            if not ended.stale:
                break
        return None


def _not_dear(offers: list[OfferSeen], price: int) -> list[OfferSeen]:
    """Without those that ask for far more than both the driver did, by `price`, and most of these do: who
    names any price would have all that the person's caps leave; and a driver that is cheap is judged, too."""
    if not offers:
        return []
    usual = sorted(offer.price_in for offer in offers)[(len(offers) - 1) // 2]
    return [offer for offer in offers if offer.price_in <= DEAR * max(price, usual)]


def _prompt(kept: Kept, said: deals.Transcript, tokens: Sequence[int], steps: Sequence[int]) -> Prompt:
    """All that a referee is told: the conversation, the answer and its stop strings, the steps, and how much
    of the text came of what did not come to its end; nothing of what was committed to, nor anything random by
    which it could be told from other ones."""
    return Prompt(
        turns=kept.prompt.turns,
        raw=kept.prompt.raw,
        tools=kept.prompt.tools,
        tool_choice=kept.prompt.tool_choice,
        answer=packed(tokens),
        steps=tuple(steps),
        kv_type="q8_0" if kv_type_of(said.profile) == "q8_0" else "f16",
        ends=kept.prompt.stop,
        chars=ends.hashed_chars(kept),
    )


def _compared(
    scoring: Scoring, rows: Sequence[bytes], said: deals.Transcript, shown: Shown
) -> Compared | None:
    """None: it computed something else."""
    steps: list[Distance] = []
    for leaf, data in zip(shown.leaves, rows, strict=True):
        row = decode_row(data)
        if len(row.ids) != len(leaf.ids):
            return None
        steps.append(distance_of_common(leaf.ids, leaf.q, leaf.token, row.ids, row.q))
    return Compared(
        steps=tuple(steps),
        mu0=scoring.noise / _MILLION,
        same_backend=backend_of(scoring.profile) == backend_of(said.profile),
        same_prompt=True,
        same_version=versions_of(scoring.profile) == versions_of(said.profile),
        end=scoring.end,
        text=scoring.text,
    )


def _may_be_near(node: SeenNode, known: Mapping[bytes, Owner]) -> bool:
    """By its card alone, which names an address that this node may dial, and none of the internet."""
    unsure = known[node.id] == Owner()
    return unsure and node.dialable and not node.relayed


def _lot(secret: bytes, root: bytes, what: bytes) -> bytes:
    return hashlib.sha256(b"infraxa/referee/1" + secret + root + what).digest()
