"""Verified answers of the guide model: each token follows from its leaf, each leaf stands on what was said
before, and whatever else the batch does changes neither."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from infraxa.engine import bindings, verified
from infraxa.engine.checks import check_request
from infraxa.engine.frames import Emitted
from infraxa.engine.generation import Answer
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.gumbel import choose, draw_of
from infraxa.engine.llama import Context, Model
from infraxa.engine.logits import row_of_logits
from infraxa.engine.lookup import Lookup
from infraxa.engine.prompt import prompt_tokens
from infraxa.engine.sampler import Sampler
from infraxa.engine.transcript import (
    EOS,
    LENGTH,
    STOP,
    Leaf,
    ctx0,
    ctx_next,
    decode_leaf,
    leaf_tag,
    quantised,
)
from infraxa.engine.types import (
    Budget,
    ChatMessage,
    Delta,
    EngineError,
    Finished,
    Format,
    LoadOptions,
    Request,
    Sampling,
    Tool,
    Verified,
)

Ask = Callable[..., Request]
Open = Callable[..., Any]
PLAIN = (800_000, 40, 950_000, 50_000)
HOT = (50_000_000, 0, 1_000_000, 0)
"""So hot that the end of the turn hardly ever comes."""
SALT = bytes(range(32))


def checkable(request: Request, ppm: tuple[int, int, int, int] = PLAIN, seed: int = 1) -> Request:
    order, draw = seed.to_bytes(16, "big"), seed.to_bytes(32, "big")
    return msgspec.structs.replace(request, verified=Verified(order, draw, SALT, ppm))


def checked(room: Any, request_id: int, request: Request) -> list[Leaf]:
    """The leaves of an answer, which are what they must be without a model."""
    asked = request.verified
    assert asked is not None
    leaves = [decode_leaf(data) for data in room.leaves.get(request_id, [])]
    ctx = ctx0(asked.salt, prompt_tokens(room.batcher.model, room.batcher.template, request))
    assert room.ctx0[request_id] == ctx
    for step, leaf in enumerate(leaves):
        assert (leaf.order, leaf.step, leaf.ctx) == (asked.order, step, ctx)
        assert leaf.tag == leaf_tag(asked.salt, step)
        assert leaf.token == choose(leaf.ids, leaf.q, draw_of(*asked.ppm), asked.seed, step)
        assert not leaf.flags or step == len(leaves) - 1
        ctx = ctx_next(ctx, leaf.token)
    said = [leaf.token for leaf in leaves if room.batcher.model.piece(leaf.token)]
    assert said == room.ids.get(request_id, [])
    return leaves


def alone(open_room: Open, request: Request) -> list[bytes]:
    room = open_room(slots=2)
    room.answer(1, request)
    leaves: list[bytes] = room.leaves[1]
    return leaves


def test_every_token_follows_from_its_leaf(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    request = checkable(ask("what is 12+5?"))
    assert "17" in room.answer(1, request)
    leaves = checked(room, 1, request)
    assert room.ended[1].reason == "stop" and leaves[-1].flags == EOS
    assert room.batcher.model.piece(leaves[-1].token) is None
    assert len(leaves) == room.ended[1].usage.n_out + 1, "what ends the turn is sampled, and nothing said"


def test_the_candidates_are_the_models_own(guide: Model, open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    request = checkable(ask("what is infraxa?", max_tokens=1))
    room.answer(1, request)
    (leaf,) = checked(room, 1, request)
    tokens = prompt_tokens(guide, room.batcher.template, request)
    with Context(guide, n_ctx=512, slots=1, n_batch=512, threads=1) as context:
        for i, token in enumerate(tokens):
            context.token[i], context.pos[i], context.seq[i] = token, i, 0
            context.output[i] = i == len(tokens) - 1
        context.decode(len(tokens))
        pointer = bindings.api.llama_get_logits_ith(context.handle, len(tokens) - 1)
        ids, q = quantised(np.ctypeslib.as_array(pointer, (guide.n_vocab,)))
    assert dict(zip(leaf.ids[:20], leaf.q[:20], strict=True)) == pytest.approx(
        dict(zip(ids.tolist()[:20], q.tolist()[:20], strict=True)), abs=200
    )


def test_the_seed_decides_and_not_the_request_s_own_sampling(open_room: Open, ask: Ask) -> None:
    first = checkable(ask("what is infraxa?", seed=4, max_tokens=30), HOT)
    again = checkable(ask("what is infraxa?", seed=5, temperature=2.0, top_k=1, max_tokens=30), HOT)
    other = checkable(ask("what is infraxa?", seed=4, max_tokens=30), HOT, seed=2)
    assert alone(open_room, first) == alone(open_room, again)
    tokens = [[decode_leaf(data).token for data in alone(open_room, one)] for one in (first, other)]
    assert tokens[0] != tokens[1]


def test_others_in_the_batch_change_nothing(open_room: Open, ask: Ask) -> None:
    request = checkable(ask("what is infraxa?", max_tokens=40), HOT)
    room = open_room(slots=8)
    for i in range(2, 8):
        more = ask(f"{i}. who are you?", temperature=50.0, top_k=0, top_p=1.0, min_p=0.0, seed=i)
        room.batcher.submit(i, more if i % 2 else checkable(more, HOT, seed=i))
    for _ in range(10):
        room.batcher.step()
    room.batcher.submit(1, request)
    for _ in range(60):
        room.batcher.step()
        room.take()
    assert room.leaves[1] == alone(open_room, request)
    checked(room, 1, request)


def test_a_prompt_that_is_in_memory_makes_the_same_transcript(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=2)
    first = room.answer(1, ask("what is 12+5?"))
    request = checkable(ask("what is 12+5?", first, "and now add 7"))
    room.answer(2, request)
    assert room.ended[2].usage.n_cached > 0
    checked(room, 2, request)
    # Another's, that begins as the one that is read now, waits for it.
    requests = {i: checkable(ask(f"{'again and ' * 60} {i}?", max_tokens=5), seed=i) for i in (3, 4)}
    for i, one in requests.items():
        room.batcher.submit(i, one)
    room.run()
    for i, one in requests.items():
        assert len(checked(room, i, one)) >= 1


@pytest.mark.parametrize("right", [True, False])
def test_guesses_change_nothing(
    open_room: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    request = checkable(ask("what is infraxa?", max_tokens=60), HOT)
    expected = alone(open_room, request)
    tokens = [decode_leaf(data).token for data in expected]
    room = open_room(slots=2)
    n_prompt = len(prompt_tokens(room.batcher.model, room.batcher.template, request))

    def draft(_: Lookup, known: list[int], most: int) -> list[int]:
        guess = tokens[len(known) - n_prompt :] if right else [7, 9, 7]
        return guess[: min(3, most)]

    monkeypatch.setattr(Lookup, "draft", draft)
    room.answer(1, request)
    assert [decode_leaf(data).token for data in room.leaves[1]] == tokens
    checked(room, 1, request)
    assert (room.batcher.step_number < 40) == right


def test_a_stop_string_the_limit_and_the_budget_are_told_in_the_last_leaf(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    text = room.answer(1, checkable(ask("what is infraxa?")))
    stop = text[20:27]
    request = checkable(ask("what is infraxa?", stop=(stop,)))
    assert room.answer(2, request) == text[: text.index(stop)]
    assert checked(room, 2, request)[-1].flags == STOP and room.ended[2].reason == "stop"

    request = checkable(ask("what is infraxa?", max_tokens=7))
    room.answer(3, request)
    leaves = checked(room, 3, request)
    assert (len(leaves), leaves[-1].flags, room.ended[3].reason) == (7, LENGTH, "length")

    n_prompt = room.ended[3].usage.n_prompt
    request = msgspec.structs.replace(
        checkable(ask("what is infraxa?")), budget=Budget(n_prompt + 5, 1_000_000, 1_000_000)
    )
    room.answer(4, request)
    leaves = checked(room, 4, request)
    assert (len(leaves), leaves[-1].flags) == (5, LENGTH)


def test_an_answer_without_a_token_has_a_beginning(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    request = checkable(ask("hi", max_tokens=0))
    room.answer(1, request)
    assert checked(room, 1, request) == [] and room.ended[1].reason == "length"


def test_control_tokens_are_committed_to_and_not_said(
    open_room: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkable(ask("what is infraxa?", max_tokens=30), HOT)
    said = [decode_leaf(data).token for data in alone(open_room, request)]
    room = open_room(slots=1)
    piece, model = room.batcher.model.piece, room.batcher.model
    silent = said[3]
    monkeypatch.setattr(model, "piece", lambda token: b"" if token == silent else piece(token))
    room.batcher.submit(1, request)
    told = []
    while room.batcher.busy:
        room.batcher.step()
        told += [(e.token_ids, len(e.leaves)) for e in room.take().emitted]
    assert ((), 1) in told, "it does not wait for the next that is said"
    leaves = checked(room, 1, request)
    assert [leaf.token for leaf in leaves] == said
    assert len(room.ids[1]) == sum(token != silent for token in said) < len(leaves)


def test_what_was_said_before_a_cancel_is_committed_to(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=2)
    request = checkable(ask("what is infraxa?"), HOT)
    room.batcher.submit(1, request)
    for _ in range(9):
        room.batcher.step()
    room.batcher.cancel(1)
    room.take()
    leaves = checked(room, 1, request)
    assert room.ended[1].reason == "cancelled"
    assert len(leaves) == room.ended[1].usage.n_out > 3
    assert not leaves[-1].flags, "it might have gone on"


def test_a_step_that_is_undone_leaves_nothing(open_room: Open, ask: Ask) -> None:
    request = checkable(ask("what is infraxa?", max_tokens=20), HOT)
    room = open_room(slots=2)
    room.batcher.submit(1, request)
    for step in range(12):
        room.context.abort(step % 3 == 1)
        room.batcher.step()
    room.context.abort(False)
    room.run()
    assert room.leaves[1] == alone(open_room, request)


def test_logits_that_are_no_numbers_end_that_answer_alone(
    open_room: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(slots=2)
    request = checkable(ask("what is infraxa?", max_tokens=30), HOT)
    rows: list[int] = []

    def spoilt(context: Context, row: int) -> Any:
        rows.append(row)
        logits = row_of_logits(context, row)
        return np.full_like(logits, np.nan) if len(rows) == 5 else logits

    monkeypatch.setattr(verified, "row_of_logits", spoilt)
    room.batcher.submit(1, request)
    room.batcher.submit(2, ask("what is 12+5?"))
    room.run()
    assert room.ended[1].reason == "failed"
    assert room.ended[1].error.code == "compute_failed" and "finite" in room.ended[1].error.message
    assert len(checked(room, 1, request)) == 4
    assert "17" in room.text[2]


def test_log_probabilities_can_be_asked_for_besides(open_room: Open, ask: Ask) -> None:
    request = checkable(ask("what is infraxa?", max_tokens=10), HOT)
    room = open_room(slots=1)
    room.batcher.submit(1, msgspec.structs.replace(request, logprobs=2))
    logprobs = []
    while room.batcher.busy:
        room.batcher.step()
        logprobs += [one for e in room.take().emitted for one in e.logprobs]
    leaves = checked(room, 1, request)
    assert [one.token for one in logprobs] == [leaf.token for leaf in leaves]
    assert [one.top[0][0] for one in logprobs] == [leaf.ids[0] for leaf in leaves]


def test_nobody_pays_for_it_who_does_not_ask(
    open_room: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "VerifiedSampler", None)
    room = open_room(slots=1)
    assert "17" in room.answer(1, ask("what is 12+5?"))
    assert not room.leaves and not room.ctx0
    monkeypatch.undo()
    monkeypatch.setattr(Sampler, "sample", None)
    assert "17" in room.answer(2, checkable(ask("what is 12+5?"))), "and no token is chosen twice"


HI = (ChatMessage("user", "hi"),)
UNVERIFIABLE = {
    "a repeat penalty": Request(HI, Sampling(repeat_penalty=1.1)),
    "a penalty for what": Request(HI, Sampling(presence_penalty=0.5)),
    "penalty for what was said": Request(HI, Sampling(frequency_penalty=-0.5)),
    "a given format": Request(HI, format=Format("json_object")),
    "must call a tool": Request(HI, tools=(Tool("get"),), tool_choice="get"),
    "call a tool": Request(HI, tools=(Tool("get"),), tool_choice="required"),
}


@pytest.mark.parametrize("why", UNVERIFIABLE)
def test_what_cannot_be_verified_is_refused_with_the_reason(open_room: Open, why: str) -> None:
    check_request(UNVERIFIABLE[why])
    room = open_room(slots=1)
    room.batcher.submit(1, checkable(UNVERIFIABLE[why]))
    room.take()
    error = room.ended[1].error
    assert (error.code, error.remedy) == ("bad_request", "Ask without that, or without verification.")
    assert why in error.message and "cannot be verified" in error.message


def test_tools_that_may_be_called_can_be_verified(ask: Ask) -> None:
    check_request(checkable(Request(HI, tools=(Tool("get"),))))
    check_request(checkable(Request(HI, tools=(Tool("get"),), tool_choice="none")))


@pytest.mark.parametrize(
    "parts",
    [
        {"order": b"o" * 15},
        {"seed": b""},
        {"salt": b"s" * 33},
        {"ppm": (-1, 0, 0, 0)},
        {"ppm": (0, 0, 0, 1 << 32)},
    ],
)
def test_parts_of_another_size_are_refused(parts: dict[str, Any]) -> None:
    whole = checkable(Request(HI)).verified
    assert whole is not None
    with pytest.raises(EngineError, match="what they must be"):
        check_request(Request(HI, verified=msgspec.structs.replace(whole, **parts)))


def test_a_cache_of_four_bits_refuses_to_be_verified(open_room: Open, ask: Ask) -> None:
    room = open_room(slots=1)
    room.context.kv_type = "q4_0"
    room.batcher.submit(1, checkable(ask("hi")))
    room.take()
    assert room.ended[1].error.code == "unsupported" and "q4_0" in room.ended[1].error.message
    assert room.answer(2, ask("hi"))
    room.context.kv_type = "q8_0"
    room.answer(3, checkable(ask("hi")))
    assert room.ended[3].reason == "stop"


def test_a_slow_consumer_gets_all_leaves_and_one_beginning() -> None:
    answer = Answer(1, Request(HI), last_try=False)
    assert not answer.started
    answer.add(Emitted(1, "", (), (), (b"a",), b"beginning"))
    assert answer.started, "what was told of it is not told again"
    answer.add(Emitted(1, "x", (5,), (), (b"b", b"c")))
    assert take(answer) == Delta("x", (5,), (), (b"a", b"b", b"c"), b"beginning")
    answer.add(Emitted(1, "", (), (), (b"d",)))
    assert take(answer) == Delta("", (), (), (b"d",))


def take(answer: Answer) -> Any:
    """What comes at once."""
    coroutine = answer.next()
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("nothing was there")


async def test_they_come_with_the_deltas_of_the_engine(open_engine: Open, open_room: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, LoadOptions(threads=1))
    request = checkable(ask("what is infraxa?", max_tokens=20))
    deltas, ends = [], []
    async for event in engine.generate(request):
        if isinstance(event, Delta):
            deltas.append(event)
        elif isinstance(event, Finished):
            ends.append(event.reason)
    assert ends == ["length"]
    assert [bool(delta.ctx0) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert [data for delta in deltas for data in delta.leaves] == alone(open_room, request)
    for delta in deltas:
        assert [decode_leaf(data).token for data in delta.leaves] == list(delta.token_ids)


def test_a_worker_that_is_not_asked_for_it_needs_no_numpy() -> None:
    code = "import sys, infraxa.engine.batching; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
