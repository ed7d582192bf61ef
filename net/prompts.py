"""What is sent to a driver once a place is its own: a conversation, a text to go on with, or texts to embed;
with the first two maybe an answer whose steps are to be scored.

Values and their limits, which are the same on both sides, so that nobody is blamed for what could be said at
the other. When it is sent is in orders.py; all numbers of an order are in wire.Order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from infraxa.net import codec
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.wire import MAX_PROMPT, MAX_SCORES, MAX_TEXTS

MAX_TURNS: Final = 4096
MAX_STOPS: Final = 16
MAX_STOP: Final = 256
"""Characters of one stop string."""
MAX_TOOLS: Final = 128
"""Of a prompt; as many calls of them in one turn."""
MAX_NAME: Final = 128
"""Characters of the name of a tool, and of the id of a call."""
MAX_SCHEMA: Final = 256 * 1024
"""Characters of a JSON Schema, a description, the arguments of a call."""

MAX_SAID: Final = 1024 * 1024
"""Bytes of the tokens of an answer that is scored."""

SALT: Final = 32
"""Bytes of a salt, and of a draw."""

Role = Literal["system", "user", "assistant", "tool"]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
_Json = Annotated[str, Meta(max_length=MAX_SCHEMA)]


class ToolCall(Struct, array_like=True, frozen=True):
    """A turn of the assistant wants a tool to be called."""

    id: Annotated[str, Meta(max_length=MAX_NAME)]
    name: _Name
    arguments: _Json
    """A JSON object, as text; not looked at here."""

    def __repr__(self) -> str:
        """Without the text, as all of these: it must not get into a log by a value that is shown."""
        return "ToolCall()"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class Turn(Struct, array_like=True, frozen=True):
    """One turn of a conversation."""

    role: Role
    text: str
    calls: Annotated[tuple[ToolCall, ...], Meta(max_length=MAX_TOOLS)] = ()
    """Of an assistant's."""
    call_id: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    """Which call a tool's answers."""

    def __repr__(self) -> str:
        return f"Turn({self.role})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("role", self.role)]


class Tool(Struct, array_like=True, frozen=True):
    """A function that the model may ask to be called."""

    name: _Name
    description: _Json = ""
    parameters: _Json = "{}"
    """JSON Schema of its arguments, as text."""

    def __repr__(self) -> str:
        return "Tool()"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class Format(Struct, array_like=True, frozen=True):
    """What the answer has to be."""

    kind: Literal["json_object", "json_schema"]
    schema: _Json = ""
    """JSON Schema, as text."""

    def __repr__(self) -> str:
        return f"Format({self.kind})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("kind", self.kind)]


