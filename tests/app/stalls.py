"""Drivers that do as a test says, on real links over loopback, and a market that knows them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from infraxa.app.answering import Item, Moved, Sent, Times, Waits
from infraxa.app.buyer import Buyer
from infraxa.app.buying import Buying
from infraxa.app.drivers import Drivers
from infraxa.app.wanted import Wanted
from infraxa.engine.types import ChatMessage, Delta, Finished
from infraxa.net import wire
from infraxa.net.errors import NetError
from infraxa.net.identity import id_text
from infraxa.net.link import Link, Stream
from infraxa.net.orders import Done
from infraxa.net.patience import PatienceLimits
from infraxa.net.prompts import Prompt
from infraxa.net.records import ModelOffer
from infraxa.net.routing import Blame, Outcome
from infraxa.net.sale import Sale, SaleEnded
from infraxa.net.status import NetworkStatus, SeenNode
from tests.net.nodes import Node

MODEL = bytes(range(32))
OTHER_MODEL = bytes(reversed(range(32)))
SAID = (ChatMessage("user", "Why is the sky blue?"),)
SOON = PatienceLimits(
    answer=1.0, line=2.0, placed=1.0, upload=2.0, taken=1.0, advance=1.0, silence=1.0, longest=1.0, pause=0.5
)
"""Waits that a test can wait for."""

Script = Callable[[Sale], Awaitable[None]]


def ids(text: str) -> tuple[int, ...]:
    """A token for each character."""
    return tuple(map(ord, text))


async def say(sale: Sale, *pieces: str, prompt: Prompt | None = None) -> None:
    """A whole answer."""
    prompt = prompt or await sale.claim(4096, 1000)
    for piece in pieces:
        await sale.piece(piece, ids(piece))
    n_out = sum(map(len, pieces))
    n_prompt = sum(len(turn.text) for turn in prompt.turns)
    await sale.done(Done("stop", n_prompt, 0, n_out, 0, 0, 0))


def saying(*pieces: str) -> Script:
    async def script(sale: Sale) -> None:
        await say(sale, *pieces)

    return script


def refusing(code: wire.ErrorCode, **more: Any) -> Script:
    async def script(sale: Sale) -> None:
        await sale.fail(code, **more)

    return script


async def silent(sale: Sale) -> None:
    await asyncio.sleep(60)


class Stall:
    """A driver. `script` may be changed between two orders."""

    def __init__(self, name: str, script: Script, model: bytes = MODEL, context: int = 4096) -> None:
        self.node = Node()
        self.node.handler = self._handle
        self.node.in_flight = 8
        self.name = name
        self.script = script
        self.raw: Callable[[Link, Stream], Awaitable[None]] | None = None
        """Instead of `script`, for one that keeps to no rules."""
        self.model = ModelOffer(f"model of {name}", "llama", "Q4_0", model, context, 1000, 0, 0)
        self.orders: list[wire.Order] = []
        self.ends: list[str] = []
        self.dials = 0
        self.seen = True

    @property
    def id(self) -> bytes:
        return self.node.id

    def as_seen(self) -> SeenNode:
        return SeenNode(
            self.id, self.name, "online", 1.0, (self.node.address,), (), 4, 0, (self.model,), (), 0
        )

    async def _handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        assert isinstance(request, wire.Order)
        self.orders.append(request)
        if self.raw is not None:
            await self.raw(link, stream)
            return
        link.account = bytes(32)
        sale = Sale(link, stream, request)
        try:
            await self.script(sale)
        except SaleEnded as ended:
            self.ends.append(ended.reason)
        except asyncio.CancelledError:
            self.ends.append(sale.ended or "")
            raise


class Market:
    """What a user's node has of the network."""

    def __init__(self, *stalls: Stall, limits: PatienceLimits | None = None) -> None:
        self.stalls = stalls
        self.user = Node()
        self.drivers = Drivers(lambda: None, rng=random.Random(1))
        self._limits = limits
        self.buyer = Buyer(self, self.drivers, limits=limits)
        self.status = NetworkStatus("online")
        self.links: dict[bytes, Link] = {}
        self.fault: Blame = "peer"
        self.hold: asyncio.Event | None = None
        """No link is made before it."""

    async def trust(self, stall: Stall) -> None:
        """It has answered often and fast: it is whom infraxa chooses first."""
        for _ in range(10):
            outcome = Outcome("answered", first_token_ms=1.0, tokens_per_second=1000.0)
            await self.drivers.observed(stall.id, stall.model.model_id, outcome)

    def nodes(self) -> list[SeenNode]:
        return [stall.as_seen() for stall in self.stalls if stall.seen]

    async def order_link(self, node: bytes) -> Link:
        stall = next(stall for stall in self.stalls if stall.id == node)
        if self.hold is not None:
            await self.hold.wait()
        stall.dials += 1
        link = self.links.get(node)
        if link is None or link.closed:
            try:
                link = self.links[node] = await self.user.dial(stall.node)
            except (OSError, NetError):
                raise NetError("unreachable", "Nothing answers there.") from None
        return link

    def blame(self, node: bytes, link: Link | None) -> Blame:
        return self.fault

    def buy(self, stall: Stall | None = None, said: tuple[ChatMessage, ...] = SAID, **more: Any) -> Buying:
        """An answer of this one, or of whoever is chosen."""
        kept = {name: more.pop(name) for name in ("drop_oldest", "chat_id", "message_id") if name in more}
        driver = "auto" if stall is None else id_text(stall.id)
        return self.buyer.generate(said, Wanted(driver, **more), **kept)


@contextlib.asynccontextmanager
async def market(*stalls: Stall, limits: PatienceLimits | None = None) -> AsyncIterator[Market]:
    """With these drivers."""
    made = Market(*stalls, limits=limits)
    try:
        for stall in stalls:
            await stall.node.listen()
        async with asyncio.timeout(50):
            yield made
    finally:
        await made.buyer.close()
        await made.drivers.close()
        await made.user.close()
        for stall in stalls:
            await stall.node.close()


class Told:
    """All items of an answer."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.waits = [item for item in items if isinstance(item, Waits)]
        self.moves = [item for item in items if isinstance(item, Moved)]
        self.readers = [item.reader.name for item in items if isinstance(item, Sent)]
        self.text = "".join(item.text for item in items if isinstance(item, Delta))
        self.tokens = sum(len(item.token_ids) for item in items if isinstance(item, Delta))
        (self.times,) = [item for item in items if isinstance(item, Times)]
        (self.end,) = [item for item in items if isinstance(item, Finished)]
        assert items[-2:] == [self.times, self.end]


async def told(buying: Buying) -> Told:
    return Told([item async for item in buying])
