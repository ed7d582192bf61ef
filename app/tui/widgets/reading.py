"""Markdown read into blocks: a whole text by `read`, or a part of one, with what the text before it left
open.

Nothing in a text is markup, no link is opened and no image fetched. Costs are bounded whatever the text is:
nesting beyond NESTING_LIMIT, a paragraph beyond MAX_INLINE and a text beyond MAX_DOCUMENT characters are
plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.content import Content, Span
from textual.style import Style

from infraxa.app.tui.widgets.blocks import TAB_SIZE, Block, Body, Code, Plain, Prose, Rule, Table

NESTING_LIMIT = 24
MAX_INLINE = 12_000
MAX_DOCUMENT = 200_000
BULLETS = (" • ", " ▪ ", " ‣ ", " ◦ ")

_URL = re.compile(r"https?://[^\s<>\"'`|\\^{}]*[^\s<>\"'`|\\^{}.,;:!?)\]*_~]", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_INLINE_STYLES = {"em_open": ".em", "strong_open": ".strong", "s_open": ".s"}


def _leave_long_text(state: StateCore) -> None:
    """A rule before `inline`: text of unusual length is not searched for emphasis and links."""
    for token in state.tokens:
        if token.type == "inline" and len(token.content) > MAX_INLINE:
            token.type = "long_text"


@cache
def parser() -> MarkdownIt:
    """Tables and strikethrough besides CommonMark. Bare links are found in `_inline`: linkify doubles the
    time.
    """
    markdown = MarkdownIt("gfm-like", {"linkify": False, "maxNesting": NESTING_LIMIT})
    markdown.core.ruler.before("inline", "leave_long_text", _leave_long_text)
    return markdown


def read(source: str) -> list[Block]:
    """The blocks of a whole Markdown text."""
    if len(source) > MAX_DOCUMENT:
        return [Block(Plain(source.strip("\n")))]
    return Builder(source, is_whole=True).build(parser().parse(source, {}))


def read_plain(source: str) -> list[Block]:
    """The blocks of a text in which nothing is markup."""
    text = source.expandtabs(TAB_SIZE)
    if len(text) > MAX_INLINE:
        return [Block(Plain(text))]
    return [Block(Prose(Content(text, strip_control_codes=False)))]


@dataclass
class _Container:
    """A list item or a quote that is open while blocks are built."""

    first: Content
    rest: Content
    used: bool = False


@dataclass
class _List:
    number: int | None
    """Of the next item; None for bullets."""


@dataclass
class Opened:
    """What the settled text leaves open, to read the tail as its continuation."""

    head: str = ""
    """Lines put in front of the tail: the opening line of a fence, the first two of a table."""
    code: str = ""
    """Settled lines of the open code block, with their newlines."""
    rows: list[list[Content]] = field(default_factory=list)
    number: int | None = None
    """Of the first item in the tail, when an ordered list is open."""
    is_list: bool = False
    """The tail begins with a further item of the list that is open."""
    previous: Block | None = None
    """The last settled block."""


def start_of(token: Token) -> int:
    return token.map[0] if token.map else 0


def fence_closed(token: Token, lines: Sequence[str]) -> bool:
    """Whether the fence ends with its closing line and not with the text."""
    start, end = token.map or [0, 0]
    last = lines[end - 1].strip() if end - 1 < len(lines) else ""
    return end - 1 > start and len(last) >= len(token.markup) and not last.strip(token.markup[0])


class Builder:
    """Tokens to blocks, for one text. Remembers where blocks began, for what is read again later."""

    def __init__(
        self, source: str, *, before: str = "", opened: Opened | None = None, is_whole: bool = False
    ) -> None:
        """`before`: the end of what is settled. `is_whole`: no more text comes, so nothing is open."""
        self._is_whole = is_whole
        self.lines = source.split("\n")
        self._before = before
        self._opened = opened or Opened()
        self._starts: list[int] = []
        """Line where each block's top-level item or block began."""
        self._numbers: dict[int, int] = {}
        self._blocks: list[Block] = []
        self._stack: list[_Container] = []
        self._previous: list[_Container] = []
        self._lists: list[_List] = []
        self._fresh = True

    def at(self, line: int, skip: int) -> int:
        """Characters from the first line that is not the head to `line`."""
        return sum(len(text) + 1 for text in self.lines[skip:line])

    def blocks_before(self, line: int) -> int:
        """How many blocks began before `line`."""
        return sum(1 for start in self._starts if start < line)

    def number_at(self, line: int) -> int | None:
        """The number of the top-level list item that begins at `line`."""
        return self._numbers.get(line)

    def table_at(self, line: int) -> Table | None:
        """The table that begins at `line`."""
        for start, block in zip(self._starts, self._blocks, strict=True):
            if start == line and isinstance(block.body, Table):
                return block.body
        return None

    def build(self, tokens: Sequence[Token]) -> list[Block]:
        """All blocks."""
        position = 0
        while position < len(tokens):
            end = position + 1
            while end < len(tokens) and not (tokens[end].level == 0 and tokens[end].nesting >= 0):
                end += 1
            group = tokens[position:end]
            if any(token.level >= NESTING_LIMIT - 1 for token in group):
                start, stop = group[0].map or [0, len(self.lines)]
                self._emit(Plain("\n".join(self.lines[start:stop]).rstrip()), start, top=start)
            else:
                self._build_top(group)
            position = end
        return self._blocks

    def _build_top(self, tokens: Sequence[Token]) -> None:
        top = start_of(tokens[0])
        goes_on = self._opened.is_list and not self._blocks and tokens[0].type.endswith("list_open")
        self._fresh = not goes_on
        fill = ""
        line = top
        index = 0
        while index < len(tokens):
            token = tokens[index]
            line = token.map[0] if token.map is not None and token.nesting >= 0 else line
            match token.type:
                case "bullet_list_open":
                    self._lists.append(_List(None))
                case "ordered_list_open":
                    goes_on = (
                        self._opened.is_list and self._opened.number is not None and line == 0 == token.level
                    )
                    start = self._opened.number if goes_on else int(token.attrGet("start") or 1)
                    self._lists.append(_List(start if token.attrGet("start") != 0 or goes_on else 0))
                case "bullet_list_close" | "ordered_list_close":
                    self._lists.pop()
                case "list_item_open":
                    if token.level == 1:
                        top = line
                    self._open_item(token, line)
                case "blockquote_open":
                    bar = Content.styled("▌ ", ".quote")
                    self._stack.append(_Container(bar, bar))
                case "list_item_close":
                    if not self._stack[-1].used:
                        self._emit(Prose(Content("")), line, top)
                    self._stack.pop()
                case "blockquote_close":
                    self._stack.pop()
                case "heading_open":
                    fill = token.tag
                case "heading_close":
                    fill = ""
                case "inline":
                    self._emit(Prose(_inline(token.children or []), fill), line, top)
                case "long_text":
                    self._emit(Plain(token.content), line, top)
                case "html_block":
                    self._emit(Plain(token.content.rstrip("\n")), line, top)
                case "fence" | "code_block":
                    self._code(token, line, top)
                case "hr":
                    self._emit(Rule(), line, top)
                case "table_open":
                    close = index
                    while tokens[close].type != "table_close":
                        close += 1
                    self._table(tokens[index:close], line, top)
                    index = close
            index += 1

    def _open_item(self, token: Token, line: int) -> None:
        level = self._lists[-1]
        if level.number is None:
            depth = sum(1 for each in self._lists if each.number is None) - 1
            symbol = BULLETS[depth % len(BULLETS)]
        else:
            if token.level == 1:
                self._numbers[line] = level.number
            symbol = f"{level.number}. ".rjust(4)
            level.number += 1
        self._stack.append(_Container(Content.styled(symbol, ".bullet"), Content(" " * len(symbol))))

    def _code(self, token: Token, line: int, top: int) -> None:
        code = token.content
        is_open = False
        if token.type == "fence":
            end = (token.map or [0, 0])[1]
            at_end = end >= len(self.lines) - (1 if self.lines[-1] == "" else 0)
            is_open = at_end and not self._is_whole and not fence_closed(token, self.lines)
            if line == 0 and self._opened.code:
                code = self._opened.code + code
        words = token.info.split()
        self._emit(Code(code.rstrip(), words[0] if words else "", is_open), line, top)

    def _table(self, tokens: Sequence[Token], line: int, top: int) -> None:
        head: list[Content] = []
        rows: list[list[Content]] = []
        aligns: list[str] = []
        for index, token in enumerate(tokens):
            if token.type == "tr_open":
                rows.append([])
            elif token.type in ("th_open", "td_open"):
                inline = tokens[index + 1]
                cell = (
                    _inline(inline.children or [])
                    if inline.type == "inline"
                    else Content(inline.content[:MAX_INLINE])
                )
                if token.type == "th_open":
                    style = str(token.attrGet("style") or "")
                    aligns.append(style.rpartition(":")[2] or "left")
                    head.append(cell)
                else:
                    rows[-1].append(cell)
        rows = rows[1:]
        if line == 0 and self._opened.rows:
            rows = self._opened.rows + rows
        self._emit(Table(head, rows, aligns), line, top)

    def _emit(self, body: Body, line: int, top: int) -> None:
        first: list[Content] = []
        for container in self._stack:
            first.append(container.rest if container.used else container.first)
            container.used = True
        rest = [container.rest for container in self._stack]
        block = Block(body, Content("").join(first), Content("").join(rest), self._gap(body, line))
        self._blocks.append(block)
        self._starts.append(top)
        self._previous = list(self._stack)

    def _gap(self, body: Body, line: int) -> Content | None:
        """The empty line above: before each block of the top level, around code and tables, and as in the
        text.
        """
        previous = self._blocks[-1] if self._blocks else self._opened.previous
        fresh, self._fresh = self._fresh, False
        if previous is None:
            return None
        boxed = isinstance(body, Code | Table) or isinstance(previous.body, Code | Table)
        if not (fresh or boxed or self._blank_before(line)):
            return None
        shared = 0
        for mine, before in zip(self._stack, self._previous, strict=False):
            if mine is not before:
                break
            shared += 1
        return Content("").join(container.rest for container in self._stack[:shared])

    def _blank_before(self, line: int) -> bool:
        above = self.lines[line - 1] if line > 0 else self._before.removesuffix("\n").rpartition("\n")[2]
        return not above.strip(" \t>")


