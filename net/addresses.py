"""Where a node may be: addresses as text, what kind of place an IP address is, which may be told and dialled.

An address that comes from a peer is a target that the peer chose. So everything here is a list of what is
allowed; what nobody has thought of is refused. Nothing here opens a socket or looks a name up: an address
holds numbers only.

Two texts, each address has exactly one of them: `ws://192.0.2.1:7741`, `ws://[2001:db8::1]:7741` (WebSocket,
path /infraxa/1 implied) and `relay:<id in base32>` (the node that hands frames on).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final, Literal

from msgspec import Struct

from infraxa.net.errors import NetError
from infraxa.net.identity import base32, from_base32

DEFAULT_PORT: Final = 7741
MAX_TEXT: Final = 128
"""Characters of an address; the same as of records.Address."""
LOCAL: Final = "local"
"""The group of all addresses that are not routed globally."""

Ip = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Source = Literal["mdns", "person", "gossip"]
"""Who told of an address: the LAN, a person (typed, invited or bootstrap), or any peer."""
Place = Literal["global", "local", "never"]

# IANA's special-purpose registries (RFC 6890 and its updates). Spelled out, since what `ipaddress` counts as
# private or global differs between versions of Python.
_LOCAL4: Final = tuple(
    IPv4Network(text)
    for text in (
        "127.0.0.0/8",  # loopback
        "10.0.0.0/8",  # private
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # behind a carrier's NAT; overlay VPNs
        "169.254.0.0/16",  # link-local
        "192.0.2.0/24",  # documentation: never routed, met in laboratories
        "198.51.100.0/24",
        "203.0.113.0/24",
        "198.18.0.0/15",  # benchmarks
    )
)
_NEVER4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # unspecified, "this network": Linux connects 0.0.0.0 to loopback
        "192.0.0.0/24",  # protocol assignments, among them the metadata service 192.0.0.192
        "192.88.99.0/24",  # relays of 6to4, abandoned
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "169.254.169.0/24",  # metadata services of clouds, that give out a machine's credentials
        "169.254.170.0/24",
        "100.100.100.200/32",
        "168.63.129.16/32",
    )
)
_LOCAL6: Final = tuple(
    IPv6Network(text)
    for text in (
        "::1/128",
        "fc00::/7",  # unique local
        "2001:db8::/32",  # documentation
        "3fff::/20",
    )
)
_LINK_LOCAL6: Final = IPv6Network("fe80::/10")
_NEVER6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, among them Teredo, which holds somebody's IPv4 address
        "2002::/16",  # 6to4, likewise
        "fd00:ec2::/32",  # metadata services
        "fd20:ce::254/128",
        "fd00:c1::a9fe:a9fe/128",
    )
)
_GLOBAL6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")

_WS: Final = re.compile(r"ws://(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15})):([1-9][0-9]{0,4})", re.ASCII)
_RELAY: Final = re.compile(r"relay:([0-9a-hjkmnp-tv-z]{52})", re.ASCII)


class Address(Struct, frozen=True):
    """A place to dial. Made by `parse`, `at` or `through`, which check it."""

    scheme: Literal["ws", "relay"]
    ip: Ip | None = None
    """Of `ws`."""
    port: int = 0
    relay: bytes = b""
    """Of `relay`: the id of the node that hands frames on, 32 bytes."""

    @property
    def host(self) -> str:
        """The IP address as text, without brackets; empty for a relay."""
        return "" if self.ip is None else str(self.ip)

    def __str__(self) -> str:
        return format(self)


def parse(text: str) -> Address:
    """The one address that is written so: `format(parse(text)) == text`.

    Raises NetError `bad_address`, whose sentence holds nothing of `text`; so it may come from a peer.
    """
    if len(text) <= MAX_TEXT:
        if found := _WS.fullmatch(text):
            six, four, port = found.groups()
            try:
                ip: Ip = IPv6Address(six) if six else IPv4Address(four)
            except AddressValueError:
                raise _bad("this is not an IP address") from None
            address = at(ip, int(port))
            if format(address) != text:
                raise _bad("an IPv6 address has one way of being written", f"write {format(address)}")
            return address
        if found := _RELAY.fullmatch(text):
            try:
                return through(from_base32(found[1]))
            except ValueError:
                pass
    raise _bad("this is not an address of a node")


def format(address: Address) -> str:  # noqa: A001 - the counterpart of parse, used as addresses.format
    """The text of an address; `parse(format(address)) == address`."""
    if address.ip is None:
        return f"relay:{base32(address.relay)}"
    host = f"[{address.ip}]" if address.ip.version == 6 else str(address.ip)
    return f"{address.scheme}://{host}:{address.port}"


def at(ip: Ip, port: int) -> Address:
    """The address of a listening socket. Raises NetError `bad_address`."""
    if port != 443 and not 1024 <= port <= 65535:
        raise _bad("a node listens at port 443 or at one from 1024 to 65535")
    if ip.version == 6 and (ip.scope_id or ip.ipv4_mapped):
        raise _bad("an address with a zone, or of IPv4 in IPv6, means something on one machine only")
    return Address("ws", ip, port)


def through(relay: bytes) -> Address:
    """The address of a node that the node `relay` hands frames on to. Raises NetError `bad_address`."""
    if len(relay) != 32:
        raise _bad("a relay is named by an id of 32 bytes")
    return Address("relay", relay=relay)


def read_ip(text: str) -> Ip:
    """An IP address as a socket writes it: zones are dropped, IPv4 in IPv6 (`::ffff:…`) is IPv4.
    Raises ValueError."""
    ip = ip_address(text.partition("%")[0])
    return ip.ipv4_mapped or ip if ip.version == 6 else ip


def place(ip: Ip) -> Place:
    """Where an address leads: to anybody (`global`), to a machine near this one (`local`), or to nothing that
    a node should ever touch (`never`)."""
    if ip.version == 4:
        if _within(ip, _NEVER4):
            return "never"
        return "local" if _within(ip, _LOCAL4) else "global"
    if _within(ip, _NEVER6):
        return "never"
    if ip in _LINK_LOCAL6 or _within(ip, _LOCAL6):
        return "local"
    return "global" if ip in _GLOBAL6 else "never"


def is_local(ip: Ip) -> bool:
    """Not routed globally: loopback, private, carrier's NAT, ULA, link-local, documentation. One class."""
    return place(ip) == "local"


