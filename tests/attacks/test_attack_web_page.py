"""A web page in a person's browser dials the node on the same machine: it gets no connection.

Browsers let every page open WebSockets to anywhere, and say in `Origin` which page it was; a page cannot
leave that out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from infraxa.net import parts
from infraxa.net.pipe import OnPipe
from infraxa.net.websocket import PATH, WebSocketTransport
from tests.attacks import report
from tests.attacks.target import Target, replaced, target


class Hospitable(WebSocketTransport):
    """Does not look who asks for the upgrade."""

    async def answer(self, request: web.BaseRequest, on_pipe: OnPipe, http: Any) -> web.StreamResponse:
        headers = request.headers.copy()
        headers.popall("Origin", None)
        request._headers = CIMultiDictProxy(headers)
        request.__dict__.pop("headers", None)
        request._cache.pop("headers", None)
        return await super().answer(request, on_pipe, http)


async def upgraded(node: Target, origin: str, *, path: str = PATH) -> int:
    """The HTTP status that a page gets; 101 is a connection."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as browser:
        try:
            async with browser.ws_connect(f"http://127.0.0.1:{node.port}{path}", headers={"Origin": origin}):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            assert error.headers is not None and not {"Server", "Date"} & set(error.headers)
            return error.status


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://127.0.0.1", ""])
async def test_a_page_dials_the_node(origin: str) -> None:
    with replaced((parts, "WebSocketTransport", Hospitable)):
        async with target() as weak:
            assert await upgraded(weak, origin) == 101
    async with target() as node:
        assert await upgraded(node, origin) == 403
        await node.counted("origin")
        assert not node.links
    report.tell(f"web page: an upgrade with Origin {origin!r}", weakened="connected", ours="403, origin")


async def test_a_page_that_looks_for_nodes_learns_nothing() -> None:
    async with target() as node, asyncio.timeout(20), aiohttp.ClientSession() as browser:
        for path in ("/", PATH, "/infraxa/2", "/index.html"):
            async with browser.get(f"http://127.0.0.1:{node.port}{path}") as answer:
                assert answer.status == 404 and not await answer.read()
                assert not {"Server", "Date"} & set(answer.headers)
        assert await upgraded(node, "https://example.com", path="/") == 404
