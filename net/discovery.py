"""Nodes on the local network, found by mDNS and DNS-SD (RFC 6762, 6763) with python-zeroconf.

A node announces `<id>._infraxa._tcp.local.` with its port, its addresses, and in TXT the protocol's version
(`v`) and the first 8 bytes of its network's id (`n`). Anybody on the wire can say anything there, so all that
comes of it is (id, addresses): where to try, never whom to trust. The handshake proves the rest.

Finding nodes is a comfort: nothing here raises, what does not work is a notice, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from infraxa.net import addresses
from infraxa.net.addresses import Ip
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.identity import base32, from_base32
from infraxa.net.records import MAJOR, MAX_ADDRESSES
from infraxa.net.status import Notice
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE: Final = "_infraxa._tcp.local."
MAX_FOUND: Final = 256
"""Nodes that are remembered; a newer one takes the place of the oldest, so that a flood hides nobody."""
MAX_TXT: Final = 256
"""Bytes of a TXT record; ours has 23."""
MAX_IPS: Final = 16
"""IP addresses of one service that are looked at."""
MAX_ASKING: Final = 8
"""Services at a time whose missing records are asked for."""
START_S: Final = 2.0
CLOSE_S: Final = 2.0
ASK_MS: Final = 1500
ECHO_S: Final = 3.0
"""Our own announcement must have come back by then, or multicast does not work."""
RETRY_S: Final = 30.0

OnFound = Callable[[bytes, tuple[str, ...]], None]
OnLost = Callable[[bytes], None]

_log = logging.getLogger(__name__)


def read_label(label: str) -> bytes:
    """The id that the name of a service claims. Raises ProtocolError. Pure."""
    try:
        node = from_base32(label)
    except ValueError:
        node = b""
    if len(node) != 32 or base32(node) != label:
        raise ProtocolError("malformed", "the name of a service")
    return node


def read_places(
    port: int | None,
    text: Mapping[bytes, bytes | None],
    ips: Iterable[Ip],
    network: bytes,
    *,
    loopback: bool,
) -> tuple[str, ...]:
    """The addresses that an announced service claims; none when it is of another network or of another
    version of the protocol. `loopback`: this machine has no other address, so a neighbour may be there; else
    somebody on the wire would have this node knock at its own machine's doors. Raises ProtocolError. Pure."""
    if text.get(b"v") != str(MAJOR).encode() or text.get(b"n") != network[:8].hex().encode():
        return ()
    found: dict[str, None] = {}
    for ip, _ in zip(ips, range(MAX_IPS), strict=False):
        plain = addresses.read_ip(str(ip))
        try:
            address = addresses.at(plain, port or 0)
        except NetError:
            continue
        if addresses.may_dial(address, "mdns") and (loopback or not plain.is_loopback):
            found[addresses.format(address)] = None
    if not found:
        raise ProtocolError("address", "a service without an address that may be dialled")
    return tuple(found)[:MAX_ADDRESSES]


