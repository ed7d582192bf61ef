"""A port of the router, mapped to this node so that others outside reach it. Only by the person's consent.

Two ways of asking, the one that answers is kept: natpmp.py, then upnp.py. A mapping is renewed at half of its
lease, taken away when this is closed, and looked for anew when it is lost. What it is worth, others must say:
reach.py.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Protocol

from infraxa.net import addresses, upnp
from infraxa.net.errors import NetError
from infraxa.net.natpmp import Mapped, NatPmp
from infraxa.net.status import Notice
from infraxa.net.tasks import TaskGroup

LEASE_S: Final = 3600
MIN_RENEW_S: Final = 60.0
RETRY_S: Final = 600.0
CLOSE_S: Final = 3.0
TRIES: Final = 3
"""Ports outside that are tried when others have taken them."""

_log = logging.getLogger(__name__)


class Router(Protocol):
    """Something that maps ports."""

    @property
    def name(self) -> str: ...

    async def map(self, port: int, outside: int, lease_s: int) -> Mapped: ...

    async def unmap(self) -> None: ...


Find = Callable[[str], AsyncGenerator[Router, None]]
"""From this machine's IPv4 address to the routers that could be asked, the likeliest first."""


class PortMap:
    """Keeps one TCP port mapped, from `start` to `close`."""

    def __init__(
        self,
        port: int,
        *,
        on_change: Callable[[], None],
        rng: random.Random,
        find: Find | None = None,
    ) -> None:
        """`port`: at which this node listens. `on_change`: `address` or `notice` is another one."""
        self._port = port
        self._on_change = on_change
        self._rng = rng
        self._find = find or routers
        self._tasks = TaskGroup()
        self._router: Router | None = None
        self._outside = port
        self.address = ""
        """Where others outside may reach this node, as a card writes it; empty while nothing is mapped."""
        self.notice: Notice | None = None

    def start(self, host: str) -> None:
        """Map to `host`, this machine's IPv4 address on the network of the router; returns at once."""
        self._tasks.spawn(self._keep(host), name="net-portmap")

    async def close(self) -> None:
        """Take the mapping away. Takes CLOSE_S at most; may be called twice."""
        await self._tasks.cancel_all()
        await self._unmap()
        self._say("", None)

    async def _keep(self, host: str) -> None:
        while True:
            try:
                mapped = await self._map(host)
            except NetError as error:
                await self._unmap()
                remedy = f"Forward TCP port {self._port} in the router yourself, or rely on relays."
                self._say("", Notice("port_mapping", error.message, error.remedy or remedy))
                await asyncio.sleep(RETRY_S)
            else:
                self._say(addresses.format(addresses.at(mapped.ip, mapped.port)), None)
                await asyncio.sleep(min(max(MIN_RENEW_S, mapped.lease_s / 2), LEASE_S / 2))

    async def _map(self, host: str) -> Mapped:
        """Renew, or find a router and map. Raises NetError."""
        if self._router is not None:
            try:
                return await self._try(self._router)
            except NetError as error:
                _log.info("%s: renewing failed: %s", self._router.name, error)
                self._router = None
        failed = NetError("port_mapping", "No router here maps ports: none answers NAT-PMP or UPnP.")
        async with aclosing(self._find(host)) as found:
            async for router in found:
                try:
                    mapped = await self._try(router)
                except NetError as error:
                    _log.info("%s: %s", router.name, error)
                    failed = error
                else:
                    self._router = router
                    return mapped
        raise failed

    async def _try(self, router: Router) -> Mapped:
        outside = self._outside
        for left in reversed(range(TRIES)):
            try:
                mapped = await router.map(self._port, outside, LEASE_S)
                break
            except NetError as error:
                if error.code != "port_taken" or not left:
                    raise
                outside = self._rng.randrange(20_000, 60_000)
        self._outside = mapped.port
        try:
            address = addresses.at(mapped.ip, mapped.port)
        except NetError:
            address = None
        if address is None or not addresses.may_announce(address):
            await self._give_back(router)
            raise NetError(
                "port_mapping",
                "The router maps the port, but is itself behind another one: its address is not global.",
                "Ask the provider of the connection for an address of its own, or rely on relays.",
            )
        return mapped

    async def _unmap(self) -> None:
        router, self._router = self._router, None
        if router is not None:
            await self._give_back(router)

    async def _give_back(self, router: Router) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await router.unmap()
        except (NetError, TimeoutError) as error:
            _log.info("%s: the mapping ends by itself: %r", router.name, error)

    def _say(self, address: str, notice: Notice | None) -> None:
        if (address, notice) != (self.address, self.notice):
            self.address, self.notice = address, notice
            self._on_change()


async def routers(host: str) -> AsyncGenerator[Router, None]:
    """The gateway of `host`, by NAT-PMP; then what answers a UPnP search."""
    gateway = default_gateway(host)
    if gateway:
        yield NatPmp(gateway)
    router = await upnp.find(host)
    if router is not None:
        yield router


def default_gateway(host: str, table: Path = Path("/proc/net/route")) -> str:
    """The IPv4 address of the router, or nothing. Linux tells it; elsewhere the first address of the /24 of
    `host` is taken for it, which it is in most homes; asking a machine that is none does no harm."""
    if sys.platform == "linux":
        try:
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
        except OSError:
            return ""
        # Columns: card, destination, gateway, flags, …; addresses as numbers of this machine's byte order.
        ways = [row[2] for row in rows if len(row) > 2 and int(row[1], 16) == 0 and int(row[2], 16) != 0]
        return str(IPv4Address(int(ways[0], 16).to_bytes(4, sys.byteorder))) if ways else ""
    return str(IPv4Network((host, 24), strict=False)[1])
