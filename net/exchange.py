"""Gossip between linked nodes: carries out what it wants, asks for what it misses, answers who asks.

What is believed and what is wanted is decided in gossip.py; who is linked is known in peering.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from infraxa.net import addresses, codec, commands, wire
from infraxa.net.auth import ANSWER_S
from infraxa.net.commands import Command
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.gossip import Gossip
from infraxa.net.guard import Rates
from infraxa.net.identity import short_id
from infraxa.net.link import FAILED, Clock, Link, Stream
from infraxa.net.overlay import Overlay
from infraxa.net.refusals import Refusals
from infraxa.net.rounds import ROUND_S, Round
from infraxa.net.tasks import TaskGroup

LIST_EVERY_S: Final = 10.0
LISTS_BURST: Final = 8
"""How often one group of addresses may ask for other nodes."""
MAX_ASKERS: Final = 1024

_log = logging.getLogger(__name__)


class Exchange:
    """What goes over the links of peers, in both directions."""

    def __init__(
        self,
        gossip: Gossip,
        overlay: Overlay,
        clock: Clock,
        refusals: Refusals,
        link_of: Callable[[bytes], Link | None],
        command: Callable[[Command], None],
    ) -> None:
        """`link_of`: the link with a node, if one stands; `command` gets what is not about links."""
        self._gossip = gossip
        self._overlay = overlay
        self._clock = clock
        self._refusals = refusals
        self._link_of = link_of
        self._command = command
        self._lists = Rates(MAX_ASKERS)
        self._tasks = TaskGroup()
        self._due = float("inf")
        self.kick: Callable[[], None] = lambda: None
        """Told when gossip must be ticked earlier than it said before."""

    def perform(self, todo: Iterable[Command]) -> None:
        """Carry out what gossip wants."""
        now = self._clock.monotonic()
        for command in todo:
            match command:
                case commands.Send(peer=node, message=message):
                    if (link := self._link_of(node)) is not None:
                        link.tell_soon(message)
                case commands.Sync(peer=node):
                    begin = self._gossip.round
                    self._tasks.spawn(self._run_round(node, begin), name="anti-entropy")
                case commands.SyncRatings(peer=node):
                    begin = self._gossip.ratings.round
                    self._tasks.spawn(self._run_round(node, begin), name="anti-entropy of ratings")
                case commands.Refused(peer=node, reason=reason):
                    self._refuse(node, reason)
                case commands.Drop(peer=node, reason=reason, ban_s=seconds):
                    self._overlay.ban(node, seconds, now)
                    self._drop(node, reason)
                case _:
                    self._command(command)
        for node, records in self._gossip.take_news().items():
            self._overlay.supplied(node, records, now)
        due = self._gossip.next_tick(now)
        if due < self._due:
            self._due = due
            self.kick()

    def tick(self) -> float:
        """Let gossip do what is due; returns when to call again at the latest."""
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        self._due = float("-inf")
        self.perform(self._gossip.tick(now, now_ms))
        self._due = self._gossip.next_tick(now)
        return self._due

    async def answer_list(self, link: Link, stream: Stream, count: int, node: bytes) -> Refusal | None:
        """Answer PeersPlease, which costs milliseconds and many times its own bytes; returns why it was
        refused. `node`: who asks, empty for who did not say so."""
        now = self._clock.monotonic()
        asker = node.hex() if node else addresses.group(link.remote)
        if not self._lists.allow(asker, 1 / LIST_EVERY_S, LISTS_BURST, now):
            await stream.fail(wire.Failure("rate_limited", retry_after_ms=int(LIST_EVERY_S * 1000)))
            return "rate"
        await stream.send(codec.encode(self._gossip.peers_told(node, count, now)))
        return None

    async def ask_for_nodes(self, node: bytes, link: Link) -> None:
        """Ask a node for others that it knows. What cannot be had is left: gossip brings it too."""
        try:
            async with asyncio.timeout(ANSWER_S), await link.request(wire.PeersPlease()) as stream:
                push = codec.decode(await anext(stream), wire.Tell)
        except ProtocolError as error:
            self._refuse(node, error.reason)
        except (*FAILED, TimeoutError, StopAsyncIteration) as error:
            _log.info("%s tells of nobody: %r", short_id(node), error)
        else:
            if isinstance(push, wire.Push) and len(push.records) <= wire.MAX_PEERS_TOLD:
                now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
                self.perform(self._gossip.learn(node, push, now, now_ms))
            else:
                self._refuse(node, "not_asked")

    async def _run_round(self, node: bytes, begin: Callable[[bytes, float], Round]) -> None:
        """One round of anti-entropy."""
        now = self._clock.monotonic
        current = begin(node, now())
        while current.request is not None:
            link = self._link_of(node)
            if link is None:
                current.fail(now())
                return
            try:
                async with asyncio.timeout(ROUND_S), await link.request(current.request) as stream:
                    async for chunk in stream:
                        self.perform(current.chunk(chunk, now(), self._clock.unix_ms()))
                current.end(now())
            except ProtocolError as error:
                self._refuse(node, error.reason)
                return
            except (*FAILED, TimeoutError):
                current.fail(now())
                return

    def _refuse(self, node: bytes, reason: Refusal) -> None:
        link = self._link_of(node)
        self._refusals.add(reason, peer=node, address=link.remote if link is not None else "")
        if self._overlay.refused(node, reason, self._clock.monotonic()) is not None:
            self._drop(node, reason)

    def _drop(self, node: bytes, reason: Refusal) -> None:
        if (link := self._link_of(node)) is not None:
            self._tasks.spawn(link.close(reason), name="drop a peer")

    async def close(self) -> None:
        """Ask nobody for anything any more."""
        await self._tasks.cancel_all()
