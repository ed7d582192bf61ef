"""Vocabularies between nodes: who offers a model gives its vocabulary to whoever asks for it by its hash.

Bytes that are what their hash says, and no more: what is in them is judged where they are used.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from infraxa.net import addresses, wire
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.guard import Rates
from infraxa.net.link import Link, Stream
from infraxa.net.rates import Bucket
from infraxa.net.relay import is_relayed

MAX_VOCAB: Final = 16 << 20
"""Bytes of an encoded vocabulary."""
FETCH_S: Final = 60.0
"""For all of one."""
SERVE_S: Final = 90.0
"""In which one that is asked for is found and read by the other side."""
EVERY_S: Final = 60.0
BURST: Final = 4
"""How often a group of addresses may ask; once would do, since it keeps what it gets."""
MAX_ASKERS: Final = 1024
AT_ONCE: Final = 4
"""Those that are being sent."""
BYTES_PER_S: Final = 512.0 * 1024
BYTES_BURST: Final = 64.0 * (1 << 20)
"""To all together; beyond, they come slowly."""

_PART: Final = 256 * 1024
_log = logging.getLogger(__name__)

Find = Callable[[bytes], Awaitable[Path | None]]
"""The file that holds the encoded vocabulary of this hash, if this node offers a model with it."""


class VocabService:
    """The side that has them."""

    def __init__(self) -> None:
        self.find: Find | None = None
        self._askers = Rates(MAX_ASKERS)
        self._bytes = Bucket(BYTES_PER_S, BYTES_BURST)
        self._running = 0

    async def serve(self, link: Link, stream: Stream, request: wire.VocabPlease) -> Refusal | None:
        """Answer who asks, whoever that is; returns why it was refused."""
        asker = addresses.group(link.remote)
        if (asker == addresses.LOCAL or is_relayed(link)) and (key := link.account or link.peer):
            asker = key.hex()  # many machines are in one such group
        now = link.clock.monotonic()
        if not self._askers.allow(asker, 1 / EVERY_S, BURST, now):
            await stream.fail(wire.Failure("rate_limited", retry_after_ms=int(EVERY_S * 1000)))
            return "rate"
        if self._running >= AT_ONCE:
            await stream.fail(wire.Failure("busy", retry_after_ms=5000))
            return None
        self._running += 1
        try:
            async with asyncio.timeout(SERVE_S):
                await self._send(link, stream, request.vocab)
        except TimeoutError:
            await stream.fail(wire.Failure("expired"))
        except OSError as error:
            _log.error("a vocabulary cannot be read: %s", error.strerror or error)
            await stream.fail(wire.Failure("internal"))
        finally:
            self._running -= 1
        return None

    async def _send(self, link: Link, stream: Stream, vocab: bytes) -> None:
        path = None if self.find is None else await self.find(vocab)
        if path is None:
            await stream.fail(wire.Failure("model_gone"))
            return
        clock = link.clock
        for at in range(0, MAX_VOCAB, _PART):
            if not (part := await asyncio.to_thread(_part, path, at)):
                return
            while not self._bytes.take(len(part), now := clock.monotonic()):  # noqa: ASYNC110 - time alone
                await asyncio.sleep(self._bytes.wait(len(part), now))
            await stream.send(part)


def _part(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(_PART)


async def fetch_vocabulary(link: Link, vocab: bytes) -> bytes:
    """The encoded vocabulary with the hash `vocab`, at most MAX_VOCAB bytes. Raises what FAILED lists:
    StreamFailed when the node does not give it, NetError `timeout`, ProtocolError for another one."""
    data, digest = bytearray(), hashlib.sha256()
    try:
        async with asyncio.timeout(FETCH_S), await link.request(wire.VocabPlease(vocab)) as stream:
            async for chunk in stream:
                if len(data) + len(chunk) > MAX_VOCAB:
                    raise ProtocolError("too_large", "a vocabulary")
                data += chunk
                digest.update(chunk)
    except TimeoutError:
        raise NetError(
            "timeout", f"The vocabulary did not come within {FETCH_S:g} s.", "It is tried again."
        ) from None
    if digest.digest() != vocab:
        raise ProtocolError("malformed", "another vocabulary than the one that was asked for")
    return bytes(data)
