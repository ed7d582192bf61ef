"""What a driver is asked to commit to with an order, and what this side keeps of the answer to hold it to it.
Pure; the randomness is given.

What is checked of a receipt before it is countersigned is here too; what a driver opens later is checked in
opened.py, when and by whom is decided in auditor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from infraxa.net import codec, orders
from infraxa.net.deals import Receipt
from infraxa.net.prompts import SALT, Prompt
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE
from infraxa.net.wire import Mode, Order
from infraxa.store.trade_records import OrderRow

Random = Callable[[int], bytes]
"""So many random bytes that nobody can guess."""

ID_BYTES: Final = 36
"""Of memory that a token takes: an int, and its place."""
CHECKPOINT_BYTES: Final = 400
"""Likewise a checkpoint, with its hash and signature."""
OBJECT_BYTES: Final = 3072
"""Likewise all else of an answer, with the timer that drops it: 3 kB of the shortest ones."""
_PLAIN: Final = 1_000_000
"""A repeat penalty of 1, which changes nothing."""


class Asked(NamedTuple):
    """What a driver is to commit to."""

    mode: Mode
    why: str = ""
    """Why nothing: a code of store.records.Verdict.why."""


class Secrets(NamedTuple):
    """What nobody knows before it is told: 32 random bytes each."""

    audit: bytes
    """Told after the receipt: decides which steps are opened."""
    salt: bytes
    draw: bytes


class Kept(msgspec.Struct, frozen=True):
    """What is needed to check one answer later. Holds what was said: it is kept in memory alone, for as long
    as its driver has to be able to open it."""

    provider: bytes
    order: Order
    """As it was sent."""
    prompt: Prompt
    secret: bytes
    commit: bytes
    """To the driver's half of the draw."""
    draw: bytes
    """That half; empty: none came."""
    checkpoints: tuple[orders.Checkpoint, ...]
    """Their signatures were checked."""
    ids: tuple[int, ...]
    """The tokens that came."""
    steps: int
    """As the driver said at the end; 0: there was none."""
    most: int
    """Steps that there can be."""
    size: int
    """Bytes of memory that it takes, about."""
    finish: str = ""
    """How it ended, as the driver said: orders.Done.finish; empty: nothing was said."""
    text: str = ""
    """What came as their text."""
    context: int = 0
    """Tokens of the prompt and the answer together, and of the answer, at most, as the driver said before it
    had the prompt; 0: that is not known."""
    max_out: int = 0

    def __repr__(self) -> str:
        """Without what was said."""
        return f"Kept({self.order.id.hex()})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("order", self.order.id.hex())]


class Checks(Protocol):
    """Who is told what can be checked, and does so. Returns at once."""

    def keep(self, kept: Kept, place: tuple[str, str] | None) -> None:
        """An answer ended; `place`: its chat and message, when it is kept."""

    def unverified(self, provider: bytes, order: bytes, place: tuple[str, str] | None, why: str) -> None:
        """One did that cannot be checked."""

    def signed(self, order: OrderRow) -> None:
        """The receipt of an order is signed, and with bill `closed` its driver knows that."""


class NoChecks:
    """Nobody."""

    def keep(self, kept: Kept, place: tuple[str, str] | None) -> None: ...

    def unverified(self, provider: bytes, order: bytes, place: tuple[str, str] | None, why: str) -> None: ...

    def signed(self, order: OrderRow) -> None: ...


def verifiable(order: Order, prompt: Prompt) -> bool:
    """Whether the tokens can be drawn so that it can be checked: no penalties, no format, no call that must
    be made. A seed that was asked for is not one of both sides."""
    plain = (order.repeat_penalty, order.presence_penalty, order.frequency_penalty) == (_PLAIN, 0, 0)
    free = prompt.format is None and prompt.tool_choice in ("auto", "none")
    return plain and free and not order.texts and (order.seed is None or not order.temperature)


def asked(setting: Mode, modes: int, order: Order, prompt: Prompt) -> Asked:
    """What is asked for where the person wants `setting` and the driver offers `modes` (records.MODE_*)."""
    if setting == "none":
        return Asked("none", "own_setting")
    if not verifiable(order, prompt):
        return Asked("none", "sampling")
    if setting == "fraud_proof" and modes & MODE_FRAUD_PROOF:
        return Asked("fraud_proof")
    return Asked("merkle") if modes & MODE_MERKLE else Asked("none", "not_offered")


def drawn(random: Random) -> Secrets:
    """New ones."""
    return Secrets(random(SALT), random(SALT), random(SALT))


def salted(prompt: Prompt, secrets: Secrets) -> Prompt:
    """The prompt as it is sent."""
    return msgspec.structs.replace(prompt, salt=secrets.salt, draw=secrets.draw)


def committing(order: Order, mode: Mode, secrets: Secrets, prompt: bytes) -> Order:
    """The order of that encoded prompt, in this mode."""
    return msgspec.structs.replace(
        order,
        mode=mode,
        prompt_hash=codec.digest("prompt", prompt),
        audit=codec.digest("audit", secrets.audit),
    )


def fits(kept: Kept, receipt: Receipt, whole: Callable[[bytes, Sequence[int]], bytes]) -> bool:
    """Whether the receipt commits to the answer that came. `whole`: transcript.output_hash.

    What was cancelled or failed may end anywhere. Nothing is committed to where nothing came, or where
    nothing is charged, as by a driver that was restarted. The tokens that came are compared where they are
    all that were sampled; else that waits for an opening.
    """
    said = receipt.transcript
    if said is None:
        came = kept.ids or kept.text or kept.checkpoints or kept.finish
        return receipt.outcome in ("cancelled", "failed") and not (came and receipt.charge)
    if kept.finish and receipt.outcome != kept.finish:
        # Where an answer that failed ends is not looked at.
        return False
    draws = said.draw_u == kept.prompt.draw and codec.digest("draw", said.draw_p) == kept.commit
    if said.mode != kept.order.mode or not draws:
        return False
    # What was sampled before a driver knew that it was cancelled may not have come: no closer bound holds.
    if not max(len(kept.ids), orders.CHECKPOINT * len(kept.checkpoints)) <= said.steps <= kept.most:
        return False
    if not kept.steps:
        return True
    if said.steps != kept.steps:
        return False
    return kept.steps > len(kept.ids) or said.output == whole(kept.prompt.salt, kept.ids)
