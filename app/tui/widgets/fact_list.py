"""Facts one under the other, some of which can be changed where they stand: a list with a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from infraxa.app.tui.widgets.rows import PaintedRows

NAME = 12
"""Cells of the names of the facts."""
CAN_CHANGE = " ›"


@dataclass(frozen=True)
class Fact:
    """One line. Without a name it is a heading, a bar or a gap, where the cursor does not rest."""

    name: str = ""
    value: str | Content = ""
    style: str = ""
    """Of the value."""
    setting: str = ""
    """What Enter changes; empty: nothing."""
    help: str = ""
    """One sentence."""
    change: str = ""
    """What Enter does, and when that takes effect."""


class FactList(PaintedRows[Fact]):
    """↑ ↓ move, Enter or a click changes what can be changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "facts--name", "facts--mark", "facts--cursor", "facts--hover",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "choose", "Change", show=False)]
    DEFAULT_CSS = """
    FactList { height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    FactList > .facts--name { color: $foreground 60%; }
    FactList > .facts--mark { color: $footer-key-foreground; }
    FactList > .facts--cursor {
        background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold;
    }
    FactList > .facts--hover { background: $block-hover-background; }
    """

    @dataclass
    class Moved(Message):
        """Another fact, or the same one with another value, is under the cursor."""

        facts: FactList

    @dataclass
    class Chosen(Message):
        """This fact is to be changed."""

        fact: Fact

    def show(self, facts: Sequence[Fact]) -> None:
        """Show these; the cursor stays on its fact."""
        under = self.highlighted
        changed = len(facts) != len(self._rows)
        self._rows = list(facts)
        names = [fact.name for fact in facts]
        place = names.index(under.name) if under is not None and under.name in names else self.cursor
        self.set_reactive(FactList.cursor, place)
        if not self._can_rest(place):
            self.action_move(1)
        self.virtual_size = Size(self.size.width, len(self._rows))
        self.refresh(layout=changed)
        self.post_message(self.Moved(self))

    def _can_rest(self, at: int) -> bool:
        return 0 <= at < len(self._rows) and bool(self._rows[at].name)

    def action_move(self, rows: int) -> None:
        """Move to the fact so many lines away, or to the nearest one before it."""
        step = 1 if rows > 0 else -1
        last = len(self._rows) - 1
        wanted = max(0, min(last, self.cursor + rows))
        places = [at for at in range(len(self._rows)) if self._can_rest(at) and (at - self.cursor) * step > 0]
        if not places:
            self.scroll_to(y=0 if step < 0 else self.virtual_size.height, animate=False)
            return
        self.cursor = min(places, key=lambda at: (abs(at - wanted), -at * step))

    def watch_cursor(self) -> None:
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(self))

    def action_choose(self) -> None:
        """Ask for another value of the fact under the cursor."""
        fact = self.highlighted
        if fact is not None and fact.setting:
            self.post_message(self.Chosen(fact))

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        at = y + self.scroll_offset.y
        base = self.visual_style
        if at >= len(self._rows):
            return self._strip(Content(""), width, base)
        fact = self._rows[at]
        under = self.has_focus and at == self.cursor and bool(fact.name)
        if under:
            base = self.get_visual_style("facts--cursor")
        elif at == self.hovered and fact.setting:
            base = self.get_visual_style("facts--hover")
        return self._strip(self._line(fact, width, plain=under), width, base)

    def _line(self, fact: Fact, width: int, *, plain: bool) -> Content:
        mark = CAN_CHANGE if fact.setting else ""
        value = fact.value if isinstance(fact.value, Content) else Content(fact.value)
        if fact.style:
            value = value.stylize_before(fact.style)
        name = f"{fact.name:<{NAME}}" if fact.name else ""
        room = max(1, width - len(name) - len(mark))
        value = value.truncate(room, ellipsis=True)
        if plain:
            return Content(f"{name}{value.plain}{mark}")
        return Content.assemble((name, ".facts--name"), value, (mark, ".facts--mark"))

    def row_at(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        at = offset.y + self.scroll_offset.y if offset is not None else None
        return at if at is not None and at < len(self._rows) else None

    def on_click(self, event: events.Click) -> None:
        at = self.row_at(event)
        if at is not None and self._can_rest(at):
            self.cursor = at
            self.action_choose()
