"""When the gateway of a node is open: while the settings say so, and while somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infraxa.app.config import Settings, split
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway.key import checked, kept_key
from infraxa.app.gateway.values import CLOSED, GatewayStatus, GatewayWish
from infraxa.engine.types import ErrorInfo
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from infraxa.app.gateway.server import Gateway

BY_SETTINGS = GatewayWish()


class GatewayDoor:
    """The gateway of one node. There is one at a time, however many ask for it."""

    def __init__(
        self, node: NodeFacade, folder: Path, changed: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        """`changed` is called when the status is another one, `say` with what a person should read."""
        self.status = CLOSED
        self._node = node
        self._folder = folder
        self._changed = changed
        self._say = say
        self._gateway: Gateway | None = None
        self._opened_as: tuple[object, ...] = ()
        """How it was asked for when it was opened: by whom, and with which settings."""
        self._held = 0
        """How many asked for it and are still there."""
        self._ended = False
        self._busy = asyncio.Lock()
        self._tasks = TaskGroup()

    def follow(self) -> None:
        """Do soon as the settings say."""
        self._tasks.spawn(self._follow(), name="the gateway follows the settings")

    async def _follow(self) -> None:
        """What somebody holds stays as it is until nobody does."""
        async with self._busy:
            settings = self._node.settings
            if self._held or self._ended:
                return
            if self._gateway is not None:
                if not settings.gateway or self._opened_as != _place(settings, BY_SETTINGS):
                    await self._close()
            if settings.gateway and self._gateway is None:
                try:
                    await self._open(BY_SETTINGS)
                except FAILURES as error:
                    self._tell(GatewayStatus("", ErrorInfo(error.code, error.message, error.remedy)))
                    self._say(sentence(error))
            elif not settings.gateway and self.status.error is not None:
                self._tell(CLOSED)

    def open(self, wish: GatewayWish) -> Opening:
        """Have it open until the stream ends."""
        return Opening(self, wish)

    @contextlib.asynccontextmanager
    async def held(self, wish: GatewayWish) -> AsyncIterator[GatewayStatus]:
        """It is open within the block. Raises NodeError when it cannot be so, or is open otherwise."""
        async with self._busy:
            if self._gateway is None:
                await self._open(wish)
            else:
                self._check_same(self._gateway, wish)
            self._held += 1
        try:
            yield self.status
        finally:
            self._held -= 1
            # Whoever is cancelled must not leave it half closed.
            await asyncio.shield(self._tasks.spawn(self._follow(), name="nobody holds the gateway"))

    async def close(self) -> None:
        """For good; bounded."""
        self._ended = True
        async with self._busy:
            if self._gateway is not None:
                await self._close()
        await self._tasks.cancel_all()

    async def _open(self, wish: GatewayWish) -> None:
        if self._ended:
            raise NodeError("closed", "This infraxa is ending.", "Try again in a moment.")
        # Where it is needed: with it comes all of HTTP.
        from infraxa.app.gateway.access import check_origin, is_loopback
        from infraxa.app.gateway.server import Gateway

        settings = self._node.settings
        host = wish.host or settings.gateway_host
        if wish.host is None and not is_loopback(host):
            raise NodeError(
                "not_loopback",
                f"The setting gateway_host is {host}, which other machines can reach; the gateway is opened "
                "to them only when it is asked for by hand, as nothing on that way is encrypted.",
                f"Start it with infraxa gateway --host {host}, or set gateway_host to 127.0.0.1.",
            )
        if wish.key is not None:
            key = checked(wish.key, "--api-key")
        else:
            key = await asyncio.to_thread(kept_key, self._folder, os.environ)
        origins = [check_origin(origin) for origin in split(settings.gateway_origins)]
        port = settings.gateway_port if wish.port is None else wish.port
        gateway = Gateway(self._node, key=key, host=host, port=port, origins=origins)
        limited = await gateway.open()
        self._gateway, self._opened_as = gateway, _place(settings, wish)
        self._tell(GatewayStatus(gateway.address, has_given_key=wish.key is not None))
        self._say(f"The gateway is open: {gateway.address}/v1, for whoever has its key.")
        if not is_loopback(host):
            self._say(
                "Other machines can reach the gateway, and nothing on that way is encrypted: whoever can "
                "listen there reads the key, the prompts and the answers."
            )
        if limited:
            self._say(limited)

    async def _close(self) -> None:
        assert self._gateway is not None
        gateway, self._gateway = self._gateway, None
        await gateway.close()
        self._tell(CLOSED)
        self._say("The gateway is closed.")

    def _check_same(self, gateway: Gateway, wish: GatewayWish) -> None:
        if (
            (wish.port not in (None, 0) and not gateway.address.endswith(f":{wish.port}"))
            or wish.host not in (None, gateway.host)
            or wish.key not in (None, gateway.key)
        ):
            raise NodeError(
                "busy",
                f"The gateway is open already, otherwise than asked for: {gateway.address}.",
                "Use that one, or close it first: end the command that opened it (infraxa gateway, "
                "infraxa serve --api), or turn the setting off: infraxa config set gateway false.",
            )

    def _tell(self, status: GatewayStatus) -> None:
        self.status = status
        self._changed()


class Opening:
    """A stream of one status, which ends when the gateway need not be open any more."""

    def __init__(self, door: GatewayDoor, wish: GatewayWish) -> None:
        self._stopped = asyncio.Event()
        self._statuses = self._play(door, wish)

    async def _play(self, door: GatewayDoor, wish: GatewayWish) -> AsyncGenerator[GatewayStatus, None]:
        async with door.held(wish) as status:
            yield status
            await self._stopped.wait()

    def __aiter__(self) -> Opening:
        return self

    async def __anext__(self) -> GatewayStatus:
        return await anext(self._statuses)

    def stop(self) -> None:
        self._stopped.set()

    async def aclose(self) -> None:
        self.stop()
        await self._statuses.aclose()


def _place(settings: Settings, wish: GatewayWish) -> tuple[object, ...]:
    """A host that was asked for by hand is another one than the same in the settings, which may not open it
    to other machines."""
    port = settings.gateway_port if wish.port is None else wish.port
    return port, wish.host, wish.key, settings.gateway_host, settings.gateway_origins
