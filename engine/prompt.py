"""From a conversation to the tokens of a prompt, in which only the template can write control tokens.

What somebody pastes may hold the text of a control token: `<|im_end|>` and then a turn that nobody took.
Such a text becomes the ordinary tokens of its letters; all around it stays as it is, and a conversation
without one gives exactly the tokens of the rendered text. A template that marks its turns with ordinary
text, like `[INST]` in old models, cannot be protected so: its model itself cannot tell who wrote that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

from msgspec.structs import replace

from infraxa.engine.llama import Model
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import ChatMessage, Request

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
        return model.tokenize(request.prompt) if request.prompt else []
    messages: Sequence[ChatMessage] = request.messages
    hidden: dict[str, str] = {}
    """For each control text of the contents, the character that stands for it while the template works."""
    found = _in_slices(model, messages)
    while True:
        texts = [t for t in found if any(t in m.content for m in messages)]
        # The longest first, as llama.cpp does: one may be part of another.
        for text in sorted(texts, key=len, reverse=True):
            stand_in = _unused(messages, hidden)
            hidden[stand_in] = text
            messages = [replace(m, content=m.content.replace(text, stand_in)) for m in messages]
        tokens = model.tokenize(template.render(messages), hidden)
        found = model.control_texts(tokens)
        if not any(t in m.content for t in found for m in messages):
            return tokens


def _in_slices(model: Model, messages: Sequence[ChatMessage]) -> set[str]:
    """Control texts of a long conversation; none of a short one, where the whole can be looked at."""
    if sum(len(m.content) for m in messages) <= SLICE:
        return set()
    tokens: set[int] = set()
    for message in messages:
        for at in range(0, len(message.content), SLICE):
            tokens.update(model.tokenize(message.content[at : at + SLICE + OVERLAP]))
    return model.control_texts(tokens)


def _unused(messages: Sequence[ChatMessage], hidden: dict[str, str]) -> str:
    candidates = map(chr, count(_STAND_INS))
    return next(c for c in candidates if c not in hidden and not any(c in m.content for m in messages))
