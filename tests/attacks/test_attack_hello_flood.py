"""First messages without end: what each costs is little, and those that cost more are few.

From one machine a rate holds; from many, each has to bring a proof of work that is dearer than what it costs
here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from infraxa.net import door
from infraxa.net.door import Admitted, Door, DoorLimits, Refused
from infraxa.net.guard import MIN_BITS, Load, solve
from infraxa.net.hello import Dialing, Prekeys, Reject, new_handshake
from infraxa.net.noise import Handshake
from tests.attacks import report
from tests.attacks.attacker import NETWORK, Attacker, attacker, dialing
from tests.attacks.target import SetClock, Target, replaced, target

NOW = 1000.0
NOW_MS = 1_800_000_000_000
WIDE = DoorLimits(local_burst=1e9, free_per_second=1e9, per_second=1e9, burst=1e9)


@contextmanager
def handshakes() -> Iterator[list[Handshake]]:
    """Those that a door begins, each three multiplications on a curve."""
    begun: list[Handshake] = []
    make = new_handshake

    def noted(**parts: object) -> Handshake:
        handshake = make(**parts)  # type: ignore[arg-type]
        begun.append(handshake)
        return handshake

    with replaced((door, "new_handshake", noted)):
        yield begun


def gate(node: Target) -> Door:
    return node.peering._door


def opened_wide(node: Target) -> None:
    gate(node)._limits = WIDE
    gate(node)._load = Load(WIDE.free_per_second)


async def flood(attack: Attacker, node: Target, count: int) -> int:
    """Handshakes that so many first messages of one machine cost a node."""
    with handshakes() as begun:
        for _ in range(count):
            await attack.hello(node.address, dialing(node.id, node.card).hello(node.clock.unix_ms()))
        return len(begun)


async def test_one_machine() -> None:
    count = report.scale(260, 2000)
    most = DoorLimits().local_burst
    async with attacker() as attack:
        async with target(clock=SetClock(frozen=True), weaken=opened_wide) as weak:
            weakened = await flood(attack, weak, count)
            assert weakened == count
        async with target(clock=SetClock(frozen=True)) as node:
            ours = await flood(attack, node, count)
            assert ours == most
            await node.counted("rate", count - int(most))
    report.tell(
        "flood: hellos of one machine, in one moment",
        weakened=f"{weakened} handshakes",
        ours=f"{ours} handshakes, rate",
        cost="50 a second in the long run",
    )


class Gate:
    """A door that is not on a node: the time stands still, and sources are names."""

    def __init__(self, limits: DoorLimits) -> None:
        self.node = os.urandom(32)
        prekeys = Prekeys((), os.urandom)
        prekeys.rotate(NOW_MS)
        self.kx = prekeys.current(NOW_MS).public
        self.door = Door(
            node=self.node,
            network=NETWORK,
            prekeys=prekeys,
            card=lambda: b"",
            randbytes=os.urandom,
            limits=limits,
        )

    def dialing(self, challenge: Reject | None = None) -> Dialing:
        return Dialing(node=self.node, kx=self.kx, network=NETWORK, randbytes=os.urandom, challenge=challenge)

    def knock(self, source: str, frame: bytes) -> Admitted | Refused:
        return self.door.receive(frame, source=source, now_ms=NOW_MS, now=NOW)

    def flood(self, sources: int) -> int:
        """Handshakes that one hello of each source costs."""
        with handshakes() as begun:
            for number in range(sources):
                self.knock(f"source {number}", self.dialing().hello(NOW_MS))
            return len(begun)


def test_many_machines_without_work() -> None:
    count = report.scale(1200, 20_000)
    weakened = Gate(WIDE).flood(count)
    assert weakened == count
    gate = Gate(DoorLimits())
    ours = gate.flood(count)
    free = DoorLimits().free_per_second * Load.AVERAGED_SECONDS
    assert ours <= free
    assert len(gate.door._seen) == ours
    assert len(gate.door._rates._buckets) <= DoorLimits().sources
    report.tell(
        "flood: hellos of many machines, in one moment",
        weakened=f"{weakened} handshakes",
        ours=f"{ours} handshakes, proof_of_work",
        cost=f"{len(gate.door._rates._buckets)} sources remembered",
    )


def test_work_pays_for_one_hello_of_one_source() -> None:
    """The answer to a challenge is of no use to others, nor twice."""
    gate = Gate(DoorLimits())
    gate.flood(450)
    refused = gate.knock("one", gate.dialing().hello(NOW_MS))
    assert isinstance(refused, Refused) and refused.reason == "proof_of_work" and refused.reply
    challenge = gate.dialing().receive(refused.reply, NOW_MS, NOW)
    assert isinstance(challenge, Reject) and challenge.difficulty >= MIN_BITS
    with handshakes() as begun:
        made = gate.dialing(challenge)
        assert made.puzzle is not None
        proof = solve(made.puzzle)
        frame = made.hello(NOW_MS, proof)
        assert isinstance(gate.knock("another", frame), Refused)
        assert isinstance(gate.knock("one", gate.dialing(challenge).hello(NOW_MS, proof)), Refused)
        assert not begun
        assert isinstance(gate.knock("one", frame), Admitted)
        again = gate.knock("one", frame)
        assert isinstance(again, Refused) and again.reason == "replayed"
        assert len(begun) == 1
    report.tell(
        "flood: hellos with work",
        weakened="-",
        ours="one handshake for each proof",
        cost=f"the sender: 2^{challenge.difficulty} hashes each",
    )
