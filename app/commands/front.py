"""The running infraxa of a data folder, for a command: attached to for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from infraxa.app.commands.output import note
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError, sentence
from infraxa.app.folders import Folders
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.app.control.client import AttachedNode
    from infraxa.app.events import Event
    from infraxa.app.facade import NodeFacade


@contextlib.asynccontextmanager
async def attached_node(folders: Folders, settings: Settings) -> AsyncIterator[AttachedNode | None]:
    """The node of the process that has the folder. None when nobody has it, or when that process cannot be
    talked to, which is said: what a command can do alone, it does then.
    """
    node = None
    if is_open(folders):
        from infraxa.app.control.client import AttachedNode
        from infraxa.app.control.opening import attach

        try:
            node = await attach(folders.data, lambda: AttachedNode(settings, folders))
        except (StoreError, NodeError) as error:
            note(f"infraxa: {sentence(error)} This goes on without it.")
    try:
        yield node
    finally:
        if node is not None:
            await node.close()


@contextlib.asynccontextmanager
async def opened_node(
    folders: Folders, settings: Settings, listener: Callable[[Event], None] | None = None
) -> AsyncIterator[NodeFacade]:
    """The node of the process that has the folder; where nobody has it, an own one, which loads no model.
    `listener` hears its events from the start.

    Raises StoreError `locked` when that process does not answer, NodeError `version` when it is another
    version, and what an own node cannot start for.
    """
    from infraxa.app.control.client import AttachedNode
    from infraxa.app.control.opening import open_node

    async def own() -> NodeFacade:
        from infraxa.app.node import Node

        return Node(settings, folders, load_model=False)

    last: list[NodeFacade] = []

    def use(node: NodeFacade) -> None:
        last.append(node)
        if listener is not None:
            node.subscribe(listener)

    try:
        yield await open_node(folders.data, own, lambda: AttachedNode(settings, folders), use)
    finally:
        for node in last[-1:]:
            await node.close()


def is_open(folders: Folders) -> bool:
    """Whether some process has the folder. One look at its lock."""
    from infraxa.store.lock import check_free

    try:
        check_free(folders.data)
    except StoreError:
        return True
    return False
