"""Passing for another node: by its id without its key, by what it said to somebody else, by being many."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infraxa.net import auth, codec, parts, streams, wire
from infraxa.net.link import Link, Stream
from infraxa.net.peering import Peer, Peering
from infraxa.net.records import Record
from infraxa.net.session import SessionRecord
from tests.attacks import report
from tests.attacks.attacker import NETWORK, Attacker, attacker, new_identity
from tests.attacks.attacker import auth as auth_of
from tests.attacks.target import Target, replaced, target
from tests.net.nodes import Node, until


async def passes_for(attack: Attacker, node: Target, said: wire.Auth) -> bool:
    """Whether a node believes it."""
    talk = await attack.talk(node)
    await talk.answer(await talk.ask(said))
    return said.key in node.peers


async def test_the_id_of_another_node() -> None:
    somebody, me = new_identity(), new_identity()
    async with attacker() as attack:

        async def lie(node: Target) -> bool:
            talk = await attack.talk(node)
            signed = auth_of(me, talk.session.handshake_hash)
            claim = wire.Auth("node", somebody.id, signed.signature)
            await talk.answer(await talk.ask(claim))
            return somebody.id in node.peers

        with replaced((codec, "verify", lambda tag, signed: True)):
            async with target() as weak:
                assert await lie(weak)
        async with target() as node:
            assert not await lie(node)
            await node.counted("bad_signature")
            assert not node.links
    report.tell(
        "auth: another node's id",
        weakened="linked as that node",
        ours="closed, bad_signature",
        cost="one signature checked",
    )


async def test_what_a_node_said_to_somebody_else() -> None:
    """Whoever is dialled by a node cannot pass for it elsewhere."""
    heard: list[wire.Auth] = []

    async def collects(link: Link, stream: Stream, request: wire.Request) -> None:
        if isinstance(request, wire.Auth):
            heard.append(request)
            await stream.send(codec.encode(wire.Authenticated()))
        else:
            await stream.fail(wire.Failure("unsupported"))

    async def relayed() -> tuple[bool, dict[str, int]]:
        heard.clear()
        trap = Node(network=NETWORK)
        trap.handler = collects
        async with attacker() as attack, target("honest") as honest, target("other") as other:
            try:
                await trap.listen()
                await honest.network.join(trap.id, (trap.address,))
                await until(lambda: heard)
                assert heard[0].key == honest.id
                believed = await passes_for(attack, other, heard[0])
                await until(lambda: believed or other.refused)
                return believed, dict(other.refused)
            finally:
                await trap.close()

    with replaced((auth, "body", lambda role, handshake_hash: role.encode())):
        assert await relayed() == (True, {})
    believed, counted = await relayed()
    assert not believed and counted["bad_signature"] == 1
    report.tell(
        "auth: said to one node, used at another",
        weakened="linked as the honest node",
        ours="closed, bad_signature",
        cost="one signature checked",
    )


class Forgiving(Peering):
    """Whoever was somebody may be somebody else."""

    async def _authenticate(self, link: Link, stream: Stream, request: wire.Auth) -> None:
        link.peer = None
        await super()._authenticate(link, stream, request)


async def many(attack: Attacker, node: Target, count: int) -> int:
    """How many nodes one session passes for."""
    talk = await attack.talk(node)
    for _ in range(count):
        if await talk.answer(await talk.ask(auth_of(new_identity(), talk.session.handshake_hash))) is None:
            break
    return len(node.peering._by_node)


async def test_one_session_as_many_nodes() -> None:
    count = report.scale(8, 40)
    async with attacker() as attack:
        with replaced((parts, "Peering", Forgiving)):
            async with target() as weak:
                weakened = await many(attack, weak, count)
                assert weakened == count
        async with target() as node:
            assert await many(attack, node, count) <= 1
            await node.counted("not_asked")
            assert not node.links
    report.tell(
        "auth: one session as many nodes",
        weakened=f"{weakened} peers",
        ours="closed at the 2nd, not_asked",
    )


class Open(Peering):
    """Tells and is told by strangers as by peers."""

    def _node_of(self, link: Link) -> bytes:
        return link.peer or bytes(32)


REQUESTS: dict[str, wire.Request] = {
    "the digests of all records": wire.BucketsPlease(bytes(16)),
    "those of some": wire.DigestsPlease(bytes(16), bytes(range(256))),
    "records": wire.RecordsPlease(bytes(16), bytes(8)),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_a_stranger_asks_for(what: str) -> None:
    async with attacker() as attack:
        with replaced((parts, "Peering", Open)):
            async with target() as weak:
                talk = await attack.talk(weak)
                assert await talk.answer(await talk.ask(REQUESTS[what])) is not None
        async with target() as node:
            talk = await attack.talk(node)
            assert await talk.answer(await talk.ask(REQUESTS[what])) is None
            await node.counted("not_allowed")
            assert not node.links
    report.tell(f"auth: a stranger asks for {what}", weakened="answered", ours="closed, not_allowed")


async def test_a_stranger_pushes() -> None:
    somebody = Node(network=NETWORK)
    record = codec.decode(somebody.card(), Record)
    push = SessionRecord(streams.TELL, 0, codec.encode(wire.Push((record,))))
    async with attacker() as attack:
        with replaced((parts, "Peering", Open)):
            async with target() as weak:
                talk = await attack.talk(weak)
                await talk.say(push)
                assert await talk.alive()
        async with target() as node:
            talk = await attack.talk(node)
            await talk.say(push)
            await talk.over()
            await node.counted("not_allowed")
            assert node.gossip.card(somebody.id) is None
    report.tell("auth: a stranger pushes records", weakened="listened to", ours="closed, not_allowed")


async def led_back(weaken: Callable[[Target], object]) -> bool:
    """Whether a node ever takes itself for a peer when an address leads back to it."""
    linked: list[bytes] = []

    def noted(peer: Peer, observed: str) -> None:
        linked.append(peer.id)

    async with target(weaken=weaken) as node:
        node.peering._events = node.peering._events._replace(linked=noted)
        node.network._finder.bootstrap((node.address,))
        await until(lambda: linked or node.peering._past != (0, 0))
        return node.id in linked


async def test_a_node_is_led_back_to_itself() -> None:
    """Whoever fills its bootstrap list with its own address keeps it from all others."""

    def does_not_know_itself(node: Target) -> None:
        node.network._overlay._me = bytes(32)

    assert await led_back(does_not_know_itself)
    assert not await led_back(lambda node: None)
    report.tell("auth: led back to itself", weakened="its own peer", ours="closed", cost="one handshake")
