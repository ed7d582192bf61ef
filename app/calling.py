"""Who answers a call, and what its caller is told: this machine's engine, or a driver.

What a call is, is in calls.py; how one answer is bought is in buying.py. Nothing of a call is kept but what
it cost.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from time import perf_counter
from typing import Final

from infraxa.app import driver_words
from infraxa.app.answering import AskBegan, Billed, Item, Moved, Sent, Source, Vectors
from infraxa.app.buyer import Buyer
from infraxa.app.buying import Buying
from infraxa.app.calls import AUTO, Call, CallableModel, CallEvent, EmbedCall, EmbeddedBy, Policy
from infraxa.app.choices import ModelEntry
from infraxa.app.config import ANY, LOCAL, Settings
from infraxa.app.errors import NodeError
from infraxa.app.models import Models
from infraxa.app.offers import OfferSeen
from infraxa.app.one_off import OneOff
from infraxa.app.order_words import label
from infraxa.app.wanted import Wanted
from infraxa.engine.checks import check_request, check_texts
from infraxa.engine.types import Delta, ErrorInfo, Finished, Request
from infraxa.net.credits import micro
from infraxa.net.identity import id_text
from infraxa.net.records import DOES_ANSWERS, DOES_VECTORS
from infraxa.net.status import SeenNode

BILL_S: Final = 2.0
"""The end of an answer is held back so long for what it cost."""


class Calls:
    """Of one node."""

    def __init__(
        self,
        models: Models,
        buyer: Buyer,
        settings: Callable[[], Settings],
        offers: Callable[[], list[OfferSeen]],
        nodes: Callable[[], list[SeenNode]],
    ) -> None:
        """`settings`: those in force. `offers`, `nodes`: what is heard of the network, the best first."""
        self._models = models
        self._buyer = buyer
        self._settings = settings
        self._offers = offers
        self._nodes = nodes

    def call(self, call: Call) -> Calling:
        return Calling(self, call)

    async def embed(self, call: EmbedCall) -> EmbeddedBy:
        """Raises NodeError, EngineError, NetError."""
        check_texts(call.texts)
        route = await self.route(call.model, call.policy, DOES_VECTORS)
        if isinstance(route, Wanted):
            return await self._buy_vectors(call.texts, route)
        async with self._models.held(route, self._settings()) as engine:
            embedded = await engine.embed(call.texts)
        return EmbeddedBy(embedded.vectors, embedded.n_tokens, route.name)

    async def _buy_vectors(self, texts: tuple[str, ...], wanted: Wanted) -> EmbeddedBy:
        buying, by, came = self._buyer.call(Request(), wanted, texts), AskBegan("", 0), Vectors((), ())
        try:
            async for item in buying:
                by = _known(by, item)
                if isinstance(item, Vectors):
                    came = item
                elif isinstance(item, Finished) and item.error is not None:
                    raise _error(item.error)
        finally:
            buying.cancel()
        if len(came.vectors) != len(texts):
            raise NodeError("cancelled", "The embeddings were not made: this node is ending.")
        bills = await buying.settled(BILL_S)
        charge = sum(bill.charge for bill in bills) if bills else None
        return EmbeddedBy(came.vectors, came.n_tokens, by.model, by.driver, by.driver_name, charge)

    async def list_callable(self) -> list[CallableModel]:
        """The models of this machine first, then those on offer, by name."""
        local = [
            CallableModel(entry.name, "local", entry.context_length, created_ms=entry.added_at)
            for entry in await self._models.entries()
            if not entry.problem
        ]
        return [*local, *on_offer(self._offers())]

    async def route(self, model: str, policy: Policy, does: int = DOES_ANSWERS) -> ModelEntry | Wanted:
        """The model of this machine, or who is to be asked for it. Raises NodeError."""
        if policy.where == "local" and policy.driver is not None:
            raise NodeError(
                "bad_policy",
                "A driver cannot answer what this machine alone may answer.",
                "Give one of both.",
            )
        if policy.where != "market" and policy.driver is None:
            entry = await self._local(model, policy)
            if entry is not None:
                return entry
        return self._market(model, policy, does)

    async def hold(
        self, entry: ModelEntry, call: Call, held: contextlib.AsyncExitStack
    ) -> tuple[AskBegan, Source]:
        """This machine's answer. Raises EngineError, NodeError."""
        asked = perf_counter()
        engine = await held.enter_async_context(self._models.held(entry, self._settings()))
        load_ms = round((perf_counter() - asked) * 1000)
        return AskBegan(entry.name, load_ms), engine.generate(call.request)

    def buy(self, call: Call, wanted: Wanted) -> Buying:
        """A driver's answer. Raises EngineError for what no engine could do."""
        check_request(call.request)
        return self._buyer.call(call.request, wanted)

    async def _local(self, model: str, policy: Policy) -> ModelEntry | None:
        """None: it is the market's."""
        settings = self._settings()
        if model == AUTO:
            if policy.where == "auto" and settings.driver != LOCAL:
                return None
            return await self._models.entry(settings.model)
        entries = await self._models.entries()
        for same in (str, str.casefold):
            for entry in entries:
                if same(entry.name) == same(model):
                    return entry
        if policy.where == "local":
            raise NodeError(
                "no_model", f"This machine has no model named {label(model)}.", "See: infraxa models list"
            )
        return None

    def _market(self, model: str, policy: Policy, does: int) -> Wanted:
        settings = self._settings()
        driver, most = ANY, policy.max_price
        if most is None and settings.max_price is not None:
            most = micro(settings.max_price)
        if policy.driver is not None:
            driver = id_text(driver_words.named(self._nodes(), policy.driver).id)
        elif model == AUTO and settings.driver not in (LOCAL, ANY):
            driver = settings.driver
        model_id = None
        if model != AUTO:
            offers = [
                offer
                for offer in self._offers()
                if driver in (ANY, id_text(offer.node.id)) and offer.model.does & does
            ]
            model_id = _model_id(offers, model, most)
        if policy.audited:
            return self._audited(driver, model_id, most, does)
        wanted = Wanted(driver, driver_model=model_id, max_price=most, capped=True, goes_on=False)
        return wanted if policy.driver is not None else wanted._replace(failover="auto")

    def _audited(self, driver: str, model_id: str | None, most: int | None, does: int) -> Wanted:
        """The best one whose answers with this model passed audits of this node, and no other. Raises
        NodeError `no_audits`."""
        for offer in self._offers():
            fits = driver in (ANY, id_text(offer.node.id)) and model_id in (None, offer.model.model_id.hex())
            cheap = most is None or max(offer.price_in, offer.price_out) <= most
            if offer.audited.passed and offer.has_room and fits and cheap and offer.model.does & does:
                return Wanted(
                    id_text(offer.node.id),
                    driver_model=offer.model.model_id.hex(),
                    failover="off",
                    max_price=most,
                    capped=True,
                    goes_on=False,
                )
        raise NodeError(
            "no_audits",
            "No driver that is there now has passed an audit of this node with this model.",
            "Ask without that condition; answers are audited where the model's file is on this machine.",
        )


