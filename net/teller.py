"""Tells of changes, many of them at once: a busy network makes hundreds a second, a screen needs five."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from infraxa.net.status import NetworkStatus

TOGETHER_S: Final = 0.2
"""Changes within this are told together."""


class Teller:
    """Calls back on the event loop, at most once in TOGETHER_S each; a status only when it is another one."""

    def __init__(
        self,
        on_status: Callable[[NetworkStatus], None],
        on_nodes: Callable[[], None],
        on_peers: Callable[[], None],
        status: Callable[[], NetworkStatus],
    ) -> None:
        self._on_status = on_status
        self._on_nodes = on_nodes
        self._on_peers = on_peers
        self._status = status
        self._told: NetworkStatus | None = None
        self._nodes = self._peers = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def status_changed(self) -> None:
        """Something that the status shows may be another one."""
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_S, self.tell)

    def nodes_changed(self) -> None:
        self._nodes = True
        self.status_changed()

    def peers_changed(self) -> None:
        self._peers = True
        self.status_changed()

    def tell(self) -> None:
        """Tell now what is waiting to be told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        status = self._status()
        if status != self._told:
            self._told = status
            self._on_status(status)
        nodes, peers, self._nodes, self._peers = self._nodes, self._peers, False, False
        if nodes:
            self._on_nodes()
        if peers:
            self._on_peers()

    def close(self) -> None:
        """Tell once more, and nothing after that."""
        self.tell()
        self._closed = True
