"""What a driver opened of an answer, checked against all that it signed and sent before: no model is needed.

Each check follows from hashes and integers alone, so whoever computes it finds the same. What the model
itself would have said is compared in replaying.py. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from infraxa.app import ends, fraud
from infraxa.app.fraud import Opened
from infraxa.app.verifying import Kept
from infraxa.engine import gumbel, transcript
from infraxa.engine.transcript import Leaf, Tree, committed
from infraxa.net import deals
from infraxa.net.audits import Opening

Why = Literal["wrong_token", "wrong_leaf", "wrong_end", "bad_opening"]


class Lie(Exception):
    """The driver did not do what it signed, or cannot show it."""

    def __init__(self, why: Why, opened: Opened | None = None) -> None:
        super().__init__(why)
        self.why: Why = why
        self.opened = opened
        """What proves it to anybody."""
        self.shown = 0
        """Steps that were opened."""


class Shown(NamedTuple):
    """What holds of an answer, as far as it was opened."""

    tokens: tuple[int, ...]
    """All that were sampled."""
    leaves: tuple[Leaf, ...]
    """In the order of their steps."""

    def __repr__(self) -> str:
        """Without what was said."""
        return f"Shown({len(self.leaves)} of {len(self.tokens)} steps)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("leaves", len(self.leaves)), ("tokens", len(self.tokens))]


def check(kept: Kept, receipt: deals.Receipt, opening: Opening, steps: Sequence[int]) -> Shown:
    """What was opened, when it is what was committed to and no lie shows. `steps`: those that had to be
    opened. Raises Lie.

    A lie that its driver signed is looked for before all else, so that it has its proof.
    """
    said = receipt.transcript
    assert said is not None
    n = said.steps
    tree = _tree(opening, n)
    root = opening.root if tree is None else tree.root()
    if committed(n, root) != said.root or len(opening.leaves) != len(steps):
        raise Lie("bad_opening")
    shown = [
        Opened(data, step, _path(opening, tree, at, step), root)
        for at, (step, data) in enumerate(zip(steps, opening.leaves, strict=True))
    ]
    leaves = [_leaf(kept, receipt, one, n) for one in shown]
    _check_end(kept, receipt, leaves, shown)
    tokens = struct.unpack(f"<{len(opening.tokens) // 4}I", opening.tokens)
    _check_tokens(kept, said, tokens, leaves)
    _check_checkpoints(kept, opening, tree, root, n)
    return Shown(tokens, tuple(leaves))


def _tree(opening: Opening, n: int) -> Tree | None:
    """Over all leaves; None when only some are here."""
    if len(opening.leaves) != n:
        return None
    tree = Tree()
    for leaf in opening.leaves:
        tree.append(leaf)
    return tree


def _path(opening: Opening, tree: Tree | None, at: int, step: int) -> list[bytes]:
    return tree.path(step) if tree is not None else transcript.split(opening.paths[at])


def _leaf(kept: Kept, receipt: deals.Receipt, opened: Opened, n: int) -> Leaf:
    """The leaf of this step, from whose candidates its token was drawn as was agreed."""
    if not transcript.verify_path(opened.leaf, opened.step, n, opened.path, opened.root):
        raise Lie("bad_opening")
    order, said = kept.order, receipt.transcript
    assert said is not None
    try:
        leaf = transcript.decode_leaf(opened.leaf)
    except ValueError:
        raise Lie("wrong_leaf", opened) from None
    if (leaf.order, leaf.step) != (order.id, opened.step):
        raise Lie("wrong_leaf", opened)
    draw = gumbel.draw_of(order.temperature, order.top_k, order.top_p, order.min_p)
    seed = gumbel.seed_of(order.id, said.draw_u, said.draw_p, receipt.request)
    if not gumbel.is_chosen(leaf.token, leaf.ids, leaf.q, draw, seed, leaf.step):
        raise Lie("wrong_token", opened)
    if leaf.tag != transcript.leaf_tag(kept.prompt.salt, leaf.step):
        raise Lie("bad_opening")
    return leaf


def _check_tokens(
    kept: Kept, said: deals.Transcript, tokens: tuple[int, ...], leaves: Sequence[Leaf]
) -> None:
    """They are what was committed to, stand on each other, and are those that came."""
    if len(tokens) != said.steps or transcript.output_hash(kept.prompt.salt, tokens) != said.output:
        raise Lie("bad_opening")
    asked = {leaf.step: leaf for leaf in leaves}
    ctx = said.ctx0
    for step, token in enumerate(tokens):
        leaf = asked.get(step)
        if leaf is not None and (leaf.ctx, leaf.token) != (ctx, token):
            raise Lie("bad_opening")
        ctx = transcript.ctx_next(ctx, token)
    # What ends a turn and control tokens do not come as tokens of the answer.
    rest = iter(tokens)
    if not all(token in rest for token in kept.ids):
        raise Lie("bad_opening")


def _check_checkpoints(kept: Kept, opening: Opening, tree: Tree | None, root: bytes, n: int) -> None:
    """What was streamed was not changed afterwards."""
    if len(opening.consistency) < len(kept.checkpoints) and tree is None:
        raise Lie("bad_opening")
    for at, checkpoint in enumerate(kept.checkpoints):
        if checkpoint.n > n:
            raise Lie("bad_opening")
        if tree is not None:
            before = tree.root(checkpoint.n)
        else:
            before, *proof = transcript.split(opening.consistency[at]) or [b""]
            if not transcript.verify_consistency(checkpoint.n, n, before, root, proof):
                raise Lie("bad_opening")
        if committed(checkpoint.n, before) != checkpoint.root:
            raise Lie("bad_opening")


def _check_end(kept: Kept, receipt: deals.Receipt, leaves: Sequence[Leaf], shown: Sequence[Opened]) -> None:
    """It is the last step, which is always opened, and there is a reason for it."""
    for leaf, one in zip(leaves, shown, strict=True):
        if fraud.ends_wrongly(leaf, receipt):
            raise Lie("wrong_end", one)
    if not ends.is_allowed(kept, receipt, leaves[-1]):
        raise Lie("wrong_end")
