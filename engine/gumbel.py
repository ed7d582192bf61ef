"""The draw of the next token that anybody can repeat: Gumbel-max over the likeliest candidates, in integers.

The token with the largest sum of logit over temperature and Gumbel noise is one drawn by its probability
(Gumbel 1954). The noise of each token at each step follows from a seed that neither side chose alone, so from
the committed logits follows the token, whoever computes it. Pure, and without numpy. What is committed is in
transcript.py.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from typing import Final

import msgspec

MOST: Final = 64
"""Candidates that are committed at each step, and the most that a draw may take one of."""
Q_BITS: Final = 12
"""Logits are whole multiples of 2^-12."""
UNIT: Final = 1 << Q_BITS
"""A logit of 1."""
TOLERANCE: Final = 2 << Q_BITS
"""Two units of the noise: what two machines' logarithms may differ by in their last bits."""
_ONE: Final = 1 << 30
_PERSON: Final = b"infraxa-gumbel-1"
_MILLION: Final = 1_000_000
_TABLE_BITS: Final = 16
_EXP: Final = (
    1073725440, 1073709056, 1073676290, 1073610760, 1073479712, 1073217664, 1072693760, 1071646719,
    1069555701, 1065385899, 1057095000, 1040706261, 1008687096, 947573834, 836230973, 651257337,
    395007542, 145315154, 19666268, 360200, 121, 0,
)  # fmt: skip
"""exp(-2^(b - 16)) in units of 2^-30, for each bit b."""
_HIGH: Final = [[_EXP[_TABLE_BITS + bit] for bit in range(5) if high >> bit & 1] for high in range(32)]
"""Those of the bits from 16 on, for each number of these."""


class Draw(msgspec.Struct, frozen=True):
    """How a token is drawn, in integers; made by `draw_of`."""

    inv_t: int
    """1 / temperature in units of 2^-16; 0: the likeliest token every time."""
    top_k: int
    """1 to 64."""
    min_p: int
    """How far below the likeliest, in logits over temperature and units of 2^-16; 0: any."""
    top_p: int
    """In units of 2^-30."""


def draw_of(temperature_ppm: int, top_k: int, top_p_ppm: int, min_p_ppm: int) -> Draw:
    """The draw of an order's sampling, in millionths as the order has it: all sides get the same.

    A `top_k` of 0, or above 64, counts as 64.
    """
    inv_t = _rounded(65536 * _MILLION, temperature_ppm) if temperature_ppm > 0 else 0
    # 0 would mean that any is near enough.
    min_p = max(1, round(-math.log(min_p_ppm / _MILLION) * 65536)) if min_p_ppm > 0 else 0
    top_p = _rounded(top_p_ppm * _ONE, _MILLION)
    return Draw(inv_t, min(top_k, MOST) if top_k > 0 else MOST, min_p, top_p)


def _rounded(number: int, by: int) -> int:
    """number / by; halves go to the even one."""
    whole, rest = divmod(number, by)
    return whole + (2 * rest > by or (2 * rest == by and whole & 1))


def seed_of(order: bytes, r_u: bytes, r_p: bytes, request_hash: bytes) -> bytes:
    """The seed of an order's draws, of a half from each side: 32 bytes."""
    return hashlib.sha256(b"infraxa/seed/1" + order + r_u + r_p + request_hash).digest()


def noise(seed: bytes, step: int, ids: Iterable[int]) -> list[int]:
    """Gumbel noise of these tokens at that step, in units of 2^-16."""
    keyed = hashlib.blake2b(step.to_bytes(4, "little"), key=seed, digest_size=8, person=_PERSON)
    log, copy, digests = math.log, keyed.copy, []
    for token in ids:
        hashed = copy()
        hashed.update(token.to_bytes(4, "little"))
        digests.append(hashed.digest())
    # Between 0 and 1, and neither of them. Halves are rounded to the even one.
    uniform = [((u >> 12) + 0.5) * 2.0**-52 for u in struct.unpack(f"<{len(digests)}Q", b"".join(digests))]
    return [round(-log(-log(u)) * 65536) for u in uniform]


def choose(ids: Iterable[int], q: Iterable[int], draw: Draw, seed: bytes, step: int) -> int:
    """The token of that step. `ids` and `q`: the candidates and their logits in units of 2^-12, the likeliest
    first and of equal ones the lowest id; not empty."""
    tokens, logits = _numbers(ids), _numbers(q)
    if not draw.inv_t:
        return tokens[0]
    scores = _scores(tokens, logits, draw, seed, step)
    best = max(scores)
    return min(token for token, score in zip(tokens, scores, strict=False) if score == best)


def is_chosen(token: int, ids: Iterable[int], q: Iterable[int], draw: Draw, seed: bytes, step: int) -> bool:
    """Whether `choose` may give that token on any machine. Of candidates that are not in order, anything."""
    tokens, logits = _numbers(ids), _numbers(q)
    if not draw.inv_t:
        return token == tokens[0]
    scores = _scores(tokens, logits, draw, seed, step)
    least = max(scores) - TOLERANCE
    return any(one == token and score >= least for one, score in zip(tokens, scores, strict=False))


def _numbers(values: Iterable[int]) -> list[int]:
    """Python's own, which never overflow, also of an array of numpy."""
    return list(map(int, values))


def _scores(ids: list[int], q: list[int], draw: Draw, seed: bytes, step: int) -> list[int]:
    """Of those that stay, in units of 2^-28."""
    inv_t = draw.inv_t
    n = _kept(q, draw)
    return [v * inv_t + (g << Q_BITS) for v, g in zip(q, noise(seed, step, ids[:n]), strict=False)]


def _kept(q: list[int], draw: Draw) -> int:
    """How many of the ordered candidates stay, as llama.cpp's top-k, min-p and top-p; at least 1."""
    inv_t, most, top = draw.inv_t, draw.min_p, q[0]
    below = [((top - v) * inv_t) >> Q_BITS for v in q[: draw.top_k]]
    n = len(below)
    if most:
        n = bisect_right(below, most)
    if draw.top_p < _ONE:
        sums = list(accumulate(map(_exp, below[:n])))
        enough = draw.top_p * sums[-1]
        n = next(i for i, sum_ in enumerate(sums, 1) if sum_ << 30 >= enough)
    return max(1, n)


def _exp(x: int) -> int:
    """exp(-x / 2^16) in units of 2^-30, in integers."""
    if x >= 1 << 21:
        return 0
    w: int = _low_exp()[x & 0xFFFF]
    for factor in _HIGH[x >> _TABLE_BITS]:
        w = (w * factor + (1 << 29)) >> 30
    return w


@cache
def _low_exp() -> array[int]:
    """`_exp` of all numbers of 16 bits. Bits are multiplied in from the lowest up, so each doubles the
    table."""
    table = array("I", [_ONE])
    for bit in range(_TABLE_BITS):
        factor = _EXP[bit]
        table.extend([(w * factor + (1 << 29)) >> 30 for w in table])
    return table
