"""How quickly answers go out to other nodes, when a person set a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgspec

from infraxa.engine.types import Delta
from infraxa.net.rates import Bucket

TOKEN_BYTES = 4
"""Of one token's id on the wire, about."""


class Throttle:
    """So many bytes per second of all answers together, after a burst of one second; in order of asking."""

    def __init__(self) -> None:
        self._bucket: Bucket | None = None
        self._turn = asyncio.Lock()

    def limit(self, bytes_per_s: int | None) -> None:
        """None: as many as there are."""
        if bytes_per_s is None:
            self._bucket = None
        elif self._bucket is None or self._bucket.rate != bytes_per_s:
            self._bucket = Bucket(bytes_per_s, bytes_per_s)

    @property
    def limited(self) -> bool:
        return self._bucket is not None

    @property
    def part(self) -> int:
        """Bytes to ask for at a time, so that others have their turn in between."""
        return 1024 if self._bucket is None else max(64, min(4096, int(self._bucket.rate) // 8))

    async def allow(self, size: int) -> None:
        """Returns when `size` bytes may be sent."""
        async with self._turn:
            while (bucket := self._bucket) is not None:
                size = min(size, int(bucket.burst))
                if bucket.take(size, time.monotonic()):
                    return
                await asyncio.sleep(bucket.wait(size, time.monotonic()))


def parts(delta: Delta, size: int) -> Iterator[tuple[Delta, int]]:
    """What came, in pieces of about `size` bytes, each with its own bytes; tokens before their text, and
    what commits to them before all."""
    count = max(1, -(-_size(delta) // size))
    letters, tokens = -(-len(delta.text) // count), -(-len(delta.token_ids) // count)
    for i in range(count):
        some = slice(i * tokens, (i + 1) * tokens)
        text = delta.text[i * letters : (i + 1) * letters]
        part = Delta(text, delta.token_ids[some], delta.logprobs[some])
        if not i:
            part = msgspec.structs.replace(part, leaves=delta.leaves, ctx0=delta.ctx0)
        yield part, _size(part)


def _size(delta: Delta) -> int:
    """Bytes on the wire, about."""
    named = sum(
        2 * TOKEN_BYTES + len(one.piece) + sum(2 * TOKEN_BYTES + len(piece) for _, piece, _ in one.top)
        for one in delta.logprobs
    )
    return len(delta.text.encode()) + TOKEN_BYTES * len(delta.token_ids) + named
