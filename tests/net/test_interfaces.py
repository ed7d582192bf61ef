from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from ipaddress import ip_network

import pytest

from infraxa.net import interfaces
from infraxa.net.interfaces import CardAddress, NetworkCard, Survey, Watch, choose, listened


def card(name: str, *ips: str, up: bool = True, tunnel: bool = False) -> NetworkCard:
    """`ips`: `address/prefix`, with a `t` behind it when it is temporary."""
    found = []
    for text in ips:
        ip, _, prefix = text.rstrip("t").partition("/")
        found.append(CardAddress(ip, int(prefix), text.endswith("t")))
    return NetworkCard(name, up, tuple(found), tunnel)


LO = card("lo", "127.0.0.1/8", "::1/128")
ETH = card("eth0", "192.168.1.20/24", "fe80::1%eth0/64")
WLAN = card("wlp2s0", "192.168.7.9/24")
DOCKER = card("docker0", "172.17.0.1/16")
VETH = card("veth12ab", "10.9.0.2/24")
TAILSCALE = card("tailscale0", "100.101.102.103/32", "fd7a:115c:a1e0::5/128")


def reasons(survey: Survey) -> dict[str, tuple[bool, str]]:
    return {entry.name: (entry.chosen, entry.reason) for entry in survey.interfaces}


def test_the_default_route_comes_first_and_containers_are_not_told() -> None:
    survey = choose([DOCKER, LO, WLAN, ETH], ["192.168.1.20"])
    assert survey.hosts == ("192.168.1.20", "192.168.7.9")
    assert [entry.name for entry in survey.interfaces] == ["eth0", "wlp2s0", "docker0", "lo"]
    said = reasons(survey)
    assert said["eth0"] == (True, "the default route")
    assert said["wlp2s0"] == (True, "another card of this machine")
    assert said["docker0"][0] is False and "containers" in said["docker0"][1]
    assert said["lo"] == (False, "loopback, told only when there is nothing else")
    assert survey.prefixes == (ip_network("192.168.1.0/24"), ip_network("192.168.7.0/24"))


def test_a_bridge_that_carries_the_default_route_is_a_card_like_any_other() -> None:
    assert choose([card("br0", "10.0.0.7/24"), LO], ["10.0.0.7"]).hosts == ("10.0.0.7",)
    assert choose([card("br0", "10.0.0.7/24"), ETH], ["192.168.1.20"]).hosts == ("192.168.1.20",)


