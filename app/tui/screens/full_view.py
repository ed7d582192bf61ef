"""What the full-screen views besides the chat have in common: a second that passes, the shared status bar,
and, where they have parts under headings, the way from one part to the next.

What is in a view, and how it is painted, is its own business. Textual calls the `on_…` of each class of a
screen, the own one first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer

from infraxa.app.events import Event
from infraxa.app.tui.terminal import tell_too_small
from infraxa.app.tui.widgets.sections import Section
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Column, Table

if TYPE_CHECKING:
    from infraxa.app.tui.app import InfraxaApp


class FullView(Screen[None]):
    """Made once; it stays, with its order and cursors, while another view is shown. It has a StatusBar."""

    app: InfraxaApp
    TICK: ClassVar[float] = 1.0
    """Seconds between two `_tick`, while it is seen."""

    def __init__(self) -> None:
        super().__init__()
        self._ticking: Timer | None = None
        self._had_node = True

    def on_mount(self) -> None:
        self.query_one(StatusBar).follow(self.app.chat_screen.query_one(StatusBar))
        self.app.told.subscribe(self, self._hear)
        self._ticking = self.set_interval(self.TICK, self._tick, pause=True)

    def on_screen_resume(self) -> None:
        """It is seen again: let the seconds run."""
        if self._ticking is not None:
            self._ticking.resume()

    def on_screen_suspend(self) -> None:
        """Nobody looks."""
        if self._ticking is not None:
            self._ticking.pause()

    def on_resize(self) -> None:
        tell_too_small(self)

    def _hear(self, event: Event) -> None:
        """Node says something."""
        raise NotImplementedError

    def _tick(self) -> None:
        """A second has passed."""
        raise NotImplementedError

    def _node_is_another(self) -> bool:
        """Whether the node was lost, or is there again, since the last time that this was asked."""
        changed = self.app.opened != self._had_node
        self._had_node = self.app.opened
        return changed


class SectionedView(FullView):
    """Its parts stand under headings. A wide screen shows all, a narrow one the part that is open.

    In its `compose`, `#tables` holds the parts but for BESIDE; each is a Section with the part's name as id.
    """

    PARTS: ClassVar[tuple[str, ...]] = ()
    BESIDE: ClassVar[str] = ""
    """The part that a wide screen shows beside the others."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.chat", "Chat", show=False),
        Binding("tab", "part(1)", "Next part", show=False),
        Binding("shift+tab", "part(-1)", "Part before", show=False),
    ]

    def _paint_headings(self) -> None:
        raise NotImplementedError

    def _paint_detail(self) -> None:
        """All of what is under the cursor."""
        raise NotImplementedError

    def _table(self, columns: Sequence[Column], empty: str, *, sort_by: int = 0) -> Table:
        table = Table(columns, empty=empty, sort_by=sort_by)
        table.add_class("part-body")
        return table

    def _section(self, part: str) -> Section:
        return self.query_one(f"#{part}", Section)

    def _under_cursor(self) -> object:
        """What the row under the cursor is a row of."""
        row = self.focused.highlighted if isinstance(self.focused, Table) else None
        return row.of if row is not None else None

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        for part in self.PARTS:
            if self._section(part) in event.widget.ancestors:
                self._open(part)
        self._paint_detail()

    def _open(self, part: str) -> None:
        for each in self.PARTS:
            self._section(each).set_class(each == part, "-open")
        self.query_one("#tables").set_class(part != self.BESIDE, "-open")
        self._paint_headings()

    def action_open(self, part: str) -> None:
        """Go to a part, which a narrow screen then shows."""
        self._open(part)
        self.call_after_refresh(self._section(part).body.focus)

    def action_part(self, step: int) -> None:
        """Go to the next part, or the one before."""
        shown = next(at for at, part in enumerate(self.PARTS) if self._section(part).has_class("-open"))
        self.action_open(self.PARTS[(shown + step) % len(self.PARTS)])

    def action_sort(self) -> None:
        """Sort the table that has the focus by its next column."""
        if isinstance(self.focused, Table):
            self.focused.action_sort()
