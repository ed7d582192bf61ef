"""Bodies, headers and answers in OpenAI's shape: whatever is sent is a request or a clear refusal."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from infraxa.app.calls import Policy
from infraxa.app.gateway.bodies import decode
from infraxa.app.gateway.chat import chat_decoder, chat_requests
from infraxa.app.gateway.chat_answer import ChatChoice
from infraxa.app.gateway.completions import CompletionChoice, completion_decoder, completion_requests
from infraxa.app.gateway.embeddings import embed_call, embedding_decoder
from infraxa.app.gateway.errors import ApiError
from infraxa.app.gateway.policy import read_policy
from infraxa.engine.types import ChatMessage, Delta, Request, Sampling, TokenLogprob, ToolCall

USER: Any = {"role": "user", "content": "hi"}
CHAT: Any = {"model": "m", "messages": [USER]}
PLAIN = Sampling(temperature=0.3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "messages", "n", "stop", "tools", "tool_choice", "response_format", "logprobs", "top_logprobs",
     "seed", "temperature", "logit_bias", "stream_options", "prompt", "suffix", "input", "echo", "audio",
     "max_tokens", "modalities", "dimensions", "best_of"]
)  # fmt: skip


def chat(**more: Any) -> list[Request]:
    return chat_requests(decode(json.dumps(CHAT | more).encode(), chat_decoder), PLAIN)


def refused(**more: Any) -> str | None:
    """The field that is named."""
    with pytest.raises(ApiError) as caught:
        chat(**more)
    assert caught.value.status == 400 and json.loads(caught.value.body)["error"]["message"]
    return caught.value.param


@given(st.dictionaries(FIELDS, JSON, max_size=4), st.binary(max_size=20))
def test_anything_is_a_request_or_a_refusal(fields: dict[str, Any], noise: bytes) -> None:
    base = {"model": "m", "messages": [USER], "prompt": "p", "input": "i"} | fields
    for body in (
        json.dumps(base).encode(),
        noise,
        json.dumps(base).encode()[:-1],
        json.dumps(fields).encode(),
    ):
        for read in (
            lambda data: chat_requests(decode(data, chat_decoder), PLAIN),
            lambda data: completion_requests(decode(data, completion_decoder), PLAIN),
            lambda data: embed_call(decode(data, embedding_decoder), Policy()),
        ):
            try:
                made = read(body)
            except ApiError as error:
                assert 400 <= error.status < 500 and json.loads(error.body)["error"]["message"]
            else:
                assert made


def test_a_conversation_is_read_as_it_was() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    said = [
        {"role": "developer", "content": "Be short."},
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        USER,
        {"role": "user", "content": "there", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "content": "Well"},
    ]
    (request,) = chat(messages=said)
    assert request.messages == (
        ChatMessage("system", "Be short.\n\nBe kind."),
        ChatMessage("user", "hi\n\nthere"),
        ChatMessage("assistant", "", (ToolCall("c1", "f", '{"a": 1}'),)),
        ChatMessage("tool", "1", tool_call_id="c1"),
        ChatMessage("tool", "2", tool_call_id="c2"),
        ChatMessage("assistant", "Well"),
    )


def test_sampling_is_what_was_given_on_top_of_the_defaults() -> None:
    (request,) = chat()
    assert request.sampling == PLAIN and request.logprobs is None and request.user == ""
    first, second = chat(n=2, seed=-1, stop="END", top_p=0.5, max_tokens=5, max_completion_tokens=7, min_p=0)
    assert first.sampling == msgspec.structs.replace(
        PLAIN, top_p=0.5, min_p=0.0, stop=("END",), seed=2**32 - 1, max_tokens=7
    )
    assert second.sampling == msgspec.structs.replace(first.sampling, seed=0)
    assert chat(logprobs=True)[0].logprobs == 0 and chat(logprobs=True, top_logprobs=4)[0].logprobs == 4


def test_what_is_wrong_is_named() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert refused(messages=[USER, {"role": "user"}]) == "messages[1].content"
    assert refused(messages=[{"role": "tool", "content": "1"}]) == "messages[0].tool_call_id"
    assert refused(messages=[{"role": "wizard", "content": "1"}]) == "messages[0].role"
    assert refused(tools=[{"type": "custom", "custom": {"name": "f"}}]) == "tools[0]"
    assert refused(tools=[{"type": "function", "function": {"name": "f", "parameters": [1]}}]) == (
        "tools[0].function.parameters"
    )
    assert refused(tools=[tool], tool_choice="maybe") == "tool_choice"
    assert refused(tools=[tool], tool_choice={"type": "function", "function": {"name": "g"}}) == "tool_choice"
    assert refused(tools=[tool], tool_choice={"type": "allowed_tools", "allowed_tools": {}}) == "tool_choice"
    assert refused(response_format={"type": "json_schema"}) == "response_format.json_schema.schema"
    assert refused(response_format={"type": "grammar"}) == "response_format.type"
    for name in ("functions", "function_call", "web_search_options", "audio", "moderation"):
        assert refused(**{name: {}}) == name
        assert chat(**{name: None})
    assert (
        chat(tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}})[0].tool_choice == "f"
    )


def headers(**values: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in values.items()}))


def test_policies() -> None:
    assert read_policy(headers(Host="x", X_Stainless_Lang="python")) == Policy()
    given = headers(
        X_Infraxa_Where="market",
        x_infraxa_driver=" maple ",
        X_INFRAXA_MAX_PRICE="0.25",
        X_Infraxa_Audited="only",
    )
    assert read_policy(given) == Policy("market", "maple", 250_000, True)
    assert read_policy(headers(X_Infraxa_Max_Price="0")).max_price == 0


@given(st.text(max_size=12))
def test_a_price_is_credits_or_refused(text: str) -> None:
    try:
        price = read_policy(headers(X_Infraxa_Max_Price=text)).max_price
    except ApiError as error:
        assert error.param == "x-infraxa-max-price"
    else:
        assert price is not None and price >= 0


TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RAW = 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.sampled_from(["Just words, no call.", RAW]))
def test_a_stream_says_what_the_whole_answer_says(sizes: list[int], raw: str) -> None:
    body = decode(json.dumps(CHAT | {"tools": [TOOL]}).encode(), chat_decoder)
    (request,) = chat_requests(body, PLAIN)
    choice = ChatChoice(2, body, request)
    chunks, at = [], 0
    for size in sizes:
        chunks += choice.take(Delta(raw[at : at + size], (1,)))
        at += size
    chunks += choice.take(Delta(raw[at:], ())) + choice.finish("stop")
    whole = choice.whole()
    assert all(chunk["index"] == 2 for chunk in (*chunks, whole))
    assert [chunk["delta"].get("role") for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == (
        whole["message"]["content"] or ""
    )
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"] == ("tool_calls" if calls else "stop")
    if raw == RAW:
        (call,) = whole["message"]["tool_calls"]
        assert calls == [{"index": 0, **call}] and json.loads(call["function"]["arguments"]) == {"a": 1}
    else:
        assert not calls and whole["message"]["content"] == raw and "tool_calls" not in whole["message"]


def test_one_call_alone_where_no_more_are_wanted() -> None:
    body = decode(json.dumps(CHAT | {"tools": [TOOL], "parallel_tool_calls": False}).encode(), chat_decoder)
    choice = ChatChoice(0, body, chat_requests(body, PLAIN)[0])
    call = RAW.partition("\n")[2]
    choice.take(Delta(f"{call}\n{call}", (1,)))
    choice.finish("stop")
    assert len(choice.whole()["message"]["tool_calls"]) == 1


def test_tokens_of_parts_of_characters() -> None:
    body = decode(b'{"model": "m", "prompt": "p", "logprobs": 1}', completion_decoder)
    choice = CompletionChoice(0, body, completion_requests(body, PLAIN)[0])
    euro = "€".encode()
    logprobs = (
        TokenLogprob(1, b"a", -0.1), TokenLogprob(2, euro[:2], float("-inf")),
        TokenLogprob(3, euro[2:], -0.2),
        TokenLogprob(4, b"b", -0.3, ((4, b"b", -0.3),)),
    )  # fmt: skip
    choice.take(Delta("a€b", (1, 2, 3, 4), logprobs))
    choice.finish("stop")
    shown = choice.whole()["logprobs"]
    assert shown["tokens"] == ["a", "bytes:\\xe2\\x82", "bytes:\\xac", "b"]
    assert shown["token_logprobs"][1] < -9000 and json.dumps(shown)
    assert shown["text_offset"][:2] == [0, 1] and shown["top_logprobs"][3] == {"b": -0.3}
