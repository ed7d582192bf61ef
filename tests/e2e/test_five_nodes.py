"""Five nodes, each on a machine of its own: three on a LAN, one behind a NAT, one across the internet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.conftest import INFRAXA
from tests.e2e.lab import Host, Lab
from tests.e2e.nodes import NetworkNode, node_of, online


class World(NamedTuple):
    """`ada`, `bob` and `eve` share a LAN, `nat` is behind a NAT, `far` is elsewhere and hands traffic on."""

    ada: NetworkNode
    bob: NetworkNode
    eve: NetworkNode
    nat: NetworkNode
    far: NetworkNode
    visitor: Host
    """A machine on the LAN, on which nothing runs yet."""

    @property
    def nodes(self) -> list[NetworkNode]:
        return [self.ada, self.bob, self.eve, self.nat, self.far]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All have addresses as the internet has them, but the one behind the NAT."""
    folder = tmp_path_factory.mktemp("world")
    lab = Lab(folder)
    try:
        campus, internet, home = lab.segment(), lab.segment(), lab.segment()
        lab.router("router", (campus, "30.0.1.254/24"), (internet, "20.9.9.9/8"))
        lab.nat(
            "home-router",
            inside=(home, "192.168.7.1/24"),
            outside=(internet, "20.5.0.1/8"),
            public="20.5.0.2",
            gateway="20.9.9.9",
        )

        def start(host: Host, relay: str = "false") -> NetworkNode:
            return NetworkNode(host, folder / host.name, relay=relay)

        yield World(
            ada=start(lab.host("ada", campus, "30.0.1.1/24", gateway="30.0.1.254")),
            bob=start(lab.host("bob", campus, "30.0.1.2/24", gateway="30.0.1.254")),
            eve=start(lab.host("eve", campus, "30.0.1.3/24", gateway="30.0.1.254")),
            nat=start(lab.host("nat", home, "192.168.7.10/24", gateway="192.168.7.1")),
            far=start(lab.host("far", internet, "20.1.0.1/8", gateway="20.9.9.9"), relay="true"),
            visitor=lab.host("visitor", campus, "30.0.1.9/24", gateway="30.0.1.254"),
        )
    finally:
        lab.close()


def addresses(node: NetworkNode, other: NetworkNode) -> list[str]:
    """Where `other` is, in the links that `node` has with it."""
    return [peer["address"] for peer in node.ask("look")["peers"] if peer["id"] == other.id]


def test_those_on_a_lan_find_each_other_by_themselves(world: World) -> None:
    lan = (world.ada, world.bob, world.eve)
    for node in lan:
        node.wait_online(*(other for other in lan if other is not node))
        node.wait("a link", lambda seen: seen["status"]["activity"] == "online" and seen["peers"])
        node.wait("an answer by mDNS", lambda seen: seen["status"]["mdns"] == "heard")
        seen = node.ask("look")
        assert not node_of(seen, world.far) and not node_of(seen, world.nat)


def test_an_invite_brings_in_those_who_are_elsewhere(world: World) -> None:
    invite = world.far.ask("invite")
    for node in (world.ada, world.nat):
        node.ask("join", invite=invite)
    for node in world.nodes:
        node.wait_online(*(other for other in world.nodes if other is not node), seconds=30)


def test_providers_lists_them_for_somebody_new(world: World, environment: dict[str, str]) -> None:
    environment["INFRAXA_ONLINE"] = "true"
    command = [*INFRAXA, "providers", "--all", "--json", "--wait", "20"]
    done = world.visitor.run(*command, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    names = {row["name"] for row in json.loads(done.stdout) if row["status"] == "online"}
    assert names == {node.name for node in world.nodes}


def test_a_cut_cable_and_a_frozen_machine_are_noticed_and_come_back(world: World) -> None:
    """Both at once, since both take longer than the 15 s after which a silent link is dead."""
    world.ada.ask("watch", nodes=[world.eve.id, world.bob.id])
    world.ada.wait_online(world.eve, world.bob)
    world.eve.host.cables[0].cut()
    world.bob.freeze()
    world.ada.wait(
        "both gone", lambda seen: not online(seen, world.eve) and not online(seen, world.bob), seconds=40
    )
    assert online(world.ada.ask("look"), world.far)
    world.eve.wait("no links", lambda seen: seen["status"]["activity"] == "alone", seconds=40)
    cards = {card["name"]: card["reason"] for card in world.eve.ask("look")["status"]["interfaces"]}
    assert cards["eth0"] == "down"
    world.eve.host.cables[0].heal()
    world.bob.thaw()
    for node in (world.eve, world.bob):
        node.wait("links again", lambda seen: seen["status"]["activity"] == "online", seconds=40)
    assert "silent" not in world.bob.ask("look")["status"]["refused"]  # it was bob who was away
    world.ada.wait_online(world.eve, world.bob, seconds=40)


def test_the_node_behind_the_nat_is_reached_through_the_relay(world: World) -> None:
    world.nat.wait("a relay", lambda seen: seen["status"]["reachability"] == "relayed", seconds=80)
    # It has dialled one or two of the LAN itself. For the others there is no way but the relay.
    lan = (world.ada, world.bob, world.eve)
    caller = next(node for node in lan if "20.5.0.2" not in addresses(node, world.nat))
    caller.wait("the way", lambda seen: (node_of(seen, world.nat) or {}).get("relays") == [world.far.id])
    recording = world.nat.host.capture()
    caller.wait_measured(world.nat)
    assert [address.partition(":")[0] for address in addresses(caller, world.nat)] == ["relay"]
    world.far.wait("a circuit", lambda seen: seen["status"]["relaying"] >= 1)
    (address,) = caller.host.addresses
    assert address not in {frame.source[0] for frame in recording.stop()}
