from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zeroconf import const
from zeroconf._dns import DNSPointer
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from infraxa.net import addresses, discovery
from infraxa.net.discovery import SERVICE, Lan, read_label, read_places
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.identity import base32

LOOPBACK = ("127.0.0.1",)
NETWORK = os.urandom(32)
"""Another one in each run, so that runs side by side do not meet."""
BOUND = 20.0


def multicast_on_loopback() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        member = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
        try:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            probe.sendto(b"", ("224.0.0.251", 5353))
        except OSError:
            return False
    return True


needs_multicast = pytest.mark.skipif(not multicast_on_loopback(), reason="loopback carries no multicast here")


class Seen:
    """A node on the local network, and what it was told."""

    def __init__(self, network: bytes = NETWORK, *, announce: bool = True) -> None:
        self.node = os.urandom(32)
        self.found: dict[bytes, tuple[str, ...]] = {}
        self.lost: list[bytes] = []
        self.refused: list[Refusal] = []
        self._news = asyncio.Event()
        self.lan = Lan(
            self.node,
            network,
            7741,
            on_found=self._on_found,
            on_lost=self._on_lost,
            on_change=self._news.set,
            on_refused=self._on_refused,
            announce=announce,
        )

    def _on_found(self, node: bytes, texts: tuple[str, ...]) -> None:
        self.found[node] = texts
        self._news.set()

    def _on_lost(self, node: bytes) -> None:
        self.lost.append(node)
        self._news.set()

    def _on_refused(self, reason: Refusal) -> None:
        self.refused.append(reason)
        self._news.set()

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not what():
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def nodes(*made: Seen) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.gather(*(seen.lan.close() for seen in made))


@contextlib.asynccontextmanager
async def somebody() -> AsyncIterator[AsyncZeroconf]:
    """Anybody on the wire, who may say anything."""
    zeroconf = AsyncZeroconf(interfaces=list(LOOPBACK))
    try:
        await zeroconf.zeroconf.async_wait_for_start()
        yield zeroconf
    finally:
        await zeroconf.async_close()


def say(wire: AsyncZeroconf, label: str, **changed: object) -> None:
    said: dict[str, object] = {
        "port": 7741,
        "properties": {"v": "1", "n": NETWORK[:8].hex()},
        "server": "somebody.local.",
        "parsed_addresses": ["10.0.0.9"],
    }
    info = AsyncServiceInfo(SERVICE, f"{label}.{SERVICE}", **(said | changed))  # type: ignore[arg-type]
    wire.zeroconf.async_send(wire.zeroconf.generate_service_broadcast(info, None))


def say_only_the_name(wire: AsyncZeroconf, label: str) -> None:
    """Zeroconf refuses to say what it does not refuse to hear."""
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    pointer = DNSPointer(SERVICE, const._TYPE_PTR, const._CLASS_IN, 120, f"{label}.{SERVICE}")
    out.add_answer_at_time(pointer, 0)
    wire.zeroconf.async_send(out)


@needs_multicast
async def test_two_nodes_find_each_other_whoever_came_first() -> None:
    first, second = Seen(), Seen()
    async with nodes(first, second):
        await first.lan.start(LOOPBACK)
        assert first.lan.state == "searching"
        await second.lan.start(LOOPBACK)
        await first.until(lambda: second.node in first.found)
        await second.until(lambda: first.node in second.found)
        assert first.found[second.node] == second.found[first.node] == ("ws://127.0.0.1:7741",)
        assert first.lan.state == second.lan.state == "heard"
        assert first.node not in first.found
        await second.lan.close()
        await first.until(lambda: second.node in first.lost and first.lan.state == "searching")
        assert second.lan.state == "off"
        await second.lan.close()


@needs_multicast
async def test_a_node_that_is_not_announced_hears_and_is_not_heard() -> None:
    loud, quiet = Seen(), Seen(announce=False)
    async with nodes(loud, quiet):
        await quiet.lan.start(LOOPBACK)
        await loud.lan.start(LOOPBACK)
        await quiet.until(lambda: loud.node in quiet.found)
        assert loud.found == {}


@needs_multicast
async def test_another_network_on_the_same_wire_is_not_ours() -> None:
    ours, theirs, friend = Seen(), Seen(os.urandom(32)), Seen()
    async with nodes(ours, theirs, friend):
        await ours.lan.start(LOOPBACK)
        await theirs.lan.start(LOOPBACK)
        await friend.lan.start(LOOPBACK)
        await ours.until(lambda: friend.node in ours.found)
        assert theirs.node not in ours.found


