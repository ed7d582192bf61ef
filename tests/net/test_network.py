"""Whole nodes on loopback: joining, gossip, health, goodbye, and what survives a restart."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from infraxa.net import codec, invites, wire
from infraxa.net.connect import Target
from infraxa.net.errors import NetError
from infraxa.net.hello import Prekey
from infraxa.net.identity import Identity
from infraxa.net.interfaces import Survey
from infraxa.net.keyfile import make
from infraxa.net.link import Clock, Link, Stream
from infraxa.net.memory import KnownNode, Memory
from infraxa.net.network import Network, NetworkOptions
from infraxa.net.records import Record, State
from infraxa.net.relay import circuit_address
from tests.net.nodes import Node, until


class Kept:
    """A keeper in memory: what a store would have after a crash."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.seqs: list[int] = []
        self.broken = False

    async def seq_used(self, seq: int) -> None:
        if self.broken:
            raise NetError("not_written", "The disk is full.", "Free some space.")
        assert seq > max(self.seqs, default=0), "a number was used twice"
        self.seqs.append(seq)
        self.memory = structs.replace(self.memory, seq=seq)

    async def prekeys_made(self, prekeys: tuple[Prekey, ...]) -> None:
        self.memory = structs.replace(self.memory, prekeys=prekeys)

    async def anchors_chosen(self, anchors: tuple[bytes, ...]) -> None:
        self.memory = structs.replace(self.memory, anchors=anchors)

    async def node_met(self, node: KnownNode) -> None:
        others = tuple(known for known in self.memory.known if known.id != node.id)
        self.memory = structs.replace(self.memory, known=(node, *others))


class Someone:
    """One node, which may be closed and opened again."""

    def __init__(self, name: str, network: str, **options: Any) -> None:
        self.identity: Identity = make()[0].identity()
        self.kept = Kept()
        self.options = NetworkOptions(
            name=name, network=network, hosts=("127.0.0.1",), port=0, lan=False, **options
        )
        self.clock = Clock()
        self.told: list[str] = []
        self.network: Network | None = None

    @property
    def net(self) -> Network:
        assert self.network is not None
        return self.network

    @property
    def id(self) -> bytes:
        return self.identity.id

    @property
    def where(self) -> tuple[str, ...]:
        port = self.net.status.listening[0].rpartition(":")[2]
        return (f"ws://127.0.0.1:{port}",)

    async def open(self) -> None:
        self.network = Network(
            self.identity,
            self.options,
            self.kept.memory,
            self.kept,
            on_nodes=lambda: self.told.append("nodes"),
            on_peers=lambda: self.told.append("peers"),
            clock=self.clock,
        )
        await self.network.start()

    async def close(self) -> None:
        if self.network is not None:
            network, self.network = self.network, None
            await network.close()

    def sees(self, other: Someone) -> str:
        """The status by which `other` is shown here; empty when it is not."""
        return next((seen.status for seen in self.net.nodes() if seen.id == other.id), "")


Meet = Callable[..., Someone]


@asynccontextmanager
async def village(*names: str, **options: Any) -> AsyncIterator[list[Someone]]:
    """Nodes of one network of their own, open, not linked."""
    network = f"test {secrets.token_hex(4)}"
    nodes = [Someone(name, network, **options) for name in names]
    try:
        for node in nodes:
            await node.open()
        yield nodes
    finally:
        for node in nodes:
            await node.close()


@asynccontextmanager
async def listening(network: bytes) -> AsyncIterator[Node]:
    """A node whose every answer is the test's."""
    node = Node(network=network)
    await node.listen()
    try:
        yield node
    finally:
        await node.close()


async def test_two_nodes_join_and_see_each_other() -> None:
    async with village("birch", "oak") as (birch, oak):
        assert (await oak.net.join(birch.id, birch.where)).name == "birch"
        await until(lambda: (oak.sees(birch), birch.sees(oak)) == ("online", "online"))
        (peer,) = oak.net.peers()
        assert (peer.id, peer.name, peer.direction, peer.kind) == (birch.id, "birch", "out", "peer")
        await until(lambda: oak.net.peers()[0].rtt_ms is not None and birch.net.peers()[0].rtt_ms is not None)
        assert oak.net.status.activity == birch.net.status.activity == "online"
        await until(lambda: {"nodes", "peers"} <= set(birch.told))


async def test_an_invite_leads_to_the_node_that_made_it() -> None:
    async with village("birch", "oak") as (birch, oak):
        invite = invites.decode(birch.net.invite(1), oak.net.now_ms())
        assert invite.node == birch.id
        assert invite.network == birch.options.network
        assert invite.addresses == birch.net.status.listening


