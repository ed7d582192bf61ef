"""The default carrier: one WebSocket per pipe, over aiohttp, for addresses `ws://…` with numbers only.

What is carried is sealed by session.py, so there is no TLS here. The server is on the open Internet: it
answers an upgrade to the one path, everything else with as little as it can, and does not say what it is. It
is also in reach of every web page that a person of this machine looks at, which is why an upgrade with an
Origin is refused: browsers always send one, nodes never do.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp import web

from infraxa.net import addresses
from infraxa.net.addresses import group
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.lobby import Lobby
from infraxa.net.pipe import OnPipe, Pipe, PipeClosed
from infraxa.net.wire import MAX_FRAME

PATH: Final = "/infraxa/1"
UPGRADE_S: Final = 5.0
"""Seconds from a connection to its upgrade."""
CLOSE_S: Final = 1.0
"""Seconds that a pipe waits for the other side when it closes."""
MAX_PIPES: Final = 512
"""Pipes that were dialled from here, at a time."""
BACKLOG: Final = 128
_HEADER_BYTES: Final = 4096
_HEADERS: Final = 32

_log = logging.getLogger(__name__)
# What a scanner sends is no event: aiohttp would log each of its broken requests as an error.
_silent = logging.Logger("infraxa.net.http", logging.CRITICAL + 1)


OnRefused = Callable[[Refusal, str], None]
"""Takes a reason and the address of the other side."""


def _unheard(reason: Refusal, address: str) -> None:
    pass


class WebSocketTransport:
    """Listens and dials. `lobby` is shared with accept() of link.py, so that one limit holds for the whole
    time until a handshake is done."""

    scheme = "ws"

    def __init__(self, lobby: Lobby | None = None, refused: OnRefused = _unheard) -> None:
        self.lobby = lobby if lobby is not None else Lobby()  # an empty one is falsy
        self.refused = refused
        """Told of each connection that is refused here, and why."""
        self._servers: list[asyncio.Server] = []
        self._http: _Server | None = None
        self._client: aiohttp.ClientSession | None = None
        self._pipes: set[_WebSocketPipe] = set()

    async def listen(self, hosts: Sequence[str], port: int, on_pipe: OnPipe) -> list[tuple[str, int]]:
        """Listen on each of these IP addresses of this machine, and give what comes to `on_pipe`: where it
        listens now. `port` 0 is any free one, the same for all. A family of addresses that this machine has
        not is left out. Raises NetError `port_taken`, `no_interface`."""
        sockets = _bind_all(hosts, port)
        http = self._http = _Server(self, on_pipe)
        loop = asyncio.get_running_loop()
        for bound in sockets:
            self._servers.append(await loop.create_server(http, sock=bound, backlog=BACKLOG))
        return [bound.getsockname()[:2] for bound in sockets]

    async def dial(self, address: str) -> Pipe:
        """A pipe to `address`, in a time that the caller limits. Raises NetError `unreachable`,
        `bad_address`."""
        where = addresses.parse(address)
        if where.scheme != self.scheme:
            raise NetError("bad_address", f"{address} is no address of a WebSocket.")
        client = self._client = self._client or _client()
        try:
            websocket = await client.ws_connect(
                f"http://{address.removeprefix('ws://')}{PATH}",
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                autoping=False,
                max_msg_size=MAX_FRAME + 1,  # aiohttp refuses what is not smaller
            )
        except (aiohttp.WSServerHandshakeError, aiohttp.InvalidURL, aiohttp.ClientPayloadError):
            raise NetError(
                "unreachable", f"What answers at {address} is no node.", "check the address and its port"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NetError(
                "unreachable",
                f"No node answers at {address}: {_reason(error)}.",
                "check that infraxa runs there, and that its port is not blocked",
            ) from None
        return self._piped(websocket, where.host)

    async def close(self) -> None:
        """Ends listening and all pipes; bounded."""
        for server in self._servers:
            server.close()
        await asyncio.gather(*(pipe.close() for pipe in list(self._pipes)))
        if self._http is not None:
            await self._http.shutdown(CLOSE_S)
        try:
            async with asyncio.timeout(CLOSE_S):
                for server in self._servers:
                    await server.wait_closed()
        except TimeoutError:
            _log.debug("a listening socket did not close in time")
        self._servers.clear()
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _piped(self, websocket: _WebSocket, remote: str) -> _WebSocketPipe:
        pipe = _WebSocketPipe(websocket, remote, self._pipes, self.refused)
        self._pipes.add(pipe)
        return pipe

    async def answer(self, request: web.BaseRequest, on_pipe: OnPipe, http: _Server) -> web.StreamResponse:
        """Answer one HTTP request."""
        websocket = web.WebSocketResponse(
            timeout=CLOSE_S, autoping=False, compress=False, max_msg_size=MAX_FRAME + 1
        )
        status = 101
        # Nodes ask for no subprotocol; aiohttp would log what a stranger asks for.
        if (
            request.path != PATH
            or "Sec-WebSocket-Protocol" in request.headers
            or not websocket.can_prepare(request).ok
        ):
            status = 404
        elif "Origin" in request.headers:
            status = 403
            self.refused("origin", _remote(request.transport))
        if status != 101:
            refusal = web.Response(status=status)
            refusal.force_close()
            return refusal
        await websocket.prepare(request)
        pipe = self._piped(websocket, _remote(request.transport))
        http.admitted(request.protocol)
        try:
            await on_pipe(pipe)
        except (ProtocolError, PipeClosed) as error:
            _log.debug("a connection ended: %s", error)
        except Exception as error:
            _log.error("a connection ended with a failure", exc_info=error)
        finally:
            await pipe.close()
        return websocket


_ENDS: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)
_WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class _WebSocketPipe:
    """Both sides' end of a WebSocket."""

    def __init__(
        self, websocket: _WebSocket, remote: str, pipes: set[_WebSocketPipe], refused: OnRefused
    ) -> None:
        self._websocket = websocket
        self._socket: Any = websocket.get_extra_info("socket")
        self._remote = remote
        self._pipes = pipes
        self._refused = refused
        self._ended = False

    @property
    def remote(self) -> str:
        return self._remote

    async def send(self, frame: bytes) -> None:
        try:
            await self._websocket.send_bytes(frame)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise PipeClosed(type(error).__name__) from None

    async def receive(self) -> bytes:
        if self._ended:
            raise PipeClosed("closed")
        message = await self._websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        # Nodes say nothing but whole binary messages; pings are inside the session.
        self._ended = True
        if message.type is aiohttp.WSMsgType.ERROR:
            too_big = getattr(message.data, "code", None) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            self._refused("too_large" if too_big else "malformed", self._remote)
        elif message.type not in _ENDS:
            self._refused("malformed", self._remote)
        raise PipeClosed(message.type.name)

    async def close(self) -> None:
        self._ended = True
        if self not in self._pipes:
            return
        self._pipes.discard(self)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.close()
        except (TimeoutError, ConnectionError, aiohttp.ClientError, RuntimeError):
            _log.debug("a pipe did not close in time")
        finally:
            self._cut()

    def _cut(self) -> None:
        """End the connection even if the other side reads nothing of what waits in its buffer."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


class _Request(web.BaseRequest):
    """A request to which the answer says nothing about who answers."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        if response.status == 400:
            raise ConnectionResetError  # not HTTP, or broken: the connection ends without a word
        for name in ("Server", "Date", "Content-Type"):
            response.headers.pop(name, None)


