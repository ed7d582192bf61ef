"""What gossip costs one node: CPU per record with its signature check, idle CPU, memory of a full table."""

from __future__ import annotations

import hashlib
import random
import time
import tracemalloc

from nacl.bindings import crypto_sign_seed_keypair

from infraxa.net import codec
from infraxa.net.admission import GossipLimits
from infraxa.net.gossip import Gossip
from infraxa.net.records import Card, ModelOffer, Record, State, Status
from infraxa.net.table import TableLimits
from infraxa.net.wire import BucketsPlease, Push, Root

NETWORK = codec.network_id("bench")
PROVIDERS = 100
MS = 1_700_000_000_000
FREE = GossipLimits(
    TableLimits(per_introducer=8192),
    bytes_per_s=1e9,
    unverified=1e9,
    all_bytes_per_s=1e9,
    new_ids_per_min=1e9,
)


class Provider:
    """Signs a card with two models, and states."""

    def __init__(self, number: int) -> None:
        self.id, self._secret = crypto_sign_seed_keypair(hashlib.sha256(b"%d" % number).digest())
        offer = ModelOffer("a model of usual size", "llama", "Q4_K_M", self.id, 8192, 2048, 50_000, 200_000)
        address = f"ws://{20 + number % 180}.{number // 180 % 250}.0.1:7741"
        card = Card(
            1, MS, f"n{number}", NETWORK, (address,), (), self.id, 2**50, self.id, 4, models=(offer,) * 2
        )
        self.card = Record("card", codec.sign("card", codec.encode(card), self._secret))
        self.hash = codec.digest("card", self.card.signed.body)[:8]

    def state(self, seq: int, status: Status = "online") -> Record:
        body = codec.encode(State(seq, self.hash, status))
        return Record("state", codec.sign("state", body, self._secret))


def a_gossip(peers: list[bytes]) -> Gossip:
    gossip = Gossip(b"m" * 32, NETWORK, random.Random(1), limits=FREE)
    for peer in peers:
        gossip.linked(peer, 0, MS, outbound=True)
    return gossip


def main() -> None:
    peers = [bytes([number]) * 32 for number in range(8)]
    providers = [Provider(number) for number in range(PROVIDERS)]
    gossip = a_gossip(peers)
    for one in providers:
        gossip.receive(peers[0], Push((one.card, one.state(MS))), 0, MS)

    states = [one.state(MS + 1) for one in providers]
    alone = time.process_time()
    assert all(codec.verify("state", record.signed) for record in states * 5)
    alone = (time.process_time() - alone) / 5 / PROVIDERS
    used = time.process_time()
    for record in states:
        gossip.receive(peers[1], Push((record,)), 1, MS + 1000)
    used = (time.process_time() - used) / PROVIDERS
    again = time.process_time()
    for record in states:
        gossip.receive(peers[2], Push((record,)), 1, MS + 1000)
    again = (time.process_time() - again) / PROVIDERS
    print(f"a new state: {used * 1e6:.0f} µs, {used / alone:.1f} × its signature check")
    print(f"one that is known: {again * 1e6:.0f} µs")

    # Half a minute among these providers: each state comes once new and three times more, 8 roots in 10 s.
    beats = [one.state(MS + 10_000) for one in providers]
    work = time.process_time()
    for number, record in enumerate(beats):
        now = 10 + 0.3 * number
        for peer in peers[:4]:
            gossip.receive(peer, Push((record,)), now, MS + int(now * 1000))
        gossip.tick(now + 0.25, MS + int(now * 1000) + 250)
        if number % 4 == 0:
            root = Root(gossip.table.digests.root, len(gossip.table.digests))
            gossip.receive(peers[number // 4 % 8], root, now, MS + int(now * 1000))
    work = time.process_time() - work
    print(f"idle among {PROVIDERS} providers: {100 * work / 30:.2f} % of a core")

    full = [Provider(number) for number in range(8192)]
    records = [(codec.encode(one.card), codec.encode(one.state(MS))) for one in full]
    del full
    gossip = a_gossip(peers)
    tracemalloc.start()
    for card, state in records:
        push = Push((codec.decode(card, Record), codec.decode(state, Record)))
        gossip.receive(peers[0], push, 0, MS)
    gossip.tick(1, MS + 1000)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{len(gossip.table)} nodes, two models each: {memory / 2**20:.1f} MiB")
    for what, action in (
        (
            "answering the start of a round",
            lambda: list(gossip.answer(peers[0], BucketsPlease(b"s" * 16), 2)),
        ),
        ("a look for ends of leases", lambda: gossip.table.overdue(2)),
        ("all nodes for a screen", lambda: gossip.nodes(2)),
        ("candidates to dial", lambda: gossip.candidates(2)),
    ):
        start = time.process_time()
        action()
        print(f"  {what}: {1000 * (time.process_time() - start):.1f} ms")


if __name__ == "__main__":
    main()
