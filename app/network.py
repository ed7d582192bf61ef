"""The network of a node, as the rest of the program sees it: made from its settings, its keys and its store.

How nodes find and speak to each other is the business of `infraxa.net`; here is what connects that to this
node: when it runs, what is remembered, what is told to whoever subscribed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec

import msgspec

from infraxa.app.config import PASSPHRASE_VARIABLE, Settings, split
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, NetworkChanged, NodesChanged, PeersChanged
from infraxa.app.folders import Folders
from infraxa.app.rated import Ratings
from infraxa.net.errors import NetError
from infraxa.net.status import Load, NetworkStatus, Notice, Offer, PeerInfo, Refused, SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store import peers
from infraxa.store.db import Connection, Store
from infraxa.store.records import NodeRecord, PrekeyRecord, StoreError

if TYPE_CHECKING:
    from infraxa.net.customers import Auditor, Bargainer
    from infraxa.net.hello import Prekey
    from infraxa.net.identity import Identity, Signer
    from infraxa.net.invites import Invite
    from infraxa.net.link import Link
    from infraxa.net.memory import KnownNode, Memory
    from infraxa.net.network import Network, NetworkOptions
    from infraxa.net.proofs import Check, OnCaught
    from infraxa.net.sale import Sale
    from infraxa.net.trials import Trier
    from infraxa.net.vocabs import Find
    from infraxa.net.wire import Tried

P = ParamSpec("P")

_log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""How long leaving the network may take: more than its parts together, each of which has its own limit."""


