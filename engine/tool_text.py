"""Finds the tool calls in an answer's raw text, in the formats that models write them in.

Pure: text in, parts out. Whatever turns out to be no call of a known tool is text; nothing of an answer gets
lost but the marks around its calls. What comes out does not depend on how the text was cut.

Known are, each with the tool's name and arguments as JSON unless said:
- Hermes, Qwen: `<tool_call>{...}</tool_call>`
- Qwen3-Coder: `<function=name><parameter=key>text</parameter></function>`, within `<tool_call>` or not, and
  Llama's `<function=name>{...}</function>`
- Mistral: `[TOOL_CALLS][{...}, ...]`, `[TOOL_CALLS]name[ARGS]{...}`, with `[CALL_ID]id` or not
- Llama 3: `<|python_tag|>{...}`, and one or more such objects, with a `;` between them, as the whole answer
- DeepSeek: its own marks around the name and the arguments, which V3 and R1 put in a fence
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Generator, Sequence
from typing import Final, NoReturn, TypeVar

import msgspec

from infraxa.engine.types import Tool

MAX_CALL: Final = 1 << 18
"""Characters from the beginning of what may be calls to their end; what is longer is text."""
MAX_FALSE: Final = 128
"""After so many marks that begin no call the rest of an answer is text: looking for calls within each could
cost its length squared."""
SLICE: Final = 1 << 14
"""Characters that are looked at at a time."""


class TextPart(msgspec.Struct, frozen=True):
    """What the assistant says."""

    text: str


class CallPart(msgspec.Struct, frozen=True):
    """A whole call."""

    index: int
    """0 for the answer's first one."""
    id: str
    name: str
    arguments: str
    """A JSON object, as text."""


class _NoCall(Exception):
    """What stands here is text."""


_Call = tuple[str, str]
"""Name, arguments."""
T = TypeVar("T")
_Steps = Generator[None, None, T]
"""Yields when it needs more text."""

_TOOL_CALL, _FUNCTION, _MISTRAL, _PYTHON = "<tool_call>", "<function=", "[TOOL_CALLS]", "<|python_tag|>"
_BEGIN_ALL, _BEGIN_ONE = "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581begin\uff5c>"
_END_ALL, _END_ONE = "<\uff5ctool\u2581calls\u2581end\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>"
_SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
_MARKS = (_TOOL_CALL, _FUNCTION, _MISTRAL, _PYTHON, _BEGIN_ALL, _BEGIN_ONE)
_ANY_MARK = re.compile("|".join(map(re.escape, _MARKS)))
_LONGEST_MARK = max(map(len, _MARKS))
_SPACES = re.compile(r"[ \t\r\n]*")
_OUTSIDE = re.compile(r'[^{}\[\]"]*')
_INSIDE = re.compile(r'[^"\\]*')
_NOT_JSON = re.compile(r"[^\s{}\[\]\",:0-9+\-.eEtrufalsn]")
_FIRST_KEY = ('"name"', '"type"', '"function"', '"parameters"', '"arguments"', '"id"')
_THINK, _END_THINK = "<think>", "</think>"