async def test_news_of_a_third_node_goes_round() -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        await oak.net.join(birch.id, birch.where)
        await elm.net.join(birch.id, birch.where)
        await until(lambda: elm.sees(oak) == "online" and oak.sees(elm) == "online")


async def test_who_leaves_is_offline_at_once_everywhere() -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        await oak.net.join(birch.id, birch.where)
        await elm.net.join(birch.id, birch.where)
        await until(lambda: elm.sees(oak) == "online")
        await oak.close()
        await until(lambda: birch.sees(oak) == elm.sees(oak) == "offline", 5)


async def test_who_does_not_announce_itself_is_not_told_of() -> None:
    async with village("birch", "oak") as (birch, oak):
        shy = Someone("shy", birch.options.network, announce=False)
        await shy.open()
        try:
            await shy.net.join(birch.id, birch.where)
            await oak.net.join(birch.id, birch.where)
            await until(lambda: shy.sees(oak) == "online")  # news did go round
            assert oak.sees(shy) == ""
        finally:
            await shy.close()


async def test_a_node_of_another_network_is_not_linked() -> None:
    async with village("birch") as (birch,), village("oak") as (oak,):
        with pytest.raises(NetError):
            await oak.net.join(birch.id, birch.where)
        await until(lambda: birch.net.status.refused.get("network") or birch.net.status.refused.get("mac"))


async def test_a_private_network_takes_only_who_has_its_key() -> None:
    key = secrets.token_bytes(32)
    async with village("birch", "oak", psk=key) as (birch, oak):
        stranger = Someone("stranger", birch.options.network)
        await stranger.open()
        try:
            with pytest.raises(NetError):
                await stranger.net.join(birch.id, birch.where)
        finally:
            await stranger.close()
        assert (await oak.net.join(birch.id, birch.where)).name == "birch"


async def test_who_gossips_before_it_answers_is_heard() -> None:
    async with village("oak") as (oak,), listening(codec.network_id(oak.options.network)) as eager:

        async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
            card = codec.decode(eager.card(), Record)
            await link.tell(wire.Push((card,)))
            buckets = await link.request(wire.BucketsPlease(bytes(16)))
            await asyncio.sleep(0.05)
            await stream.send(codec.encode(wire.Authenticated("127.0.0.1", oak.net.now_ms())))
            await stream.end()
            assert [len(chunk) async for chunk in buckets] == [2048]
            answered.set()

        answered = asyncio.Event()
        eager.handler = answer
        await oak.net.join(eager.id, (eager.address,))
        async with asyncio.timeout(5):
            await answered.wait()
        assert [peer.id for peer in oak.net.peers()] == [eager.id]
        assert not oak.net.status.refused


async def test_another_node_at_the_address_is_not_taken_for_the_one_that_was_meant() -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        with pytest.raises(NetError) as refused:
            await oak.net.join(birch.id, elm.where)
        assert "Another node answers" in refused.value.message
        assert oak.net.peers() == []


async def test_a_restarted_node_is_found_again_by_what_it_remembers() -> None:
    async with village("birch", "oak") as (birch, oak):
        oak.options = structs.replace(oak.options, joined=((birch.id, birch.where),))
        await oak.close()
        await oak.open()
        await until(lambda: birch.sees(oak) == "online")
        await until(lambda: bool(oak.kept.memory.known))
        assert oak.kept.memory.known[0].id == birch.id
        assert oak.kept.memory.known[0].addresses == birch.where
        await until(lambda: oak.kept.memory.anchors == (birch.id,))


async def test_numbers_go_on_after_a_restart_with_a_clock_set_back() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: birch.sees(oak) == "online")
        await oak.close()
        await until(lambda: birch.sees(oak) == "offline")
        past = Clock()
        oak.clock = Clock(past.monotonic, lambda: past.unix_ms() - 60_000)
        before = oak.kept.memory.seq
        await oak.open()
        assert oak.kept.seqs[-1] > before
        await oak.net.join(birch.id, birch.where)
        await until(lambda: birch.sees(oak) == "online")


async def test_prekeys_survive_a_restart() -> None:
    async with village("birch") as (birch,):
        kept = birch.kept.memory.prekeys
        assert len(kept) == 1
        await birch.close()
        await birch.open()
        assert birch.kept.memory.prekeys == kept


async def test_a_full_disk_is_a_notice_and_nothing_unnumbered_is_told() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.close()
        oak.kept.broken = True
        await oak.open()
        assert [notice.code for notice in oak.net.status.notices] == ["not_written"]
        assert oak.kept.seqs and birch.sees(oak) == ""


