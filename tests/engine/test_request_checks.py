"""What a request may ask for, raw prompts, and penalties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from infraxa.engine import checks
from infraxa.engine.checks import check_request, check_texts
from infraxa.engine.llama import Model
from infraxa.engine.logits import choose
from infraxa.engine.prompt import SLICE, prompt_tokens
from infraxa.engine.sampler import Sampler
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import ChatMessage, EngineError, Format, Request, Sampling, Tool, ToolCall

Ask = Callable[..., Request]
Open = Callable[..., Any]
HI = (ChatMessage("user", "hi"),)
GET = Tool("get", "Gets.", '{"type": "object"}')

GOOD = {
    "a conversation": Request(HI),
    "a prompt": Request(prompt="Once"),
    "tools": Request(HI, tools=(GET, Tool("a.b:c/d-e_F0")), tool_choice="get"),
    "no tool": Request(HI, tools=(GET,), tool_choice="none"),
    "an object": Request(HI, format=Format("json_object")),
    "a schema": Request(HI, format=Format("json_schema", '{"type": "string"}')),
    "20 logprobs": Request(HI, logprobs=20),
    "penalties": Request(HI, Sampling(presence_penalty=2.0, frequency_penalty=-2.0)),
    "128 tools": Request(HI, tools=tuple(Tool(f"t{i}") for i in range(128))),
}
BAD = {
    "messages and a prompt": Request(HI, prompt="Once"),
    "tools need messages": Request(prompt="Once", tools=(GET,)),
    "of 0 to 20 tokens, not 21": Request(HI, logprobs=21),
    "of 0 to 20 tokens, not -1": Request(HI, logprobs=-1),
    "128 tools, not 129": Request(HI, tools=tuple(Tool(f"t{i}") for i in range(129))),
    "more than 128 tool calls": Request((ChatMessage("assistant", "", (ToolCall("", "get", "{}"),) * 129),)),
    "longer than 262144": Request(
        HI, tools=(Tool("a", "x" * 200_000),), format=Format("json_object", "y" * 70_000)
    ),
    "the name of a tool": Request(HI, tools=(Tool('a"b'),)),
    "name of a tool must": Request(HI, tools=(Tool(""),)),
    "can be named auto": Request(HI, tools=(Tool("none"),), tool_choice="none"),
    "same name": Request(HI, tools=(GET, GET)),
    "parameters of a tool": Request(HI, tools=(Tool("a", parameters="{"),)),
    "parameters of a tool must": Request(HI, tools=(Tool("a", parameters="[" * 100_000),)),
    "not one of the tools": Request(HI, tools=(GET,), tool_choice="put"),
    "and there is none": Request(HI, tool_choice="required"),
    "must be a JSON schema": Request(HI, format=Format("json_schema", "true")),
    "presence penalty must be between": Request(HI, Sampling(presence_penalty=2.1)),
    "frequency penalty must be between": Request(HI, Sampling(frequency_penalty=float("nan"))),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_asked(name: str) -> None:
    check_request(GOOD[name])


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_asked_has_its_sentence(open_room: Open, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        check_request(BAD[words])
    assert caught.value.code == "bad_request"
    room = open_room(slots=1)
    room.batcher.submit(1, BAD[words])
    room.take()
    assert room.ended[1].error == caught.value.info
    assert not room.batcher.busy


def test_texts_to_embed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_texts(["a"] * checks.MAX_TEXTS)
    monkeypatch.setattr(checks, "MAX_EMBEDDED", 10)
    for texts in ([], [""], ["a"] * (checks.MAX_TEXTS + 1), ["abcdef", "ghijk"]):
        with pytest.raises(EngineError, match="cannot be embedded"):
            check_texts(texts)


def test_a_raw_prompt_is_gone_on_with(open_room: Open, ask: Ask) -> None:
    """With the template's own text, it is the conversation."""
    room = open_room(slots=1)
    question = ask("what is 12+5?")
    text = room.batcher.template.render(question.messages)
    cold = Sampling(temperature=0.0)
    assert room.answer(1, Request(prompt=text, sampling=cold)) == room.answer(2, question)
    other = room.answer(3, Request(prompt="what is 12+5?", sampling=cold))
    assert other and other != room.text[1], "no turn was opened"


def test_a_long_raw_prompt_has_the_tokens_of_its_text(guide: Model) -> None:
    """Though it is not left to llama.cpp at once."""
    template = ChatTemplate(guide.chat_template)
    text = ("<|im_start|>user\nwhat is it?<|im_end|>\n <|im_<|im_end|> " * 400)[: 3 * SLICE]
    assert prompt_tokens(guide, template, Request(prompt=text)) == guide.tokenize(text)
    assert prompt_tokens(guide, template, Request()) == []


@pytest.mark.parametrize(
    ("penalties", "prompt", "chosen"),
    [
        ({}, [7, 7], 7),
        ({"presence_penalty": 0.6}, [7], 8),
        ({"presence_penalty": 0.3}, [7, 7], 7),
        ({"frequency_penalty": 0.3}, [7], 7),
        ({"frequency_penalty": 0.3}, [7, 7], 8),
        ({"presence_penalty": 0.6}, [7] + [1] * 64, 7),
        ({"presence_penalty": -0.6}, [8], 8),
    ],
)
def test_penalties_are_taken_off_the_logits(
    open_room: Open, penalties: dict[str, Any], prompt: list[int], chosen: int
) -> None:
    """Once for each token that is among the last 64, or for each time."""
    scores = np.zeros(2048, np.float32)
    scores[7], scores[8] = 5.0, 4.5
    sampler = Sampler(open_room(slots=1).context, Sampling(temperature=0.0, **penalties), prompt)
    assert sampler._handle is not None
    assert choose(sampler._handle, scores) == chosen
    sampler.close()
