"""One request and its answer on the wire: what is read and written is bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import HttpVersion11, web

from infraxa.app.gateway.bodies import MAX_BODY
from infraxa.app.gateway.errors import ApiError, busy

BODY_S: Final = 60.0
"""Seconds from a request's headers to the end of its body."""
WRITE_S: Final = 30.0
"""Seconds in which a client reads some of what waits for it; whoever reads nothing for so long is cut."""
MAX_HELD: Final = 128 << 20
"""Bytes of bodies that all requests together may hold."""
GONE: Final = 499
"""The status of a request whose client went away, as it is counted."""

Json = Mapping[str, Any]


class Held:
    """How many bytes of bodies are in memory."""

    def __init__(self) -> None:
        self.size = 0


class Exchange:
    """Of one request."""

    def __init__(self, request: web.BaseRequest, held: Held) -> None:
        self.request = request
        self.allowed: dict[str, str] = {}
        """Headers for a listed web page."""
        self.id = f"req_{secrets.token_hex(12)}"
        self.status = GONE
        """That was answered."""
        self._held = held
        self._size = 0
        self._stream: web.StreamResponse | None = None

    @property
    def streaming(self) -> bool:
        """The answer has begun: a failure has no status any more."""
        return self._stream is not None

    async def read(self) -> bytes:
        """The body. Raises ApiError 408, 413, 429."""
        request = self.request
        if (request.content_length or 0) > MAX_BODY:
            raise _too_large()
        if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # nothing of the answer has left
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while chunk := await request.content.readany():
                    self._hold(len(chunk))
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise _too_large()
        except TimeoutError:
            raise ApiError(408, f"The body did not come within {BODY_S:g} s.", code="timeout") from None
        except web.RequestPayloadError:
            raise ApiError(400, "The body is not what its headers say.", code="bad_request") from None
        return bytes(body)

    def _hold(self, size: int) -> None:
        self._size += size
        self._held.size += size
        if self._held.size > MAX_HELD:
            raise busy("The gateway holds as much of other requests as it may.")

    def release(self) -> None:
        """Nothing is held for it any more."""
        self._held.size -= self._size
        self._size = 0

    async def send_json(self, value: Json, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
        return await self.send(200, msgspec.json.encode(value), headers=headers)

    async def send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """The whole answer. Raises ConnectionError when the client has gone or does not read."""
        self.status = status
        given = {**self._headers(), "Content-Type": content_type, **(headers or {})}
        response = web.Response(status=status, body=body, headers=given)
        if status in (408, 413):
            response.force_close()  # the rest of the body may still come
        await self._timed(self._finish(response))
        return response

    async def _finish(self, response: web.StreamResponse) -> None:
        await response.prepare(self.request)
        await response.write_eof()

    async def begin_stream(self, headers: Mapping[str, str]) -> None:
        """Server-sent events follow."""
        self.status = 200
        given = {
            **self._headers(),
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # proxies that collect an answer would hold it back
            **headers,
        }
        response = web.StreamResponse(status=200, headers=given)
        await response.prepare(self.request)
        self._stream = response

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client has gone or does not read."""
        assert self._stream is not None
        await self._timed(self._stream.write(data))

    async def end_stream(self) -> web.StreamResponse:
        assert self._stream is not None
        await self._timed(self._stream.write_eof())
        return self._stream

    async def _timed(self, writing: Any) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await writing
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    def _headers(self) -> dict[str, str]:
        named = {"Server": "infraxa", "X-Request-Id": self.id, "Cache-Control": "no-store"}
        return {**self.allowed, **named}


def event(value: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"
ALIVE: Final = b": waiting\n\n"
"""A comment, which clients skip."""


def _too_large() -> ApiError:
    return ApiError(413, f"A body may have {MAX_BODY >> 20} MiB.", code="too_large")
