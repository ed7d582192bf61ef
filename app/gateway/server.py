"""The gateway's HTTP server: who may connect, how much of everything there can be, how it begins and ends.

aiohttp parses; what is answered is in serving.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web

from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway.access import Access, check_json, preflight
from infraxa.app.gateway.errors import ApiError, api_error, busy, mistake
from infraxa.app.gateway.exchange import GONE, Exchange, Held, event
from infraxa.app.gateway.metrics import Metrics
from infraxa.app.gateway.serving import Serving

_log = logging.getLogger(__name__)
# What a client sends that is no HTTP is no event: aiohttp would log each of it as an error.
_silent = logging.Logger("infraxa.gateway.http", logging.CRITICAL + 1)

BACKLOG: Final = 1024
MAX_CONNECTIONS: Final = 2048
MAX_REFUSED: Final = 64
"""Connections beyond them that are told so; what comes then is cut."""
REFUSED_S: Final = 5.0
"""Seconds that these have for their request."""
MAX_RUNNING: Final = 512
"""Requests at a time."""
RESERVED_FILES: Final = 256
"""That the rest of the node needs, as a rule."""
IDLE_S: Final = 120.0
"""A connection without a whole request ends after so long."""
LINGER_S: Final = 2.0
"""The rest of a body that was refused is read so long, so that its client can read why."""
DRAIN_S: Final = 3.0
"""What runs may go on for so long when the gateway is closed."""
CLOSE_S: Final = 1.0
_HEADER_BYTES: Final = 8192
_HEADERS: Final = 64

_Endpoint = Callable[[Exchange], Awaitable[web.StreamResponse]]


def _nothing() -> None:
    """There is no subscription."""


class Gateway:
    """`open` it once, `close` it once."""

    def __init__(
        self, node: NodeFacade, *, key: str, host: str, port: int, origins: Sequence[str] = ()
    ) -> None:
        """`host` is a name or an address of this machine; `port` 0 is any free one."""
        self.key, self.host, self.port = key, host, port
        self.address = ""
        """`http://127.0.0.1:8790`, once it is open."""
        self.room = MAX_CONNECTIONS
        """How many connections it takes."""
        self._access = Access(key, host, origins)
        self._metrics = Metrics(node)
        self._held = Held()
        self._running: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        serving = Serving(node, self._metrics)
        self._endpoints: dict[tuple[str, str], _Endpoint] = {
            ("GET", "/health"): serving.health,
            ("GET", "/metrics"): serving.metrics,
            ("GET", "/v1/models"): serving.models,
            ("POST", "/v1/chat/completions"): serving.chat,
            ("POST", "/v1/completions"): serving.completions,
            ("POST", "/v1/embeddings"): serving.embeddings,
        }
        self._model = serving.model
        self._hear, self._subscribe = serving.hear, node.subscribe
        self._deaf = _nothing
        self._http: _Http | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Begin to listen; what a person should know of its limits, or nothing. Raises NodeError
        `port_taken`, `no_interface`, `no_files`."""
        self.room, limited = _room()
        self._http = _Http(self._handle, self.room)
        loop = asyncio.get_running_loop()
        # A name that has several addresses would get several ports.
        host = "127.0.0.1" if self.host.casefold() == "localhost" else self.host
        try:
            self._server = await loop.create_server(self._http, host, self.port, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:
            raise _not_listening(error, self.host, self.port) from None
        self._deaf = self._subscribe(self._hear)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"
        return limited

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Listen no more, let what runs go on for `drain_s` seconds, then end it. Bounded."""
        self._closing = True
        self._deaf()
        self._deaf = _nothing
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            self._http.pre_shutdown()
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            for task in list(self._running):
                task.cancel()
        if self._http is not None:
            await self._http.shutdown(CLOSE_S)
        if self._server is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._server.wait_closed()
            except TimeoutError:
                _log.warning("a listening socket of the gateway did not close in time")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None and self._http is not None
        self._running.add(task)
        self._idle.clear()
        exchange = Exchange(request, self._held)
        name = "other"
        self._metrics.running.set(len(self._running))
        self._metrics.connections.set(self._http.open)
        try:
            exchange.allowed = self._access.check_page(request.headers)
            name, endpoint = self._route(request)
            self._admit(request, name)
            return await endpoint(exchange)
        except ApiError as error:
            return await self._fail(exchange, error)
        except FAILURES as error:
            return await self._fail(exchange, api_error(error))
        except asyncio.CancelledError:
            if not self._closing:
                exchange.status = GONE
                raise
            return await self._fail(exchange, ApiError(503, "The gateway was closed.", code="closed"))
        except ConnectionError:
            exchange.status = GONE
            raise
        except Exception as error:
            return await self._fail(exchange, mistake(name, error))
        finally:
            exchange.release()
            self._metrics.answered(name, exchange.status)
            self._running.discard(task)
            self._metrics.running.set(len(self._running))
            if not self._running:
                self._idle.set()

    def _route(self, request: web.BaseRequest) -> tuple[str, _Endpoint]:
        """The endpoint, and its name for the metrics. Raises ApiError 404, 405."""
        method, path = request.method, request.rel_url.raw_path
        if method == "OPTIONS":
            return "preflight", self._preflight
        if path.startswith("/v1/models/") and method == "GET":
            return "/v1/models", self._model
        if (found := self._endpoints.get((method, path))) is not None:
            return path, found
        if any(path == known for _, known in self._endpoints):
            raise ApiError(405, "This is asked for with another method.", code="method_not_allowed")
        raise ApiError(404, "There is nothing here. The endpoints begin with /v1/.", code="not_found")

    def _admit(self, request: web.BaseRequest, name: str) -> None:
        """Raises ApiError for who has no key, what is no JSON, and when there is no room."""
        assert self._http is not None
        if name not in ("/health", "preflight"):
            self._access.check_key(request.headers)
            if request.method == "POST":
                check_json(request.headers)
        if request.protocol in self._http.refused:
            raise ApiError(503, f"The gateway has its {self.room} connections.", code="busy", retry_after=1)
        if self._closing:
            raise ApiError(503, "The gateway is being closed.", code="closed")
        if len(self._running) > MAX_RUNNING:
            raise busy(f"The gateway answers {MAX_RUNNING} requests at a time.")

    async def _preflight(self, exchange: Exchange) -> web.StreamResponse:
        headers = preflight(exchange.request.headers, exchange.allowed)
        return await exchange.send(204, b"", headers=headers)

    async def _fail(self, exchange: Exchange, error: ApiError) -> web.StreamResponse:
        if exchange.streaming:
            exchange.status = error.status
            await exchange.write(event_of(error))
            return await exchange.end_stream()
        response = await exchange.send(error.status, error.body, headers=error.headers)
        assert self._http is not None
        if self._closing or exchange.request.protocol in self._http.refused:
            response.force_close()
        return response


class _Http(web.Server):
    """aiohttp's server with limits. A request is cancelled when its client goes away."""

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], room: int) -> None:
        self.refused: set[web.RequestHandler] = set()
        """Connections for which there was no room."""
        self.open = 0
        """Connections, those included."""
        self._room = room
        super().__init__(
            handle,
            handler_cancellation=True,
            access_log=None,
            logger=_silent,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_HEADERS,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.open += 1
        beyond = self.open - self._room
        if beyond > 0:
            self.refused.add(handler)
            loop = asyncio.get_running_loop()
            if beyond > MAX_REFUSED:
                loop.call_soon(transport.abort)  # aiohttp does not bear it at once
            else:
                loop.call_later(REFUSED_S, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.open -= 1
        self.refused.discard(handler)


def event_of(error: ApiError) -> bytes:
    """An error after a stream has begun."""
    import msgspec

    return event(msgspec.json.decode(error.body))


def _room() -> tuple[int, str]:
    """How many connections there can be, and a word when these are fewer than there should be. Allows this
    process more files, as far as it may. Raises NodeError `no_files`."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS, ""
    import resource

    wanted = MAX_CONNECTIONS + MAX_REFUSED + RESERVED_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < wanted:
        more = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, most))
            files = more
        except (OSError, ValueError):
            _log.debug("the limit of open files stays at %d", files)
    if files == resource.RLIM_INFINITY or files >= wanted:
        return MAX_CONNECTIONS, ""
    room = files - RESERVED_FILES - MAX_REFUSED
    if room < 16:
        raise NodeError(
            "no_files",
            f"The gateway cannot be opened: this system lets a program open {files} files.",
            f"Allow more: ulimit -n {wanted}.",
        )
    return room, (
        f"The gateway takes {room} connections at a time, not {MAX_CONNECTIONS}: this system lets a program "
        f"open {files} files. Allow more with ulimit -n {wanted}."
    )


def _not_listening(error: OSError | UnicodeError, host: str, port: int) -> NodeError:
    number = getattr(error, "errno", None)
    if number in (errno.EADDRINUSE, errno.EACCES):
        return NodeError(
            "port_taken",
            f"The gateway cannot listen on port {port}: it is used by another program, or not allowed.",
            "Choose another one: infraxa gateway --port N, or infraxa config set gateway_port N.",
        )
    reason = "it is no address of this machine"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and number:
        reason = os.strerror(number).lower()
    return NodeError(
        "no_interface", f"The gateway cannot listen on {host}: {reason}.", "Leave --host out for 127.0.0.1."
    )
