"""Opens the node of a folder for a front end: an own one where nobody has it, else the one of whoever has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

from infraxa.app.control.client import AttachedNode, NotListening
from infraxa.app.facade import NodeFacade
from infraxa.store.lock import check_free
from infraxa.store.records import StoreError

COMING_LIMIT = 3.0
"""Seconds in which a process that has taken the lock listens."""
LEAVING_LIMIT = 10.0
"""Seconds in which a process that was left by its node, or is ending, gives the lock back."""
_AGAIN = 0.05


async def open_node(
    folder: Path,
    own: Callable[[], Awaitable[NodeFacade]],
    attached: Callable[[], AttachedNode],
    use: Callable[[NodeFacade], None],
    *,
    limit: float = COMING_LIMIT,
) -> NodeFacade:
    """The node, started. `own` and `attached` make one; `use` gets each before it is started.

    Raises StoreError `locked` when somebody has had the folder for `limit` seconds without listening,
    NodeError `version` when it is another version, and what an own node cannot start for.
    """
    end = monotonic() + limit
    while True:
        node: NodeFacade
        try:
            await asyncio.to_thread(check_free, folder)
            use(node := await own())
            await node.start()
            return node
        except StoreError as error:
            if error.code != "locked":
                raise
            locked = error
        try:
            use(node := attached())
            await node.start()
            return node
        except NotListening:
            if monotonic() > end:
                raise locked from None
        await asyncio.sleep(_AGAIN)


async def attach(folder: Path, attached: Callable[[], AttachedNode]) -> AttachedNode | None:
    """The node of whoever has the folder, attached to; None when nobody has it.

    Raises StoreError `locked` and NodeError `version` like `open_node`.
    """
    end = monotonic() + COMING_LIMIT
    while True:
        try:
            check_free(folder)
            return None
        except StoreError as error:
            locked = error
        try:
            node = attached()
            await node.start()
            return node
        except NotListening:
            if monotonic() > end:
                raise locked from None
        await asyncio.sleep(_AGAIN)
