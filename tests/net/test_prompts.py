"""All that a prompt can hold travels, within the same limits on both sides; nothing of it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.pretty import pretty_repr

from infraxa.net import codec, link, prompts, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.prompts import Format, Prompt, Tool, ToolCall, Turn, decode_prompt, encode_prompt

UNICODE = st.characters(codec="utf-8")
TEXT = st.text(UNICODE, max_size=40)
NAME = st.text(UNICODE, min_size=1, max_size=12)
CALLS = st.lists(st.builds(ToolCall, TEXT, NAME, TEXT), max_size=3).map(tuple)
ROLES = st.sampled_from(("system", "user", "assistant", "tool"))
TURNS = st.lists(st.builds(Turn, ROLES, TEXT, CALLS, TEXT), min_size=1, max_size=5).map(tuple)
TOOLS = st.lists(st.builds(Tool, NAME, TEXT, TEXT), max_size=4, unique_by=lambda tool: tool.name).map(tuple)
STOPS = st.lists(NAME, max_size=3).map(tuple)
FORMATS = st.none() | st.builds(Format, st.sampled_from(("json_object", "json_schema")), TEXT)


@st.composite
def conversations(draw: st.DrawFn) -> Prompt:
    tools = draw(TOOLS)
    choices = ["auto", "none", *(["required", tools[0].name] if tools else [])]
    return Prompt(
        draw(TURNS),
        draw(STOPS),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        format=draw(FORMATS),
    )


@st.composite
def scored(draw: st.DrawFn) -> Prompt:
    """With an answer, some of whose steps are asked for."""
    tokens = draw(st.binary(min_size=1, max_size=50)) * 4
    steps = draw(st.sets(st.integers(0, len(tokens) // 4 - 1), min_size=1))
    prompt = draw(conversations() | st.builds(Prompt, raw=NAME))
    return replace(
        prompt,
        stop=(),
        format=None,
        tool_choice=prompt.tool_choice if prompt.tool_choice in ("auto", "none") else "auto",
        answer=tokens,
        steps=tuple(sorted(steps)),
        kv_type=draw(st.sampled_from(("f16", "q8_0"))),
        ends=draw(STOPS),
        chars=draw(st.integers(0, 2**31 - 1)),
    )


WHOLE = (
    conversations()
    | st.builds(Prompt, stop=STOPS, raw=NAME, format=FORMATS)
    | st.builds(Prompt, texts=st.lists(TEXT, min_size=1, max_size=5).map(tuple))
    | scored()
    | st.builds(replace, conversations(), salt=st.binary(min_size=32, max_size=32), draw=st.just(bytes(32)))
)


@given(WHOLE)
@settings(deadline=None, max_examples=300)
def test_a_prompt_arrives_as_it_was(prompt: Prompt) -> None:
    assert decode_prompt(encode_prompt(prompt)) == prompt


USER, TOOL = Turn("user", "a"), Tool("look")
ASKED = Prompt((USER,), tools=(TOOL,))
SCORED = Prompt((USER,), answer=bytes(8), steps=(0, 1))


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(),
        Prompt((USER,), raw="a"),
        Prompt((USER,), texts=("a",)),
        Prompt(raw="a", texts=("a",)),
        Prompt(raw="a", tools=(TOOL,)),
        Prompt(texts=("a",), stop=("b",)),
        Prompt(texts=("a",), format=Format("json_object")),
        Prompt(texts=("a",) * (wire.MAX_TEXTS + 1)),
        Prompt(answer=bytes(8), steps=(0, 1)),
        Prompt((USER,), kv_type="q8_0"),
        Prompt(texts=("a",), answer=bytes(8), steps=(0, 1)),
        replace(SCORED, answer=b""),
        replace(SCORED, steps=()),
        Prompt((USER,), ends=("b",)),
        Prompt((USER,), chars=1),
        Prompt(texts=("a",), chars=1),
        replace(SCORED, ends=("",)),
        replace(SCORED, ends=("b",) * (prompts.MAX_STOPS + 1)),
        replace(SCORED, chars=-1),
        replace(SCORED, answer=bytes(9)),
        replace(SCORED, steps=(1, 0)),
        replace(SCORED, steps=(1, 1)),
        replace(SCORED, steps=(0, 2)),
        replace(SCORED, steps=(-1,)),
        replace(SCORED, kv_type="q4_0"),
        replace(SCORED, stop=("b",)),
        replace(SCORED, format=Format("json_object")),
        replace(SCORED, salt=bytes(32), draw=bytes(32)),
        replace(SCORED, tools=(TOOL,), tool_choice="look"),
        replace(SCORED, answer=bytes(4 * 300), steps=tuple(range(wire.MAX_SCORES + 1))),
        replace(SCORED, answer=bytes(prompts.MAX_SAID + 4)),
        replace(ASKED, tools=(TOOL, TOOL)),
        replace(ASKED, tools=tuple(Tool(str(n)) for n in range(prompts.MAX_TOOLS + 1))),
        replace(ASKED, tools=(Tool(""),)),
        replace(ASKED, tools=(Tool("a" * (prompts.MAX_NAME + 1)),)),
        replace(ASKED, tools=(Tool("a", parameters="{" * (prompts.MAX_SCHEMA + 1)),)),
        replace(ASKED, tool_choice="other"),
        replace(ASKED, tool_choice=""),
        Prompt((USER,), tool_choice="required"),
        Prompt((USER,), tool_choice="look"),
        Prompt((USER,), format=Format("json_schema", " " * (prompts.MAX_SCHEMA + 1))),
        Prompt((USER,), format=Format("yaml")),  # type: ignore[arg-type]
        Prompt((Turn("assistant", "", (ToolCall("1", "look", "{}"),) * (prompts.MAX_TOOLS + 1)),)),
        Prompt((Turn("assistant", "", (ToolCall("1", "", "{}"),)),)),
        Prompt((Turn("tool", "a", (), "1" * (prompts.MAX_NAME + 1)),)),
    ],
)
def test_what_cannot_be_said_is_refused_on_both_sides(prompt: Prompt) -> None:
    with pytest.raises(NetError) as error:
        encode_prompt(prompt)
    assert error.value.code == "bad_request"
    with pytest.raises(ProtocolError) as refused:
        decode_prompt(codec.encode(prompt))
    assert refused.value.reason == "malformed"


@given(WHOLE, st.integers(0, 10_000), st.binary(max_size=8))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_a_prompt_or_refused(prompt: Prompt, at: int, odd: bytes) -> None:
    data = encode_prompt(prompt)
    at %= len(data) + 1
    try:
        found = decode_prompt(data[:at] + odd + data[at + len(odd) // 2 :])
    except ProtocolError:
        return
    assert sum(map(bool, (found.turns, found.raw, found.texts))) == 1
    assert decode_prompt(encode_prompt(found)) == found


def test_nothing_of_it_is_shown() -> None:
    secret = "the words of a person"
    for prompt in (
        Prompt(
            (
                Turn("assistant", secret, (ToolCall(secret, secret, secret),)),
                Turn("tool", secret, (), secret),
            ),
            (secret,),
            tools=(Tool(secret, secret, secret),),
            tool_choice=secret,
            format=Format("json_schema", secret),
        ),
        Prompt(raw=secret),
        Prompt(texts=(secret,)),
    ):
        parts = [
            prompt,
            *prompt.turns,
            *prompt.tools,
            *(call for turn in prompt.turns for call in turn.calls),
        ]
        if prompt.format is not None:
            parts.append(prompt.format)
        for part in parts:
            assert secret not in repr(part) and secret not in pretty_repr(part)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt((USER,), salt=bytes(32)),
        Prompt((USER,), draw=bytes(32)),
        Prompt((USER,), salt=bytes(31), draw=bytes(32)),
        Prompt((USER,), salt=bytes(32), draw=bytes(16)),
        Prompt((USER,), salt=bytes(31), draw=bytes(31)),
    ],
)
def test_half_a_salt_or_a_short_one_is_none(prompt: Prompt) -> None:
    with pytest.raises(ValueError, match="salt"):
        encode_prompt(prompt)
    with pytest.raises(ProtocolError):
        decode_prompt(codec.encode(prompt))


def test_vectors_are_not_checked() -> None:
    prompt = Prompt(texts=("a",), salt=bytes(32), draw=bytes(32))
    with pytest.raises(NetError):
        encode_prompt(prompt)
    with pytest.raises(ProtocolError):
        decode_prompt(codec.encode(prompt))


def test_an_order_of_before_is_answered_that_it_is_not_known() -> None:
    """Its fields would be read, and what it does not know ignored: so it has another tag."""
    order = codec.encode(wire.Order(bytes(16), bytes(32), 10))
    assert link._decode(order, wire.Request) == wire.Order(bytes(16), bytes(32), 10)
    before = order.replace(b"\x25", b"\x24", 1)  # 37, 36
    assert before != order
    assert link._decode(before, wire.Request) is None, "which becomes `unsupported`"
