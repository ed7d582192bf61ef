"""The official openai package drives the gateway of one machine: every endpoint, every feature."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.app.gateways import Opened, idle, opened

QUESTION: Any = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data") as one:
        yield one


async def test_a_chat_is_answered_whole(gateway: Opened) -> None:
    raw = await gateway.client.chat.completions.with_raw_response.create(
        model="guide", messages=QUESTION, temperature=0, max_completion_tokens=8
    )
    answer = raw.parse()
    assert (
        answer.object == "chat.completion" and answer.model == "guide" and answer.id.startswith("chatcmpl-")
    )
    choice = answer.choices[0]
    assert "4" in (choice.message.content or "") and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length") and choice.message.tool_calls is None
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    facts = answer.model_extra["infraxa"] if answer.model_extra else {}
    assert facts == {
        "driver": "local", "driver_name": "", "model": "guide", "cost": 0, "readers": [], "bills": [],
    }  # fmt: skip
    assert raw.headers["X-Infraxa-Driver"] == "local" and raw.headers["X-Infraxa-Cost"] == "0"


async def test_a_chat_streams_the_same_words(gateway: Opened) -> None:
    asked: dict[str, Any] = {"model": "guide", "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    whole = await gateway.client.chat.completions.create(**asked)
    stream = await gateway.client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.object == "chat.completion.chunk" and chunk.id == chunks[0].id for chunk in chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and set(reasons[:-1]) == {None}
    assert all(chunk.usage is None for chunk in chunks[:-1])
    last = chunks[-1]
    assert not last.choices and last.usage is not None and whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens_details is not None and last.usage.prompt_tokens_details.cached_tokens
    assert last.model_extra is not None and last.model_extra["infraxa"]["driver"] == "local"


async def test_several_answers_are_told_apart_and_come_again_by_their_seed(gateway: Opened) -> None:
    asked: dict[str, Any] = {
        "model": "guide", "messages": [{"role": "user", "content": "Say anything."}], "n": 3, "seed": 7,
        "temperature": 2, "max_tokens": 24, "top_p": 1, "extra_body": {"min_p": 0, "top_k": 0},
    }  # fmt: skip
    first = await gateway.client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2] and len(set(texts)) == 3
    again = [""] * 3
    async for chunk in await gateway.client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            again[choice.index] += choice.delta.content or ""
    assert again == texts
    one = await gateway.client.chat.completions.create(**asked | {"n": 1})
    assert first.usage is not None and one.usage is not None
    assert first.usage.prompt_tokens == one.usage.prompt_tokens


async def test_an_answer_ends_before_a_stop_string(gateway: Opened) -> None:
    asked: dict[str, Any] = {"model": "guide", "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    whole = (await gateway.client.chat.completions.create(**asked)).choices[0].message.content or ""
    middle = whole[len(whole) // 2 :][:3]
    for stop in (middle, ["never said", middle]):
        cut = await gateway.client.chat.completions.create(**asked, stop=stop)
        assert cut.choices[0].message.content == whole.partition(middle)[0]
        assert cut.choices[0].finish_reason == "stop"


async def test_likelihoods_of_tokens(gateway: Opened) -> None:
    asked: dict[str, Any] = {
        "model": "guide", "messages": QUESTION, "temperature": 0, "max_tokens": 6, "logprobs": True,
        "top_logprobs": 3,
    }  # fmt: skip
    choice = (await gateway.client.chat.completions.create(**asked)).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and token.bytes is not None and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "at temperature 0 the likeliest is taken"
        assert bytes(token.bytes).decode(errors="replace") == token.token
    streamed: list[Any] = []
    async for chunk in await gateway.client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices:
            streamed += (part.logprobs.content or []) if part.logprobs is not None else []
    assert [token.token for token in streamed] == [token.token for token in choice.logprobs.content]


async def test_an_answer_keeps_to_a_schema(gateway: Opened) -> None:
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer"}, "sure": {"type": "boolean"}},
        "required": ["sum", "sure"],
        "additionalProperties": False,
    }
    answer = await gateway.client.chat.completions.create(
        model="guide",
        messages=QUESTION,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}},
    )
    said = json.loads(answer.choices[0].message.content or "")
    assert isinstance(said["sum"], int) and isinstance(said["sure"], bool) and len(said) == 2


class Sum(pydantic.BaseModel):
    """What the package makes of an answer."""

    left: int
    right: int
    kind: Literal["sum", "product"]


async def test_the_package_makes_values_of_answers(gateway: Opened) -> None:
    asked: dict[str, Any] = {"model": "guide", "messages": QUESTION, "max_tokens": 400, "temperature": 0}
    answer = await gateway.client.chat.completions.parse(**asked, response_format=Sum)
    assert isinstance(answer.choices[0].message.parsed, Sum)
    async with gateway.client.chat.completions.stream(**asked, response_format=Sum) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Oslo", "Rome"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}


async def test_a_tool_is_called_and_its_result_read(gateway: Opened) -> None:
    asked: dict[str, Any] = {
        "model": "guide", "messages": QUESTION, "tools": [WEATHER], "tool_choice": "required",
        "max_tokens": 200, "parallel_tool_calls": False,
    }  # fmt: skip
    choice = (await gateway.client.chat.completions.create(**asked)).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["town"] in ("Oslo", "Rome")
    reasons: list[str | None] = []
    calls: list[Any] = []
    async for chunk in await gateway.client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices:
            reasons.append(part.finish_reason)
            calls += part.delta.tool_calls or []
    assert reasons[-1] == "tool_calls" and len(calls) == 1 and calls[0].index == 0 and calls[0].id
    assert calls[0].function is not None and calls[0].function.name == "weather"
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    said: Any = choice.message.model_dump(exclude_none=True)
    answer = await gateway.client.chat.completions.create(
        model="guide", messages=[*QUESTION, said, result], tools=[WEATHER], max_tokens=4, tool_choice="none"
    )
    assert answer.choices[0].message.tool_calls is None
    await idle(gateway.node)


async def test_text_goes_on(gateway: Opened) -> None:
    asked: dict[str, Any] = {"model": "guide", "prompt": "A driver is", "temperature": 0}
    answer = await gateway.client.completions.create(**asked)
    assert answer.object == "text_completion" and answer.usage is not None
    assert answer.choices[0].text and answer.usage.completion_tokens <= 16
    echoed = await gateway.client.completions.create(**asked, echo=True)
    assert echoed.choices[0].text == "A driver is" + answer.choices[0].text
    text = ""
    async for chunk in await gateway.client.completions.create(**asked, stream=True, echo=True):
        text += chunk.choices[0].text if chunk.choices else ""
    assert text == echoed.choices[0].text
    several = await gateway.client.completions.create(
        model="guide", prompt=["A driver is", "A credit is"], n=2, seed=1, max_tokens=4
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    likely = await gateway.client.completions.create(**asked, logprobs=2, max_tokens=4)
    logprobs = likely.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.text_offset and logprobs.top_logprobs
    assert logprobs.text_offset[0] == 0 and "".join(logprobs.tokens).startswith(likely.choices[0].text)
    assert all(len(top) == 2 for top in logprobs.top_logprobs)


async def test_texts_become_vectors(gateway: Opened) -> None:
    texts = ["What is a driver?", "Who drives?", "What is a driver?"]
    made = await gateway.client.embeddings.create(model="guide", input=texts)
    plain = await gateway.client.embeddings.create(model="guide", input=texts, encoding_format="float")
    assert [one.index for one in made.data] == [0, 1, 2] and made.usage.prompt_tokens > 0
    for one, other in zip(made.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
        assert sum(part * part for part in one.embedding) == pytest.approx(1, rel=1e-3)
    assert made.data[0].embedding == pytest.approx(made.data[2].embedding, abs=1e-3)
    assert made.data[0].embedding != pytest.approx(made.data[1].embedding, abs=1e-3)
    alone = await gateway.client.embeddings.create(model="guide", input=texts[1])
    assert len(alone.data) == 1


async def test_models_are_listed(gateway: Opened) -> None:
    models = await gateway.client.models.list()
    assert [(model.id, model.owned_by) for model in models.data] == [("guide", "local")]
    assert (await gateway.client.models.retrieve("guide")).id == "guide"
    with pytest.raises(openai.NotFoundError):
        await gateway.client.models.retrieve("no/such:model")


REFUSED: Any = [
    ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
    ({"messages": []}, openai.BadRequestError, None, "messages"),
    ({"messages": [{"role": "user", "content": "word " * 50_000}]}, openai.BadRequestError,
     "context_length_exceeded", None),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     openai.BadRequestError, "unsupported_parameter", "messages[0].content"),
    ({"n": 9}, openai.BadRequestError, None, "n"),
    ({"temperature": 3}, openai.BadRequestError, None, "temperature"),
    ({"logit_bias": {"1": 5}}, openai.BadRequestError, "unsupported_parameter", "logit_bias"),
    ({"modalities": ["text", "audio"]}, openai.BadRequestError, "unsupported_parameter", "modalities"),
    ({"top_logprobs": 2}, openai.BadRequestError, None, "top_logprobs"),
    ({"tool_choice": "required"}, openai.BadRequestError, None, "tool_choice"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
     openai.BadRequestError, "bad_request", None),
    ({"extra_headers": {"X-Infraxa-Where": "moon"}}, openai.BadRequestError, "bad_policy",
     "x-infraxa-where"),
    ({"extra_headers": {"X-Infraxa-Max-Price": "-1"}}, openai.BadRequestError, "bad_policy",
     "x-infraxa-max-price"),
    ({"extra_headers": {"X-Infraxa-Maxprice": "1"}}, openai.BadRequestError, None, "x-infraxa-maxprice"),
    ({"extra_headers": {"X-Infraxa-Audited": "only", "X-Infraxa-Where": "market"}, "model": "auto"},
     openai.BadRequestError, "no_audits", None),
]  # fmt: skip


async def test_what_cannot_be_done_is_said(gateway: Opened) -> None:
    for more, kind, code, param in REFUSED:
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                await gateway.client.chat.completions.create(
                    **{"model": "guide", "messages": QUESTION, "stream": stream, **more}
                )
            error = caught.value
            assert (error.code, error.param) == (code, param), (more, error.message)
            assert error.type == "invalid_request_error" and error.message
            assert "word word" not in str(error.body)


async def test_what_clients_send_besides_is_ignored(gateway: Opened) -> None:
    answer = await gateway.client.chat.completions.create(
        model="guide", messages=QUESTION, max_tokens=4, user="me", store=False, metadata={"a": "b"},
        service_tier="auto", reasoning_effort="low", extra_body={"logit_bias": None, "mirostat": 2},
    )  # fmt: skip
    assert answer.choices[0].message.content
