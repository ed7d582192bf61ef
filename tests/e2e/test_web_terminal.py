"""The app in a browser by textual-serve: driven by the WebSocket that its page opens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pyte
import pytest

from tests.e2e.conftest import INFRAXA

SERVE = """
import sys
from textual_serve.server import Server
Server(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2])).serve()
"""
SIZE = (120, 36)
WAIT_S = 30.0


class Page:
    """What a browser shows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._screen = pyte.Screen(*SIZE)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    async def focus(self) -> None:
        """The person looks at this page."""
        await self._socket.send_str(json.dumps(["focus"]))

    async def type(self, text: str) -> None:
        await self._socket.send_str(json.dumps(["stdin", text]))

    async def until(self, words: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while words not in self.text:
                    message = await self._socket.receive()
                    assert message.type is not aiohttp.WSMsgType.CLOSED, self.text
                    if message.type is aiohttp.WSMsgType.BINARY:
                        self._stream.feed(message.data)
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S:g} s: {words}\n{self.text}") from None

    async def ended(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while (await self._socket.receive()).type not in (
                aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED,
            ):  # fmt: skip
                pass


@pytest.fixture
async def server(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """textual-serve with the command `infraxa`; the address of its WebSocket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220 - it is quick
        [sys.executable, "-P", "-c", SERVE, shlex.join(INFRAXA), str(port)],
        env={name: value for name, value in environment.items() if name != "TERM"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as client:
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with client.get(f"http://127.0.0.1:{port}/") as answer:
                        assert answer.status == 200
                        break
                await asyncio.sleep(0.05)
        yield f"ws://127.0.0.1:{port}/ws?width={SIZE[0]}&height={SIZE[1]}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


async def test_a_person_chats_in_a_browser(server: str) -> None:
    async with aiohttp.ClientSession() as client:
        async with client.ws_connect(server) as first:
            page = Page(first)
            await page.until("Ask anything")
            await page.until("ready")
            await page.focus()
            await page.type("What is 2+2?\r")
            await page.until("2 + 2 = 4")
            async with client.ws_connect(server) as second:
                other = Page(second)
                await other.until("attached to pid")
                await other.until("2 + 2 = 4")
                await other.focus()
                await other.type("\x11")
                await other.ended()
            await page.type("What is 3+4?\r")
            await page.until("3 + 4 = 7")
            await page.type("\x11")
            await page.ended()
