"""Markdown text that grows, read into blocks: only what new text can still change is read again.

The text before `_tail` is settled: complete blocks, complete items of the list that is open, complete lines
of the code block that is open, complete rows of the table that is open. Each append reads from there, with
the line or two put in front that make a fence or a table of it. `read` reads a whole text at once;
`Document.finish` replaces what was read in pieces by that, so that nothing which only the end decides
(reference links) is missed.

A tail longer than MAX_INLINE is shown as it is until it may be complete: what an append costs is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it.token import Token
from textual.content import Content

from infraxa.app.tui.widgets.blocks import Block, Plain
from infraxa.app.tui.widgets.marks import Place, place, put
from infraxa.app.tui.widgets.reading import (
    MAX_DOCUMENT,
    MAX_INLINE,
    Builder,
    Opened,
    fence_closed,
    parser,
    read,
    read_plain,
    start_of,
)


class Document:
    """A text and its blocks. `append` and `finish` return the index of the first block that changed."""

    def __init__(self, source: str = "", *, plain: bool = False) -> None:
        self._read = read_plain if plain else read
        self.source = ""
        self.blocks: list[Block] = []
        self._tail = 0
        self._settled = 0
        self._opened = Opened()
        self._read_at = MAX_INLINE
        """Length of the tail when it was last read, once it is long."""
        self._links: dict[str, Any] = {}
        self.marks: tuple[tuple[int, str], ...] = ()
        """Where somebody else goes on, in characters of the source, and what is said there; in order."""
        self._places: list[Place] = []
        if source:
            self.replace(source)

    def replace(self, source: str) -> int:
        """Another whole text, without marks."""
        self.source = source
        self.set_marks(())
        changed = self._show(0, self._read(source))
        self._tail = len(source)
        return changed

    def finish(self, blocks: list[Block] | None = None) -> int:
        """The text is complete; `blocks` is what `read` made of it, when that was done elsewhere."""
        return self._show(0, self._read(self.source) if blocks is None else blocks)

    def set_marks(self, marks: Sequence[tuple[int, str]]) -> int:
        """Mark these places, and no others. They are no part of the text."""
        if tuple(marks) == self.marks:
            return len(self.blocks)
        self.marks = tuple(marks)
        changed = {each.block for each in self._places}
        self._places = [place(self.source[:at], label) for at, label in marks]
        changed |= {each.block for each in self._places}
        for index in changed:
            if index < len(self.blocks):
                self.blocks[index] = put(self.blocks[index], index, self._places)
        return min(changed, default=len(self.blocks))

    def append(self, text: str) -> int:
        """More text at the end."""
        self.source += text
        tail = self.source[self._tail :]
        if len(self.source) > MAX_DOCUMENT:
            return self._show(0, read(self.source))
        if not self._worth_reading(text, tail):
            gap = Content("") if self._settled else None
            return self._show(self._settled, [Block(Plain(tail.rstrip("\n")), gap=gap)])
        opened = self._opened
        before = self.source[max(0, self._tail - 400) : self._tail]
        opened.previous = self.blocks[self._settled - 1] if self._settled else None
        builder = Builder(opened.head + tail, before=before, opened=opened)
        tokens = parser().parse(opened.head + tail, self._links)
        blocks = builder.build(tokens)
        changed = self._show(self._settled, blocks)
        self._settle(tokens, builder)
        return changed

    def _worth_reading(self, text: str, tail: str) -> bool:
        """Whether to read the tail now: a long one is read again when it may have ended, or has doubled."""
        if len(tail) <= MAX_INLINE or self._opened.head:
            self._read_at = MAX_INLINE
            return True
        if "\n\n" in self.source[-len(text) - 1 :] or len(tail) >= 2 * self._read_at:
            self._read_at = len(tail)
            return True
        return False

    def _show(self, start: int, blocks: list[Block]) -> int:
        """Put `blocks` from index `start` on; those that look the same stay the same objects."""
        old = self.blocks
        first = start
        for block in blocks:
            if first >= len(old) or not old[first].same(block):
                break
            first += 1
        self.blocks = old[:first] + blocks[first - start :]
        for index in {each.block for each in self._places}:
            if first <= index < len(self.blocks):
                self.blocks[index] = put(self.blocks[index], index, self._places)
        return first

    def _settle(self, tokens: Sequence[Token], builder: Builder) -> None:
        """Move the tail on to what more text can still change."""
        opened = self._opened
        lines = builder.lines
        complete = len(lines) - 1
        """Lines that end with a newline; the last piece of the split never does."""
        skip = opened.head.count("\n")
        tops = [
            token for token in tokens if token.level == 0 and token.map is not None and token.nesting >= 0
        ]
        # A block may turn into another one until its first line is complete; a table, its first two.
        tops = [top for top in tops if start_of(top) + (2 if top.type == "table_open" else 1) <= complete]
        if not tops:
            return
        last = tops[-1]
        start, end = last.map or [0, 0]
        goes_on = len(tops) == 1 and start == 0
        if last.type in ("bullet_list_open", "ordered_list_open"):
            self._settle_list(tokens, last, builder, complete, goes_on)
        elif last.type == "fence" and end >= complete and not fence_closed(last, lines):
            # `complete` may be the line with the opening fence itself.
            if (ready := complete) > start + 1 or not goes_on:
                code = opened.code if goes_on else ""
                body_start = max(start + 1, skip if goes_on else 0)
                indent = len(lines[start]) - len(lines[start].lstrip(" "))
                code += "".join(_unindent(line, indent) + "\n" for line in lines[body_start:ready])
                self._advance(builder.at(ready, skip), builder.blocks_before(start))
                self._opened = Opened(head=lines[start] + "\n", code=code)
        elif last.type == "table_open" and end >= complete:
            self._settle_table(last, builder, complete, goes_on)
        elif start > 0 and start >= skip:
            self._advance(builder.at(start, skip), builder.blocks_before(start))
            self._opened = Opened()

    def _settle_list(
        self, tokens: Sequence[Token], last: Token, builder: Builder, complete: int, goes_on: bool
    ) -> None:
        items = [
            token
            for token in tokens[tokens.index(last) :]
            if token.type == "list_item_open" and token.level == 1 and start_of(token) + 1 <= complete
        ]
        skip = self._opened.head.count("\n")
        if not items or start_of(items[-1]) < skip:
            return
        start = start_of(items[-1])
        if start == 0 and goes_on:
            return
        number = builder.number_at(start)
        self._advance(builder.at(start, skip), builder.blocks_before(start))
        self._opened = Opened(number=number, is_list=not (start == start_of(last) and not goes_on))

    def _settle_table(self, last: Token, builder: Builder, complete: int, goes_on: bool) -> None:
        start, end = last.map or [0, 0]
        skip = self._opened.head.count("\n")
        ready = min(complete, end)
        table = builder.table_at(start)
        first_row = start + 2
        if table is None or (goes_on and ready <= max(first_row, skip)):
            return
        settled = max(0, ready - max(first_row, skip if goes_on else 0))
        kept = (len(self._opened.rows) if goes_on else 0) + settled
        head = "".join(line + "\n" for line in builder.lines[start:first_row])
        self._advance(builder.at(ready, skip), builder.blocks_before(start))
        self._opened = Opened(head=head, rows=table.rows[:kept])

    def _advance(self, by: int, blocks: int) -> None:
        self._tail += by
        self._settled += blocks


def _unindent(line: str, indent: int) -> str:
    """A line of code without the spaces that its fence has before it."""
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]
