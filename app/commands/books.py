"""What the commands about money share: whose books they read, and how they write amounts, times and peers."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.trade import ReceiptSeen, Role
from infraxa.net.credits import read_credits
from infraxa.net.errors import NetError
from infraxa.net.identity import display, id_text, parse_id
from infraxa.store import earnings, tabs
from infraxa.store.db import Connection, Store
from infraxa.store.folder import DATABASE_NAME

T = TypeVar("T")

PAGE: Final = 500
"""Receipts that are asked for at once."""
MIN_PREFIX: Final = 4
"""Characters of an order's number that tell it from the others."""
WHOLE: Final = 32
"""Characters of one."""


async def read(
    folders: Folders, settings: Settings, ask: Callable[[NodeFacade], Awaitable[T]], nothing: T
) -> T:
    """What `ask` gets of the running infraxa, else of an own node, which talks to nobody meanwhile; `nothing`
    where nothing was ever kept: no folder is made for a look.

    Raises NodeError, StoreError.
    """
    if not (folders.data / DATABASE_NAME).exists() and not is_open(folders):
        return nothing
    async with opened_node(folders, alone(settings)) as node:
        return await ask(node)


def alone(settings: Settings) -> Settings:
    """For a node that reads and writes its own books, and no more."""
    return replace(settings, online=False, provide=False)


def known_peers(folders: Folders) -> list[str]:
    """Ids of those with whom there is a tab. Raises StoreError."""
    return [id_text(tab.peer) for tab in _stored(folders, tabs.list_tabs)]


def known_orders(folders: Folders) -> list[str]:
    """Numbers of the newest orders that have a receipt. Raises StoreError."""
    return [order.id.hex() for _, order, _ in _stored(folders, earnings.list_receipts)]


def _stored(folders: Folders, look: Callable[[Connection], list[T]]) -> list[T]:
    """Of the store itself: who completes a word waits for no node."""

    async def ask() -> list[T]:
        async with await Store.open(folders.data) as store:
            return await store.run(look)

    return asyncio.run(ask()) if (folders.data / DATABASE_NAME).exists() else []


async def pages(
    node: NodeFacade, *, role: Role | None = None, count: int | None = None
) -> AsyncIterator[ReceiptSeen]:
    """The newest receipts, `count` of them at most; None: all."""
    before: int | None = None
    left = count
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = await node.list_receipts(role=role, before=before, count=size)
        for one in page:
            yield one
        if len(page) < size:
            return
        before = page[-1].place
        left = None if left is None else left - len(page)


async def find_order(node: NodeFacade, text: str) -> ReceiptSeen:
    """The receipt of the order whose number this is, or begins with. Raises NodeError `not_found`."""
    wanted = text.strip().lower()
    found: dict[str, ReceiptSeen] = {}
    if len(wanted) == WHOLE:
        places = [line.place for line in await node.export_receipts(wanted)]
        return (await node.list_receipts(before=max(places) + 1, count=1))[0]
    if MIN_PREFIX <= len(wanted) < WHOLE:
        async for one in pages(node):
            if one.order.startswith(wanted):
                found.setdefault(one.order, one)
                if len(found) > 1:
                    break
    if len(found) > 1:
        raise NodeError("not_found", "Several orders begin so.", "Give more of its number.")
    if not found:
        raise no_receipt()
    return next(iter(found.values()))


def no_receipt() -> NodeError:
    return NodeError("not_found", "There is no receipt of this order.", "infraxa receipts list shows them.")


def amount_of(text: str) -> int:
    """µcr of credits that were given as an argument. Raises UsageError."""
    try:
        return read_credits(text)
    except NetError as error:
        raise UsageError(f"{error.message} {error.remedy}") from None


def peer_text(name: str, peer: str) -> str:
    """A node or an account, as people see it everywhere."""
    return display(name, parse_id(peer))


def moment(at_ms: int) -> str:
    """A time of this machine; nothing for 0."""
    return f"{datetime.datetime.fromtimestamp(at_ms / 1000):%Y-%m-%d %H:%M}" if at_ms else ""
