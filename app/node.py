"""Node: the one facade that the terminal app and the commands call.

It opens the data folder, the store and the engine, says what happens as events, and decides what goes into
a prompt. Screens and commands hold no state that Node has; how an answer is generated and stored is in
`answers`, which models there are in `models`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from infraxa.app import choices, fraud, prices, self_test_words
from infraxa.app import config as configuration
from infraxa.app.answers import Answers, Prepared
from infraxa.app.asking import Asking
from infraxa.app.audit_values import AuditPlan
from infraxa.app.auditor import Auditor
from infraxa.app.buyer import Buyer, wanted
from infraxa.app.calling import Calling, Calls
from infraxa.app.calls import Call, CallableModel, CallSpending, EmbedCall, EmbeddedBy
from infraxa.app.calm import Calm
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.control.server import ControlServer
from infraxa.app.convicting import Convicting, Parts
from infraxa.app.drivers import Drivers
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import (
    BranchChanged,
    ChatsChanged,
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
from infraxa.app.facade import NodeFacade, OnProgress
from infraxa.app.folders import Folders
from infraxa.app.gateway.opening import GatewayDoor, Opening
from infraxa.app.gateway.values import GatewayStatus, GatewayWish
from infraxa.app.hub_values import PullAdded, PullAsked
from infraxa.app.missed import poorly_rated
from infraxa.app.models import Models
from infraxa.app.network import NodeNetwork
from infraxa.app.offers import Mark, OfferSeen
from infraxa.app.prices import PriceHistory
from infraxa.app.prompting import fit, prompt_messages
from infraxa.app.provider import Provider
from infraxa.app.pulled_files import delete_files
from infraxa.app.pulling import Pulling, remember
from infraxa.app.purse import Purse
from infraxa.app.rated import Ratings
from infraxa.app.referees import Referees
from infraxa.app.replaying import Replaying
from infraxa.app.self_test import SelfTests
from infraxa.app.serving import BlockedUser, ProviderStatus, SelfTest, Served
from infraxa.app.settlements import Settlements
from infraxa.app.till import Till
from infraxa.app.trade import Bound, Earnings, Missed, PricePoint, ReceiptLine, ReceiptSeen, Role, TabSeen
from infraxa.app.trading import Trading
from infraxa.app.trying import Trials
from infraxa.app.vocabularies import Vocabularies
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, EngineStatus, Request
from infraxa.engine.vocabulary import Vocabulary
from infraxa.net.identity import id_text
from infraxa.net.reputation import Counterparty
from infraxa.net.status import NetworkStatus, PeerInfo, Refused, SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store import bills, chats, markdown, messages, search, state, tabs, turns
from infraxa.store import models as records
from infraxa.store.db import Store, now_ms
from infraxa.store.lock import FolderLock
from infraxa.store.records import (
    AnswerFacts,
    Bill,
    Chat,
    ChatOptions,
    ChatSummary,
    Message,
    Reader,
    SearchHit,
    StoreError,
    Turn,
    Verdict,
)

_log = logging.getLogger(__name__)

LAST_CHAT = "last_chat"
SERVING_ACCEPTED = "serving_accepted"
CALM_S = 0.5
"""At most so often it is told that money moved."""
VOCABULARY_S = 5.0
"""An answer that is over is counted without its model's vocabulary when that does not come in this time."""
PRICES = "prices"
"""The prices of the last day, in the store."""
PRICES_S = 60.0
"""So often the prices of the market are looked at for their history."""
_RATABLE = ("signed", "disputed")
DELETED_KEPT_MS = 30 * 24 * 3600 * 1000
"""How long a deleted chat can be brought back."""