class Lan:
    """Announces this node on the local network and listens for others, in the running event loop."""

    def __init__(
        self,
        node: bytes,
        network: bytes,
        port: int,
        *,
        on_found: OnFound,
        on_lost: OnLost,
        on_change: Callable[[], None] = lambda: None,
        on_refused: Callable[[Refusal], None] = lambda reason: None,
        announce: bool = True,
    ) -> None:
        """`network`: its id, 32 bytes. `on_found` is called again when a node's addresses change; `on_lost`
        is a hint, which anybody can forge; `on_change`: `state` or `notice` is another one."""
        self._label = base32(node)
        self._network = network
        self._port = port
        self._on_found = on_found
        self._on_lost = on_lost
        self._on_change = on_change
        self._on_refused = on_refused
        self._announce = announce
        self._hosts: tuple[str, ...] | None = None
        self._found: dict[bytes, tuple[str, ...]] = {}
        self._asking: set[bytes] = set()
        self._echoed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = TaskGroup()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announced: Awaitable[Any] | None = None
        self.state: Literal["off", "searching", "heard", "failed"] = "off"
        self.notice: Notice | None = None
        """Why nobody can be found, and what to do about it."""

    @property
    def echoed(self) -> bool:
        """This node's own announcement came back: multicast works on this machine."""
        return self._echoed.is_set()

    async def start(self, hosts: tuple[str, ...]) -> None:
        """Announce this node at `hosts` (IP addresses of its cards) and look for others. Takes START_S at
        most; what fails is said by `notice` and tried again every RETRY_S, until `close`."""
        self._tasks.spawn(self._attend(), name="net-lan")
        await self.update(hosts)

    async def update(self, hosts: tuple[str, ...]) -> None:
        """The machine's addresses are now `hosts`. Takes START_S + CLOSE_S at most."""
        async with self._turn:
            if hosts != self._hosts:
                self._hosts = hosts
                await self._open(hosts)

    async def close(self) -> None:
        """Say goodbye and stop. Takes CLOSE_S at most; may be called twice."""
        await self._tasks.cancel_all()
        async with self._turn:
            self._hosts = None
            await self._stop()
        self._say("off", None)

    async def _open(self, hosts: tuple[str, ...]) -> None:
        await self._stop()
        if not hosts:
            self._fail("this machine has no network card in use", "connect it to a network")
            return
        try:
            async with asyncio.timeout(START_S):
                try:
                    await self._open_on(hosts)
                except (OSError, RuntimeError):
                    # One card without multicast, such as a tunnel, is an error for all of them.
                    await self._stop()
                    await self._open_on(hosts[:1])
        except TimeoutError:
            await self._stop()
            self._fail("it took too long to start", "infraxa tries again by itself")
        except (OSError, RuntimeError, ImportError) as error:
            _log.info("mDNS does not start: %r", error)
            await self._stop()
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                self._fail(
                    "another program keeps UDP port 5353 for itself",
                    "let it share the port (avahi: disallow-other-stacks=no)",
                )
            else:
                self._fail("no network card takes part in multicast", "enable multicast on it")

    async def _open_on(self, hosts: tuple[str, ...]) -> None:
        # 0.1 s of CPU, which nobody needs who only asks for help.
        await asyncio.to_thread(importlib.import_module, "zeroconf.asyncio")
        from zeroconf import DNSQuestionType
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

        # Its log quotes what others on the network send.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        self._zeroconf = AsyncZeroconf(interfaces=list(hosts))
        await self._zeroconf.zeroconf.async_wait_for_start()
        if not self._zeroconf.zeroconf.engine.senders:
            raise OSError("no card takes part in multicast")
        self._say("searching", None)  # before the first answer can come
        # Multicast questions: of several mDNS programs on one machine only one would get a unicast answer.
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE, handlers=[self._heard], question_type=DNSQuestionType.QM
        )
        if self._announce:
            info = AsyncServiceInfo(
                SERVICE,
                f"{self._label}.{SERVICE}",
                port=self._port,
                properties={"v": str(MAJOR), "n": self._network[:8].hex()},
                server=f"{self._label}.local.",
                parsed_addresses=list(hosts),
            )
            # An id is nobody else's, so there is no need to spend a second on asking whose the name is.
            self._announced = await self._zeroconf.async_register_service(info, cooperating_responders=True)

    async def _stop(self) -> None:
        browser, zeroconf, announced = self._browser, self._zeroconf, self._announced
        self._browser = self._zeroconf = self._announced = None
        for node in self._found:
            self._on_lost(node)
        self._found.clear()
        if isinstance(announced, asyncio.Future):
            announced.cancel()
            await asyncio.gather(announced, return_exceptions=True)
        if zeroconf is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                if browser is not None:
                    await browser.async_cancel()
                await zeroconf.async_close()
        except TimeoutError:
            zeroconf.zeroconf.close()

    def _fail(self, why: str, remedy: str) -> None:
        self._say(
            "failed",
            Notice(
                "no_mdns",
                f"Nodes on the local network are not found: {why}.",
                f"{remedy[0].upper()}{remedy[1:]}, or connect with `infraxa invite` and `infraxa join`.",
            ),
        )

    def _say(self, state: Literal["off", "searching", "heard", "failed"], notice: Notice | None) -> None:
        if (state, notice) != (self.state, self.notice):
            self.state, self.notice = state, notice
            self._on_change()

    async def _attend(self) -> None:
        """Notice that multicast goes nowhere, and try again what failed. Until then it goes on listening."""
        while True:
            await asyncio.sleep(ECHO_S)
            if self._announce and self.state == "searching":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._echoed.wait(), ECHO_S)
                if self.state == "searching" and not self._echoed.is_set():
                    self._fail(
                        "multicast does not get through, not even to this machine",
                        "allow UDP port 5353 in its firewall",
                    )
            if self.state == "failed":
                await asyncio.sleep(RETRY_S)
                async with self._turn:
                    if self.state == "failed" and self._hosts is not None:
                        await self._open(self._hosts)

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """A service came, changed or went: `name` is `<label>._infraxa._tcp.local.`, with a label of any
        bytes. (Zeroconf passes these by their names.)"""
        from zeroconf import ServiceStateChange
        from zeroconf.asyncio import AsyncServiceInfo

        label = name.removesuffix("." + SERVICE)
        if label == self._label:
            first = not self.echoed
            self._echoed.set()
            if self.state == "failed":
                self._say("searching", None)
            elif first:
                self._on_change()
            return
        try:
            # Before zeroconf reads the name, which it refuses by an exception of its own.
            node = read_label(label)
        except ProtocolError as error:
            self._on_refused(error.reason)
            return
        if state_change is ServiceStateChange.Removed:
            if self._found.pop(node, None):
                self._on_lost(node)
                if not self._found:
                    self._say("searching", None)
            return
        info = AsyncServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf):
            self._take(node, info)
        elif node not in self._asking and len(self._asking) < MAX_ASKING:
            self._asking.add(node)
            self._tasks.spawn(self._ask(zeroconf, node, info), name="net-lan-ask")

    async def _ask(self, zeroconf: Zeroconf, node: bytes, info: AsyncServiceInfo) -> None:
        try:
            if await info.async_request(zeroconf, ASK_MS) and not zeroconf.done:
                self._take(node, info)
        finally:
            self._asking.discard(node)

    def _take(self, node: bytes, info: AsyncServiceInfo) -> None:
        from zeroconf import IPVersion

        try:
            if len(info.text) > MAX_TXT:
                raise ProtocolError("too_large", "a TXT record")
            ips = info.ip_addresses_by_version(IPVersion.All)
            loopback = all(addresses.read_ip(host).is_loopback for host in self._hosts or ())
            texts = read_places(info.port, info.properties, ips, self._network, loopback=loopback)
        except ProtocolError as error:
            self._on_refused(error.reason)
            return
        if not texts or self._found.get(node) == texts:
            return
        self._found.pop(node, None)
        if len(self._found) >= MAX_FOUND:
            oldest = next(iter(self._found))
            del self._found[oldest]
            self._on_lost(oldest)
        self._found[node] = texts
        self._say("heard", None)
        self._on_found(node, texts)
