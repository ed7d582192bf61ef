"""Connections that never finish what they begin: few are held, and not for long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from infraxa.net import connect, lobby, parts, strangers, websocket
from infraxa.net.addresses import group
from infraxa.net.link import Link
from infraxa.net.lobby import Lobby
from infraxa.net.pipe import PipeClosed
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, replaced, target, until

UPGRADE = (
    b"GET /infraxa/1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
BEGINNINGS = {
    "nothing": b"",
    "half a request": UPGRADE[:60],
    "an upgrade and no hello": UPGRADE,
    "half a frame": UPGRADE + b"\x82\xfe\x04",
}


class Roomy(Lobby):
    def enter(self, group: str) -> None:
        self._groups[group] += 1


async def plain(node: Target) -> asyncio.Transport:
    """A connection of which nothing is read."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", node.port)
    return transport


async def hold(node: Target, count: int, said: bytes, stack: AsyncExitStack) -> None:
    """So many connections that have said this and wait."""
    for _ in range(count):
        transport = await plain(node)
        stack.callback(transport.abort)
        transport.write(said)


async def test_more_of_them_than_there_is_room_for() -> None:
    room = report.scale(20, lobby.MAX_LOCAL)
    count = room + 30
    limits = ((lobby, "MAX_LOCAL", room), (websocket, "UPGRADE_S", 3600))
    with replaced(*limits, (parts, "Lobby", Roomy)):
        async with target() as weak, AsyncExitStack() as stack:
            await hold(weak, count, b"GET", stack)
            await until(lambda: len(lobby_of(weak)) == count)
            weakened = len(lobby_of(weak))
    with replaced(*limits):
        async with target() as node, AsyncExitStack() as stack:
            await hold(node, count, b"GET", stack)
            await node.counted("full", count - room)
            assert len(lobby_of(node)) == room
    report.tell(
        "slow loris: connections that say nothing",
        weakened=f"{weakened} held",
        ours=f"{room} held, full",
        cost="a socket and a timer each",
    )


def lobby_of(node: Target) -> Lobby:
    return node.network._websocket.lobby


@pytest.mark.parametrize("what", BEGINNINGS)
async def test_none_is_held_for_long(what: str) -> None:
    """Not even one that goes on a byte at a time."""
    count = report.scale(10, 100)
    for seconds, held in ((3600.0, count), (0.2, 0)):
        with replaced((websocket, "UPGRADE_S", seconds), (connect, "HANDSHAKE_S", seconds)):
            async with target() as node, AsyncExitStack() as stack:
                await hold(node, count, BEGINNINGS[what], stack)
                if held:
                    await until(lambda: len(lobby_of(node)) == count)
                else:
                    await node.counted("silent", count)
                    await until(lambda: not len(lobby_of(node)))
                    assert not node.links
    report.tell(
        f"slow loris: {what}", weakened=f"{count} held for as long as they like", ours="0 after 5 s, silent"
    )


async def test_a_request_that_drips() -> None:
    with replaced((websocket, "UPGRADE_S", 0.3)):
        async with target() as node:
            transport = await plain(node)
            for byte in UPGRADE:
                if node.refused["silent"]:
                    break
                transport.write(bytes((byte,)))
                await asyncio.sleep(0.02)
            await node.counted("silent")
            transport.abort()


async def silent(attack: Attacker, node: Target, count: int) -> int:
    """Sessions that one machine keeps open and says nothing in."""
    for _ in range(count):
        try:
            await attack.talk(node)
        except (AssertionError, PipeClosed):
            continue
    await until(lambda: len(node.links) + node.refused["full"] == count)
    return len(node.links)


class Hostel(strangers.Strangers):
    """First come, first served."""

    def add(self, link: Link) -> Link | None:
        goes = super().add(link)
        if goes is None or goes is link:
            return goes
        self.discard(link)
        self._links[goes] = group(goes.remote)
        return link


async def test_one_machine_takes_not_all_places() -> None:
    """Everybody begins as a stranger: where these have no place, nobody gets in."""
    local = report.scale(20, strangers.MAX_LOCAL)
    with replaced((strangers, "MAX_LOCAL", local)):
        async with attacker() as attack, target(weaken=crowded) as weak:
            held = await silent(attack, weak, local)
            assert held == local
            late = await attack.talk(weak)
            await weak.counted("full")
            assert not await late.alive()
            weakened = len(weak.links)
        async with attacker() as attack, target(weaken=generous) as node:
            ours = await silent(attack, node, 2 * local)
            assert ours == local and node.refused["full"] == local
            late = await attack.talk(node)
            await node.counted("full", local + 1)
            assert await late.alive()
    report.tell(
        "flood: sessions that say nothing",
        weakened=f"{weakened} held, who comes later is refused",
        ours=f"{ours} held, the one idle for longest goes for who comes, full",
    )


def crowded(node: Target) -> None:
    generous(node)
    node.peering._strangers = Hostel()


def generous(node: Target) -> None:
    """Its door lets in more at once: here it is about what comes after."""
    from infraxa.net.door import DoorLimits

    node.peering._door._limits = DoorLimits(local_burst=1e9)