def test_inside_a_namespace_with_one_veth_that_is_told() -> None:
    survey = choose([LO, VETH], [])
    assert survey.hosts == ("10.9.0.2",)
    assert reasons(survey)["lo"][0] is False


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (("::", "0.0.0.0"), ("192.0.2.7", "2001:db8::7")),
        (("0.0.0.0",), ("192.0.2.7",)),
        (("127.0.0.1",), ("127.0.0.1",)),
        (("::", "10.0.0.1"), ("2001:db8::7", "10.0.0.1")),
    ],
)
def test_others_are_told_where_this_node_listens(wanted: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert listened(("192.0.2.7", "2001:db8::7"), wanted) == told


def test_with_nothing_else_loopback_is_told() -> None:
    survey = choose([LO, card("eth0", "192.168.1.20/24", up=False)], [])
    assert survey.hosts == ("127.0.0.1", "::1")
    assert reasons(survey)["eth0"] == (False, "down")
    assert survey.prefixes == ()


def test_a_card_with_only_a_link_local_ipv6_address_is_of_no_use() -> None:
    """So are the tunnels that macOS always has."""
    survey = choose([LO, card("utun0", "fe80::5%utun0/64", tunnel=True)], ["fe80::5%utun0"])
    assert survey.hosts == ("127.0.0.1", "::1")
    assert "could use" in reasons(survey)["utun0"][1]


def test_two_machines_and_a_cable() -> None:
    survey = choose([LO, DOCKER, card("eth0", "169.254.9.9/16", "fe80::1%eth0/64")], [])
    assert survey.hosts == ("169.254.9.9",)
    assert "no router" in reasons(survey)["eth0"][1]


def test_a_vpn_beside_the_default_route_is_told_after_the_cards() -> None:
    survey = choose([TAILSCALE, ETH, LO], ["192.168.1.20"])
    assert survey.hosts == ("192.168.1.20", "100.101.102.103", "fd7a:115c:a1e0::5")
    assert reasons(survey)["tailscale0"] == (True, "a VPN")


def test_a_vpn_is_known_by_its_kind_when_its_name_says_nothing() -> None:
    survey = choose([card("corp", "10.8.0.2/24", tunnel=True), ETH], ["192.168.1.20"])
    assert reasons(survey)["corp"] == (True, "a VPN")


def test_whoever_hides_behind_a_vpn_is_not_given_away() -> None:
    home = card("eth0", "192.168.1.20/24", "2606:4700:1::20/64", "8.8.8.8/24")
    survey = choose([home, card("wg0", "10.64.0.2/32"), LO], ["10.64.0.2"])
    assert survey.hosts == ("10.64.0.2", "192.168.1.20")
    assert reasons(survey)["wg0"] == (True, "the default route, through a VPN")
    assert "global addresses" in reasons(survey)["eth0"][1]
    assert "8.8.8.8" in choose([home, card("wg0", "10.64.0.2/32")], ["192.168.1.20"]).hosts


def test_ipv6_only() -> None:
    only = card("eth0", "2606:4700:1::20/64", "fd12::20/64", "fe80::1%eth0/64")
    assert choose([LO, only], ["2606:4700:1::20"]).hosts == ("2606:4700:1::20", "fd12::20")


def test_an_address_that_lasts_is_told_rather_than_one_of_today() -> None:
    both = card("eth0", "2606:4700:1::7777/64t", "2606:4700:1::20/64", "2606:4700:1::21/64t")
    # The system sends from the temporary one: the card is still known by it.
    survey = choose([both], ["2606:4700:1::7777"])
    assert survey.hosts == ("2606:4700:1::20",)
    assert reasons(survey)["eth0"] == (True, "the default route")
    assert choose([card("eth0", "2606:4700:1::7777/64t")], []).hosts == ("2606:4700:1::7777",)


def test_at_most_four_and_one_place_for_another_card() -> None:
    rich = card("eth0", "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24", "2606::1/64")
    survey = choose([rich, WLAN, TAILSCALE], ["10.0.0.1"])
    assert survey.hosts == ("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.168.7.9")


@pytest.mark.parametrize(
    "name",
    ["awdl0", "llw0", "anpi0", "p2p-dev-wlp2s0"],
)
def test_cards_for_the_systems_own_use(name: str) -> None:
    assert choose([card(name, "10.1.1.1/24"), ETH], []).hosts == ("192.168.1.20",)


@pytest.mark.parametrize(
    "name", ["vEthernet (Default Switch)", "VMware Network Adapter VMnet8", "bridge100", "virbr0", "vboxnet0"]
)
def test_names_of_virtual_cards_elsewhere(name: str) -> None:
    assert choose([card(name, "172.28.0.1/20"), ETH], []).hosts == ("192.168.1.20",)


@pytest.mark.parametrize("name", ["Ethernet", "Wi-Fi", "en0", "enp3s0", "wlan0", "Ethernet 2"])
def test_names_of_real_cards_elsewhere(name: str) -> None:
    survey = choose([card(name, "192.168.1.20/24"), LO], [])
    assert reasons(survey)[name] == (True, "another card of this machine")


def test_an_address_that_leads_nowhere_is_not_told() -> None:
    assert choose([card("eth0", "0.0.0.0/0", "192.168.1.20/24")], []).hosts == ("192.168.1.20",)


def test_the_name_of_a_card_does_nothing_to_a_terminal() -> None:
    assert choose([card("e\x1b[31m", "192.168.1.20/24")], []).interfaces[0].name == "e?[31m"


def test_this_machine_has_a_card() -> None:
    survey = interfaces.survey()
    assert 1 <= len(survey.hosts) <= 4
    assert any(entry.chosen for entry in survey.interfaces)
    assert any(entry.name.startswith("lo") for entry in survey.interfaces)


def test_looking_sends_nothing_and_needs_no_root() -> None:
    """In a namespace of an own user, with only a loopback card."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no `unshare` here")
    script = "from infraxa.net import interfaces; import msgspec; s = interfaces.survey();"
    script += "print(msgspec.json.encode([s.hosts, s.interfaces]).decode())"
    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"namespaces are not allowed here: {done.stderr.strip()}")
    hosts, cards = json.loads(done.stdout)
    assert hosts == []  # a new namespace's loopback is down
    assert {entry["name"]: entry["reason"] for entry in cards} == {"lo": "down"}


async def test_a_change_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "CHECK_S", 0.01)
    now = [choose([LO], [])]
    changes: asyncio.Queue[Survey] = asyncio.Queue()
    watch = Watch(changes.put_nowait, lambda: now[0])
    assert watch.start().hosts == ("127.0.0.1", "::1")
    try:
        now[0] = choose([LO, ETH], ["192.168.1.20"])
        assert (await asyncio.wait_for(changes.get(), 10)).hosts == ("192.168.1.20",)
        watch.look()
        assert changes.empty()
    finally:
        await watch.close()
    now[0] = choose([LO], [])
    await asyncio.sleep(0.05)
    assert changes.empty()
