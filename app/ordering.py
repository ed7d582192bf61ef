"""What is said to a driver, and what it makes of that: a conversation as a prompt, sampling as the numbers of
an order, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from infraxa.engine import types
from infraxa.engine.types import Budget, ChatMessage, Delta, Request, Sampling, TokenLogprob
from infraxa.net.orders import MAX_TOKEN, Logprob, Piece
from infraxa.net.prompts import Format, Prompt, Tool, ToolCall, Turn
from infraxa.net.wire import MAX_TOP, Order

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


def need(request: Request) -> int:
    """The same of all that a request says."""
    return sum(map(len, _said(prompt_of(request)))) // TOKEN_CHARS + 1


def prompt_tokens(prompt: Prompt) -> int:
    """The same of a prompt; of several texts, of the longest."""
    said = max(map(len, prompt.texts)) if prompt.texts else sum(map(len, _said(prompt)))
    return said // TOKEN_CHARS + 1


def _said(prompt: Prompt) -> Iterator[str]:
    """Every text of it."""
    yield prompt.raw
    yield from prompt.texts
    for turn in prompt.turns:
        yield turn.text
        for call in turn.calls:
            yield call.name
            yield call.arguments
    for tool in prompt.tools:
        yield from (tool.name, tool.description, tool.parameters)


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


def prompt_of(request: Request, text: str = "") -> Prompt:
    """`text`: what there is of the answer, which is continued."""
    stop = request.sampling.stop
    form = None if request.format is None else Format(request.format.kind, request.format.schema)
    if not request.messages:
        return Prompt(stop=stop, raw=request.prompt + text, format=form)
    return Prompt(
        tuple(
            Turn(
                message.role,
                message.content,
                tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls),
                message.tool_call_id,
            )
            for message in continued(request.messages, text)
        ),
        stop,
        tools=tuple(Tool(tool.name, tool.description, tool.parameters) for tool in request.tools),
        tool_choice=request.tool_choice,
        format=form,
    )


def order_of(
    order_id: bytes, model_id: bytes, prompt_bytes: int, request: Request, max_tokens: int | None
) -> Order:
    """The order; what of the sampling is beyond the limits of the wire becomes the limit."""
    sampling = request.sampling
    return Order(
        id=order_id,
        model=model_id,
        prompt_bytes=prompt_bytes,
        max_tokens=0 if max_tokens is None else min(max_tokens, 2**31 - 1),
        temperature=_ppm(sampling.temperature, 0, 5),
        top_k=min(max(sampling.top_k, 0), 2**31 - 1),
        top_p=_ppm(sampling.top_p, 0, 1),
        min_p=_ppm(sampling.min_p, 0, 1),
        repeat_penalty=_ppm(sampling.repeat_penalty, 0, 10),
        seed=None if sampling.seed is None else sampling.seed % 2**32,
        presence_penalty=_ppm(sampling.presence_penalty, -2, 2),
        frequency_penalty=_ppm(sampling.frequency_penalty, -2, 2),
        logprobs=None if request.logprobs is None else min(max(request.logprobs, 0), MAX_TOP),
    )


def request_of(
    order: Order, prompt: Prompt, max_tokens: int, user: str, budget: Budget | None = None
) -> Request:
    """What the driver's engine is asked for, where an answer is."""
    sampling = Sampling(
        temperature=order.temperature / _PPM,
        top_k=order.top_k,
        top_p=order.top_p / _PPM,
        min_p=order.min_p / _PPM,
        repeat_penalty=order.repeat_penalty / _PPM,
        seed=order.seed,
        max_tokens=max_tokens,
        stop=prompt.stop,
        presence_penalty=order.presence_penalty / _PPM,
        frequency_penalty=order.frequency_penalty / _PPM,
    )
    form = prompt.format
    return Request(
        tuple(
            ChatMessage(
                turn.role,
                turn.text,
                tuple(types.ToolCall(call.id, call.name, call.arguments) for call in turn.calls),
                turn.call_id,
            )
            for turn in prompt.turns
        ),
        sampling,
        user=user,
        budget=budget,
        prompt=prompt.raw,
        tools=tuple(types.Tool(tool.name, tool.description, tool.parameters) for tool in prompt.tools),
        tool_choice=prompt.tool_choice,
        format=None if form is None else types.Format(form.kind, form.schema),
        logprobs=order.logprobs,
    )


def logprobs_told(delta: Delta) -> tuple[Logprob, ...]:
    """Those of the engine as they travel."""
    return tuple(
        Logprob(
            one.piece[:MAX_TOKEN],
            _nats(one.logprob),
            tuple((token, piece[:MAX_TOKEN], _nats(logprob)) for token, piece, logprob in one.top[:MAX_TOP]),
        )
        for one in delta.logprobs
    )


def delta_of(piece: Piece) -> Delta:
    """What of a driver's answer came."""
    return Delta(
        piece.text,
        piece.ids,
        tuple(
            TokenLogprob(
                token,
                one.token,
                one.logprob / _PPM,
                tuple((likely, data, logprob / _PPM) for likely, data, logprob in one.top),
            )
            for token, one in zip(piece.ids, piece.logprobs, strict=False)
        ),
    )


def _ppm(value: float, least: int, most: int) -> int:
    return round(min(max(value, least), most) * _PPM)


def _nats(logprob: float) -> int:
    """What cannot be, is as unlikely as can be said."""
    if not logprob * _PPM >= -(2**31):
        return -(2**31)
    return min(round(logprob * _PPM), 0)
