"""The list of chats, or of what a search found: lines painted when seen, so that thousands cost nothing.

It shows what it is given and says what was chosen; finding, renaming and deleting are done elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from infraxa.app.tui.widgets.rows import PaintedRows
from infraxa.app.tui.widgets.text import one_line
from infraxa.store.records import ChatSummary, SearchHit

UNTITLED = "New chat"
_MATCH = re.compile("\ue000(.*?)\ue001", re.DOTALL)

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000


def age(now: int, then: int) -> str:
    """How long ago, in at most five cells. Both in milliseconds."""
    passed = max(0, now - then)
    if passed < _MINUTE:
        return "now"
    if passed < _HOUR:
        return f"{passed // _MINUTE} m"
    if passed < _DAY:
        return f"{passed // _HOUR} h"
    if passed < 100 * _DAY:
        return f"{passed // _DAY} d"
    return f"{passed // (365 * _DAY)} y" if passed >= 365 * _DAY else f"{passed // (30 * _DAY)} mo"


def marked(snippet: str, style: str) -> Content:
    """A snippet of the search on one line, the match in `style`."""
    parts: list[Content | tuple[str, str]] = []
    end = 0
    for match in _MATCH.finditer(snippet):
        parts += [Content(_flat(snippet[end : match.start()])), (_flat(match[1]), style)]
        end = match.end()
    parts.append(Content(_flat(snippet[end:])))
    return Content.assemble(*parts)


def _flat(text: str) -> str:
    """Cleaned and on one line, with the spaces at its ends, which separate it from its neighbours."""
    inner = one_line(text, len(text) + 1)
    if not inner:
        return " " if text else ""
    return (" " if text[0].isspace() else "") + inner + (" " if text[-1].isspace() else "")


@dataclass(frozen=True)
class Row:
    """One entry: a chat, or a place in it."""

    chat_id: str
    title: Content
    aside: str = ""
    """At the right end of the first line."""
    second: Content | None = None
    """Its second line, if it has one."""
    message_id: str | None = None

    @property
    def height(self) -> int:
        return 1 if self.second is None else 2


class ChatList(PaintedRows[Row]):
    """Chats, newest first, or search hits. Up and down move, Enter or a click opens, Delete asks for it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chat-list--current",
        "chat-list--cursor",
        "chat-list--hover",
        "chat-list--aside",
        "chat-list--match",
        "chat-list--busy",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "open", "Open", show=False),
        Binding("delete", "delete", "Delete", show=False),
    ]

    current: reactive[str | None] = reactive(None)
    """The chat that is shown."""

    @dataclass
    class Opened(Message):
        """A row was chosen."""

        chat_id: str
        message_id: str | None

    @dataclass
    class DeleteRequested(Message):
        """The chat under the cursor is to be deleted."""

        chat_id: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._starts: list[tuple[int, int]] = []
        """For each line: the row and the line in it."""
        self._empty = ""
        self._searching = False
        """Hits are shown: several rows may be of one chat."""
        self._busy: frozenset[str] = frozenset()

    def show_chats(self, chats: Iterable[ChatSummary], now: int) -> None:
        """The chats in the order they are given; `now` in milliseconds."""
        rows = [
            Row(chat.id, Content(one_line(chat.title) or UNTITLED), age(now, chat.updated_at))
            for chat in chats
        ]
        self._searching = False
        self._show(rows, "No chats yet.")

    def show_hits(self, hits: Iterable[SearchHit], words: str) -> None:
        """What was found for `words`."""
        rows: list[Row] = []
        for hit in hits:
            if hit.message_id is None:
                title, second = marked(hit.snippet, ".chat-list--match"), None
            else:
                title = Content(one_line(hit.chat_title) or UNTITLED)
                second = marked(hit.snippet, ".chat-list--match")
            rows.append(Row(hit.chat_id, title, second=second, message_id=hit.message_id))
        self._searching = True
        self._show(rows, f"Nothing found for “{one_line(words, 40)}”.")

    def show_busy(self, chat_ids: Iterable[str]) -> None:
        """Mark the chats that are being answered."""
        busy = frozenset(chat_ids)
        if busy != self._busy:
            self._busy = busy
            self.refresh()

    def _show(self, rows: list[Row], empty: str) -> None:
        under = self.highlighted
        self._rows = rows
        self._empty = empty
        self._starts = [(index, line) for index, row in enumerate(rows) for line in range(row.height)]
        self.virtual_size = Size(self.scrollable_content_region.width, max(1, len(self._starts)))
        # The selection stays on its chat when the list is another one.
        same = (
            index
            for index, row in enumerate(rows)
            if under is not None and (row.chat_id, row.message_id) == (under.chat_id, under.message_id)
        )
        self.set_reactive(ChatList.cursor, next(same, 0))
        self.refresh()

    def watch_cursor(self) -> None:
        self._reveal()
        self.refresh()

    def watch_current(self) -> None:
        self.go_to_current()
        self.refresh()

    def go_to_current(self) -> None:
        """Put the cursor on the chat that is shown."""
        for index, row in enumerate(self._rows):
            if row.chat_id == self.current and (row.message_id is None or self.highlighted is None):
                self.cursor = index
                break

    def on_resize(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, max(1, len(self._starts)))

    def _reveal(self) -> None:
        row = self.highlighted
        if row is not None:
            line = self._starts.index((self.cursor, 0))
            self.scroll_to_region(Region(0, line, 1, row.height), animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.visual_style
        line = y + self.scroll_offset.y
        if line >= len(self._starts):
            text = self._empty if not self._rows and y == 0 else ""
            return self._strip(Content(f"  {text}").stylize(".chat-list--aside"), width, base)
        index, part = self._starts[line]
        row = self._rows[index]
        if self.has_focus and index == self.cursor:
            base = self.get_visual_style("chat-list--cursor")
        elif row.chat_id == self.current and not self._searching:
            base = self.get_visual_style("chat-list--current")
        elif index == self.hovered:
            base = self.get_visual_style("chat-list--hover")
        return self._strip(self._line(row, part, width), width, base)

    def _line(self, row: Row, part: int, width: int) -> Content:
        if part == 1 and row.second is not None:
            return (
                Content.assemble("    ", row.second)
                .stylize_before(".chat-list--aside")
                .truncate(width - 1, ellipsis=True)
            )
        # A mark besides the colour: it is seen without colours too.
        mark: Content | tuple[str, str] = Content(
            "▌ " if row.chat_id == self.current and not self._searching else "  "
        )
        aside = row.aside
        if row.chat_id in self._busy:
            aside = "●"
        room = max(4, width - 2 - len(aside) - 2)
        title = row.title.truncate(room, ellipsis=True)
        gap = " " * max(1, width - 3 - title.cell_length - len(aside))
        style = ".chat-list--busy" if aside == "●" else ".chat-list--aside"
        return Content.assemble(mark, title, gap, (aside, style), " ")

    def action_open(self) -> None:
        if (row := self.highlighted) is not None:
            self.post_message(self.Opened(row.chat_id, row.message_id))

    def action_delete(self) -> None:
        if (row := self.highlighted) is not None:
            self.post_message(self.DeleteRequested(row.chat_id))

    def row_at(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        if offset is None:
            return None
        line = offset.y + self.scroll_offset.y
        return self._starts[line][0] if line < len(self._starts) else None

    def on_click(self, event: events.Click) -> None:
        index = self.row_at(event)
        if index is not None:
            self.cursor = index
            self.action_open()
