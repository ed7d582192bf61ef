"""Where other nodes are, and linking with them: who told of which address, which may be dialled.

Whom to link with when nobody asks is decided in overlay.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, Literal
from weakref import WeakValueDictionary

from infraxa.net import addresses
from infraxa.net.addresses import Prefix, Source
from infraxa.net.auth import open_account
from infraxa.net.book import AddressBook
from infraxa.net.bootstrap import resolve
from infraxa.net.connect import Target
from infraxa.net.dialer import Dialer
from infraxa.net.errors import NetError
from infraxa.net.gossip import Gossip
from infraxa.net.identity import Signer, short_id
from infraxa.net.link import FAILED, Clock, Link
from infraxa.net.overlay import Dial, Overlay
from infraxa.net.peering import Peer, Peering
from infraxa.net.relay import SCHEME, circuit_address
from infraxa.net.sampling import Candidate
from infraxa.net.tasks import TaskGroup

Purpose = Literal["watching", "relaying", "order"]
"""For which a link is on which this node does not say who it is: none of them is used for another, since who
is asked for two things on one link knows that they belong together."""

SILENT_S: Final = 8.0
"""A link that said nothing for so long, where pings go every 5 s, is not waited for: another is made."""
MAX_JUDGED: Final = 2**15
"""Addresses that are not judged anew for a screen that lists a full table again and again."""
BOOTSTRAP_S: Final = 30.0
"""Between two tries of the bootstrap addresses, while there is no peer."""

_log = logging.getLogger(__name__)


async def _as_it_is(link: Link) -> None:
    pass


class Where:
    """Which addresses this node has itself, and which others it may dial."""

    def __init__(self, *, private: bool) -> None:
        """`private`: in a network joined by invite, whose nodes may be on one private network."""
        self.private = private
        self.own: tuple[str, ...] = ()
        """At which this node listens."""
        self.prefixes: tuple[Prefix, ...] = ()

    def may_dial(self, address: str, source: Source) -> bool:
        return address not in self.own and _may_dial(address, source, self.prefixes if self.private else ())

    def to_announce(self) -> list[str]:
        """The own addresses that may stand in a card."""
        return [
            address
            for address in self.own
            if addresses.may_announce(addresses.parse(address), local=self.private)
        ]


@lru_cache(maxsize=MAX_JUDGED)
def _may_dial(address: str, source: Source, prefixes: tuple[Prefix, ...]) -> bool:
    try:
        return addresses.may_dial(addresses.parse(address), source, prefixes)
    except NetError:
        return False


def _is_local(address: str) -> bool:
    ip = addresses.parse(address).ip
    return ip is not None and addresses.is_local(ip)


class Finder:
    """Links with nodes: those that the overlay wants, those that a person named, those that are asked for."""

    def __init__(
        self,
        book: AddressBook,
        where: Where,
        gossip: Gossip,
        overlay: Overlay,
        peering: Peering,
        dialer: Dialer,
        clock: Clock,
        on_failed: Callable[[NetError], None],
        account: Callable[[bytes], Signer],
    ) -> None:
        """`account`: the key by which a provider knows this node's person."""
        self.book = book
        self._where = where
        self._gossip = gossip
        self._overlay = overlay
        self._peering = peering
        self._dialer = dialer
        self._clock = clock
        self._on_failed = on_failed
        self._account = account
        self._unnamed_links: dict[tuple[Purpose, bytes], Link] = {}
        self._turns: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self._tasks = TaskGroup()

    def look(self) -> None:
        """Dial whom the overlay wants now."""
        now = self._clock.monotonic()
        for dial in self._overlay.wanted(now, self._candidates(now)):
            self._tasks.spawn(self._dial(dial), name="dial a node")

    def _candidates(self, now: float) -> Iterator[Candidate]:
        """Looked for only when somebody is wanted: it means a look at the whole table."""
        yield from self.book.candidates()
        yield from self._gossip.candidates(now)

    async def _dial(self, dial: Dial) -> None:
        try:
            async with self._turn("named", dial.node):
                if self._peering.peer(dial.node) is None:
                    await self._peering.dial(self._dialer, dial)
        except FAILED as error:
            _log.info("%s was not linked: %s", short_id(dial.node), error)
            if isinstance(error, NetError):
                self._on_failed(error)

    def bootstrap(self, where: Sequence[str]) -> None:
        """Ask the nodes at these places (see bootstrap.py), whoever they are, while there is nobody else."""
        if where:
            self._tasks.spawn(self._bootstrap(where), name="bootstrap")

    async def _bootstrap(self, where: Sequence[str]) -> None:
        while True:
            if not self._peering.peers():
                for address in where:
                    try:
                        there = await resolve(address)
                        peer = await self._peering.introduce(await self._dialer.dial(Target(), there))
                        # Its card may name no address: one on this machine, or behind a router.
                        self.book.put(peer.id, tuple(there), "person")
                    except FAILED as error:
                        _log.info("bootstrap %s: %s", address, error)
            await asyncio.sleep(BOOTSTRAP_S)

    async def join(self, node: bytes, where: tuple[str, ...]) -> Peer:
        """Link with a node that this one's person named. Raises NetError."""
        try:
            return self._peering.peer(node) or await self.link_with(node, where)
        finally:
            # Not before: the overlay would dial it at the same time.
            self.book.put(node, where, "person")

    async def link_with(self, node: bytes, where: tuple[str, ...] = ()) -> Peer:
        """A new link with `node`, on which it knows who this node is. Raises NetError."""
        before = self._peering.peer(node)
        async with self._turn("named", node):
            peer = self._peering.peer(node)
            return peer if peer not in (None, before) else await self._link_with(node, where)

    async def _link_with(self, node: bytes, where: tuple[str, ...]) -> Peer:
        known = [address for address in self.direct(node) if address not in where]
        link = await self._dialer.dial(self._target(node), [*where, *known])
        try:
            return await self._peering.introduce(link)
        except FAILED as error:
            if isinstance(error, NetError):
                raise
            # Both sides dialled at the same moment: the other link is the one that stays.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    return await self._peering.linked_with(node)
            raise NetError(
                "refused", "The node ended the connection.", "Try again in a minute: it may be full."
            ) from None

    async def link_sampled(self, candidate: Candidate) -> Peer:
        """As link_with, but with a node that nobody chose, so no more often than the overlay dials. Raises
        what FAILED lists."""
        dial = self._overlay.sampled(candidate, self._clock.monotonic())
        if dial is None:
            raise NetError("unreachable", "The node was tried a short time ago.", "Try again later.")
        return await self._peering.dial(self._dialer, dial)

    async def renew(self, node: bytes) -> None:
        """Another link with `node` in the place of one that is too old. Raises NetError."""
        await self.link_with(node)

    async def link_to(self, node: bytes) -> Link:
        """A link to `node`: the one there is, or a new one on which this node does not say who it is. Raises
        NetError."""
        if (peer := self._peering.peer(node)) is not None and not peer.link.aged:
            return peer.link
        return await self._unnamed("watching", node, self._places)

    def let_go(self, link: Link) -> None:
        """Who got it by `link_to` needs it no more: it ends, unless somebody else asks something on it."""
        if link.idle_since is not None and link in self._unnamed_links.values():
            self._tasks.spawn(link.close(), name="close a link that nobody needs")

    async def link_to_relay(self, relay: bytes) -> Link:
        """A link to the node `relay` itself, on which it does not learn which node this is: it sees whom this
        one dials. Raises NetError."""
        return await self._unnamed("relaying", relay, self.direct)

    async def order_link(self, node: bytes) -> Link:
        """An order session with the provider `node`, which learns an account and not which node this is: the
        one there is, or a new one. Raises NetError."""

        async def begin(link: Link) -> None:
            await open_account(link, self._account(node))

        return await self._unnamed("order", node, self._places, begin)

    async def _unnamed(
        self,
        why: Purpose,
        node: bytes,
        places: Callable[[bytes], list[str]],
        begin: Callable[[Link], Awaitable[None]] = _as_it_is,
    ) -> Link:
        """The link on which this node does not say who it is: one per node and purpose. `begin` is what comes
        first on a new one; it raises NetError."""
        async with self._turn(why, node):
            link = self._unnamed_links.get((why, node))
            if link is not None and self._clock.monotonic() - link.heard_at >= SILENT_S:
                self.let_go(link)
                link = None
            if link is None or link.closed or link.aged:
                kept = self._unnamed_links.items()
                self._unnamed_links = {key: link for key, link in kept if not link.closed}
                link = await self._begun(node, places(node), begin)
                self._unnamed_links[why, node] = link
            return link

    async def _begun(
        self, node: bytes, places: Sequence[str], begin: Callable[[Link], Awaitable[None]]
    ) -> Link:
        link = await self._dialer.dial(self._target(node), places)
        self._peering.keep(link)
        try:
            await begin(link)
        except BaseException:
            self._tasks.spawn(link.close(), name="close a link that did not begin")
            raise
        return link

    async def trial_link(self, node: bytes, account: Signer) -> Link:
        """A session with the provider `node` for one order, under an `account` that is used for nothing else;
        to be closed by who asked for it. It is dialled as by somebody who knows no more of it than its card
        says; only from the same local network, where its own address outside may lead nowhere, also as it was
        found there. Raises NetError."""

        async def begin(link: Link) -> None:
            await open_account(link, account)

        peer = self._peering.peer(node)
        near = peer is not None and addresses.group(peer.link.remote) == addresses.LOCAL
        return await self._begun(node, self._places(node) if near else self._announced(node), begin)

    def _announced(self, node: bytes) -> list[str]:
        """As `_places`, but for what was learned otherwise than from the card."""
        card = self._gossip.card(node)
        direct = card.addresses if card is not None else ()
        relays = self.relays_of(node)
        return [
            *(address for address in direct if self._where.may_dial(address, "gossip")),
            *(circuit_address(relay, node) for relay in relays),
        ]

    def _turn(self, why: str, node: bytes) -> asyncio.Lock:
        """Held while `node` is dialled: who comes meanwhile gets the same link. That of a relay is the only
        one that is waited for by who holds another."""
        return self._turns.setdefault((why, node), asyncio.Lock())

    def _target(self, node: bytes) -> Target:
        return Target(node, self._gossip.raw_card(node) or None)

    def direct(self, node: bytes) -> list[str]:
        """Every address at which `node` itself may be tried, the nearest first."""
        card = self._gossip.card(node)
        told: list[tuple[str, Source]] = list(self.book.of(node))
        if card is not None:
            told += [(address, "gossip") for address in card.addresses]
        return [address for address, source in dict.fromkeys(told) if self._where.may_dial(address, source)]

    def reaches(self, node: bytes, addresses: Sequence[str]) -> bool:
        """Whether `node`, whose card names these addresses, may be tried without a relay."""
        return any(self._where.may_dial(address, source) for address, source in self.book.of(node)) or any(
            self._where.may_dial(address, "gossip") for address in addresses
        )

    def near(self, node: bytes) -> bool:
        """Whether this node reaches `node` at an address that is not routed globally: a dial found it there,
        or none was made yet, and the local network or this node's person told of one. What its card claims,
        and where it dials from, say nothing: anybody can write the one, and a proxy hides the other."""
        if reached := self._dialer.reached(node):
            return addresses.group(reached) == addresses.LOCAL
        return any(
            source != "gossip" and self._where.may_dial(address, source) and _is_local(address)
            for address, source in self.book.of(node)
        )

    def found_in(self, node: bytes) -> str:
        """The addresses.wide_group at which a dial from here found `node` the last time, or the relay that it
        went through; empty: none did yet."""
        reached = self._dialer.reached(node)
        if reached.startswith(f"{SCHEME}:"):
            relay = addresses.parse(reached).relay
            reached = self._dialer.reached(relay)
            if reached.startswith(f"{SCHEME}:"):
                return ""
        return addresses.wide_group(reached) if reached else ""

    def _places(self, node: bytes) -> list[str]:
        """As `direct`, and the relays through which it is reached."""
        return [*self.direct(node), *(circuit_address(relay, node) for relay in self.relays_of(node))]

    def relays_of(self, node: bytes) -> tuple[bytes, ...]:
        """Nodes through which `node` is reached, says its card."""
        card = self._gossip.card(node)
        return card.relays if card is not None else ()

    def carrier(self, relay: bytes) -> Link | None:
        """The link over which the relay `relay` is dialled through, if there is one."""
        link = self._unnamed_links.get(("relaying", relay))
        return None if link is None or link.closed else link

    async def close(self) -> None:
        await self._tasks.cancel_all()