class NodeNetwork:
    """Starts the network in the background, again when its settings change, and ends it."""

    def __init__(self, folders: Folders, emit: Callable[[Event], None], ratings: Ratings) -> None:
        self.ratings = ratings
        self.find_vocabulary: Find | None = None
        """The file of a vocabulary that others ask for by its hash."""
        self._folders = folders
        self._emit = emit
        self._tasks = TaskGroup()
        self._returns = TaskGroup()
        self._endings = TaskGroup()
        self._ending: asyncio.Task[None] | None = None
        self._store: Store | None = None
        self._settings = Settings()
        self._network: Network | None = None
        self._identity: Identity | None = None
        self._starting: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._told = NetworkStatus()
        self._seller: Callable[[Sale], Awaitable[None]] | None = None
        self._bargainer: Bargainer | None = None
        self._auditor: Auditor | None = None
        self._judge: tuple[Check, OnCaught, Callable[[], dict[bytes, bytes]]] | None = None
        self._trier: Trier | None = None
        self._offer: Offer | None = None
        self._load = Load()

    @property
    def status(self) -> NetworkStatus:
        """As it is now: counters move on between two that are told."""
        return self._told if self._network is None else self._network.status

    def start(self, store: Store, settings: Settings) -> None:
        """Begin; the network is there some moments later. What is wrong is a notice of the status."""
        self._store, self._settings = store, settings
        self._begin(store, settings)

    def _begin(self, store: Store, settings: Settings, invite: Invite | None = None) -> None:
        if settings.online:
            self._starting = self._tasks.spawn(self._start(store, settings, invite), name="network")
        else:
            self._tell(self._off(settings))

    async def restart(self, settings: Settings) -> None:
        """Leave the network, and join it with other settings."""
        self._settings = settings
        async with self._changing:
            if self._store is not None:
                await self._leave()
            if self._store is not None:  # it was not closed meanwhile
                self._begin(self._store, self._settings)

    async def close(self) -> None:
        """Say goodbye and end; bounded."""
        self._store = None
        await self._returns.cancel_all()
        await self._leave()
        self._tell(self._off(self._settings))

    async def _leave(self) -> None:
        await self._tasks.cancel_all()
        self._starting = None
        await self._end()

    async def _end(self) -> None:
        if self._network is not None:
            network, self._network = self._network, None
            await self.ratings.detach()
            self._ending = self._endings.spawn(_close(network), name="leave the network")
        if self._ending is not None:
            # A task of its own: it ends although whoever waits here is cancelled, and `close` waits for it.
            await asyncio.wait([self._ending])

    def _off(self, settings: Settings) -> NetworkStatus:
        return NetworkStatus(id=self._told.id, name=self._told.name, network=settings.network)

    async def _start(self, store: Store, settings: Settings, invite: Invite | None) -> None:
        self._tell(msgspec.structs.replace(self._off(settings), activity="starting"))
        try:
            await self._open(store, settings, invite)
            return
        except (NetError, StoreError) as error:
            notice = Notice(error.code, error.message, error.remedy)
        except Exception as error:
            _log.error("the network did not start", exc_info=error)
            notice = Notice("internal", "The network could not be started.", "Open infraxa anew.")
        await self._end()
        self._tell(msgspec.structs.replace(self._off(settings), activity="blocked", notices=(notice,)))

    async def _open(self, store: Store, settings: Settings, invite: Invite | None) -> None:
        # Half a second of imports, in a thread: meanwhile the app draws and answers.
        await asyncio.to_thread(_import_network)
        from infraxa.net.keyfile import IDENTITY_NAME, exposed, load_or_make
        from infraxa.net.names import default_name
        from infraxa.net.network import Network

        passphrase = os.environ.get(PASSPHRASE_VARIABLE)
        identity = await asyncio.to_thread(load_or_make, self._folders.data, passphrase)
        notice = await asyncio.to_thread(exposed, self._folders.data / IDENTITY_NAME)
        options = await self._options(store, settings, settings.name or default_name(identity.id), invite)
        network = Network(
            identity,
            options,
            await _remembered(store, identity),
            _StoreKeeper(store, identity.id),
            on_status=self._tell,
            on_nodes=lambda: self._emit(NodesChanged()),
            on_peers=lambda: self._emit(PeersChanged()),
        )
        if notice is not None:
            network.notices.put(notice)
        self._network, self._identity = network, identity
        network.sell(self._seller, self._bargainer, self._auditor)
        if self._judge is not None:
            check, on_caught, told = self._judge
            network.judge_proofs(check, on_caught, told())
        if self.find_vocabulary is not None:
            network.give_vocabularies(self.find_vocabulary)
        network.try_others(self._trier)
        network.offer(self._offer)
        network.load(self._load)
        await self.ratings.attach(network, identity)
        await network.start()

    async def _options(
        self, store: Store, settings: Settings, name: str, invite: Invite | None
    ) -> NetworkOptions:
        """`invite`: to be part of its network, of which nothing is remembered yet."""
        from infraxa.net.network import NetworkOptions
        from infraxa.net.options import HOSTS

        known = await store.run(peers.get_network, settings.network)
        psk, joined = (known.psk, known.nodes) if known is not None else (None, ())
        if invite is not None:
            psk, joined = invite.psk, ((invite.node, invite.addresses), *joined)
        return NetworkOptions(
            name=name,
            network=settings.network,
            psk=psk,
            joined=joined,
            port=settings.listen_port,
            announce=settings.announce,
            bootstrap=split(settings.bootstrap),
            port_mapping=settings.port_mapping,
            relay=settings.relay,
            hosts=split(settings.listen_hosts) or HOSTS,
            lan=settings.mdns,
        )

    def _tell(self, status: NetworkStatus) -> None:
        self._told = status
        self._emit(NetworkChanged(status))

    @property
    def identity(self) -> Identity | None:
        """The key of this node, which signs what it sells; None until it has been online."""
        return self._identity

    def account(self, provider: bytes) -> Signer:
        """The key by which a provider knows this node as a user. Raises NodeError `offline`."""
        if self._identity is None:
            raise NodeError("offline", "This node has not been online yet.", "Turn the setting online on.")
        return self._identity.account_key(provider)

    def sell(
        self,
        handler: Callable[[Sale], Awaitable[None]],
        bargainer: Bargainer,
        auditor: Auditor | None = None,
    ) -> None:
        """Whom orders of other nodes go to, what they ask about money, and who opens to them what they have
        bought, in this network and in those that are joined later."""
        self._seller, self._bargainer, self._auditor = handler, bargainer, auditor
        if self._network is not None:
            self._network.sell(handler, bargainer, auditor)

    def judge_proofs(self, check: Check, on_caught: OnCaught, told: Callable[[], dict[bytes, bytes]]) -> None:
        """Who judges the proofs of fraud that others tell, and is told of each provider that one is against,
        in this network and in those that are joined later. `told`: what others told before, by provider, the
        oldest first."""
        self._judge = check, on_caught, told
        if self._network is not None:
            self._network.judge_proofs(check, on_caught, told())

    def tell_proof(self, proof: bytes) -> bool:
        """Tell others a proof of fraud; False when there is no network now. Raises ProtocolError when it does
        not hold."""
        if self._network is None:
            return False
        self._network.tell_proof(proof)
        return True

    def try_others(self, trier: Trier | None) -> None:
        """Who buys from peers that ask for it, to say what came of it; None: nobody."""
        self._trier = trier
        if self._network is not None:
            self._network.try_others(trier)

    async def ask_for_trial(self, node: bytes, model: bytes) -> Tried:
        """Have a peer buy a tiny answer of this model from this node. Raises NodeError `offline`, and as
        Link.ask."""
        return await (await self._opened()).ask_for_trial(node, model)

    async def trial_link(self, node: bytes, account: Signer) -> Link:
        """A session with a provider that asked to be tried; to be closed by who asked for it. Raises
        NodeError `offline`, and NetError."""
        return await (await self._opened()).trial_link(node, account)

    def offer(self, offer: Offer | None) -> None:
        """What others are told that this node offers; None: nothing."""
        self._offer = offer
        if self._network is not None:
            self._network.offer(offer)

    def load(self, load: Load) -> None:
        """How busy others are told that this node is."""
        self._load = load
        if self._network is not None:
            self._network.load(load)

    async def order_link(self, node: bytes) -> Link:
        """A session with a provider, which does not learn which node this is.

        Raises NodeError `offline`, and NetError.
        """
        return await (await self._opened()).order_link(node)

    def blame(self, node: bytes, link: Link | None) -> Literal["own", "relay", "peer"]:
        """Whose fault it is that `node` was not reached, or that the session with it ended."""
        return self._network.blame(node, link) if self._network is not None else "own"

    def nodes(self) -> list[SeenNode]:
        return self._network.nodes() if self._network is not None else []

    def peers(self) -> list[PeerInfo]:
        return self._network.peers() if self._network is not None else []

    def refused(self) -> list[Refused]:
        return self._network.refused() if self._network is not None else []

    def watch(self, nodes: tuple[bytes, ...]) -> None:
        if self._network is not None:
            self._network.watch(nodes)

    async def invite(self, hours: float) -> str:
        """A text with which another node joins this one's network. NodeError `offline`, NetError."""
        return (await self._opened()).invite(hours)

    async def join(self, text: str) -> tuple[str, SeenNode]:
        """Join the network of an invite and link with the node that made it: the network's name, the node.

        Raises NetError `bad_invite`, `expired`, `unreachable`, `timeout`, `refused`; NodeError `offline`.
        This node is then where it was before.
        """
        from infraxa.net import invites

        async with self._changing:
            network = await self._running()
            invite = invites.decode(text, network.now_ms())
            if invite.node == self.status.id:
                raise NetError(
                    "bad_invite", "This invite was made by this node itself.", "Use it on another machine."
                )
            if invite.network == self._settings.network and invite.psk == network.options.psk:
                return invite.network, await self._link(network, invite)
            try:
                await self._leave()
                self._begin(
                    self._opened_store,
                    msgspec.structs.replace(self._settings, network=invite.network),
                    invite,
                )
                met = await self._link(await self._running(), invite)
            except BaseException:
                if self._store is not None:
                    self._returns.spawn(self._return(), name="back to the network before")
                raise
            self._settings = msgspec.structs.replace(self._settings, network=invite.network)
            return invite.network, met

    async def _return(self) -> None:
        await self.restart(self._settings)

    async def _link(self, network: Network, invite: Invite) -> SeenNode:
        """Link with the node of an invite, and remember what it said only then: an invite that leads nowhere
        changes nothing."""
        met = await network.join(invite.node, invite.addresses)
        await self._remember(invite)
        return met

    async def _remember(self, invite: Invite) -> None:
        await self._opened_store.run(
            peers.join_network, invite.network, invite.psk, invite.node, invite.addresses
        )

    @property
    def _opened_store(self) -> Store:
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        return self._store

    async def _opened(self) -> Network:
        async with self._changing:
            return await self._running()

    async def _running(self) -> Network:
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._network is not None:
            return self._network
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        if self.status.notices:
            notice = self.status.notices[0]
            raise NodeError("offline", notice.message, notice.remedy)
        raise NodeError(
            "offline", "This node is set to stay offline.", "infraxa config set online true changes that."
        )


