"""The WebSocket carrier on real sockets: what it carries, and what it says to whom it does not know."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from infraxa.net import websocket
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.lobby import MAX_LOCAL, Lobby
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.websocket import PATH, WebSocketTransport
from infraxa.net.wire import MAX_FRAME
from tests.net.nodes import until

UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def echo(pipe: Pipe) -> None:
    while True:
        await pipe.send(await pipe.receive())


@asynccontextmanager
async def listening(
    on_pipe: Callable[[Pipe], Awaitable[None]] = echo, refused: list[tuple[str, str]] | None = None
) -> AsyncIterator[tuple[WebSocketTransport, str, int]]:
    count: list[tuple[str, str]] = [] if refused is None else refused
    transport = WebSocketTransport(refused=lambda reason, address: count.append((reason, address)))
    try:
        ((_, port),) = await transport.listen(["127.0.0.1"], 0, on_pipe)
        yield transport, f"ws://127.0.0.1:{port}", port
    finally:
        await transport.close()


async def said(port: int, request: str) -> str:
    """Everything that is answered to these bytes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(10):
            return (await reader.read()).decode("latin-1")
    finally:
        writer.close()


async def ended(pipe: Pipe) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(PipeClosed):
            await pipe.receive()


async def test_frames_arrive_whole_and_in_order() -> None:
    async with listening() as (transport, address, _):
        pipe = await transport.dial(address)
        assert pipe.remote == "127.0.0.1"
        frames = [b"a", bytes(MAX_FRAME), b"b" * 60_016]
        for frame in frames:
            await pipe.send(frame)
        assert [await pipe.receive() for _ in frames] == frames


async def test_the_end_of_one_side_is_the_end_of_the_other() -> None:
    pipes: asyncio.Queue[Pipe] = asyncio.Queue()

    async def keep(pipe: Pipe) -> None:
        await pipes.put(pipe)
        await ended(pipe)

    async with listening(keep) as (transport, address, _):
        dialled = await transport.dial(address)
        accepted = await pipes.get()
        await dialled.close()
        await dialled.close()
        await ended(accepted)
        with pytest.raises(PipeClosed):
            await dialled.send(b"x")
        with pytest.raises(PipeClosed):
            await dialled.receive()


async def test_a_pipe_ends_when_its_user_returns() -> None:
    async def leave(pipe: Pipe) -> None:
        await pipe.receive()

    async with listening(leave) as (transport, address, _):
        pipe = await transport.dial(address)
        await pipe.send(b"x")
        await ended(pipe)


