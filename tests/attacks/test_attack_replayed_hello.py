"""A first message that was recorded and is said again: no second session comes of it.

Whoever was in the middle of a handshake has a frame that a node believed once. After a restart the node has
forgotten it: then the copy begins a session in which nothing can be said.
"""

from __future__ import annotations

import os

from infraxa.net import connect
from infraxa.net.guard import Seen
from infraxa.net.hello import CLOCK_MS, Prekeys
from infraxa.net.link import Link
from infraxa.net.memory import Memory
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker, dialing, heard
from tests.attacks.target import SetClock, Target, replaced, target, until


class Forgetful(Seen):
    def __contains__(self, key: bytes) -> bool:
        return False


class Hasty(Link):
    """Takes a first message for a proof that its sender is there."""

    async def confirmed(self) -> None:
        return


def forgets(node: Target) -> None:
    node.peering._door._seen = Forgetful(10_000, 250.0)


async def copies(attack: Attacker, node: Target, count: int) -> int:
    """How many copies of one recorded hello are answered by a welcome."""
    recorded = dialing(node.id, node.card).hello(node.clock.unix_ms())
    answers = [await attack.hello(node.address, recorded) for _ in range(1 + count)]
    assert answers[0] is not None and answers[0].startswith(b"ix\x02")
    return sum(answer is not None for answer in answers[1:])


async def test_a_copy_of_a_first_message() -> None:
    count = report.scale(10, 150)
    async with attacker() as attack:
        async with target(weaken=forgets) as weak:
            weakened = await copies(attack, weak, count)
            assert weakened == count
        async with target() as node:
            assert await copies(attack, node, count) == 0
            await node.counted("replayed", count)
            cost = len(node.peering._door._seen)
            assert cost == 1
    report.tell(
        "replayed: a recorded first message",
        weakened=f"{weakened} sessions of {count} copies",
        ours="0 sessions, replayed",
        cost="one key remembered, no multiplication",
    )


async def test_a_copy_after_the_time_for_which_it_is_remembered() -> None:
    """Its own time is over before it is forgotten."""
    clock = SetClock(frozen=True)
    async with attacker() as attack, target(clock=clock) as node:
        recorded = dialing(node.id, node.card).hello(node.clock.unix_ms() + CLOCK_MS - 1)  # a clock ahead
        assert (await attack.hello(node.address, recorded) or b"").startswith(b"ix\x02")
        for _ in range(26):
            clock.ahead_s += 10
            await attack.hello(node.address, dialing(node.id, node.card).hello(node.clock.unix_ms()))
            answer = await attack.hello(node.address, recorded)
            assert answer is None or answer.startswith(b"ix\x03")
        assert node.refused["replayed"] and node.refused["clock"]


async def started_again(attack: Attacker, parts: tuple[tuple[object, str, object], ...]) -> tuple[int, str]:
    """Links that a node keeps for copies of a hello from before its restart; why it refused them."""
    prekeys = Prekeys((), os.urandom)
    prekeys.rotate(SetClock().clock().unix_ms())
    with replaced((connect, "HANDSHAKE_S", 0.3), *parts):
        async with target(memory=Memory(prekeys=prekeys.stored)) as node:
            recorded = dialing(node.id, node.card).hello(node.clock.unix_ms())
            node.peering._door._seen = Seen(1000, 250.0)
            pipe = await attack.pipe(node.address)
            await pipe.send(recorded)
            assert (await heard(pipe)).startswith(b"ix\x02")
            await until(lambda: node.links or node.refused)
            return len(node.links), "".join(node.refused)


async def test_a_copy_after_a_restart() -> None:
    async with attacker() as attack:
        weakened, _ = await started_again(attack, ((connect, "Link", Hasty),))
        assert weakened == 1
        assert await started_again(attack, ()) == (0, "silent")
    report.tell(
        "replayed: after a restart",
        weakened="a link is kept for nobody",
        ours="0 links, silent",
        cost="one handshake, 5 s in the lobby",
    )
