"""A provider on loopback and users who order there, for tests of provider mode. Links and orders are real,
and the engine too, or `Scripted` for what a real one cannot be made to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from infraxa.app.config import Settings
from infraxa.app.events import Event, LogLine, ProviderChanged
from infraxa.app.models import Models
from infraxa.app.provider import Limits, Provider
from infraxa.app.serving import Mode, Served, ServedState
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.types import (
    Delta,
    EngineStatus,
    ErrorInfo,
    Finished,
    Loaded,
    LoadOptions,
    Progress,
    Request,
    Usage,
)
from infraxa.net import auth, orders, prompts, wire
from infraxa.net.codec import encode
from infraxa.net.customers import Customers
from infraxa.net.identity import Identity, Signer
from infraxa.net.link import Link, Stream
from infraxa.net.patience import Patience, PatienceLimits
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Purchase
from infraxa.net.status import Load, Offer
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import Store
from tests.app.leaves import CTX0, leaves_of
from tests.net.nodes import Node, nodes, until

SETTINGS = Settings(
    provide=True, online=False, slots=3, threads=1, pause_on_battery=False, base_price=0.0, models_loaded=1
)
QUESTION = "What is 2+2?"


class ScriptedGeneration:
    """Says what the test says, then ends as it says."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.cancelled = False
        self.ended: Finished | None = None
        self.n_out = 0
        self._steps = 0
        self._when_ended: Callable[[], None] = lambda: None
        self._items: asyncio.Queue[Progress | Delta | Finished] = asyncio.Queue()

    def __aiter__(self) -> ScriptedGeneration:
        return self

    async def __anext__(self) -> Progress | Delta | Finished:
        return await self._items.get()

    def when_ended(self, call: Callable[[], None]) -> None:
        self._when_ended = call

    def cancel(self) -> None:
        self.cancelled = True
        self._end(Finished("cancelled", Usage()))

    def read(self, done: int, total: int) -> None:
        self._items.put_nowait(Progress(done, total))

    def say(self, text: str, tokens: int = 1, *, hidden: int = 0) -> None:
        """`hidden`: so many more are sampled that nothing is told of but their leaves."""
        ids = tuple(range(self.n_out, self.n_out + tokens))
        self.n_out += tokens
        delta = Delta(text, ids)
        if (verified := self.request.verified) is not None:
            sampled = (*ids, *[2**20] * hidden)
            leaves = leaves_of(verified.order, verified.salt, sampled, self._steps)
            delta = msgspec.structs.replace(delta, leaves=leaves, ctx0=b"" if self._steps else CTX0)
            self._steps += len(sampled)
        self._items.put_nowait(delta)

    def finish(self, error: ErrorInfo | None = None) -> None:
        usage = Usage(n_prompt=5, n_out=self.n_out, first_token_ms=10.0, decode_ms=100.0)
        self._end(Finished("failed" if error else "stop", usage, error))

    def _end(self, finished: Finished) -> None:
        self._items.put_nowait(finished)
        if self.ended is None:
            self.ended = finished
            asyncio.get_running_loop().call_soon(self._when_ended)


class Scripted:
    """An engine for cases that the real one has no way to be brought into."""

    def __init__(self, slots: int = 3, context: int = 1000) -> None:
        self.generations: list[ScriptedGeneration] = []
        self.status = EngineStatus()
        self.loads: list[Path] = []
        self.error: Exception | None = None
        """Raised by the next load."""
        self.on_status: Callable[[EngineStatus], None] = lambda status: None
        self._slots = slots
        self._context = context

    async def load(self, path: Path, options: LoadOptions | None = None) -> Loaded:
        self.loads.append(path)
        self.become("loading", path)
        await asyncio.sleep(0)
        if self.error is not None:
            error, self.error = self.error, None
            self.become("failed", path, error=ErrorInfo("no_memory", "There is no memory.", "Buy some."))
            raise error
        kv_type = LoadOptions().kv_type if options is None else options.kv_type
        loaded = Loaded(str(path), self._context, self._context, self._slots, 1, 0, os.getpid(), 1, kv_type)
        self.become("ready", path, loaded=loaded)
        return loaded

    async def close(self) -> None:
        self.become("off")

    def become(self, state: str, path: Path = GUIDE_PATH, **changed: Any) -> None:
        self.status = EngineStatus(cast(Any, state), str(path), **changed)
        self.on_status(self.status)

    def generate(self, request: Request, *, retry: bool) -> ScriptedGeneration:
        assert not retry, "provider mode asks again by itself"
        self.generations.append(ScriptedGeneration(request))
        return self.generations[-1]

    async def asked(self, count: int) -> list[ScriptedGeneration]:
        """What was generated, when it is so much."""
        await until(lambda: len(self.generations) >= count)
        return self.generations


