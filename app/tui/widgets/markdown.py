"""A message as one widget, painted line by line: Markdown that may grow, with a line above it and some below.

Textual's own Markdown mounts a widget for each paragraph, item and cell: every frame then pays for hundreds
of widgets, and an append rebuilds the block it falls in. Here a text is a list of blocks (`document.py`);
the widget knows the height of each, and makes a line when the compositor asks for it. So opening a chat
costs the parsing, an append costs the open block, and code is coloured when it is first seen.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Region, Size
from textual.highlight import ANSIDarkHighlightTheme, ANSILightHighlightTheme, HighlightTheme
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from infraxa.app.tui.widgets.blocks import COPY, Block, Code, Line, Prose
from infraxa.app.tui.widgets.document import Document
from infraxa.app.tui.widgets.reading import read

READ_IN_THREAD = 24_000
"""Characters from which on a finished text is read again in a thread, so that no key press waits for it."""


class MarkdownView(Widget):
    """Shows Markdown that may grow. Text can be selected; links and code blocks can be clicked."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("em", "strong", "s", "code", "link", "bullet", "quote", "rule"),
        *("h1", "h2", "h3", "h4", "h5", "h6"),
        *("fence", "fence-label", "fence-copy", "table-head", "table-line", "moved"),
    }
    DEFAULT_CSS = """
    MarkdownView {
        height: auto;
        width: 1fr;
        & > .em { text-style: italic; }
        & > .strong { text-style: bold; }
        & > .s { text-style: strike; }
        & > .code { color: $text-warning; background: $warning 10%; }
        & > .link { color: $text-accent; text-style: underline; }
        & > .bullet { color: $text-primary; }
        & > .quote { color: $primary-lighten-1 60%; }
        & > .rule { color: $foreground 20%; }
        & > .h1 { color: $text-primary; text-style: bold underline; }
        & > .h2 { color: $text-primary; text-style: bold; }
        & > .h3 { color: $text-accent; text-style: bold; }
        & > .h4, & > .h5, & > .h6 { color: $text-accent; text-style: italic; }
        & > .fence { background: $foreground 6%; }
        & > .fence-label { color: $foreground 60%; }
        & > .fence-copy { color: $foreground 60%; text-style: underline; }
        & > .table-head { color: $text-primary; text-style: bold; }
        & > .table-line { color: $foreground 25%; }
        & > .moved { color: $text-accent; background: $accent 12%; text-style: italic; }
    }
    """

    class LinkClicked(Message):
        """A link was clicked; nothing was opened."""

        def __init__(self, href: str) -> None:
            super().__init__()
            self.href = href

    class CodeCopied(Message):
        """The word `copy` of a code block was clicked."""

        def __init__(self, code: str) -> None:
            super().__init__()
            self.code = code

    def __init__(self, source: str = "", *, plain: bool = False, classes: str | None = None) -> None:
        """With `plain`, nothing in the text is markup."""
        super().__init__(classes=classes)
        self.document = Document(source, plain=plain)
        self._head: list[Block] = []
        self._foot: list[Block] = []
        self._tops: list[int] = []
        """First line of each block at `_laid_out` cells, and the height of all at the end."""
        self._laid_out = -1
        self._strips: dict[int, Strip] = {}
        self._base = Style()
        """The style that the strips were painted on."""
        self._parsed_styles: dict[str | Style, Style] = {}

    @property
    def source(self) -> str:
        """The Markdown that is shown."""
        return self.document.source

    @property
    def codes(self) -> list[str]:
        """The code of all code blocks."""
        return [block.body.code for block in self.document.blocks if isinstance(block.body, Code)]

    def append(self, text: str) -> None:
        """More text at the end."""
        self._changed(len(self._head) + self.document.append(text))

    def replace(self, source: str) -> None:
        """Another text."""
        self._changed(len(self._head) + self.document.replace(source))

    def set_marks(self, marks: Sequence[tuple[int, str]]) -> None:
        """Lines that say who goes on: after how many characters of the source, and what is said."""
        self._changed(len(self._head) + self.document.set_marks(marks))

    def set_head(self, content: Content) -> None:
        """What stands above the text."""
        if self._set_frame(self._head, content):
            self._changed(0)

    def set_foot(self, content: Content) -> None:
        """What stands below the text."""
        if self._set_frame(self._foot, content):
            self._changed(len(self._head) + len(self.document.blocks))

    def _set_frame(self, blocks: list[Block], content: Content) -> bool:
        new = [Block(Prose(content))] if content.plain else []
        if len(new) == len(blocks) and all(a.same(b) for a, b in zip(blocks, new, strict=True)):
            return False
        blocks[:] = new
        return True

    @property
    def _blocks(self) -> list[Block]:
        return [*self._head, *self.document.blocks, *self._foot]

    def _is_text(self, index: int) -> bool:
        """Whether a block belongs to the text, and not to what stands around it."""
        return len(self._head) <= index < len(self._tops) - 1 - len(self._foot)

    async def finish(self) -> None:
        """The text is complete: what is shown becomes what reading it at once gives, code in colours."""
        source = self.document.source
        if len(source) > READ_IN_THREAD:
            blocks = await asyncio.to_thread(read, source)
        else:
            blocks = read(source)
        if source == self.document.source:
            self._changed(len(self._head) + self.document.finish(blocks))

    def _changed(self, first: int) -> None:
        """Blocks from index `first` on are others: paint and, when the height changed, lay out again."""
        width, height = self.content_size
        if not width or width != self._laid_out or not self.is_attached:  # measured for another width since
            self._laid_out = -1
            self.refresh(layout=True)
            return
        first = min(first, len(self._tops) - 1)
        top, bottom = self._tops[first], self._tops[-1]
        self._place(first, width)
        for y in [y for y in self._strips if y >= top]:
            del self._strips[y]
        bottom = max(bottom, self._tops[-1])
        self.refresh(Region(0, top, width, max(1, bottom - top)), layout=height != self._tops[-1])

    def _place(self, first: int, width: int) -> None:
        """Find where the blocks from index `first` on begin."""
        tops = self._tops[: first + 1] or [0]
        for block in self._blocks[first:]:
            tops.append(tops[-1] + block.height(width))
        self._tops = tops
        self._laid_out = width

    def _lay_out(self, width: int) -> None:
        if width != self._laid_out:
            self._strips.clear()
            self._tops = [0]
            self._place(0, width)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if not width:
            return 0
        self._lay_out(width)
        return self._tops[-1]

    def notify_style_update(self) -> None:
        self._strips.clear()
        self._parsed_styles.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        if not width:
            return Strip.blank(0)
        base = self.visual_style
        self._lay_out(width)
        if y >= self._tops[-1]:
            return Strip.blank(width, base.rich_style)
        if base != self._base:
            self._base = base
            self._strips.clear()
        index = bisect_right(self._tops, y) - 1
        selection = self.text_selection
        if selection is not None and self._is_text(index) and (span := selection.get_span(y)) is not None:
            return self._paint(index, y, width, span)
        strip = self._strips.get(y)
        if strip is None:
            strip = self._strips[y] = self._paint(index, y, width, None)
        return strip

    def _line(self, index: int, y: int, width: int) -> tuple[Content, Line]:
        block = self._blocks[index]
        return block.line(width, y - self._tops[index], self._highlight_theme)

    def _paint(self, index: int, y: int, width: int, selected: tuple[int, int] | None) -> Strip:
        prefix, line = self._line(index, y, width)
        content = line.content.stylize_before(f".{line.fill}") if line.fill else line.content
        if line.copy_at is not None:
            click = Style.from_meta({"@click": f"copy_code_block({index - len(self._head)})"})
            content = content.stylize(click, line.copy_at, line.copy_at + len(COPY))
        if prefix:
            content = prefix + content
        if selected is not None:
            start, end = selected
            style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(style, start, None if end == -1 else end)
        segments: list[Segment] = []
        x = 0
        for text, style in content.render(self._base, end="", parse_style=self._style):
            segments.append(Segment(text, (self._base + style).rich_style_with_offset(x, y)))
            x += len(text)
        fill = self._base + self._style(f".{line.fill}") if line.fill else self._base
        return Strip(segments, content.cell_length).adjust_cell_length(width, fill.rich_style)

    @property
    def _highlight_theme(self) -> type[HighlightTheme]:
        if not self.app.native_ansi_color:
            return HighlightTheme
        return ANSIDarkHighlightTheme if self.app.current_theme.dark else ANSILightHighlightTheme

    def _style(self, style: str | Style) -> Style:
        """What a style's name means in this theme."""
        found = self._parsed_styles.get(style)
        if found is None:
            if isinstance(style, Style):
                found = style
            elif style.startswith("."):
                found = self.get_visual_style(style[1:], partial=True)
            else:
                found = Style.parse(style)
            self._parsed_styles[style] = found
        return found

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected; lines that only the width broke are joined again."""
        if self._laid_out < 0:
            return None
        parts: list[str] = []
        joined = False
        for y in range(self._tops[-1]):
            index = bisect_right(self._tops, y) - 1
            span = selection.get_span(y)
            if span is None or not self._is_text(index):
                continue
            prefix, line = self._line(index, y, self._laid_out)
            if line.aside:
                continue
            # Code stands one cell from the edge of its block.
            skip = len(prefix.plain) + (line.fill == "fence") if joined else 0
            start, end = span
            text = prefix.plain + line.content.plain
            parts.append(text[max(start, skip) :] + line.join if end == -1 else text[max(start, skip) : end])
            joined = line.join != "\n"
        return ("".join(parts).removesuffix("\n"), "\n") if parts else None

    def action_link(self, href: str) -> None:
        self.post_message(self.LinkClicked(href))

    def action_copy_code_block(self, block: int) -> None:
        body = self.document.blocks[block].body if block < len(self.document.blocks) else None
        if isinstance(body, Code):
            self.post_message(self.CodeCopied(body.code))
