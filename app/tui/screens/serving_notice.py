"""What a person is told before strangers use this machine's model for the first time."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Static

from infraxa.app.serving_notice import points
from infraxa.app.tui.actions import BY_ID, key_label
from infraxa.app.tui.screens.dialogs import Dialog
from infraxa.app.tui.widgets.text import one_line

MARK = "• "


class ServingNotice(Dialog[bool]):
    """Serve, or not now. Esc is not now; so is Enter, which may have been meant for a prompt."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
    ]
    DEFAULT_CSS = """
    ServingNotice > #dialog { width: 78; }
    ServingNotice #points { height: auto; max-height: 60vh; width: 1fr; scrollbar-size-vertical: 1; }
    ServingNotice .point { width: 1fr; height: auto; }
    ServingNotice .mark { width: 2; height: 1; }
    ServingNotice .row { width: 1fr; height: auto; }
    ServingNotice .buttons { margin-top: 1; }
    ServingNotice.-short > #dialog { padding: 0 1; }
    ServingNotice.-short #points { max-height: 70vh; }
    ServingNotice.-short .heading, ServingNotice.-short .buttons { margin: 0; }
    """

    def __init__(self, model: str, capacity: int) -> None:
        super().__init__()
        self._model, self._capacity = one_line(model, 40), capacity

    def compose(self) -> ComposeResult:
        stop = key_label(BY_ID["provide.toggle"].key)
        with Vertical(id="dialog"):
            yield Static(f"Serve {self._model} to strangers?", classes="heading", markup=False)
            with VerticalScroll(id="points", can_focus=False):
                for heading, meaning in points(self._capacity, stop):
                    with Horizontal(classes="row"):
                        yield Static(Content.styled(MARK, "$text-primary"), classes="mark")
                        said = Content.assemble((heading, "bold"), " ", (meaning, "$foreground 80%"))
                        yield Static(said, classes="point")
            with Horizontal(classes="buttons"):
                yield Button("Serve", id="yes", variant="primary", compact=True)
                yield Button("Not now", id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def action_scroll(self, lines: int) -> None:
        self.query_one("#points", VerticalScroll).scroll_relative(y=lines, animate=False)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