@needs_multicast
async def test_a_change_of_addresses_is_told() -> None:
    first, second = Seen(), Seen()
    async with nodes(first, second):
        await first.lan.start(LOOPBACK)
        await second.lan.start(LOOPBACK)
        await first.until(lambda: second.node in first.found)
        await second.until(lambda: first.node in second.found)
        await second.lan.update(("127.0.0.1", "127.0.0.2"))
        both = {"ws://127.0.0.1:7741", "ws://127.0.0.2:7741"}
        await first.until(lambda: set(first.found[second.node]) == both)
        await second.until(lambda: second.lost == [first.node] and second.lan.state == "heard")


@needs_multicast
async def test_whoever_claims_our_id_is_not_heard() -> None:
    seen = Seen()
    async with nodes(seen), somebody() as wire:
        await seen.lan.start(LOOPBACK)
        say(wire, base32(seen.node), parsed_addresses=["10.6.6.6"])
        other = os.urandom(32)
        say(wire, base32(other))
        await seen.until(lambda: other in seen.found)
        assert seen.node not in seen.found


@needs_multicast
async def test_what_is_wrong_is_refused_and_counted() -> None:
    seen = Seen()
    other = os.urandom(32)
    async with nodes(seen), somebody() as wire:
        await seen.lan.start(LOOPBACK)
        for label in ("\x1b[31mevil", "x", base32(os.urandom(31)), base32(os.urandom(32)).upper(), "o" * 52):
            before = len(seen.refused)
            say_only_the_name(wire, label)
            await seen.until(lambda before=before: len(seen.refused) > before)  # type: ignore[misc]
        assert set(seen.refused) == {"malformed"}
        own = {"v": "1", "n": NETWORK[:8].hex()}
        say(wire, base32(os.urandom(32)), properties=own | {"x": "y" * 250, "z": "y" * 250})
        await seen.until(lambda: "too_large" in seen.refused)
        # Records of one name are one set, so each of these has a host of its own.
        say(wire, base32(os.urandom(32)), port=22, server="a.local.")
        await seen.until(lambda: seen.refused.count("address") == 1)
        say(
            wire, base32(os.urandom(32)), server="b.local.", parsed_addresses=["169.254.169.254", "224.0.0.1"]
        )
        await seen.until(lambda: seen.refused.count("address") == 2)
        assert seen.found == {}
        say(wire, base32(other), server="c.local.", parsed_addresses=["169.254.169.254", "10.1.1.1"])
        await seen.until(lambda: other in seen.found)
        assert seen.found[other] == ("ws://10.1.1.1:7741",)


@needs_multicast
async def test_a_flood_of_services_is_bounded_and_hides_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_FOUND", 16)
    seen, late = Seen(), Seen()
    async with nodes(seen, late), somebody() as wire:
        await seen.lan.start(LOOPBACK)
        invented = [os.urandom(32) for _ in range(60)]
        for node in invented:
            say(wire, base32(node))
            await seen.until(lambda node=node: node in seen.found)  # type: ignore[misc]
        assert len(seen.lan._found) == 16
        assert seen.lost == invented[:-16]
        await late.lan.start(LOOPBACK)
        await seen.until(lambda: late.node in seen.found)
        assert len(seen.lan._found) == 16


async def test_without_a_card_it_says_so() -> None:
    seen = Seen()
    async with nodes(seen):
        await seen.lan.start(())
        assert seen.lan.state == "failed"
        assert seen.lan.notice is not None and "no network card" in seen.lan.notice.message


# Zeroconf leaves its socket to the collector when it cannot start.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@needs_multicast
async def test_what_fails_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ECHO_S", 0.05)
    monkeypatch.setattr(discovery, "RETRY_S", 0.05)
    seen = Seen()
    async with nodes(seen):
        await seen.lan.start(("198.51.100.77",))  # not of this machine
        assert seen.lan.state == "failed"
        assert seen.lan.notice is not None and "infraxa invite" in seen.lan.notice.remedy
        # As when the card comes back with the same address.
        seen.lan._hosts = LOOPBACK
        await seen.until(lambda: seen.lan.state == "searching")
        assert seen.lan.notice is None


@needs_multicast
async def test_multicast_that_goes_nowhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ECHO_S", 0.05)
    monkeypatch.setattr(discovery, "RETRY_S", 1000.0)
    # A firewall that drops what is sent.
    monkeypatch.setattr("zeroconf.Zeroconf.async_send", lambda *args, **kwargs: None)
    seen = Seen()
    async with nodes(seen):
        await seen.lan.start(LOOPBACK)
        await seen.until(lambda: seen.lan.state == "failed")
        assert seen.lan.notice is not None and "multicast" in seen.lan.notice.message
        # It goes on listening.
        monkeypatch.undo()
        async with somebody() as wire:
            other = os.urandom(32)
            say(wire, base32(other))
            await seen.until(lambda: other in seen.found)
            assert seen.lan.state == "heard"
            assert seen.lan.notice is None


