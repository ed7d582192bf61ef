"""The carrier is cut in the middle of an answer: half of it does not pass for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from infraxa.net import connect, wire
from infraxa.net.link import Link, LinkClosed, LinkEnd, Stream
from tests.attacks import report
from tests.attacks.attacker import NETWORK
from tests.attacks.middle import Cut, middle
from tests.attacks.target import replaced, target
from tests.net.nodes import Node

SAID = [b"Pay the bill, ", b"but only if the goods have come."]


class Trusting(Link):
    """Takes the end of the carrier for the end of what was said."""

    def _close_soon(self, end: LinkEnd) -> None:
        if end.reason == "truncated":
            for stream in self._streams.values():
                stream.completed()
            self._streams = {n: stream for n, stream in self._streams.items() if n in self._handlers}
            end = LinkEnd(None, "peer")
        super()._close_soon(end)


async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
    for part in SAID:
        await stream.send(part)
        await asyncio.sleep(0.05)


async def cut_short() -> tuple[bytes, str, dict[str, int]]:
    """What a node takes for the whole answer; why its link ended; what it counted."""
    frames = 0

    def cut(frame: bytes, outward: bool) -> Iterable[bytes]:
        nonlocal frames
        frames += 0 if outward or frame.startswith(b"ix") else 1
        if not outward and heard:
            raise Cut
        return (frame,)

    heard: list[bytes] = []
    other = Node(network=NETWORK)
    other.handler = answer
    try:
        await other.listen()
        async with target() as node, middle(other.address, cut) as between:
            node.knows(other.id, between.address)
            link = await node.network.link_to(other.id)
            whole = b""
            async with await link.request(wire.CardPlease()) as stream:
                try:
                    async for chunk in stream:
                        heard.append(chunk)
                    whole = b"".join(heard)
                except LinkClosed:
                    pass
            end = await link.wait_closed()
            await asyncio.sleep(0)
            return whole, end.reason or "", dict(node.refused)
    finally:
        await other.close()


async def test_half_an_answer_is_not_the_answer() -> None:
    with replaced((connect, "Link", Trusting)):
        whole, reason, counted = await cut_short()
        assert (whole, reason, counted) == (SAID[0], "", {})
    assert await cut_short() == (b"", "truncated", {"truncated": 1})
    report.tell(
        "truncated: the carrier is cut in an answer",
        weakened=f"{len(SAID[0])} of {sum(map(len, SAID))} bytes pass for all",
        ours="the answer fails, truncated",
    )
