"""Log-probabilities of tokens: right, aligned with the ids whatever is held back, and only when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from infraxa.engine import bindings
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Context, Model
from infraxa.engine.prompt import prompt_tokens
from infraxa.engine.sampler import Sampler
from infraxa.engine.types import Delta, Format, LoadOptions, Request, TokenLogprob

Ask = Callable[..., Request]
Open = Callable[..., Any]


def asked(request: Request, top: int, **more: Any) -> Request:
    return msgspec.structs.replace(request, logprobs=top, **more)


def taken(room: Any, request_id: int, request: Request) -> tuple[list[int], list[TokenLogprob]]:
    """Ids and log-probabilities, taken after each step."""
    ids, logprobs = [], []
    room.batcher.submit(request_id, request)
    while room.batcher.busy:
        room.batcher.step()
        for emitted in room.take().emitted:
            ids += emitted.token_ids
            logprobs += emitted.logprobs
    return ids, logprobs


def softmax_of_next(model: Model, tokens: list[int]) -> list[float]:
    with Context(model, n_ctx=512, slots=1, n_batch=512, threads=1) as context:
        for i, token in enumerate(tokens):
            context.token[i], context.pos[i], context.seq[i] = token, i, 0
            context.output[i] = i == len(tokens) - 1
        context.decode(len(tokens))
        pointer = bindings.api.llama_get_logits_ith(context.handle, len(tokens) - 1)
        logits = pointer[: model.n_vocab]
    top = max(logits)
    total = math.fsum(math.exp(x - top) for x in logits)
    return [x - top - math.log(total) for x in logits]


def test_they_are_those_of_the_model_before_any_sampler(guide: Model, open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    request = ask("what is 12+5?", temperature=3.0, top_k=5, seed=4, repeat_penalty=1.5, max_tokens=1)
    ids, (first,) = taken(room, 1, asked(request, 3))

    expected = softmax_of_next(guide, prompt_tokens(guide, room.batcher.template, request))
    likeliest = sorted(range(len(expected)), key=lambda i: -expected[i])[:3]
    assert first.token == ids[0]
    assert first.logprob == pytest.approx(expected[ids[0]], abs=1e-4)
    assert [token for token, _, _ in first.top] == likeliest
    assert [value for _, _, value in first.top] == pytest.approx([expected[i] for i in likeliest], abs=1e-4)
    assert all(piece == (guide.piece(token) or b"") for token, piece, _ in first.top)


@pytest.mark.parametrize("top", [0, 1, 20])
def test_one_for_each_id_in_order(open_room: Open, ask: Ask, top: int) -> None:
    room = open_room(slots=2)
    plain = room.answer(1, ask("what is infraxa?"))
    ids, logprobs = taken(room, 2, asked(ask("what is infraxa?"), top))
    assert ids == room.ids[1]
    assert [one.token for one in logprobs] == ids
    assert b"".join(one.piece for one in logprobs).decode() == plain
    for one in logprobs:
        assert len(one.top) == top
        values = [value for _, _, value in one.top]
        assert values == sorted(values, reverse=True)
        assert one.logprob <= 0
        if top:  # temperature 0 takes the likeliest
            assert one.top[0][0] == one.token and one.top[0][2] == one.logprob


def test_what_a_stop_string_holds_back_is_neither_lost_nor_doubled(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    whole = room.answer(1, ask("what is infraxa?"))
    for stop in ((whole[20:60] + "never",), (whole[20:30],), (whole[-9:] + "x", whole[5:40] + "y")):
        plain_text = room.answer(2, ask("what is infraxa?", stop=stop))
        plain_ids = room.ids.pop(2)
        del room.text[2]
        ids, logprobs = taken(room, 3, asked(ask("what is infraxa?", stop=stop), 2))
        assert room.text.pop(3) == plain_text
        assert ids == plain_ids == [one.token for one in logprobs]
        room.ids.pop(3)


def test_a_constraint_changes_what_is_taken_but_not_how_likely_it_was(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    schema = Format("json_schema", '{"enum": ["zebra"]}')
    ids, logprobs = taken(room, 1, asked(ask("what is 12+5?"), 1, format=schema))
    assert room.text[1] == '"zebra"'
    assert [one.token for one in logprobs] == ids
    first = logprobs[0]
    assert first.top[0][0] != first.token and first.logprob < first.top[0][2], (
        "it would have said something else"
    )


def test_nobody_pays_for_them_who_does_not_ask(
    open_room: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(slots=1)
    for name in ("logprob", "sample_allowed"):
        monkeypatch.setattr(Sampler, name, None)
    ids, logprobs = taken(room, 1, ask("what is 12+5?"))
    assert ids and not logprobs


async def test_they_come_with_the_deltas_of_the_engine(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, LoadOptions(threads=1))
    deltas = [d async for d in engine.generate(asked(ask("what is 12+5?"), 2)) if isinstance(d, Delta)]
    for delta in deltas:
        assert [one.token for one in delta.logprobs] == list(delta.token_ids)
    assert "17" in "".join(delta.text for delta in deltas)