class _StoreKeeper:
    """Keeps what the network asks to be remembered; a failure of the store is one of the network."""

    def __init__(self, store: Store, node: bytes) -> None:
        self._store = store
        self._node = node

    async def seq_used(self, seq: int) -> None:
        await self._keep(peers.take_seq, self._node, seq)

    async def prekeys_made(self, prekeys: tuple[Prekey, ...]) -> None:
        records = tuple(PrekeyRecord(key.secret, key.public, key.made_ms, key.expires_ms) for key in prekeys)
        await self._keep(peers.set_prekeys, self._node, records)

    async def anchors_chosen(self, anchors: tuple[bytes, ...]) -> None:
        await self._keep(peers.set_anchors, anchors)

    async def node_met(self, node: KnownNode) -> None:
        record = NodeRecord(node.id, node.name, node.addresses, node.last_contact_ms)
        await self._keep(peers.keep_node, record)

    async def _keep(
        self, write: Callable[Concatenate[Connection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        try:
            await self._store.run(write, *args, **kwargs)
        except StoreError as error:
            raise NetError("not_written", error.message, error.remedy) from error


async def _remembered(store: Store, identity: Identity) -> Memory:
    from infraxa.net.hello import Prekey
    from infraxa.net.memory import KnownNode, Memory

    seq = await store.run(peers.last_seq, identity.id)
    prekeys = await store.run(peers.list_prekeys, identity.id)
    anchors = await store.run(peers.list_anchors)
    known = await store.run(peers.list_nodes)
    return Memory(
        seq,
        tuple(Prekey(*_fields(record)) for record in prekeys),
        anchors,
        tuple(KnownNode(*_fields(record)) for record in known),
    )


def _fields(record: msgspec.Struct) -> tuple[Any, ...]:
    return msgspec.structs.astuple(record)


async def _close(network: Network) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await network.close()
    except TimeoutError:
        _log.error("the network did not close in time")


def _import_network() -> None:
    import infraxa.net.network  # noqa: F401 - what it imports takes the time
