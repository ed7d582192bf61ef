"""Tool calls in raw answers: the formats of published models, what only looks like a call, and any cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.engine import tool_text
from infraxa.engine.tool_text import CallPart, TextPart, ToolText
from infraxa.engine.types import Tool

SCHEMA = '{"type": "object", "properties": {"zip": {"type": "string"}, "days": {"type": "integer"}}}'
TOOLS: Sequence[str | Tool] = ("get_weather", "get", Tool("forecast", parameters=SCHEMA))
WEATHER = '{"name": "get_weather", "arguments": {"city": "Köln"}}'
LLAMA = '{"name": "get_weather", "parameters": {"city": "Köln"}}'
KOELN = ("get_weather", {"city": "Köln"})
GET = '{"name": "get", "arguments": {}}'
SEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)
V3 = (
    f"{SEEK[0]}{SEEK[1]}function{SEEK[2]}get_weather\n```json\n" + '{"city": "Köln"}\n```' + SEEK[3] + SEEK[4]
)
V31 = "".join(
    (*SEEK[:2], "get_weather", SEEK[2], '{"city": "Köln"}', SEEK[3], SEEK[1], "get", SEEK[2], "{}", *SEEK[3:])
)

Parts = list[str | tuple[str, object]]


def read(pieces: Sequence[str], tools: Sequence[str | Tool] = TOOLS) -> Parts:
    """Texts, joined, and calls."""
    ids = map(str, itertools.count())
    reader = ToolText(tools, make_id=lambda: next(ids))
    parts: Parts = []
    n_calls = 0
    for part in [p for piece in pieces for p in reader.feed(piece)] + reader.finish():
        if isinstance(part, CallPart):
            assert (part.index, part.id) == (n_calls, str(n_calls))
            n_calls += 1
            parts.append((part.name, json.loads(part.arguments)))
        elif parts and isinstance(last := parts[-1], str):
            parts[-1] = last + part.text
        else:
            assert part.text
            parts.append(part.text)
    assert reader.finish() == []
    return parts


CALLS: list[tuple[str, Parts]] = [
    (f"<tool_call>\n{WEATHER}\n</tool_call>", [KOELN]),
    (f"I look.\n<tool_call>{WEATHER}</tool_call>\n<tool_call>\n{GET}", ["I look.\n", KOELN, ("get", {})]),
    (f"<tool_call>[{WEATHER}, {GET}]</tool_call>\n\nDone.", [KOELN, ("get", {}), "\n\nDone."]),
    (
        f"<think>\nA <tool_call>{GET}</tool_call>?\n</think>\n\n<tool_call>{GET}</tool_call>\n",
        [f"<think>\nA <tool_call>{GET}</tool_call>?\n</think>\n\n", ("get", {})],
    ),
    ('<tool_call>{"name": "get", "arguments": "{\\"a\\": 1}"}</tool_call>', [("get", {"a": 1})]),
    ('<tool_call>{"name": "get", "arguments": null}</tool_call>', [("get", {})]),
    (
        '<tool_call>{"name": "get", "arguments": {"a": "</tool_call> } \\" [\n"}}</tool_call>',
        [("get", {"a": '</tool_call> } " [\n'})],
    ),
    (
        '<tool_call>{"function": {"name": "get", "arguments": {"a": [1, {}]}}}</tool_call>',
        [("get", {"a": [1, {}]})],
    ),
    (f'[TOOL_CALLS][{WEATHER}, {GET[:-1]}, "id": "abcdefghi"}}]', [KOELN, ("get", {})]),
    (f"[TOOL_CALLS] [{WEATHER}]", [KOELN]),
    ('Ok.[TOOL_CALLS]get_weather[ARGS]{"city": "Köln"}[TOOL_CALLS]get[ARGS]{}', ["Ok.", KOELN, ("get", {})]),
    ('[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Köln"}', [KOELN]),
    ('[TOOL_CALLS]get_weather{"city": "Köln"}', [KOELN]),
    (LLAMA, [KOELN]),
    (f"\n\n{LLAMA}\n", [KOELN]),
    (f"{LLAMA}; {LLAMA}", [KOELN, KOELN]),
    (f"[{LLAMA}]", [KOELN]),
    ('{"type": "function", "name": "get", "parameters": {}}', [("get", {})]),
    ('{"function": "get", "parameters": {}}', [("get", {})]),
    (f"<|python_tag|>{LLAMA}", [KOELN]),
    ('<function=get_weather>{"city": "Köln"}</function>', [KOELN]),
    (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>",
        [KOELN],
    ),
    (
        "<function=get>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n x\ny \n</parameter>\n"
        "<parameter=c>[true]</parameter><parameter=d>True</parameter>\n</function>",
        [("get", {"a": 1, "b": " x\ny ", "c": [True], "d": True})],
    ),
    (
        "<function=forecast><parameter=zip>01067</parameter><parameter=days>3</parameter></function>",
        [("forecast", {"zip": "01067", "days": 3})],
    ),
    (f"Hm.\n{V3}", ["Hm.\n", KOELN]),
    (V31, [KOELN, ("get", {})]),
    # The first has no end: what comes after it counts.
    (
        f'<tool_call>{{"name": "get", "arguments": {{}}\n</tool_call>\n<tool_call>{GET}</tool_call>',
        ['<tool_call>{"name": "get", "arguments": {}\n</tool_call>\n', ("get", {})],
    ),
    (f"<tool_call> and then <tool_call>{GET}</tool_call>", ["<tool_call> and then ", ("get", {})]),
]

TEXTS = [
    "",
    "Hello!\n",
    '{"answer": 42}',
    '{"name": "Ada", "parameters": {}}',
    '{"name": "get"}',
    f"{LLAMA} is what I would call.",
    f"The call is {LLAMA}",
    "[1, 2]",
    "[TOOL_CALLS",
    "[TOOL_CALLS]nothing[ARGS]{}",
    "[TOOL_CALLS]get[ARGS]no",
    "<tool_call>",
    "<tool_call>\n  \n</tool_call>",
    '<tool_call>{"name": "remove_all", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "get", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "get", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "get", "arguments": {"a": 1e999}}</tool_call>',
    '<tool_call>{"name": ["get"], "arguments": {}}</tool_call>',
    '<tool_call>{"name": "get", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>",
    '<tool_call>{"name": "get", "arguments": ' + "[" * 9000 + "]" * 9000 + "}</tool_call>",
    f"<tool_call>{WEATHER[:-1]}",
    f"[TOOL_CALLS][{WEATHER}, " + '{"name": "other", "arguments": {}}]',
    "<function=nothing><parameter=a>1</parameter></function>",
    "<function=get><parameter=a>1</function>",
    "if a < b: <|python_tag|>print(1)",
    f"<think>\n<tool_call>{GET}</tool_call>",
    f"{SEEK[0]}{SEEK[1]}other{SEEK[2]}{{}}{SEEK[3]}{SEEK[4]}",
]


@pytest.mark.parametrize(("answer", "parts"), CALLS)
def test_calls_in_every_format(answer: str, parts: Parts) -> None:
    assert read([answer]) == parts
    assert read(list(answer)) == parts


@pytest.mark.parametrize("answer", TEXTS)
def test_what_is_no_call_is_text_to_the_letter(answer: str) -> None:
    expected = [answer] if answer else []
    assert read([answer]) == expected
    assert read(list(answer)) == expected


@pytest.mark.parametrize("answer", [answer for answer, _ in CALLS])
def test_without_tools_everything_is_text(answer: str) -> None:
    assert read(list(answer), ()) == [answer]


BITS = [
    *(answer for answer, _ in CALLS),
    *(text for text in TEXTS if len(text) < 1000),
    GET,
    LLAMA,
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<function=get>",
    "<parameter=a>",
    "</parameter>",
    "</function>",
    *SEEK,
    "<|python_tag|>",
    ";",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    "\n",
    " ",
    "a",
    "<",
    "é",
    "<think>",
    "</think>",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(BITS), max_size=8).map("".join), st.lists(st.integers(0, 400), max_size=12))
def test_cuts_change_nothing(answer: str, borders: list[int]) -> None:
    at = [0, *sorted(min(b, len(answer)) for b in borders), len(answer)]
    whole = read([answer])
    assert read([answer[a:b] for a, b in itertools.pairwise(at)]) == whole
    assert read(list(answer)) == whole
    if all(isinstance(part, str) for part in whole):
        assert "".join(map(str, whole)) == answer


def test_text_comes_as_soon_as_it_is_decided() -> None:
    reader = ToolText(TOOLS)
    assert reader.feed("Hello <") == [TextPart("Hello ")]
    assert reader.feed("b> [TOOL") == [TextPart("<b> ")]
    assert reader.feed("S] ") == [TextPart("[TOOLS] ")]
    assert reader.feed("<tool_call>" + GET[:9]) == []
    (call,) = reader.feed(GET[9:] + "</tool_call>")
    assert isinstance(call, CallPart)
    assert call.id.startswith("call_") and len(call.id) == 29
    assert ToolText(TOOLS).feed('{"answer": ') == [TextPart('{"answer": ')], "no tool is called like that"


def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_text, "MAX_CALL", 500)
    for begin in (
        '<tool_call>{"a": "',
        "[TOOL_CALLS][",
        "<function=get><parameter=a>",
        '{"name": "',
        "<tool_call>",
    ):
        for letter in ("x", " ", "[", '{"name": "'):
            reader = ToolText(TOOLS)
            held = said = 0
            for piece in [begin, *[letter] * 2000]:
                said += sum(len(part.text) for part in reader.feed(piece) if isinstance(part, TextPart))
                held += len(piece)
                assert held - said <= 520
            assert [type(part) for part in reader.finish()] in ([], [TextPart])


@pytest.mark.parametrize(
    "bit", ['<tool_call>{"a', "<tool_call>", "[TOOL_CALLS][", "<function=get>", "{[", "<<<<"]
)
def test_hostile_answers_cost_little(bit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in characters that are kept to look at again, not in time."""
    answer = bit * (100_000 // len(bit))
    looked = 0
    say = ToolText._say

    def watched(reader: ToolText, size: int) -> None:
        nonlocal looked
        looked += len(reader._buffer)
        say(reader, size)

    monkeypatch.setattr(ToolText, "_say", watched)
    assert read([answer]) == [answer]
    assert looked <= 150 * len(answer)
