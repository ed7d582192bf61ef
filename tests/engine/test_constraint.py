"""Answers that have to be something: JSON, JSON of a schema, calls of tools; and schemas that mean harm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.engine import compiling
from infraxa.engine import constraint as module
from infraxa.engine.constraint import Constraint, Constraints
from infraxa.engine.grammars import call_style
from infraxa.engine.llama import Model
from infraxa.engine.tool_text import CallPart, ToolText
from infraxa.engine.types import ChatMessage, EngineError, Finished, Format, Request, Sampling, Tool

OpenRoom = Callable[..., Any]
COLD = Sampling(temperature=0.0, max_tokens=400)
SUM = {
    "type": "object",
    "properties": {
        "sum": {"type": "integer"},
        "words": {"type": "array", "maxItems": 5, "items": {"enum": ["a", "b"]}},
    },
    "required": ["sum", "words"],
    "additionalProperties": False,
}
ADD = Tool(
    "math.add",
    "Adds two numbers.",
    '{"properties": {"a": {"type": "integer", "maximum": 99}, "b": {"enum": [1, 2]}}, "required": ["a", "b"],'
    ' "additionalProperties": false}',
)
NOW = Tool("now", parameters='{"type": "object", "additionalProperties": false}')


def request(format_: object = None, sampling: Sampling = COLD, begun: str = "", **asked: Any) -> Request:
    """`format_`: a schema, as a value or as text."""
    messages = [ChatMessage("user", "what is 12+5?")]
    if begun:
        messages.append(ChatMessage("assistant", begun))
    if format_ is not None:
        schema = format_ if isinstance(format_, str) else json.dumps(format_)
        asked["format"] = Format("json_schema", schema)
    return Request(tuple(messages), sampling, **asked)


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_follows_a_schema_however_it_is_sampled(open_room: OpenRoom, seed: int) -> None:
    room = open_room(slots=2)
    for number, sampling in ((1, COLD), (2, Sampling(temperature=5.0, top_k=0, min_p=0.0, seed=seed))):
        answer = json.loads(room.answer(number, request(SUM, sampling)))
        assert set(answer) == {"sum", "words"}
        assert isinstance(answer["sum"], int) and set(answer["words"]) <= {"a", "b"}
        assert room.ended[number].reason == "stop"
        assert room.ended[number].usage.n_out == len(room.ids[number]), "no token of the end was asked for"


def test_an_answer_is_some_json_object(open_room: OpenRoom) -> None:
    room = open_room(slots=1)
    ended = 0
    for seed in range(6):
        sampling = Sampling(temperature=2.0, seed=seed, max_tokens=300)
        text = room.answer(seed, Request(request().messages, sampling, format=Format("json_object")))
        assert text.startswith("{")
        if room.ended[seed].reason == "stop":
            assert isinstance(json.loads(text), dict)
            ended += 1
    assert ended, "none was complete"


def test_a_schema_changes_nothing_for_who_runs_beside(
    open_room: OpenRoom, ask: Callable[..., Request]
) -> None:
    alone = open_room(slots=1).answer(1, ask("what is infraxa?"))
    room = open_room(slots=2)
    room.batcher.submit(1, ask("what is infraxa?"))
    room.batcher.submit(2, request(SUM))
    room.run()
    assert room.text[1] == alone
    assert json.loads(room.text[2])


def test_what_the_model_would_say_anyway_is_not_changed(
    open_room: OpenRoom, ask: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the way in which tokens are drawn either: the same seeds and penalties give the same."""
    room = open_room(slots=1)
    settings_: tuple[dict[str, Any], ...] = (
        {},
        {"temperature": 0.9, "seed": 5, "repeat_penalty": 1.2, "presence_penalty": 0.5},
    )
    plain = [room.answer(i, ask("what is infraxa?", **one)) for i, one in enumerate(settings_)]
    compiled = Constraints(room.batcher.model)
    compiled.prepare(room.batcher.model.n_vocab)
    monkeypatch.setattr(room.batcher.constraints, "of", lambda _: compiled._compile("start: /(.|\\n)*/"))
    assert plain == [room.answer(i, ask("what is infraxa?", **one)) for i, one in enumerate(settings_, 10)]
    assert {room.ended[i].reason for i in (10, 11)} == {"stop"}


