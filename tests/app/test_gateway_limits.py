"""What clients of the gateway may cost: disconnects, slow readers and writers, floods, huge things."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infraxa.app.errors import NodeError
from infraxa.app.gateway import exchange, server, serving
from infraxa.app.gateway.bodies import MAX_BODY
from infraxa.engine.guide import GUIDE_PATH
from tests.app.gateways import KEY, Opened, http, idle, opened, opened_of
from tests.app.networked import folders, running, until
from tests.random_model import write_random_model

CHAT = "/v1/chat/completions"
ENDLESS: Any = {"model": "slow", "messages": [{"role": "user", "content": "What is 2+2?"}]}
"""It goes on for a minute."""
SHORT: Any = ENDLESS | {"model": "guide", "max_tokens": 2}


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that never say the end."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_random_model(path, GUIDE_PATH, layers=6, dim=768, context=2048)
    return path


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data") as one:
        yield one


@pytest.fixture
async def slow(gateway: Opened, slow_model: Path) -> Opened:
    """The same with the slow model."""
    await gateway.node.add_model(slow_model)
    return gateway


class Raw:
    """A connection of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, head: str, body: bytes = b"") -> None:
        self.writer.write(head.replace("\n", "\r\n").encode() + body)

    def ask(self, body: Any, *, path: str = CHAT, more: str = "") -> None:
        data = json.dumps(body).encode()
        self.send(
            f"POST {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {KEY}\n"
            f"Content-Type: application/json\nContent-Length: {len(data)}\n{more}\n",
            data,
        )

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(30):
            return await self.reader.readuntil(text)

    async def rest(self) -> bytes:
        """All until it is closed."""
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""

    def cut(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw(gateway: Opened) -> AsyncIterator[Raw]:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def quiet(gateway: Opened) -> None:
    """No request runs, nothing is generated."""
    await until(lambda: not gateway.gateway._running, "no request runs")
    await idle(gateway.node)
    assert gateway.gateway._held.size == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_goes_away_leaves_nothing_running(slow: Opened, stream: bool) -> None:
    async with raw(slow) as client:
        client.ask(ENDLESS | {"stream": stream, "n": 3})
        await until(lambda: slow.node.engine.running == 3, "three answers are generated")
        if stream:
            await client.until(b"data: ")
        client.cut()
        await quiet(slow)
    async with http(slow) as other:
        async with other.post(CHAT, json=SHORT) as answer:
            assert answer.status == 200


async def test_whoever_goes_away_before_the_model_is_there_leaves_nothing(tmp_path: Path) -> None:
    async with running(folders(tmp_path / "data").data, online=False, threads=1) as node:
        async with opened_of(node) as gateway, raw(gateway) as client:
            client.ask(SHORT | {"max_tokens": 200})
            await until(lambda: node.engine.state in ("starting", "loading"), "the model is being loaded")
            client.cut()
            await until(lambda: not gateway.gateway._running, "no request runs")
            await until(lambda: node.engine.state == "ready", "the model is there all the same")
            await quiet(gateway)


async def test_whoever_goes_away_in_mid_request_leaves_nothing(gateway: Opened) -> None:
    for size in (0, 1, 40, 180, 230):
        async with raw(gateway) as client:
            head = (
                f"POST {CHAT} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {KEY}\n"
                "Content-Type: application/json\nContent-Length: 1000\n\n" + "x" * 100
            )
            client.writer.write(head.replace("\n", "\r\n").encode()[:size])
            await client.writer.drain()
            await asyncio.sleep(0.05)
            client.cut()
            await quiet(gateway)
            await until(lambda: gateway.gateway._http and gateway.gateway._http.open == 0, "it is forgotten")


async def test_others_are_cut_when_the_gateway_is_closed(slow: Opened) -> None:
    async with raw(slow) as client:
        client.ask(ENDLESS | {"stream": True})
        await client.until(b"data: ")
        await slow.gateway.close(drain_s=0.1)
        told = await client.rest()
    assert b'data: {"error":{"message":"The gateway was closed."' in told and b"[DONE]" not in told
    await idle(slow.node)


async def test_what_runs_ends_well_when_the_gateway_is_closed(slow: Opened) -> None:
    async with raw(slow) as client:
        client.ask(ENDLESS | {"stream": True, "max_tokens": 30})
        await client.until(b"data: ")
        await slow.gateway.close(drain_s=20)
        assert b"data: [DONE]" in await client.rest()


async def test_a_long_body_is_read_to_its_limit(gateway: Opened) -> None:
    async with http(gateway) as client:
        for size, status in ((MAX_BODY - 1000, 200), (MAX_BODY, 413)):
            long = json.dumps(SHORT | {"ignored": "x" * size}).encode()
            kind = {"Content-Type": "application/json"}
            async with client.post(CHAT, data=io.BytesIO(long), headers=kind) as answer:
                assert answer.status == status
                if status == 413:
                    assert (await answer.json())["error"]["code"] == "too_large"
        nested = {"messages": json.loads("[" * 900 + "]" * 900)}
        async with client.post(CHAT, json=SHORT | nested) as answer:
            assert answer.status == 400
    async with raw(gateway) as other:  # without a length
        other.send(
            f"POST {CHAT} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {KEY}\n"
            "Content-Type: application/json\nTransfer-Encoding: chunked\n\n"
        )
        part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(MAX_BODY // 0x10000 + 1):
            other.writer.write(part)
        assert b"HTTP/1.1 413" in await other.until(b"\r\n")
    await quiet(gateway)


async def test_the_bodies_of_all_together_are_bounded(slow: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_HELD", 10_000)
    async with raw(slow) as first, raw(slow) as second:
        first.ask(ENDLESS | {"stream": True, "ignored": "x" * 9_000})
        await first.until(b"data: ")
        second.ask(ENDLESS | {"ignored": "x" * 9_000})
        told = await second.until(b"\r\n\r\n")
        assert b"HTTP/1.1 429" in told and b"Retry-After" in told
    await quiet(slow)


async def test_a_slow_body_is_not_waited_for(gateway: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_S", 0.2)
    async with raw(gateway) as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {KEY}\n"
            "Content-Type: application/json\nContent-Length: 1000\n\n{"
        )
        assert b"HTTP/1.1 408" in await client.until(b"\r\n")
        assert b'"code":"timeout"' in await client.rest(), "and it is closed"


async def test_headers_that_never_end_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.3)
    async with opened(tmp_path / "data") as gateway:
        async with raw(gateway) as silent, raw(gateway) as slow:
            slow.send("GET /health HTTP/1.1\nHost: localh")
            assert await silent.rest() == b"" and await slow.rest() == b""


async def test_huge_headers_and_what_is_no_http_end_at_once(gateway: Opened) -> None:
    for head in (
        f"GET /health HTTP/1.1\nHost: localhost\nX: {'x' * 100_000}\n\n",
        f"GET /{'x' * 100_000} HTTP/1.1\nHost: localhost\n\n",
        "GET /health HTTP/1.1\nHost: localhost\n" + "".join(f"X-{n}: 1\n" for n in range(200)) + "\n",
        "\x16\x03\x01 this is no request\n\n",
    ):
        async with raw(gateway) as client:
            client.send(head)
            assert b" 200 " not in (await client.rest()).partition(b"\r\n")[0]


async def test_a_flood_of_pipelined_requests_is_answered_one_by_one(gateway: Opened) -> None:
    async with raw(gateway) as client:
        for _ in range(500):
            client.send("GET /health HTTP/1.1\nHost: localhost\n\n")
        client.send("GET /health HTTP/1.1\nHost: localhost\nConnection: close\n\n")
        assert (await client.rest()).count(b'{"status":"ok"}') == 501


async def test_a_client_that_does_not_read_is_cut(slow: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "WRITE_S", 0.3)
    host, _, port = slow.url.removeprefix("http://").rpartition(":")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (host, int(port)))
        body = json.dumps(ENDLESS | {"stream": True, "n": 8, "logprobs": True, "top_logprobs": 20}).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await loop.sock_sendall(reader, head.encode() + body)
        await until(lambda: slow.gateway._running, "it runs")
        http_server = slow.gateway._http
        assert http_server is not None
        (connection,) = http_server.connections
        assert connection.transport is not None
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await quiet(slow)


async def test_more_connections_than_there_is_room_for_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(server, "MAX_REFUSED", 3)
    async with opened(tmp_path / "data") as gateway, contextlib.AsyncExitStack() as stack:
        first = [await stack.enter_async_context(raw(gateway)) for _ in range(5)]
        late = [await stack.enter_async_context(raw(gateway)) for _ in range(3)]
        await until(lambda: gateway.gateway._http and gateway.gateway._http.open == 8, "all are there")
        beyond = await stack.enter_async_context(raw(gateway))
        assert await beyond.rest() == b""
        for client in late:
            client.send("GET /health HTTP/1.1\nHost: localhost\n\n")
            told = await client.rest()
            assert b"HTTP/1.1 503" in told and b"Retry-After" in told and b'"code":"busy"' in told
        for client in first:
            client.send("GET /health HTTP/1.1\nHost: localhost\n\n")
            assert b"HTTP/1.1 200" in await client.until(b"\r\n")
        first[0].cut()
        await until(lambda: gateway.gateway._http and gateway.gateway._http.open < 5, "there is room")
        async with raw(gateway) as client:
            client.send("GET /health HTTP/1.1\nHost: localhost\n\n")
            assert b"HTTP/1.1 200" in await client.until(b"\r\n")


async def test_more_requests_than_there_is_room_for_are_told(
    slow: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_RUNNING", 1)
    async with raw(slow) as first, http(slow) as other:
        first.ask(ENDLESS | {"stream": True})
        await first.until(b"data: ")
        async with other.post(CHAT, json=ENDLESS) as answer:
            assert answer.status == 429 and answer.headers["Retry-After"].isdigit()


async def test_a_stream_that_waits_says_so(gateway: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async with http(gateway) as client:
        async with client.post(CHAT, json=SHORT) as answer:
            assert answer.status == 200
        monkeypatch.setattr(serving, "QUIET_S", 0.0005)
        async with client.post(CHAT, json=SHORT | {"stream": True}) as answer:
            told = await answer.text()
        assert ": waiting\n\n" in told and told.endswith("data: [DONE]\n\n")


def test_too_few_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (1024, 1024)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, given: None)
    room, said = server._room()
    assert 16 <= room < 1024 and str(room) in said and "ulimit" in said
    limits = (256, 256)
    with pytest.raises(NodeError, match="256 files") as caught:
        server._room()
    assert caught.value.code == "no_files"
    limits = (256, resource.RLIM_INFINITY)
    assert server._room() == (server.MAX_CONNECTIONS, "")


async def test_idle_connections_cost_others_nothing(gateway: Opened) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(raw(gateway))
        async with http(gateway) as client:
            async with client.post(CHAT, json=SHORT) as answer:
                assert answer.status == 200
            timeout = aiohttp.ClientTimeout(total=10)
            async with client.get("/health", timeout=timeout) as answer:
                assert answer.status == 200