class _Server(web.Server):
    """aiohttp's server, with a time limit until the upgrade and with the limits of the lobby."""

    def __init__(self, transport: WebSocketTransport, on_pipe: OnPipe) -> None:
        self._transport = transport
        self._waiting: dict[web.RequestHandler, tuple[str, asyncio.TimerHandle]] = {}

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await transport.answer(request, on_pipe, self)

        loop = asyncio.get_running_loop()
        super().__init__(
            handle,
            request_factory=lambda message, payload, protocol, writer, task: _Request(
                message, payload, protocol, writer, task, loop
            ),
            access_log=None,
            logger=_silent,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_HEADERS,
            lingering_time=0,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        where = group(_remote(transport))
        try:
            self._transport.lobby.enter(where)
        except ProtocolError as error:
            self._transport.refused(error.reason, _remote(transport))
            loop.call_soon(transport.abort)  # aiohttp does not bear it at once
            return
        timer = loop.call_later(UPGRADE_S, self._too_slow, transport)
        self._waiting[handler] = where, timer

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.admitted(handler)

    def admitted(self, handler: web.RequestHandler) -> None:
        """This connection waits here no longer."""
        where, timer = self._waiting.pop(handler, (None, None))
        if where is not None and timer is not None:
            timer.cancel()
            self._transport.lobby.leave(where)

    def _too_slow(self, transport: asyncio.Transport) -> None:
        self._transport.refused("silent", _remote(transport))
        transport.abort()


def _client() -> aiohttp.ClientSession:
    """Nothing of this machine's environment, no cookies, no names, no redirects; tells nothing of itself."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_PIPES, force_close=True, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[tracing],
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
    )


async def _refuse_redirect(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
    raise aiohttp.ClientPayloadError("a redirect")


def _remote(transport: asyncio.BaseTransport | None) -> str:
    """The numeric address of the other side, without a zone."""
    peer = transport.get_extra_info("peername") if transport is not None else None
    return str(peer[0]).partition("%")[0] if peer else ""


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    return os.strerror(number).lower() if number else "the connection broke"


def _bind_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listening sockets for all hosts whose family this machine has, on one port."""
    for _ in range(8):  # a free port of the first host may be taken on the second
        bound: list[socket.socket] = []
        try:
            for host in hosts:
                chosen = port or (bound[0].getsockname()[1] if bound else 0)
                try:
                    bound.append(_bind(host, chosen))
                except OSError as error:
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
                        raise
        except OSError as error:
            for one in bound:
                one.close()
            if error.errno == errno.EADDRINUSE and port == 0:
                continue
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise NetError(
                    "port_taken",
                    f"Port {port} is used by another program, or not allowed.",
                    "choose another one: infraxa config set listen_port PORT (0 = any that is free)",
                ) from None
            raise NetError(
                "no_interface", f"This machine cannot listen on {host}: {os.strerror(error.errno or 0)}."
            ) from None
        if not bound:
            raise NetError(
                "no_interface", "This machine has none of the addresses to listen on.", "check listen_host"
            )
        return bound
    raise NetError("port_taken", "No port is free on all addresses of this machine.", "choose one")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that `::` and `0.0.0.0` can both be bound.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
