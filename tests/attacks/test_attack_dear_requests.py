"""Requests that cost the node more than their sender: few of them are answered."""

from __future__ import annotations

from infraxa.net import exchange, wire
from infraxa.net.gossip import Gossip
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import SetClock, Target, replaced, target


async def lists(attack: Attacker, node: Target, count: int) -> int:
    """How often a node goes through its whole table for one machine that asks over and over."""
    told = 0
    real = Gossip.peers_told

    def counting(self: Gossip, asker: bytes, wanted: int, now: float) -> wire.Push:
        nonlocal told
        told += 1
        return real(self, asker, wanted, now)

    with replaced((Gossip, "peers_told", counting)):
        for _ in range(2):  # another session is of no use
            talk = await attack.talk(node)
            for _ in range(count // 2):
                await talk.answer(await talk.ask(wire.PeersPlease()))
    return told


async def test_lists_of_peers() -> None:
    count = report.scale(30, 180)
    async with attacker() as attack:
        with replaced((exchange, "LISTS_BURST", 10**9)):
            async with target(clock=SetClock(frozen=True)) as weak:
                weakened = await lists(attack, weak, count)
                assert weakened == count
        async with target(clock=SetClock(frozen=True)) as node:
            ours = await lists(attack, node, count)
            assert ours == exchange.LISTS_BURST
            await node.counted("rate", count - ours)
    report.tell(
        "dear requests: lists of peers",
        weakened=f"{weakened} of {count} answered",
        ours=f"{ours} answered, rate",
        cost="a look at the whole table and up to 32 KiB each",
    )