@pytest.mark.parametrize(("error", "logged"), [(ProtocolError("full"), 0), (RuntimeError("broken"), 1)])
async def test_a_pipe_ends_when_its_user_raises(
    error: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(pipe: Pipe) -> None:
        raise error

    async with listening(fail) as (transport, address, _):
        await ended(await transport.dial(address))
    assert [record.name for record in caplog.records] == [websocket.__name__] * logged


@pytest.mark.parametrize("kind", ["text", "ping", "pong", "oversize"])
async def test_nothing_but_whole_binary_messages_is_taken(kind: str) -> None:
    taken: asyncio.Queue[bytes] = asyncio.Queue()
    refused: list[tuple[str, str]] = []

    async def read(pipe: Pipe) -> None:
        await taken.put(await pipe.receive())

    async with (
        listening(read, refused) as (_, address, _port),
        aiohttp.ClientSession() as client,
        client.ws_connect(address.replace("ws:", "http:") + PATH, autoping=False) as ws,
    ):
        if kind == "text":
            await ws.send_str("hello")
        elif kind == "ping":
            await ws.ping(b"hello")
        elif kind == "pong":
            await ws.pong(b"hello")
        else:
            await ws.send_bytes(bytes(MAX_FRAME + 1))
        async with asyncio.timeout(10):
            message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert taken.empty()
    assert refused == [("too_large" if kind == "oversize" else "malformed", "127.0.0.1")]


async def test_a_web_page_is_refused() -> None:
    refused: list[tuple[str, str]] = []
    async with listening(refused=refused) as (transport, _, port):
        answer = await said(port, UPGRADE + "Origin: https://example.com\r\n\r\n")
        assert answer == "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert len(transport.lobby) == 0
        assert refused == [("origin", "127.0.0.1")]


@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: node\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\n\r\nx",
        UPGRADE.replace(PATH, "/other") + "\r\n",
        UPGRADE.replace("Version: 13", "Version: 99") + "\r\n",
        UPGRADE.replace("Key: AAAA", "Key: ?") + "\r\n",
        UPGRADE + "Sec-WebSocket-Protocol: chat\r\n\r\n",
    ],
)
async def test_everything_else_is_not_found(request_text: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (_, _, port):
        answer = await said(port, request_text)
        assert answer == "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert caplog.records == []


@pytest.mark.parametrize(
    "garbage",
    [
        "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "GET / HTTP/1.1\r\n" + "A: b\r\n" * 1000 + "\r\n",
        "GET /" + "x" * 100_000 + " HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_no_answer(garbage: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (_, _, port):
        try:
            assert await said(port, garbage) == ""
        except ConnectionResetError:
            pass  # it did not read all of it
    assert caplog.records == []


async def test_the_upgrade_does_not_say_what_answers() -> None:
    async with listening() as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((UPGRADE + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
    assert head.startswith("HTTP/1.1 101 ")
    names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
    assert names == {"upgrade", "connection", "sec-websocket-accept"}


async def test_the_client_does_not_say_what_it_is() -> None:
    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = WebSocketTransport()
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NetError):
            await transport.dial(f"ws://127.0.0.1:{port}")
        lines = (await asked).decode().splitlines()
    await transport.close()
    assert lines[0] == f"GET {PATH} HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert names == {"host", "upgrade", "connection", "sec-websocket-version", "sec-websocket-key"}


async def test_a_redirect_is_not_followed() -> None:
    visits = 0

    async def count(pipe: Pipe) -> None:
        nonlocal visits
        visits += 1

    async with listening(count) as (transport, address, _):

        async def redirect(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": address.replace("ws:", "http:") + PATH})

        server = await asyncio.get_running_loop().create_server(web.Server(redirect), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(NetError) as error:
                await transport.dial(f"ws://127.0.0.1:{port}")
        assert error.value.code == "unreachable"
    assert visits == 0


async def test_who_sends_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "UPGRADE_S", 0.2)
    refused: list[tuple[str, str]] = []
    async with listening(refused=refused) as (transport, _, port):
        for start in ("", UPGRADE):  # nothing at all; a request without its end
            async with asyncio.timeout(10):
                try:
                    assert await said(port, start) == ""
                except ConnectionResetError:
                    pass
        assert len(transport.lobby) == 0
        assert refused == [("silent", "127.0.0.1")] * 2


async def test_connections_without_a_handshake_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[tuple[str, str]] = []
    async with listening(refused=refused) as (transport, address, port):
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_LOCAL)]
        async with asyncio.timeout(10):
            await until(lambda: len(transport.lobby) == MAX_LOCAL)
            with pytest.raises(NetError) as error:
                await transport.dial(address)
        assert error.value.code == "unreachable"
        assert set(refused) == {("full", "127.0.0.1")}
        for _, writer in crowd:
            writer.close()
        await until(lambda: len(transport.lobby) == 0)
        pipe = await transport.dial(address)
        await pipe.send(b"x")
        assert await pipe.receive() == b"x"
    assert caplog.records == []


def test_the_lobby_counts_groups() -> None:
    lobby = Lobby(max_all=3, max_group=2)
    lobby.enter("192.0.2.0/24")
    lobby.enter("192.0.2.0/24")
    with pytest.raises(ProtocolError) as error:
        lobby.enter("192.0.2.0/24")
    assert error.value.reason == "full"
    lobby.enter("other")
    with pytest.raises(ProtocolError):
        lobby.enter("third")
    lobby.leave("192.0.2.0/24")
    lobby.enter("third")


async def test_who_does_not_read_stalls_the_sender() -> None:
    async def wait(pipe: Pipe) -> None:
        await asyncio.sleep(60)

    async with listening(wait) as (transport, address, _):
        pipe = await transport.dial(address)
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await pipe.send(bytes(60_000))
                    sent += 60_000
        assert sent < 64 * 2**20  # the buffers of the two sockets and of the two programs
        async with asyncio.timeout(5):
            await pipe.close()  # though the other side never reads


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        transport = WebSocketTransport()
        with pytest.raises(NetError) as error:
            await transport.listen(["127.0.0.1"], port, echo)
        await transport.close()
    assert error.value.code == "port_taken"
    assert str(port) in error.value.message
    assert "listen_port" in error.value.remedy


async def test_one_port_for_all_addresses() -> None:
    transport = WebSocketTransport()
    try:
        bound = await transport.listen(["127.0.0.1", "127.0.0.2"], 0, echo)
        assert {host for host, _ in bound} == {"127.0.0.1", "127.0.0.2"}
        assert len({port for _, port in bound}) == 1
        for host, port in bound:
            pipe = await transport.dial(f"ws://{host}:{port}")
            await pipe.send(b"x")
            assert await pipe.receive() == b"x"
    finally:
        await transport.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_ipv6_and_ipv4_have_the_same_port() -> None:
    transport = WebSocketTransport()
    try:
        bound = dict(await transport.listen(["::1", "127.0.0.1"], 0, echo))
        if "::1" not in bound:
            pytest.skip("this machine has no IPv6 loopback")
        pipe = await transport.dial(f"ws://[::1]:{bound['::1']}")
        await pipe.send(b"x")
        assert await pipe.receive() == b"x"
        assert pipe.remote == "::1"
        assert bound["::1"] == bound["127.0.0.1"]
    finally:
        await transport.close()


async def test_a_family_that_the_machine_has_not_is_left_out() -> None:
    transport = WebSocketTransport()
    try:
        bound = await transport.listen(["2001:db8::1", "127.0.0.1"], 0, echo)  # nobody has this address
        assert [host for host, _ in bound] == ["127.0.0.1"]
        with pytest.raises(NetError) as error:
            await WebSocketTransport().listen(["2001:db8::1"], 0, echo)
        assert error.value.code == "no_interface"
    finally:
        await transport.close()


async def test_dialling_what_is_not_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        transport = WebSocketTransport()
        with pytest.raises(NetError) as error:
            await transport.dial(f"ws://127.0.0.1:{port}")
        assert error.value.code == "unreachable"
        assert "refused" in error.value.message
        for wrong in ("ws://example.com:80", "http://127.0.0.1:7741", "relay:" + "a" * 52):
            with pytest.raises(NetError) as error:
                await transport.dial(wrong)
            assert error.value.code == "bad_address"
        await transport.close()


async def test_small_frames_are_not_held_back() -> None:
    options: list[int] = []

    async def look(pipe: Pipe) -> None:
        options.append(pipe._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))  # type: ignore[attr-defined]

    async with listening(look) as (transport, address, _):
        pipe = await transport.dial(address)
        await look(pipe)
        await ended(pipe)
    assert len(options) == 2 and all(options)
