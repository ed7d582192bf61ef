"""Leaves of answers that no model computed, for tests of those who keep and send them."""

from __future__ import annotations

from collections.abc import Sequence

from infraxa.engine import transcript
from infraxa.engine.transcript import TOP, Leaf

CTX0 = bytes([7]) * 32
"""What the first of them stands on."""


def leaves_of(order: bytes, salt: bytes, tokens: Sequence[int], start: int = 0) -> tuple[bytes, ...]:
    """One for each of the tokens, which begin at that step; each is so much likelier than all others that any
    draw takes it. What stands before it is not looked at."""
    return tuple(
        transcript.encode_leaf(
            Leaf(
                order=order,
                step=step,
                ctx=CTX0,
                token=token,
                flags=0,
                ids=(token, *(other for other in range(TOP) if other != token))[:TOP],
                q=(2**30, *range(-1, -TOP, -1)),
                tag=transcript.leaf_tag(salt, step),
            )
        )
        for step, token in enumerate(tokens, start)
    )
