"""A man in the middle: hands frames on between one who dials him and a node, and may change or cut them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.tasks import TaskGroup
from infraxa.net.websocket import WebSocketTransport

Change = Callable[[bytes, bool], Iterable[bytes]]
"""Gets a frame and whether it goes to the node; gives what is handed on in its place."""


class Cut(Exception):
    """Raised by a Change: both connections are closed."""


class Middle:
    """Between whoever dials `address` and the node at `towards`."""

    def __init__(self, towards: str, change: Change) -> None:
        self._towards = towards
        self._change = change
        self._transport = WebSocketTransport()
        self.address = ""
        self.seen: list[bytes] = []
        """Every frame that was in his hands."""

    async def listen(self) -> None:
        ((_, port),) = await self._transport.listen(["127.0.0.1"], 0, self._take)
        self.address = f"ws://127.0.0.1:{port}"

    async def close(self) -> None:
        await self._transport.close()

    async def _take(self, dialler: Pipe) -> None:
        node = await self._transport.dial(self._towards)
        tasks = TaskGroup()
        try:
            there = tasks.spawn(self._hand_on(dialler, node, True), name="there")
            back = tasks.spawn(self._hand_on(node, dialler, False), name="back")
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.cancel_all()
            await node.close()

    async def _hand_on(self, source: Pipe, sink: Pipe, outward: bool) -> None:
        try:
            while True:
                frame = await source.receive()
                self.seen.append(frame)
                for changed in self._change(frame, outward):
                    await sink.send(changed)
        except (PipeClosed, Cut):
            return


@asynccontextmanager
async def middle(towards: str, change: Change) -> AsyncIterator[Middle]:
    made = Middle(towards, change)
    try:
        await made.listen()
        yield made
    finally:
        await made.close()


def unchanged(frame: bytes, outward: bool) -> Iterable[bytes]:
    return (frame,)
