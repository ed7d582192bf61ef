"""What a node sees of the network, as checks of `infraxa doctor`.

Asked of the infraxa that is open; where none is, this joins the network itself for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import msgspec

from infraxa.app import self_test_words
from infraxa.app.commands.checkup import Finding
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, NetworkChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.serving import SelfTest
from infraxa.net import addresses
from infraxa.net.clock import BLOCK_MS
from infraxa.net.invites import PUBLIC
from infraxa.net.status import NetworkStatus, Notice
from infraxa.net.threads import in_daemon_thread

SETTLED_S = 8.0
"""Seconds after which the checks take what the network knows by then."""
LONELY_S = 3.0
"""Seconds without another node after which there probably is none."""
SAID_ELSEWHERE = frozenset({"port_taken", "unreachable", "clock", "clock_refused", "no_mdns", "key_exposed"})
"""Notices that have a check of their own."""


class Seen:
    """What a node of this folder sees of the network."""

    def __init__(self, folders: Folders, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
        self._folders = folders
        self._settings = settings
        self._stack = stack
        self._own = False
        """The node was opened for these checks."""
        self._node: NodeFacade | None = None

    @property
    def running(self) -> bool:
        return self._node is not None and self._status.activity in ("alone", "online", "blocked")

    @property
    def _status(self) -> NetworkStatus:
        return self._opened.network

    @property
    def _opened(self) -> NodeFacade:
        assert self._node is not None
        return self._node

    def _notice(self, *codes: str) -> Notice | None:
        return next((notice for notice in self._status.notices if notice.code in codes), None)

    async def join(self, folders: Folders) -> Finding:
        """Attach to the infraxa that is open, or open a node; then wait for what takes a moment to know."""
        began = time.monotonic()
        self._own = not is_open(self._folders)
        if self._own:
            folders = self._own_folders()
        node = await self._stack.enter_async_context(opened_node(folders, self._settings))
        await _settle(node, began + SETTLED_S, own=self._own)
        status = node.network
        if not status.listening and status.activity not in ("alone", "online"):
            if not status.notices:
                return Finding("fail", f"The network of this node is {status.activity}.", "Try again.")
            notice = status.notices[0]
            return Finding("fail", notice.message, notice.remedy)
        self._node = node
        which = "the public network" if status.network == PUBLIC else "a network with a name of its own"
        found = f"This node is part of {which}"
        if self._own:
            found += f"; no infraxa is open, so it was joined for {time.monotonic() - began:.0f} s"
        others = [notice for notice in status.notices if notice.code not in SAID_ELSEWHERE]
        if others:
            return Finding("warn", f"{found}. {others[0].message}", others[0].remedy)
        return Finding("ok", f"{found}.")

    def _own_folders(self) -> Folders:
        """Where nothing was kept yet, nothing is kept by a look."""
        from infraxa.net.keyfile import IDENTITY_NAME

        if (self._folders.data / IDENTITY_NAME).exists():
            return self._folders
        data = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="infraxa-")))
        return msgspec.structs.replace(self._folders, data=data)

    async def port(self, folders: Folders) -> Finding:
        wished = self._opened.settings.listen_port
        if (notice := self._notice("port_taken")) is not None:
            holder = await in_daemon_thread(lambda: _holder(wished))
            return Finding("warn", f"{notice.message}{f' It is {holder}.' if holder else ''}", notice.remedy)
        ports = sorted({addresses.parse(text).port for text in self._status.listening})
        if not ports:
            return Finding("warn", "It listens, but this machine has no address that others could dial.")
        which = f"TCP port {ports[0]}"
        if not self._own:
            return Finding("ok", f"The infraxa that is open listens on {which}.")
        return Finding("ok", f"{which} is free: it was listened on for this check.")

    async def reachable(self, folders: Folders) -> Finding:
        status = self._status
        if status.reachability == "unreachable":
            notice = self._notice("unreachable")
            return Finding("warn", status.reachability_reason, notice.remedy if notice is not None else "")
        known = "Not known. " if status.reachability == "unknown" else ""
        return Finding("ok", f"{known}{status.reachability_reason}")

    async def clock(self, folders: Folders) -> Finding:
        skew_ms = self._status.clock_skew_ms
        if (notice := self._notice("clock", "clock_refused")) is not None:
            cut_off = notice.code == "clock_refused" or abs(skew_ms or 0) > BLOCK_MS
            return Finding("fail" if cut_off else "warn", notice.message, notice.remedy)
        if skew_ms is None:
            return Finding("ok", "Not known: no other node is linked that could be asked.")
        return Finding("ok", f"{abs(skew_ms) / 1000:.1f} s from the clocks of the peers.")

    async def local_network(self, folders: Folders) -> Finding:
        status = self._status
        if status.mdns == "failed":
            notice = self._notice("no_mdns") or Notice("no_mdns", "mDNS does not start.", "Try again.")
            return Finding("warn", notice.message, notice.remedy)
        if status.mdns == "heard":
            return Finding("ok", "Other nodes were heard by mDNS.")
        if status.mdns_echo:
            return Finding("ok", "Multicast works: this node heard itself; no other node was heard by mDNS.")
        if not self._opened.settings.announce:
            return Finding(
                "ok", "No other node was heard; with announce = false this one is not heard either."
            )
        return Finding(
            "warn",
            "Nothing was heard by mDNS so far, not even this node itself.",
            "Allow UDP port 5353 in the firewall, or connect with infraxa invite and infraxa join.",
        )

    async def peers(self, folders: Folders) -> Finding:
        peers = await self._opened.list_peers()
        known = self._status.known
        if not peers:
            return Finding(
                "warn",
                f"No other node is linked. Nodes known: {known}.",
                "Nodes on one LAN find each other by themselves; for others: infraxa invite, infraxa join.",
            )
        near = sum(addresses.group(peer.address) == addresses.LOCAL for peer in peers)
        relayed = sum(peer.address.startswith("relay:") for peer in peers)
        kinds = {"near this machine": near, "through a relay": relayed}
        kinds["elsewhere"] = len(peers) - near - relayed
        came = sum(peer.direction == "in" for peer in peers)
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        links = f"{len(peers)} link{'s' * (len(peers) != 1)}"
        ways = f"{came} came in, {len(peers) - came} dialled from here"
        return Finding("ok", f"{links}: {shown}; {ways}. Nodes known: {known}.")

    async def tested(self, folders: Folders) -> Finding:
        """What the last self-test says."""
        if self._own:
            return Finding("ok", "Not tested: no infraxa is open, so nobody is served.")
        return _of_test(self._opened.provider.self_test)

    async def test(self, folders: Folders) -> Finding:
        """What one says that is made now."""
        if self._own:
            return Finding(
                "warn", "Not tested: no infraxa is open, so nobody is served.", "infraxa serve opens one."
            )
        try:
            return _of_test(await self._opened.self_test())
        except NodeError as error:
            return Finding("warn", error.message, error.remedy)


def _of_test(test: SelfTest) -> Finding:
    said = self_test_words.verdict(test, time.time_ns() // 1_000_000)
    match said.state:
        case "failed":
            return Finding("fail", said.text, said.remedy)
        case "doubt":
            return Finding("warn", said.text, said.remedy)
        case _:
            return Finding("ok", said.text, said.remedy)


async def _settle(node: NodeFacade, until: float, *, own: bool) -> None:
    """Until what takes a moment to know is known, at most until the monotonic time `until`."""
    began = time.monotonic()
    changed = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, NetworkChanged):
            changed.set()

    end = node.subscribe(hear)
    try:
        while (now := time.monotonic()) < until and not await _settled(node, now - began, own=own):
            changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(0.5, until - now)):
                    await changed.wait()
    finally:
        end()


async def _settled(node: NodeFacade, seconds: float, *, own: bool) -> bool:
    status = node.network
    if status.activity == "blocked":
        return True
    if status.activity not in ("alone", "online"):
        return False
    if not own:
        return True  # it has had its time
    heard = status.mdns in ("heard", "failed") or status.mdns_echo
    if not (heard or (seconds > LONELY_S and not node.settings.announce)):
        return False
    peers = await node.list_peers()
    outside = any(
        addresses.group(peer.address) != addresses.LOCAL and not peer.address.startswith("relay:")
        for peer in peers
    )
    return (bool(peers) or seconds > LONELY_S) and not (outside and status.reachability == "unknown")


def _holder(port: int) -> str:
    """Which program listens on a TCP port, as far as the system says it to this user; else nothing."""
    import psutil

    try:
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr[1:] == (port,) and found.pid:
                return f"{psutil.Process(found.pid).name()} (pid {found.pid})"
    except psutil.Error:
        return ""
    return ""
