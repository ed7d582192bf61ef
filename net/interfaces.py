"""Which network cards this machine has, and at which of their addresses others should look for this node.

`choose` decides, and is pure; `survey` reads the machine, without a packet and without being root; `Watch`
tells when that changes. What may be done with an address at all is in addresses.py.

Told, the best first: the cards of the default route; other cards; VPNs, since a tunnel like Tailscale's is
often the only way to a friend's node. Only when there is nothing better: a link-local address (two machines
and a cable), networks of containers and virtual machines, and last loopback, by which two nodes on a machine
without a network still find each other. While the default route itself is a VPN, no global address of another
card is told: whoever hides behind a VPN does not want it known.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from infraxa.net import addresses
from infraxa.net.addresses import Prefix
from infraxa.net.records import MAX_ADDRESSES
from infraxa.net.status import Interface
from infraxa.net.tasks import TaskGroup

MAX_CARDS: Final = 64
"""Cards that are looked at; a host of many containers has hundreds."""
CHECK_S: Final = 10.0
"""How often `Watch` looks: no event for this is portable, and looking costs less than a millisecond."""

Kind = Literal["default", "other", "vpn", "link_local", "virtual", "loopback", "internal", "down", "empty"]

# The names that Linux, macOS and Windows, and the usual programs on them, give to cards.
_VIRTUAL: Final = re.compile(
    r"docker|podman|br-[0-9a-f]{12}|cni|flannel|cali|cilium|weave|veth|vnet|virbr|lxcbr|lxdbr|incusbr|vmnet"
    r"|vboxnet|bridge[0-9]|br[0-9]+$|vethernet|vmware|virtualbox|hyper-v|waydroid|ifb|dummy",
    re.IGNORECASE,
)
_VPN: Final = re.compile(
    r"tun|tap|wg|utun|tailscale|zt|ppp|ipsec|nordlynx|proton|mullvad|nebula|openvpn|wireguard|wintun|zerotier",
    re.IGNORECASE,
)
_INTERNAL: Final = re.compile(
    r"awdl|llw|anpi|ap[0-9]|p2p-dev|sit[0-9]|ip6tnl|gif[0-9]|stf[0-9]", re.IGNORECASE
)

_REASONS: Final[dict[Kind, str]] = {
    "default": "the default route",
    "other": "another card of this machine",
    "vpn": "a VPN",
    "link_local": "only link-local addresses: there is no router",
    "virtual": "a network of containers or virtual machines",
    "loopback": "loopback",
    "internal": "a card for the system's own use",
    "down": "down",
    "empty": "no address that another machine could use",
}
_LAST_RESORT: Final[tuple[Kind, ...]] = ("link_local", "virtual", "loopback")

# Flags of IPv6 addresses in /proc/net/if_inet6: linux/if_addr.h.
_TEMPORARY: Final = 0x01
_UNUSABLE: Final = 0x08 | 0x20 | 0x40  # a duplicate, deprecated, not yet checked


class CardAddress(Struct, frozen=True):
    """An address of a card. `temporary`: a privacy address of IPv6 (RFC 8981), which changes every day."""

    ip: str
    prefix: int
    temporary: bool = False


class NetworkCard(Struct, frozen=True):
    """A network card as the system lists it."""

    name: str
    up: bool
    addresses: tuple[CardAddress, ...]
    tunnel: bool = False
    """Leads from point to point, as VPNs do."""


class Survey(Struct, frozen=True):
    """The cards of this machine, judged."""

    interfaces: tuple[Interface, ...]
    """All of them, the chosen ones first, the best first."""
    hosts: tuple[str, ...]
    """The IP addresses to be told, at most MAX_ADDRESSES, the best first."""
    prefixes: tuple[Prefix, ...]
    """The private networks of the chosen cards; see addresses.may_dial."""


def listened(hosts: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Of a machine with these `hosts`, those of whoever listens at the `wanted` ones; `::` and `0.0.0.0`
    stand for all of their version."""
    every = {addresses.read_ip(text).version for text in wanted if addresses.read_ip(text).is_unspecified}
    named = [text for text in wanted if not addresses.read_ip(text).is_unspecified]
    return tuple(
        dict.fromkeys([*(text for text in hosts if addresses.read_ip(text).version in every), *named])
    )


def choose(cards: Iterable[NetworkCard], sources: Iterable[str]) -> Survey:
    """Which cards others are told of, and why. `sources`: the addresses from which the default routes of
    IPv4 and IPv6 send."""
    ways_out = {str(addresses.read_ip(text)) for text in sources}
    judged = [(_kind(card, ways_out), card) for card in cards]
    best: set[Kind] = {"default", "other", "vpn"}
    for last in ("link_local", "virtual", "loopback"):
        if not any(kind in best for kind, _ in judged):
            best = {last}
    hidden = any(kind == "default" and _is_vpn(card) for kind, card in judged)
    order = list(_REASONS)
    judged.sort(key=lambda entry: (entry[0] not in best, order.index(entry[0]), entry[1].name))

    hosts: list[str] = []
    interfaces: list[Interface] = []
    told: list[CardAddress] = []
    for kind, card in judged:
        reason = _reason(kind, card)
        if kind not in best:
            if kind in _LAST_RESORT:
                reason += ", told only when there is nothing else"
            shown = [address.ip for address in card.addresses]
        else:
            mine = _lasting(card, link_local=kind == "link_local")
            if hidden and not (kind == "default" and _is_vpn(card)):
                kept = [entry for entry in mine if addresses.is_local(addresses.read_ip(entry.ip))]
                if len(kept) < len(mine):
                    reason += ", but for global addresses while a VPN is the default route"
                mine = kept
            told += mine
            # Leave room for one of another card.
            shown = [address.ip for address in mine[: MAX_ADDRESSES - 1]]
            hosts += shown
        name = "".join(sign if sign.isprintable() else "?" for sign in card.name)
        interfaces.append(Interface(name, tuple(shown), kind in best and bool(shown), reason))
    prefixes = addresses.own_prefixes((address.ip, address.prefix) for address in told)
    return Survey(tuple(interfaces[:MAX_CARDS]), tuple(dict.fromkeys(hosts))[:MAX_ADDRESSES], prefixes)


