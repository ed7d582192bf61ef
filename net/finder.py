"""Where other nodes are, and linking with them: who told of which address, which may be dialled.

Whom to link with when nobody asks is decided in overlay.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from infraxa.net import addresses
from infraxa.net.addresses import Prefix, Source
from infraxa.net.book import AddressBook
from infraxa.net.bootstrap import resolve
from infraxa.net.connect import Target
from infraxa.net.dialer import Dialer
from infraxa.net.errors import NetError
from infraxa.net.gossip import Gossip
from infraxa.net.identity import short_id
from infraxa.net.link import Clock, Link
from infraxa.net.overlay import Dial, Overlay
from infraxa.net.peering import FAILED, Peer, Peering
from infraxa.net.relay import circuit_address
from infraxa.net.tasks import TaskGroup

BOOTSTRAP_S: Final = 30.0
"""Between two tries of the bootstrap addresses, while there is no peer."""

_log = logging.getLogger(__name__)


class Where:
    """Which addresses this node has itself, and which others it may dial."""

    def __init__(self, *, private: bool) -> None:
        """`private`: in a network joined by invite, whose nodes may be on one private network."""
        self.private = private
        self.own: tuple[str, ...] = ()
        """At which this node listens."""
        self.prefixes: tuple[Prefix, ...] = ()

    def may_dial(self, address: str, source: Source) -> bool:
        if address in self.own:
            return False
        try:
            return addresses.may_dial(addresses.parse(address), source, self.prefixes if self.private else ())
        except NetError:
            return False

    def to_announce(self) -> list[str]:
        """The own addresses that may stand in a card."""
        return [
            address
            for address in self.own
            if addresses.may_announce(addresses.parse(address), local=self.private)
        ]


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
    ) -> None:
        self.book = book
        self._where = where
        self._gossip = gossip
        self._overlay = overlay
        self._peering = peering
        self._dialer = dialer
        self._clock = clock
        self._on_failed = on_failed
        self._to_relays: dict[bytes, Link] = {}
        self._tasks = TaskGroup()

    def look(self) -> None:
        """Dial whom the overlay wants now."""
        now = self._clock.monotonic()
        candidates = [*self.book.candidates(), *self._gossip.candidates(now)]
        for dial in self._overlay.wanted(now, candidates):
            self._tasks.spawn(self._dial(dial), name="dial a node")

    async def _dial(self, dial: Dial) -> None:
        try:
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
                        link = await self._dialer.dial(Target(), await resolve(address))
                        await self._peering.introduce(link)
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

    async def renew(self, node: bytes) -> None:
        """Another link with `node` in the place of one that is too old. Raises NetError."""
        await self.link_with(node)

    async def link_to(self, node: bytes) -> Link:
        """A link to `node`: the one there is, or a new one on which this node does not say who it is. Raises
        NetError."""
        if (peer := self._peering.peer(node)) is not None and not peer.link.aged:
            return peer.link
        link = await self._dialer.dial(self._target(node), self._places(node))
        self._peering.keep(link)
        return link

    async def link_to_relay(self, relay: bytes) -> Link:
        """A link to the node `relay` itself, on which it does not learn which node this is: it sees whom this
        one dials. Raises NetError."""
        link = self._to_relays.get(relay)
        if link is None or link.closed or link.aged:
            self._to_relays = {node: link for node, link in self._to_relays.items() if not link.closed}
            link = self._to_relays[relay] = await self._dialer.dial(self._target(relay), self.direct(relay))
            self._peering.keep(link)
        return link

    def _target(self, node: bytes) -> Target:
        return Target(node, self._gossip.raw_card(node) or None)

    def direct(self, node: bytes) -> list[str]:
        """Every address at which `node` itself may be tried, the nearest first."""
        card = self._gossip.card(node)
        told: list[tuple[str, Source]] = list(self.book.of(node))
        if card is not None:
            told += [(address, "gossip") for address in card.addresses]
        return [address for address, source in dict.fromkeys(told) if self._where.may_dial(address, source)]

    def _places(self, node: bytes) -> list[str]:
        """As `direct`, and the relays through which it is reached."""
        card = self._gossip.card(node)
        relays = card.relays if card is not None else ()
        return [*self.direct(node), *(circuit_address(relay, node) for relay in relays)]

    async def close(self) -> None:
        await self._tasks.cancel_all()
