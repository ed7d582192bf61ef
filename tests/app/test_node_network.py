"""The network of a node: what it starts with, what settings and invites change, what is wrong and said."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pytest

from infraxa.app import models
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import NetworkChanged
from infraxa.app.network import NodeNetwork
from infraxa.app.node import Node
from infraxa.app.rated import Ratings
from infraxa.app.reputations import Reputations
from infraxa.net import invites, keyfile
from infraxa.net.errors import NetError
from infraxa.net.identity import short_id
from infraxa.net.invites import Invite
from infraxa.net.keyfile import IDENTITY_NAME
from infraxa.net.status import Notice
from infraxa.store import peers
from infraxa.store.db import Connection, Store
from infraxa.store.lock import FolderLock
from infraxa.store.records import StoreError
from tests.app.networked import folders, linked, listening, network_name, running, settings_of, until

P = ParamSpec("P")
T = TypeVar("T")

NOWHERE = "ws://127.0.0.1:9"


def an_invite(network: str, *, where: str = "ws://127.0.0.1:2009", psk: bytes | None = None) -> str:
    """To a node that is not there."""
    return invites.encode(Invite(bytes(range(32)), (where,), (time.time_ns() // 10**6) + 10**7, network, psk))


def notice_of(node: Node) -> Notice:
    (notice,) = node.network.notices
    return notice


async def fails(doing: Any, *codes: str) -> str:
    """What the person is told."""
    with pytest.raises((NetError, NodeError)) as caught:
        await doing
    error = caught.value
    assert isinstance(error, NetError | NodeError)
    assert error.code in codes and error.message and error.remedy, error
    return error.message


async def test_an_invite_leads_into_another_network_and_that_stays(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    where = folders(tmp_path / "me", network=here, name="me")
    async with running(tmp_path / "friend", network=there, name="friend", announce=False) as friend:
        async with running(where.data) as me:
            invite = await friend.invite()
            met = await me.join(invite)
            assert met.id == friend.network.id
            assert me.settings.network == there == me.network.network
            await linked(me, friend)
        assert settings_of(where.data).network == there
        assert settings_of(where.data).name == "me"
        async with running(where.data, announce=False) as me:
            await linked(me, friend)  # by what the invite said: neither can be found on the LAN


async def test_an_invite_that_leads_nowhere_changes_nothing(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    where = folders(tmp_path / "me", network=here)
    async with running(tmp_path / "friend", network=here) as friend, running(where.data) as me:
        await linked(me, friend)
        for network in (there, here):
            assert "127.0.0.1:2009" in await fails(me.join(an_invite(network)), "unreachable")
            await until(lambda: me.network.network == here and me.network.peers, "it is back")
        assert me.settings.network == here == settings_of(where.data).network
        assert me._opened is not None
        assert await me._opened.run(peers.get_network, there) is None
        assert await me._opened.run(peers.get_network, here) is None
        # It can go on from here.
        assert invites.decode(await me.invite(), 0).network == here


async def test_a_wrong_invite_does_not_take_the_key_of_a_private_network_away(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    key = bytes(32)
    for name in ("me", "friend"):
        async with await Store.open(folders(tmp_path / name, network=network).data) as store:
            await store.run(peers.join_network, network, key, bytes(range(32)), (NOWHERE,))
    async with running(tmp_path / "friend") as friend, running(tmp_path / "me") as me:
        await linked(me, friend)
        await fails(me.join(an_invite(network, psk=b"x" * 32)), "unreachable")
        await linked(me, friend)
        assert me._opened is not None
        known = await me._opened.run(peers.get_network, network)
        assert known is not None and known.psk == key
        assert invites.decode(await friend.invite(), 0).psk == key


async def test_what_is_no_good_invite_is_said(tmp_path: Path) -> None:
    async with running(tmp_path / "me", network=network_name(tmp_path)) as me:
        await listening(me)
        good = await me.invite()
        assert "itself" in await fails(me.join(good), "bad_invite")
        assert "cut off" in await fails(me.join(good[:-3]), "bad_invite")
        swapped = good[:-2] + good[-1] + ("0" if good[-2] != "0" else "1")
        assert "mistyped" in await fails(me.join(swapped), "bad_invite")
        await fails(me.join("hello"), "bad_invite")
        old = invites.encode(Invite(bytes(range(32)), (NOWHERE.replace(":9", ":2009"),), 3_600_000))
        assert "ended on 1970-01-01" in await fails(me.join(old), "expired")
        assert me.network.activity in ("alone", "online")


async def test_settings_of_the_network_are_in_force_at_once(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    async with (
        running(tmp_path / "friend", network=there) as friend,
        running(tmp_path / "me", network=here) as me,
    ):
        await listening(me)
        await me.change_setting("name", "Big Oak")
        await until(lambda: me.network.name == "Big Oak", "it has that name")
        await me.change_setting("network", there)
        await linked(me, friend)
        await until(lambda: [node.name for node in friend._net.nodes()] == ["Big Oak"], "its name is told")

        await me.change_setting("online", False)
        await until(lambda: me.network.activity == "off", "it is offline")
        await until(lambda: not friend.network.peers, "it has said goodbye")
        assert "offline" in await fails(me.invite(), "offline")
        assert me.network.network == there
        await me.change_setting("online", True)
        await linked(me, friend)


async def test_a_port_at_which_nobody_would_look_is_said_and_another_one_helps(tmp_path: Path) -> None:
    async with running(tmp_path / "me", network=network_name(tmp_path), listen_port=80) as me:
        await until(lambda: me.network.activity == "blocked", "it says what is wrong")
        assert notice_of(me).code == "bad_address" and "listen_port" in notice_of(me).remedy
        assert "port 80" in await fails(me.invite(), "offline")
        await me.change_setting("listen_port", 0)
        await listening(me)
        assert me.network.notices == ()


async def test_several_changes_at_once_end_in_the_last_one(tmp_path: Path) -> None:
    async with running(tmp_path / "me", network=network_name(tmp_path)) as me:
        for name in ("one", "two", "three"):
            await me.change_setting("name", name)
        invite = await me.invite()  # waits for the network that is on its way
        assert invites.decode(invite, 0).node == me.network.id
        await until(lambda: me.network.name == "three" and me.network.activity != "starting", "the last one")


async def test_the_first_nodes_to_ask_are_found_by_name(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with running(tmp_path / "friend", network=network, announce=False) as friend:
        bootstrap = f"127.0.0.1:1, localhost:{await listening(friend)}"
        async with running(tmp_path / "me", network=network, announce=False, bootstrap=bootstrap) as me:
            await linked(me, friend)


async def test_a_locked_key_needs_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    key, _ = keyfile.make()
    keyfile.write(where.data / IDENTITY_NAME, keyfile.seal(key, "tree"))
    for passphrase in (None, "three"):
        if passphrase is not None:
            monkeypatch.setenv("INFRAXA_PASSPHRASE", passphrase)
        async with running(where.data) as me:
            await until(lambda: me.network.activity == "blocked", "it says what is wrong")
            assert notice_of(me).code == "locked_key"
            assert "passphrase" in await fails(me.invite(), "offline")
            assert await me.list_nodes() == [] == await me.list_peers()
            assert await me.create_chat()  # all else works
    monkeypatch.setenv("INFRAXA_PASSPHRASE", "tree")
    async with running(where.data) as me:
        await listening(me)
        assert short_id(me.network.id) == short_id(key.id)


async def test_a_key_that_cannot_be_read_is_said_and_kept(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    (where.data / IDENTITY_NAME).mkdir()
    async with running(where.data) as me:
        await until(lambda: me.network.activity == "blocked", "it says what is wrong")
        assert notice_of(me).code == "bad_key" and str(where.data) in notice_of(me).message
    assert (where.data / IDENTITY_NAME).is_dir()


async def test_a_key_that_others_may_read_is_told_while_it_runs(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    keyfile.load_or_make(where.data)
    (where.data / IDENTITY_NAME).chmod(0o644)
    async with running(where.data) as me:
        await listening(me)
        assert notice_of(me).code == "key_exposed" and "chmod 600" in notice_of(me).remedy


class FullDisk(Store):
    """Keeps nothing of the network."""

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if fn in (peers.take_seq, peers.set_prekeys, peers.set_anchors, peers.keep_node):
            raise StoreError("disk_full", "The disk is full.", "Free some space.")
        return await super().run(fn, *args, **kwargs)


async def test_on_a_full_disk_nothing_is_published_and_it_is_said(tmp_path: Path) -> None:
    where = folders(tmp_path / "me")
    told: list[object] = []
    async with await FullDisk.open(where.data) as store:
        network = NodeNetwork(where, told.append, Ratings(Reputations()))
        network.start(store, Settings(network=network_name(tmp_path), listen_port=0))
        try:
            await until(lambda: network.status.notices, "it says what is wrong")
            assert [notice.code for notice in network.status.notices] == ["not_written"]
            assert network.status.notices[0].message == "The disk is full."
            assert any(isinstance(event, NetworkChanged) for event in told)
        finally:
            await network.close()
        assert network.status.activity == "off" and network.nodes() == []


async def test_a_node_that_is_closed_while_its_network_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    for seconds in (0, 0.01, 0.1, 0.3):
        async with running(where.data) as me:
            asked = asyncio.ensure_future(me._net.invite(1))
            await asyncio.sleep(seconds)
        with contextlib.suppress(NodeError, NetError):  # it may have been in time
            await asked
        with FolderLock.acquire(where.data):
            pass
    assert me.network.activity == "off"


async def test_a_node_that_is_closed_while_it_joins_ends(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path, "a"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        async with running(where.data) as me:
            await listening(me)
            invite = an_invite(network_name(tmp_path, "b"), where=f"ws://127.0.0.1:{port}")
            joining = asyncio.ensure_future(me.join(invite))
            await until(lambda: me.network.network == network_name(tmp_path, "b"), "it tries")
        with pytest.raises((NodeError, NetError)):
            await joining
    assert me.network.activity == "off"
    assert settings_of(where.data).network == network_name(tmp_path, "a")


async def test_the_model_that_every_node_has_is_looked_at_when_it_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def sha256(files: object) -> str:
        read.append(files)
        return "ab" * 32

    monkeypatch.setattr(models, "sha256", sha256)
    monkeypatch.setattr(models, "_hash", functools.lru_cache(models._hash.__wrapped__))
    async with running(tmp_path, online=False, listen_hosts="127.0.0.1", mdns=False) as node:
        await node.list_chats()
        await asyncio.sleep(0.1)
        assert not read
        await node.change_setting("online", True)
        await until(lambda: node._drivers.fallback == {b"\xab" * 32}, "its id is known")
        await node.change_setting("mdns", True)
        await node.change_setting("mdns", False)
        await listening(node)
    assert len(read) == 1
