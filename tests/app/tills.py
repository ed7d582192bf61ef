"""A provider that sells for credits and users who pay, step by step: for tests of the till."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct

from infraxa.net import codec, deals, market, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Identity, Signer
from infraxa.net.link import StreamFailed
from infraxa.net.market import Rates
from infraxa.net.purchase import Item
from infraxa.store import ledger, tabs
from infraxa.store.trade_records import TabRow
from tests.app.selling import Scripted, ScriptedGeneration, Shop, User, scripted

T = TypeVar("T", bound=Struct)

BASE = 200_000
"""µcr per 1M tokens."""
RATES = Rates(50_000, 200_000, 12_500)
"""At no load."""


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def selling_at(
    folder: Path, *, identity: Identity | None = None, time: Time | None = None, **settings: Any
) -> AsyncIterator[tuple[Shop, Time]]:
    """A provider that is on and asks for BASE; its clock and its ledger's stand at `time`."""
    time = time or Time()
    async with asyncio.timeout(60), scripted(folder, clock=time) as shop:
        if identity is not None:
            shop.identity = identity
        await shop.open(**{"base_price": BASE / 1_000_000} | settings)
        yield shop, time


def engine_of(shop: Shop) -> Scripted:
    return cast(Scripted, shop.engine)


class Payer:
    """A user who has quotes, orders and signs."""

    def __init__(self, shop: Shop, user: User) -> None:
        self.shop = shop
        self.user = user
        self.provider = shop.identity.id

    @property
    def key(self) -> bytes:
        return self.user.key

    async def ask(self, message: wire.Request, answer: type[T]) -> T:
        """Raises StreamFailed."""
        return await self.user.link.ask(message, answer, 10)

    async def refused(self, message: wire.Request) -> wire.Failure:
        """Why there is no answer."""
        try:
            await self.ask(message, wire.Quoted)
        except StreamFailed as failed:
            return failed.failure
        raise AssertionError("it was answered")

    async def quoted(self) -> wire.Quoted:
        return await self.ask(wire.QuotePlease(self.shop.model_id), wire.Quoted)

    async def quote(self) -> deals.Quote:
        return deals.opened_quote((await self.quoted()).quote, self.provider)

    async def order(self, hold: int = 1000, **changed: Any) -> dict[str, Any]:
        """The fields of an order by a new quote."""
        quote = await self.quote()
        return {"id": os.urandom(16), "quote": quote.id, "hold": hold} | changed

    async def buy(self, tokens: int = 4, **fields: Any) -> list[Item]:
        """Answered with so many tokens, to a prompt of 5."""
        count = len(engine_of(self.shop).generations)
        bought = asyncio.ensure_future(self.user.bought(**fields))
        await asyncio.wait(
            [bought, asked := asyncio.ensure_future(engine_of(self.shop).asked(count + 1))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if asked.done():
            say(asked.result()[-1], tokens)
        asked.cancel()
        return await bought

    async def bought(self, tokens: int = 4, hold: int = 1000) -> bytes:
        """An order that was answered with so many tokens; its number."""
        order = await self.order(hold)
        await self.buy(tokens, **order)
        return cast(bytes, order["id"])

    async def billed(self, order: bytes) -> wire.Billed:
        return await self.ask(wire.ReceiptPlease(order), wire.Billed)

    async def receipt(self, order: bytes) -> Signed:
        """Which is due."""
        billed = await self.billed(order)
        assert billed.state == "due" and billed.receipt is not None
        return billed.receipt

    def countersigned(self, receipt: Signed, *, less: int = 0, signer: Signer | None = None) -> Signed:
        facts = facts_of(receipt)
        value = deals.Countersign(
            deals.receipt_hash(receipt), facts.n_prompt, facts.n_out, facts.charge - less, True, 1
        )
        return deals.sign(value, signer or self.user.signer)

    async def pay(self, order: bytes, *, less: int = 0) -> wire.Accepted:
        """Countersign what is charged for it, or less."""
        signed = self.countersigned(await self.receipt(order), less=less)
        return await self.ask(wire.CountersignPlease(order, signed), wire.Accepted)

    async def tab(self) -> TabRow:
        """As the provider has it."""
        return await self.shop.store.run(tabs.get_tab, "provider", self.key)


async def payer(shop: Shop, signer: Signer | None = None) -> Payer:
    return Payer(shop, await shop.user(signer))


def say(generation: ScriptedGeneration, tokens: int = 4) -> None:
    """The answer, whole."""
    if tokens:
        generation.say("word " * tokens, tokens)
    generation.finish()


def facts_of(receipt: Signed) -> deals.Receipt:
    return cast(deals.Receipt, codec.decode(receipt.body, deals.Receipt))


def cost(tokens: int, n_prompt: int = 5, n_cached: int = 0, rates: Rates = RATES) -> int:
    return market.charge(n_prompt, n_cached, tokens, rates, 10**12)


async def whole(shop: Shop) -> None:
    """The books are."""
    assert await shop.store.run(ledger.check) == []
