"""`infraxa demo --headless`: the life of one order at each provider of a demo market, with its times."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from infraxa.app.commands.front import attached_node
from infraxa.app.commands.output import clean
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerWaits,
    Event,
    FactsChanged,
    NodesChanged,
    TradeChanged,
)
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import Bound
from infraxa.net.credits import shown
from infraxa.net.identity import display, id_text
from infraxa.store.records import AnswerFacts, Message

if TYPE_CHECKING:
    from infraxa.app.commands.demo import Provider

FOUND_S: Final = 20.0
LOCKED_S: Final = 10.0
ANSWER_S: Final = 60.0
SIGNED_S: Final = 15.0
QUESTION: Final = "What is a driver?"


class Exchange:
    """One question to each provider, its answer, and what both books say of it."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def say(self, line: str) -> None:
        print(f"{time.perf_counter() - self._began:7.3f} s  {clean(line)}", flush=True)

    async def use(self, providers: list[Provider], settings: Settings, folders: Folders) -> int:
        from infraxa.app.node import Node

        node = Node(settings, folders, load_model=False)
        started = time.perf_counter()
        await node.start()
        try:
            offers = await self.discover(node, len(providers))
            took = (time.perf_counter() - started) * 1000
            self.say(f"discovered {len(offers)} offers, {took:.0f} ms after this node began to start:")
            for offer in offers:
                self.say(f"  {_offer_text(offer)}")
            for offer in offers:
                await self.order(node, offer)
                (provider,) = [one for one in providers if one.name == offer.node.name]
                await self._compare(node, offer, provider, settings)
        finally:
            await node.close()
        return 0

    async def discover(self, node: NodeFacade, wanted: int) -> list[OfferSeen]:
        """As many offers. Raises NodeError `timeout`."""
        with _heard(node, NodesChanged) as changed:
            try:
                async with asyncio.timeout(FOUND_S):
                    while True:
                        offers = [offer for offer in await node.list_offers() if not offer.problem]
                        if len(offers) >= wanted:
                            return offers
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                raise NodeError("timeout", f"Not both providers were found within {FOUND_S:g} s.") from None

    async def order(self, node: NodeFacade, offer: OfferSeen) -> None:
        """Ask one provider, and say what becomes of it. Raises NodeError."""
        name = display(offer.node.name, offer.node.id)
        self.say(f"you ask {name}: {QUESTION}")
        chat = await node.create_chat()
        options = replace(
            chat.options,
            driver=id_text(offer.node.id),
            driver_model=offer.model.model_id.hex(),
            temperature=0.0,
        )
        await node.set_chat_options(chat.id, options)
        bound = await self._bound(node, chat.id, name)
        self.say(f"  {_bound_text(offer, bound)}")
        ended, first_s = await self._answer(node, chat.id, name)
        facts = await self._settled(node, ended, name)
        bill = facts.bills[0]
        self.say(f"  {name} answers: {' '.join(ended.content.split())}")
        self.say(f"  {_facts_text(facts, first_s)}")
        here = "not counted" if bill.counted is None else str(bill.counted)
        self.say(f"  tokens of the answer: {bill.n_out} as {offer.node.name} counts, {here} as counted here")
        self.say(
            f"  charged {shown(bill.charge)} credits, of at most {shown(bill.hold)}: {bill.state} by both"
        )
        (line,) = await node.export_receipts(bill.order)
        self.say(f"  {_verified(line.text)}")

    async def _bound(self, node: NodeFacade, chat_id: str, name: str) -> Bound:
        """What it can cost, once the rates are locked."""
        with _heard(node, TradeChanged) as changed:
            try:
                async with asyncio.timeout(LOCKED_S):
                    while (bound := await node.bound(chat_id, QUESTION)).state == "asking":
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                raise _late(name, "locked no price", LOCKED_S) from None
        if bound.state == "refused":
            raise NodeError("refused", bound.reason, bound.remedy)
        return bound

    async def _answer(self, node: NodeFacade, chat_id: str, name: str) -> tuple[Message, float | None]:
        """The answer as it ended, and the seconds to its first token."""
        asked = time.perf_counter()
        first_s: float | None = None
        ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def listen(event: Event) -> None:
            nonlocal first_s
            match event:
                case AnswerGrew() if first_s is None:
                    first_s = time.perf_counter() - asked
                case AnswerWaits(waits=waits):
                    self.say(f"  waiting for {waits.what}")
                case AnswerEnded(message=message) if not ended.done():
                    ended.set_result(message)

        end = node.subscribe(listen)
        try:
            async with asyncio.timeout(ANSWER_S):
                await node.send(chat_id, QUESTION)
                message = await ended
        except TimeoutError:
            raise _late(name, "did not answer", ANSWER_S) from None
        finally:
            end()
        if message.state != "complete":
            raise NodeError("failed", f"{name} gave no whole answer. {message.error}".strip())
        return message, first_s

    async def _settled(self, node: NodeFacade, message: Message, name: str) -> AnswerFacts:
        """Its facts, once both sides have signed what it costs."""
        with _heard(node, FactsChanged) as changed:
            try:
                async with asyncio.timeout(SIGNED_S):
                    while True:
                        turns = await node.branch(message.chat_id)
                        facts = turns[-1].message.facts or AnswerFacts()
                        if facts.bills and facts.bills[-1].state in ("signed", "disputed"):
                            return facts
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                raise _late(name, "signed no receipt", SIGNED_S) from None

    async def _compare(
        self, node: NodeFacade, offer: OfferSeen, provider: Provider, settings: Settings
    ) -> None:
        """What both books say. Raises NodeError `books_differ`."""
        driver = id_text(offer.node.id)
        owed = sum(tab.owed for tab in await node.list_tabs() if tab.peer == driver)
        async with attached_node(Folders.find(provider.folder, {}), settings) as other:
            if other is None:
                raise NodeError("failed", f"The book of {provider.name} cannot be read.")
            theirs = sum(tab.owed for tab in await other.list_tabs() if tab.role == "provider")
            earned = (await other.earnings()).total.earned
        spent = sum(one.spent for one in (await node.earnings()).peers if one.key == driver)
        same = "the same" if (owed, spent) == (theirs, earned) else "DIFFERENT"
        self.say(
            f"  both books: you owe {shown(owed)} here, {shown(theirs)} there; "
            f"spent {shown(spent)}, earned {shown(earned)}: {same}"
        )
        if same != "the same":
            raise NodeError("books_differ", "The books of both sides differ.")


