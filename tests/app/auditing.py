"""A user who audits, and a real provider with the real guide model, honest or as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from infraxa.app.auditor import Auditor
from infraxa.app.buying import Buying
from infraxa.app.choices import GUIDE, ModelEntry
from infraxa.app.convicting import Convicting, Parts
from infraxa.app.models import Models
from infraxa.app.provider import Limits
from infraxa.app.referees import Referees
from infraxa.app.replaying import Replaying
from infraxa.app.transcripts import Written
from infraxa.app.wanted import Wanted
from infraxa.engine import transcript
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, Delta, Sampling
from infraxa.net import auth, customers
from infraxa.net.identity import id_text
from infraxa.net.link import Link
from infraxa.net.status import SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store import tabs, verdicts
from infraxa.store.db import Store, now_ms
from infraxa.store.records import Reader, Verdict
from tests.app.purses import Place, Time
from tests.app.selling import SETTINGS, Shop, selling
from tests.app.stalls import Told, told
from tests.net.nodes import until

MU0 = 0.0776
"""The honest noise of the guide model, in logits, as it was measured on the CPU."""
ASKED = (ChatMessage("user", "How do I become a provider?"),)
"""The guide answers it with more than 40 tokens."""
WARM = Sampling(temperature=0.8)
HOT = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=40)
"""So hot that every draw matters."""
ENDED = ("passed", "failed", "undetermined", "unverified")


class Real(NamedTuple):
    """A provider, and what it computes with; its user has the same."""

    shop: Shop
    models: Models
    engine: Engine
    noise: float = MU0


@contextlib.asynccontextmanager
async def real_provider(folder: Path, model: Path | None = None) -> AsyncIterator[Real]:
    """One that sells the answers of the guide model, or of this file: then its noise is measured."""
    tasks = TaskGroup()
    engine = Engine(on_status=lambda status: models.engine_changed())
    models = Models(lambda: engine, tasks)
    store = await Store.open(folder)
    models.open(store)
    limits = pytest.MonkeyPatch()
    # All users of a test come from one address.
    limits.setattr(customers, "AUDITS_BURST", 10_000)
    try:
        async with selling(engine, models, store, limits=Limits(look=0.1), clock=now_ms) as shop:
            models.on_change = shop.provider.engine_changed
            name, noise = GUIDE, MU0
            if model is not None:
                name = (await models.add(model, None, None)).name
            await shop.open(model=name, base_price=0.2, stranger_limit=100.0, strangers_daily=100.0)
            if model is not None:
                noise = await engine.calibrate(scratch=folder)
            yield Real(shop, models, engine, noise)
    finally:
        limits.undo()
        await tasks.cancel_all()
        await engine.close()
        await store.close()


@contextlib.asynccontextmanager
async def real_providers(folder: Callable[[str], Path], count: int) -> AsyncIterator[tuple[Real, ...]]:
    """So many, each in a folder of its own."""
    async with contextlib.AsyncExitStack() as stack:
        yield tuple(
            [await stack.enter_async_context(real_provider(folder(f"real{n}"))) for n in range(count)]
        )


class Audits(Place):
    """A user of that provider."""

    def __init__(
        self, real: Real, store: Store, folder: Path, referees: tuple[Real, ...] = (), **settings: Any
    ) -> None:
        super().__init__(store, Time(), **{"verify": "fraud_proof"} | settings)
        self.shop = real.shop
        self.shops = (real.shop, *(one.shop for one in referees))
        self.readers: list[tuple[str, str, Reader]] = []
        """Who else was sent the chat."""
        self.secret = os.urandom(32)  # to the provider somebody else in each test
        self.place = ("", "")
        """Of the last answer."""
        self.verdicts: list[Verdict] = []
        """As they were told, the last one last."""
        self.published: list[bytes] = []
        replaying = _WithoutFile if referees else Replaying
        self.replaying = replaying(real.models, lambda: SETTINGS, folder)
        parts = Parts(
            self.order_link,
            self.drivers.observed,
            lambda chat_id, message_id, verdict: self.verdicts.append(verdict),
            self.published.append,
            lambda: None,
        )
        self.convicting = Convicting(parts, self.drivers.audit_history)
        self.auditor = Auditor(
            parts,
            self.replaying,
            self.drivers.audit_history,
            self.convicting,
            rng=random.Random(1),
            pauses=(0.0, 0.05),
            referees=Referees(self, self.drivers, self.purse, self._read_by) if referees else None,
        )
        self.purse.checks = self.auditor
        self.purse.paying.twice = self.convicting.twice

    @property
    def id(self) -> bytes:
        return self.shop.node.id

    async def _read_by(self, chat_id: str, message_id: str, reader: Reader) -> None:
        self.readers.append((chat_id, message_id, reader))

    def nodes(self) -> list[SeenNode]:
        # As if they were in different networks.
        return [
            replace(
                _seen(shop), addresses=(f"ws://8.{number}.8.8:7741",), found_in="" if number else "8.0.0.0/16"
            )
            for number, shop in enumerate(self.shops)
        ]

    async def order_link(self, node: bytes) -> Link:
        link = self.links.get(node)
        if link is None or link.closed:
            shop = next(shop for shop in self.shops if shop.node.id == node)
            link = self.links[node] = await self.user.dial(shop.node)
            await auth.open_account(link, self.account(node))
        return link

    def source(self, said: tuple[ChatMessage, ...] = ASKED, sampling: Sampling = WARM) -> Buying:
        """An answer, of a message of its own."""
        self.place = "chat", f"message {len(self.shop.provider.served())} {len(self.verdicts)}"
        wanted = Wanted(id_text(self.id), sampling)
        chat_id, message_id = self.place
        return self.buyer.generate(said, wanted, chat_id=chat_id, message_id=message_id)

    async def answer(self, said: tuple[ChatMessage, ...] = ASKED, sampling: Sampling = WARM) -> Told:
        """A whole one."""
        return await told(self.source(said, sampling))

    async def verdict(self, said: tuple[ChatMessage, ...] = ASKED, sampling: Sampling = WARM) -> Verdict:
        """What comes of the audit of a new answer."""
        before = len(self.verdicts)
        await self.answer(said, sampling)
        return await self.ended(before)

    async def verdict_of_long(self, said: tuple[ChatMessage, ...] = ASKED) -> Verdict:
        """Of one that has a checkpoint: how long a hot one is, is chance."""
        self.auditor.automatic = False
        for _ in range(30):
            before = len(self.verdicts)
            await self.answer(said, replace(HOT, max_tokens=70))
            await self.signed(before)
            if self.verdicts[-1].steps >= 64:
                await self.auditor.audit(self.place)
                return await self.ended(before + 1)
        raise AssertionError("all of them were short")

    async def note(self) -> str:
        """That of its tab, once there is one."""
        for _ in range(2000):
            if (note := (await self.store.run(tabs.get_tab, "user", self.id)).note) != "":
                return note
            await asyncio.sleep(0.01)
        raise AssertionError("no note within 20 s")

    async def signed(self, before: int = 0) -> None:
        """Something more was told."""
        await until(lambda: len(self.verdicts) > before, 30)

    async def ended(self, before: int = 0) -> Verdict:
        """What came of the next audit."""

        def found() -> list[Verdict]:
            over = [one for one in self.verdicts[before:] if one.state in ENDED]
            states = [one.state for one in self.verdicts[before:]]
            if states[-1:] == ["signed"] and "checking" in states:
                over.append(self.verdicts[-1])
            return over

        await until(found, 30)
        return found()[-1]


class _WithoutFile(Replaying):
    """Of a machine that does not have the model."""

    async def copy(self, model_id: bytes) -> ModelEntry | None:
        return None


def _seen(shop: Shop) -> SeenNode:
    offer = next(offer for offer in reversed(shop.offers) if offer is not None)
    node = shop.node
    return SeenNode(node.id, "till", "online", 1.0, (node.address,), (), 4, 0, offer.models, (), 0)


@contextlib.asynccontextmanager
async def auditing(
    real: Real, folder: Path, *, noise: float | None = None, referees: tuple[Real, ...] = (), **settings: Any
) -> AsyncIterator[Audits]:
    """`noise`: what was measured of the model here, if not what its provider did; 0: nothing was. `referees`:
    others that sell the model, which is not here then."""
    noise = real.noise if noise is None else noise
    store = await Store.open(folder)
    place = Audits(real, store, folder, referees, **settings)
    if noise:
        await store.run(verdicts.keep_noise, real.shop.model_id.hex(), "cpu", noise)
    await place.purse.open(store)
    await place.auditor.open(store)
    try:
        yield place
    finally:
        await place.buyer.close()
        await place.auditor.close()
        await place.purse.close()
        await place.drivers.close()
        await place.user.close()
        await store.close()


in_module = pytest.mark.asyncio(loop_scope="module")


def leaves(monkeypatch: pytest.MonkeyPatch, change: Callable[[transcript.Leaf], transcript.Leaf]) -> None:
    """The provider commits to other leaves than its engine made."""
    honest = Written.take

    def take(self: Written, delta: Delta) -> Iterator[tuple[int, bytes]]:
        made = tuple(transcript.encode_leaf(change(transcript.decode_leaf(leaf))) for leaf in delta.leaves)
        return honest(self, replace(delta, leaves=made))

    monkeypatch.setattr(Written, "take", take)
