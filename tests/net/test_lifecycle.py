"""A node whose disk, clock or parts fail while it runs, and its end: what is said, and that it goes on."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from infraxa.net import network, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.hello import Prekey
from infraxa.net.link import Clock
from infraxa.net.status import Load
from tests.net.nodes import until
from tests.net.test_network import Someone, village


def codes(node: Someone) -> list[str]:
    return [notice.code for notice in node.net.status.notices]


def said(node: Someone, code: str) -> bool:
    return codes(node) == [code]


async def test_a_disk_that_has_room_again_brings_the_node_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RENEW_S", 0.1)
    async with village("birch", "oak") as (birch, oak):
        await oak.close()
        oak.kept.broken = True
        await oak.open()
        assert codes(oak) == ["not_written"]
        oak.kept.broken = False
        await until(lambda: not codes(oak))
        await oak.net.join(birch.id, birch.where)
        await until(lambda: birch.sees(oak) == "online")


async def test_prekeys_that_were_not_kept_are_kept_later_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RENEW_S", 0.1)
    async with village("oak") as (oak,):
        await oak.close()
        oak.kept.memory = structs.replace(oak.kept.memory, prekeys=())
        keep = oak.kept.prekeys_made

        async def fail(prekeys: object) -> None:
            raise NetError("not_written", "The disk is full.")

        monkeypatch.setattr(oak.kept, "prekeys_made", fail)
        await oak.open()
        assert not oak.kept.memory.prekeys
        times = 0

        async def count(prekeys: tuple[Prekey, ...]) -> None:
            nonlocal times
            times += 1
            await keep(prekeys)

        monkeypatch.setattr(network, "TICK_S", 0.05)
        monkeypatch.setattr(oak.kept, "prekeys_made", count)
        await until(lambda: oak.kept.memory.prekeys)
        await asyncio.sleep(0.3)
        assert times == 1


async def test_anchors_that_were_not_kept_are_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        keep, failed = oak.kept.anchors_chosen, asyncio.Event()

        async def fail(anchors: object) -> None:
            failed.set()
            raise NetError("not_written", "The disk is full.")

        monkeypatch.setattr(oak.kept, "anchors_chosen", fail)
        await oak.net.join(birch.id, birch.where)
        async with asyncio.timeout(10):
            await failed.wait()
        monkeypatch.setattr(oak.kept, "anchors_chosen", keep)
        await until(lambda: oak.kept.memory.anchors == (birch.id,))


async def test_a_clock_set_back_by_an_hour_is_a_notice_and_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RENEW_S", 0.1)
    async with village("birch", "oak") as (birch, oak):
        right, off = Clock(), 3_600_000
        await oak.close()
        oak.clock = Clock(right.monotonic, lambda: right.unix_ms() - off)
        await oak.open()
        assert codes(oak) == ["clock"]
        off = 0
        await oak.net.join(birch.id, birch.where)
        await until(lambda: birch.sees(oak) == "online")
        await until(lambda: not codes(oak))


async def test_a_node_whose_key_is_revoked_says_so_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RENEW_S", 0.1)
    async with village("oak") as (oak,):

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ProtocolError("not_allowed", "retired")

        monkeypatch.setattr(oak.net._gossip, "publish", refuse)
        oak.net._reach_changed()
        oak.net._presence._said = None
        await until(lambda: codes(oak) == ["refused"])


async def test_a_turn_that_breaks_is_logged_told_of_and_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "TICK_S", 0.05)
    async with village("oak") as (oak,):
        for part, name, code in (
            (oak.net._finder, "look", "tick_failed"),
            (oak.net._peering, "tick", "tick_failed"),
            (oak.net, "_keep_anchors", "keep_failed"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(part, name, lambda: 1 / 0)
                await until(partial(said, oak, code))
            await until(lambda: not codes(oak))
        assert {record.levelno for record in caplog.records if record.name.startswith("infraxa")} == {
            logging.ERROR
        }


async def test_gossip_does_not_wait_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TICK_S", 0.05)
    async with village("birch", "oak") as (birch, oak):
        stuck = asyncio.Event()
        ticked = 0
        tick = oak.net._peering.tick

        async def hang(anchors: object) -> None:
            stuck.set()
            await asyncio.Event().wait()

        def count() -> float:
            nonlocal ticked
            ticked += stuck.is_set()
            return tick()

        monkeypatch.setattr(oak.kept, "anchors_chosen", hang)
        monkeypatch.setattr(oak.net._peering, "tick", count)
        await oak.net.join(birch.id, birch.where)
        await until(lambda: ticked > 3)


async def test_who_watches_hears_nothing_of_a_state_that_could_not_be_kept() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        link = await oak.net.link_to(birch.id)
        async with await link.request(wire.Probe()) as probe:
            await anext(probe)
            birch.kept.broken = True
            birch.net.load(Load("busy"))
            await until(lambda: codes(birch) == ["not_written"])
            birch.kept.broken = False
            again = asyncio.ensure_future(anext(probe))
            await asyncio.sleep(0.05)
            assert not again.done()
            again.cancel()


async def test_a_network_that_is_closed_dials_nobody() -> None:
    async with village("birch", "oak") as (birch, oak):
        gone, oak.network = oak.net, None
        await gone.close()
        with pytest.raises(NetError) as refused:
            await gone.join(birch.id, birch.where)
        assert refused.value.code == "closed"


async def test_a_dial_that_is_done_when_the_network_is_closed_leaves_no_link() -> None:
    async with village("birch", "oak") as (birch, oak):
        oak.net._finder.book.put(birch.id, birch.where, "person")
        dialling = asyncio.ensure_future(oak.net.link_to(birch.id))
        await asyncio.sleep(0)
        oak.net._dialer.close()
        with pytest.raises(NetError) as refused:
            await dialling
        assert refused.value.code == "closed"
        await until(lambda: not birch.net.peers())


async def test_a_part_that_cannot_be_closed_keeps_no_other_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "END_S", 0.2)
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        net = oak.net

        async def hang() -> None:
            await asyncio.Event().wait()

        async def fail() -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(net._presence, "leave", hang)
        monkeypatch.setattr(net._health, "close", fail)
        port = int(oak.where[0].rpartition(":")[2])
        await oak.close()
        assert net.peers() == []
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        said = [record.message for record in caplog.records if "closing" in record.message]
        assert said == ["closing: what looks for others failed", "closing: goodbye took too long"]
