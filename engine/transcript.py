"""What a driver commits to for each token that it samples, and how one of these is shown later: leaves, their
tree, and which of them are asked for.

A leaf holds the likeliest candidates of its step in integers, so that the draw (gumbel.py) can be repeated,
and the model's own run compared. The tree is RFC 6962's; its proofs are checked as in RFC 9162, where the
sides follow from the numbers and never from who shows them. Whoever signs a tree signs `committed`, as a path
alone does not fix the length. Pure; numpy only where there are rows of logits.
"""

from __future__ import annotations

import hmac
import math
import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from infraxa.engine.gumbel import MOST, UNIT
from infraxa.engine.types import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOP: Final = MOST
"""Candidates in a leaf."""
EOS: Final = 1
"""Its token ends the turn."""
STOP: Final = 2
"""It completes a stop string."""
LENGTH: Final = 4
"""It is the last there may be."""
HASH: Final = 32
"""Bytes of each hash."""

_MAGIC: Final = b"IXL1"
_HEAD: Final = struct.Struct("<4s16sI32sIBH")
_TOKEN: Final = slice(56, 60)
_CANDIDATES: Final = struct.Struct("<" + "Ii" * TOP)
_TAG: Final = 16
LEAF_BYTES: Final = _HEAD.size + _CANDIDATES.size + _TAG
_U32: Final = struct.Struct("<I")
_MOST_Q: Final = (1 << 31) - 1
_COLUMNS: Final = 2048
_FEW: Final = 4 * _COLUMNS
"""Of so few logits all are sorted."""


