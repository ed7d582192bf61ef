from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from infraxa.net import addresses
from infraxa.net.addresses import Source, may_announce, may_dial, parse
from infraxa.net.errors import NetError

# What no node may ever be sent to, whoever says so.
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "224.0.0.251",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::7f00:1",
    "ff02::fb",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:20::1",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::1",
    "5f00::1",
    "fec0::1",
    "fd00:ec2::254",
    "fd20:ce::254",
]
LOCAL = [
    "127.0.0.1",
    "127.255.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.5",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.7.7",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "198.18.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "2001:db8::1",
    "3fff::1",
]
GLOBAL = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2606:4700::1", "2a00::1", "2001:4860::8888"]

SOURCES: tuple[Source, ...] = ("mdns", "person", "gossip")

ips = st.one_of(
    st.ip_addresses(),
    st.sampled_from(NEVER + LOCAL + GLOBAL).map(ip_address),
    # Near the edges of every range that has a meaning.
    st.sampled_from(NEVER + LOCAL).flatmap(
        lambda text: st.integers(-300, 300).map(lambda by: _moved(text, by))
    ),
)
ports = st.one_of(st.just(443), st.integers(1024, 65535))
valid = st.one_of(
    st.builds(addresses.at, ips.filter(lambda ip: ip.version == 4 or not ip.ipv4_mapped), ports),
    st.builds(addresses.through, st.binary(min_size=32, max_size=32)),
)


def _moved(text: str, by: int) -> IPv4Address | IPv6Address:
    ip = ip_address(text)
    return type(ip)(min(max(int(ip) + by, 0), 2 ** (32 if ip.version == 4 else 128) - 1))


def at(ip: str) -> addresses.Address:
    return addresses.at(ip_address(ip), 7741)


@given(valid)
@settings(deadline=None)
def test_every_address_comes_back_from_its_text(address: addresses.Address) -> None:
    text = addresses.format(address)
    assert parse(text) == address
    assert len(text) <= addresses.MAX_TEXT


@given(
    st.one_of(
        st.text(max_size=150),
        st.from_regex(r"(ws|relay|wss)://?\[?[0-9a-fA-F:.%]{0,45}\]?:[0-9]{0,6}", fullmatch=True),
        valid.map(addresses.format).flatmap(
            lambda text: st.tuples(st.integers(0, len(text)), st.characters()).map(
                lambda edit: text[: edit[0]] + edit[1] + text[edit[0] :]
            )
        ),
    )
)
@example("ws://[::ffff:10.0.0.1]:7741")
@example("ws://127.0.0.1:7741\n")
@example("ws://१२७.0.0.1:7741")
@settings(deadline=None, max_examples=200)
def test_a_text_is_the_one_text_of_an_address_or_refused(text: str) -> None:
    try:
        address = parse(text)
    except NetError as error:
        assert error.code == "bad_address"
        assert error.message.isascii() and error.remedy.isascii()
    else:
        assert addresses.format(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "ws://127.1:7741",
        "ws://2130706433:7741",
        "ws://0x7f.0.0.1:7741",
        "ws://010.0.0.1:7741",
        "ws://8.8.8.8",
        "ws://8.8.8.8:0443",
        "ws://8.8.8.8:7741/",
        "ws://8.8.8.8:7741/infraxa/1",
        "ws://user@8.8.8.8:7741",
        "wss://8.8.8.8:7741",
        "ws://localhost:7741",
        "ws://2606::1:7741",
        "ws://[2606::1%eth0]:7741",
        "ws://[fe80::1%25eth0]:7741",
        "ws://[2606:0::1]:7741",
        "ws://[::ffff:8.8.8.8]:7741",
        "ws://[::ffff:808:808]:7741",
        "ws://[8.8.8.8]:7741",
        "relay:" + "0" * 51,
        "relay:" + "0" * 51 + "1",
        "relay:" + "O" * 52,
        "",
    ],
)
def test_other_ways_to_write_an_address_are_refused(text: str) -> None:
    with pytest.raises(NetError):
        parse(text)


@pytest.mark.parametrize("port", [0, 22, 25, 80, 442, 1023, 65536])
def test_a_port_where_other_services_are_is_refused(port: int) -> None:
    with pytest.raises(NetError, match="port"):
        parse(f"ws://8.8.8.8:{port}") if port else addresses.at(ip_address("8.8.8.8"), port)


def test_an_address_written_in_another_way_is_told_how() -> None:
    with pytest.raises(NetError) as caught:
        parse("ws://[2606:0:0::1]:7741")
    assert caught.value.remedy == "write ws://[2606::1]:7741"
    with pytest.raises(NetError) as caught:
        parse("ws://[2A00::1]:7741")
    assert caught.value.remedy == "write ws://[2a00::1]:7741"


