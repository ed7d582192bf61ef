"""Users that have answers opened over and over, or open them and read nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infraxa.net import audits, auth, customers, wire
from infraxa.net.customers import Customer
from tests.attacks import report
from tests.attacks.attacker import Attacker, Talk, attacker, new_identity
from tests.attacks.target import Target, replaced, target, until

PLEASE = wire.AuditPlease(bytes(16), bytes(32), True)


class Shelf:
    """A driver's answers, each as long as may be, and what was made of them."""

    def __init__(self) -> None:
        self.opened = 0
        self.data = bytes(audits.MAX_OPENING)

    async def open(self, customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        self.opened += 1
        return self.data


@asynccontextmanager
async def driver() -> AsyncIterator[tuple[Target, Shelf]]:
    shelf = Shelf()
    async with target() as node:
        node.network.sell(None, None, shelf.open)
        yield node, shelf


async def customer(attack: Attacker, node: Target) -> Talk:
    talk = await attack.talk(node)
    key = new_identity()
    signed = key.sign("auth", auth.body("account", talk.session.handshake_hash))
    assert await talk.answer(await talk.ask(wire.Auth("account", key.id, signed.signature))) is not None
    return talk


async def test_openings_that_nobody_reads() -> None:
    """Each holds 4 MiB, and a place that others wait for."""
    wide = ("AUDITS_S", "AUDITS_BURST", "AUDITS_AT_ONCE", "OWN_AUDITS")
    count = 12

    async def held(attack: Attacker, node: Target, shelf: Shelf) -> None:
        """All are asked for, and nothing of them is read but what was refused."""
        talks = [await customer(attack, node) for _ in range(2)]
        for talk in talks:
            for _ in range(count // 2):
                await talk.ask(PLEASE)

    async with attacker() as attack:
        with replaced(*((customers, name, 1e9) for name in wide)):
            async with driver() as (weak, shelf):
                await held(attack, weak, shelf)
                await until(lambda: weak.network._customers._auditing.total() == count)
                assert shelf.opened == count
        with replaced((customers, "AUDIT_S", 0.5)):
            async with driver() as (node, shelf):
                await held(attack, node, shelf)
                await until(lambda: shelf.opened == customers.OWN_AUDITS)
                await until(lambda: not node.network._customers._auditing)
                assert shelf.opened == customers.OWN_AUDITS
    report.tell(
        f"openings: {count} of one network that nobody reads",
        weakened=f"{count} × 4 MiB for ever",
        ours=f"{customers.OWN_AUDITS} at a time, for 120 s",
        cost="8 MiB",
    )


async def test_openings_over_and_over() -> None:
    count = customers.AUDITS_BURST + 20
    async with attacker() as attack, driver() as (node, shelf):
        shelf.data = b"x"
        talk = await customer(attack, node)
        answered = [await talk.answer(await talk.ask(PLEASE)) for _ in range(count)]
        assert answered.count(None) >= 10 and set(talk.failed.values()) == {"rate_limited"}
        assert shelf.opened <= count - 10 and node.refused["rate"] >= 10
        stranger = await attack.talk(node)
        assert await stranger.answer(stream := await stranger.ask(PLEASE)) is None
        assert stranger.failed[stream] == "not_allowed"
    report.tell(
        f"openings: {count} of one network",
        weakened="a tree and 4 MiB each",
        ours="rate_limited, 20 at once and one in 2 s",
        cost=f"{shelf.opened} openings",
    )
