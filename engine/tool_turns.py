"""Conversations with tools as chat templates want them: the dicts of OpenAI's API, or, for templates that
know nothing of tools, the text of Hermes models. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from infraxa.engine.types import ChatMessage, Tool

_HOW = """# Tools

You may call one or more of these functions to help with what the user asks:
<tools>
{tools}
</tools>

To call a function, write a JSON object with its name and its arguments within <tool_call></tool_call>:
<tool_call>
{{"name": <name of the function>, "arguments": <object of its arguments>}}
</tool_call>"""


def as_dicts(messages: Sequence[ChatMessage], *, parsed: bool) -> list[dict[str, Any]]:
    """`parsed`: the arguments of calls are values, else text. A message has the keys that apply to it.

    Calls are numbered: what a client names them tells a model nothing, and some templates want 9 letters and
    digits.
    """
    numbers: dict[str, str] = {}
    names: dict[str, str] = {}
    dicts: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        for call in message.tool_calls:
            numbers[call.id] = f"call{len(numbers):05}"
            names[call.id] = call.name
            arguments = load(call.arguments) if parsed else call.arguments
            function = {"name": call.name, "arguments": arguments}
            calls = one.setdefault("tool_calls", [])
            calls.append({"id": numbers[call.id], "type": "function", "function": function})
        if message.role == "tool":
            called = message.tool_call_id
            one["tool_call_id"] = numbers.get(called, "call00000")
            one["name"] = names.get(called, "")
        dicts.append(one)
    return dicts


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": load(t.parameters)},
        }
        for t in tools
    ]


def with_tools_told(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[ChatMessage]:
    """The system message says which tools there are and how they are called."""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tool_dicts(tools))
    text = _HOW.format(tools=listed)
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=f"{messages[0].content}\n\n{text}".strip()), *messages[1:]]
    return [ChatMessage("system", text), *messages]


def as_text(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Calls as text of the assistant, and what they gave as text of the user."""
    turns: list[ChatMessage] = []
    answered = False
    for message in messages:
        if message.role == "tool":
            message = ChatMessage("user", f"<tool_response>\n{message.content}\n</tool_response>")
            follows, answered = answered, True
        else:
            follows, answered = answered and message.role == "user", False
        if follows:
            # Many templates want the user and the assistant to take turns.
            turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{message.content}")
        else:
            calls = [_call_as_text(call.name, call.arguments) for call in message.tool_calls]
            content = "\n".join([message.content, *calls] if message.content else calls)
            turns.append(ChatMessage(message.role, content or message.content))
    return turns


def _call_as_text(name: str, arguments: str) -> str:
    call = json.dumps({"name": name, "arguments": load(arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def load(text: str) -> Any:
    """The value of a JSON text, or the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
