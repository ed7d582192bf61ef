"""Vocabularies over real links: who gets one, what it may cost, and that it is what its hash says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infraxa.net import addresses, vocabs, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.link import Link, LinkClosed, Stream, StreamFailed
from infraxa.net.vocabs import fetch_vocabulary
from tests.net.nodes import until
from tests.net.test_network import Someone
from tests.net.test_network_orders import market
from tests.net.test_peering import stranger

DATA = bytes(range(256)) * 4096 + b"the end"
HASH = hashlib.sha256(DATA).digest()


class Shelf:
    """What one node has, by hash, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[bytes] = []
        self.files: dict[bytes, Path] = {}
        self.folder = folder
        self.put(HASH, DATA)

    def put(self, vocab: bytes, data: bytes) -> None:
        self.files[vocab] = self.folder / vocab.hex()
        self.files[vocab].write_bytes(data)

    async def find(self, vocab: bytes) -> Path | None:
        self.asked.append(vocab)
        return self.files.get(vocab)


@asynccontextmanager
async def library(folder: Path) -> AsyncIterator[tuple[Shelf, Someone, Someone]]:
    """What a node has, that node, and one that knows it."""
    async with market(None) as (birch, oak):
        shelf = Shelf(folder)
        birch.net.give_vocabularies(shelf.find)
        yield shelf, birch, oak


async def refusal(link: Link, vocab: bytes = HASH) -> str:
    with pytest.raises(StreamFailed) as failed:
        await fetch_vocabulary(link, vocab)
    return failed.value.failure.code


async def test_every_kind_of_link_gets_the_whole_of_it(tmp_path: Path) -> None:
    async with library(tmp_path) as (_, birch, oak):
        assert await fetch_vocabulary(await oak.net.order_link(birch.id), HASH) == DATA
        async with stranger(birch) as link:
            assert await fetch_vocabulary(link, HASH) == DATA
        peer = (await oak.net._finder.join(birch.id, birch.where)).link
        assert await fetch_vocabulary(peer, HASH) == DATA


async def test_who_was_only_dialled_gives_none_and_loses_its_link(tmp_path: Path) -> None:
    async with library(tmp_path) as (shelf, birch, oak):
        oak.net.give_vocabularies(shelf.find)
        link = await oak.net.order_link(birch.id)
        (back,) = birch.net._customers
        with pytest.raises(LinkClosed):
            await fetch_vocabulary(back, HASH)
        assert shelf.asked == [] and (await link.wait_closed()).reason == "not_allowed"


async def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    async with library(tmp_path) as (shelf, birch, oak):
        link = await oak.net.order_link(birch.id)
        assert await refusal(link, bytes(32)) == "model_gone"
        shelf.files[HASH].unlink()
        assert await refusal(link) == "internal"
        birch.net._vocabs.find = None
        assert await refusal(link) == "model_gone"


async def test_another_one_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    async with library(tmp_path) as (shelf, birch, oak):
        shelf.put(HASH, DATA[:-1])
        with pytest.raises(ProtocolError) as broken:
            await fetch_vocabulary(await oak.net.order_link(birch.id), HASH)
        assert broken.value.reason == "malformed"


async def test_no_more_is_taken_than_a_vocabulary_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library(tmp_path) as (_, birch, oak):
        link = await oak.net.order_link(birch.id)
        monkeypatch.setattr(vocabs, "MAX_VOCAB", len(DATA) - 1)
        with pytest.raises(ProtocolError) as broken:
            await fetch_vocabulary(link, HASH)
        assert broken.value.reason == "too_large"
        assert not link.closed


async def test_a_node_that_does_not_answer_is_waited_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(vocab: bytes) -> Path | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(vocabs, "FETCH_S", 0.2)
    async with library(tmp_path) as (_, birch, oak):
        birch.net.give_vocabularies(never)
        link = await oak.net.order_link(birch.id)
        with pytest.raises(NetError) as late:
            await fetch_vocabulary(link, HASH)
        assert late.value.code == "timeout"
        await until(lambda: birch.net._vocabs._running == 0)


async def test_who_takes_too_long_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabs, "SERVE_S", 0.2)
    async with library(tmp_path) as (_, birch, oak):
        link = await oak.net.order_link(birch.id)
        async with await link.request(wire.VocabPlease(HASH)):  # and nothing is read
            await until(lambda: birch.net._vocabs._running == 1)
            await until(lambda: birch.net._vocabs._running == 0)


async def test_so_many_are_sent_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabs, "AT_ONCE", 1)
    async with library(tmp_path) as (_, birch, oak):
        link = await oak.net.order_link(birch.id)
        async with await link.request(wire.VocabPlease(HASH)):
            await until(lambda: birch.net._vocabs._running == 1)
            assert await refusal(link) == "busy"
        await until(lambda: birch.net._vocabs._running == 0)
        assert await fetch_vocabulary(link, HASH) == DATA


async def test_who_asks_over_and_over_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with library(tmp_path) as (shelf, birch, oak):
        link = await oak.net.order_link(birch.id)
        for _ in range(vocabs.BURST):
            assert await refusal(link, bytes(32)) == "model_gone"
        assert await refusal(link) == "rate_limited"
        assert len(shelf.asked) == vocabs.BURST
        assert birch.net.status.refused == {"rate": 1}
        async with stranger(birch) as other:
            assert await fetch_vocabulary(other, HASH) == DATA


async def test_machines_of_one_address_group_share_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library(tmp_path) as (_, birch, oak):
        monkeypatch.setattr(addresses, "group", lambda remote: "203.0.113")
        link = await oak.net.order_link(birch.id)
        for _ in range(vocabs.BURST):
            assert await refusal(link, bytes(32)) == "model_gone"
        async with stranger(birch) as other:
            assert await refusal(other) == "rate_limited"


async def test_beyond_so_many_bytes_all_get_theirs_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds > 0.05:
            slept.append(seconds)
            seconds = 0.05
        await real(seconds)

    async with library(tmp_path) as (_, birch, oak):
        link = await oak.net.order_link(birch.id)
        bucket = birch.net._vocabs._bytes
        bucket.take(bucket.burst, link.clock.monotonic())
        monkeypatch.setattr("infraxa.net.vocabs.asyncio.sleep", sleep)
        monkeypatch.setattr(vocabs, "SERVE_S", 0.5)
        assert await refusal(link) == "expired"
    assert slept and max(slept) > 0.3


async def test_no_place_is_kept_when_the_user_goes(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def slow(vocab: bytes) -> Path | None:
        reached.set()
        await asyncio.Event().wait()
        return None

    async with library(tmp_path) as (_, birch, oak):
        birch.net.give_vocabularies(slow)
        link = await oak.net.order_link(birch.id)
        stream: Stream
        async with await link.request(wire.VocabPlease(HASH)) as stream:
            await asyncio.wait_for(reached.wait(), 10)
            stream.cancel()
        await until(lambda: birch.net._vocabs._running == 0)
