"""Answers that the engine is through with and that their users are still reading: their slots are others'.

Two bounds hold for them. All of them together are at most MOST bytes, or one answer: one that is more keeps
its slot until there is room or it is sent, so that who does not read stops the engine before memory is full.
And each is to be read in the time that the bytes need on a slow line, however little by little it is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from infraxa.app.taken import Taken
from infraxa.app.throttle import Throttle
from infraxa.engine.types import Request

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

MOST: Final = 8 << 20
"""Bytes on the wire, about. In memory likelihoods take ten times as many, and all else no more."""
BEGIN_S: Final = 60.0
"""For a user to read on, as for each frame (net/sale.py)."""
RATE: Final = 4000
"""Bytes per second at which the rest is to be read besides; half of what a user on a slow line sends."""
_TOKEN: Final = 24
"""Bytes of a token, its text and, where it is told, its likelihood; about, and rather more."""


def size_of(request: Request, n_tokens: int) -> int:
    """Bytes on the wire of so many tokens of an answer to this, about."""
    told = 1 if request.logprobs is None else 2 + request.logprobs
    return n_tokens * _TOKEN * told


class Unsent:
    """Of one provider."""

    def __init__(self, throttle: Throttle, leave: Callable[[Taken], None]) -> None:
        """`leave` gives the slot of an order to another."""
        self._throttle = throttle
        self._leave = leave
        self._kept: dict[Rest, int] = {}
        """Bytes of those without a slot."""
        self._waiting: dict[Rest, int] = {}
        """Of those for which there was no room."""

    def of(self, run: Taken, sale: Sale) -> Rest:
        """That of this order."""
        return Rest(self, run, sale)

    def keep(self, rest: Rest, size: int) -> None:
        """The engine is through with it."""
        self._waiting[rest] = size
        self._advance()

    def drop(self, rest: Rest) -> None:
        """There is none any more."""
        if self._waiting.pop(rest, None) is not None:
            self._leave(rest.run)
        self._kept.pop(rest, None)
        self._advance()

    def late(self, sale: Sale) -> None:
        """It was not read in time; unless it was this side that had to send slowly."""
        if not self._throttle.limited:
            sale.stall()

    def _advance(self) -> None:
        for rest, size in list(self._waiting.items()):
            if not self._kept or sum(self._kept.values()) + size <= MOST:
                del self._waiting[rest]
                self._kept[rest] = size
                self._leave(rest.run)


class Rest:
    """What is unsent of one answer, from when the engine is through with it until the end of the block."""

    def __init__(self, unsent: Unsent, run: Taken, sale: Sale) -> None:
        self.run = run
        self._unsent = unsent
        self._sale = sale
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def through(self, size: int) -> None:
        """The engine is, and so many bytes are not sent; once, and not after the block."""
        if self._over or self._timer is not None:
            return
        seconds = BEGIN_S + size / RATE
        self._timer = asyncio.get_running_loop().call_later(seconds, self._unsent.late, self._sale)
        self._unsent.keep(self, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._unsent.drop(self)
