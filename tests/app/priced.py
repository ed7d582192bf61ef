"""A node whose providers ask for credits, and what it says of money in several situations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from infraxa.app.config import Settings
from infraxa.app.events import Event, FactsChanged, TradeChanged
from infraxa.app.folders import Folders
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import Bound
from infraxa.net.identity import id_text
from infraxa.store import messages
from infraxa.store.records import AnswerFacts, Bill, Message
from tests.app.offered import CEDAR, MAPLE, MEASURED, OFFERS, OfferedNode, moved_facts
from tests.app.still import NOW

PRICED: Sequence[OfferSeen] = [
    replace(offer, price_in=50_000, price_out=200_000, stars=4.3, ratings=12, new=False) for offer in OFFERS
]
LOCKED = Bound(
    "locked", id_text(MAPLE.id), "maple", most=400, price_in=50_000, price_out=200_000, until_ms=NOW + 30_000,
    n_prompt=512, counted=True, max_out=1872, spent_today=12_000, cap_today=50_000, owed=1_200, limit=5_000,
)  # fmt: skip
RAISED = replace(LOCKED, price_in=60_000, price_out=240_000, raised_from=200_000)
ASKING = Bound("asking", id_text(MAPLE.id), "maple", spent_today=12_000, cap_today=50_000)
CAPPED = replace(
    LOCKED,
    state="refused",
    spent_today=49_800,
    reason="What may be spent in a day is reached: 0.0498 of 0.05 credits.",
    remedy="Raise cap_day (F9), or go on tomorrow.",
)
BILL = Bill(
    "ab12cd34" * 4, id_text(MAPLE.id), 50_000, 200_000, 400, n_prompt=512, n_cached=480, n_out=412,
    counted=412, charge=80, state="signed",
)  # fmt: skip
DUE = replace(BILL, state="due")
DISPUTED = replace(BILL, state="disputed", counted=398, disputed=3)
SIGNED = replace(MEASURED, bills=(BILL,))
OF_TWO = replace(
    moved_facts(40),
    bills=(
        replace(BILL, n_out=200, counted=200, charge=40),
        replace(
            BILL, order="ef56" * 8, driver=id_text(CEDAR.id), n_out=212, counted=None, charge=44, state="due"
        ),
    ),
)


class PricedNode(OfferedNode):
    """It says of the next message what it was told to, and notes what it was asked."""

    offers: Sequence[OfferSeen] = PRICED
    bounds = LOCKED

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.asked: list[str] = []
        """The texts of which the cost was asked for."""
        self.bound_of: Callable[[str], Bound] = lambda text: self.bounds
        """By the text."""

    async def bound(self, chat_id: str, text: str) -> Bound:
        self.asked.append(text)
        return self.bound_of(text)

    async def rate(self, message_id: str, stars: int, named: bool = False) -> None:
        await super().rate(message_id, stars, named)
        message = await self._store.run(messages.get_message, message_id)
        self.know(message, replace(message.facts or AnswerFacts(), stars=stars))

    def tell(self, bound: Bound) -> None:
        """This is what a message can cost from now on, and it says so."""
        self.bounds = bound
        self.say(TradeChanged())

    def know(self, answer: Message, facts: AnswerFacts) -> None:
        """More is known of an answer."""
        self.say(FactsChanged(answer.chat_id, answer.id, facts))

    def say(self, event: Event) -> None:
        self._emit(event)


def with_bills(*bills: Bill, **more: object) -> AnswerFacts:
    """What is known of an answer with these orders."""
    return msgspec.structs.replace(MEASURED, bills=bills, **more)
