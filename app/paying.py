"""What was bought is paid for, after the answer and never in its way.

One task for each driver, whenever there is something to settle and a way to it; what it does with each order
is in signing.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from infraxa.app.errors import NodeError
from infraxa.app.locked import Trading
from infraxa.app.signing import Signing
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.tasks import TaskGroup
from infraxa.store import buying, tabs, trade
from infraxa.store.db import Store
from infraxa.store.records import StoreError
from infraxa.store.trade_records import OrderRow

PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before each time that a driver is asked for what is not settled; then it is left for later."""
CONNECT_S: Final = 30.0
START_S: Final = 15.0
STARTS: Final = 8
"""What is open from the last run is tried every START_S so often, since the network comes later."""
LATER_S: Final = 600.0
"""Then, and for all that is left for later."""
UNCLAIMED_MS: Final = 7 * 24 * 3600 * 1000
"""A driver that is gone may claim what it did for so long."""

_log = logging.getLogger(__name__)


class Paying(Signing):
    """Of one node."""

    def __init__(
        self,
        network: Trading,
        told: Callable[[OrderRow], None],
        noted: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        """As Signing."""
        super().__init__(network, told, noted, clock)
        self._store: Store | None = None
        self._apart: set[bytes] = set()
        """Drivers whose book may be another one than this: they are told of it before anything else."""
        self._running: dict[bytes, asyncio.Event] = {}
        """By driver: set when there is more to settle."""
        self._settling: set[asyncio.Task[None]] = set()
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Take up what the last run left. Raises StoreError."""
        self._store = store
        await store.run(buying.release_unsent)
        self._tasks.spawn(self._keep(), name="settle what is open")

    async def close(self, seconds: float) -> None:
        """Give what is on its way so long, and end."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=seconds)
        await self._tasks.cancel_all()
        self._store = None

    def settle(self, provider: bytes) -> None:
        """There is something to settle with this driver, or a way to it."""
        if self._store is None:
            return
        if (more := self._running.get(provider)) is not None:
            more.set()
            return
        self._running[provider] = asyncio.Event()
        task = self._tasks.spawn(self._settle(self._store, provider), name="settle with a driver")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def settled(self, provider: bytes, seconds: float) -> bool:
        """Whether nothing is left to settle with this driver, after so long at most."""
        assert self._store is not None
        if not await self._open_orders(self._store, provider):
            self._apart.add(provider)  # it may want something signed that this side has lost
        self.settle(provider)
        pause = 0.02
        try:
            async with asyncio.timeout(seconds):
                while provider in self._running:
                    if not await self._left(self._store, provider):
                        return True
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.5)  # many orders may ask this at a time
        except TimeoutError:
            pass
        return not await self._left(self._store, provider)

    async def _keep(self) -> None:
        turn = 0
        while True:
            assert self._store is not None
            try:
                for tab in await self._store.run(tabs.list_tabs, "user"):
                    if tab.needs_sync:
                        self._apart.add(tab.peer)
                        self.settle(tab.peer)
                unsettled = await self._store.run(trade.unsettled, "user")
                released = set(await self._store.run(buying.release_unclaimed))
                for order in unsettled:
                    if order.id in released:
                        await self._tell(self._store, order.peer, order.id)
                    else:
                        self.settle(order.peer)
            except StoreError as error:
                _log.warning("what is not settled was not looked up: %s", error.message)
            turn += 1
            await asyncio.sleep(START_S if turn < STARTS else LATER_S)

    async def _settle(self, store: Store, provider: bytes) -> None:
        more = self._running[provider]
        try:
            if not await self._try(store, provider, more):
                await self._leave(store, provider)
        except StoreError as error:
            _log.warning("not settled, since it could not be written: %s", error.message)
        finally:
            del self._running[provider]
        if more.is_set():
            self.settle(provider)

    async def _try(self, store: Store, provider: bytes, more: asyncio.Event) -> bool:
        """As far as it goes now; whether nothing is left. Raises StoreError."""
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.stream import LinkClosed, StreamCancelled

        try:
            left = await self._open_orders(store, provider)
            if not left and provider not in self._apart:
                return True
            return await self._rounds(store, provider, left, more)
        except (NetError, NodeError) as error:
            _log.debug("not settled now: %s", error.code)
        except (LinkClosed, StreamCancelled, TimeoutError):
            _log.debug("not settled now: there is no session, or it is gone")
        except ProtocolError as error:
            _log.warning("a driver's words about money break the protocol: %s", error.reason)
        return False

    async def _rounds(
        self, store: Store, provider: bytes, known: list[OrderRow], more: asyncio.Event
    ) -> bool:
        """`known`: what is open now. Whether nothing is left."""
        from infraxa.net.stream import StreamFailed

        async with asyncio.timeout(CONNECT_S):
            link = await self._network.order_link(provider)
        turn = 0
        while turn < len(PAUSES):
            try:
                async with asyncio.timeout(PAUSES[turn]):
                    await more.wait()
                turn, known = 0, []
            except TimeoutError:
                turn += 1
            more.clear()
            # Each time: somebody may want to know it while these rounds run.
            if provider in self._apart:
                with contextlib.suppress(StreamFailed):
                    await self.agree(store, link, provider)
                self._apart.discard(provider)
                known = []
            left, known = known or await self._open_orders(store, provider), []
            if not left:
                return True
            refused = 0
            done: set[bytes] = set()
            for order in left:
                if order.id in done:
                    continue
                try:
                    await self.pay(store, link, order, done)
                except StreamFailed as error:
                    # What a driver does not want to hear of one order keeps nothing from the others.
                    _log.debug("not settled now: %s", error.failure.code)
                    refused += 1
            if refused == len(left):
                return False
        return False

    async def _leave(self, store: Store, provider: bytes) -> None:
        """What is not settled now may be claimed for some time."""
        for order in await self._open_orders(store, provider):
            until = self._clock() + UNCLAIMED_MS
            if await store.run(buying.mark_unclaimed, provider, order.id, until):
                await self._tell(store, provider, order.id)

    async def _left(self, store: Store, provider: bytes) -> bool:
        return provider in self._apart or bool(await self._open_orders(store, provider))

    async def _open_orders(self, store: Store, provider: bytes) -> list[OrderRow]:
        """Those that are over for this side, and not settled."""
        return [order for order in await store.run(trade.unsettled, "user", provider) if order.ended]
