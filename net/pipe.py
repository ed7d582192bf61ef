"""Transport and Pipe: what the network needs of a carrier. Ordered, reliable, framed; never trusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

OnPipe = Callable[["Pipe"], Awaitable[None]]
"""Called for each pipe that comes in; the pipe is closed when it returns."""


class PipeClosed(Exception):
    """The carrier is gone: the other side closed it, or it broke."""


class Pipe(Protocol):
    """Carries whole frames of at most wire.MAX_FRAME bytes, in order."""

    @property
    def remote(self) -> str:
        """The numeric address of the other side, or the `relay:…` that hands on. For limits only, never for
        identity."""

    async def send(self, frame: bytes) -> None:
        """Returns when there is room for more. Raises PipeClosed."""

    async def receive(self) -> bytes:
        """The next frame. Raises PipeClosed."""

    async def close(self) -> None:
        """Ends both directions; bounded; may be called twice."""


class Transport(Protocol):
    """One way to carry pipes."""

    @property
    def scheme(self) -> str:
        """Which addresses are for it: `ws`, `relay`."""

    async def dial(self, address: str) -> Pipe:
        """Connect. The caller sets the time limit. Raises NetError `unreachable`, `bad_address`."""

    async def close(self) -> None:
        """Ends listening and all its pipes."""