class ToolText:
    """Reads one answer."""

    def __init__(
        self, tools: Sequence[str | Tool], *, make_id: Callable[[], str] = lambda: _random_id()
    ) -> None:
        """`tools`: those that can be called. With a Tool its schema tells what is text and what a number,
        where the format does not; with its name alone it is guessed."""
        self._tools = {t.name if isinstance(t, Tool) else t: t for t in tools}
        self._make_id = make_id
        self._longest_name = max(map(len, self._tools), default=0)
        self._buffer = ""
        """What is not decided."""
        self._ended = False
        self._parts: list[TextPart | CallPart] = []
        self._n_calls = 0
        self._n_false = 0
        self._reading: _Steps[None] | None = self._read()

    def feed(self, text: str) -> list[TextPart | CallPart]:
        """What `text` decides, in order; may be empty."""
        parts: list[TextPart | CallPart] = []
        for at in range(0, len(text), SLICE):
            self._buffer += text[at : at + SLICE]
            parts += self._advance()
        return parts

    def finish(self) -> list[TextPart | CallPart]:
        """What is still held back: the answer ended here."""
        self._ended = True
        return self._advance()

    def _advance(self) -> list[TextPart | CallPart]:
        if self._reading is not None and next(self._reading, self) is self:
            self._reading = None
        parts, self._parts = self._parts, []
        return parts

    def _read(self) -> _Steps[None]:
        if self._tools:
            yield from self._pass_thoughts()
            yield from self._take_whole_answer()
            while self._n_false < MAX_FALSE and (yield from self._find_mark()):
                yield from self._take_block(0)
        while not self._ended or self._buffer:
            self._say(len(self._buffer))
            if not self._ended:
                yield

    def _say(self, size: int) -> None:
        """So many characters are text."""
        text, self._buffer = self._buffer[:size], self._buffer[size:]
        if not text:
            return
        if self._parts and isinstance(last := self._parts[-1], TextPart):
            self._parts[-1] = TextPart(last.text + text)
        else:
            self._parts.append(TextPart(text))

    def _call(self, calls: Sequence[_Call], size: int) -> None:
        """So many characters are these calls."""
        self._buffer = self._buffer[size:]
        for name, arguments in calls:
            self._parts.append(CallPart(self._n_calls, self._make_id(), name, arguments))
            self._n_calls += 1

    def _pass_thoughts(self) -> _Steps[None]:
        """What a model thinks before its answer calls nothing."""
        at = yield from self._spaces(0)
        if not (yield from self._starts(at, _THINK)):
            return
        while (end := self._buffer.find(_END_THINK)) < 0:
            self._say(max(0, len(self._buffer) - len(_END_THINK) + 1))
            if self._ended:
                return
            yield
        self._say(end + len(_END_THINK))

    def _take_whole_answer(self) -> _Steps[None]:
        at = yield from self._spaces(0)
        try:
            if not ((yield from self._starts(at, "{")) or (yield from self._starts(at, "["))):
                return
            brace = at if self._buffer[at] == "{" else (yield from self._spaces(at + 1))
            if brace > at and not (yield from self._starts(brace, "{")):
                return
            key = yield from self._spaces(brace + 1)
            if not (yield from self._starts_any(key, _FIRST_KEY)):
                return
            calls, at = yield from self._objects(at)
            at = yield from self._spaces(at)
            if (yield from self._more(at)) or not self._whole(at):
                return
        except _NoCall:
            return
        self._call(calls, at)

    def _find_mark(self) -> _Steps[bool]:
        """Says what stands before the next mark. False: there is none to the end."""
        while True:
            if found := _ANY_MARK.search(self._buffer):
                self._say(found.start())
                return True
            if self._ended:
                return False
            self._say(len(self._buffer) - _begun_mark(self._buffer))
            yield

    def _take_block(self, at: int) -> _Steps[None]:
        """The mark at `at` begins a call or is text; only spaces stand before it. What follows a call is
        looked at, too: spaces between calls, or to the end, are nothing that was said."""
        while True:
            try:
                calls, end = yield from self._block(at)
            except _NoCall:
                self._n_false += 1
                # Something within it may be a call, when its end is missing.
                self._say(at + 1)
                return
            self._call(calls, end)
            at = yield from self._spaces(0)
            if not (yield from self._more(at)) and self._whole(at):
                self._buffer = ""
                return
            if not (yield from self._starts_any(at, _MARKS)):
                return

    def _block(self, at: int) -> _Steps[tuple[list[_Call], int]]:
        """The calls of the mark at `at`, and where their end is. Raises _NoCall."""
        found = _ANY_MARK.match(self._buffer, at)
        assert found is not None
        mark, at = found[0], found.end()
        if mark == _TOOL_CALL:
            return (yield from self._hermes(at))
        if mark == _FUNCTION:
            return (yield from self._function(at))
        if mark == _MISTRAL:
            return (yield from self._mistral(at))
        if mark == _PYTHON:
            return (yield from self._objects((yield from self._spaces(at))))
        return (yield from self._deepseek(at, mark == _BEGIN_ONE))

    def _hermes(self, at: int) -> _Steps[tuple[list[_Call], int]]:
        at = yield from self._spaces(at)
        if (yield from self._starts(at, _FUNCTION)):
            calls, at = yield from self._function(at + len(_FUNCTION))
        else:
            calls, at = yield from self._objects(at)
        end = yield from self._spaces(at)
        return calls, end + 12 if (yield from self._starts(end, "</tool_call>")) else at

    def _function(self, at: int) -> _Steps[tuple[list[_Call], int]]:
        name, at = yield from self._name(at, (">",))
        at = yield from self._spaces(at)
        if (yield from self._starts(at, "{")):
            value, at = yield from self._json(at)
            arguments = _object(value)
        else:
            types = self._types(name)
            values: dict[str, object] = {}
            while (yield from self._starts(at, "<parameter=")):
                key, at = yield from self._until(at + 11, ">")
                text, at = yield from self._until(at, "</parameter>")
                values[key] = _value(text.removeprefix("\n").removesuffix("\n"), types.get(key))
                at = yield from self._spaces(at)
            arguments = _written(values)
        at = yield from self._spaces(at)
        if not (yield from self._starts(at, "</function>")):
            raise _NoCall
        return [(name, arguments)], at + 11

    def _mistral(self, at: int) -> _Steps[tuple[list[_Call], int]]:
        at = yield from self._spaces(at)
        if (yield from self._starts(at, "[")) or (yield from self._starts(at, "{")):
            return (yield from self._objects(at))
        name, at = yield from self._name(at, ("[CALL_ID]", "[ARGS]", "{"))
        if self._buffer[at - 1] == "{":
            at -= 1
        elif self._buffer.endswith("[CALL_ID]", 0, at):
            _, at = yield from self._until(at, "[ARGS]")
        value, at = yield from self._json((yield from self._spaces(at)))
        return [(name, _object(value))], at

    def _deepseek(self, at: int, one: bool) -> _Steps[tuple[list[_Call], int]]:
        calls: list[_Call] = []
        while True:
            if not one:
                begin = yield from self._spaces(at)
                if not (yield from self._starts(begin, _BEGIN_ONE)):
                    break
                at = begin + len(_BEGIN_ONE)
            one = False
            if (yield from self._starts(at, "function" + _SEPARATOR)):
                at += len("function" + _SEPARATOR)
                name, at = yield from self._name(at, ("\n",))
                at = yield from self._spaces(at)
                if not (yield from self._starts(at, "```json\n")):
                    raise _NoCall
                value, at = yield from self._json((yield from self._spaces(at + 8)))
                at = yield from self._spaces(at)
                at += 3 if (yield from self._starts(at, "```")) else 0
            else:
                name, at = yield from self._name(at, (_SEPARATOR,))
                value, at = yield from self._json((yield from self._spaces(at)))
            calls.append((name, _object(value)))
            end = yield from self._spaces(at)
            if not (yield from self._starts(end, _END_ONE)):
                break
            at = end + len(_END_ONE)
        if not calls:
            raise _NoCall
        end = yield from self._spaces(at)
        return calls, end + len(_END_ALL) if (yield from self._starts(end, _END_ALL)) else at

    def _objects(self, at: int) -> _Steps[tuple[list[_Call], int]]:
        """Calls as JSON objects, in an array or with `;` between them."""
        calls: list[_Call] = []
        while True:
            value, at = yield from self._json(at)
            calls += map(self._call_of, value if isinstance(value, list) else [value])
            end = yield from self._spaces(at)
            if not (yield from self._starts(end, ";")):
                break
            at = yield from self._spaces(end + 1)
        if not calls:
            raise _NoCall
        return calls, at

    def _call_of(self, value: object) -> _Call:
        if not isinstance(value, dict):
            raise _NoCall
        if isinstance(inner := value.get("function"), dict):
            value = inner
        name = value.get("name", value.get("function"))
        if not isinstance(name, str) or name not in self._tools:
            raise _NoCall
        for key in ("arguments", "parameters"):
            if key in value:
                return name, _object(value[key])
        raise _NoCall

    def _types(self, name: str) -> dict[str, object]:
        """What the tool's schema says of each of its arguments."""
        tool = self._tools[name]
        if not isinstance(tool, Tool):
            return {}
        try:
            properties = json.loads(tool.parameters).get("properties", {})
            return {key: schema.get("type") for key, schema in properties.items()}
        except (ValueError, AttributeError, RecursionError):
            return {}

    # What follows looks at the text from `at` on, waits for more of it, and says where it goes on.

    def _more(self, at: int) -> _Steps[bool]:
        """Whether there is a character at `at`, and it is not too far away."""
        while len(self._buffer) <= at < MAX_CALL:
            if self._ended:
                return False
            yield
        return at < MAX_CALL

    def _whole(self, at: int) -> bool:
        return self._ended and at == len(self._buffer)

    def _starts(self, at: int, text: str) -> _Steps[bool]:
        return (yield from self._starts_any(at, (text,)))

    def _starts_any(self, at: int, texts: Sequence[str]) -> _Steps[bool]:
        size = 1
        while (yield from self._more(at + size - 1)):
            seen = self._buffer[at : at + size]
            if seen in texts:
                return True
            if not any(text.startswith(seen) for text in texts):
                return False
            size += 1
        return False

    def _spaces(self, at: int) -> _Steps[int]:
        while True:
            found = _SPACES.match(self._buffer, at, MAX_CALL)
            at = found.end() if found else at
            if at < len(self._buffer) or not (yield from self._more(at)):
                return at

    def _until(self, at: int, end: str) -> _Steps[tuple[str, int]]:
        """The text before `end`, and where that ends. Raises _NoCall."""
        begin = at
        while (found := self._buffer.find(end, at, MAX_CALL)) < 0:
            at = max(begin, min(len(self._buffer), MAX_CALL) - len(end) + 1)
            if not (yield from self._more(len(self._buffer))):
                raise _NoCall
        return self._buffer[begin:found], found + len(end)

    def _name(self, at: int, ends: tuple[str, ...]) -> _Steps[tuple[str, int]]:
        """The name of a tool before one of `ends`, and where that ends. Raises _NoCall."""
        begin = at
        while (yield from self._more(at)) and at - begin <= self._longest_name:
            for end in ends:
                name = self._buffer[begin:at].strip()
                if name in self._tools and (yield from self._starts(at, end)):
                    return name, at + len(end)
            at += 1
        raise _NoCall

    def _json(self, at: int) -> _Steps[tuple[object, int]]:
        """The JSON object or array, and where it ends. Raises _NoCall."""
        begin, depth, inside = at, 0, False
        while (yield from self._more(at)):
            buffer = self._buffer
            found = (_INSIDE if inside else _OUTSIDE).match(buffer, at, MAX_CALL)
            assert found is not None
            if not inside and (_NOT_JSON.search(buffer, at, found.end()) or (not depth and found.end() > at)):
                raise _NoCall
            if found.end() > at:
                at = found.end()
                continue
            letter = buffer[at]
            at += 1
            if letter == "\\":
                if not (yield from self._more(at)):
                    raise _NoCall
                at += 1
            elif letter == '"':
                if not depth:
                    raise _NoCall
                inside = not inside
            elif letter in "{[":
                depth += 1
            else:
                depth -= 1
                if depth < 1:
                    return _loaded(self._buffer[begin:at]), at
        raise _NoCall


def _begun_mark(text: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of a mark."""
    for n in range(min(len(text), _LONGEST_MARK - 1), 0, -1):
        if text[-n] in "<[" and any(mark.startswith(text[-n:]) for mark in _MARKS):
            return n
    return 0


def _loaded(text: str) -> object:
    try:
        # Line breaks in strings are what models write, though JSON does not have them.
        return json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _NoCall from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _object(value: object) -> str:
    """A call's arguments as JSON text. Raises _NoCall when they are no object."""
    if isinstance(value, str):
        value = _loaded(value) if value.strip() else {}
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _NoCall
    return _written(value)


def _written(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            text = json.dumps(value, allow_nan=False)
        return text
    except (ValueError, RecursionError):
        raise _NoCall from None


def _value(text: str, kind: object) -> object:
    """What was written without saying of which type it is."""
    if kind == "string":
        return text
    try:
        value = _loaded(text)
    except _NoCall:
        return {"True": True, "False": False, "None": None}.get(text, text)
    return text if isinstance(value, str) and kind is None else value


def _random_id() -> str:
    letters = string.ascii_letters + string.digits
    return "call_" + "".join(secrets.choice(letters) for _ in range(24))