def quantised(row: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """The 64 likeliest tokens of a row of logits and their logits in units of 2^-12, ties to even: the
    likeliest first, and of equal ones the lowest id. Of fewer logits, all.

    Raises EngineError `compute_failed` for logits that are not finite.
    """
    import numpy as np

    _check(float(np.minimum.reduce(row)))
    ids = None
    if len(row) > _FEW:
        # The 64th of the maxima of 2048 columns is no larger than the 64th of all: what is smaller is not
        # among the likeliest.
        cut = len(row) // _COLUMNS * _COLUMNS
        columns = row[:cut].reshape(-1, _COLUMNS)
        highest = np.maximum.reduce(columns, axis=0)
        highest_sorted = np.partition(highest, (_COLUMNS - TOP, _COLUMNS - 1))
        _check(float(highest_sorted[-1]))
        least = np.float32(_lowest_like(float(highest_sorted[-TOP])))
        found = np.flatnonzero(highest >= least)
        places = np.flatnonzero(columns.take(found, axis=1) >= least)
        ids = places // len(found) * _COLUMNS + found[places % len(found)]
        ids = np.concatenate((ids, np.flatnonzero(row[cut:] >= least) + cut))
        row = row[ids]
    _check(float(np.maximum.reduce(row)))
    scaled = np.rint(row.astype(np.float64) * UNIT)
    q = np.clip(scaled, -_MOST_Q, _MOST_Q).astype(np.int64)
    # Both in one number, so that sorting it sorts by both.
    keys = (-q << 32) + (np.arange(len(q)) if ids is None else ids)
    keys.sort()
    keys = keys[:TOP]
    return (keys & 0xFFFFFFFF).astype(np.uint32), (-(keys >> 32)).astype(np.int32)


def _lowest_like(logit: float) -> float:
    """A number below which none is quantised as `logit` is, or as something larger."""
    q = round(logit * UNIT)
    if q <= -_MOST_Q:
        return float("-inf")
    # One more below than half a unit: numbers of 32 bits are coarser than that only where they are so large
    # that they are whole units.
    return (min(q, _MOST_Q) - 1) / UNIT


def _check(logit: float) -> None:
    if not math.isfinite(logit):
        raise EngineError(
            "compute_failed", "The model's numbers are not finite.", "Load it again, or choose another file."
        )


def packed(ids: Sequence[int]) -> bytes:
    """Tokens as they are hashed and sent: little-endian uint32."""
    return struct.pack(f"<{len(ids)}I", *ids)


def ctx0(salt: bytes, prompt_ids: Sequence[int]) -> bytes:
    """The hash of what is there before the first token: the prompt's tokens, salted."""
    return sha256(b"infraxa/ctx/1" + salt + _U32.pack(len(prompt_ids)) + packed(prompt_ids)).digest()


def ctx_next(ctx: bytes, token: int) -> bytes:
    """The hash of what is there after one more token."""
    return sha256(b"infraxa/ctx+" + ctx + _U32.pack(token)).digest()


def output_hash(salt: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of all that was sampled, salted."""
    return sha256(b"infraxa/output/1" + salt + packed(tokens)).digest()


class Leaf(NamedTuple):
    """One step of an answer."""

    order: bytes
    """16 bytes."""
    step: int
    ctx: bytes
    """What was there before its token."""
    token: int
    flags: int
    ids: tuple[int, ...]
    """The candidates, the likeliest first."""
    q: tuple[int, ...]
    """Their logits in units of 2^-12."""
    tag: bytes
    """Of 16 bytes, so that nobody finds what a leaf says by trying."""

    def __repr__(self) -> str:
        """Without what was said."""
        return f"Leaf({self.order.hex()}, step {self.step})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("order", self.order.hex()), ("step", self.step)]


def leaf_tag(salt: bytes, step: int) -> bytes:
    return hmac.digest(salt, b"leaf" + _U32.pack(step), "sha256")[:_TAG]


def encode_leaf(leaf: Leaf) -> bytes:
    """591 bytes, little-endian: IXL1, order, step, ctx, token as uint32, flags as uint8, 64 as uint16, then
    each candidate's id as uint32 and logit as int32, then the tag. Raises ValueError when a value does not
    fit."""
    order, step, ctx, token, flags, ids, q, tag = leaf
    if not (len(order) == 16 and len(ctx) == HASH and len(tag) == _TAG and len(ids) == len(q) == TOP):
        raise ValueError("a part of the leaf has another length")
    both = [0] * (2 * TOP)
    both[::2], both[1::2] = ids, q
    try:
        return _HEAD.pack(_MAGIC, order, step, ctx, token, flags, TOP) + _CANDIDATES.pack(*both) + tag
    except struct.error as error:
        raise ValueError(str(error)) from error


def decode_leaf(data: bytes) -> Leaf:
    """Raises ValueError for what no honest driver commits to: another length, unknown flags or more than one,
    candidates out of order or twice."""
    if len(data) != LEAF_BYTES:
        raise ValueError(f"a leaf has {LEAF_BYTES} bytes, not {len(data)}")
    magic, order, step, ctx, token, flags, n = _HEAD.unpack_from(data)
    both = _CANDIDATES.unpack_from(data, _HEAD.size)
    ids, q = both[::2], both[1::2]
    if magic != _MAGIC or n != TOP:
        raise ValueError("it does not begin as a leaf")
    if flags not in (0, EOS, STOP, LENGTH):
        raise ValueError(f"flags {flags}")
    if len(set(ids)) < TOP:
        raise ValueError("a candidate is there twice")
    if q[-1] < -_MOST_Q or any((-q[i], ids[i]) >= (-q[i + 1], ids[i + 1]) for i in range(TOP - 1)):
        raise ValueError("the candidates are not in order")
    return Leaf(order, step, ctx, token, flags, ids, q, data[-_TAG:])


def token_of(data: bytes) -> bytes:
    """The token of an encoded leaf: 4 bytes, little-endian."""
    return data[_TOKEN]


class Tree:
    """The tree over an answer's leaves while it grows: 64 bytes for each, and any proof in O(log n)."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]
        """The nodes over 1, 2, 4, … leaves, as far as these are complete."""

    @property
    def n(self) -> int:
        """Leaves."""
        return len(self._levels[0]) // HASH

    def append(self, leaf: bytes) -> None:
        node, n = sha256(b"\0" + leaf).digest(), self.n
        for level in self._levels:
            level += node
            if not n & 1:
                return
            node = _node(bytes(level[-2 * HASH : -HASH]), node)
            n >>= 1
        self._levels.append(bytearray(node))

    def root(self, n: int | None = None) -> bytes:
        """Of the first `n` leaves, or of all."""
        n = self._checked(n)
        return self._root(0, n) if n else sha256().digest()

    def path(self, step: int, n: int | None = None) -> list[bytes]:
        """What `verify_path` needs for a leaf among the first `n`."""
        n = self._checked(n)
        if not 0 <= step < n:
            raise IndexError(f"there is no leaf {step} of {n}")
        start, path = 0, []
        while n - start > 1:
            middle = start + _split(n - start)
            if step < middle:
                path.append(self._root(middle, n))
                n = middle
            else:
                path.append(self._root(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, m: int, n: int | None = None) -> list[bytes]:
        """What `verify_consistency` needs to see that the first `n` leaves begin with the first `m`."""
        n = self._checked(n)
        if not 0 < m <= n:
            raise IndexError(f"there are no {m} leaves among {n}")
        start, whole, path = 0, True, []
        while m < n:
            middle = start + _split(n - start)
            if m <= middle:
                path.append(self._root(middle, n))
                n = middle
            else:
                path.append(self._root(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._root(start, n))
        return path[::-1]

    def _checked(self, n: int | None) -> int:
        if n is None:
            return self.n
        if not 0 <= n <= self.n:
            raise IndexError(f"there are {self.n} leaves, not {n}")
        return n

    def _root(self, start: int, end: int) -> bytes:
        """Of these leaves; `start` is where a tree of that size begins, so whole nodes cover them."""
        node = b""
        while end > start:
            size = (end - start) & (start - end)
            at = (end - size) // size * HASH
            left = bytes(self._levels[size.bit_length() - 1][at : at + HASH])
            node = _node(left, node) if node else left
            end -= size
        return node


def verify_path(leaf: bytes, step: int, n: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether that leaf is the one of that step in a tree of `n` leaves (RFC 9162, 2.1.3.2)."""
    if not 0 <= step < n:
        return False
    fn, sn, node = step, n - 1, sha256(b"\0" + leaf).digest()
    for other in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            node = _node(other, node)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            node = _node(node, other)
        fn >>= 1
        sn >>= 1
    return sn == 0 and node == root


def verify_consistency(m: int, n: int, root_m: bytes, root_n: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a tree of `n` leaves begins with one of `m` (RFC 9162, 2.1.4.2)."""
    if not 0 < m <= n:
        return False
    if m == n:
        return not proof and root_m == root_n
    nodes = [root_m, *proof] if not m & (m - 1) else list(proof)
    if not nodes:
        return False
    fn, sn = m - 1, n - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = second = nodes[0]
    for node in nodes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = _node(node, first), _node(node, second)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            second = _node(second, node)
        fn >>= 1
        sn >>= 1
    return sn == 0 and first == root_m and second == root_n


def split(joined: bytes) -> list[bytes]:
    """The hashes of a path or a proof that were joined to be sent."""
    return [joined[at : at + HASH] for at in range(0, len(joined), HASH)]


def committed(n: int, root: bytes) -> bytes:
    """What is signed of a tree."""
    return sha256(b"infraxa/root/1" + _U32.pack(n) + root).digest()


def challenge(secret: bytes, root: bytes, order: bytes, n: int, k: int) -> list[int]:
    """Which `k` of an answer's `n` steps are to be opened, in order; all, if there are no more. The last one
    is always among them, since it says how the answer ended.

    Nobody knew the others before the secret was told, and nobody could choose them after `root`, as of
    `committed`, was signed.
    """
    if k >= n:
        return list(range(n))
    if k <= 0:
        return []
    fair, counter, found = (1 << 64) // n * n, 0, {n - 1}
    while len(found) < k:
        hashed = sha256(b"infraxa/audit/1" + secret + root + order + _U32.pack(counter)).digest()
        counter += 1
        value = int.from_bytes(hashed[:8], "big")
        if value < fair:
            found.add(value % n)
    return sorted(found)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _split(n: int) -> int:
    """The largest power of two that is smaller than `n`."""
    return 1 << (n - 1).bit_length() - 1
