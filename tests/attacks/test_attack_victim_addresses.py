"""Cards that name somebody else's address: no crowd of nodes is made to knock there.

Nobody dials an address inside a network because a card names it, and nobody dials a public one, at whatever
port, more often than once in ten minutes, until a node has answered there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from infraxa.net import addresses, codec, overlay, streams, wire
from infraxa.net.addresses import Source
from infraxa.net.errors import NetError
from infraxa.net.overlay import Overlay
from infraxa.net.records import FEATURE_RELAY, Card, Record
from infraxa.net.sampling import Candidate
from infraxa.net.session import SessionRecord
from infraxa.net.table import group_of
from infraxa.net.tries import Tries
from tests.attacks import report
from tests.attacks.attacker import NETWORK, Talk, attacker, new_identity, now_ms
from tests.attacks.crowd import ME
from tests.attacks.target import Target, replaced, target, until
from tests.net.gossiping import node_id

NOT_TO_BE_DIALLED = (
    "ws://127.0.0.1:7741",
    "ws://[::1]:7741",
    "ws://10.0.0.1:8080",
    "ws://192.168.1.1:8080",
    "ws://172.16.0.1:8080",
    "ws://100.64.0.1:8080",
    "ws://169.254.169.254:8080",
    "ws://169.254.1.1:8080",
    "ws://[fd00:ec2::254]:8080",
    "ws://[fe80::1]:8080",
    "ws://[::ffff:127.0.0.1]:8080",
    "ws://0.0.0.0:8080",
    "ws://255.255.255.255:8080",
    "ws://224.0.0.251:5353",
    "ws://0x7f000001:8080",
    "ws://2130706433:8080",
    "ws://localhost:8080",
    "ws://8.8.8.8:22",
    "ws://8.8.8.8:25",
    "http://8.8.8.8:8080",
    "\x1b[2Jws://8.8.8.8:8080",
)


def rule(address: str, source: Source) -> bool:
    return addresses.may_dial(addresses.parse(address), source)


def anything(address: str, source: Source) -> bool:
    return True


def dialled(
    cards: list[Candidate], seconds: int, may_dial: Callable[[str, Source], bool] = rule
) -> list[tuple[float, str]]:
    """When and where one node dials, of whom each dial fails, while these candidates are all it has."""
    view = Overlay(ME, random.Random(1), may_dial=may_dial, group_of=group_of)
    found = []
    for second in range(0, seconds, 5):
        for dial in view.wanted(second, cards):
            found += [(float(second), address) for address in dial.addresses]
            view.failed(dial.node, second)
    return found


def test_addresses_inside_of_networks() -> None:
    cards = [Candidate(node_id(number), (text,)) for number, text in enumerate(NOT_TO_BE_DIALLED)]
    weakened = dialled(cards, 600, anything)
    assert len({text for _, text in weakened}) > len(NOT_TO_BE_DIALLED) // 2
    assert dialled(cards, 600) == []
    report.tell(
        f"victims: {len(cards)} private, metadata and malformed addresses",
        weakened=f"{len(weakened)} dials in 10 min",
        ours="0 dials",
    )


class ByAddress(Tries):
    """Keeps no host in mind, only ports."""

    def may_try(self, address: str, trusted: bool, now: float) -> bool:
        return super().may_try(address, True, now)

    def one_each(self, texts, trusted):  # type: ignore[no-untyped-def]
        return tuple(texts)

    def started(self, address: str, trusted: bool, now: float) -> None:
        super().started(address, True, now)

    def ended(self, address, how, trusted, now):  # type: ignore[no-untyped-def]
        super().ended(address, how, True, now)


VICTIMS: dict[str, Callable[[int], str]] = {
    "one host": lambda number: f"ws://8.8.8.8:{1024 + number}",
    "one host of IPv6": lambda number: f"ws://[2606:4700::1]:{1024 + number}",
    "one network of IPv6": lambda number: f"ws://[2606:4700:0:1::{number + 1:x}]:7741",
}


@pytest.mark.parametrize("where", VICTIMS)
def test_a_public_victim(where: str) -> None:
    """Each card names four places of the victim."""
    count, seconds = report.scale(20, 100), report.scale(1300, 3700)
    place = VICTIMS[where]
    cards = [
        Candidate(node_id(number), tuple(place(4 * number + one) for one in range(4)))
        for number in range(count)
    ]
    with replaced((overlay, "Tries", ByAddress)):
        weakened = dialled(cards, seconds)
    ours = dialled(cards, seconds)
    assert len(weakened) > seconds / 10
    assert len(ours) <= seconds / 600 + 1
    times = [at for at, _ in ours]
    assert all(later - earlier >= 600 for earlier, later in pairwise(times))
    report.tell(
        f"victims: {count:,} cards that name {where}, {seconds // 60} min",
        weakened=f"{len(weakened):,} dials by one node",
        ours=f"{len(ours)} dials",
    )


def test_a_victim_does_not_cost_the_others_their_turn() -> None:
    """Among 300 cards for a victim there are ten real nodes: they are all dialled."""
    cards = [Candidate(node_id(number), (f"ws://8.8.8.8:{2000 + number}",)) for number in range(300)]
    cards += [Candidate(node_id(5000 + number), (f"ws://{20 + number}.1.1.1:7741",)) for number in range(10)]
    places = {text for _, text in dialled(cards, 60)}
    assert len([text for text in places if not text.startswith("ws://8.8.8.8:")]) == 10


class Door:
    """A victim: how often somebody knocks at its port."""

    def __init__(self) -> None:
        self.knocks = 0

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._knock, "127.0.0.1", 0)

    def _knock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        writer.close()


def careless(node: Target) -> None:
    """Dials whatever a card names."""
    node.network._overlay._may_dial = anything
    node.network._where.may_dial = anything  # type: ignore[method-assign]


async def told(node: Target, talk: Talk, where: str, features: int) -> None:
    """A node learns of 20 others that are all there, says a peer."""
    made = [new_identity() for _ in range(20)]
    cards = []
    for one in made:
        card = Card(1, now_ms(), "x", NETWORK, (where,), (), one.id, 2**50, bytes(32), features=features)
        cards.append(Record("card", one.sign("card", codec.encode(card))))
    await talk.say(SessionRecord(streams.TELL, 0, codec.encode(wire.Push(tuple(cards)))))
    await until(lambda: made[-1].id in node.gossip.table.entries)


async def knocks(node: Target, *, features: int = 0) -> int:
    """How often a victim on this machine is dialled by a node that was told 20 cards with its address."""
    door = Door()
    server = await door.listen()
    port = server.sockets[0].getsockname()[1]
    try:
        async with attacker() as attack:
            talk = await attack.peer(node)
            await told(node, talk, f"ws://127.0.0.1:{port}", features)
            for _ in range(3):
                node.network._finder.look()
            if features and node.network._reaching is not None:
                node.network._reaching._relay_at = float("-inf")
                await node.network._reaching._reserve()
            await asyncio.sleep(0.3)
            assert await talk.alive()
    finally:
        server.close()
        await server.wait_closed()
    return door.knocks


@pytest.mark.parametrize("features", [0, FEATURE_RELAY], ids=["a node", "a relay"])
async def test_a_real_node_is_told_of_a_victim_beside_it(features: int) -> None:
    async with target(weaken=careless) as weak:
        weakened = await knocks(weak, features=features)
    assert weakened > 0
    async with target() as node:
        assert await knocks(node, features=features) == 0
    report.tell(
        f"victims: 20 cards of {'relays' if features else 'nodes'} at a port of this machine",
        weakened=f"{weakened} connections",
        ours="0 connections",
    )


async def test_a_relay_is_looked_for_no_more_often_than_anybody() -> None:
    """Whoever is behind a router asks all that say they relay; a victim's address in their cards is dialled
    once."""
    async with target() as node:
        tried: list[str] = []
        network = node.network
        reaching = network._reaching
        assert reaching is not None

        async def dial(dialer: object, wanted: overlay.Dial) -> None:
            tried.extend(wanted.addresses)
            network._overlay.failed(wanted.node, node.clock.monotonic())
            raise NetError("unreachable", "Nobody is there.")

        node.peering.dial = dial  # type: ignore[method-assign,assignment]
        async with attacker() as attack:
            talk = await attack.peer(node)
            await told(node, talk, "ws://8.8.8.8:7741", FEATURE_RELAY)
            for _ in range(5):
                reaching._relay_at = float("-inf")
                await reaching._reserve()
                network._finder.look()
            await asyncio.sleep(0)
        assert len(tried) <= 1
