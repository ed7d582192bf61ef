"""Node: the one facade that the terminal app and the commands call.

Each request of theirs is passed to the part that does it: how the parts are made and closed is in
node_base.py. Screens and commands hold no state that Node has.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from infraxa.app import choices, self_test_words
from infraxa.app.asking import Asking
from infraxa.app.audit_values import AuditPlan
from infraxa.app.buyer import wanted
from infraxa.app.calling import Calling
from infraxa.app.calls import Call, CallableModel, CallSpending, EmbedCall, EmbeddedBy
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.events import ChatsChanged, ModelsChanged
from infraxa.app.facade import OnProgress
from infraxa.app.gateway.opening import Opening
from infraxa.app.gateway.values import GatewayStatus, GatewayWish
from infraxa.app.hub_values import PullAdded, PullAsked
from infraxa.app.missed import poorly_rated
from infraxa.app.node_base import NodeBase
from infraxa.app.offers import Mark, OfferSeen
from infraxa.app.prompting import prompt_messages
from infraxa.app.pulled_files import delete_files
from infraxa.app.pulling import Pulling, remember
from infraxa.app.serving import BlockedUser, ProviderStatus, SelfTest, Served
from infraxa.app.trade import Bound, Earnings, Missed, PricePoint, ReceiptLine, ReceiptSeen, Role, TabSeen
from infraxa.engine.types import ChatMessage, EngineStatus
from infraxa.net.identity import id_text
from infraxa.net.status import NetworkStatus, PeerInfo, Refused, SeenNode
from infraxa.store import bills, chats, markdown, messages, search, state
from infraxa.store import models as records
from infraxa.store.db import now_ms
from infraxa.store.records import AnswerFacts, Chat, ChatOptions, ChatSummary, SearchHit, Turn, Verdict

LAST_CHAT: Final = "last_chat"
_RATABLE: Final = ("signed", "disputed")


class Node(NodeBase):
    """One running infraxa. Made cheaply, opened by `start`, ended by `close`; lives on one event loop."""

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
        await self._conversing.delete(chat_id)

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
        return await self._conversing.branch(chat_id)

    async def select_version(self, message_id: str) -> None:
        """Show the branch that contains this message."""
        await self._conversing.select_version(message_id)

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
        return await self._conversing.send(chat_id, text)

    async def edit(self, message_id: str, text: str) -> str:
        """Say `text` instead of the user's message: a sibling of it, answered; returns the answer's id."""
        return await self._conversing.edit(message_id, text)

    async def regenerate(self, message_id: str, *, drop_oldest: bool = False) -> str:
        """Another answer beside this one; `drop_oldest` leaves out as many of the oldest turns as must be."""
        return await self._conversing.regenerate(message_id, drop_oldest=drop_oldest)

    async def continue_answer(self, message_id: str) -> str:
        """Go on where this answer ended: what follows is added to its text."""
        return await self._conversing.go_on(message_id)

    async def continue_elsewhere(self, message_id: str, driver: str, driver_model: str | None = None) -> str:
        """As `continue_answer`, by this driver, which answers the chat from then on."""
        return await self._conversing.go_on_elsewhere(message_id, driver, driver_model)

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer at once; what was said stays."""
        await self._conversing.stop(chat_id)

    def answering(self, chat_id: str) -> bool:
        return self._conversing.answering(chat_id)

    def partial(self, message_id: str) -> str:
        """The whole text so far of a running answer; empty when it does not run."""
        return self._conversing.partial(message_id)

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
        return self._offers_seen()

    async def mark_provider(self, node: bytes, mark: Mark) -> None:
        """Pin a provider, block it, or neither."""
        await self._drivers.mark(node, mark)

    @property
    def provider(self) -> ProviderStatus:
        return self._provider.status

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
        self._conversing.facts_changed(message.chat_id, message_id, facts)

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
        return await self._audits.plan(chat_id, message_id)

    async def audit_answer(self, chat_id: str, message_id: str, *, referee: bool = False) -> None:
        """Begin to audit it; what comes of it is told as its facts. `referee`: another provider may see the
        chat for it. Raises NodeError `not_audited`, and for a cap."""
        await self._audits.audit(chat_id, message_id, referee=referee)

    async def list_verdicts(self, orders: tuple[str, ...], seconds: float = 0.0) -> list[Verdict]:
        """What is known of the answers to these orders, their numbers in hex, of this run: as soon as none of
        them is being audited, or after so many seconds. Nothing of those that cannot be audited."""
        return await self._audits.verdicts(orders, seconds)

    async def proof_of(self, order: str) -> str:
        """The file that proves what the driver of this order did, its number in hex. Raises NodeError
        `no_proof`."""
        return await self._audits.proof_of(order)

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
