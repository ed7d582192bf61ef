"""What is attacked: a real node on loopback, with what a test may see of it and turn on it.

It has no mDNS, so that tests do not meet each other. How a part of it is weakened stands in each attack.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from infraxa.net import link, websocket
from infraxa.net.gossip import Gossip
from infraxa.net.hello import Prekey
from infraxa.net.identity import Identity
from infraxa.net.keyfile import make
from infraxa.net.link import Clock, Link
from infraxa.net.memory import KnownNode, Memory
from infraxa.net.mux import Mux
from infraxa.net.network import Network, NetworkOptions
from infraxa.net.peering import Peering
from tests.net.nodes import until

__all__ = ["SetClock", "Target", "replaced", "target", "until"]


class SetClock:
    """Two clocks that a test sets; they run until `frozen`."""

    def __init__(self, *, frozen: bool = False) -> None:
        self.ahead_s = 0.0
        self._stopped = (time.monotonic(), time.time()) if frozen else None

    def clock(self) -> Clock:
        return Clock(self._monotonic, self._unix_ms)

    def _monotonic(self) -> float:
        return (self._stopped[0] if self._stopped else time.monotonic()) + self.ahead_s

    def _unix_ms(self) -> int:
        return int(((self._stopped[1] if self._stopped else time.time()) + self.ahead_s) * 1000)


class _Kept:
    """A Keeper that forgets."""

    async def seq_used(self, seq: int) -> None:
        pass

    async def prekeys_made(self, prekeys: tuple[Prekey, ...]) -> None:
        pass

    async def anchors_chosen(self, anchors: tuple[bytes, ...]) -> None:
        pass

    async def node_met(self, node: KnownNode) -> None:
        pass


class _Loopback(Network):
    async def _start_lan(self) -> None:
        """Nobody is looked for on the local network."""


class Target:
    """A node and its inner parts."""

    def __init__(self, name: str, clock: Clock, memory: Memory, **options: Any) -> None:
        key, _ = make()
        self.identity: Identity = key.identity()
        self.clock = clock
        self.network = _Loopback(
            self.identity,
            NetworkOptions(name=name, network="attacks", hosts=("127.0.0.1",), port=0, **options),
            memory,
            _Kept(),
            clock=clock,
        )

    @property
    def id(self) -> bytes:
        return self.identity.id

    @property
    def port(self) -> int:
        return self.network._port

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def card(self) -> bytes:
        """Its newest, an encoded Record."""
        return self.network._presence.card

    @property
    def refused(self) -> Counter[str]:
        return self.network._refusals.counts

    @property
    def peering(self) -> Peering:
        return self.network._peering

    @property
    def gossip(self) -> Gossip:
        return self.network._gossip

    @property
    def peers(self) -> set[bytes]:
        """The nodes with which it believes to be linked."""
        return {peer.id for peer in self.peering.peers()}

    @property
    def links(self) -> list[Link]:
        """Of whoever spoke to it and is still there."""
        return [*(peer.link for peer in self.peering.peers()), *self.peering._strangers]

    @property
    def handlers(self) -> int:
        """Requests of others that it is busy with."""
        return sum(len(link._handlers) for link in self.links)

    def knows(self, node: bytes, address: str) -> None:
        """As if its person had typed where `node` is."""
        self.network._finder.book.put(node, (address,), "person")

    async def counted(self, reason: str, times: int = 1) -> None:
        """Returns when so many refusals for this reason are counted."""
        await until(lambda: self.refused[reason] >= times)


@asynccontextmanager
async def target(
    name: str = "target",
    *,
    clock: SetClock | None = None,
    memory: Memory | None = None,
    weaken: Callable[[Target], object] = lambda node: None,
    **options: Any,
) -> AsyncIterator[Target]:
    """A started node. `weaken` gets it before; `options` are of NetworkOptions. Bounded."""
    node = Target(name, (clock or SetClock()).clock(), memory or Memory(), **options)
    weaken(node)
    # An attacker does not answer a goodbye, and nobody needs to see for how long a node waits for it.
    with replaced((link, "CLOSE_S", 0.1), (websocket, "CLOSE_S", 0.1)):
        try:
            async with asyncio.timeout(60):
                await node.network.start()
                yield node
        finally:
            await node.network.close()


@contextmanager
def replaced(*parts: tuple[object, str, object]) -> Iterator[None]:
    """Weaker parts in the place of ours, each as (where, name, part), while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for where, name, part in parts:
            patch.setattr(where, name, part)
        yield


def unlimited(mux: Mux) -> None:
    """Take the rates of what a peer may say away."""
    from infraxa.net.rates import Bucket

    for name in ("_opens_in", "_tells_in", "_pings_in", "_unknown"):
        setattr(mux, name, Bucket(1e12, 1e12))
