"""What a node is made of: its parts, made, opened and closed in their order, and the settings that they
follow.

What front ends can ask of it is in node.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from infraxa.app import choices
from infraxa.app import config as configuration
from infraxa.app.audits import Audits
from infraxa.app.buyer import Buyer
from infraxa.app.calling import Calls
from infraxa.app.calm import Calm
from infraxa.app.config import Settings
from infraxa.app.control.server import ControlServer
from infraxa.app.conversing import Conversing
from infraxa.app.drivers import Drivers
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import (
    EngineChanged,
    Event,
    GatewayChanged,
    LogLine,
    ModelsChanged,
    NetworkChanged,
    OffersChanged,
    ProviderChanged,
    SettingsChanged,
    TradeChanged,
)
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.gateway.opening import GatewayDoor
from infraxa.app.models import Models
from infraxa.app.network import NodeNetwork
from infraxa.app.offers import OfferSeen
from infraxa.app.prices import PriceWatch
from infraxa.app.provider import Provider
from infraxa.app.purse import Purse
from infraxa.app.rated import Ratings
from infraxa.app.self_test import SelfTests
from infraxa.app.settlements import Settlements
from infraxa.app.till import Till
from infraxa.app.trading import Trading
from infraxa.app.trying import Trials
from infraxa.app.vocabularies import Vocabularies
from infraxa.engine.host import Engine
from infraxa.engine.types import EngineStatus
from infraxa.engine.vocabulary import Vocabulary
from infraxa.net.reputation import Counterparty
from infraxa.net.tasks import TaskGroup
from infraxa.store import state, tabs
from infraxa.store.db import Store
from infraxa.store.lock import FolderLock

SERVING_ACCEPTED = "serving_accepted"
CALM_S = 0.5
"""At most so often it is told that money moved."""
VOCABULARY_S = 5.0
"""An answer that is over is counted without its model's vocabulary when that does not come in this time."""
SETTLED_S = 60.0
"""So often it is looked whose tabs were settled."""