@contextlib.contextmanager
def _heard(node: NodeFacade, kind: type[Event]) -> Iterator[asyncio.Event]:
    """Set whenever such an event comes."""
    changed = asyncio.Event()
    end = node.subscribe(lambda event: changed.set() if isinstance(event, kind) else None)
    try:
        yield changed
    finally:
        end()


def _late(name: str, what: str, seconds: float) -> NodeError:
    return NodeError(
        "timeout", f"{name} {what} within {seconds:g} s.", "Close other programs, then try again."
    )


def _offer_text(offer: OfferSeen) -> str:
    node, model = offer.node, offer.model
    price = f"{shown(offer.price_out)} credits per 1M tokens" if offer.price_out else "free"
    return (
        f"{display(node.name, node.id)} serves {model.name} ({model.quantization}), "
        f"{model.context:,} tokens of context, {node.slots} at a time, {price}"
    )


def _bound_text(offer: OfferSeen, bound: Bound) -> str:
    seconds = (bound.until_ms - time.time() * 1000) / 1000
    return (
        f"price seen {shown(offer.price_out)}/M, locked {shown(bound.price_out)}/M for {seconds:.0f} s: "
        f"at most {shown(bound.most)} credits (prompt {bound.n_prompt:,}, answer {bound.max_out:,} tokens); "
        f"today {shown(bound.spent_today)} of {shown(bound.cap_today)}"
    )


def _facts_text(facts: AnswerFacts, first_s: float | None) -> str:
    rate = facts.tokens_per_second
    parts = [
        "" if facts.connect_ms is None else f"connected in {facts.connect_ms:.1f} ms",
        "" if first_s is None else f"first token after {first_s * 1000:.0f} ms",
        "" if rate is None else f"{rate:.0f} tok/s",
        f"readable by {', '.join(reader.name for reader in facts.readers)} only",
    ]
    return " · ".join(part for part in parts if part)


def _verified(line: str) -> str:
    """What the exported receipt proves to somebody who has nothing but it. Raises NetError."""
    from infraxa.app.commands.verify import proves
    from infraxa.net import receipt_file

    found = receipt_file.checked(line)
    return f"receipt {found.receipt.seq} checked offline: {proves(found)}"
