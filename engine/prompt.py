"""From a conversation to the tokens of a prompt, in which only the template can write control tokens.

What somebody pastes may hold the text of a control token: `<|im_end|>` and then a turn that nobody took.
Such a text becomes the ordinary tokens of its letters; all around it stays as it is, and a conversation
without one gives exactly the tokens of the rendered text. A template that marks its turns with ordinary
text, like `[INST]` in old models, cannot be protected so: its model itself cannot tell who wrote that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from msgspec.structs import replace

from infraxa.engine.llama import Model
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import ChatMessage

_STAND_INS = 0xF0000
"""From here on, Unicode has characters for private use, which no template trims or changes."""


def prompt_tokens(model: Model, template: ChatTemplate, messages: Sequence[ChatMessage]) -> list[int]:
    """Tokens up to where the assistant's next words begin. Raises EngineError."""
    hidden: dict[str, str] = {}
    """For each control text of the contents, the character that stands for it while the template works."""
    while True:
        tokens = model.tokenize(template.render(messages), hidden)
        texts = [t for t in model.control_texts(tokens) if any(t in m.content for m in messages)]
        if not texts:
            return tokens
        # The longest first, as llama.cpp does: one may be part of another.
        for text in sorted(texts, key=len, reverse=True):
            stand_in = _unused(messages, hidden)
            hidden[stand_in] = text
            messages = [replace(m, content=m.content.replace(text, stand_in)) for m in messages]


def _unused(messages: Sequence[ChatMessage], hidden: dict[str, str]) -> str:
    candidates = map(chr, count(_STAND_INS))
    return next(c for c in candidates if c not in hidden and not any(c in m.content for m in messages))
