"""The health of the few nodes that a person looks at: each is asked every second.

Over a link of its own where there is none. Of everybody else only what gossip tells is known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from infraxa.net import codec, wire
from infraxa.net.addresses import LOCAL, group
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.link import FAILED, Clock, Link, Stream
from infraxa.net.rates import Bucket
from infraxa.net.records import MAX_STATE, Record
from infraxa.net.tasks import TaskGroup

EVERY_S: Final = 1.0
AGAIN_S: Final = 5.0
"""Until a node that could not be asked is asked again."""
MAX_WATCHED: Final = 16
MAX_SILENT: Final = 256
"""Nodes that did not answer, and are remembered."""
MAX_PROBES: Final = 64
"""Nodes that are told of this one's state at once."""
MAX_GROUP_PROBES: Final = 16
"""Of them, from one group of addresses that is not the local one."""
STATES_PER_S: Final = 1.0
STATES_BURST: Final = 8
"""That a watched node may tell; each costs a signature check."""
UNANSWERED: Final = 2
"""Seconds of silence after which a node counts as silent."""

LinkTo = Callable[[bytes], Awaitable[Link]]


class Health:
    """Watches nodes. `learn` gets each state that one of them tells; `changed` is called when a round trip or
    the answering itself is another one; `let_go` gets a link of `link_to` when it is not needed any more."""

    def __init__(
        self,
        link_to: LinkTo,
        let_go: Callable[[Link], None],
        learn: Callable[[bytes, Record], None],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._link_to = link_to
        self._let_go = let_go
        self._clock = clock
        self._learn = learn
        self._changed = changed
        self._tasks = TaskGroup()
        self._watching: dict[bytes, asyncio.Task[None]] = {}
        self.silent: dict[bytes, float] = {}
        """Watched nodes that do not answer now, and those that did not when they were watched last; when that
        was seen last, by the clock, the newest at the end."""
        self.rtt_ms: dict[bytes, float] = {}

    def watch(self, nodes: tuple[bytes, ...]) -> None:
        """Watch these from now on, at most MAX_WATCHED, and no others."""
        wanted = dict.fromkeys(nodes[:MAX_WATCHED])
        for node in [node for node in self._watching if node not in wanted]:
            self._watching.pop(node).cancel()
            self.rtt_ms.pop(node, None)
        for node in wanted:
            if node not in self._watching:
                turn = partial(self._attend, node)
                self._watching[node] = self._tasks.repeat(turn, name="watch a node", pause_s=AGAIN_S)

    def is_silent(self, node: bytes, heard_at: float) -> bool:
        """Whether a watched node does not answer, or did not and was not heard of since; `heard_at`: by the
        clock, when there were news of it last. So who died is not there again once nobody looks."""
        since = self.silent.get(node)
        return since is not None and (node in self._watching or heard_at <= since)

    async def _attend(self, node: bytes) -> None:
        with contextlib.suppress(*FAILED):
            link = await self._link_to(node)
            try:
                async with await link.request(wire.Probe()) as stream:
                    await self._listen(node, link, stream)
            except ProtocolError as error:
                await link.close(error.reason)
            except asyncio.CancelledError:
                self._let_go(link)
                raise
        self._say(node, None)
        await asyncio.sleep(AGAIN_S)

    async def _listen(self, node: bytes, link: Link, stream: Stream) -> None:
        """Until the probe ends."""
        now = self._clock.monotonic
        states = Bucket(STATES_PER_S, STATES_BURST)
        pinging = self._tasks.spawn(self._ping(node, link), name="ping a watched node")
        try:
            async for chunk in stream:
                record: Record = codec.decode(chunk, Record, MAX_STATE)
                if record.kind != "state" or record.signed.signer != node:
                    raise ProtocolError("not_asked", "the state of another node")
                if not states.take(1, now()):
                    raise ProtocolError("rate", "states of a watched node")
                self._learn(node, record)
        finally:
            pinging.cancel()

    async def _ping(self, node: bytes, link: Link) -> None:
        unanswered = 0
        while True:
            before = link.bytes_in
            link.ping()
            await asyncio.sleep(EVERY_S)
            unanswered = 0 if link.bytes_in > before else unanswered + 1
            self._say(node, link.rtt_ms if unanswered < UNANSWERED else None)

    def _say(self, node: bytes, rtt_ms: float | None) -> None:
        if node not in self._watching:
            return  # a task may have its last turn after the node is not watched any more
        before = (self.silent.pop(node, None) is not None, self.rtt_ms.pop(node, None))
        if rtt_ms is None:
            self.silent[node] = self._clock.monotonic()
            if len(self.silent) > MAX_SILENT:
                del self.silent[next(iter(self.silent))]
        else:
            self.rtt_ms[node] = rtt_ms
        if before != (rtt_ms is None, rtt_ms):
            self._changed()

    async def close(self) -> None:
        await self._tasks.cancel_all()
        self._watching.clear()


class Probes:
    """The other side: tells those who watch this node of each new state, at once."""

    def __init__(self) -> None:
        self._streams: dict[Stream, str] = {}
        """And the group of addresses of who asked."""

    def __len__(self) -> int:
        return len(self._streams)

    async def serve(self, link: Link, stream: Stream, state: bytes) -> Refusal | None:
        """Answer a Probe, until it is cancelled; returns why it was refused. `state`: the newest one, an
        encoded Record, or nothing."""
        where = group(link.remote)
        same = list(self._streams.values()).count(where)
        if len(self._streams) >= MAX_PROBES or (where != LOCAL and same >= MAX_GROUP_PROBES):
            await stream.fail(wire.Failure("busy", retry_after_ms=60_000))
            return "full"
        self._streams[stream] = where
        try:
            if state:
                await stream.send(state)
            await asyncio.Event().wait()
        finally:
            del self._streams[stream]
        return None

    def tell(self, state: bytes) -> None:
        for stream in self._streams:
            with contextlib.suppress(*FAILED):  # one that ends just now
                stream.push(state)  # one that does not read misses it; gossip tells too
