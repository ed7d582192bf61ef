"""The user's role: has drivers on the network answer.

How one answer goes on, over one driver or several, is in buying.py; which drivers there are in drivers.py;
what is stored in answers.py.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from infraxa.app import choices, verifying
from infraxa.app.at_driver import AtDriver
from infraxa.app.attempt import Ordering
from infraxa.app.buying import Buying
from infraxa.app.config import ANY, LOCAL, Settings
from infraxa.app.drivers import Drivers
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.app.ordering import order_of, tokens
from infraxa.app.purse import Purse
from infraxa.app.trade import Bound
from infraxa.app.wanted import Wanted
from infraxa.app.watch import Nobody, Watch
from infraxa.engine.types import ChatMessage, Request
from infraxa.net.credits import micro
from infraxa.net.patience import PatienceLimits
from infraxa.net.prompts import Prompt
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import ChatOptions

SHOWN_S: Final = 120.0
"""Where infraxa chooses, it stays with the driver whose price it showed for so long."""
MAX_SHOWN: Final = 64
"""Chats of which that is remembered."""


def wanted(options: ChatOptions, settings: Settings) -> Wanted | None:
    """Which driver answers in a chat, and how; None: this machine does."""
    driver = options.driver or settings.driver
    if driver == LOCAL:
        return None
    sampling = choices.resolve_sampling(options, settings)
    most, capped = options.max_price, options.max_price is not None
    if most is None and settings.max_price is not None:
        most = micro(settings.max_price)
    failover = options.failover or settings.failover
    return Wanted(driver, sampling, options.driver_model, failover, most, capped)


class Buyer:
    """Of one node. `close` it before the network and the drivers' memory."""

    def __init__(
        self,
        network: Ordering,
        drivers: Drivers,
        *,
        limits: PatienceLimits | None = None,
        purse: Purse | None = None,
    ) -> None:
        """Without a `purse` nothing is bought that has a price."""
        self._network = network
        self._drivers = drivers
        self._limits = limits or PatienceLimits()
        self._purse = purse
        self.watch: Watch = Nobody()
        """Told of the answers that people and programs ask for."""
        self._at_driver = AtDriver()
        self._tasks = TaskGroup()
        self._shown: dict[str, tuple[float, OfferSeen]] = {}
        """By chat where infraxa chooses: whose price was shown, and when."""

    def generate(
        self,
        said: tuple[ChatMessage, ...],
        wanted: Wanted,
        *,
        drop_oldest: bool = False,
        chat_id: str | None = None,
        message_id: str | None = None,
    ) -> Buying:
        """An answer to `said`, a Source. When the last message is an assistant's, its text is continued.

        `drop_oldest` leaves out as many of the oldest turns as the driver's context asks for. `chat_id`,
        `message_id`: of the answer, when it is kept: what it costs is told of it also after its end.
        """
        buying = self._buying(Request(said, wanted.sampling), wanted, drop_oldest=drop_oldest)
        buying.watch = self.watch
        if chat_id is not None and wanted.driver == ANY:
            buying.preferred = self._shown_for(chat_id)
        if self._purse is not None:
            buying.spending = self._purse.spending(buying.billed, chat_id, message_id)
            buying.spending.max_price = wanted.max_price if wanted.driver == ANY or wanted.capped else None
        return buying

    def call(self, request: Request, wanted: Wanted, texts: tuple[str, ...] = ()) -> Buying:
        """An answer to a program's request, or the vectors of texts; nothing of it is kept but what it
        cost."""
        buying = self._buying(request, wanted, texts)
        buying.watch, buying.called = self.watch, True
        if self._purse is not None:
            buying.spending = self._purse.spending(buying.billed, called=True)
            buying.spending.max_price = wanted.max_price
        return buying

    def canary(self, request: Request, wanted: Wanted, *, called: bool) -> Buying:
        """As `call`, an answer that nobody asked for; as if a program had, or somebody in a chat."""
        buying = self._buying(request, wanted)
        if self._purse is not None:
            buying.spending = self._purse.spending(buying.billed, called=called, canary=True)
        return buying

    def _buying(
        self, request: Request, wanted: Wanted, texts: tuple[str, ...] = (), *, drop_oldest: bool = False
    ) -> Buying:
        buying = Buying(
            self._network,
            self._drivers,
            self._limits,
            self._tasks,
            request,
            wanted,
            texts,
            at_driver=self._at_driver,
            drop_oldest=drop_oldest,
        )
        if self._purse is not None:
            buying.verify = self._purse.verify
        return buying

    async def bound(self, chat_id: str, said: tuple[ChatMessage, ...], wanted: Wanted) -> Bound:
        """What the next message of the chat, the last of `said`, can cost. Raises StoreError."""
        assert self._purse is not None
        try:
            offer = self._offer(chat_id, said, wanted)
        except NodeError as error:
            return Bound("refused", reason=error.message, remedy=error.remedy)
        if wanted.driver == ANY:
            self._shown[chat_id] = time.monotonic(), offer
            while len(self._shown) > MAX_SHOWN:
                del self._shown[next(iter(self._shown))]
        bound = await self._purse.bound(chat_id, offer, said, wanted.sampling)
        order = order_of(bytes(16), offer.model.model_id, 1, Request(sampling=wanted.sampling), None)
        why = verifying.asked(self._purse.verify, offer.model.modes, order, Prompt()).why
        return msgspec.structs.replace(bound, unverified=why)

    def _offer(self, chat_id: str, said: tuple[ChatMessage, ...], wanted: Wanted) -> OfferSeen:
        """Who would be asked now. Raises NodeError."""
        nodes = self._network.nodes()
        if wanted.driver != ANY:
            return self._drivers.find(nodes, wanted.driver, wanted.driver_model)
        if (shown := self._shown_for(chat_id)) is not None:
            for offer in self._drivers.offers([node for node in nodes if node.id == shown.node.id]):
                if offer.same_as(shown) and offer.has_room:
                    return offer
        model_id, need, most = wanted.model_id, tokens(said), wanted.max_price
        found = self._drivers.choose(nodes, model_id, need, max_price=most)
        if found is None:
            raise self._drivers.nobody(nodes, model_id, need, max_price=most)
        return found

    def _shown_for(self, chat_id: str) -> OfferSeen | None:
        """Whose price was shown in this chat, if that is not long ago."""
        at, offer = self._shown.get(chat_id, (float("-inf"), None))
        return offer if time.monotonic() - at <= SHOWN_S else None

    async def close(self) -> None:
        """End the answers that are under way."""
        await self._tasks.cancel_all()
