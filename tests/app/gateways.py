"""A node with an open gateway on loopback, and clients of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import openai

from infraxa.app.gateway.server import Gateway
from infraxa.app.gateway.values import GatewayWish
from infraxa.app.node import Node
from tests.app.networked import folders, running, until

KEY = "ix-key-of-the-tests"


class Opened(NamedTuple):
    """A node and its gateway."""

    node: Node
    gateway: Gateway
    client: openai.AsyncOpenAI

    @property
    def url(self) -> str:
        return self.gateway.address


@contextlib.asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Opened]:
    """This machine alone, with the guide."""
    async with running(folders(folder).data, online=False, threads=1, **settings) as node:
        async with opened_of(node) as gateway:
            yield gateway


@contextlib.asynccontextmanager
async def opened_of(node: Node) -> AsyncIterator[Opened]:
    stream = node.open_gateway(GatewayWish(port=0, key=KEY))
    try:
        status = await anext(stream)
        assert node._gateway._gateway is not None
        client = openai.AsyncOpenAI(base_url=f"{status.address}/v1", api_key=KEY, max_retries=0, timeout=60)
        async with client:
            yield Opened(node, node._gateway._gateway, client)
    finally:
        await stream.aclose()


@contextlib.asynccontextmanager
async def http(gateway: Opened, *, key: str | None = KEY) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that sends what it is told to."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(gateway.url, headers=headers, timeout=timeout) as session:
        yield session


async def idle(node: Node) -> None:
    """Nothing is generated any more."""
    await until(lambda: node.engine.running == node.engine.waiting == 0, "the engine is idle")