class Prompt(Struct, array_like=True, frozen=True):
    """What is to be answered: `turns`, `raw` or `texts`, one of them and no other."""

    turns: Annotated[tuple[Turn, ...], Meta(max_length=MAX_TURNS)] = ()
    """A conversation. When the last turn is an assistant's, its text is continued."""
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP)], ...], Meta(max_length=MAX_STOPS)
    ] = ()
    """End before any of these strings; they are not part of the answer."""
    raw: str = ""
    """Continued as it is."""
    tools: Annotated[tuple[Tool, ...], Meta(max_length=MAX_TOOLS)] = ()
    """With `turns`."""
    tool_choice: _Name = "auto"
    """`auto`, `none`, `required`, or the name of the one that must be called."""
    format: Format | None = None
    texts: Annotated[tuple[str, ...], Meta(max_length=MAX_TEXTS)] = ()
    """A vector is asked for each of them; nothing else is given then."""
    salt: Annotated[bytes, Meta(max_length=32)] = b""
    """Of all that its driver commits to, so that nobody finds the words by trying. 32 bytes when the answer
    is to be checked afterwards, else none; as `draw`."""
    draw: Annotated[bytes, Meta(max_length=32)] = b""
    """The user's half of the chance by which the tokens are drawn."""
    answer: Annotated[bytes, Meta(max_length=MAX_SAID)] = b""
    """With `turns` or `raw`: the sampled tokens of an answer, little-endian uint32, of which scores are asked
    for."""
    steps: Annotated[
        tuple[Annotated[int, Meta(ge=0, lt=MAX_SAID // 4)], ...], Meta(max_length=MAX_SCORES)
    ] = ()
    """Of which of them, rising."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    """The cache that it was computed with."""
    ends: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP)], ...], Meta(max_length=MAX_STOPS)
    ] = ()
    """The stop strings of that answer. Who does not know this field does not say what its text is."""
    chars: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """So many characters of the text are hashed, from its beginning on; 0: all of it. See scores.Scoring."""

    def __repr__(self) -> str:
        return f"Prompt({len(self.turns)} turns)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("turns", len(self.turns))]


_encoder = msgspec.msgpack.Encoder()


def encode_prompt(prompt: Prompt) -> bytes:
    """Raises NetError `bad_request`, `too_large`: it is refused here rather than by the provider."""
    try:
        data = _encoder.encode(prompt)
    except UnicodeEncodeError:
        raise NetError(
            "bad_request",
            "The conversation holds characters that are not Unicode, which cannot be sent.",
            "Delete them, or start a new chat.",
        ) from None
    stops = [len(stop) for stop in prompt.stop]
    if len(stops) > MAX_STOPS or any(not 0 < size <= MAX_STOP for size in stops):
        raise NetError(
            "bad_request",
            f"At most {MAX_STOPS} stop strings of 1 to {MAX_STOP} characters can be sent.",
            "Use fewer, or shorter ones.",
        )
    if not _is_salted(prompt):
        raise ValueError("a salt and a draw have 32 bytes each, or none")
    if not (prompt.turns or prompt.raw or prompt.texts):
        raise NetError("bad_request", "There is nothing to send.", "Write something first.")
    if len(data) > MAX_PROMPT or len(prompt.turns) > MAX_TURNS:
        raise NetError(
            "too_large",
            f"The conversation is too long to be sent: {len(data) / 2**20:.1f} MiB in {len(prompt.turns)} "
            f"turns, where at most {MAX_PROMPT >> 20} MiB in {MAX_TURNS} can be.",
            "Start a new chat.",
        )
    if _is_more(prompt):
        try:
            decode_prompt(data)
        except ProtocolError:
            raise NetError(
                "bad_request",
                "The tools, the format, the texts or the answer cannot be sent, or do not go together: there "
                f"can be {MAX_TOOLS} tools with names of {MAX_NAME} characters, schemas of "
                f"{MAX_SCHEMA >> 10} KiB, {MAX_TEXTS} texts, and {MAX_SCORES} steps of an answer.",
                "Ask for less.",
            ) from None
    return data


def decode_prompt(data: bytes) -> Prompt:
    """Raises ProtocolError, which holds nothing of it."""
    prompt: Prompt = codec.decode(data, Prompt, MAX_PROMPT)
    given = sum(map(bool, (prompt.turns, prompt.raw, prompt.texts)))
    if given != 1:
        raise ProtocolError("malformed", f"a prompt of {given} kinds")
    if not _is_salted(prompt):
        raise ProtocolError("malformed", "the salt or the draw of a prompt")
    if _is_more(prompt) and not _goes_together(prompt):
        raise ProtocolError("malformed", "parts of a prompt that do not go together")
    return prompt


def _is_salted(prompt: Prompt) -> bool:
    return (len(prompt.salt), len(prompt.draw)) in ((0, 0), (SALT, SALT))


def _is_more(prompt: Prompt) -> bool:
    """Than turns of text, stop strings and random bytes."""
    plain = tuple(Turn(turn.role, turn.text) for turn in prompt.turns)
    return prompt != Prompt(plain, prompt.stop, salt=prompt.salt, draw=prompt.draw)


def _can_be_scored(prompt: Prompt) -> bool:
    """Nothing is told that what a model computes does not depend on."""
    n, odd = divmod(len(prompt.answer), 4)
    more = prompt.stop or prompt.salt or prompt.format or prompt.tool_choice not in ("auto", "none")
    rises = all(a < b for a, b in pairwise(prompt.steps))
    return not (odd or more) and rises and bool(prompt.steps) and prompt.steps[-1] < n


def _goes_together(prompt: Prompt) -> bool:
    if prompt.texts:
        return prompt == Prompt(texts=prompt.texts)
    scored = prompt.answer or prompt.steps or prompt.kv_type != "f16" or prompt.ends or prompt.chars
    if scored and not _can_be_scored(prompt):
        return False
    names = {tool.name for tool in prompt.tools}
    if len(names) < len(prompt.tools) or (names and prompt.raw):
        return False
    if not names:
        return prompt.tool_choice in ("auto", "none")
    return prompt.tool_choice in ("auto", "none", "required") or prompt.tool_choice in names
