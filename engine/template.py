"""From a conversation to the text of a prompt, by the chat template in the model's metadata.

The template comes with the model file, so it is a stranger's program. It runs in Jinja's sandbox, and its
time and its output are bounded; what still escapes (memory taken by one huge operation) ends the worker and
not the program.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn

from infraxa.engine.tool_turns import as_dicts, as_text, tool_dicts, with_tools_told
from infraxa.engine.types import ChatMessage, EngineError, Tool, ToolCall

TIME_LIMIT = 5.0
"""Seconds one rendering may take. Where there is no interval timer (Windows), only between two pieces of
output."""
OUTPUT_LIMIT = 1 << 20
"""Characters a template may add to the conversation's own, which may appear twice."""
_OPERAND_LIMIT = 1 << 20

BuiltinFormatter = Callable[[str | None, Sequence[ChatMessage]], str | None]
"""llama.cpp's own formatting (template or name, messages): the text, or None when it does not know the
template."""


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(
        self, source: str | None, *, bos: str = "", eos: str = "", builtin: BuiltinFormatter | None = None
    ) -> None:
        """`source`: the Jinja text; None = the model has none, and the ChatML format is used."""
        self._source = source
        self._builtin = builtin
        self._names = {"bos_token": bos, "eos_token": eos}
        self._compiled: _Compiled | None = None
        self._support: _Support | None = None

    def prepare(self) -> None:
        """Compiles the template and tries it on the shortest conversation, so that the first one need not
        wait. Raises EngineError `no_template`: no conversation at all can be formatted."""
        try:
            self.render([ChatMessage("user", "Hi")])
        except EngineError as error:
            raise EngineError(error.code, error.message, "Choose another model.") from None

    def render(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> str:
        """The prompt up to where the assistant's words begin, or up to the end of those that are there
        already.

        What a template cannot tell its model of tools, calls and what they gave is told as Hermes models are:
        in the system message, and as text of the turns.

        Raises EngineError `no_template` when neither the template nor llama.cpp can format this conversation.
        """
        begun = ""
        if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
            # The prompt that the answer began from, and the answer, whatever the template does to earlier
            # answers: the text that a cut answer stood on. Its tokens may be others, where the model had put
            # the text together from smaller ones than the tokenizer takes.
            begun, messages = messages[-1].content, messages[:-1]
        called = any(m.tool_calls or m.role == "tool" for m in messages)
        if not tools and not called:
            return self._open_turn(messages) + begun
        support = self._find_support()
        if support.turns or not called:
            try:
                if support.tools or not tools:
                    return self._open_turn(messages, tools, parsed=support.parsed) + begun
                told = with_tools_told(messages, tools)
                return self._open_turn(told, parsed=support.parsed) + begun
            except EngineError:
                # Some refuse two calls in one turn, for one.
                if not called:
                    raise
        messages = as_text(messages)
        if support.tools and tools:
            return self._open_turn(messages, tools) + begun
        return self._open_turn(with_tools_told(messages, tools) if tools else messages) + begun

    def _find_support(self) -> _Support:
        """What of tools arrives in the prompt."""
        if self._support is None:
            user, tools = ChatMessage("user", "Hi"), (_PROBE,)
            knows = self._shows((user,), tools, True, (_PROBE.name, _PROBE.description))
            call = ToolCall("call00000", _PROBE.name, json.dumps({"probe_key": "probe_value"}))
            said = ChatMessage("assistant", "", (call,))
            turns = (user, said, ChatMessage("tool", "probe_result", tool_call_id="call00000"))
            marks = (_PROBE.name, "probe_key", "probe_value", "probe_result")
            ways = [way for way in (True, False) if self._shows(turns, tools if knows else (), way, marks)]
            self._support = _Support(knows, bool(ways), not ways or ways[0])
        return self._support

    def _shows(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool], parsed: bool, marks: Sequence[str]
    ) -> bool:
        if self._source is None:
            return False
        try:
            text = self._render_jinja(messages, tools, parsed)
        except _TemplateFailed:
            return False
        return all(mark in text for mark in marks)

    def _open_turn(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), *, parsed: bool = True
    ) -> str:
        if self._source is None:
            text = self._builtin("chatml", messages) if self._builtin else None
            if text is None:
                raise EngineError("no_template", "This model has no chat template.", "Choose a chat model.")
            return text
        try:
            return self._render_jinja(messages, tools, parsed)
        except _TemplateFailed as error:
            if messages and messages[0].role == "system":
                # Some templates refuse system messages; their authors put them before the first question.
                try:
                    return self._render_jinja(_without_system(messages), tools, parsed)
                except _TemplateFailed:
                    pass
            # llama.cpp's own formatting knows no tools.
            plain = not tools and not any(m.tool_calls for m in messages)
            text = self._builtin(self._source, messages) if self._builtin and plain else None
            if text is not None:
                return text
            raise EngineError(
                "no_template",
                f"This model's chat template cannot format the conversation: {error}.",
                "Start a new chat, or choose another model.",
            ) from None

    def _render_jinja(self, messages: Sequence[ChatMessage], tools: Sequence[Tool], parsed: bool) -> str:
        if self._compiled is None:
            assert self._source is not None
            self._compiled = _Compiled(self._source)
        return self._compiled.render(as_dicts(messages, parsed=parsed), tool_dicts(tools), self._names)


