"""The grammar of what an answer has to be: JSON of a schema, or calls of tools as its model writes them.

The schemas come from strangers: what of their size decides over the time to compile them is bounded here.
What is made of a grammar is in constraint.py. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from infraxa.engine.types import EngineError, Format, Request, Tool

MAX_KEYS: Final = 1000
"""Of one object in a schema: the time to compile grows with its square, 0.15 s for so many."""
MAX_ALL_KEYS: Final = 3000
"""Of all objects of a request's schemas."""
MAX_VARIANTS: Final = 1000
"""Of all `anyOf`, `oneOf` and `allOf` of a request."""
MAX_DIVISORS: Final = 2
"""Different numbers of `multipleOf`; a grammar's states are those of all of them at once."""
MAX_DIVISOR: Final = 10_000
"""Their product, as whole numbers without a decimal point."""
MAX_LITERAL: Final = 4096
"""Characters of a name, of a constant or of a pattern: each token costs time by them, 2 ms for so many."""
MAX_PLACES: Final = 10_000
"""Objects and lists in a request's schemas: by references each may lie within all others, and the compiler
calls itself for what lies within."""
MAX_PARALLEL: Final = 8
"""Calls of tools in one answer that must consist of them."""
_JSON_OPTIONS: Final = {
    "item_separator": ",",
    "key_separator": ":",
    # A small model that may write spaces can write nothing else for ever.
    "whitespace_pattern": r"( |\n[ \t]{0,20})?",
    "whitespace_flexible": True,
    "coerce_one_of": True,
    "lenient": False,
    "json_allow_general_unicode_escapes": True,
}
_COMBINED: Final = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "not", "dependentSchemas")
"""What may name more of an object than its own `properties`."""
_OPENED: Final = ("additionalProperties", "patternProperties", "minProperties")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
"""Where each value is a schema."""
_WITHIN: Final = ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties", "contains")
"""Where the value is a schema, or a list of them."""
_VARIANTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_WHERE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
"""In a grammar that nobody else has seen."""


def call_style(template: str | None) -> str:
    """In which format a model with this chat template calls tools: `hermes`, `mistral`, `mistral_args` or
    `llama`."""
    template = template or ""
    if "[TOOL_CALLS]" in template:
        return "mistral_args" if "[ARGS]" in template else "mistral"
    if "<tool_call>" not in template and '"parameters": ' in template and "<|eot_id|>" in template:
        return "llama"
    return "hermes"


def grammar_of(request: Request, style: str) -> str:
    """A grammar in llguidance's dialect of Lark for what an answer to `request` has to be.

    `style`: as of `call_style`. Raises EngineError `bad_request` for schemas that are too large.
    """
    must_call = [t for t in request.tools if request.tool_choice in ("required", t.name)]
    tools = must_call or (request.tools if request.tool_choice == "auto" else ())
    schemas = [json.loads(tool.parameters) for tool in tools]
    if request.format is not None and request.format.schema:
        schemas.append(json.loads(request.format.schema))
    _check_sizes(schemas)
    if must_call:
        return _calls(must_call, style, one=request.tool_choice != "required")
    assert request.format is not None
    return _json_or_calls(request.format, tools, style)


def _json_or_calls(format_: Format, tools: Sequence[Tool], style: str) -> str:
    """A grammar for an answer in that format, or calls instead where there are tools."""
    schema: object = json.loads(format_.schema) if format_.kind == "json_schema" else {"type": "object"}
    answer = f"answer: {_json(schema)}\n"
    if not tools:
        return f"start: answer\n{answer}"
    return f"start: answer | calls\n{answer}" + _calls(tools, style, one=False, rule="calls")


def _calls(tools: Sequence[Tool], style: str, *, one: bool, rule: str = "start") -> str:
    """A grammar for one call or several of these tools."""
    rules = [f"call{i}: {_call(tool, style)}" for i, tool in enumerate(tools)]
    call = " | ".join(f"call{i}" for i in range(len(tools)))
    begin, between, end = {"mistral": ("[TOOL_CALLS][", ", ", "]"), "llama": ("", "; ", "")}.get(
        style, ("", "" if style == "mistral_args" else "\n", "")
    )
    more = "" if one else f" ({_text(between)} call){{0,{MAX_PARALLEL - 1}}}"
    return f"{rule}: {_text(begin)} call{more} {_text(end)}\ncall: {call}\n" + "\n".join(rules) + "\n"


