"""Order sessions: passing for another account, taking all places, finding out which node a user is."""

from __future__ import annotations

import asyncio
import os

import pytest

from infraxa.net import auth, codec, customers, parts, strangers, websocket, wire
from infraxa.net.customers import Customers
from infraxa.net.door import DoorLimits
from infraxa.net.guard import Load
from infraxa.net.identity import Identity, Signer
from infraxa.net.link import Link, LinkClosed, Stream, StreamFailed
from infraxa.net.peering import Peering
from infraxa.net.records import Record
from infraxa.net.sale import Sale
from tests.attacks import report
from tests.attacks.attacker import NETWORK, Attacker, Talk, attacker, new_identity
from tests.attacks.target import SetClock, Target, replaced, target, until
from tests.attacks.test_attack_slow_loris import Hostel
from tests.net.nodes import Node

SOMEBODY = "5.6.7.0/24"


def proof(key: Signer, talk: Talk, role: wire.Role = "account") -> wire.Auth:
    signed = key.sign("auth", auth.body(role, talk.session.handshake_hash))
    return wire.Auth(role, key.id, signed.signature)


def an_order() -> wire.Order:
    return wire.Order(os.urandom(16), bytes(32), 100)


def accounts(node: Target) -> list[bytes | None]:
    """Of the order sessions that a node believes to have."""
    return [link.account for link in node.peering._customers]


async def says(attack: Attacker, node: Target, said: wire.Auth) -> bool:
    """Whether a node believes it on a new session."""
    talk = await attack.talk(node)
    await talk.answer(await talk.ask(said))
    return said.key in accounts(node)


async def test_the_proof_of_another_session() -> None:
    """Whoever sold something to a user would order in its name elsewhere, or there again."""

    async def again(node: Target, user: Identity) -> bool:
        talk = await attack.talk(node)
        said = proof(user, talk)
        assert await talk.answer(await talk.ask(said)) and accounts(node) == [user.id]
        node.peering._customers.discard(next(iter(node.peering._customers)))
        return await says(attack, node, said)

    async with attacker() as attack:
        with replaced((auth, "body", lambda role, handshake_hash: role.encode())):
            async with target() as weak:
                assert await again(weak, new_identity())
        async with target() as node:
            assert not await again(node, new_identity())
            await node.counted("bad_signature")
    report.tell(
        "accounts: a proof said again",
        weakened="orders as that user",
        ours="closed, bad_signature",
        cost="one signature checked",
    )


async def test_the_key_of_another_account() -> None:
    user, me = new_identity(), new_identity()
    async with attacker() as attack:

        async def lie(node: Target) -> bool:
            talk = await attack.talk(node)
            mine = proof(me, talk)
            await talk.answer(await talk.ask(wire.Auth("account", user.id, mine.signature)))
            return user.id in accounts(node)

        with replaced((codec, "verify", lambda tag, signed: True)):
            async with target() as weak:
                assert await lie(weak)
        async with target() as node:
            assert not await lie(node)
            await node.counted("bad_signature")
            assert not node.links
    report.tell(
        "accounts: another's key",
        weakened="orders as that user",
        ours="closed, bad_signature",
        cost="one signature checked",
    )


class Forgetful(Peering):
    """Whoever was somebody may be somebody else."""

    async def _authenticate(self, link: Link, stream: Stream, request: wire.Auth) -> None:
        link.peer = link.account = None
        await super()._authenticate(link, stream, request)


async def believed(attack: Attacker, node: Target, roles: list[wire.Role]) -> int:
    """How many keys one session passes for, each in the role of its turn."""
    talk = await attack.talk(node)
    for number, role in enumerate(roles):
        if await talk.answer(await talk.ask(proof(new_identity(), talk, role))) is None:
            return number
    return len(roles)


@pytest.mark.parametrize("roles", [["account", "account"], ["account", "node"], ["node", "account"]])
async def test_one_session_as_many(roles: list[wire.Role]) -> None:
    """As accounts to have the free use of each; as a node and an account to show who belongs to whom."""
    async with attacker() as attack:
        with replaced((parts, "Peering", Forgetful)):
            async with target() as weak:
                assert await believed(attack, weak, roles) == 2
        async with target() as node:
            assert await believed(attack, node, roles) == 1
            await node.counted("not_asked")
            assert not node.links
    report.tell(
        f"accounts: one session as {' and '.join(roles)}",
        weakened="both",
        ours="closed at the 2nd, not_asked",
    )


