"""A prekey that is over, or was never this node's: no session begins with it, on either side.

Whoever steals a machine's backup has its old prekeys. After their day they open nothing, and nobody who dials
believes that their holder is the node.
"""

from __future__ import annotations

import os

import pytest

from infraxa.net import connect, parts
from infraxa.net.connect import VerifiedCard, verify_card
from infraxa.net.door import Door
from infraxa.net.errors import NetError
from infraxa.net.hello import NO_PREKEY, PREKEY_KEPT_MS, PREKEY_MS, Dialing, Prekey, Prekeys, prekey_id
from infraxa.net.link import LinkClosed
from infraxa.net.noise import KeyPair
from tests.attacks import report
from tests.attacks.attacker import NETWORK, Attacker, attacker, dialing
from tests.attacks.target import SetClock, replaced, target
from tests.net.nodes import Node

OVER_S = (PREKEY_MS + PREKEY_KEPT_MS) / 1000 + 1


class Hoarder(Prekeys):
    """Keeps its prekeys for as long as it runs."""

    hoard: tuple[Prekey, ...] = ()

    def rotate(self, now_ms: int) -> bool:
        changed = super().rotate(now_ms)
        self.hoard = (*self.hoard, *(key for key in self.stored if key not in self.hoard))
        return changed

    def find(self, wanted: bytes, now_ms: int) -> Prekey | None:
        return next((key for key in self.hoard if prekey_id(key.public) == wanted), None)


async def dialled_late(attack: Attacker) -> tuple[bool, dict[str, int]]:
    """Whether a node begins a session for the prekey of an old card; what it counted."""
    clock = SetClock(frozen=True)
    async with target(clock=clock) as node:
        old = dialing(node.id, node.card)
        clock.ahead_s = OVER_S
        await node.network._presence.renew()
        answer = await attack.hello(node.address, old.hello(node.clock.unix_ms())) or b""
        return answer.startswith(b"ix\x02"), dict(node.refused)


async def test_a_hello_for_an_old_prekey() -> None:
    async with attacker() as attack:
        with replaced((parts, "Prekeys", Hoarder)):
            weakened, _ = await dialled_late(attack)
            assert weakened
        began, counted = await dialled_late(attack)
        assert not began and counted["prekey"] == 1
    report.tell(
        "prekey: a hello for one that is over",
        weakened="a session begins",
        ours="the current card, prekey",
        cost="no multiplication",
    )


@pytest.mark.parametrize("named", [False, True], ids=["unknown", "by the name of the real one"])
async def test_a_hello_for_a_key_that_is_not_the_nodes(named: bool) -> None:
    async with attacker() as attack, target() as node:
        other = KeyPair.of(os.urandom(32)).public
        made = Dialing(node=node.id, kx=other, network=NETWORK, randbytes=os.urandom)
        if named:
            real = verify_card(node.card, node=None, network=NETWORK, now_ms=0).card.kx
            made._kx = real
        answer = await attack.hello(node.address, made.hello(node.clock.unix_ms()))
        assert answer is None or answer.startswith(b"ix\x03")
        await node.counted("tampered" if named else "prekey")


class Stolen(Prekeys):
    """Whoever has it uses it, no matter what a card says."""

    def find(self, wanted: bytes, now_ms: int) -> Prekey | None:
        return None if wanted == NO_PREKEY else self.stored[0]


def ageless(raw: bytes, *, node: bytes | None, network: bytes, now_ms: int) -> VerifiedCard:
    return verify_card(raw, node=node, network=network, now_ms=0)


async def deceived() -> tuple[bool, dict[str, int]]:
    """Whether a node that dials another one takes a thief of its old prekey for it; what it counted."""
    robbed, thief = Node(network=NETWORK), Node(network=NETWORK)
    clock = SetClock(frozen=True)
    async with target(clock=clock) as node:
        thief.clock, old = node.clock, robbed.card()
        thief.door = Door(
            node=robbed.id,
            network=NETWORK,
            prekeys=Stolen(robbed.prekeys.stored, os.urandom),
            card=lambda: old,
            randbytes=os.urandom,
        )
        clock.ahead_s = OVER_S
        try:
            await thief.listen()
            node.knows(robbed.id, thief.address)
            try:
                link = await node.network.link_to(robbed.id)
            except (NetError, LinkClosed):
                return False, dict(node.refused)
            return link.peer == robbed.id, dict(node.refused)
        finally:
            await thief.close()


async def test_a_thief_of_an_old_prekey_is_dialled() -> None:
    with replaced((connect, "verify_card", ageless)):
        assert await deceived() == (True, {})
    assert await deceived() == (False, {"prekey": 1})
    report.tell(
        "prekey: the holder of an old one is dialled",
        weakened="taken for the node",
        ours="not believed, prekey",
        cost="one signature checked",
    )
