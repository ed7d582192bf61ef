"""What is said to a driver, and what it makes of that: a conversation as a prompt, sampling as the numbers of
an order, and back. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from infraxa.engine.types import Budget, ChatMessage, Request, Sampling
from infraxa.net.orders import Prompt, Turn
from infraxa.net.wire import Order

TOKEN_CHARS: Final = 4
"""Characters of text that are a token, about."""
_PPM: Final = 1_000_000


def continued(said: tuple[ChatMessage, ...], text: str) -> tuple[ChatMessage, ...]:
    """The conversation when `text` is what its answer has so far."""
    if not text:
        return said
    if said and said[-1].role == "assistant":
        return (*said[:-1], msgspec.structs.replace(said[-1], content=said[-1].content + text))
    return (*said, ChatMessage("assistant", text))


def tokens(said: tuple[ChatMessage, ...]) -> int:
    """How many they are, about."""
    return sum(len(message.content) for message in said) // TOKEN_CHARS + 1


def prompt_tokens(prompt: Prompt) -> int:
    """The same for a prompt."""
    return sum(len(turn.text) for turn in prompt.turns) // TOKEN_CHARS + 1


def shortened(said: tuple[ChatMessage, ...], context: int) -> tuple[tuple[ChatMessage, ...], int]:
    """The conversation without so many of its oldest turns that a quarter of it is gone, and that a quarter
    of `context` tokens is left for the answer by the look of it; and their number, 0 when there is nothing to
    leave out.

    Used when the driver, who alone knows its vocabulary, says that it is too long: so more than once, maybe.
    """
    system = said[:1] if said and said[0].role == "system" else ()
    rest = said[len(system) :]
    room = min(context, tokens(said)) * 3 // 4
    # A conversation starts with the person's words: only cuts before those are tried.
    cuts = [at for at, turn in enumerate(rest) if turn.role == "user" and at > 0]
    for at in cuts:
        if tokens((*system, *rest[at:])) <= room or at == cuts[-1]:
            return (*system, *rest[at:]), at
    return said, 0


def prompt_of(said: tuple[ChatMessage, ...], sampling: Sampling) -> Prompt:
    return Prompt(tuple(Turn(message.role, message.content) for message in said), sampling.stop)


def order_of(
    order_id: bytes, model_id: bytes, prompt_bytes: int, sampling: Sampling, max_tokens: int | None
) -> Order:
    """The order; what of the sampling is beyond the limits of the wire becomes the limit."""
    return Order(
        id=order_id,
        model=model_id,
        prompt_bytes=prompt_bytes,
        max_tokens=0 if max_tokens is None else min(max_tokens, 2**31 - 1),
        temperature=_ppm(sampling.temperature, 5),
        top_k=min(max(sampling.top_k, 0), 2**31 - 1),
        top_p=_ppm(sampling.top_p, 1),
        min_p=_ppm(sampling.min_p, 1),
        repeat_penalty=_ppm(sampling.repeat_penalty, 10),
        seed=None if sampling.seed is None else sampling.seed % 2**32,
    )


def request_of(
    order: Order, prompt: Prompt, max_tokens: int, user: str, budget: Budget | None = None
) -> Request:
    """What the driver's engine is asked for."""
    sampling = Sampling(
        temperature=order.temperature / _PPM,
        top_k=order.top_k,
        top_p=order.top_p / _PPM,
        min_p=order.min_p / _PPM,
        repeat_penalty=order.repeat_penalty / _PPM,
        seed=order.seed,
        max_tokens=max_tokens,
        stop=prompt.stop,
    )
    messages = tuple(ChatMessage(turn.role, turn.text) for turn in prompt.turns)
    return Request(messages, sampling, user=user, budget=budget)


def _ppm(value: float, most: int) -> int:
    return round(min(max(value, 0), most) * _PPM)
