"""The vectors of texts on the stream of an order: their frames, and the rules of it. Pure.

What else is said there is in orders.py.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from infraxa.net.errors import ProtocolError

MAX_DIMENSION: Final = 16_384
"""Numbers of one vector."""
MAX_PART: Final = 8 * 1024
"""Bytes of a part of a vector."""
MAX_VECTORS: Final = 32 * 1024 * 1024
"""Bytes of all vectors of one order."""
SIZE: Final = 4
"""Bytes of a number."""


class Part(Struct, array_like=True, frozen=True, tag=34):
    """The next part of the vector of a text; the vectors come in the order of the texts."""

    data: Annotated[bytes, Meta(min_length=SIZE, max_length=MAX_PART)]
    """Numbers as float32, little-endian; MAX_PART bytes of them but in the last part of a vector."""
    n_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """Of the text, with the last part of its vector; None: more follows."""

    def __repr__(self) -> str:
        """Without the numbers: they say what the text is about."""
        return f"Part({len(self.data)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("bytes", len(self.data))]


def parts(vector: bytes, n_tokens: int) -> Iterator[Part]:
    """A vector as parts that are short enough."""
    last = (len(vector) - 1) // MAX_PART * MAX_PART
    for at in range(0, len(vector), MAX_PART):
        yield Part(vector[at : at + MAX_PART], n_tokens if at == last else None)


def fit(texts: int, dimension: int) -> bool:
    """Whether the vectors of so many texts, of `dimension` numbers each, can be those of one order."""
    return dimension <= MAX_DIMENSION and texts * dimension * SIZE <= MAX_VECTORS


class Vectors:
    """What may come for so many texts; both sides keep to it."""

    __slots__ = ("_bytes", "_numbers", "_texts", "count", "dimension", "n_tokens")

    def __init__(self, texts: int) -> None:
        self.count = 0
        """Texts whose whole vector came."""
        self.dimension = 0
        """Numbers of each vector; 0: none is whole."""
        self.n_tokens = 0
        """Of these texts."""
        self._texts = texts
        self._numbers = 0
        """Of the vector that is coming."""
        self._bytes = 0

    @property
    def whole(self) -> bool:
        """All of them came."""
        return self.count == self._texts and not self._numbers

    def take(self, part: Part, context: int) -> None:
        """The next part; a text has at most `context` tokens. Raises ProtocolError, after which nothing may
        follow."""
        if self.count >= self._texts:
            raise ProtocolError("not_asked", "a vector of no text")
        self._bytes += len(part.data)
        if len(part.data) % SIZE:
            raise ProtocolError("malformed", "a part of a number")
        self._numbers += len(part.data) // SIZE
        if self._numbers > (self.dimension or MAX_DIMENSION) or self._bytes > MAX_VECTORS:
            raise ProtocolError("too_large", "a vector")
        if not _finite(part.data):
            raise ProtocolError("malformed", "a vector of what are no numbers")
        if part.n_tokens is None:
            if len(part.data) != MAX_PART:
                # As many frames as numbers would cost far more than they bring.
                raise ProtocolError("malformed", "a short part of a vector before its last")
            return
        if self.dimension not in (0, self._numbers):
            raise ProtocolError("malformed", "a vector of another length than the others")
        if part.n_tokens > context:
            raise ProtocolError("malformed", "more tokens of a text than there is room for")
        self.dimension, self._numbers = self._numbers, 0
        self.count += 1
        self.n_tokens += part.n_tokens


def _finite(data: bytes) -> bool:
    numbers = array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return math.isfinite(sum(numbers))  # as float64: no sum of float32 is too large