def _inline(tokens: Iterable[Token]) -> Content:
    """Inline tokens as styled text. Nothing in it is markup, and what a link does is for the screen to
    decide.
    """
    parts: list[str] = []
    spans: list[Span] = []
    opened: list[tuple[int, list[str | Style]]] = []
    position = 0
    link_depth = 0

    def add(text: str) -> None:
        nonlocal position
        parts.append(text)
        position += len(text)

    def link(href: str, start: int, end: int) -> None:
        spans.append(Span(start, end, ".link"))
        spans.append(Span(start, end, Style.from_meta({"@click": f"link({href!r})"})))

    for token in tokens:
        kind = token.type
        if kind == "text":
            text = _SPACES.sub(" ", token.content)
            if not link_depth:
                for match in _URL.finditer(text):
                    link(match.group(), position + match.start(), position + match.end())
            add(text)
        elif kind == "softbreak":
            add(" ")
        elif kind == "hardbreak":
            add("\n")
        elif kind == "code_inline":
            start = position
            add(token.content)
            spans.append(Span(start, position, ".code"))
        elif kind == "html_inline":
            add("\n" if _BREAK.fullmatch(token.content) else token.content)
        elif kind == "image":
            # Nothing is fetched: the address is offered as a link.
            start = position
            add(f"[image: {token.content or token.attrGet('src')}]")
            link(str(token.attrGet("src") or ""), start, position)
        elif kind in _INLINE_STYLES:
            opened.append((position, [_INLINE_STYLES[kind]]))
        elif kind == "link_open":
            link_depth += 1
            href = str(token.attrGet("href") or "")
            opened.append((position, [".link", Style.from_meta({"@click": f"link({href!r})"})]))
        elif kind.endswith("_close") and opened:
            link_depth -= kind == "link_close"
            start, styles = opened.pop()
            spans.extend(Span(start, position, style) for style in styles)
        elif token.content:
            add(token.content)
    return Content("".join(parts), spans, strip_control_codes=False)
