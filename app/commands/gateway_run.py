"""`infraxa gateway`: has the gateway open until a signal ends it, here or in the infraxa that is open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import opened_node
from infraxa.app.commands.given import folders_of, ignored, settings_of
from infraxa.app.commands.output import clean, note
from infraxa.app.commands.signals import ENDS, handled
from infraxa.app.config import API_KEY_VARIABLE
from infraxa.app.control.client import AttachedNode
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, LogLine
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway.key import checked, kept_key
from infraxa.app.gateway.values import GatewayStatus, GatewayWish
from infraxa.net.tasks import TaskGroup


def run(data_dir: Path | None, flags: Mapping[str, object], *, host: str | None, api_key: str | None) -> int:
    """Returns the exit code: 0 after an end that was asked for. Raises NodeError, StoreError."""
    folders = folders_of(data_dir)
    settings = settings_of(folders, flags, {"gateway_port": "--port"})
    wish = wish_of(flags, settings.gateway_port, host, api_key)
    logging.basicConfig(level=logging.WARNING, format="infraxa: %(message)s")

    async def serve() -> int:
        stop = asyncio.Event()
        # It is asked for below, and closed with this command.
        own = msgspec.structs.replace(settings, gateway=False)
        with handled(dict.fromkeys(ENDS, stop.set), once=True):
            async with opened_node(folders, own, _hear) as node:
                if isinstance(node, AttachedNode):
                    _say(f"attached to the infraxa that is open (pid {node.pid})")
                    if words := ignored(flags, settings, node.settings):
                        _say(words)
                async with gateway_of(node, wish) as status:
                    which = "that was given" if status.has_given_key else "that infraxa gateway key prints"
                    _say(f"programs ask {status.address}/v1 with the key {which}")
                    await ended(node, stop)
        return 0

    return asyncio.run(serve())


def wish_of(flags: Mapping[str, object], port: int, host: str | None, api_key: str | None) -> GatewayWish:
    """What was given; a bad key is wrong usage. `port`: of the settings, with those flags."""
    where = "--api-key"
    if api_key is None:
        api_key, where = os.environ.get(API_KEY_VARIABLE) or None, API_KEY_VARIABLE
    if api_key is not None:
        try:
            checked(api_key, where)
        except NodeError as error:
            raise UsageError(f"{error.message} {error.remedy}") from None
    return GatewayWish(port if flags.get("gateway_port") is not None else None, host, api_key)


@contextlib.asynccontextmanager
async def gateway_of(node: NodeFacade, wish: GatewayWish) -> AsyncIterator[GatewayStatus]:
    """The gateway of this node is open within the block. Raises NodeError."""
    stream = node.open_gateway(wish)
    try:
        async for status in stream:
            yield status
            return
        raise NodeError("closed", "This infraxa is ending.", "Try again in a moment.")
    finally:
        await stream.aclose()


async def ended(node: NodeFacade, stop: asyncio.Event) -> None:
    """Until the end is asked for. Raises NodeError `gone` when the infraxa that has the node ends."""
    if not isinstance(node, AttachedNode):
        await stop.wait()
        return
    tasks = TaskGroup()
    try:
        waits = [tasks.spawn(event.wait(), name="gateway") for event in (stop, node.gone)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await tasks.cancel_all()
    if not stop.is_set():
        raise NodeError("gone", "The infraxa that had the gateway has ended.", "Start infraxa gateway again.")


def print_key(data_dir: Path | None) -> None:
    """On standard output, and nothing else there."""
    folders = folders_of(data_dir)
    folders.make()
    print(kept_key(folders.data, os.environ))


def _hear(event: Event) -> None:
    if isinstance(event, LogLine) and event.source == "infraxa":
        _say(event.text)


def _say(text: str) -> None:
    note(clean(text))
