"""What a driver opens of an answer that it has committed to, and how it is asked for.

Bytes and their limits: what they prove is judged by who asked. Which steps are opened follows from the
secret in the request, which nobody but the user knew before the driver signed its receipt.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from msgspec import Meta, Struct

from infraxa.net import codec, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.link import Link
from infraxa.net.orders import CHECKPOINT, MAX_OUT

OPENED: Final = 16
"""Steps that are opened where not all are asked for, or as many as there are."""
MAX_OPENING: Final = 4 * 1024 * 1024
"""Bytes of an encoded opening: all of 7000 steps, some of 300 000."""
MAX_LEAF: Final = 591
"""Bytes of a leaf with 64 candidates."""
HASH: Final = 32
MAX_PATH: Final = 24 * HASH
"""Bytes of a path in a tree, or of a proof that one tree continues another: more than MAX_OUT leaves need."""
PART: Final = 64 * 1024
"""Bytes of a chunk of one."""
TOKEN: Final = 4
"""Bytes of a token."""
WAIT_S: Final = 30.0
STEPS_PER_S: Final = 100.0
MOST_WAIT_S: Final = 300.0
"""An opening may take WAIT_S, and a second more for so many steps of the answer, but at most so long."""

_Leaf = Annotated[bytes, Meta(min_length=1, max_length=MAX_LEAF)]
_Path = Annotated[bytes, Meta(max_length=MAX_PATH)]


class Opening(Struct, array_like=True, frozen=True):
    """What the driver says of an answer, and by what it fits to what was committed to: the tree that follows
    from the leaves when all are here, and nothing more then; else hashes of it."""

    tokens: Annotated[bytes, Meta(max_length=TOKEN * MAX_OUT)]
    """All that were sampled, in their order, as uint32, little-endian."""
    leaves: Annotated[tuple[_Leaf, ...], Meta(max_length=MAX_OUT)]
    """Of the steps that were asked for, in their order."""
    paths: Annotated[tuple[_Path, ...], Meta(max_length=OPENED)] = ()
    """One for each leaf, hashes joined."""
    consistency: Annotated[tuple[_Path, ...], Meta(max_length=MAX_OUT // CHECKPOINT)] = ()
    """One for each checkpoint, hashes joined: the root of the tree as it was then, which the checkpoint has
    committed with its number of steps, and after it what shows that the whole tree continues that one."""
    root: Annotated[bytes, Meta(max_length=HASH)] = b""
    """Of the whole tree, which the receipt has committed with its number of steps."""

    def __repr__(self) -> str:
        """Without what the answer is made of."""
        return f"Opening({len(self.leaves)} leaves)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("leaves", len(self.leaves))]


def encode(opening: Opening) -> bytes:
    """Raises ValueError for one that nobody would take."""
    data = codec.encode(opening)
    try:
        decode(data)
    except ProtocolError as error:
        raise ValueError(f"an opening of {len(data)} bytes: {error.reason}") from None
    return data


def decode(data: bytes) -> Opening:
    """Raises ProtocolError for what cannot be an opening of any answer."""
    opening: Opening = codec.decode(data, Opening, MAX_OPENING)
    steps, odd = divmod(len(opening.tokens), TOKEN)
    hashes = (*opening.paths, *opening.consistency, opening.root)
    if odd or any(len(path) % HASH for path in hashes):
        raise ProtocolError("malformed", "a part of an opening")
    if len(opening.leaves) == steps:
        right = not any(hashes) and not opening.paths and not opening.consistency
    else:
        right = (
            len(opening.root) == HASH
            and len(opening.paths) == len(opening.leaves)
            and len(opening.consistency) == steps // CHECKPOINT
            and all(opening.consistency)
        )
    if not right:
        raise ProtocolError("malformed", "the hashes of an opening")
    return opening


def wait_s(steps: int) -> float:
    """Seconds that an opening of an answer of so many steps may take."""
    return min(WAIT_S + steps / STEPS_PER_S, MOST_WAIT_S)


async def ask(link: Link, request: wire.AuditPlease, steps: int) -> Opening:
    """The opening of an answer of so many steps, of which it has as many leaves as were asked for. Bounded in
    time and bytes. Raises what link.FAILED lists: NetError `timeout`; StreamFailed, when it is refused;
    ProtocolError for what is no such opening."""
    wait = wait_s(steps)
    data = bytearray()
    try:
        async with asyncio.timeout(wait), await link.request(request) as stream:
            async for chunk in stream:
                if len(data) + len(chunk) > MAX_OPENING:
                    raise ProtocolError("too_large", "an opening")
                data += chunk
    except TimeoutError:
        raise NetError(
            "timeout",
            f"The driver did not open its answer within {wait:.0f} s.",
            "It is asked again later.",
        ) from None
    opening = decode(bytes(data))
    if len(opening.tokens) != TOKEN * steps:
        raise ProtocolError("malformed", "an opening of another number of steps")
    if len(opening.leaves) != (steps if request.all else min(OPENED, steps)):
        raise ProtocolError("malformed", "an opening of other steps than were asked for")
    return opening
