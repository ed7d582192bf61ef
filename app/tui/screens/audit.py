"""The question before an answer is audited by somebody else, who would read the chat for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Button, Static

from infraxa.app.audits import AuditPlan
from infraxa.app.tui.screens.dialogs import Dialog
from infraxa.net.credits import shown


class AskReferee(Dialog[bool]):
    """Whether a referee may see the chat. None and False are both no, and so is Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
        Binding("n", "leave", "No", show=False),
    ]

    def __init__(self, plan: AuditPlan, driver: str) -> None:
        """`driver`: who gave the answer, as it is shown."""
        super().__init__()
        self._plan, self._driver = plan, driver

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("Show this chat to a referee?", classes="heading", markup=False)
            yield from self._said()
            with Horizontal(classes="buttons"):
                yield Button("Show it and audit", id="yes", compact=True)
                yield Button("No", id="no", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def _said(self) -> Iterator[Widget]:
        for text in referee_lines(self._plan, self._driver):
            yield Static(text, classes="said", markup=False)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


def referee_lines(plan: AuditPlan, driver: str) -> list[str]:
    """Why one is needed, who would see what, and what it costs at most; one paragraph each."""
    why = plan.reason or "This machine does not have the model's file."
    one = "The one other provider" if plan.referees == 1 else f"One of the {plan.referees} other providers"
    chance = "" if plan.referees == 1 else ", drawn by chance,"
    most = f"It costs {shown(plan.most)} credits at most." if plan.most else "It costs nothing."
    return [
        f"{why} {one} with the same file{chance} can audit the answer instead.",
        "It would read this chat up to the answer, and the answer, as plain text, and could keep them. It is "
        f"not told what {driver} signed. Nothing is sent unless you agree, and only for this answer.",
        most,
    ]
