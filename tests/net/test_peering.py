"""The links of a node: strangers that do nothing, requests that cost much, peers that never answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infraxa.net import codec, exchange, wire
from infraxa.net.connect import Target
from infraxa.net.link import Clock, Link, Stream, StreamFailed
from tests.net.nodes import nodes, until
from tests.net.test_network import Someone, listening, village


@asynccontextmanager
async def stranger(node: Someone) -> AsyncIterator[Link]:
    """A link with `node` on which it does not know who is there."""
    async with nodes(1) as (someone,):
        someone.network = codec.network_id(node.options.network)
        pipe = await someone.transport.dial(node.where[0])
        yield await someone.connect(pipe, Target(node.id))


async def test_a_stranger_that_only_pings_goes_after_ten_minutes() -> None:
    async with village("oak") as (oak,):
        await oak.close()
        right, passed = Clock(), 0.0
        oak.clock = Clock(lambda: right.monotonic() + passed, right.unix_ms)
        await oak.open()
        async with stranger(oak) as link:
            await until(lambda: len(oak.net.peers()) == 1)
            passed = 590.0
            link.ping()
            await asyncio.sleep(1.2)
            assert not link.closed
            passed = 601.0
            await until(lambda: link.closed and not oak.net.peers())


async def test_who_is_crowded_out_is_counted_and_its_traffic_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infraxa.net.strangers.MAX_LOCAL", 1)
    async with village("oak") as (oak,), stranger(oak) as first:
        await until(lambda: len(oak.net.peers()) == 1)
        async with stranger(oak) as second:
            assert (await first.wait_closed()).by == "peer"
            await until(lambda: oak.net.status.refused == {"full": 1})
            assert not second.closed and len(oak.net.peers()) == 1
            assert oak.net.status.bytes_in >= first.bytes_out


async def test_a_node_takes_one_line_and_its_bytes_count_once() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        for node in (birch, oak):
            (peer,) = node.net.peers()
            assert peer.kind == "peer"
            assert (node.net.status.bytes_in, node.net.status.bytes_out) == (peer.bytes_in, peer.bytes_out)


async def test_other_nodes_are_told_of_so_many_times() -> None:
    async with village("oak") as (oak,), stranger(oak) as link:
        for _ in range(exchange.LISTS_BURST):
            await link.ask(wire.PeersPlease(), wire.Push, 5)
        with pytest.raises(StreamFailed) as refused:
            await link.ask(wire.PeersPlease(), wire.Push, 5)
        assert refused.value.failure.code == "rate_limited"
        assert oak.net.status.refused["rate"] == 1
        assert not link.closed


async def test_a_node_without_a_card_says_that_it_has_none() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        birch.net._presence._publisher.card = b""
        with pytest.raises(StreamFailed):
            link = await oak.net.link_to(birch.id)
            await link.ask(wire.CardPlease(), wire.Push, 5)


async def test_a_peer_that_never_answers_a_round_keeps_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ROUND_S", 0.2)
    async with village("oak") as (oak,), listening(codec.network_id(oak.options.network)) as mute:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
            if isinstance(request, wire.Auth):
                await stream.send(codec.encode(wire.Authenticated("127.0.0.1", oak.net.now_ms())))
                return
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        mute.handler = answer
        await oak.net.join(mute.id, (mute.address,))
        async with asyncio.timeout(10):
            await asked.wait()
            await ended.wait()
        assert [peer.id for peer in oak.net.peers()] == [mute.id]
