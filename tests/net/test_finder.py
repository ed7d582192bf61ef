"""Finding nodes: the address book, one dial at a time to a node, links that do not say who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from infraxa.net import book, dialer, wire
from infraxa.net.book import AddressBook
from infraxa.net.connect import Target
from infraxa.net.finder import Where
from infraxa.net.identity import base32
from infraxa.net.link import Link
from infraxa.net.relay import circuit_address
from infraxa.net.sampling import Candidate
from tests.net.nodes import until
from tests.net.test_network import Someone, village

A, B = bytes((1,)) * 32, bytes((2,)) * 32
HERE, THERE = ("ws://10.0.0.1:7741",), ("ws://10.0.0.2:7741",)


def dials(node: Someone, monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """Whom it dials from now on."""
    found: list[bytes | None] = []
    dial = node.net._dialer.dial

    async def counted(target: Target, where: Sequence[str]) -> Link:
        found.append(target.id)
        return await dial(target, where)

    monkeypatch.setattr(node.net._dialer, "dial", counted)
    return found


def test_the_book_keeps_the_newest_word_of_each_source_the_nearest_first() -> None:
    it = AddressBook()
    it.put(A, THERE, "gossip")
    it.put(A, THERE, "person")
    it.put(A, HERE, "mdns")
    assert list(it.of(A)) == [(HERE[0], "mdns"), (THERE[0], "person"), (THERE[0], "gossip")]
    it.put(A, THERE, "mdns")
    assert next(it.of(A)) == (THERE[0], "mdns")
    assert it.knows(A, "mdns") and not it.knows(B, "mdns")
    it.take_away(A, "mdns")
    it.take_away(B, "mdns")
    assert not it.knows(A, "mdns") and it.knows(A, "person")
    assert list(it.candidates()) == [
        Candidate(A, THERE, "person"),
        Candidate(A, THERE, "gossip", tried=True),
    ]


def test_the_book_forgets_who_was_told_of_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_NODES", 2)
    it = AddressBook()
    it.put(A, HERE, "mdns")
    it.put(B, HERE, "mdns")
    it.put(A, THERE, "mdns")
    it.put(bytes(32), HERE, "mdns")
    assert [it.knows(node, "mdns") for node in (A, B, bytes(32))] == [True, False, True]


def test_a_private_address_is_dialled_by_word_of_the_lan_or_in_an_own_prefix() -> None:
    for private in (False, True):
        where = Where(private=private)
        where.prefixes = (ip_network("10.0.0.0/24"),)
        assert where.may_dial(HERE[0], "mdns")
        assert where.may_dial(HERE[0], "gossip") is private
        assert not where.may_dial("ws://10.9.0.1:7741", "gossip")
        where.own = HERE
        assert not where.may_dial(HERE[0], "mdns"), "its own"
        assert bool(where.to_announce()) is private
        assert not where.may_dial("nonsense", "person")


async def test_one_node_is_dialled_once_however_many_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        made = dials(oak, monkeypatch)
        await asyncio.gather(*(oak.net.join(birch.id, birch.where) for _ in range(3)))
        assert made == [birch.id]
        assert len(oak.net.peers()) == len(birch.net.peers()) == 1


async def test_the_overlay_waits_for_who_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        made = dials(oak, monkeypatch)
        joining = asyncio.ensure_future(oak.net.join(birch.id, birch.where))
        await until(lambda: made)
        oak.net._found(birch.id, birch.where)
        await joining
        await asyncio.sleep(0.1)
        assert made == [birch.id]


async def test_one_unnamed_link_serves_all_who_want_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        oak.net._presence._publisher.card = b""
        monkeypatch.setattr(oak.net._finder, "look", lambda: None)
        oak.net._finder.book.put(birch.id, birch.where, "person")
        made = dials(oak, monkeypatch)
        one, two = await asyncio.gather(*(oak.net.link_to(birch.id) for _ in range(2)))
        assert one is two and made == [birch.id]
        relaying = await oak.net._finder.link_to_relay(birch.id)
        assert relaying is not one, "a relay counts one request of a stranger at a time"
        assert {peer.kind for peer in birch.net.peers()} == {"stranger"}
        async with await one.request(wire.Probe()) as probe:
            await anext(probe)
            oak.net._finder.let_go(one)
            await asyncio.sleep(0)
            assert not one.closed, "somebody else asks something on it"
        oak.net._finder.let_go(one)
        await until(lambda: one.closed)
        assert await oak.net.link_to(birch.id) is not one
        assert (await oak.net._finder.link_to_relay(birch.id)) is relaying


async def test_a_link_of_peers_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        link = await oak.net.link_to(birch.id)
        oak.net._finder.let_go(link)
        await asyncio.sleep(0.05)
        assert not link.closed


async def test_nobody_is_looked_for_while_nobody_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It means a look at every node that is known."""
    async with village("oak") as (oak,):
        looked: list[float] = []

        def look(now: float) -> list[Candidate]:
            looked.append(now)
            return []

        monkeypatch.setattr(oak.net._gossip, "candidates", look)
        oak.net._finder.look()
        assert looked
        looked.clear()
        monkeypatch.setattr(oak.net._overlay, "wanted", lambda now, candidates: ())
        oak.net._finder.look()
        assert not looked


