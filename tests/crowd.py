"""Many who ask and many who answer on this machine: providers are processes, users are nodes of this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infraxa.app.answering import Sent, Waits
from infraxa.app.commands.demo import Provider
from infraxa.app.events import NodesChanged
from infraxa.app.node import Node
from infraxa.app.offers import OfferSeen
from infraxa.engine.types import Delta, Finished
from infraxa.store.records import ChatOptions
from tests.app.networked import running

FOUND_S = 60.0
CREDIT = {"stranger-limit": 1000.0, "strangers-daily": 100_000.0}
"""Of providers: nobody is refused for what it owes."""
CAPS = {"cap_request": 1000.0, "cap_chat": 1000.0, "cap_day": 1000.0}
"""Of users: nor for what it spends."""


class Asked(NamedTuple):
    """What became of one question."""

    question: tuple[int, int]
    text: str
    finish: str
    """`stop`, `length`, `cancelled`, `failed`."""
    code: str
    """Of the error."""
    reason: str
    n_out: int
    readers: tuple[str, ...]
    first_s: float | None
    whole_s: float
    waits: int

    @property
    def mixed_up(self) -> bool:
        """It answers something else than what was asked. The guide says the sum that it was asked again."""
        a, b = self.question
        said = re.search(r"(\d+) \+ (\d+)", self.text)
        return self.finish == "stop" and (said is None or (int(said[1]), int(said[2])) != (a, b))


def sum_of(number: int) -> tuple[int, int]:
    """Another sum for each of the first 81 numbers."""
    return 1 + number % 9, 1 + number // 9 % 9


async def ask(
    node: Node,
    number: int,
    *,
    driver: str = "auto",
    words: str = "",
    max_tokens: int | None = None,
    began_to_answer: asyncio.Event | None = None,
) -> Asked:
    """Ask for a sum; returns when there is an answer or a reason why not."""
    a, b = sum_of(number)
    began = time.perf_counter()
    text, first, readers, waits, n_out = "", None, [], 0, 0
    stream = node.ask(
        f"What is {a}+{b}?{words}", ChatOptions(driver=driver, temperature=0.0, max_tokens=max_tokens)
    )
    async with contextlib.aclosing(stream):
        async for item in stream:
            match item:
                case Delta(text=more, token_ids=ids):
                    first = first if first is not None else time.perf_counter() - began
                    text += more
                    if began_to_answer is not None:
                        began_to_answer.set()
                    n_out += len(ids)
                case Sent(reader=reader):
                    readers.append(reader.name)
                case Waits():
                    waits += 1
                case Finished(reason=finish, error=error):
                    return Asked(
                        (a, b), text, finish, error.code if error else "",
                        f"{error.message} {error.remedy}" if error else "",
                        n_out, tuple(readers), first, time.perf_counter() - began, waits,
                    )  # fmt: skip
    raise AssertionError("the stream ended without an end")


async def offers(node: Node, count: int = 1) -> list[OfferSeen]:
    """So many offers that can be taken, once the node sees them."""
    changed = asyncio.Event()
    end = node.subscribe(lambda event: changed.set() if isinstance(event, NodesChanged) else None)
    try:
        async with asyncio.timeout(FOUND_S):
            while True:
                found = [offer for offer in await node.list_offers() if not offer.problem]
                if len(found) >= count:
                    return found
                await changed.wait()
                changed.clear()
    finally:
        end()


class Crowd:
    """Providers and users of one network that nobody else is in."""

    def __init__(self, folder: Path, *, slots: int = 4, command: Sequence[str] = ("-m", "infraxa")) -> None:
        """`command`: what Python runs as a provider."""
        self.folder = folder
        self.slots = slots
        self._command = command
        self.network = f"crowd {os.getpid()} {folder.name}"[:32].strip()
        self.providers: list[Provider] = []
        self._count = 0

    def start_provider(self) -> Provider:
        """One more; it serves some seconds later."""
        self._count += 1
        name = f"p{self._count}"
        # By mDNS, since nobody tells others of addresses on loopback.
        made = Provider(
            name, self.folder / name, self.network, "",
            slots=self.slots, mdns=True, money=CREDIT, command=self._command,
        )  # fmt: skip
        self.providers.append(made)
        return made

    async def start(self, count: int) -> None:
        """`count` providers that serve."""
        for provider in [self.start_provider() for _ in range(count)]:
            await asyncio.to_thread(provider.wait_serving)

    @contextlib.asynccontextmanager
    async def users(self, count: int, **settings: object) -> AsyncIterator[list[Node]]:
        """So many, who see all providers."""
        async with contextlib.AsyncExitStack() as stack:
            nodes = [
                await stack.enter_async_context(
                    running(
                        self.folder / f"u{number}",
                        network=self.network,
                        listen_hosts="127.0.0.1",
                        **CAPS,
                        **settings,
                    )
                )
                for number in range(count)
            ]
            for node in nodes:
                await offers(node, len(self.providers))
            yield nodes

    def close(self) -> None:
        for provider in self.providers:
            provider.stop()
        for provider in self.providers:
            provider.wait_stopped()


async def ask_all(nodes: Sequence[Node], count: int, **how: Any) -> list[Asked]:
    """`count` questions at the same time, spread over the nodes."""
    return await asyncio.gather(*(ask(nodes[number % len(nodes)], number, **how) for number in range(count)))
