"""Trials: a node asks a peer to buy one tiny answer from it, as any stranger would, and to say how that went.

How often somebody else's node may be made to do that is decided here; the purchase itself is the business of
whoever uses the network.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from infraxa.net import codec, wire
from infraxa.net.errors import Refusal
from infraxa.net.link import Link, Stream
from infraxa.net.rates import Bucket

SERVED_S: Final = 50 * 60.0
"""A node that was served is tried again after so long, not sooner."""
FAILED_S: Final = 10 * 60.0
"""And one that was not: somebody may be at repairing it."""
IN_ALL_S: Final = 15 * 60.0
IN_ALL: Final = 4
"""So many trials in an hour for all nodes together, however many of them ask."""
MAX_NODES: Final = 1024
"""Of which it is remembered when they were tried: far more than can be within SERVED_S."""
TRIAL_S: Final = 55.0
"""For one, here."""
ANSWER_S: Final = 60.0
"""For its outcome, on the side that asked."""

_log = logging.getLogger(__name__)

Trier = Callable[[bytes, wire.TryPlease], Awaitable[wire.Tried | wire.Failure]]
"""Buys from this node, and says what came of it; a Failure: it was not tried."""


class Turns:
    """Whose turn it is. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._next: OrderedDict[bytes, float] = OrderedDict()
        """By node: when it may be tried again; what was changed last is the last."""
        self._in_all = Bucket(1 / IN_ALL_S, IN_ALL)
        self._running = False

    def begin(self, node: bytes, now: float) -> wire.Failure | None:
        """Why `node` is not tried now; None: it is, until `end`."""
        if (wait := self._next.get(node, now) - now) > 0:
            return _later("rate_limited", wait)
        if self._running:
            return _later("busy", TRIAL_S)
        if not self._in_all.take(1, now):
            return _later("busy", self._in_all.wait(1, now))
        # Already, so that whoever cancels it and asks anew has had its turn.
        self._running = True
        self._again_in(node, SERVED_S, now)
        return None

    def end(self, node: bytes, now: float, *, served: bool | None) -> None:
        """It is over; `served`: None: nobody wants to know any more."""
        self._running = False
        if served is False:
            self._again_in(node, FAILED_S, now)

    def _again_in(self, node: bytes, seconds: float, now: float) -> None:
        self._next.pop(node, None)
        self._next[node] = now + seconds
        while len(self._next) > MAX_NODES:
            self._next.popitem(last=False)


class TrialService:
    """The side that buys."""

    def __init__(self) -> None:
        self.trier: Trier | None = None
        """None: nobody is tried."""
        self._turns = Turns()

    async def serve(self, link: Link, stream: Stream, node: bytes, request: wire.TryPlease) -> Refusal | None:
        """Answer the peer `node`; returns why it was refused."""
        if self.trier is None:
            await stream.fail(wire.Failure("unsupported"))
            return None
        clock, turns = link.clock.monotonic, self._turns
        if (refused := turns.begin(node, clock())) is not None:
            await stream.fail(refused)
            return "rate" if refused.code == "rate_limited" else None
        served: bool | None = None
        try:
            answer = await _tried(self.trier, node, request)
            served = isinstance(answer, wire.Tried) and not answer.code
        finally:
            turns.end(node, clock(), served=served)
        if isinstance(answer, wire.Failure):
            await stream.fail(answer)
        else:
            await stream.send(codec.encode(answer))
        return None


async def _tried(trier: Trier, node: bytes, request: wire.TryPlease) -> wire.Tried | wire.Failure:
    try:
        async with asyncio.timeout(TRIAL_S):
            return await trier(node, request)
    except TimeoutError:
        return wire.Failure("busy")
    except Exception as error:
        _log.error("a node was not tried: %s", type(error).__name__, exc_info=error)
        return wire.Failure("internal")


def _later(code: wire.ErrorCode, seconds: float) -> wire.Failure:
    return wire.Failure(code, retry_after_ms=math.ceil(seconds * 1000))
