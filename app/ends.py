"""Where an answer may end, and whether what was shown of it is what its tokens say. Pure.

What a driver signed of an end is checked in fraud.py, so that it has a proof; here is what only its user can
check, who knows the stop strings, the text and what the driver said before, and what takes the model's file:
which tokens end a turn, and what all of them say (engine/said.py). Whoever cancels an answer, or fails, may
end it anywhere.
"""

from __future__ import annotations

from typing import Final

from infraxa.app.counting import most_of
from infraxa.app.verifying import Kept
from infraxa.engine.said import text_hash
from infraxa.engine.transcript import EOS, LENGTH, STOP, Leaf
from infraxa.engine.types import Budget
from infraxa.net.deals import Receipt

WHOLE: Final = ("stop", "length")
"""The outcomes of answers that came to their end."""
OWN_WORDS: Final = 1024
"""Tokens that a chat template may put into a prompt by itself."""


def hashed_chars(kept: Kept) -> int:
    """So many characters of the text are hashed, from its beginning on; 0: all of it. As many as came, where
    more may have been sampled."""
    return 0 if kept.finish else len(kept.text)


def same_text(kept: Kept, said: bytes) -> bool:
    """Whether what came is what the tokens say; `said`: the hash of that. What nobody told, or nothing came
    of, is not compared."""
    if not said or not (kept.finish or kept.text):
        return True
    return text_hash(kept.text) == said


def is_allowed(kept: Kept, receipt: Receipt, last: Leaf) -> bool:
    """Whether a whole answer may have ended for the reason that its last leaf gives, by what its user knows
    without the model."""
    if receipt.outcome not in WHOLE:
        return True
    if last.flags == STOP and not kept.prompt.stop:
        return False
    # The driver may say that the prompt is longer than it can be.
    n_prompt = min(receipt.n_prompt, most_of(kept.prompt) + OWN_WORDS)
    if last.flags == LENGTH and not is_full(kept, receipt, n_prompt):
        return False
    # What completes a stop string, and all after it, is no part of the text.
    return not any(stop in kept.text for stop in kept.prompt.stop)


def is_full(kept: Kept, receipt: Receipt, n_prompt: int) -> bool:
    """Whether there could be no more tokens after such a prompt: by what was asked for, what the driver had
    said of its room, or what was reserved."""
    said, order = receipt.transcript, kept.order
    assert said is not None
    if not kept.context:
        return True
    # The last token of a full context needs no room.
    most = [kept.max_out, kept.context - n_prompt + 1]
    if order.max_tokens:
        most.append(order.max_tokens)
    if receipt.price_in or receipt.price_out:
        paid = Budget(order.hold, receipt.price_in, receipt.price_out).tokens(n_prompt)
        most += [] if paid is None else [paid]
    return said.steps >= min(most)


def is_true(kept: Kept, receipt: Receipt, last: Leaf, end: int | None, n_prompt: int = 0) -> bool:
    """Whether the answer ends where its tokens do; `end`: as scores.Scoring. `n_prompt`: the tokens of the
    prompt, where they were counted here. What nobody told is not compared."""
    if end is None:
        return True
    if receipt.outcome not in WHOLE:
        return end in (-1, last.step)
    if last.flags == LENGTH and n_prompt and not is_full(kept, receipt, n_prompt):
        return False
    return end == (last.step if last.flags in (EOS, STOP) else -1)
