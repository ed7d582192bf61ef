"""A vocabulary: which bytes each token stands for, and whether tokens and a text belong together.

Plain values, which nodes send to each other: who uses a model of another machine counts its tokens by this.
How one is read from a model file is in gguf_vocabulary.py.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

from infraxa.engine.text import TextAssembler

MAX_ENCODED: Final = 16 << 20
"""Bytes of an encoded vocabulary; one of 260,000 tokens takes about 3 MB."""
MAX_TOKENS: Final = 1 << 20
MAX_PIECE: Final = 65_535
"""Bytes that one token stands for; the longest known are some hundreds of spaces."""
VERSION: Final = 2
"""Of the encoding, and of what is made of a file: another hash of the same file means another version."""
MARKS: Final = frozenset(("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "<|python_tag|>"))
"""Control tokens that are part of the text all the same: without them nobody could tell an answer's calls of
tools from its text."""

FAIR_FROM: Final = 64
"""Tokens; fewer are taken as they are."""
FAIR_BYTES: Final = 3
"""Bytes of a token, in the mean, that nobody has to explain."""
FAIR_TIMES: Final = 2
"""Tokens for each that would do. Of 19 vocabularies and 37 kinds of text, llama.cpp's own tokens were at most
1.4 times as many where they are shorter than that."""
FAIR_PIECE: Final = 32
"""Bytes; longer pieces are left out, which only allows for more."""
FAIR_TEXT: Final = 1 << 20
"""Bytes of text; a longer one is not looked at."""


class _Encoded(msgspec.Struct, array_like=True, frozen=True):
    """What travels."""

    version: int
    lengths: bytes
    """Of the pieces, by id, as little-endian uint16."""
    pieces: bytes
    """Joined."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Encoded)


class Vocabulary:
    """The pieces by id. Control tokens, those that end a turn and those that stand for nothing are empty."""

    __slots__ = ("_ends", "_pieces", "hash")

    def __init__(self, lengths: array[int], pieces: bytes) -> None:
        """See `read_vocabulary` and `decode`."""
        self._pieces = pieces
        self._ends = array("I", accumulate(lengths, initial=0))
        self.hash: bytes = hashlib.sha256(self.encode()).digest()
        """By which nodes call it: SHA-256 of `encode()`."""

    def __len__(self) -> int:
        """How many tokens."""
        return len(self._ends) - 1

    def piece(self, token: int) -> bytes:
        """The bytes of a token from 0 to len() - 1."""
        return self._pieces[self._ends[token] : self._ends[token + 1]]

    def encode(self) -> bytes:
        """At most MAX_ENCODED bytes, the same of the same file everywhere."""
        ends = self._ends
        lengths = array("H", (ends[i + 1] - ends[i] for i in range(len(self))))
        return _encoder.encode(_Encoded(VERSION, _swapped(lengths).tobytes(), self._pieces))

    @classmethod
    def decode(cls, data: bytes) -> Vocabulary:
        """What `encode` gave, from anybody. Raises ValueError."""
        if len(data) > MAX_ENCODED:
            raise ValueError("a vocabulary that is too large")
        try:
            encoded = _decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise ValueError("not a vocabulary") from None
        if encoded.version != VERSION:
            raise ValueError("a vocabulary of another version")
        if len(encoded.lengths) % 2 or not 0 < len(encoded.lengths) <= 2 * MAX_TOKENS:
            raise ValueError("the number of tokens")
        lengths = array("H")
        lengths.frombytes(encoded.lengths)
        lengths = _swapped(lengths)
        if sum(lengths) != len(encoded.pieces):
            raise ValueError("the lengths of the tokens")
        return cls(lengths, encoded.pieces)

    def count(
        self, ids: Sequence[int], text: str, stop: tuple[str, ...] = (), *, whole: bool = True
    ) -> int | None:
        """How many tokens of an answer count: those that stand for bytes. None when `text` is not what the
        engine makes of `ids` (see TextAssembler), so that nothing is known of their number.

        `stop`: the stop strings that were asked for. An answer ends with the token that completes one, which
        counts too.
        `whole`: the answer came to its end. Otherwise one of `ids` and `text` may be behind the other, as the
        engine holds back what is not decided and both are sent in parts: the tokens count of which some text
        has come.
        """
        ends = self._ends
        if ids and not 0 <= min(ids) <= max(ids) < len(self):
            return None
        shown = [i for i in ids if ends[i + 1] > ends[i]]
        if not shown:
            return None if text and whole else 0
        # Before they are joined: few ids of long pieces could be gigabytes.
        sums = list(accumulate((ends[i + 1] - ends[i] for i in shown), initial=0))
        most = 4 * len(text) + 2 * MAX_PIECE
        if not whole:
            return self._begun(shown[: bisect_left(sums, most)], sums, text)
        if sums[-1] > most:
            return None
        *before, last = self._pieces_of(shown)
        assembler = TextAssembler(stop)
        said = assembler.feed(b"".join(before))
        if assembler.stopped:  # the engine had ended it there
            return None
        said += assembler.feed(last)
        return len(shown) if text == said + assembler.finish() else None

    def fair(self, text: str, count: int) -> int:
        """`count`, or less where nobody would write `text` in so many tokens: who is paid by the token could
        send a word as its letters. The bound is FAIR_TIMES as many as taking the longest piece each time."""
        data = text.encode(errors="replace")
        if count < FAIR_FROM or not FAIR_BYTES * count > len(data) <= FAIR_TEXT:
            return count
        known = {piece for token in range(len(self)) if len(piece := self.piece(token)) <= FAIR_PIECE}
        at = needed = 0
        while at < len(data):
            longest = (n for n in range(FAIR_PIECE, 1, -1) if data[at : at + n] in known)
            at += next(longest, 1)
            needed += 1
        return min(count, max(FAIR_FROM, FAIR_TIMES * needed))

    def _begun(self, ids: list[int], sums: list[int], text: str) -> int | None:
        """Of tokens and a text of which one may be behind the other, as many as both have."""
        joined = b"".join(self._pieces_of(ids))
        said = TextAssembler().feed(joined)
        if len(text) > len(said):
            return len(ids) if text.startswith(said) else None
        if not said.startswith(text):
            return None
        counts = range(len(ids) + 1)
        return bisect_left(counts, len(text), key=lambda n: len(TextAssembler().feed(joined[: sums[n]])))

    def _pieces_of(self, ids: list[int]) -> list[bytes]:
        ends, pieces = self._ends, self._pieces
        return [pieces[ends[i] : ends[i + 1]] for i in ids]


def _swapped(numbers: array[int]) -> array[int]:
    """Little-endian, or from it."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
