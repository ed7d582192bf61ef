"""Messages far above every limit: nothing of them is kept, nor waited for."""

from __future__ import annotations

import asyncio
import os
import tracemalloc

import pytest

from infraxa.net import websocket
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.wire import MAX_FRAME
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, replaced, target

PIECE = 64 * 1024


async def swallowed(attack: Attacker, node: Target, size: int, *, sealed: bool) -> int:
    """Bytes that a node keeps at most while one message of `size` bytes comes."""
    pipe = (await attack.talk(node)).pipe if sealed else await attack.pipe(node.address)
    tracemalloc.start()
    try:
        await fragments(pipe, size)
        async with asyncio.timeout(20):
            with pytest.raises(PipeClosed):
                while True:
                    await pipe.receive()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await pipe.close()


async def fragments(pipe: Pipe, size: int) -> None:
    """One WebSocket message in pieces, of which none is too large by itself (RFC 6455, 5.4)."""
    writer = pipe._websocket._writer  # type: ignore[attr-defined]
    for sent in range(0, size, PIECE):
        first, last = sent == 0, sent + PIECE >= size
        header = bytes(((0x80 if last else 0) | (2 if first else 0), 0x80 | 127))
        if writer.transport.is_closing():
            return
        writer.transport.write(header + PIECE.to_bytes(8) + bytes(4) + bytes(PIECE))
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("sealed", [False, True], ids=["first", "in a session"])
async def test_a_message_without_an_end(sealed: bool) -> None:
    size = report.scale(16 << 20, 128 << 20)
    async with attacker() as attack:
        with replaced((websocket, "MAX_FRAME", 1 << 30)):
            async with target() as weak:
                weakened = await swallowed(attack, weak, size, sealed=sealed)
                assert weakened > size
        async with target() as node:
            ours = await swallowed(attack, node, size, sealed=sealed)
            assert ours < 4 << 20
            await node.counted("too_large")
            assert not node.links
    report.tell(
        f"oversized: {size >> 20} MiB, {'in a session' if sealed else 'at the door'}",
        weakened=f"{weakened >> 20} MiB kept",
        ours="closed, too_large",
        cost=f"{ours >> 10} KiB at most, sender's buffers and all",
    )


async def test_a_frame_that_says_it_is_large() -> None:
    """Its header alone ends the connection."""
    async with attacker() as attack, target() as node:
        pipe = await attack.pipe(node.address)
        writer = pipe._websocket._writer  # type: ignore[attr-defined]
        writer.transport.write(bytes((0x82, 0x80 | 127)) + (1 << 40).to_bytes(8) + os.urandom(100))
        async with asyncio.timeout(20):
            with pytest.raises(PipeClosed):
                await pipe.receive()
        await node.counted("too_large")


async def test_the_largest_frame_passes_the_carrier() -> None:
    async with attacker() as attack, target() as node:
        pipe = await attack.pipe(node.address)
        await pipe.send(bytes(MAX_FRAME))
        await node.counted("too_large")  # for a first message
        with pytest.raises(PipeClosed):
            await pipe.receive()
