"""What nodes are asked for besides what they tell unasked: lists of other nodes, rounds of anti-entropy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from infraxa.net import addresses, codec, wire
from infraxa.net.auth import ANSWER_S
from infraxa.net.commands import Command
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.gossip import Gossip
from infraxa.net.guard import Rates
from infraxa.net.identity import short_id
from infraxa.net.link import FAILED, Clock, Link, Stream
from infraxa.net.rounds import ROUND_S

LIST_EVERY_S: Final = 10.0
LISTS_BURST: Final = 8
"""How often one group of addresses may ask for other nodes."""
MAX_ASKERS: Final = 1024

_log = logging.getLogger(__name__)


class Exchange:
    """Asks and answers. `link_of`: the link with a node, if one stands; `perform` carries out what gossip
    wants, `refuse` counts what a node did wrong."""

    def __init__(
        self,
        gossip: Gossip,
        clock: Clock,
        *,
        link_of: Callable[[bytes], Link | None],
        perform: Callable[[Iterable[Command]], None],
        refuse: Callable[[bytes, Refusal], None],
    ) -> None:
        self._gossip = gossip
        self._clock = clock
        self._link_of = link_of
        self._perform = perform
        self._refuse = refuse
        self._lists = Rates(MAX_ASKERS)

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
                self._perform(self._gossip.learn(node, push, now, now_ms))
            else:
                self._refuse(node, "not_asked")

    async def run_round(self, node: bytes) -> None:
        """One round of anti-entropy."""
        now = self._clock.monotonic
        current = self._gossip.round(node, now())
        while current.request is not None:
            link = self._link_of(node)
            if link is None:
                current.fail(now())
                return
            try:
                async with asyncio.timeout(ROUND_S), await link.request(current.request) as stream:
                    async for chunk in stream:
                        self._perform(current.chunk(chunk, now(), self._clock.unix_ms()))
                current.end(now())
            except TimeoutError:
                current.fail(now())
                return
            except ProtocolError as error:
                self._refuse(node, error.reason)
                return
            except FAILED:
                current.fail(now())
                return
