"""Orders whose answers are to be checked, for tests of who sells and of who buys them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from infraxa.net import audits, codec, orders, prompts, wire
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item
from tests.app.selling import QUESTION, User


class Wish(NamedTuple):
    """What is asked for, and what only its user knows of it."""

    prompt: Prompt
    secret: bytes
    fields: dict[str, Any]
    """Of the order."""

    @property
    def id(self) -> bytes:
        number: bytes = self.fields["id"]
        return number


def wish(text: str = QUESTION, *, prompt: Prompt | None = None, **fields: Any) -> Wish:
    """An order of an answer that is to be checked."""
    secret = os.urandom(32)
    prompt = prompt or Prompt((Turn("user", text),), salt=os.urandom(32), draw=os.urandom(32))
    hashes = {
        "prompt_hash": codec.digest("prompt", prompts.encode_prompt(prompt)),
        "audit": codec.digest("audit", secret),
    }
    return Wish(prompt, secret, {"id": os.urandom(16), "mode": "merkle"} | hashes | fields)


async def bought(user: User, wished: Wish) -> list[Item]:
    """All that comes. Raises OrderFailed."""
    return await user.bought(prompt=wished.prompt, **wished.fields)


async def opened(user: User, wished: Wish, steps: int, *, all_: bool = False) -> audits.Opening:
    """Raises StreamFailed."""
    return await audits.ask(user.link, wire.AuditPlease(wished.id, wished.secret, all_), steps)


def ids_of(items: list[Item]) -> list[int]:
    """The tokens that came."""
    return [token for item in items if isinstance(item, orders.Piece) for token in item.ids]
