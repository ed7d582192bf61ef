"""What the views over the chat have in common: a heading, a body, a line of keys, Esc to close."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from infraxa.app.tui.app import InfraxaApp

T = TypeVar("T")


class View(ModalScreen[T]):
    """A view over the chat, which stays in sight around it where there is room."""

    app: InfraxaApp
    HEADING: ClassVar[str] = ""
    KEYS: ClassVar[str] = "Esc closes"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close", show=False)]
    DEFAULT_CSS = """
    View { align: center middle; background: $background 70%; }
    View > #view { width: 96; max-width: 100%; height: 85%; background: $surface; padding: 1 2; }
    View #view-heading { height: 1; width: 1fr; text-style: bold; color: $text-primary; margin-bottom: 1; }
    View #view-keys { height: 1; width: 1fr; color: $text-muted; margin-top: 1; }
    View .problem { color: $text-error; }
    View .muted { color: $text-muted; }
    View.-narrow > #view, View.-too-narrow > #view { height: 100%; padding: 0 1; }
    View.-short > #view, View.-too-low > #view { height: 100%; padding: 0 1; }
    View.-short #view-heading, View.-short #view-keys { margin: 0; }
    """

    def __init__(self) -> None:
        super().__init__(classes="-view")

    def compose(self) -> ComposeResult:
        with Vertical(id="view"):
            yield Static(self.heading, id="view-heading", markup=False)
            yield from self.compose_body()
            yield Static(Content(self.KEYS), id="view-keys", markup=False)

    @property
    def heading(self) -> str:
        """What stands at the top."""
        return self.HEADING

    def compose_body(self) -> ComposeResult:
        """What stands between the heading and the line of keys."""
        raise NotImplementedError

    def action_close(self) -> None:
        self.dismiss(None)

    def on_click(self, event: object) -> None:
        # A click beside the view.
        if getattr(event, "widget", None) is self:
            self.action_close()