class NodeBase(NodeFacade):
    """The parts of one node."""

    def __init__(self, settings: Settings, folders: Folders, *, load_model: bool = True) -> None:
        """`load_model`: begin to load the model at the start, instead of when it is needed."""
        self.settings = settings
        self.folders = folders
        self._listeners: list[Callable[[Event], None]] = []
        self._tasks = TaskGroup()
        self.models = Models(self._make_engine, self._tasks)
        self.models.on_change = self._engines_changed
        self._engine_told = EngineStatus()
        self._loaded_told: frozenset[str] = frozenset()
        self._lock: FolderLock | None = None
        self._opened: Store | None = None
        self._load_model = load_model
        self._drivers = Drivers(lambda: self._emit(OffersChanged()))
        self._ratings = Ratings(self._drivers.reputations)
        self._net = NodeNetwork(folders, self._emit, self._ratings)
        self._provider = Provider(self.models, self._emit, till=Till(self._trade_moved))
        self._providing = asyncio.Lock()
        """Held while it is written whether provider mode is on."""
        self._trials = Trials(self._net)
        self._self_tests = SelfTests(self._net, self._provider, self._say)
        self._provider.self_test = lambda: self._self_tests.status
        self._purse = Purse(self._net, self._trade_moved)
        self._vocabularies = Vocabularies(folders.data, self.models, self._net.order_link)
        self._purse.vocabulary = self._vocabulary
        self._net.find_vocabulary = self._vocabularies.file
        self._settlements = Settlements(
            self._net, self._purse.paying, self._trade_moved, self._provider.till.settled
        )
        self._buyer = Buyer(self._net, self._drivers, purse=self._purse)
        self._conversing = Conversing(
            self.models, self._buyer, lambda: self.settings, lambda: self._store, self._emit
        )
        self._purse.on_bill = self._conversing.billed
        self._audits = Audits(
            self.models,
            self._net,
            self._drivers,
            self._purse,
            self._buyer,
            settings=lambda: self.settings,
            scratch=folders.data,
            told=self._conversing.judged,
            read_by=self._conversing.read_by,
            changed=self._audit_ended,
        )
        self._provider.noise = self._audits.noise
        self._send_guests_away = self.models.send_guests_away
        self.models.send_guests_away = self._make_room
        self._trade_told = Calm(lambda: self._emit(TradeChanged()), CALM_S)
        self._prices = PriceWatch(self._offers_seen)
        self._calls = Calls(
            self.models, self._buyer, lambda: self.settings, self._offers_seen, self._net.nodes
        )
        self._control = ControlServer(self, self._present, folders.data)
        self._gateway = GatewayDoor(
            self, folders.data, lambda: self._emit(GatewayChanged(self.gateway)), self._say
        )

    async def start(self) -> None:
        """Take the folder's lock, open the store, begin to load the model.

        Raises StoreError: another infraxa uses the folder, it cannot be written, its schema is newer.
        """
        self._lock = await asyncio.to_thread(FolderLock.acquire, self.folders.data)
        try:
            self._opened = store = await Store.open(self.folders.data)
        except BaseException:
            self._lock.release()
            self._lock = None
            raise
        self.models.open(store)
        await self._conversing.open(store)
        try:
            await self._control.open()
        except OSError as error:
            self._emit(
                LogLine("infraxa", f"No other infraxa can attach to this one: {error.strerror or error}.")
            )
        await self._drivers.open(store)
        self._provider.open(store)
        self._provider.on_offer, self._provider.on_load = self._net.offer, self._net.load
        till = self._provider.till
        till.identity, till.cheapest = lambda: self._net.identity, self._prices.cheapest
        self._net.sell(self._provider.serve, till.bargain, till.transcripts.audit)
        self._heed_settings()
        await self._self_tests.open(store)
        self._purse.paying.ratable = self._ratings.may_rate
        await self._ratings.open(store)
        await self._audits.open(store)
        await self._purse.open(store)
        self._settlements.open(store)
        await self._prices.open(store)
        self._tasks.repeat(self._see_settled, name="see settled tabs", pause_s=SETTLED_S)
        self._tasks.spawn(self._know_the_guide(), name="know the guide", told=FAILURES)
        if self._load_model:
            self._tasks.spawn(self._load_at_start(), name="load model")
        self._net.start(store, self.settings)
        self._offer()
        self._gateway.follow()

    def _present(self) -> list[Event]:
        """What somebody who comes now is told of how things are."""
        return [
            SettingsChanged(self.settings),
            EngineChanged(self.engine),
            NetworkChanged(self.network),
            ProviderChanged(self.provider),
            GatewayChanged(self.gateway),
            *self._conversing.present(),
        ]

    async def close(self) -> None:
        """End everything: answers are stored as stopped, the worker ends, the lock is free. Bounded."""
        self._control.refuse()
        await self._gateway.close()
        await self._conversing.close()
        await self._tasks.cancel_all()
        await asyncio.gather(self._self_tests.close(), self._trials.close())
        await self._provider.close()
        await self._buyer.close()
        await self._audits.close()
        await self._settlements.close()
        await self._purse.close()
        await self._vocabularies.close()
        self._trade_told.stop()
        await self._prices.close()
        await asyncio.gather(self.models.close(), self._net.close())
        await self._drivers.close()
        await self._ratings.close()
        if self._opened is not None:
            await self._opened.close()
            self._opened = None
        # The last before the lock is free: whoever was attached may take the folder over at once.
        await self._control.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event, on the loop; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _emit(self, event: Event) -> None:
        for listener in list(self._listeners):
            listener(event)

    def _make_engine(self) -> Engine:
        return Engine(on_status=lambda status: self.models.engine_changed(), on_log=self._engine_said)

    def _engines_changed(self) -> None:
        self._provider.engine_changed()
        if (status := self.models.status) is not self._engine_told:
            self._engine_told = status
            self._emit(EngineChanged(status))
        if (ready := self.models.ready) != self._loaded_told:
            self._loaded_told = ready
            self._emit(ModelsChanged())

    def _say(self, text: str) -> None:
        self._emit(LogLine("infraxa", text))

    def _engine_said(self, line: str) -> None:
        self._emit(LogLine("engine", line))

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise NodeError("closed", "This node is not open.")
        return self._opened

    @property
    def _trading(self) -> Trading:
        return Trading(self._store, self._provider.till, self._settlements, self._purse.limits)

    async def change_setting(self, name: str, value: object) -> None:
        """Write it to config.toml and use it from now on. Raises NodeError `bad_setting`."""
        await self._write_setting(name, value)
        self._follow(name)

    async def use_settings(self, settings: Settings) -> list[str]:
        """Use these from now on, which were read elsewhere; the names of those that are other ones."""
        changed = [
            name for name in configuration.names() if getattr(settings, name) != getattr(self.settings, name)
        ]
        self.settings = settings
        self._heed_settings()
        for name in changed:
            self._emit(SettingsChanged(settings, name))
        self._follow(*changed)
        return changed

    def _follow(self, *names: str) -> None:
        """These settings are other ones: what depends on them follows."""
        if not configuration.NETWORK_SETTINGS.isdisjoint(names):
            self._tasks.spawn(self._know_the_guide(), name="know the guide", told=FAILURES)
            self._tasks.spawn(self._net.restart(self.settings), name="join the network again")
        if not configuration.PROVIDER_SETTINGS.isdisjoint(names) or (
            "model" in names and self.settings.provide_model is None
        ):
            self._offer()
        if not configuration.GATEWAY_SETTINGS.isdisjoint(names):
            self._gateway.follow()

    def _offer(self) -> None:
        self._tasks.spawn(self._provide_as_set(), name="provider mode", told=FAILURES)

    async def _provide_as_set(self) -> None:
        """Nobody is served, whatever the settings say, before the person has read what that means."""
        if self.settings.provide and not await self._serving_accepted():
            self._emit(LogLine("infraxa", sentence(_unread_notice())))
        else:
            await self._provider.use(self.settings)

    async def _write_setting(self, name: str, value: object) -> None:
        parsed = await asyncio.to_thread(configuration.set, self.folders, name, value)
        self.settings = msgspec.structs.replace(self.settings, **{name: parsed})
        self._heed_settings()
        self._emit(SettingsChanged(self.settings, name))

    def _heed_settings(self) -> None:
        """Have those parts follow the settings that need no restart for it."""
        self._purse.use(self.settings)
        self._audits.use(self.settings)
        self._self_tests.use(self.settings)
        self._net.try_others(self._trials.run if self.settings.test_others else None)

    async def provide(self, on: bool, *, now: bool = False, keep: bool = True) -> None:
        """Turn provider mode on, or off: then the answers that run are finished first, unless `now`.

        `keep`: it is so at the next start too. Raises NodeError `notice` when the person has not accepted
        yet what serving others means.
        """
        async with self._providing:
            if on and not await self._serving_accepted():
                raise _unread_notice()
            if on != self.settings.provide:
                if keep:
                    await self._write_setting("provide", on)
                else:
                    self.settings = msgspec.structs.replace(self.settings, provide=on)
                    self._emit(SettingsChanged(self.settings, "provide"))
        # Without a pause: what is asked for last is what becomes of it.
        if on:
            await self._provider.use(self.settings)
        else:
            await self._provider.stop(now=now)

    async def accept_serving(self) -> bool:
        """The person has read what serving others means; whether that is new."""
        new = not await self._serving_accepted()
        if new:
            await self._store.run(state.set_value, SERVING_ACCEPTED, True)
        return new

    async def _serving_accepted(self) -> bool:
        return await self._store.run(state.get_value, SERVING_ACCEPTED, bool) is True

    async def _vocabulary(self, offer: OfferSeen) -> Vocabulary | None:
        return await self._vocabularies.for_answer(offer, self._net.nodes(), wait_s=VOCABULARY_S)

    async def _see_settled(self) -> None:
        """Have the word of those weigh whose tabs were settled."""
        await asyncio.sleep(SETTLED_S)
        settled = await self._store.run(tabs.settled)
        self._ratings.trust({node: Counterparty(amount) for node, amount in settled.items()})

    def _offers_seen(self) -> list[OfferSeen]:
        return self._drivers.offers(self._net.nodes())

    def _trade_moved(self) -> None:
        self._trade_told.changed()

    def _audit_ended(self) -> None:
        self._emit(OffersChanged())
        self._trade_moved()

    async def _make_room(self) -> None:
        """The person wants another model: returns when neither audits nor other nodes hold one."""
        await self._audits.step_aside()
        if self._send_guests_away is not None:
            await self._send_guests_away()

    async def _know_the_guide(self) -> None:
        """Whoever offers the built-in model is chosen last: every node has it. Its file is read for that, so
        not by a node that cannot choose."""
        if not self.settings.online or self._drivers.fallback:
            return
        guide = await self.models.entry(choices.GUIDE)
        self._drivers.fallback = frozenset({await self.models.model_id(guide)})

    async def _load_at_start(self) -> None:
        try:
            await self.models.load(await self.models.entry(self.settings.model), self.settings)
        except FAILURES as error:
            self._emit(LogLine("infraxa", sentence(error)))


def _unread_notice() -> NodeError:
    return NodeError(
        "notice",
        "Provider mode stays off until you have read what serving others means.",
        "F7 in the app shows it; infraxa serve prints it.",
    )