def _call(tool: Tool, style: str) -> str:
    # A tool that names no parameters has none.
    parameters = json.loads(tool.parameters) or {"properties": {}}
    arguments = _json({**parameters, "type": "object"})
    name = json.dumps(tool.name)
    before, after = {
        "mistral_args": (f"[TOOL_CALLS]{tool.name}[ARGS]", ""),
        "mistral": (f'{{"name": {name}, "arguments": ', "}"),
        "llama": (f'{{"name": {name}, "parameters": ', "}"),
    }.get(style, (f'<tool_call>\n{{"name": {name}, "arguments": ', "}\n</tool_call>"))
    return f"{_text(before)} {arguments} {_text(after)}"


def _text(text: str) -> str:
    return json.dumps(text) if text else ""


def _json(schema: Any) -> str:
    """A schema's part of a grammar."""
    schema = {key: value for key, value in schema.items() if key != "x-guidance"}
    if not _combines(schema):
        schema = _closed(schema)
    return "%json " + json.dumps({**schema, "x-guidance": _JSON_OPTIONS})


def _combines(schema: Any) -> bool:
    """Whether objects are described in several places at once, so that none may be closed."""
    if isinstance(schema, list):
        return any(map(_combines, schema))
    if not isinstance(schema, dict):
        return False
    if "allOf" in schema or "unevaluatedProperties" in schema:
        return True
    if "properties" in schema and any(name in schema for name in _COMBINED):
        return True
    return any(map(_combines, _schemas_in(schema)))


def _closed(schema: Any) -> Any:
    """The same, where objects have no properties but those that are named, unless it says that they may.

    JSON Schema allows any others, and a small model that may write one more never stops. What keeps to the
    closed one keeps to the other.
    """
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for name in _NAMED:
        if isinstance(named := schema.get(name), dict):
            made[name] = {key: _closed(value) for key, value in named.items()}
    for name in _WITHIN:
        if name in schema:
            made[name] = _closed(schema[name])
    named = schema.get("properties")
    if isinstance(named, dict) and not any(name in schema for name in _OPENED):
        required = schema.get("required")
        if not isinstance(required, list) or all(name in named for name in required):
            made["additionalProperties"] = False
    return made


def _schemas_in(schema: dict[str, Any]) -> Iterator[Any]:
    for name in _NAMED:
        if isinstance(named := schema.get(name), dict):
            yield from named.values()
    for name in _WITHIN:
        if name in schema:
            yield schema[name]


def _check_sizes(schemas: Sequence[object]) -> None:
    """Raises EngineError `bad_request` for what would take too long, or too deep a stack."""
    places = keys = variants = 0
    divisors: set[int] = set()
    left = list(schemas)
    while left:
        value = left.pop()
        if isinstance(value, list):
            places += 1
            left += value
        if not isinstance(value, dict):
            continue
        places += 1
        keys += len(value)
        variants += sum(len(of) for name in _VARIANTS if isinstance(of := value.get(name), list))
        if len(value) > MAX_KEYS or keys > MAX_ALL_KEYS or variants > MAX_VARIANTS or places > MAX_PLACES:
            raise refused("it is too large")
        if isinstance(divisor := value.get("multipleOf"), int | float):
            divisors.add(_as_whole(divisor))
            if len(divisors) > MAX_DIVISORS or math.prod(divisors) > MAX_DIVISOR:
                raise refused("multipleOf is too large, or there are too many")
        constants = [*value, value.get("const"), value.get("pattern")]
        if isinstance(choices := value.get("enum"), list):
            constants += choices
        if any(len(json.dumps(one, ensure_ascii=False)) > MAX_LITERAL for one in constants):
            raise refused("a name, constant or pattern is too long")
        left += value.values()


def _as_whole(number: float) -> int:
    """Its digits, without a decimal point; at least MAX_DIVISOR + 1 where it has too many."""
    if isinstance(number, int):
        return abs(number) or MAX_DIVISOR + 1
    digits = f"{number:.9f}".rstrip("0").replace(".", "").lstrip("-0")
    return int(digits) if digits.isdigit() and len(digits) < 9 else MAX_DIVISOR + 1


def refused(why: str) -> EngineError:
    """For a reason that may be the compiler's own."""
    first, _, _ = why.strip().partition("\n")
    reason = "it allows nothing" if first.startswith("NoExtension") else _WHERE.sub("", first)
    reason = " ".join(reason.split())[:200].rstrip(".:")
    return EngineError(
        "bad_request", f"The schema cannot be followed: {reason}.", "Simplify the schema, or ask without it."
    )