@pytest.mark.parametrize(
    ("template", "style"),
    [
        (None, "hermes"),
        ("{{ '<tool_call>' }}", "hermes"),
        ("[TOOL_CALLS][", "mistral"),
        ("[TOOL_CALLS]name[ARGS]", "mistral_args"),
        ('{"name": name, "parameters": x}<|eot_id|>', "llama"),
        ('<tool_call>{"name": name, "parameters": x}<|eot_id|>', "hermes"),
    ],
)
@pytest.mark.parametrize("choice", ["required", "math.add"])
def test_a_tool_that_must_be_called_is_called(
    open_room: OpenRoom, template: str | None, style: str, choice: str
) -> None:
    assert call_style(template) == style
    room = open_room(slots=1, n_ctx=1024)
    room.batcher.constraints._style = style
    sampling = Sampling(temperature=2.0, seed=1, max_tokens=600)
    asked = request(sampling=sampling, tools=(ADD, NOW), tool_choice=choice)
    text = room.answer(1, asked)
    assert room.ended[1].reason == "stop", text
    reader = ToolText(["math.add", "now"])
    parts = reader.feed(text) + reader.finish()
    calls = [part for part in parts if isinstance(part, CallPart)]
    assert calls and len(calls) == len(parts), text
    assert choice == "required" or [call.name for call in calls] == ["math.add"]
    for call in calls:
        arguments = json.loads(call.arguments)
        if call.name == "now":
            assert arguments == {}
        else:
            assert arguments["a"] <= 99 and arguments["b"] in (1, 2) and len(arguments) == 2


def allowed(model: Model, constraint: Constraint) -> set[bytes]:
    return {model.piece(int(token)) or b"" for token in constraint.allowed().nonzero()[0]}


def test_with_tools_a_format_leaves_the_choice(guide: Model) -> None:
    compiled = Constraints(guide)
    free = compiled.of(request({"type": "integer"}, tools=(ADD,)))
    assert free is not None and {b"1", b"<"} <= allowed(guide, free)
    none = compiled.of(request({"type": "integer"}, tools=(ADD,), tool_choice="none"))
    assert none is not None and b"<" not in allowed(guide, none)
    assert compiled.of(request(tools=(ADD,))) is None
    assert compiled.of(request(tools=(ADD,), tool_choice="none")) is None


def test_a_cut_answer_goes_on_in_its_format(open_room: OpenRoom) -> None:
    room = open_room(slots=1)
    rest = room.answer(1, request(SUM, begun='{"sum": 1'))
    assert json.loads('{"sum": 1' + rest)["words"] is not None
    room.batcher.submit(2, request({"type": "boolean"}, begun="true"))
    room.run(1)
    assert room.ended[2].reason == "stop" and room.ended[2].usage.n_out == 0, "it was complete"
    room.batcher.submit(3, request(SUM, begun="Well"))
    room.take()
    assert room.ended[3].error.code == "bad_request"
    assert "does not follow the format" in room.ended[3].error.message


def nested(depth: int) -> str:
    return '{"type": "array", "items": ' * depth + "{}" + "}" * depth


