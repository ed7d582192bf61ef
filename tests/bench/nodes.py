"""Whole nodes: how soon a newcomer on the LAN is linked, how soon a change of a watched node is seen, and
what a node costs that sits idle in a network of a hundred.

The hundred run in one process, the node that is measured in another.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import secrets
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import psutil

from infraxa.net.hello import Prekey
from infraxa.net.keyfile import make
from infraxa.net.memory import KnownNode, Memory
from infraxa.net.network import Network, NetworkOptions
from infraxa.net.status import Load

CROWD = 100
LINKS = 6
"""That each node makes; so each has twice as many."""
SETTLE_S = 45.0
"""All the crowd has been heard, and the rounds of anti-entropy after its start are over."""
MEASURED_S = 60.0
TRIES = 7


class Forgetful:
    """Keeps nothing: what is measured is the network, not a disk."""

    async def seq_used(self, seq: int) -> None: ...
    async def prekeys_made(self, prekeys: tuple[Prekey, ...]) -> None: ...
    async def anchors_chosen(self, anchors: tuple[bytes, ...]) -> None: ...
    async def node_met(self, node: KnownNode) -> None: ...


def node(network: str, *, lan: bool = False, bootstrap: tuple[str, ...] = ()) -> Network:
    options = NetworkOptions(
        "bench",
        network,
        hosts=("127.0.0.1",) if not lan else ("0.0.0.0",),
        port=0,
        lan=lan,
        bootstrap=bootstrap,
    )
    return Network(make()[0].identity(), options, Memory(), Forgetful())


def address(one: Network) -> str:
    return f"ws://127.0.0.1:{one.status.listening[0].rpartition(':')[2]}"


async def until(what: str, condition: Callable[[], object], limit: float = 20.0) -> None:
    """Returns when `condition()` holds."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > limit:
            raise TimeoutError(f"{what}: not within {limit:g} s")
        await asyncio.sleep(0.001)


async def discovery() -> None:
    """On the LAN by mDNS: from the newcomer's start until both are linked."""
    network = f"bench {secrets.token_hex(4)}"
    first = node(network, lan=True)
    await first.start()
    await asyncio.sleep(2)
    times = []
    for _ in range(TRIES):
        newcomer = node(network, lan=True)
        began = time.perf_counter()
        await newcomer.start()
        await until("found on the LAN", newcomer.peers)
        times.append(time.perf_counter() - began)
        await newcomer.close()
        await asyncio.sleep(1)
    await first.close()
    print(f"LAN: a newcomer is linked after {spread(times)} (target: 300 ms)", flush=True)


async def health() -> None:
    """A watched node changes its state, or ends: until that is shown."""
    network = f"bench {secrets.token_hex(4)}"
    watcher = node(network)
    await watcher.start()
    changes, ends = [], []
    for _ in range(TRIES):
        watched = node(network)
        await watched.start()
        met = await watcher.join(watched.identity.id, (address(watched),))
        watcher.watch((met.id,))

        def shown(met_id: bytes = met.id) -> str:
            return next((seen.status for seen in watcher.nodes() if seen.id == met_id), "")

        await until("online", lambda: shown() == "online")
        began = time.perf_counter()
        watched.load(Load("busy"))
        await until("busy", lambda: shown() == "busy")
        changes.append(time.perf_counter() - began)
        began = time.perf_counter()
        closing = asyncio.ensure_future(watched.close())
        await until("offline", lambda: shown() == "offline")
        ends.append(time.perf_counter() - began)
        await closing
    await watcher.close()
    print(f"a watched node is busy: seen after {spread(changes)} (target: 1 s)", flush=True)
    print(f"a watched node leaves: seen after {spread(ends)} (target: 1 s)", flush=True)


def crowd(control: Connection, network: str) -> None:
    """A hundred nodes, each linked with some that came before it, until told to end."""

    async def run() -> None:
        rng = random.Random(1)
        nodes: list[Network] = []
        for _ in range(CROWD):
            known = rng.sample(nodes, min(LINKS, len(nodes)))
            nodes.append(node(network, bootstrap=tuple(map(address, known))))
            await nodes[-1].start()
            await asyncio.sleep(0.05)
        control.send(tuple(map(address, rng.sample(nodes, LINKS))))
        await asyncio.to_thread(control.recv)
        await asyncio.gather(*(one.close() for one in nodes))

    asyncio.run(run())


async def idle() -> None:
    """CPU and memory of one node among a hundred that say something every 30 s each."""
    network = f"bench {secrets.token_hex(4)}"
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=crowd, args=(theirs, network), daemon=True)
    process.start()
    known = await asyncio.to_thread(ours.recv)
    one = node(network, bootstrap=known)
    await one.start()
    me = psutil.Process()
    alone = me.memory_info().rss
    await asyncio.sleep(SETTLE_S)
    heard = one.status.known
    before, began = me.cpu_times(), time.perf_counter()
    records = one.status.gossip_in
    await asyncio.sleep(MEASURED_S)
    after = me.cpu_times()
    share = (after.user + after.system - before.user - before.system) / (time.perf_counter() - began)
    rate = (one.status.gossip_in - records) / MEASURED_S
    print(
        f"idle among {heard} nodes with {one.status.peers} links: {share:.2%} of a core (target: 1 %), "
        f"{rate:.1f} records/s; {me.memory_info().rss / 1e6:.0f} MB resident, {alone / 1e6:.0f} MB before "
        "(target: 120 MB)",
        flush=True,
    )
    ours.send("end")
    await one.close()
    await asyncio.to_thread(process.join, 30)


def spread(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms"


def main() -> None:
    asyncio.run(idle())
    asyncio.run(discovery())
    asyncio.run(health())