def group(ip_text: str) -> str:
    """Who probably shares one owner with the sender at `ip_text`: a /24 or a /56, `local` for all that is not
    routed globally, any other text (`relay`) for itself. For limits on what comes in."""
    return _group(ip_text, 24, 56)


def wide_group(ip_text: str) -> str:
    """As `group`, by /16 and /32: for whom to dial, so that no one network is all the peers of a node."""
    return _group(ip_text, 16, 32)


def may_announce(address: Address, *, local: bool = False) -> bool:
    """Whether an address may stand in a card. `local`: in a network joined by invite, where nodes may share
    a private network, its addresses may too."""
    if address.ip is None:
        return True
    where = place(address.ip)
    return where == "global" or (local and where == "local" and _has_prefix(address.ip))


def may_dial(address: Address, source: Source, own_prefixes: Iterable[Prefix] = ()) -> bool:
    """Whether an address that `source` told of may be dialled.

    `own_prefixes`: of `own_prefixes()`, in a network joined by invite; none in any other, where gossip must
    not lead into a private network.
    """
    if address.ip is None:
        return True
    where = place(address.ip)
    if where != "local" or source == "gossip":
        return where == "global" or (where == "local" and _within(address.ip, own_prefixes))
    # Without a zone, which an address cannot have, nobody knows on which card a link-local IPv6 address is.
    return address.ip.version == 4 or address.ip not in _LINK_LOCAL6


def own_prefixes(addresses: Iterable[tuple[str, int]]) -> tuple[Prefix, ...]:
    """The private networks in which this machine is, of (IP address, length of its prefix): no loopback, no
    link-local, no prefix so short that it holds networks of others."""
    found: dict[Prefix, None] = {}
    for text, length in addresses:
        ip = read_ip(text)
        if is_local(ip) and _has_prefix(ip) and length >= (8 if ip.version == 4 else 48):
            found[ip_interface((ip, length)).network] = None
    return tuple(found)


def _has_prefix(ip: Ip) -> bool:
    return not (ip.is_loopback or ip.is_link_local)


def _within(ip: Ip, networks: Iterable[Prefix]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _group(text: str, four: int, six: int) -> str:
    try:
        ip = read_ip(text)
    except ValueError:
        return text
    if ip.version == 6:
        # Whoever has one IPv4 address has all of these; as in Bitcoin's groups.
        ip = (
            ip.sixtofour
            or (ip.teredo and ip.teredo[1])
            or (IPv4Address(ip.packed[12:]) if ip in _NAT64 else ip)
        )
    if is_local(ip):
        return LOCAL
    return str(ip_network((ip, four if ip.version == 4 else six), strict=False))


def _bad(message: str, remedy: str = "") -> NetError:
    return NetError(
        "bad_address",
        message[0].upper() + message[1:] + ".",
        remedy or "write it as ws://192.0.2.1:7741 or ws://[2001:db8::1]:7741",
    )