@pytest.mark.parametrize("ip", NEVER)
def test_nobody_is_sent_there(ip: str) -> None:
    address = at(ip)
    everything = addresses.own_prefixes([("10.0.0.1", 8), ("fd00::1", 48)])
    assert not any(may_dial(address, source, everything) for source in SOURCES)
    assert not may_announce(address)
    assert not may_announce(address, local=True)


@pytest.mark.parametrize("ip", LOCAL)
def test_a_local_address_is_dialled_when_the_lan_or_a_person_names_it(ip: str) -> None:
    address = at(ip)
    assert may_dial(address, "mdns")
    assert may_dial(address, "person")
    assert not may_dial(address, "gossip")
    assert not may_announce(address)


@pytest.mark.parametrize("ip", GLOBAL)
def test_a_global_address_is_dialled_whoever_names_it(ip: str) -> None:
    address = at(ip)
    assert all(may_dial(address, source) for source in SOURCES)
    assert may_announce(address)
    assert not addresses.is_local(ip_address(ip))


def test_gossip_leads_into_an_own_prefix_only() -> None:
    own = addresses.own_prefixes([("192.168.7.20", 24), ("fd12::5", 64)])
    assert may_dial(at("192.168.7.1"), "gossip", own)
    assert may_dial(at("fd12::99"), "gossip", own)
    assert not may_dial(at("192.168.8.1"), "gossip", own)
    assert not may_dial(at("fd12:0:0:1::1"), "gossip", own)
    assert may_announce(at("192.168.7.1"), local=True)


@pytest.mark.parametrize(
    "card", [("127.0.0.1", 8), ("169.254.1.1", 16), ("::1", 128), ("fe80::1%eth0", 64), ("8.8.8.1", 24)]
)
def test_loopback_link_local_and_global_networks_are_no_own_prefix(card: tuple[str, int]) -> None:
    assert addresses.own_prefixes([card]) == ()
    assert not may_announce(at("127.0.0.1"), local=True)


def test_a_prefix_that_holds_half_the_world_is_no_own_prefix() -> None:
    assert addresses.own_prefixes([("10.0.0.1", 0), ("10.0.0.1", 4), ("fd00::1", 7)]) == ()


@given(ips, st.lists(st.tuples(ips.map(str), st.integers(0, 32)), max_size=4))
@settings(deadline=None, max_examples=300)
def test_no_gossip_leads_to_this_machine_or_its_link(
    ip: IPv4Address | IPv6Address, cards: list[tuple[str, int]]
) -> None:
    assume(ip.version == 4 or not ip.ipv4_mapped)
    if may_dial(addresses.at(ip, 7741), "gossip", addresses.own_prefixes(cards)):
        assert not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
        assert not ip.is_reserved or ip in IPv6Network("2000::/3")
    if may_dial(addresses.at(ip, 7741), "gossip"):
        # Python's own opinion, of whatever version, is never stricter.
        assert ip.is_global


def test_a_link_local_ipv6_address_is_of_no_use_without_its_zone() -> None:
    assert not any(may_dial(at("fe80::1"), source) for source in SOURCES)


def test_a_relay_may_be_told_and_dialled() -> None:
    relay = addresses.through(bytes(range(32)))
    assert addresses.format(relay).startswith("relay:")
    assert may_announce(relay)
    assert may_dial(relay, "gossip")
    with pytest.raises(NetError):
        addresses.through(b"short")


@pytest.mark.parametrize(
    ("ip", "narrow", "wide"),
    [
        ("8.8.4.4", "8.8.4.0/24", "8.8.0.0/16"),
        ("::ffff:8.8.4.4", "8.8.4.0/24", "8.8.0.0/16"),
        ("2606:4700:1:2ff::1", "2606:4700:1:200::/56", "2606:4700::/32"),
        # One owner of an IPv4 address has 2^80 of these.
        ("2002:808:404::1", "8.8.4.0/24", "8.8.0.0/16"),
        ("64:ff9b::808:404", "8.8.4.0/24", "8.8.0.0/16"),
        ("2001:0:102:304::f7f7:fbfb", "8.8.4.0/24", "8.8.0.0/16"),
        ("192.168.1.1", "local", "local"),
        ("::ffff:192.168.1.1", "local", "local"),
        ("fe80::1%eth0", "local", "local"),
        ("::1", "local", "local"),
        ("relay", "relay", "relay"),
    ],
)
def test_groups(ip: str, narrow: str, wide: str) -> None:
    assert addresses.group(ip) == narrow
    assert addresses.wide_group(ip) == wide


@given(st.ip_addresses())
@settings(deadline=None)
def test_every_address_is_in_a_group(ip: IPv4Address | IPv6Address) -> None:
    assert addresses.group(str(ip))
    assert addresses.is_local(ip) <= (addresses.group(str(ip)) == "local")