def nears(node: Someone) -> dict[bytes, bool]:
    """By the nodes that it knows: whether it reaches them in a private network."""
    return {seen.id: seen.near for seen in node.net.nodes()}


def founds(node: Someone) -> dict[bytes, str]:
    """Likewise: the network in which its own dials found them."""
    return {seen.id: seen.found_in for seen in node.net.nodes()}


async def test_who_is_near_is_known_by_the_own_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        monkeypatch.setattr(oak.net._finder, "look", lambda: None)
        await oak.net.join(birch.id, birch.where)
        await elm.net.join(birch.id, birch.where)
        # Who dialled says nothing: behind a proxy all the world comes from an address near by.
        await until(lambda: nears(birch) == {oak.id: False, elm.id: False})
        assert nears(oak)[birch.id]
        await until(lambda: elm.id in nears(oak))
        assert not nears(oak)[elm.id]
        # Nor does what it says of itself, or an earlier run heard of it, though it may be dialled there.
        where = oak.net._finder._where
        where.private, where.prefixes = True, (ip_network("127.0.0.0/8"),)
        oak.net._finder.book.put(elm.id, elm.where, "gossip")
        assert where.may_dial(elm.where[0], "gossip") and not nears(oak)[elm.id]
        oak.net._finder.book.put(elm.id, ("ws://8.8.8.8:7741",), "mdns")
        assert not nears(oak)[elm.id]
        oak.net._finder.book.put(elm.id, elm.where, "mdns")
        assert nears(oak)[elm.id]


async def test_an_order_is_a_dial_too_and_where_the_last_one_led_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        await oak.net.join(birch.id, birch.where)
        await elm.net.join(birch.id, birch.where)
        await until(lambda: elm.id in nears(oak))
        monkeypatch.setattr(oak.net._finder, "direct", lambda node: list(elm.where))
        link = await oak.net.order_link(elm.id)
        assert nears(oak)[elm.id]
        link.remote = "8.8.8.8"
        oak.net._dialer._remember(link)
        oak.net._finder.book.put(elm.id, elm.where, "mdns")
        assert not nears(oak)[elm.id], "whatever the local network says of it"
        monkeypatch.setattr(dialer, "MAX_REACHED", 1)
        link.remote = "192.168.1.2"
        oak.net._dialer._remember(link)
        assert nears(oak)[elm.id] and not oak.net._dialer.reached(birch.id)


async def test_who_is_reached_through_a_node_near_by_is_not_near() -> None:
    async with village("hidden", "user") as (hidden, user):
        relay = Someone("relay", user.options.network, relay=True)
        try:
            await relay.open()
            await hidden.net.join(relay.id, relay.where)
            await user.net.join(relay.id, relay.where)
            await until(lambda: hidden.id in nears(user))
            peer = hidden.net._peering.peer(relay.id)
            assert peer is not None
            await hidden.net._relayed.listen(peer.link, hidden.net._peering.take)
            link = await user.net._dialer.dial(Target(hidden.id), (circuit_address(relay.id, hidden.id),))
            assert nears(user) == {relay.id: True, hidden.id: False}
            # It is where its relay was found, whatever cards say of either.
            assert founds(user) == {relay.id: "local", hidden.id: "local"}
            user.net._dialer._reached[relay.id] = "8.8.8.8"
            assert founds(user) == {relay.id: "8.8.0.0/16", hidden.id: "8.8.0.0/16"}
            user.net._dialer._reached[relay.id] = f"relay:{base32(A)}"
            assert founds(user) == {relay.id: "", hidden.id: ""}
            await link.close()
        finally:
            await relay.close()