class _Support(NamedTuple):
    """What a template does with tools."""

    tools: bool
    """It tells the model of them."""
    turns: bool
    """It formats calls and what they gave."""
    parsed: bool
    """It wants the arguments as values, not as text."""


_PROBE = Tool(
    "probe_tool", "probe_description", '{"type": "object", "properties": {"probe_key": {"type": "string"}}}'
)


_VARIES: Final = re.compile(r"\bstrftime_now\b|\blipsum\b|\|\s*random\b|(['\"])random\1")
"""What of Jinja and of this dialect gives something else at another time, in another place or by chance."""


def varies(source: str | None) -> bool:
    """Whether the template may make another prompt of the same conversation at another time, or elsewhere."""
    return source is not None and _VARIES.search(source) is not None


class _TemplateFailed(Exception):
    """The template is wrong, refuses the conversation, or takes too long."""


class _Compiled:
    """The template as Jinja understands it, in the dialect that transformers made the standard."""

    def __init__(self, source: str) -> None:
        from jinja2.ext import Extension, loopcontrols
        from jinja2.nodes import Node
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Environment(ImmutableSandboxedEnvironment):
            intercepted_binops = frozenset(["*", "**", "%"])

            def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
                check_operands(operator, left, right)
                return super().call_binop(context, operator, left, right)  # type: ignore[arg-type] # passed on

        class Generation(Extension):
            """Marks the assistant's words for training; here they are as others."""

            def parse(self, parser: Parser) -> list[Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        Generation.tags = {"generation"}
        environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            with time_limit(TIME_LIMIT):
                self._template = environment.from_string(source)
        except Exception as error:
            # Jinja writes a Python program and compiles it: SyntaxError for nested loops, ValueError for a
            # number of thousands of digits, and whatever else Python says to such a text.
            raise _TemplateFailed(_one_line(error)) from None

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], names: dict[str, str]
    ) -> str:
        limit = OUTPUT_LIMIT + 2 * (_size(messages) + _size(tools))
        parts: list[str] = []
        size = 0
        try:
            with time_limit(TIME_LIMIT):
                pieces = self._template.generate(
                    messages=messages,
                    add_generation_prompt=True,
                    tools=tools or None,
                    documents=None,
                    **names,
                )
                for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise _TemplateFailed(f"it makes more than {limit} characters")
                    parts.append(piece)
        except Exception as error:
            # A template can raise whatever Python can: TypeError by adding text to a number, for one.
            raise _TemplateFailed(_one_line(error)) from None
        return "".join(parts)


def _size(value: object) -> int:
    """Characters of all texts in a value."""
    size, left = 0, [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value
            left += value.values()
        elif isinstance(value, list):
            left += value
        else:
            size += len(str(value))
    return size


def check_operands(operator: str, left: object, right: object) -> None:
    """Refuses the arithmetic by which a few characters of template take all memory or time."""
    if operator == "%":
        if isinstance(left, str):
            raise _TemplateFailed("it formats text with %")
        return
    sizes = [len(x) for x in (left, right) if isinstance(x, str | list | tuple)]
    factors = [abs(x) for x in (left, right) if isinstance(x, int)]
    if operator == "**":
        too_much = len(factors) == 2 and left not in (0, 1) and factors[1] > 64
    else:
        too_much = bool(sizes and factors) and sizes[0] * factors[0] > _OPERAND_LIMIT
    too_much = too_much or any(f.bit_length() > 4096 for f in factors)
    if too_much:
        raise _TemplateFailed("it computes something huge")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends Python code in the block with _TemplateFailed after that time, where the system has interval
    timers."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(number: int, frame: FrameType | None) -> NoReturn:
        raise _TemplateFailed(f"it takes longer than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _without_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    system, *rest = messages
    if rest and rest[0].role == "user":
        return [ChatMessage("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]
    return [ChatMessage("user", system.content), *rest]


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML, which no model was trained on.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> NoReturn:
    raise _TemplateFailed(_one_line(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200].rstrip(".") or type(message).__name__
