"""`infraxa doctor` for the network: each part is looked at and named; nobody else is given away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infraxa.app.commands import doctor, network_checks, network_seen
from infraxa.app.commands.checkup import Finding
from infraxa.app.commands.doctor import Outcome
from infraxa.app.config import Settings
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.net import addresses, interfaces, keyfile
from infraxa.net.identity import id_text, short_id
from infraxa.net.interfaces import CardAddress, NetworkCard, Survey
from infraxa.net.keyfile import IDENTITY_NAME
from infraxa.net.status import NetworkStatus, Notice, PeerInfo
from tests.app.command_line import COMMAND, LIMIT, environment, infraxa

SEEN = ["port", "reachable", "clock", "local network", "peers"]
"""The checks that ask a node."""


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A network that no other test and no other node of this machine is in."""
    return f"test {tmp_path.name} {os.getpid()}"[:64]


def folders(path: Path, **settings: str | int | bool) -> Folders:
    """A data folder with a config.toml of these settings."""
    path.mkdir(exist_ok=True)
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (path / "config.toml").write_text("".join(lines))
    return Folders.find(path, {})


async def look(where: Folders) -> dict[str, Outcome]:
    """The checks of the network alone, as the command makes them."""
    async with contextlib.aclosing(network_checks.network_checks(where)) as checks:
        return {check.name: await doctor._perform(check, where) async for check in checks}


@contextlib.asynccontextmanager
async def running(path: Path, network: str, name: str) -> AsyncIterator[Node]:
    node = Node(Settings(network=network, name=name, listen_port=0), Folders.find(path, {}), load_model=False)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


async def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within 30 s: {what}")


def port_of(node: Node) -> int:
    return addresses.parse(node.network.listening[0]).port


async def test_while_infraxa_is_open_its_node_is_asked(tmp_path: Path, network: str) -> None:
    async with running(tmp_path / "maple", network, "maple") as maple:
        async with running(tmp_path / "friend", network, "My Friend") as friend:
            await until(lambda: maple.network.peers and friend.network.peers, "they find each other")
            variables = {"INFRAXA_ONLINE": "true", "INFRAXA_NETWORK": network}
            ran = await asyncio.to_thread(infraxa, "doctor", "--json", data=tmp_path / "maple", env=variables)
            assert ran.code == 0, ran
            found = {check["check"]: check for check in json.loads(ran.out)["checks"]}
            assert "it answered within" in found["running node"]["reason"]
            assert short_id(maple.network.id) in found["identity"]["reason"]
            assert "readable by you alone" in found["identity"]["reason"]
            assert "recovery" in found["identity"]["remedy"]
            assert found["network"]["reason"] == "This node is part of a network with a name of its own."
            assert found["port"]["reason"].endswith(f"listens on TCP port {port_of(maple)}.")
            assert found["peers"]["state"] == "ok"
            assert found["peers"]["reason"].startswith("1 link: 1 near this machine; ")
            assert found["clock"]["reason"].startswith("0.")
            assert "so none could be asked" in found["reachable"]["reason"]
            # Who the other one is, and the name that lets anybody in, are nobody's business.
            for secret in ("Friend", short_id(friend.network.id), id_text(friend.network.id), network):
                assert secret not in ran.out


async def test_alone_it_joins_for_a_moment_and_says_who_has_the_port(tmp_path: Path, network: str) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        async with running(tmp_path / "friend", network, "friend") as friend:
            await until(lambda: friend.network.listening, "it listens")
            bootstrap = f"127.0.0.1:{port_of(friend)}, 127.0.0.1:80, no..where"
            me = folders(tmp_path / "me", network=network, listen_port=port, bootstrap=bootstrap)
            found = await look(me)
    assert list(found) == list(network_checks.NAMES)
    assert "joined for" in found["network"].reason
    assert found["port"].state == "warn" and f"Port {port} is taken" in found["port"].reason
    assert f"(pid {os.getpid()})" in found["port"].reason and "listen_port" in found["port"].remedy
    assert found["peers"].reason.startswith("1 link")
    assert found["bootstrap"].state == "warn" and found["bootstrap"].reason.startswith("1 of 3 reached; ")
    assert "number 2 not: " in found["bootstrap"].reason
    assert "number 3 not: The name of the node cannot be looked up" in found["bootstrap"].reason
    assert "no.." not in found["bootstrap"].reason
    # There was no key, and there is none now.
    assert [path.name for path in me.data.iterdir()] == ["config.toml"]