class Node(NodeFacade):
    """One running infraxa. Made cheaply, opened by `start`, ended by `close`; lives on one event loop."""

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
        self._answers: Answers | None = None
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
        self._purse.on_bill = self._billed
        self._vocabularies = Vocabularies(folders.data, self.models, self._net.order_link)
        self._purse.vocabulary = self._vocabulary
        self._net.find_vocabulary = self._vocabularies.file
        self._settlements = Settlements(
            self._net, self._purse.paying, self._trade_moved, self._provider.till.settled
        )
        self._replaying = Replaying(self.models, lambda: self.settings, folders.data)
        parts = Parts(
            self._net.order_link,
            self._drivers.observed,
            self._judged,
            self._net.tell_proof,
            self._audit_ended,
        )
        self._convicting = Convicting(parts, self._drivers.audited)
        referees = Referees(self._net, self._drivers, self._purse, self._read_by)
        self._auditor = Auditor(
            parts, self._replaying, self._drivers.audited, self._convicting, referees=referees
        )
        self._provider.noise = self._replaying.noise
        self._purse.checks = self._auditor
        self._purse.paying.twice = self._convicting.twice
        self._send_guests_away = self.models.send_guests_away
        self.models.send_guests_away = self._make_room
        self._trade_told = Calm(lambda: self._emit(TradeChanged()), CALM_S)
        self._prices = PriceHistory()
        self._prices_kept_at = 0
        self._buyer = Buyer(self._net, self._drivers, purse=self._purse)
        self._calls = Calls(
            self.models,
            self._buyer,
            lambda: self.settings,
            lambda: self._drivers.offers(self._net.nodes()),
            self._net.nodes,
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
        self._answers = Answers(store, self._emit)
        await store.run(messages.mark_interrupted)
        await store.run(chats.purge_deleted, DELETED_KEPT_MS)
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
        till.identity, till.cheapest = lambda: self._net.identity, self._cheapest
        self._net.sell(self._provider.serve, till.bargain, till.transcripts.audit)
        self._heed_settings()
        await self._self_tests.open(store)
        self._purse.paying.ratable = self._ratings.may_rate
        await self._ratings.open(store)
        await self._auditor.open(store)
        self._net.judge_proofs(fraud.guilty, self._convicting.convicted, self._drivers.audited.told)
        await self._purse.open(store)
        self._settlements.open(store)
        kept = await store.run(state.get_value, PRICES, prices.Kept)
        self._prices.bring_back(kept or {}, now_ms())
        self._tasks.repeat(self._see_prices, name="see prices", pause_s=PRICES_S)
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
            *self._playing.present(),
        ]

    async def close(self) -> None:
        """End everything: answers are stored as stopped, the worker ends, the lock is free. Bounded."""
        self._control.refuse()
        await self._gateway.close()
        if self._answers is not None:
            try:
                async with asyncio.timeout(3):
                    await self._answers.stop_all()
                    await self._answers.store_again()
            except TimeoutError:
                _log.error("answers did not stop within 3 s")
        await self._tasks.cancel_all()
        await asyncio.gather(self._self_tests.close(), self._trials.close())
        await self._provider.close()
        await self._buyer.close()
        await self._auditor.close()
        await self._settlements.close()
        await self._purse.close()
        await self._vocabularies.close()
        self._trade_told.stop()
        with contextlib.suppress(StoreError):
            await self._keep_prices()
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

    @property
    def _playing(self) -> Answers:
        if self._answers is None:
            raise NodeError("closed", "This node is not open.")
        return self._answers

    @property
    def engine(self) -> EngineStatus:
        return self.models.status

    async def list_chats(self) -> list[ChatSummary]:
        """The one that was last written in first."""
        return await self._store.run(chats.list_chats)

    async def search(self, text: str) -> list[SearchHit]:
        return await self._store.run(search.search, text)

    async def get_chat(self, chat_id: str) -> Chat:
        return await self._store.run(chats.get_chat, chat_id)

    async def create_chat(self) -> Chat:
        chat = await self._store.run(chats.create_chat)
        self._emit(ChatsChanged())
        return chat

    async def rename_chat(self, chat_id: str, title: str) -> None:
        await self._store.run(chats.rename_chat, chat_id, title)
        self._emit(ChatsChanged())

    async def delete_chat(self, chat_id: str) -> None:
        """Its answer is stopped; `restore_chat` undoes it."""
        await self._playing.stop(chat_id)
        with self._playing.reserved(chat_id):
            await self._store.run(chats.delete_chat, chat_id)
        self._emit(ChatsChanged())

    async def restore_chat(self, chat_id: str) -> None:
        await self._store.run(chats.restore_chat, chat_id)
        self._emit(ChatsChanged())

    async def set_chat_options(self, chat_id: str, options: ChatOptions) -> None:
        await self._store.run(chats.set_options, chat_id, options)
        self._emit(ChatsChanged())

    async def save_draft(self, chat_id: str, text: str) -> None:
        await self._store.run(chats.set_draft, chat_id, text)

    async def branch(self, chat_id: str) -> list[Turn]:
        """The shown branch, oldest turn first. Who could read an answer is whoever was sent it since, too."""
        await self._playing.store_again()
        shown, later = await self._store.run(messages.shown_with_readers, chat_id)
        ended = ((self._playing.as_known(turn.message), turn.sibling_ids) for turn in shown)
        return [Turn(_with_readers(message, later), siblings) for message, siblings in ended]

    async def select_version(self, message_id: str) -> None:
        """Show the branch that contains this message."""
        message = await self._store.run(messages.get_message, message_id)
        with self._playing.reserved(message.chat_id):
            await self._store.run(messages.select_sibling, message_id)
        self._emit(BranchChanged(message.chat_id))

    async def export_markdown(self, chat_id: str) -> str:
        chat, shown = await self.get_chat(chat_id), await self.branch(chat_id)
        return await asyncio.to_thread(markdown.to_markdown, chat, shown)

    async def prompt_history(self) -> list[str]:
        """What the person sent before, newest last."""
        return await self._store.run(state.list_prompts)

    async def last_chat_id(self) -> str | None:
        return await self._store.run(state.get_value, LAST_CHAT, str)

    async def remember_last_chat(self, chat_id: str) -> None:
        await self._store.run(state.set_value, LAST_CHAT, chat_id)

    async def send(self, chat_id: str, text: str) -> str:
        """Say `text` and have it answered; returns the answer's id. NodeError `busy` while one runs."""
        return await self._answer(chat_id, lambda facts: self._store.run(turns.ask, chat_id, text, facts))

    async def edit(self, message_id: str, text: str) -> str:
        """Say `text` instead of the user's message: a sibling of it, answered; returns the answer's id."""
        old = await self._store.run(messages.get_message, message_id)
        return await self._answer(
            old.chat_id, lambda facts: self._store.run(turns.ask_instead, message_id, text, facts)
        )

    async def regenerate(self, message_id: str, *, drop_oldest: bool = False) -> str:
        """Another answer beside this one; `drop_oldest` leaves out as many of the oldest turns as must be."""
        old, question_id = await self._answer_and_question(message_id)
        return await self._answer(
            old.chat_id,
            lambda facts: self._store.run(turns.answer, question_id, facts),
            drop_oldest=drop_oldest,
        )

    async def continue_answer(self, message_id: str) -> str:
        """Go on where this answer ended: what follows is added to its text."""
        old, _ = await self._answer_and_question(message_id)
        if (await self.get_chat(old.chat_id)).head_id != old.id:
            raise NodeError("not_last", "Only the last answer can go on.", "Regenerate this one instead.")
        return await self._answer(
            old.chat_id, lambda _: self._store.run(turns.resume, message_id), resumed=old
        )

    async def continue_elsewhere(self, message_id: str, driver: str, driver_model: str | None = None) -> str:
        """As `continue_answer`, by this driver, which answers the chat from then on."""
        old, _ = await self._answer_and_question(message_id)
        chat = await self.get_chat(old.chat_id)
        options = msgspec.structs.replace(chat.options, driver=driver, driver_model=driver_model)
        await self.set_chat_options(chat.id, options)
        return await self.continue_answer(message_id)

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer at once; what was said stays."""
        await self._playing.stop(chat_id)

    def answering(self, chat_id: str) -> bool:
        return self._answers is not None and chat_id in self._answers

    def partial(self, message_id: str) -> str:
        """The whole text so far of a running answer; empty when it does not run."""
        return self._playing.partial(message_id) or ""

    def ask(self, text: str, options: ChatOptions) -> Asking:
        """One answer that is kept nowhere, as it comes."""
        return Asking(self.models, self.settings, text, options, self._buyer)

    def call(self, call: Call) -> Calling:
        """One answer for a program, as it comes; nothing of it is kept but what it cost."""
        return self._calls.call(call)

    async def embed(self, call: EmbedCall) -> EmbeddedBy:
        """Vectors for a program. Raises NodeError, EngineError, NetError."""
        return await self._calls.embed(call)

    async def list_callable(self) -> list[CallableModel]:
        """What a program can name as the model of a call."""
        return await self._calls.list_callable()

    @property
    def gateway(self) -> GatewayStatus:
        return self._gateway.status

    def open_gateway(self, wish: GatewayWish) -> Opening:
        """Have the gateway open until the stream ends, which gives its address. Raises NodeError
        `port_taken`, `not_loopback`, `bad_key`; `busy` when it is open in another way."""
        return self._gateway.open(wish)

    async def call_spending(self) -> CallSpending:
        """What programs spent today, and may."""
        return await self._purse.by_calls()

    async def _answer_and_question(self, message_id: str) -> tuple[Message, str]:
        await self._playing.store_again()
        answer = await self._store.run(messages.get_message, message_id)
        if answer.role != "assistant" or answer.parent_id is None:
            raise NodeError("not_found", "Only an answer can be generated again.")
        return answer, answer.parent_id

    async def _answer(
        self,
        chat_id: str,
        begin: Callable[[AnswerFacts], Awaitable[turns.Begun]],
        *,
        resumed: Message | None = None,
        drop_oldest: bool = False,
    ) -> str:
        """Have an answer generated in this chat, which `begin` stores empty; its id.

        Once it is asked for it happens, also when the caller is cancelled meanwhile: what is stored as begun
        must be written by somebody.
        """
        asked = self._ask(chat_id, begin, resumed, drop_oldest)
        return await asyncio.shield(self._tasks.spawn(asked, name=f"ask {chat_id}", told=FAILURES))

    async def _ask(
        self,
        chat_id: str,
        begin: Callable[[AnswerFacts], Awaitable[turns.Begun]],
        resumed: Message | None,
        drop_oldest: bool,
    ) -> str:
        with self._playing.reserved(chat_id) as run:
            await self._playing.store_again()
            chat = await self.get_chat(chat_id)
            model = chat.options.model or self.settings.model
            driver = wanted(chat.options, self.settings)
            # Who answers is kept from the start: an answer that is interrupted never gets its other facts.
            begun = await begin(AnswerFacts(model="" if driver is not None else model))
            answer = begun.answer
            before = [self._playing.as_known(message) for message in begun.before]

            @contextlib.asynccontextmanager
            async def prepare() -> AsyncIterator[Prepared]:
                said, dropped = prompt_messages(chat.options.system, before), 0
                more = (ChatMessage("assistant", answer.content),) if answer.content else ()
                if driver is not None:
                    buy = partial(
                        self._buyer.generate,
                        (*said, *more),
                        driver,
                        drop_oldest=drop_oldest,
                        chat_id=chat_id,
                        message_id=answer.id,
                    )
                    yield Prepared(buy, "")
                    return
                entry = await self.models.entry(model)
                async with self.models.held(entry, self.settings) as engine:
                    if drop_oldest:
                        said, dropped = await fit(engine, said)
                    said = (*said, *more)
                    sampling = choices.resolve_sampling(chat.options, self.settings, entry)
                    yield Prepared(partial(engine.generate, Request(said, sampling)), entry.name, dropped)

            self._emit(ChatsChanged())
            self._emit(BranchChanged(chat_id))
            self._playing.start(run, answer, prepare, resumed)
        return answer.id

    async def list_models(self) -> list[ModelEntry]:
        """The built-in guide first, then what was added, by name."""
        entries, ready = await self.models.entries(), self.models.ready
        return [msgspec.structs.replace(entry, loaded=entry.path in ready) for entry in entries]

    def current_model(self) -> str:
        """The name of the model that new chats use."""
        return self.settings.model

    async def use_model(self, name: str) -> None:
        """Make it the default and load it; returns when it answers. Raises EngineError when it cannot."""
        async with self.models.held(await self.models.entry(name), self.settings):
            await self.change_setting("model", name)

    async def add_model(
        self,
        path: Path,
        name: str | None = None,
        on_progress: OnProgress | None = None,
        *,
        force: bool = False,
    ) -> ModelEntry:
        """Read, check and remember a GGUF file; nothing is remembered unless all of it went well.

        The first one takes the place of the built-in guide as the default. `force` adds it although it is
        larger than the free memory.
        """
        entry = await self.models.add(path, name, on_progress, force=force)
        await self._become_default(entry)
        self._emit(ModelsChanged())
        return entry

    async def _become_default(self, entry: ModelEntry) -> bool:
        """Have a model that was added answer new chats if the guide did, and it can; whether it does."""
        if self.settings.model != choices.GUIDE or entry.info.embeds_only:
            return False
        await self.change_setting("model", entry.name)
        return True

    def pull_model(self, asked: PullAsked) -> Pulling:
        """Download a model from the hub and add it; what came stays when the stream is left."""
        return Pulling(asked, self.folders, lambda: self._store.run(records.list_models), self._add_pulled)

    async def _add_pulled(self, path: Path, name: str | None, digest: str | None) -> PullAdded:
        added = await remember(self._store, path, name, digest)
        entry = await self.models.entry(added.name)
        is_default = await self._become_default(entry)
        self._emit(ModelsChanged())
        return PullAdded(entry, is_default)

    async def remove_model(self, name: str, *, delete: bool = False) -> None:
        """Forget the model; its file stays, unless a pull has put it there and it is to be deleted too."""
        files = (await self.models.entry(name)).info.files if delete else ()
        await self.models.remove(name)
        await asyncio.to_thread(delete_files, self.folders, files)
        if self.settings.model == name:
            await self.change_setting("model", choices.GUIDE)
        self._emit(ModelsChanged())

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
        self._auditor.automatic = self.settings.audit == "auto"
        self._self_tests.use(self.settings)
        self._net.try_others(self._trials.run if self.settings.test_others else None)

    @property
    def network(self) -> NetworkStatus:
        return self._net.status

    async def list_nodes(self) -> list[SeenNode]:
        """The other nodes of the network, those that are there first."""
        return self._net.nodes()

    async def list_peers(self) -> list[PeerInfo]:
        """The links with other nodes."""
        return self._net.peers()

    async def list_refused(self) -> list[Refused]:
        """What of peers was refused, newest first; not all of it, the counts are in `network`."""
        return self._net.refused()

    async def list_offers(self) -> list[OfferSeen]:
        """What other nodes offer, and what this one has seen of them; the best first."""
        return self._drivers.offers(self._net.nodes())

    async def mark_provider(self, node: bytes, mark: Mark) -> None:
        """Pin a provider, block it, or neither."""
        await self._drivers.mark(node, mark)

    @property
    def provider(self) -> ProviderStatus:
        return self._provider.status

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

    async def self_test(self) -> SelfTest:
        """Have a peer buy a tiny answer here now; what came of it. Raises NodeError `not_served`."""
        return await self._self_tests.test()

    async def list_served(self) -> list[Served]:
        """The requests of others: those that run, those that wait, and the last that ended."""
        return self._provider.served()

    async def end_served(self, number: int) -> None:
        """End this request of another node now."""
        await self._provider.end(number)

    async def block_user(self, user: bytes, blocked: bool) -> None:
        """Serve this user no more, or again."""
        await self._provider.block(user, blocked)

    async def list_blocked_users(self) -> list[BlockedUser]:
        return await self._provider.blocked()

    async def bound(self, chat_id: str, text: str) -> Bound:
        """What `text` would cost at most if it were sent in this chat now. Answers at once: rates that are
        not locked are asked for, and TradeChanged tells when they are."""
        chat = await self.get_chat(chat_id)
        driver = wanted(chat.options, self.settings)
        if driver is None:
            return Bound("local")
        before = [turn.message for turn in await self._store.run(messages.shown_branch, chat_id)]
        said = prompt_messages(chat.options.system, before)
        return await self._buyer.bound(chat_id, (*said, ChatMessage("user", text)), driver)

    async def rate(self, message_id: str, stars: int, named: bool = False) -> None:
        """The person's stars for an answer of a driver, 1 to 5: told to others after some minutes. `named`:
        with the id of this node, so that it weighs with those that know it.

        Raises NodeError `not_rated` when it cannot be rated (now), StoreError `exists`.
        """
        if not 1 <= stars <= 5:
            raise NodeError("bad_stars", "A rating has one to five stars.")
        message = await self._store.run(messages.get_message, message_id)
        signed = [bill for bill in (message.facts or AnswerFacts()).bills if bill.state in _RATABLE]
        if not signed:
            raise NodeError(
                "not_rated",
                "Only an answer whose receipt both sides have signed can be rated.",
                "Try again in a moment.",
            )
        # The last one is whose answer the person has read to the end.
        await self._ratings.rate(bytes.fromhex(signed[-1].order), stars, named=named)
        facts = await self._store.run(bills.keep_stars, message_id, stars)
        self._playing.facts_changed(message.chat_id, message_id, facts)

    async def earnings(self, since_ms: int = 0) -> Earnings:
        """What came of both roles since a time."""
        return await self._trading.earnings(since_ms)

    async def list_tabs(self) -> list[TabSeen]:
        """What is owed, in both directions; the largest first."""
        tabs = await self._trading.tabs()
        if not any(tab.linked for tab in tabs):
            return tabs
        names = {id_text(node.id): node.name for node in self._net.nodes()}
        return [msgspec.structs.replace(tab, linked_name=names.get(tab.linked, "")) for tab in tabs]

    async def set_tab_limit(self, peer: str, limit: int | None) -> None:
        """How much this user may owe, µcr; None: as any stranger. Raises NodeError."""
        await self._trading.set_limit(peer, limit)

    async def settle(self, peer: str, amount: int | None = None, note: str = "") -> str:
        """Have a tab reduced other than order by order; what happened, as a sentence. Raises NodeError,
        NetError."""
        return await self._trading.settle(peer, amount, note)

    async def decline(self, peer: str) -> str:
        """Do not agree to what the user of this tab proposed; what happened, as a sentence. Raises
        NodeError."""
        return await self._trading.decline(peer)

    async def list_receipts(
        self, *, role: Role | None = None, before: int | None = None, count: int = 100
    ) -> list[ReceiptSeen]:
        """What was charged, the newest first; `before`: the place of the last one of the page before."""
        return await self._trading.receipts(role, before, count)

    async def export_receipts(
        self, order: str | None = None, *, before: int | None = None, count: int = 100
    ) -> list[ReceiptLine]:
        """Receipts as lines of a file that proves them, the newest first; `order`: of this one alone, by its
        number in hex."""
        return await self._trading.export(order, before, count)

    async def audit_plan(self, chat_id: str, message_id: str) -> AuditPlan:
        """What an audit of this answer would be."""
        return await self._auditor.plan((chat_id, message_id))

    async def audit_answer(self, chat_id: str, message_id: str, *, referee: bool = False) -> None:
        """Begin to audit it; what comes of it is told as its facts. `referee`: another provider may see the
        chat for it. Raises NodeError `not_audited`, and for a cap."""
        await self._auditor.audit((chat_id, message_id), referee=referee)

    async def proof_of(self, order: str) -> str:
        """The file that proves what the driver of this order did, its number in hex. Raises NodeError
        `no_proof`."""
        if not (proof := await self._convicting.proof_of(order)):
            raise NodeError(
                "no_proof",
                "There is no proof about this order.",
                "Only a lie that shows by itself has one: infraxa providers --json names its order.",
            )
        return proof

    async def list_missed(self) -> list[Missed]:
        """Chances to earn that were lost, and why; the last one first."""
        now = now_ms()
        tested = self_test_words.missed(self._self_tests.status, now)
        # A peer that tried says more of it.
        cut_off = self.network.reachability == "unreachable" and (
            tested is None or tested.reason != "unreachable"
        )
        known = (
            tested,
            poorly_rated(self._ratings.received(), now),
            *self._provider.missed(unreachable=cut_off),
        )
        return sorted((one for one in known if one is not None), key=lambda one: -one.at_ms)

    async def price_history(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        """What a provider asked for an output token over the last day, as far as this node heard it."""
        return self._prices.of(node, model_id)

    async def watch_nodes(self, nodes: tuple[bytes, ...]) -> None:
        """Ask these nodes every second how they are, and no others."""
        self._net.watch(nodes)

    async def invite(self, hours: int = 168) -> str:
        """A text with which another node joins this one's network. Raises NodeError `offline`."""
        return await self._net.invite(hours)

    async def join(self, invite: str) -> SeenNode:
        """Join the network of an invite and link with the node that made it.

        Raises NodeError `offline`, NetError `bad_invite`, `expired`, `unreachable`, `timeout`, `refused`.
        """
        network, met = await self._net.join(invite)
        if network != self.settings.network:
            await self._write_setting("network", network)
        return met

    async def _vocabulary(self, offer: OfferSeen) -> Vocabulary | None:
        return await self._vocabularies.for_answer(offer, self._net.nodes(), wait_s=VOCABULARY_S)

    async def _see_prices(self) -> None:
        await asyncio.sleep(PRICES_S)
        self._prices.seen(await self.list_offers(), now_ms())
        settled = await self._store.run(tabs.settled)
        self._ratings.trust({node: Counterparty(amount) for node, amount in settled.items()})
        if now_ms() - self._prices_kept_at >= prices.EVERY_MS:
            await self._keep_prices()

    async def _keep_prices(self) -> None:
        if self._opened is not None and (kept := self._prices.kept()):
            await self._opened.run(state.set_value, PRICES, kept)
            self._prices_kept_at = now_ms()

    def _cheapest(self, model_id: bytes) -> int | None:
        """What the cheapest other provider of this model asks for, as far as this node hears."""
        offers = self._drivers.offers(self._net.nodes())
        asked = [
            offer.price_out
            for offer in offers
            if offer.model.model_id == model_id and offer.node.status == "online"
        ]
        return min(asked, default=None)

    def _trade_moved(self) -> None:
        self._trade_told.changed()

    def _audit_ended(self) -> None:
        self._emit(OffersChanged())
        self._trade_moved()

    def _judged(self, chat_id: str, message_id: str, verdict: Verdict) -> None:
        if self._answers is not None:
            self._answers.judged(chat_id, message_id, verdict)

    async def _read_by(self, chat_id: str, message_id: str, reader: Reader) -> None:
        await self._playing.read_by(chat_id, message_id, reader)

    async def _make_room(self) -> None:
        """The person wants another model: returns when neither audits nor other nodes hold one."""
        await self._replaying.step_aside()
        if self._send_guests_away is not None:
            await self._send_guests_away()

    def _billed(self, chat_id: str, message_id: str, bill: Bill) -> None:
        if self._answers is not None:
            self._answers.billed(chat_id, message_id, bill)

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


def _with_readers(message: Message, later: Mapping[str, tuple[Reader, ...]]) -> Message:
    facts = message.facts
    if facts is None or not (more := later.get(message.id)):
        return message
    readers = {reader.id: reader for reader in (*facts.readers, *more)}
    facts = msgspec.structs.replace(facts, readers=tuple(readers.values()))
    return msgspec.structs.replace(message, facts=facts)
