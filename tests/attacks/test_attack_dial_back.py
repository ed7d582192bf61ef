"""A peer asks to be dialled back at the address of a victim: the node is neither a weapon nor a scanner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infraxa.net import addresses, wire
from infraxa.net.reach import DialBacks
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, target


class Obliging(DialBacks):
    """Dials wherever it is told."""

    def admit(self, text: str, remote: str, now: float) -> addresses.Address:
        return addresses.parse(text)


def obliges(node: Target) -> None:
    start = node.network._start_reaching

    def started() -> None:
        start()
        assert node.network._reaching is not None
        node.network._reaching._backs = Obliging()

    node.network._start_reaching = started  # type: ignore[method-assign]


@asynccontextmanager
async def victim(host: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Somebody's server: its address, and what it was sent on each connection."""
    came: list[bytes] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(served, host, 0)
    try:
        yield f"ws://{host}:{server.sockets[0].getsockname()[1]}", came
    finally:
        server.close()
        await server.wait_closed()


async def aimed(attack: Attacker, node: Target, address: str, count: int) -> None:
    talk = await attack.peer(node)
    for _ in range(count):
        await talk.answer(await talk.ask(wire.DialBack(address)))


async def test_a_dial_back_at_somebody_else() -> None:
    count = report.scale(3, 30)
    async with attacker() as attack, victim("127.0.0.2") as (address, came):
        async with target(weaken=obliges) as weak:
            await aimed(attack, weak, address, count)
            weakened = len(came)
            assert weakened >= count and all(said.startswith(b"GET ") for said in came)
        came.clear()
        async with target() as node:
            await aimed(attack, node, address, count)
            assert not came
            await node.counted("address", count)
    report.tell(
        "dial-back: at a victim's address",
        weakened=f"{weakened} connections to the victim",
        ours="0 connections, address",
        cost="an address compared",
    )


async def test_dial_backs_without_end() -> None:
    """Its own host may be dialled, but not as often as it likes."""
    count = report.scale(8, 40)
    async with attacker() as attack, victim("127.0.0.1") as (address, came):
        async with target(weaken=obliges) as weak:
            await aimed(attack, weak, address, count)
            weakened = len(came)
            assert weakened >= count
        came.clear()
        async with target() as node:
            await aimed(attack, node, address, count)
            assert len(came) <= 4  # two that are tried again once, as HTTP clients do
            await node.counted("rate", count - 2)
    report.tell(
        "dial-back: without end",
        weakened=f"{weakened} connections of {count}",
        ours=f"{len(came)} connections, rate",
        cost=f"{len(came)} connections",
    )
