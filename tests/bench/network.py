"""What links cost: connecting, a round trip, a hundred answers at once, bulk beside plain TCP, idling.

The side that serves is a process of its own, on loopback; its share of a core is what the kernel counted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection

from infraxa.net import wire
from infraxa.net.connect import Target
from infraxa.net.door import Door, DoorLimits
from infraxa.net.link import Link, Stream
from infraxa.net.ticks import TICK_S
from tests.net.nodes import NETWORK, Node

CONNECTS = 200
ROUND_TRIPS = 2000
SESSIONS = 100
FRAMES_PER_S = 30
STREAM_S = 10.0
BULK = 96 * 2**20
BLOCK = 60_000
IDLE_LINKS = 20
IDLE_S = 10.0

ECHO = wire.CardPlease()
TOKENS = wire.PeersPlease()
BYTES = wire.RelayReserve()


async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
    """Echo, an answer at a steady pace with the time in each of its pieces, or many bytes."""
    if isinstance(request, wire.CardPlease):
        async for chunk in stream:
            await stream.send(chunk)
    elif isinstance(request, wire.PeersPlease):
        writer = stream.ticked()
        begin = time.perf_counter()
        for number in range(int(STREAM_S * FRAMES_PER_S)):
            await asyncio.sleep(max(0.0, begin + number / FRAMES_PER_S - time.perf_counter()))
            await writer.write(time.perf_counter_ns().to_bytes(8, "big") + bytes(24))
    else:
        block = os.urandom(BLOCK - 100)
        for _ in range(BULK // BLOCK):
            await stream.send(block)


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    block = os.urandom(BLOCK)
    for _ in range(BULK // BLOCK):
        writer.write(block)
        await writer.drain()
    writer.close()


async def serve(control: Connection) -> None:
    node = Node()
    node.handler = answer
    # As many hellos from one address as this needs are refused as shipped.
    limits = DoorLimits(local_per_second=1e6, local_burst=1e6, free_per_second=1e6)
    node.door = Door(
        node=node.id,
        network=NETWORK,
        prekeys=node.prekeys,
        card=node.card,
        randbytes=os.urandom,
        limits=limits,
    )
    await node.listen()
    plain = await asyncio.start_server(pour, "127.0.0.1", 0)
    control.send((node.address, node.id, node.card(), plain.sockets[0].getsockname()[1]))
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def asked() -> None:
        if control.recv() == "end":
            done.set()
        else:
            control.send(time.process_time())

    loop.add_reader(control.fileno(), asked)
    await done.wait()
    loop.remove_reader(control.fileno())
    plain.close()
    await node.close()


def serving(control: Connection) -> None:
    asyncio.run(serve(control))


class Bench:
    def __init__(self, control: Connection) -> None:
        self.control = control
        self.address, self.id, self.card, self.plain_port = control.recv()
        self.node = Node()
        self.node.in_flight = 8

    async def connect(self, card: bool = True) -> Link:
        pipe = await self.node.transport.dial(self.address)
        return await self.node.connect(pipe, Target(self.id, self.card if card else None))

    def cpu(self) -> float:
        """Seconds that the other process has used."""
        self.control.send("cpu")
        seconds: float = self.control.recv()
        return seconds

    def used(self, theirs: float, ours: float, count: int) -> str:
        theirs, ours = self.cpu() - theirs, time.process_time() - ours
        return f"CPU of each: serving {theirs / count * 1000:.2f} ms, asking {ours / count * 1000:.2f} ms"

    async def connecting(self, card: bool, what: str) -> None:
        times = []
        theirs, ours = self.cpu(), time.process_time()
        for _ in range(CONNECTS):
            begin = time.perf_counter()
            link = await self.connect(card)
            times.append(time.perf_counter() - begin)
            await link.close()
        used = self.used(theirs, ours, CONNECTS)
        print(
            f"fresh connect and handshake, {what}: {spread(times)} (target: median 10 ms); {used}", flush=True
        )

    async def round_trips(self) -> None:
        link = await self.connect()
        stream = await link.request(ECHO)
        times = []
        theirs, ours = self.cpu(), time.process_time()
        for _ in range(ROUND_TRIPS):
            begin = time.perf_counter()
            await stream.send(bytes(256))
            await anext(stream)
            times.append(time.perf_counter() - begin)
        used = self.used(theirs, ours, ROUND_TRIPS)
        await link.close()
        print(f"256 B round trip: {spread(times)} (target: median 1 ms); {used}", flush=True)

    async def answers(self) -> None:
        links = [await self.connect() for _ in range(SESSIONS)]
        late: list[float] = []
        chunks = 0

        async def read(link: Link) -> None:
            nonlocal chunks
            async for chunk in await link.request(TOKENS):
                now = time.perf_counter_ns()
                chunks += 1
                for at in range(0, len(chunk), 32):
                    written = int.from_bytes(chunk[at : at + 8], "big")
                    late.append((now - written) / 1e9)

        before, begin, own = self.cpu(), time.perf_counter(), time.process_time()
        await asyncio.gather(*(read(link) for link in links))
        seconds = time.perf_counter() - begin
        share, mine = (self.cpu() - before) / seconds, (time.process_time() - own) / seconds
        for link in links:
            await link.close()
        beyond = percentile(late, 99) - TICK_S
        print(
            f"{SESSIONS} answers of {FRAMES_PER_S} pieces/s: {len(late)} pieces in {chunks} chunks, "
            f"median {statistics.median(late) * 1000:.1f} ms, "
            f"p99 {beyond * 1000:+.1f} ms beyond the tick (target: 20 ms); "
            f"serving {share:.0%} of a core (target: 40 %), asking {mine:.0%}",
            flush=True,
        )

    async def bulk(self) -> None:
        ratios, rates = [], []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.plain_port)
            begin, size = time.perf_counter(), 0
            while block := await reader.read(BLOCK):
                size += len(block)
            plain = size / (time.perf_counter() - begin)
            writer.close()
            link = await self.connect()
            begin, size = time.perf_counter(), 0
            async for chunk in await link.request(BYTES):
                size += len(chunk)
            rate = size / (time.perf_counter() - begin)
            await link.close()
            ratios.append(rate / plain)
            rates.append(rate)
        print(
            f"bulk: {statistics.median(rates) / 1e6:.0f} MB/s, {statistics.median(ratios):.2f} of plain TCP",
            flush=True,
        )

    async def idle(self) -> None:
        links = [await self.connect() for _ in range(IDLE_LINKS)]
        await asyncio.sleep(1)
        before = self.cpu()
        await asyncio.sleep(IDLE_S)
        share = (self.cpu() - before) / IDLE_S
        for link in links:
            await link.close()
        print(f"{IDLE_LINKS} idle links: {share:.2%} of a core", flush=True)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.node.close)
            await self.connecting(True, "card known")
            await self.connecting(False, "card asked for")
            await self.round_trips()
            await self.answers()
            await self.bulk()
            await self.idle()


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def spread(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1000:.2f} ms, p99 {percentile(seconds, 99) * 1000:.2f} ms"


def main() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serving, args=(theirs,))
    server.start()
    try:
        asyncio.run(Bench(ours).run())
        ours.send("end")
        server.join(10)
    finally:
        server.kill()
        server.join()


if __name__ == "__main__":
    main()