def survey() -> Survey:
    """The cards of this machine as they are now."""
    return choose(_cards(), _sources())


class Watch:
    """Looks at the cards every CHECK_S, and calls `on_change` when others should be told of other addresses
    or a screen would show something else."""

    def __init__(self, on_change: Callable[[Survey], None], read: Callable[[], Survey] = survey) -> None:
        self._on_change = on_change
        self._read = read
        self._tasks = TaskGroup()
        self.survey = Survey((), (), ())

    def start(self) -> Survey:
        """The cards as they are; from now on `on_change` tells of others."""
        self.survey = self._read()
        self._tasks.spawn(self._watch(), name="net-interfaces")
        return self.survey

    def look(self) -> None:
        """Look now: the machine slept, or a link broke for no other reason."""
        try:
            seen = self._read()
        except OSError:  # a card went while it was read; the next look sees what is left
            return
        if seen != self.survey:
            self.survey = seen
            self._on_change(seen)

    async def close(self) -> None:
        await self._tasks.cancel_all()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            self.look()


def _kind(card: NetworkCard, ways_out: set[str]) -> Kind:
    ips = [addresses.read_ip(address.ip) for address in card.addresses]
    if not card.up:
        return "down"
    if any(ip.is_loopback for ip in ips):
        return "loopback"
    if _INTERNAL.match(card.name):
        return "internal"
    if not _lasting(card, link_local=True):
        return "empty"
    if any(str(ip) in ways_out for ip in ips):
        return "default"
    if _VIRTUAL.match(card.name):
        return "virtual"
    if all(ip.is_link_local for ip in ips):
        return "link_local"
    return "vpn" if _is_vpn(card) else "other"


def _is_vpn(card: NetworkCard) -> bool:
    return card.tunnel or _VPN.match(card.name) is not None


def _reason(kind: Kind, card: NetworkCard) -> str:
    reason = _REASONS[kind]
    return f"{reason}, through a VPN" if kind == "default" and _is_vpn(card) else reason


def _lasting(card: NetworkCard, *, link_local: bool) -> list[CardAddress]:
    """The addresses at which a card will still be tomorrow: IPv4 first, then one of each IPv6 prefix, a
    privacy address only where there is no other. Link-local IPv6 is none: nobody can write down its zone."""
    kept: dict[Prefix | str, CardAddress] = {}
    for address in sorted(card.addresses, key=lambda entry: (":" in entry.ip, entry.temporary)):
        ip = addresses.read_ip(address.ip)
        if addresses.place(ip) == "never" or (ip.is_link_local and (ip.version == 6 or not link_local)):
            continue
        key = address.ip if ip.version == 4 else ip_network((ip, 64), strict=False)
        kept.setdefault(key, address)
    return list(kept.values())


def _cards() -> list[NetworkCard]:
    import psutil

    flags = _ipv6_flags()
    states = psutil.net_if_stats()
    cards = []
    for name, entries in psutil.net_if_addrs().items():
        state = states.get(name)
        found = []
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            known = flags.get(entry.address.partition("%")[0], 0)
            if not known & _UNUSABLE:
                prefix = _prefix_length(entry.netmask, 24 if entry.family == socket.AF_INET else 64)
                found.append(CardAddress(entry.address, prefix, bool(known & _TEMPORARY)))
        tunnel = state is not None and "pointopoint" in state.flags.split(",")
        cards.append(NetworkCard(name, state is not None and state.isup, tuple(found), tunnel))
    return cards


def _prefix_length(netmask: str | None, default: int) -> int:
    """How many bits of a mask are set; Windows gives none for IPv6."""
    if not netmask:
        return default
    try:
        return int.from_bytes(addresses.read_ip(netmask).packed).bit_count()
    except ValueError:
        return default


def _ipv6_flags() -> dict[str, int]:
    """What Linux says of each IPv6 address: columns address, index, prefix, scope, flags, name. No other
    system shows it without a call of its own."""
    if sys.platform != "linux":
        return {}
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:  # no IPv6
        return {}
    rows = [line.split() for line in lines]
    return {
        str(addresses.read_ip(":".join(re.findall("....", row[0])))): int(row[4], 16)
        for row in rows
        if len(row) == 6
    }


def _sources() -> list[str]:
    """From where the machine would send to the rest of the world. To connect a datagram socket looks up a
    route and sends nothing; the targets are of the prefixes for documentation, which nobody has."""
    found = []
    for family, target in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(probe.getsockname()[0])
        except OSError:  # no such route, or no such protocol
            continue
    return found