async def test_closing_ends_a_start_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "START_S", 0.05)

    async def hang(lan: Lan, hosts: tuple[str, ...]) -> None:
        await asyncio.sleep(1000)

    monkeypatch.setattr(Lan, "_open_on", hang)
    seen = Seen()
    async with nodes(seen):
        async with asyncio.timeout(BOUND):
            await seen.lan.start(LOOPBACK)
        assert seen.lan.state == "failed"
        assert seen.lan.notice is not None and "too long" in seen.lan.notice.message


def test_importing_it_does_not_import_zeroconf() -> None:
    script = "import sys, infraxa.net.discovery; assert 'zeroconf' not in sys.modules"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=env)


@given(st.none() | st.integers(0, 65535), st.lists(st.ip_addresses(), max_size=20))
@settings(deadline=None, max_examples=200)
def test_an_announcement_leads_only_where_a_node_may_go(
    port: int | None, ips: list[IPv4Address | IPv6Address]
) -> None:
    text: dict[bytes, bytes | None] = {b"v": b"1", b"n": NETWORK[:8].hex().encode()}
    assert read_places(port, text | {b"v": b"2"}, ips, NETWORK, loopback=True) == ()
    assert read_places(port, {}, ips, NETWORK, loopback=True) == ()
    try:
        texts = read_places(port, text, ips, NETWORK, loopback=True)
    except ProtocolError as error:
        assert error.reason == "address"
    else:
        assert 1 <= len(texts) <= 4
        assert all(addresses.may_dial(addresses.parse(place), "mdns") for place in texts)


def test_nobody_on_the_wire_leads_a_node_to_its_own_machine() -> None:
    text: dict[bytes, bytes | None] = {b"v": b"1", b"n": NETWORK[:8].hex().encode()}
    ips: list[IPv4Address | IPv6Address] = [
        IPv4Address("127.0.0.1"),
        IPv6Address("::1"),
        IPv6Address("::ffff:127.0.0.2"),
        IPv4Address("10.0.0.9"),
    ]
    assert read_places(8080, text, ips, NETWORK, loopback=False) == ("ws://10.0.0.9:8080",)
    assert len(read_places(8080, text, ips, NETWORK, loopback=True)) == 4


@given(st.text(max_size=60) | st.binary(min_size=30, max_size=34).map(base32))
@settings(deadline=None)
def test_an_id_has_one_name(label: str) -> None:
    try:
        node = read_label(label)
    except ProtocolError as error:
        assert error.reason == "malformed"
    else:
        assert base32(node) == label
        assert len(node) == 32


NEIGHBOUR = """
import asyncio, sys
from infraxa.net import interfaces
from infraxa.net.discovery import Lan
from infraxa.net.tasks import TaskGroup

interfaces.CHECK_S = 0.1

async def main():
    me, other, network = (bytes([int(text)]) * 32 for text in sys.argv[1:])
    found = asyncio.get_running_loop().create_future()
    tasks = TaskGroup()
    def on_found(node, texts):
        if node == other and not found.done():
            found.set_result(texts)
    lan = Lan(me, network, 7741, on_found=on_found, on_lost=lambda node: None)
    # The kernel takes a moment to see that the cable is in: till then there is only loopback.
    watch = interfaces.Watch(lambda survey: tasks.spawn(lan.update(survey.hosts), name="update"))
    await lan.start(watch.start().hosts)
    try:
        texts = await asyncio.wait_for(found, 20)
        print(watch.survey.hosts, texts, flush=True)
        await asyncio.sleep(2)  # until the other one has heard as well
    finally:
        await watch.close()
        await lan.close()

asyncio.run(main())
"""


def test_two_machines_with_one_cable_find_each_other() -> None:
    """In two network namespaces, which end with the processes in them: no default route, one veth each."""
    tools = [shutil.which(name) for name in ("unshare", "ip", "bash", "mount")]
    if not all(tools):
        pytest.skip("needs unshare, ip, bash and mount")
    script = """
        set -e
        mount -t tmpfs none /run && ip netns add far || { echo not allowed >&2; exit 77; }
        ip link set lo up
        ip link add veth0 type veth peer name veth0 netns far
        ip addr add 10.83.0.1/24 dev veth0; ip link set veth0 up
        ip -n far link set lo up
        ip -n far addr add 10.83.0.2/24 dev veth0; ip -n far link set veth0 up
        ip netns exec far "$0" -c "$1" 2 1 9 &
        "$0" -c "$1" 1 2 9
        wait $!
    """
    user = [] if os.geteuid() == 0 else ["-r"]
    done = subprocess.run(
        ["unshare", *user, "-nm", "bash", "-c", script, sys.executable, NEIGHBOUR],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "('10.83.0.1',) ('ws://10.83.0.2:7741',)",
        "('10.83.0.2',) ('ws://10.83.0.1:7741',)",
    ]
