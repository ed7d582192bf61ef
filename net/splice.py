"""A circuit at work: what comes on each of two streams of a relay is carried over to the other, in time.

At most one frame for each direction is held here; what else waits is within the windows of the streams, so
that a slow reader stops the sender.
"""

from __future__ import annotations

import asyncio
from typing import Final

from infraxa.net import codec
from infraxa.net.circuits import Circuit
from infraxa.net.errors import NetError, Refusal
from infraxa.net.link import Clock, Link, LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.tasks import TaskGroup
from infraxa.net.wire import Failure, RelayDialed, RelayIncoming

OPEN_S: Final = 10.0
"""Seconds until both ends of a new circuit have sent something."""
IDLE_S: Final = 60.0
"""Seconds without a frame after which a circuit ends; the links in it say something every few seconds."""
HALF_CLOSED_S: Final = 10.0
"""Seconds that the other direction has when one has ended."""

ENDS: Final = (StreamCancelled, StreamFailed, LinkClosed)
"""What a stream raises when it is over before its end."""


async def splice(stream: Stream, target: Link, circuit: Circuit, clock: Clock) -> Refusal | None:
    """Answer RelayDial on `stream` by handing frames on to and from the node of `target`, until one of them
    has ended or a limit is met; the dialer is told which. Returns `rate` when the bytes are used up."""
    carrying = _Carrying(circuit, clock)
    try:
        async with (
            asyncio.timeout(OPEN_S) as carrying.limit,
            await target.request(RelayIncoming()) as onward,
        ):
            await stream.send(codec.encode(RelayDialed()))
            await carrying.run(stream, onward)
    except (TimeoutError, NetError, *ENDS):
        if carrying.open:
            stream.cancel()  # also what waits for a dialer that does not read
        else:
            await stream.fail(Failure("unreachable"))
    except _UsedUp as error:
        await stream.fail(error.failure)
        return "rate"
    return None


class _UsedUp(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _Carrying:
    """Carries what comes on each of two streams over to the other."""

    limit: asyncio.Timeout

    def __init__(self, circuit: Circuit, clock: Clock) -> None:
        self._circuit = circuit
        self._clock = clock
        self._heard: set[Stream] = set()
        self._ending = False

    @property
    def open(self) -> bool:
        """Both ends have sent something."""
        return len(self._heard) == 2

    async def run(self, dialer: Stream, target: Stream) -> None:
        """Returns when the target has ended, and what it said before is handed on. Raises TimeoutError by
        `limit`, _UsedUp, and what the streams raise."""
        tasks = TaskGroup()
        told = (_UsedUp, *ENDS)
        try:
            to = tasks.spawn(self._carry(dialer, target), name="relay to", told=told)
            back = tasks.spawn(self._carry(target, dialer), name="relay back", told=told)
            done, _ = await asyncio.wait((to, back), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if back not in done:
                # The dialer has said all it had to say.
                self._ending = True
                self._extend(HALF_CLOSED_S)
                await back
        finally:
            await tasks.cancel_all()

    async def _carry(self, source: Stream, sink: Stream) -> None:
        async for frame in source:
            wait = self._circuit.hand_on(len(frame), self._clock.monotonic())
            if isinstance(wait, Failure):
                raise _UsedUp(wait)
            if wait > 0:
                await asyncio.sleep(wait)
            await sink.send(frame)
            self._heard.add(source)
            if self.open and not self._ending:
                self._extend(IDLE_S)
        await sink.end()

    def _extend(self, seconds: float) -> None:
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + seconds)
