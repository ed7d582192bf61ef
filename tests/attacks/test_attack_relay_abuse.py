"""A relay that is used for more than it gives, and one that would like to know what it hands on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from infraxa.net import codec, connect, door, hello, wire
from infraxa.net import relay as relay_module
from infraxa.net.circuits import Circuit, RelayLimits
from infraxa.net.errors import NetError, Refusal
from infraxa.net.link import Clock, Link, LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.relay import RelayService, RelayTransport, circuit_address
from infraxa.net.session import BUCKETS, Session, SessionRecord
from infraxa.net.splice import splice
from tests.attacks import report
from tests.attacks.attacker import NETWORK
from tests.attacks.target import Target, replaced, target, until
from tests.net.nodes import Node

FRAME = bytes(20_000)
BOUNDLESS = RelayLimits(
    circuits=10**6,
    circuits_to=10_000,
    circuits_from=10**6,
    opens_per_second=1e9,
    opens_burst=1e9,
    bytes_per_second=10**12,
    bytes_per_day=10**15,
)


class Gang:
    """Two who send to each other whatever they like, at the cost of a relay."""

    def __init__(self, relay: Target) -> None:
        self.relay = relay
        self.sender, self.sink = Node(network=NETWORK), Node(network=NETWORK)
        self.sink.in_flight = 100
        self.incoming = RelayTransport(self._no_link)
        self.outgoing = RelayTransport(self._link)
        self.received = 0
        self.link: Link

    async def begin(self) -> None:
        self.sink.handler = self._handle
        self.link = await self._dial(self.sender)
        reserved = await self._dial(self.sink)
        reserved.in_flight = 100
        signed = codec.sign("auth", b"node\0" + reserved.handshake_hash, self.sink.secret)
        await reserved.ask(wire.Auth("node", self.sink.id, signed.signature), wire.Authenticated, 10)
        await self.incoming.listen(reserved, self._take)

    async def _dial(self, node: Node) -> Link:
        pipe = await node.transport.dial(self.relay.address)
        return await node.connect(pipe, connect.Target(self.relay.id, self.relay.card))

    async def _link(self, node: bytes) -> Link:
        return self.link

    async def _no_link(self, node: bytes) -> NoReturn:
        raise NetError("unreachable", "nobody is dialled")

    async def _handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        if isinstance(request, wire.RelayIncoming):
            await self.incoming.incoming(link, stream)
        else:
            await stream.fail(wire.Failure("unsupported"))

    async def _take(self, pipe: Pipe) -> None:
        await pipe.send(b"hello")
        while True:
            self.received += len(await pipe.receive())

    async def dial(self) -> Pipe:
        return await self.outgoing.dial(circuit_address(self.relay.id, self.sink.id))

    async def close(self) -> None:
        await self.outgoing.close()
        await self.incoming.close()
        await self.sender.close()
        await self.sink.close()


@asynccontextmanager
async def gang(limits: RelayLimits) -> AsyncIterator[tuple[Gang, Target]]:
    def limited(node: Target) -> None:
        node.network._relaying = RelayService(limits)

    async with target("relay", relay=True, weaken=limited) as relay:
        made = Gang(relay)
        try:
            await made.begin()
            yield made, relay
        finally:
            await made.close()


async def circuits(limits: RelayLimits, count: int) -> tuple[int, int]:
    """Circuits that a relay has open for one machine; refusals that it counted."""
    async with gang(limits) as (made, relay):
        for _ in range(count):
            try:
                pipe = await made.dial()
            except NetError:
                continue
            await pipe.send(b"hello")
        return relay.network._relaying.circuits, relay.refused["full"]


async def test_circuits_beyond_the_limit() -> None:
    count = report.scale(20, 60)
    weakened, _ = await circuits(BOUNDLESS, count)
    assert weakened == count
    limits = RelayLimits()
    ours, refused = await circuits(limits, count)
    assert ours == limits.circuits_from and refused == count - ours
    report.tell(
        "relay: circuits for one machine",
        weakened=f"{weakened} of {count}",
        ours=f"{ours} of {count}, full",
        cost="two streams each",
    )


async def bytes_through(limits: RelayLimits, count: int) -> tuple[int, int]:
    """Bytes that a relay hands on for one machine; refusals that it counted."""
    async with gang(limits) as (made, relay):
        pipe = await made.dial()
        try:
            for _ in range(count):
                await pipe.send(FRAME)
            await until(lambda: made.received == count * len(FRAME))
        except (PipeClosed, StreamFailed):
            await relay.counted("rate")
        return made.received, relay.refused["rate"]


async def test_bytes_beyond_the_days() -> None:
    count = report.scale(60, 600)
    weakened, _ = await bytes_through(BOUNDLESS, count)
    assert weakened == count * len(FRAME)
    day = 300_000
    ours, refused = await bytes_through(RelayLimits(bytes_per_day=day, bytes_per_second=10**9), count)
    assert ours <= day and refused == 1
    report.tell(
        "relay: bytes beyond a day's",
        weakened=f"{weakened >> 10} KiB",
        ours=f"{ours >> 10} KiB of {day >> 10}, rate",
        cost="one frame in each direction",
    )


async def test_a_place_without_a_name() -> None:
    """Who does not say which node it is cannot take the place of another one."""
    async with target("relay", relay=True) as relay:
        node = Node(network=NETWORK)
        try:
            pipe = await node.transport.dial(relay.address)
            link = await node.connect(pipe, connect.Target(relay.id, relay.card))
            stream = await link.request(wire.RelayReserve())
            try:
                await anext(stream)
            except StreamFailed as error:
                assert error.failure.code == "not_allowed"
            await relay.counted("not_allowed")
        finally:
            await node.close()


SECRET = "ws://192.0.2.77:7741"
"""Something that only the node which is asked may read."""


class Clear(Session):
    """Does not seal."""

    def _seal(self, kind: int, stream: int, body: bytes) -> bytes:
        whole = kind.to_bytes(1) + stream.to_bytes(4) + len(body).to_bytes(2) + body
        size = next(size for size in BUCKETS if size >= len(whole))
        return whole.ljust(size + 16, b"\0")

    def _open(self, frame: bytes) -> SessionRecord:
        self.confirmed = True
        length = int.from_bytes(frame[5:7])
        return SessionRecord(frame[0], int.from_bytes(frame[1:5]), frame[7 : 7 + length])


class _Spied(Stream):
    """A stream of which its relay keeps all that it reads or writes."""

    def __init__(self, stream: Stream, seen: list[bytes]) -> None:
        self.__dict__ = stream.__dict__
        self._seen = seen

    async def send(self, chunk: bytes) -> None:
        self._seen.append(chunk)
        await super().send(chunk)

    async def __anext__(self) -> bytes:
        chunk = await super().__anext__()
        self._seen.append(chunk)
        return chunk


async def overheard() -> list[bytes]:
    """What a relay has in its hands while a user asks a provider something through it."""
    seen: list[bytes] = []

    async def spied(stream: Stream, to: Link, circuit: Circuit, clock: Clock) -> Refusal | None:
        return await splice(_Spied(stream, seen), to, circuit, clock)

    with replaced((relay_module, "splice", spied)):
        async with (
            target("relay", relay=True) as relay,
            target("provider") as provider,
            target("user") as user,
        ):
            for node in (provider, user):
                await node.network.join(relay.id, (relay.address,))
            place = provider.peering.peer(relay.id)
            assert place is not None
            await provider.network._relayed.listen(place.link, provider.peering.take)
            made = await user.network._dialer.dial(
                connect.Target(provider.id, provider.card), [circuit_address(relay.id, provider.id)]
            )
            try:
                await made.ask(wire.DialBack(SECRET), wire.DialedBack, 10)
            except (StreamFailed, StreamCancelled, LinkClosed):
                pass  # it does not do so for strangers; it was told, which is all that matters here
            await made.close()
            return seen


async def test_what_a_relay_reads() -> None:
    with replaced((door, "Session", Clear), (hello, "Session", Clear)):
        weakened = await overheard()
        assert any(SECRET.encode() in frame for frame in weakened)
    ours = await overheard()
    assert ours and not any(SECRET.encode() in frame for frame in ours)
    sealed = {size + 16 for size in BUCKETS}
    inside = [frame for frame in ours if not frame.startswith(b"ix") and len(frame) > 16]
    assert inside and {len(frame) for frame in inside} <= sealed
    report.tell(
        "relay: what it hands on is read",
        weakened="the request in clear",
        ours=f"{len(ours)} sealed frames of {len({len(frame) for frame in ours})} sizes",
    )
