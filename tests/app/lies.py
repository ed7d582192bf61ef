"""Answers that were committed to step by step, honestly or not, and signed by a driver of tests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from infraxa.app.fraud import Opened
from infraxa.engine import gumbel, transcript
from infraxa.engine.transcript import Leaf, Tree
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Signer

DRIVER, OTHER_DRIVER, ACCOUNT = (Signer(bytes([n]) * 32) for n in (21, 22, 23))
DRAW_U, DRAW_P, SALT, CTX0 = (bytes([n]) * 32 for n in (1, 2, 3, 4))
ORDER: Final = wire.Order(
    b"\x0f" * 16, bytes(32), 500, max_tokens=64, mode="fraud_proof", prompt_hash=b"p" * 32, audit=b"a" * 32
)
STARTED: Final = 1_790_000_000_000
_ENDS: Final = {"stop": transcript.EOS, "length": transcript.LENGTH, "cancelled": 0, "failed": 0}


class Ran(NamedTuple):
    """An answer as its driver committed to it."""

    order: bytes
    """Encoded."""
    leaves: list[bytes]
    tree: Tree
    said: deals.Receipt
    receipt: Signed

    def opened(self, step: int) -> Opened:
        """The step as its driver would open it."""
        return Opened(self.leaves[step], step, self.tree.path(step), self.tree.root())


def candidates(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens and their logits, as a model might have them: the likeliest first."""
    pairs = sorted(
        (-rng.randint(-60_000, 60_000), token) for token in rng.sample(range(150_000), transcript.TOP)
    )
    return tuple(token for _, token in pairs), tuple(-q for q, _ in pairs)


def run(
    steps: int = 20,
    *,
    order: wire.Order = ORDER,
    tokens: Mapping[int, int] | None = None,
    leaves: Mapping[int, bytes] | None = None,
    flags: Mapping[int, int] | None = None,
    seed: int = 1,
    **said: object,
) -> Ran:
    """`tokens`: at these steps the candidate of this rank is given, whatever was drawn. `leaves`: what is
    committed in place of the right ones, `flags`: likewise. `said`: what its receipt says otherwise."""
    rng, encoded = random.Random(seed), codec.encode(order)
    request = deals.request_hash(encoded)
    draw = gumbel.draw_of(order.temperature, order.top_k, order.top_p, order.min_p)
    sampling = gumbel.seed_of(order.id, DRAW_U, DRAW_P, request)
    tree, made, ctx = Tree(), list[bytes](), CTX0
    for step in range(steps):
        ids, q = candidates(rng)
        token = gumbel.choose(ids, q, draw, sampling, step)
        if tokens is not None and step in tokens:
            token = ids[tokens[step]]
        tag = transcript.leaf_tag(SALT, step)
        flag = _ENDS[str(said.get("outcome", "stop"))] if step == steps - 1 else 0
        flag = (flags or {}).get(step, flag)
        leaf = transcript.encode_leaf(Leaf(order.id, step, ctx, token, flag, ids, q, tag))
        made.append((leaves or {}).get(step, leaf))
        tree.append(made[-1])
        ctx = transcript.ctx_next(ctx, token)
    kept = deals.Transcript(
        order.mode, CTX0, steps, transcript.committed(steps, tree.root()), b"x" * 32, DRAW_U, DRAW_P, "cpu"
    )
    receipt = deals.Receipt(
        order.id, ACCOUNT.id, order.model, request, b"", 50_000, 200_000, 12_500, 40, 8, steps, 7, "stop",
        STARTED, STARTED + 2_000, 7, 12, kept,
    )  # fmt: skip
    receipt = replace(receipt, **said)
    return Ran(encoded, made, tree, receipt, deals.sign(receipt, DRIVER))


LIAR: Final = run(tokens={17: 63})
"""It gave a token that is the least likely of the candidates."""
FORGER: Final = run(leaves={5: bytes(transcript.LEAF_BYTES)})
"""It committed to nothing at a step."""
ENDLESS: Final = run(flags={11: transcript.EOS})
"""It went on after what it had called the end."""
SECOND: Final = deals.sign(replace(LIAR.said, charge=9), DRIVER)
"""Another receipt for the same answer."""
