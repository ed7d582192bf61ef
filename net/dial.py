"""Dialling a node that has several addresses: the first completed handshake wins.

As Happy Eyeballs (RFC 8305), but what counts is the handshake: a carrier that connects is not yet the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from infraxa.net.errors import NetError
from infraxa.net.tasks import TaskGroup

NEXT_S: Final = 0.15
"""Seconds until the next address is tried beside the ones before; at once when one has failed."""
DIAL_S: Final = 20.0
"""Seconds for one address: the connection, then the handshake, maybe with work."""
MAX_ADDRESSES: Final = 8

T = TypeVar("T")


async def dial_first(
    addresses: Sequence[str],
    attempt: Callable[[str], Awaitable[T]],
    discard: Callable[[T], Awaitable[None]],
) -> T:
    """What `attempt` gives for the first address for which it is done.

    The other attempts are cancelled at once and waited for; one that was done at the same moment is given to
    `discard`. Raises NetError of the only address, or one of all of them with the reason of each.
    """
    if not addresses:
        raise NetError("unreachable", "No address of this node is known.", "ask for an invite")
    tasks = TaskGroup()
    left = list(dict.fromkeys(addresses))[:MAX_ADDRESSES]
    running: dict[asyncio.Task[T], str] = {}
    failed: dict[str, NetError] = {}
    try:
        while left or running:
            if left:
                address = left.pop(0)
                task = tasks.spawn(_bounded(address, attempt), name=f"dial {address}", told=(NetError,))
                running[task] = address
            done, _ = await asyncio.wait(
                running, timeout=NEXT_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    del running[task]
                    return task.result()
                if not isinstance(error, NetError):
                    raise error
                failed[running.pop(task)] = error
    finally:
        await tasks.cancel_all()
        for task in running:
            if not task.cancelled() and task.exception() is None:
                await discard(task.result())
    raise _all_failed(failed)


async def _bounded(address: str, attempt: Callable[[str], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(DIAL_S):
            return await attempt(address)
    except TimeoutError:
        raise NetError(
            "timeout",
            f"Nothing answered at {address} within {DIAL_S:g} s.",
            "check that infraxa runs there, and that its port is not blocked",
        ) from None


def _all_failed(failed: dict[str, NetError]) -> NetError:
    errors = list(failed.values())
    if len(errors) == 1:
        return errors[0]
    # What a person can do something about goes first: the clock, a full node, a wrong network.
    first = min(errors, key=lambda error: error.code in ("unreachable", "timeout"))
    reasons = " ".join(error.message for error in errors)
    return NetError(first.code, f"No address of the node could be used. {reasons}", first.remedy)