class Credulous(Customers):
    """Serves whoever comes."""

    async def serve(self, link: Link, stream: Stream, order: wire.Order) -> None:
        if link.account is None:
            self.add(link, bytes(32))
        await super().serve(link, stream, order)


async def test_orders_of_nobody() -> None:
    """Without an account nobody can be counted, limited or blocked."""
    served: list[Sale] = []

    async def serve(sale: Sale) -> None:
        served.append(sale)
        await sale.fail("busy")

    async def order(node: Target) -> str:
        node.network.sell(serve)
        talk = await attack.talk(node)
        number = await talk.ask(an_order())
        await talk.answer(number)
        return talk.failed[number]

    async with attacker() as attack:
        with replaced((parts, "Customers", Credulous)):
            async with target() as weak:
                assert await order(weak) == "busy" and served
        served.clear()
        async with target() as node:
            assert await order(node) == "not_allowed" and not served
            await node.counted("not_allowed")
            peer = await attack.peer(node)
            number = await peer.ask(an_order())
            await peer.answer(number)
            assert peer.failed[number] == "not_allowed" and not served, "nor does a node order as itself"
    report.tell("accounts: orders of nobody", weakened="served", ours="not_allowed", cost="one small answer")


def generous(node: Target) -> None:
    """Its door lets in more at once: here it is about what comes after."""
    node.peering._door._limits = DoorLimits(local_burst=1e9)
    node.peering._door._load = Load(1e9)


def crowded(node: Target) -> None:
    generous(node)
    node.peering._customers._places = Hostel(node.peering._customers._idle_since)


async def squat(attack: Attacker, node: Target, count: int) -> list[Talk]:
    """So many sessions, each of another account, that order nothing."""
    held: list[Talk] = []
    for _ in range(count):
        talk = await attack.talk(node)
        if await talk.answer(await talk.ask(proof(new_identity(), talk))) is not None:
            held.append(talk)
    return held


async def test_a_thousand_sessions_of_one_network() -> None:
    count = report.scale(40, 1000)
    most = report.scale(8, strangers.MAX_GROUP)
    of_one = ((strangers, "group", lambda remote: SOMEBODY), (strangers, "MAX_GROUP", most))
    async with attacker() as attack:
        unlimited = ((strangers, "MAX_LOCAL", 10**9), (strangers, "MAX_ALL", 10**9))
        with replaced((websocket, "MAX_PIPES", 2 * count), *unlimited):
            async with target(weaken=generous, clock=SetClock(frozen=True)) as weak:
                await squat(attack, weak, count)
                weakened = len(accounts(weak))
                assert weakened == count
        with replaced(*of_one):
            async with target(weaken=generous, clock=SetClock(frozen=True)) as node:
                await squat(attack, node, count)
                ours = len(accounts(node))
                assert ours == most and len(node.links) <= 2 * most
                await node.counted("full", count - most)
    report.tell(
        "accounts: sessions of one network",
        weakened=f"{weakened} held",
        ours=f"{ours} held, the one idle for longest goes, full",
        cost="one signature checked each",
    )


async def test_all_places_taken_by_who_orders_nothing() -> None:
    places = report.scale(12, strangers.MAX_LOCAL)
    with replaced((strangers, "MAX_LOCAL", places)):

        async def gets_in(node: Target) -> bool:
            await squat(attack, node, places)
            assert len(accounts(node)) == places
            user = await attack.talk(node)
            return await user.answer(await user.ask(proof(new_identity(), user))) is not None

        async with attacker() as attack, target(weaken=crowded) as weak:
            assert not await gets_in(weak)
        async with attacker() as attack, target(weaken=generous) as node:
            assert await gets_in(node)
            await node.counted("full")
            assert len(accounts(node)) == places
    report.tell(
        "accounts: all places taken",
        weakened="a user who comes later is refused",
        ours="the one idle for longest goes for who comes, full",
    )


