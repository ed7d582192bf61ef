"""Anybody on the wire may announce anything by mDNS: floods, ids that are none, addresses of victims."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from zeroconf import ServiceStateChange

from infraxa.net import book, discovery
from infraxa.net.addresses import Ip
from infraxa.net.book import MAX_NODES, AddressBook
from infraxa.net.discovery import SERVICE, Lan
from infraxa.net.identity import base32
from tests.attacks import report
from tests.attacks.target import replaced

NETWORK = os.urandom(32)
OURS = {b"v": b"1", b"n": NETWORK[:8].hex().encode()}
VICTIMS = (
    "127.0.0.1", "::1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.0",
    "fd00:ec2::254", "fe80::1",
)  # fmt: skip


class Hearing:
    """The listening half of a node on a local network, and the address book that it fills."""

    def __init__(self) -> None:
        self.book = AddressBook()
        self.refused: list[str] = []
        self.told = 0
        self.lan = Lan(
            os.urandom(32),
            NETWORK,
            7741,
            on_found=self._found,
            on_lost=lambda node: self.book.take_away(node, "mdns"),
            on_refused=self.refused.append,
        )
        self.lan._hosts = ("192.168.1.2",)

    def _found(self, node: bytes, where: tuple[str, ...]) -> None:
        self.told += 1
        self.book.put(node, where, "mdns")

    @property
    def places(self) -> list[str]:
        return [address for one in self.book.candidates() for address in one.addresses]

    def hear(
        self, node: bytes, *hosts: str, port: int = 7741, text: dict[bytes, bytes] = OURS, size: int = 23
    ) -> None:
        """A service whose records are all here."""
        ips: list[Ip] = [ip_address(host) for host in hosts or ("192.168.1.9",)]
        info: Any = SimpleNamespace(
            text=bytes(size), port=port, properties=text, ip_addresses_by_version=lambda version: ips
        )
        self.lan._take(node, info)

    def hear_name(self, label: str) -> None:
        wire: Any = None
        self.lan._heard(wire, SERVICE, f"{label}.{SERVICE}", ServiceStateChange.Removed)


def flooded(count: int) -> Hearing:
    one = Hearing()
    for number in range(count):
        one.hear(os.urandom(32), f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
    return one


def test_a_flood_of_services() -> None:
    count = report.scale(2000, 50_000)
    with replaced((discovery, "MAX_FOUND", 10**9), (book, "MAX_NODES", 10**9)):
        weak = flooded(count)
    assert len(weak.lan._found) == count == len(weak.places)
    ours = flooded(count)
    assert len(ours.lan._found) == discovery.MAX_FOUND
    assert len(ours.places) <= min(MAX_NODES, discovery.MAX_FOUND)
    real = os.urandom(32)
    ours.hear(real, "192.168.1.7")
    assert "ws://192.168.1.7:7741" in ours.places, "who comes after the flood is found"
    report.tell(
        f"mDNS: {count:,} services",
        weakened=f"{count:,} remembered",
        ours=f"{discovery.MAX_FOUND} remembered, the newest",
        cost=f"{discovery.MAX_FOUND} nodes",
    )


def wherever(told: Callable[..., tuple[str, ...]]) -> Callable[..., tuple[str, ...]]:
    def read(port: int, text: object, ips: list[Ip], network: bytes, *, loopback: bool) -> tuple[str, ...]:
        return tuple(f"ws://{f'[{ip}]' if ip.version == 6 else ip}:{port}" for ip in ips)

    return read


def test_addresses_of_victims() -> None:
    with replaced((discovery, "read_places", wherever(discovery.read_places))):
        weak = Hearing()
        for host in VICTIMS:
            weak.hear(os.urandom(32), host)
        weak.hear(os.urandom(32), port=22)
    assert len(weak.places) == len(VICTIMS) + 1
    ours = Hearing()
    for host in VICTIMS:
        ours.hear(os.urandom(32), host)
    for port in (0, 22, 25, 80):
        ours.hear(os.urandom(32), port=port)
    assert ours.places == [] and ours.refused == ["address"] * (len(VICTIMS) + 4)
    ours.hear(os.urandom(32), *(f"10.0.0.{number}" for number in range(1, 200)))
    assert len(ours.places) == 4, "of one service no more than a card may name"
    report.tell(
        f"mDNS: {len(VICTIMS)} addresses and a port of victims",
        weakened=f"{len(weak.places)} to be dialled",
        ours="0; address",
    )


def test_names_and_texts_that_are_none() -> None:
    ours = Hearing()
    for label in ("", "x", "\x1b[31m", base32(os.urandom(31)), base32(os.urandom(32)).upper(), "o" * 52):
        ours.hear_name(label)
    assert ours.refused == ["malformed"] * 6
    ours.hear(os.urandom(32), text={b"v": b"2"})
    ours.hear(os.urandom(32), text={**OURS, b"n": bytes(16)})
    ours.hear(os.urandom(32), size=5000)
    assert ours.places == [] and ours.refused[6:] == ["too_large"]


def test_goodbyes_for_others_are_hints() -> None:
    """They take an address away until the next announcement, and no link."""
    ours = Hearing()
    node = os.urandom(32)
    ours.hear(node)
    ours.hear_name(base32(node))
    assert ours.places == []
    ours.hear(node)
    assert ours.places == ["ws://192.168.1.9:7741"]
