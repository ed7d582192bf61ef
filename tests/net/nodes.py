"""Nodes for tests of links: keys, a card and a door, listening on loopback. Parts of the net room alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

from nacl.bindings import crypto_sign_keypair

from infraxa.net import codec, wire
from infraxa.net.addresses import group
from infraxa.net.connect import Target, accept, connect
from infraxa.net.door import Door
from infraxa.net.errors import ProtocolError
from infraxa.net.hello import Prekeys
from infraxa.net.link import Clock, Handler, Link, OnTell, Stream
from infraxa.net.liveness import LivenessLimits
from infraxa.net.pipe import Pipe
from infraxa.net.records import Card, Record
from infraxa.net.websocket import WebSocketTransport

NETWORK = codec.network_id("test")


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Returns when `condition` holds."""
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {seconds:g} s")


async def unsupported(link: Link, stream: Stream, request: wire.Request) -> None:
    await stream.fail(wire.Failure("unsupported"))


def ignore(link: Link, message: wire.Tell) -> None:
    pass


class Node:
    """One node. `handler` and `on_tell` may be replaced until a link is made."""

    def __init__(
        self, *, clock: Clock | None = None, network: bytes = NETWORK, psk: bytes | None = None
    ) -> None:
        self.id, self.secret = crypto_sign_keypair()
        self.clock = clock or Clock()
        self.network = network
        self.psk = psk
        self.prekeys = Prekeys((), os.urandom)
        self.prekeys.rotate(self.clock.unix_ms())
        self.door = Door(
            node=self.id, network=network, prekeys=self.prekeys, card=self.card, randbytes=os.urandom, psk=psk
        )
        self.transport = WebSocketTransport()
        self.lobby = self.transport.lobby
        self.handler: Handler = unsupported
        self.on_tell: OnTell = ignore
        self.on_aged: Callable[[Link], None] | None = None
        self.liveness: LivenessLimits | None = None
        self.in_flight = 1
        self.port = 0
        self.links: list[Link] = []
        self.refused: list[str] = []

    def card(self, **changed: Any) -> bytes:
        prekey = self.prekeys.current(self.clock.unix_ms())
        fields: dict[str, Any] = {
            "version": 1,
            "seq": 1,
            "name": "test",
            "network": self.network,
            "addresses": (),
            "relays": (),
            "kx": prekey.public,
            "kx_expires": prekey.expires_ms,
            "recovery": bytes(32),
        }
        card = Card(**(fields | changed))
        return codec.encode(Record("card", codec.sign("card", codec.encode(card), self.secret)))

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        ((_, self.port),) = await self.transport.listen(["127.0.0.1"], 0, self.on_pipe)

    async def on_pipe(self, pipe: Pipe) -> None:
        try:
            link = await accept(
                pipe,
                self.door,
                source=group(pipe.remote),
                lobby=self.lobby,
                handler=self.handler,
                on_tell=self.on_tell,
                clock=self.clock,
                in_flight=self.in_flight,
                liveness=self.liveness,
                on_aged=self.on_aged,
            )
        except ProtocolError as error:
            self.refused.append(error.reason)
            raise
        self.links.append(link)
        await link.wait_closed()

    async def dial(self, other: Node, target: Target | None = None) -> Link:
        return await self.connect(await self.transport.dial(other.address), target or Target(other.id))

    async def connect(self, pipe: Pipe, target: Target) -> Link:
        link = await connect(
            pipe,
            target,
            network=self.network,
            handler=self.handler,
            on_tell=self.on_tell,
            psk=self.psk,
            clock=self.clock,
            in_flight=self.in_flight,
            liveness=self.liveness,
            on_aged=self.on_aged,
        )
        self.links.append(link)
        return link

    async def close(self) -> None:
        for link in self.links:
            await link.close()
        await self.transport.close()


async def echo(link: Link, stream: Stream, request: wire.Request) -> None:
    async for chunk in stream:
        await stream.send(chunk)


def echoing(control: Connection) -> None:
    """A process with a node that echoes; it says where it is, and ends when `control` does."""

    async def run() -> None:
        async with nodes(1) as (node,):
            node.handler = echo
            control.send((node.address, node.id))
            await asyncio.to_thread(control.poll, 60)

    asyncio.run(run())


@asynccontextmanager
async def nodes(
    count: int = 2, *, clock: Clock | None = None, in_flight: int = 1
) -> AsyncIterator[list[Node]]:
    """So many nodes, all listening."""
    made = [Node(clock=clock) for _ in range(count)]
    try:
        for node in made:
            node.in_flight = in_flight
            await node.listen()
        yield made
    finally:
        for node in made:
            await node.close()