async def test_many_sessions_of_one_account() -> None:
    count = report.scale(12, 60)
    key = new_identity()

    async def opened(node: Target) -> int:
        for _ in range(count):
            talk = await attack.talk(node)
            await talk.answer(await talk.ask(proof(key, talk)))
        return len(accounts(node))

    async with attacker() as attack:
        with replaced((customers, "MAX_ACCOUNT", 10**9)):
            async with target(weaken=generous) as weak:
                weakened = await opened(weak)
                assert weakened == count
        async with target(weaken=generous) as node:
            ours = await opened(node)
            assert ours == customers.MAX_ACCOUNT
            await node.counted("full", count - ours)
    report.tell("accounts: sessions of one account", weakened=f"{weakened} held", ours=f"{ours} held, full")


class Open(Peering):
    """Speaks on every link as on that of a peer."""

    def _check_named(self, link: Link) -> None:
        pass

    def _node_of(self, link: Link) -> bytes:
        return link.peer or bytes(32)


async def asked_back(node: Target, request: wire.Request) -> bytes | None:
    """What a provider learns by asking who orders; None: nothing."""
    async with Curious() as trap:
        node.knows(trap.id, trap.address)
        link = await node.network.order_link(trap.id)
        await until(lambda: trap.links)
        async with asyncio.timeout(10):
            try:
                async with await trap.links[0].request(request) as stream:
                    return await anext(stream)
            except (LinkClosed, StreamFailed, StopAsyncIteration):
                await link.wait_closed()
                return None


class Curious(Node):
    """A node that takes every account, and is curious."""

    def __init__(self) -> None:
        super().__init__(network=NETWORK)
        self.handler = self._serve

    async def _serve(self, link: Link, stream: Stream, request: wire.Request) -> None:
        if isinstance(request, wire.Auth) and request.role == "account":
            await stream.send(codec.encode(wire.Authenticated()))
        else:
            await stream.fail(wire.Failure("unsupported"))

    async def __aenter__(self) -> Curious:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


TELLING: dict[str, wire.Request] = {"its card": wire.CardPlease(), "its state": wire.Probe()}


@pytest.mark.parametrize("what", TELLING)
async def test_a_provider_asks_who_orders_for(what: str) -> None:
    def no_dials(node: Target) -> None:
        node.network._finder.look = lambda: None  # type: ignore[method-assign]

    with replaced((parts, "Peering", Open)):
        async with target(weaken=no_dials) as weak:
            said = await asked_back(weak, TELLING[what])
            assert said is not None
            record: Record = codec.decode(said, Record)
            assert record.signed.signer == weak.id
    async with target(weaken=no_dials) as node:
        assert await asked_back(node, TELLING[what]) is None
        await node.counted("not_allowed")
    report.tell(
        f"accounts: the provider asks for {what}",
        weakened="learns which node its user is",
        ours="closed, not_allowed",
    )


async def test_a_provider_marks_who_orders() -> None:
    """By a record that nobody else has: which node hands it on, is this user."""

    async def marked(node: Target) -> bool:
        async with Curious() as trap:
            node.network._finder.look = lambda: None  # type: ignore[method-assign]
            node.knows(trap.id, trap.address)
            link = await node.network.order_link(trap.id)
            await until(lambda: trap.links)
            mark = codec.decode(Node(network=NETWORK).card(), Record)
            assert trap.links[0].tell_soon(wire.Push((mark,)))
            await until(lambda: link.closed or node.gossip.card(mark.signed.signer) or node.refused)
            return node.gossip.card(mark.signed.signer) is not None

    def believes(node: Target) -> None:
        node.gossip.receive = lambda peer, message, now, now_ms: (  # type: ignore[method-assign]
            node.gossip.learn(peer, message, now, now_ms) if isinstance(message, wire.Push) else []
        )

    with replaced((parts, "Peering", Open)):
        async with target(weaken=believes) as weak:
            assert await marked(weak)
    async with target() as node:
        assert not await marked(node)
        await node.counted("not_allowed")
    report.tell(
        "accounts: the provider marks its user",
        weakened="known again by what it gossips",
        ours="closed, not_allowed",
    )