async def test_a_clock_ten_minutes_off_is_said_and_heals_when_it_is_right() -> None:
    async with village("birch", "oak") as (birch, oak):
        off = 600_000
        right = Clock()
        await oak.close()
        oak.clock = Clock(right.monotonic, lambda: right.unix_ms() + off)
        oak.options = structs.replace(oak.options, joined=((birch.id, birch.where),))
        await oak.open()
        await until(lambda: any("clock" in notice.code for notice in oak.net.status.notices))
        assert birch.net.status.refused["clock"]
        assert oak.net.status.activity == "alone"
        off = 0
        await until(lambda: oak.net.status.activity == "online", 30)
        await until(lambda: not any("clock" in notice.code for notice in oak.net.status.notices))


async def test_a_taken_port_is_a_notice_and_another_port_serves() -> None:
    async with village("birch", "oak") as (birch, oak):
        taken = int(birch.where[0].rpartition(":")[2])
        elm = Someone("elm", birch.options.network)
        elm.options = structs.replace(elm.options, port=taken)
        await elm.open()
        try:
            assert [notice.code for notice in elm.net.status.notices] == ["port_taken"]
            assert (await oak.net.join(elm.id, elm.where)).name == "elm"
        finally:
            await elm.close()


async def test_a_watched_node_tells_of_changes_without_a_link_of_peers() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "online")
        oak.net.watch((birch.id,))
        await until(lambda: next(seen.rtt_ms for seen in oak.net.nodes()) is not None)
        await birch.close()
        await until(lambda: oak.sees(birch) == "offline", 5)


async def test_a_probe_gets_the_state_and_each_new_one() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        link = await oak.net.link_to(birch.id)
        async with await link.request(wire.Probe()) as probe:
            first: Record = codec.decode(await anext(probe), Record)
            assert first.signed.signer == birch.id and codec.verify("state", first.signed)
            closing = asyncio.ensure_future(birch.close())
            second: Record = codec.decode(await anext(probe), Record)
            assert codec.decode(second.signed.body, State).status == "offline"
            await closing


async def test_a_node_links_through_a_relay_that_serves() -> None:
    async with village("user") as (user,):
        relay = Someone("relay", user.options.network, relay=True)
        hidden = Someone("hidden", user.options.network)
        try:
            await relay.open()
            await hidden.open()
            await hidden.net.join(relay.id, relay.where)
            await user.net.join(relay.id, relay.where)
            peer = hidden.net._peering.peer(relay.id)
            assert peer is not None
            await hidden.net._relayed.listen(peer.link, hidden.net._peering.take)
            link = await user.net._dialer.dial(Target(hidden.id), (circuit_address(relay.id, hidden.id),))
            user.net._peering.keep(link)
            answer = [chunk async for chunk in await link.request(wire.CardPlease())]
            assert codec.decode(answer[0], Record).signed.signer == hidden.id
            assert relay.net.status.relaying == 1
        finally:
            await hidden.close()
            await relay.close()


async def test_closing_at_any_moment_leaves_nothing_behind() -> None:
    async with village("birch") as (birch,):
        for moment in (0, 0.001, 0.01, 0.05):
            oak = Someone("oak", birch.options.network)
            await oak.open()
            joining = asyncio.ensure_future(oak.net.join(birch.id, birch.where))
            await asyncio.sleep(moment)
            joining.cancel()
            await oak.close()
            await asyncio.gather(joining, return_exceptions=True)
        assert birch.net.status.activity in ("alone", "online")


async def test_a_newcomer_asks_for_the_others() -> None:
    async with village("oak") as (oak,), listening(codec.network_id(oak.options.network)) as guide:
        friend = Node(network=guide.network)
        told = codec.decode(friend.card(addresses=("ws://11.22.33.44:7741",)), Record)
        asked: list[wire.Request] = []

        async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
            asked.append(request)
            match request:
                case wire.Auth():
                    await stream.send(codec.encode(wire.Authenticated()))
                case wire.PeersPlease():
                    await stream.send(codec.encode(wire.Push((told,))))
                case _:
                    await stream.fail(wire.Failure("unsupported"))

        guide.handler, guide.in_flight = answer, 8
        await oak.net.join(guide.id, (guide.address,))
        await until(lambda: any(seen.id == friend.id for seen in oak.net.nodes()))
        assert wire.PeersPlease() in asked
        assert not oak.net.status.refused


async def test_a_machine_without_a_network_says_so_until_it_has_one() -> None:
    async with village("oak") as (oak,):
        for hosts, said in ((("127.0.0.1",), True), (("192.168.1.7", "127.0.0.1"), False), ((), True)):
            oak.net._cards_changed(Survey((), hosts, ()))
            assert any(notice.code == "no_interface" for notice in oak.net.status.notices) is said
