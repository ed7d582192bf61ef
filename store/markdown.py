"""A chat as a Markdown document, for people and for other programs. A pure function: no database here.

The title is a heading of level 1 and each turn one of level 2. What the turns say is kept as it is, except
where it would break out of its place: its own headings move below level 2, and code or HTML that was left
open is closed. A CommonMark parser decides whether it breaks out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from infraxa.store.records import AnswerFacts, Chat, DriverPart, Message, Turn

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TURN_LEVEL = 2
_DEEPEST = 6
_REPAIRS = 8
"""After so many attempts at closing what is open, a text is quoted."""

_PROBE = "\n\n# end\n"
_STATES = {
    "streaming": "still being written",
    "stopped": "stopped",
    "failed": "failed",
    "interrupted": "interrupted",
}


def to_markdown(chat: Chat, turns: Iterable[Turn]) -> str:
    """The chat with these turns; ends with one newline. Hidden siblings are counted, not written."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    parts = [f"# {_plain(chat.title) or 'Untitled chat'}"]
    if chat.options.system:
        parts += ["## System", contained(chat.options.system, parser)]
    for turn in turns:
        message = turn.message
        parts.append("## User" if message.role == "user" else "## Assistant")
        if text := message.content.strip("\n"):
            parts.append(contained(text, parser))
        if line := _facts_line(message, turn.index, len(turn.sibling_ids)):
            parts.append(line)
    return "\n\n".join(parts) + "\n"


def contained(text: str, parser: MarkdownIt) -> str:
    """`text` such that a heading after it is one, and its own headings are below those of the turns."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    repaired = text
    for _ in range(_REPAIRS):
        tokens = parser.parse(repaired + _PROBE)
        last = tokens[-1]
        if last.type == "heading_close" and last.level == 0 and tokens[-2].content == "end":
            return _lower_headings(repaired, tokens)
        # Otherwise the heading was swallowed by what is open there.
        if last.type == "fence":
            repaired = f"{repaired}\n{last.markup}"
        elif last.type == "html_block" and last.map is not None:
            lines = repaired.split("\n")
            lines[last.map[0]] = lines[last.map[0]].replace("<", "\\<", 1)
            repaired = "\n".join(lines)
        else:
            break
    # Whatever is open in a quotation ends with it.
    return "\n".join(f"> {line}" for line in text.split("\n"))


def _lower_headings(text: str, tokens: Sequence[Token]) -> str:
    headings = [token for token in tokens if token.type == "heading_open" and token.level == 0][:-1]
    down = max((_TURN_LEVEL + 1 - int(token.tag[1]) for token in headings), default=0)
    if down <= 0:
        return text
    lines = text.split("\n")
    # From the end, so that the line numbers before it stay true.
    for token in reversed(headings):
        assert token.map is not None  # a block token has its lines
        start, end = token.map
        underlined = token.markup in {"=", "-"}
        words = lines[start : end - 1] if underlined else [re.sub(r"^ *#+", "", lines[start])]
        marks = "#" * min(int(token.tag[1]) + down, _DEEPEST)
        lines[start:end] = [f"{marks} {' '.join(word.strip() for word in words)}".rstrip()]
    return "\n".join(lines)


def _facts_line(message: Message, index: int, siblings: int) -> str:
    """What was measured of the answer and how it ended, in one line; empty when there is nothing to say."""
    facts = _facts(message.facts) if message.facts is not None else []
    if siblings > 1:
        facts.append(f"version {index} of {siblings}")
    if state := _STATES.get(message.state):
        facts.append(f"{state}: {_plain(message.error)}" if message.error else state)
    return f"*{' · '.join(facts)}*" if facts else ""


def _facts(facts: AnswerFacts) -> list[str]:
    found = []
    if any(part.id for part in facts.drivers):
        found.append(f"answered by {', then '.join(_part(part) for part in facts.drivers)}")
    elif facts.model:
        found.append(_plain(facts.model))
    if facts.first_token_ms is not None:
        found.append(f"{facts.first_token_ms / 1000:.2f} s to first token")
    if facts.tokens_per_second is not None:
        found.append(f"{facts.tokens_per_second:.1f} tok/s")
    if facts.n_out:
        found.append(f"{facts.n_out} tokens")
    readers = ", ".join(dict.fromkeys(_node(reader.name, reader.id) for reader in facts.readers))
    found.append(f"readable by {readers or 'this machine'} only")
    return found


def _part(part: DriverPart) -> str:
    who = _node(part.name, part.id) if part.id else "this machine"
    return f"{who} ({_plain(part.model)})" if part.model else who


def _node(name: str, node: str) -> str:
    """A node as people know it: the name that it claimed, and the whole id, by which it can be told from
    others with that name."""
    claimed = "".join(character for character in name if character.isprintable())
    return _plain(f"{claimed} ({node})" if claimed else node)


def _plain(text: str) -> str:
    """`text` in one line, with nothing in it that Markdown would take for a mark."""
    return re.sub(r"([\\`*_\[\]<>#&~|])", r"\\\1", " ".join(text.split()))