class User:
    """Somebody with an account."""

    def __init__(self, shop: Shop, link: Link, signer: Signer) -> None:
        self.link = link
        self.signer = signer
        self.key = signer.id
        self._shop = shop

    def buy(self, text: str = QUESTION, *, prompt: Prompt | None = None, **changed: Any) -> Purchase:
        prompt = prompt or Prompt((Turn("user", text),))
        fields = {"model": self._shop.model_id, "temperature": 0} | changed
        fields = {"id": os.urandom(16), "prompt_bytes": len(prompts.encode_prompt(prompt))} | fields
        order = wire.Order(**cast(Any, fields))
        return Purchase(self.link, order, prompt, Patience(PatienceLimits(), self.link.clock.monotonic()))

    async def bought(self, text: str = QUESTION, **changed: Any) -> list[Item]:
        """All that comes. Raises OrderFailed."""
        async with asyncio.timeout(30), self.buy(text, **changed) as purchase:
            return [item async for item in purchase]

    async def refused(self, text: str = QUESTION, **changed: Any) -> OrderFailed:
        """How it fails."""
        try:
            await self.bought(text, **changed)
        except OrderFailed as failed:
            return failed
        raise AssertionError("it was answered")


class Shop:
    """The provider."""

    def __init__(
        self, node: Node, engine: Engine | Scripted, models: Models, store: Store, **options: Any
    ) -> None:
        self.node = node
        self.store = store
        self.engine = engine
        self.models = models
        self.events: list[Event] = []
        self.offers: list[Offer | None] = []
        self.loads: list[Load] = []
        self.at_ms = 1_700_000_000_000
        options = {"on_battery": lambda: False, "clock": lambda: self.at_ms} | options
        self.provider = Provider(models, self.events.append, **options)
        self.provider.open(store)
        self.provider.on_offer, self.provider.on_load = self.offers.append, self.loads.append
        self.identity = Identity(node.secret[:32], bytes(32))
        self.customers = Customers(self.identity)
        self.customers.handler = self.provider.serve
        self.customers.bargainer = self.provider.till.bargain
        self.customers.auditor = self.provider.till.transcripts.audit
        self.provider.till.identity = lambda: self.identity
        node.handler = self._handle
        node.in_flight = 8
        self.users: list[Node] = []

    async def _handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        if isinstance(request, wire.Auth):
            auth.check(request, link)
            self.customers.add(link, request.key)
            await stream.send(encode(wire.Authenticated("", 0)))
        elif isinstance(request, wire.Order):
            await self.customers.serve(link, stream, request)
        elif isinstance(request, wire.Bargain):
            await self.customers.bargain(link, stream, request)
        elif isinstance(request, wire.AuditPlease):
            await self.customers.audit(link, stream, request)

    @property
    def model_id(self) -> bytes:
        """Of what was offered last."""
        offers = [offer for offer in self.offers if offer is not None]
        return offers[-1].models[0].model_id if offers else bytes(32)

    @property
    def log(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, LogLine)]

    @property
    def told(self) -> ProviderChanged:
        """The last that was told of provider mode."""
        return [event for event in self.events if isinstance(event, ProviderChanged)][-1]

    async def open(self, **settings: Any) -> None:
        """Provider mode is on and serves."""
        await self.use(**settings)
        await self.mode("serving")

    async def use(self, **settings: Any) -> None:
        await self.provider.use(msgspec.structs.replace(SETTINGS, **settings))

    async def mode(self, mode: Mode) -> None:
        await until(lambda: self.provider.status.mode == mode, 30)

    async def user(self, signer: Signer | None = None) -> User:
        node = Node()
        self.users.append(node)
        link = await node.dial(self.node)
        signer = signer or Signer(os.urandom(32))
        await auth.open_account(link, signer)
        return User(self, link, signer)

    async def state(self, state: ServedState, number: int | None = None) -> Served:
        """The request, when it is in this state; by default the newest."""

        def find() -> list[Served]:
            return [s for s in self.provider.served() if s.state == state and number in (None, s.number)]

        await until(find, 30)
        return max(find(), key=lambda served: served.number)

    async def free(self) -> None:
        """Nothing runs and nothing waits, and all slots can be had."""
        await until(
            lambda: (
                not (self.provider.status.running or self.provider.status.waiting)
                and not self.customers.sales
            )
        )

    async def close(self) -> None:
        await self.provider.close()
        await self.customers.close()
        for user in self.users:
            await user.close()


@asynccontextmanager
async def selling(
    engine: Engine | Scripted, models: Models, store: Store, **options: Any
) -> AsyncIterator[Shop]:
    """A provider with this engine, which is not on yet."""
    async with nodes(1) as (node,):
        shop = Shop(node, engine, models, store, **options)
        try:
            yield shop
        finally:
            await shop.close()


@asynccontextmanager
async def scripted(
    folder: Path,
    *,
    limits: Limits | None = None,
    clock: Callable[[], int] | None = None,
    **of_engine: Any,
) -> AsyncIterator[Shop]:
    """A provider with an engine that says what the test says; looks at itself all the time. `clock`: of the
    store, too."""
    engine, tasks = Scripted(**of_engine), TaskGroup()
    models = Models(lambda: cast(Engine, engine), tasks)
    options: dict[str, Any] = {"limits": limits or Limits(look=0.05)}
    if clock is None:
        store = await Store.open(folder)
    else:
        store = await Store.open(folder, clock=clock)
        options["clock"] = clock
    try:
        models.open(store)
        async with selling(engine, models, store, **options) as shop:
            models.on_change = shop.provider.engine_changed
            engine.on_status = lambda status: models.engine_changed()
            yield shop
    finally:
        await tasks.cancel_all()
        await store.close()


def text_of(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, orders.Piece))
