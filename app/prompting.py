"""What of a conversation is said to the model: its turns as messages, and how many of them fit."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from infraxa.app.errors import NodeError
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage
from infraxa.store.records import Message

ANSWER_SHARE = 4
"""When old turns are dropped, at least one part in so many of the context is left for the answer."""


async def fit(engine: Engine, said: tuple[ChatMessage, ...]) -> tuple[tuple[ChatMessage, ...], int]:
    """Leave out the fewest of the oldest turns that make the rest fit; the number left out."""
    loaded = engine.status.loaded
    if loaded is None:
        raise NodeError("closed", "The model's process ended.", "Try again.")
    room = loaded.n_ctx - loaded.n_ctx // ANSWER_SHARE
    system = said[:1] if said and said[0].role == "system" else ()
    rest = said[len(system) :]
    # A conversation starts with the person's words: only cuts before those are tried.
    cuts = [at for at, turn in enumerate(rest) if turn.role == "user"] or [0]
    low, high = 0, len(cuts) - 1
    while low < high:
        middle = (low + high) // 2
        if await engine.count_tokens((*system, *rest[cuts[middle] :])) <= room:
            high = middle
        else:
            low = middle + 1
    return (*system, *rest[cuts[low] :]), cuts[low]


def prompt_messages(system: str | None, said: Iterable[Message]) -> tuple[ChatMessage, ...]:
    """What the model is told: failed empty answers are left out, and neighbours of one role are joined,
    as many templates insist on turns."""
    messages: list[ChatMessage] = []
    if system and system.strip():
        messages.append(ChatMessage("system", system))
    for message in said:
        if not message.content.strip():
            continue
        if messages and messages[-1].role == message.role:
            joined = f"{messages[-1].content}\n\n{message.content}"
            messages[-1] = msgspec.structs.replace(messages[-1], content=joined)
        else:
            messages.append(ChatMessage(message.role, message.content))
    return tuple(messages)