async def test_a_free_port_and_nobody_there(tmp_path: Path, network: str) -> None:
    me = folders(tmp_path / "me", network=network, listen_port=0)
    key = keyfile.load_or_make(me.data)
    found = await look(me)
    assert found["port"].state == "ok" and "is free" in found["port"].reason
    assert found["clock"].reason.startswith("Not known")
    assert found["peers"].state == "warn" and "infraxa join" in found["peers"].remedy
    assert found["bootstrap"].reason.startswith("None is set")
    assert keyfile.load_or_make(me.data).id == key.id


async def test_a_node_that_does_not_start_says_why_and_the_rest_is_left_out(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = folders(tmp_path / "me", network=network, listen_port=80)
    found = await look(me)
    assert found["network"].state == "fail" and "port 80" in found["network"].reason
    assert "listen_port" in found["network"].remedy
    assert not found.keys() & set(SEEN) and "bootstrap" in found

    key, _ = keyfile.make()
    keyfile.write(me.data / IDENTITY_NAME, keyfile.seal(key, "tree"))
    found = await look(folders(tmp_path / "me", network=network, listen_port=0))
    assert found["identity"].state == "warn" and "INFRAXA_PASSPHRASE" in found["identity"].remedy
    assert found["network"].state == "fail" and "passphrase" in found["network"].reason

    monkeypatch.setenv("INFRAXA_PASSPHRASE", "three")
    found = await look(me)
    assert found["identity"].state == "fail" and "wrong" in found["identity"].reason
    monkeypatch.setenv("INFRAXA_PASSPHRASE", "tree")
    assert "which fits" in (await network_checks._identity(me)).reason


async def test_a_key_that_others_read_or_nobody_can(tmp_path: Path) -> None:
    me = folders(tmp_path / "me", online=False)
    keyfile.load_or_make(me.data)
    (me.data / IDENTITY_NAME).chmod(0o644)
    found = (await look(me))["identity"]
    assert found.state == "warn" and "chmod 600" in found.remedy
    (me.data / IDENTITY_NAME).write_text("infraxa-key 1\nrubbish\n")
    found = (await look(me))["identity"]
    assert found.state == "fail" and "damaged" in found.reason and found.remedy
    assert list(await look(me)) == ["identity", "network"]


def card(name: str, *ips: str, up: bool = True) -> NetworkCard:
    return NetworkCard(name, up, tuple(CardAddress(ip, 64 if ":" in ip else 24) for ip in ips))


@pytest.mark.parametrize(
    ("cards", "way_out", "state", "words"),
    [
        (
            [card("eth0", "192.168.1.5"), card("docker0", "172.17.0.1"), card("wg0", "10.8.0.2")],
            ["192.168.1.5"],
            "ok",
            [
                "eth0, the default route (192.168.1.5)",
                "wg0, a VPN (10.8.0.2)",
                "Not told: docker0, a network",
            ],
        ),
        ([card("eth0", "fd00::5")], ["fd00::5"], "ok", ["IPv6 only"]),
        ([card("lo", "127.0.0.1")], [], "warn", ["lo, loopback"]),
        ([card("eth0", "192.168.1.5", up=False)], [], "fail", ["No network card", "eth0, down"]),
        ([], [], "fail", ["No network card"]),
        ([card(f"eth{n}", f"10.0.{n}.1") for n in range(9)], ["10.0.0.1"], "ok", ["; 5 more"]),
        ([card("eth0", "8.8.8.8")], ["8.8.8.8"], "ok", ["eth0, the default route (<public IPv4>)"]),
    ],
)
async def test_which_cards_were_chosen_and_why(
    cards: list[NetworkCard],
    way_out: list[str],
    state: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def survey() -> Survey:
        return interfaces.choose(cards, way_out)

    monkeypatch.setattr(interfaces, "survey", survey)
    found = await network_checks._cards(folders(tmp_path / "me"))
    assert found.state == state
    assert bool(found.remedy) == (state != "ok")
    for text in words:
        assert text in doctor._anonymous(found.reason)


class Showing(NodeFacade):
    """A node that shows one status."""

    def __init__(self, status: NetworkStatus, peers: tuple[PeerInfo, ...] = ()) -> None:
        self.settings = Settings()
        self._status = status
        self._peers = peers

    @property
    def network(self) -> NetworkStatus:
        return self._status

    async def list_peers(self) -> list[PeerInfo]:
        return list(self._peers)


async def seen(what: str, status: NetworkStatus, peers: tuple[PeerInfo, ...] = ()) -> Finding:
    async with contextlib.AsyncExitStack() as stack:
        where = Folders.find(Path("/nowhere"), {})
        checks = network_seen.Seen(where, Settings(), stack)
        checks._node = Showing(status, peers)
        found = await getattr(checks, what)(where)
        assert isinstance(found, Finding)
        return found


def peer(address: str, direction: Any = "out") -> PeerInfo:
    return PeerInfo(bytes(32), "name", address, direction, "peer", 0, None, 0, 0)


async def test_what_each_state_of_the_network_is_called() -> None:
    online = NetworkStatus(activity="online")

    def with_(**changed: Any) -> NetworkStatus:
        return msgspec.structs.replace(online, **changed)

    clock = Notice("clock", "It is slow.", "Set it.")
    assert (await seen("clock", with_(clock_skew_ms=90_000, notices=(clock,)))).state == "warn"
    assert (await seen("clock", with_(clock_skew_ms=-300_000, notices=(clock,)))).state == "fail"
    refused = Notice("clock_refused", "Refused.", "Set it.")
    assert (await seen("clock", with_(notices=(refused,)))) == ("fail", "Refused.", "Set it.")
    assert "1.5 s" in (await seen("clock", with_(clock_skew_ms=-1500))).reason

    closed = Notice("unreachable", "Nobody.", "Open the port.")
    found = await seen(
        "reachable", with_(reachability="unreachable", reachability_reason="Nobody.", notices=(closed,))
    )
    assert found == ("warn", "Nobody.", "Open the port.")
    assert (
        await seen("reachable", with_(reachability="relayed", reachability_reason="By relay."))
    ).state == "ok"

    assert (await seen("local_network", with_(mdns="heard"))).state == "ok"
    assert "heard itself" in (await seen("local_network", with_(mdns="searching", mdns_echo=True))).reason
    assert (await seen("local_network", with_(mdns="searching"))).state == "warn"
    silent = Notice("no_mdns", "No multicast.", "Allow it.")
    assert await seen("local_network", with_(mdns="failed", notices=(silent,))) == (
        "warn",
        "No multicast.",
        "Allow it.",
    )
    links = (peer("192.168.1.7"), peer("relay:abc", "in"), peer("9.9.9.9"))
    found = await seen("peers", with_(known=7), links)
    assert found.reason == (
        "3 links: 1 near this machine, 1 through a relay, 1 elsewhere; "
        "1 came in, 2 dialled from here. Nodes known: 7."
    )


def test_on_a_machine_without_any_network_it_ends_and_says_so(tmp_path: Path, network: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no network namespaces here: unshare is not installed")
    isolated = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--net", "--map-root-user"]
    if subprocess.run([*isolated, "true"], capture_output=True, timeout=LIMIT, check=False).returncode:
        pytest.skip("no network namespaces here: not allowed")
    variables = {
        "INFRAXA_ONLINE": "true",
        "INFRAXA_NETWORK": network,
        "INFRAXA_BOOTSTRAP": "a.invalid,192.0.2.1",
    }
    done = subprocess.run(
        [*isolated, *COMMAND, "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path / "data", **variables),
        timeout=LIMIT,
        check=False,
    )
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1 and done.stderr == ""
    assert found["network cards"]["state"] == "fail" and "lo, down" in found["network cards"]["reason"]
    assert found["bootstrap"]["state"] == "fail"
    assert found["guide"]["state"] == "ok"
    assert set(SEEN) <= found.keys()
    assert not (tmp_path / "data").exists()


async def test_the_whole_of_it_can_be_left_in_the_middle(tmp_path: Path, network: str) -> None:
    me = folders(tmp_path / "me", network=network, listen_port=0)
    keyfile.load_or_make(me.data)
    checks: AsyncGenerator[Any, None] = network_checks.network_checks(me)
    async with contextlib.aclosing(checks):
        async for check in checks:
            await doctor._perform(check, me)
            if check.name == "network":
                break
    # The node is closed again: another one can have the folder.
    async with running(me.data, network, "me") as node:
        assert node.network.name is not None