REFUSED = {
    "no type": {"type": "word"},
    "nothing": {"type": "integer", "minimum": 5, "maximum": 3},
    "only itself": {"$ref": "#"},
    "far away": {"$ref": "https://localhost/x.json"},
    "negation": {"not": {"type": "string"}},
    "lenient": {"not": {"type": "string"}, "x-guidance": {"lenient": True}},
    "brackets": {"type": "string", "pattern": "(" * 3000 + ")" * 3000},
    "deep": nested(5000),
    "many keys": {"type": "object", "properties": {f"p{i}": {} for i in range(6000)}},
    "many objects": {
        "anyOf": [{"type": "object", "properties": {f"p{i}": {} for i in range(900)}} for _ in range(12)]
    },
    "many variants": {"anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(3000)]},
    "long constant": {"const": "x" * 100_000},
    "long choice": {"enum": ["a", "x" * 5000]},
    "long name": {"type": "object", "properties": {"x" * 5000: {}}},
    "long pattern": {"type": "string", "pattern": "x" * 5000},
    "many keys of few objects": {
        "anyOf": [{"type": "object", "properties": {f"p{i}": {} for i in range(90)}} for _ in range(40)]
    },
    "deep by references": {
        "$defs": {
            f"d{i}": json.loads('{"items": ' * 60 + f'{{"$ref": "#/$defs/d{i + 1}"}}' + "}" * 60)
            for i in range(200)
        },
        "$ref": "#/$defs/d0",
    },
    "divisors": {"anyOf": [{"type": "integer", "multipleOf": n} for n in (9991, 9990)]},
    "many divisors": {"anyOf": [{"type": "integer", "multipleOf": n} for n in (2, 3, 5)]},
    "fine divisor": {"type": "number", "multipleOf": 1e-12},
    "infinite divisor": '{"multipleOf": Infinity}',
    "no divisor": '{"multipleOf": NaN}',
    "huge divisor": '{"multipleOf": 1' + "0" * 400 + "}",
    "a thousand deep": nested(900),
    "malformed": {"type": 5, "properties": [1], "enum": 3, "anyOf": {"a": 1}, "required": "x"},
    "deep constant": '{"const": ' + "[" * 900 + "]" * 900 + "}",
    "surrogates": '{"const": "\\ud800"}',
    "product": {"allOf": [{"anyOf": [{"properties": {f"{c}{i}": {}}} for c in "pq"]} for i in range(30)]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_followed_is_refused_at_once(open_room: OpenRoom, name: str) -> None:
    room = open_room(slots=1)
    room.batcher.submit(1, request(REFUSED[name]))
    room.take()
    error = room.ended[1].error
    assert error is not None and error.code == "bad_request"
    assert "\n" not in error.message and len(error.message) < 300
    assert not room.batcher.busy


TAKEN = {
    "large enum": {"enum": [f"value {i * 7919 % 10007}" for i in range(10_000)]},
    "repetitions": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "backtracking": {"type": "string", "pattern": "^(a|aa)+(x+x+)+y$"},
    "lookahead of states": {"type": "string", "pattern": "^.*a.{60}b.*c.{60}d$"},
    "long text": {"type": "string", "minLength": 100_000},
    "long list": {"type": "array", "minItems": 100_000, "items": {"type": "boolean"}},
    "itself": {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1},
    "a chain": {
        "$defs": {
            f"d{i}": json.loads('{"items": ' * 20 + f'{{"$ref": "#/$defs/d{(i + 1) % 100}"}}' + "}" * 20)
            for i in range(100)
        },
        "$ref": "#/$defs/d0",
    },
    "a divisor": {"type": "number", "multipleOf": 0.01},
    "constants": {"type": "string", "pattern": "^" + "x" * 4000 + "$"},
    "many properties": {"type": "object", "properties": {f"p{i}": {} for i in range(900)}},
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_hostile_schema_ends_and_leaves_the_others_alone(
    open_room: OpenRoom, ask: Callable[..., Request], name: str
) -> None:
    room = open_room(slots=2)
    room.batcher.submit(1, ask("what is 12+5?"))
    room.batcher.submit(2, request(TAKEN[name], Sampling(temperature=3.0, seed=1, max_tokens=60)))
    room.run(200)
    assert "17" in room.text[1]
    ended: Finished = room.ended[2]
    assert ended.reason in ("stop", "length", "failed")
    if ended.error is not None:
        assert ended.error.message == "The answer cannot go on in the format that was asked for."


def test_a_dead_end_is_a_failure_and_no_hang(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(slots=1)
    monkeypatch.setitem(module.LIMITS, "max_lexer_states", 300)
    pattern = {"type": "string", "pattern": "^.*a.{60}b.*c.{60}d$"}
    room.batcher.submit(1, request(pattern, Sampling(temperature=3.0, seed=1)))
    room.run(700)
    assert room.ended[1].reason == "failed"
    assert room.ended[1].error.code == "bad_request"
    assert room.answer(2, request({"type": "boolean"})) in ("true", "false")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(value=JSONS, indent=st.sampled_from([None, 1, 2, 4]))
def test_any_json_is_some_json(guide: Model, value: object, indent: int | None) -> None:
    """However it is laid out, and whatever its strings and tokens are."""
    compiled = COMPILED.setdefault("guide", Constraints(guide))
    constraint = compiled.of(Request((ChatMessage("user", "hi"),), format=Format("json_object")))
    assert constraint is not None
    text = json.dumps({"value": value}, indent=indent, ensure_ascii=False)
    for token in guide._tokenize(text, False):
        assert constraint.take(token), text
    assert constraint.complete


COMPILED: dict[str, Constraints] = {}


OPEN = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}}}


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        # Nobody asked for more, though JSON Schema allows it.
        (OPEN, '{"a":{"b":1}}', True),
        (OPEN, '{"a":{"b":1,"c":2}}', False),
        (OPEN, '{"z":1}', False),
        ({"type": "array", "items": OPEN}, '[{"z":1}]', False),
        ({"$ref": "#/$defs/o", "$defs": {"o": OPEN}}, '{"z":1}', False),
        ({"anyOf": [OPEN, {"type": "null"}]}, '{"z":1}', False),
        # Who asks for more gets it.
        ({**OPEN, "additionalProperties": True}, '{"z":1}', True),
        ({**OPEN, "required": ["z"]}, '{"z":1}', True),
        ({"type": "object"}, '{"z":1}', True),
        ({"allOf": [OPEN, {"properties": {"z": {"type": "integer"}}}]}, '{"z":1}', True),
        ({**OPEN, "anyOf": [{"properties": {"z": {"type": "integer"}}}]}, '{"z":1}', True),
        # What only looks like a schema is none.
        ({"const": {"properties": {"a": 1}}}, '{"properties":{"a":1}}', True),
        (
            {"type": "object", "properties": {"properties": {"type": "object"}}},
            '{"properties":{"z":1}}',
            True,
        ),
    ],
)
def test_objects_have_no_more_than_is_named(guide: Model, schema: object, text: str, fits: bool) -> None:
    constraint = Constraints(guide).of(request(schema))
    assert constraint is not None
    assert all(constraint.take(token) for token in guide._tokenize(text, False)) is fits