class Calling(OneOff):
    """A stream: AskBegan, once it is known who answers, then what comes of it, at last what it cost (Billed)
    and Finished. What is not answered at all raises NodeError, EngineError or NetError in place of AskBegan.
    """

    def __init__(self, calls: Calls, call: Call) -> None:
        self._calls = calls
        self._call = call
        super().__init__()

    async def _play(self) -> AsyncGenerator[CallEvent, None]:
        async with contextlib.AsyncExitStack() as held:
            route = await self._calls.route(self._call.model, self._call.policy)
            buying: Buying | None = None
            if isinstance(route, ModelEntry):
                began, self._source = await self._calls.hold(route, self._call, held)
            else:
                began = AskBegan("", 0)
                self._source = buying = self._calls.buy(self._call, route)
            held.callback(self._source.cancel)
            if self._stopped:
                self._source.cancel()
            told = False
            async for item in self._source:
                began = _known(began, item)
                if not told:
                    if isinstance(item, Finished) and item.error is not None:
                        raise _error(item.error)
                    if not isinstance(item, Delta | Finished):
                        continue
                    told = True
                    yield began
                if isinstance(item, Finished) and buying is not None:
                    if bills := await buying.settled(BILL_S):
                        yield Billed(bills)
                yield item


def _known(began: AskBegan, item: Item) -> AskBegan:
    """With what the item tells of who answers."""
    match item:
        case Sent():
            return AskBegan(began.model, began.load_ms, item.reader.id, item.reader.name)
        case Moved():
            return AskBegan(item.part.model, began.load_ms, item.part.id, item.part.name)
        case _:
            return began


def _error(error: ErrorInfo) -> NodeError:
    return NodeError(error.code, error.message, error.remedy)


def on_offer(offers: Iterable[OfferSeen]) -> list[CallableModel]:
    """What can be asked for by name of those that are there; the lowest prices, the largest contexts."""
    groups: dict[str, list[OfferSeen]] = {}
    for offer in offers:
        name = label(offer.model.name)
        if name and not offer.problem:
            groups.setdefault(name.casefold(), []).append(offer)
    listed = [
        CallableModel(
            label(group[0].model.name),
            "market",
            max(offer.model.context for offer in group),
            len({offer.node.id for offer in group}),
            min(offer.price_in for offer in group),
            min(offer.price_out for offer in group),
        )
        for group in groups.values()
    ]
    return sorted(listed, key=lambda model: model.id.casefold())


def _model_id(offers: Sequence[OfferSeen], model: str, max_price: int | None) -> str:
    """The model_id in hex of what is called so. Of several models of one name: one that can be had now at
    this price, of these the one that most nodes offer. Raises NodeError `no_model`."""
    found = [
        offer
        for offer in offers
        if label(offer.model.name).casefold() == model.casefold()
        or offer.model.model_id.hex() == model.casefold()
    ]
    if not found:
        raise NodeError(
            "no_model",
            f"There is no model named {label(model)} on this machine, and nobody offers one.",
            "infraxa models list and infraxa providers show what there is.",
        )
    at_hand = [
        offer
        for offer in found
        if offer.has_room and (max_price is None or max(offer.price_in, offer.price_out) <= max_price)
    ]
    count = Counter(offer.model.model_id for offer in at_hand or found)
    return count.most_common(1)[0][0].hex()
