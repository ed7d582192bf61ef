"""The scores of an answer on the stream of an order: its frames, and the rules of them. Pure.

Who asks for them has an answer of somebody else, and wants to know what the same model computes at some of
its steps. What else is said there is in orders.py.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from infraxa.net.errors import ProtocolError
from infraxa.net.vectors import Part

TOP: Final = 64
"""Likeliest tokens of a step; fewer where the model has not so many."""
_PAIR: Final = 8
"""Bytes of a token and its logit."""
MAX_TOKEN: Final = 2**31 - 1
HASH: Final = 32
"""Bytes of a hash."""
MAX_NOISE: Final = 1_000_000
"""One logit."""
NO_TOKEN: Final = "answer"
"""The field of a `bad_request`: a token of the answer is none of the model's, so that there are no scores."""


class Scoring(Struct, array_like=True, frozen=True, tag=36):
    """With what the steps of an answer are computed; before the first of them."""

    profile: Annotated[str, Meta(max_length=64)] = ""
    """As in deals.Transcript. Untrusted: shown only through a filter."""
    noise: Annotated[int, Meta(ge=0, le=MAX_NOISE)] = 0
    """The honest noise of the file there, in millionths of a logit; 0: it is not known."""
    end: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """The first step of the answer that ends it: its token ends the turn, or completes one of Prompt.ends;
    -1: none does. None: it was not looked for."""
    text: Annotated[bytes, Meta(max_length=HASH)] = b""
    """The hash of what the tokens say (engine/said.py, text_hash); empty: as `end`."""


class Row(NamedTuple):
    """The likeliest tokens of one step, the likeliest first, and their logits in 1/4096."""

    ids: tuple[int, ...]
    q: tuple[int, ...]


def encode_row(ids: bytes, q: bytes) -> bytes:
    """Of little-endian 32-bit integers each."""
    return ids + q


def decode_row(data: bytes) -> Row:
    """Raises ProtocolError."""
    n, odd = divmod(len(data), _PAIR)
    if odd or not 1 <= n <= TOP:
        raise ProtocolError("malformed", "the length of a score")
    ids, q = struct.unpack(f"<{n}I", data[: 4 * n]), struct.unpack(f"<{n}i", data[4 * n :])
    if max(ids) > MAX_TOKEN or len(set(ids)) < n or any(a < b for a, b in pairwise(q)):
        raise ProtocolError("malformed", "the tokens of a score, or their order")
    return Row(ids, q)


class Scores:
    """What may come for so many steps: Scoring, then a Part for each; both sides keep to it. The first Part
    says how many tokens the prompt and the answer have, the others none."""

    __slots__ = ("_size", "_steps", "begun", "count", "n_tokens")

    def __init__(self, steps: int) -> None:
        self.begun = False
        self.count = 0
        """Steps that came."""
        self.n_tokens = 0
        self._steps = steps
        self._size = 0

    @property
    def whole(self) -> bool:
        """All of them came."""
        return self.count == self._steps

    def begin(self, scoring: Scoring) -> None:
        """Raises ProtocolError, as `take`, after which nothing may follow."""
        if self.begun:
            raise ProtocolError("not_asked", "how an answer is scored, twice")
        if len(scoring.text) != (0 if scoring.end is None else HASH):
            raise ProtocolError("malformed", "the hash of a text")
        self.begun = True

    def take(self, part: Part, context: int) -> None:
        """The next step; the prompt and the answer have at most `context` tokens."""
        if not self.begun or self.whole:
            raise ProtocolError("not_asked", "a score of no step, or before it was said how")
        if len(part.data) != (self._size or len(part.data)):
            raise ProtocolError("malformed", "a score of another length than the others")
        decode_row(part.data)
        if part.n_tokens is None or (self.count and part.n_tokens) or part.n_tokens > context:
            raise ProtocolError("malformed", "the tokens of an answer that is scored")
        self._size = len(part.data)
        self.count += 1
        self.n_tokens += part.n_tokens
