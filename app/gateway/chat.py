"""`POST /v1/chat/completions`: from the body to requests of the engine's kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta

from infraxa.app.gateway.bodies import Anything, Asked, is_there
from infraxa.app.gateway.errors import bad_request, unsupported
from infraxa.engine.types import ChatMessage, Format, Request, Sampling, Tool, ToolCall

MAX_MESSAGES: Final = 4096
MAX_PARTS: Final = 256
MAX_TOOLS: Final = 128
MAX_CALLS: Final = 128
MAX_TOP_LOGPROBS: Final = 20

_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Id = Annotated[str, Meta(max_length=256)]
_NEEDS_CALLS: Final = "only functions can be called: give them as tools."


class Part(msgspec.Struct, frozen=True):
    """Of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


Content = str | Annotated[list[Part], Meta(max_length=MAX_PARTS)] | None


class Called(msgspec.Struct, frozen=True):
    name: _Name
    arguments: str = "{}"


class CallMade(msgspec.Struct, frozen=True):
    """In an assistant's message."""

    id: _Id
    function: Called
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True):
    """One turn, as the client remembers it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    refusal: str | None = None
    tool_calls: Annotated[list[CallMade], Meta(max_length=MAX_CALLS)] | None = None
    tool_call_id: _Id | None = None


class Function(msgspec.Struct, frozen=True):
    name: _Name
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")


class ToolGiven(msgspec.Struct, frozen=True):
    type: str
    function: Function | None = None


class Named(msgspec.Struct, frozen=True):
    name: _Name


class ToolChoice(msgspec.Struct, frozen=True):
    """The one that must be called."""

    type: str
    function: Named | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    schema: msgspec.Raw = msgspec.Raw(b"null")


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(Asked, frozen=True, kw_only=True):
    """The whole body."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ToolGiven], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    audio: Anything = UNSET
    functions: Anything = UNSET
    function_call: Anything = UNSET
    web_search_options: Anything = UNSET
    moderation: Anything = UNSET


chat_decoder = msgspec.json.Decoder(ChatBody)


def chat_requests(body: ChatBody, defaults: Sampling) -> list[Request]:
    """One for each answer that is wanted. Raises ApiError 400."""
    _refuse(body)
    tools = tuple(_tool(tool, place) for place, tool in enumerate(body.tools or ()))
    most = body.max_completion_tokens or body.max_tokens
    first = Request(
        messages=_messages(body.messages),
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, tools),
        format=_format(body.response_format),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return [
        msgspec.structs.replace(first, sampling=body.sampling(defaults, place, most))
        for place in range(body.n or 1)
    ]


def _refuse(body: ChatBody) -> None:
    """What would change the answer."""
    if set(body.modalities or ()) - {"text"} or is_there(body.audio):
        raise unsupported("audio" if is_there(body.audio) else "modalities", "answers are text.")
    for name, what in (
        ("functions", _NEEDS_CALLS),
        ("function_call", _NEEDS_CALLS),
        ("web_search_options", "nothing is searched for."),
        ("moderation", "nothing is moderated."),
    ):
        if is_there(getattr(body, name)):
            raise unsupported(name, what)
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs to be true.", "top_logprobs")


def _messages(messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
    """Neighbours of one role are joined, as many templates insist on turns."""
    said: list[ChatMessage] = []
    for place, message in enumerate(messages):
        one = _message(message, f"messages[{place}]")
        last = said[-1] if said else None
        plain = not (one.tool_calls or (last is not None and last.tool_calls))
        if last is not None and plain and last.role == one.role and one.role != "tool":
            said[-1] = msgspec.structs.replace(last, content=f"{last.content}\n\n{one.content}")
        else:
            said.append(one)
    return tuple(said)


def _message(message: Message, where: str) -> ChatMessage:
    text = _text(message.content, where)
    match message.role:
        case "assistant":
            calls = tuple(
                ToolCall(call.id, call.function.name, call.function.arguments)
                for call in message.tool_calls or ()
            )
            return ChatMessage("assistant", text or message.refusal or "", calls)
        case "tool":
            if message.tool_call_id is None:
                raise bad_request("A tool's message says which call it answers.", f"{where}.tool_call_id")
            return ChatMessage("tool", text, tool_call_id=message.tool_call_id)
        case role:
            if message.content is None:
                raise bad_request("This message has no content.", f"{where}.content")
            return ChatMessage("user" if role == "user" else "system", text)


def _text(content: Content, where: str) -> str:
    if not isinstance(content, list):
        return content or ""
    texts = []
    for part in content:
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None:
            raise unsupported(f"{where}.content", "only parts of type text can be read.")
        texts.append(text)
    return "".join(texts)


def _tool(tool: ToolGiven, place: int) -> Tool:
    where = f"tools[{place}]"
    if tool.type != "function" or tool.function is None:
        raise unsupported(where, _NEEDS_CALLS)
    schema = _object(tool.function.parameters, f"{where}.function.parameters")
    return Tool(tool.function.name, tool.function.description or "", schema or "{}")


def _object(raw: msgspec.Raw, where: str) -> str:
    """A JSON object as text; empty when there is none. Raises ApiError 400 for anything else."""
    text = bytes(raw).strip()
    if text == b"null":
        return ""
    if not text.startswith(b"{"):
        raise bad_request(f"{where} must be a JSON object.", where)
    return text.decode()


def _tool_choice(choice: str | ToolChoice | None, tools: Sequence[Tool]) -> str:
    if isinstance(choice, ToolChoice):
        if choice.type != "function" or choice.function is None:
            raise unsupported("tool_choice", "choose auto, none, required or one function.")
        if all(tool.name != choice.function.name for tool in tools):
            raise bad_request("tool_choice names a function that is not among the tools.", "tool_choice")
        return choice.function.name
    if choice not in (None, "auto", "none", "required"):
        raise bad_request("tool_choice must be auto, none, required or one function.", "tool_choice")
    if choice == "required" and not tools:
        raise bad_request("tool_choice is required, and there are no tools.", "tool_choice")
    return choice or "auto"


def _format(format: ResponseFormat | None) -> Format | None:  # noqa: A002 - its name in a Request
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return Format("json_object")
    where = "response_format.json_schema.schema"
    schema = _object(format.json_schema.schema, where) if format.json_schema is not None else ""
    if not schema:
        raise bad_request(f"{where} is missing.", where)
    return Format("json_schema", schema)
