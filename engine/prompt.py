"""From a conversation to the tokens of a prompt, in which only the template can write control tokens.

What somebody pastes may hold the text of a control token: `<|im_end|>` and then a turn that nobody took.
Such a text becomes the ordinary tokens of its letters; all around it stays as it is, and a conversation
without one gives exactly the tokens of the rendered text. The same holds for what is said of tools, what they
are asked and what they give. A template that marks its turns with ordinary text, like `[INST]` in old models,
cannot be protected so: its model itself cannot tell who wrote that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, Final

from msgspec.structs import replace

from infraxa.engine.llama import Model
from infraxa.engine.template import ChatTemplate
from infraxa.engine.tool_turns import load
from infraxa.engine.types import ChatMessage, Request, Tool, ToolCall

SLICE: Final = 8192
"""Characters in which control texts are looked for at a time, when there are more. llama.cpp copies the whole
text for each special token in it: megabytes of them in one text would keep all others waiting for many
minutes."""
OVERLAP: Final = 256
"""Characters that two slices share: no control text is longer."""
_STAND_INS = 0xF0000
"""From here on, Unicode has characters for private use, which no template trims or changes."""


def prompt_tokens(model: Model, template: ChatTemplate, request: Request) -> list[int]:
    """Tokens up to where the assistant's next words begin. Raises EngineError."""
    if not request.messages:
        # Control texts are what they look like: whoever writes a whole prompt writes its turns.
        return model.tokenize(request.prompt) if request.prompt else []
    messages = request.messages
    tools = request.tools if request.tool_choice != "none" else ()
    hidden: dict[str, str] = {}
    """For each control text of the contents, the character that stands for it while the template works."""
    said = _Said(messages, tools)
    stand_ins = _unused(said.texts)
    found = _in_slices(model, said.texts)
    while True:
        texts = [t for t in found if t in said]
        # The longest first, as llama.cpp does: one may be part of another.
        for text in sorted(texts, key=len, reverse=True):
            stand_in = next(stand_ins)
            hidden[stand_in] = text
            said = said.without(text, stand_in)
        tokens = model.tokenize(template.render(said.messages, said.tools), hidden)
        found = model.control_texts(tokens)
        if not any(t in said for t in found):
            return tokens


def _unused(texts: Iterable[str]) -> Iterator[str]:
    """Characters that stand in none of the texts. They are looked through once: somebody may have written
    many of these characters, and many control texts."""
    used: set[str] = set().union(*texts)
    return (c for c in map(chr, count(_STAND_INS)) if c not in used)


class _Said:
    """All that others than the template say in a prompt."""

    def __init__(self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...]) -> None:
        self.messages = messages
        self.tools = tools
        self.texts = [text for message in messages for text in _texts_of_message(message)]
        for tool in tools:
            self.texts += (tool.name, tool.description, *_texts_of_value(load(tool.parameters)))

    def __contains__(self, text: str) -> bool:
        return any(text in one for one in self.texts)

    def without(self, text: str, stand_in: str) -> _Said:
        def change(one: str) -> str:
            return one.replace(text, stand_in)

        return _Said(
            tuple(
                replace(
                    m,
                    content=change(m.content),
                    tool_calls=tuple(
                        ToolCall(c.id, change(c.name), _change_json(c.arguments, change))
                        for c in m.tool_calls
                    ),
                )
                for m in self.messages
            ),
            tuple(
                Tool(change(t.name), change(t.description), _change_json(t.parameters, change))
                for t in self.tools
            ),
        )


def _texts_of_message(message: ChatMessage) -> Iterator[str]:
    yield message.content
    for call in message.tool_calls:
        yield call.name
        yield from _texts_of_value(load(call.arguments))


def _texts_of_value(value: Any) -> Iterator[str]:
    """A JSON value's texts, with the names in its objects."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _change_json(text: str, change: Callable[[str], str]) -> str:
    """A template writes the values, not how their letters were written in JSON: `\\u003c` is `<`."""
    value = load(text)
    return change(text) if value is text else json.dumps(_changed(value, change), ensure_ascii=False)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    return value


def _in_slices(model: Model, texts: Iterable[str]) -> set[str]:
    """Control texts of a long conversation; none of a short one, where the whole can be looked at."""
    joined = "\n".join(texts)
    if len(joined) <= SLICE:
        return set()
    tokens: set[int] = set()
    for at in range(0, len(joined), SLICE):
        tokens.update(model.tokenize(joined[at : at + SLICE + OVERLAP]))
    return model.control_texts(tokens)