def test_without_a_format_nothing_is_compiled_or_asked(
    open_room: OpenRoom, ask: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(slots=1)
    for name in ("_compile", "_go_on"):
        monkeypatch.setattr(Constraints, name, None)
    assert "17" in room.answer(1, ask("what is 12+5?"))
    assert room.batcher.constraints._tokenizer is None


def test_a_begun_answer_that_takes_too_long_is_given_up(
    guide: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its tokens may cost as much as the limits of one step allow."""
    taken = list[int]()

    def slow(constraint: Constraint, token: int) -> bool:
        taken.append(token)
        time.sleep(0.05)
        return True

    monkeypatch.setattr(Constraint, "take", slow)
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.5)
    compiled = Constraints(guide)
    one = compiled.begin(request({"type": "string"}, begun='"' + "na " * 1000))
    while not one.over:
        compiled.compilers.wait(0.1)
    with pytest.raises(EngineError, match="too complicated"):
        one.result()
    assert one._thread is not None
    one._thread.join(20)
    assert not one.alive and len(taken) <= 10, "it does not go on when nobody waits for it"


def test_a_vocabulary_that_cannot_be_used_is_one_clear_error(
    guide: Model, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(slots=1)
    with monkeypatch.context() as changed:
        changed.setattr(guide, "piece", lambda token: b"a")
        assert room.batcher.constraints.prepare(guide.n_vocab)
    room.batcher.submit(1, request(SUM))
    room.take()
    assert room.ended[1].error.code == "unsupported"
    assert "no format can be kept to" in room.ended[1].error.message
