"""Trials: having a node dial and buy over and over, from one id or from a crowd of them."""

from __future__ import annotations

from infraxa.net import trials, wire
from infraxa.net.trials import IN_ALL, Turns
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import SetClock, Target, replaced, target


class Willing(Turns):
    """It is always somebody's turn."""

    def begin(self, node: bytes, now: float) -> None:
        return None


async def bought(attack: Attacker, node: Target, count: int, *, crowd: bool) -> int:
    """How often a node buys, asked so often."""
    times = 0

    async def buy(asker: bytes, request: wire.TryPlease) -> wire.Tried:
        nonlocal times
        times += 1
        return wire.Tried("unreachable")

    node.network.try_others(buy)
    talk = await attack.peer(node)
    for _ in range(count):
        if crowd:
            await talk.pipe.close()
            talk = await attack.peer(node)
        await talk.answer(await talk.ask(wire.TryPlease(bytes(32))))
    return times


async def test_a_node_that_is_made_to_buy() -> None:
    count = report.scale(8, 40)
    for crowd, most in ((False, 1), (True, IN_ALL)):
        async with attacker() as attack:
            with replaced((trials, "Turns", Willing)):
                async with target(clock=SetClock(frozen=True)) as weak:
                    weakened = await bought(attack, weak, count, crowd=crowd)
                    assert weakened == count
            async with target(clock=SetClock(frozen=True)) as node:
                ours = await bought(attack, node, count, crowd=crowd)
                assert ours == most
                if not crowd:
                    await node.counted("rate", count - 1)
        report.tell(
            f"trials: asked for by {'a crowd' if crowd else 'one'}",
            weakened=f"{weakened} of {count} bought",
            ours=f"{ours} bought, then refused",
            cost="eight dials and an answer of 16 tokens each",
        )
