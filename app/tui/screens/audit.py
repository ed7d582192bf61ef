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

from infraxa.app.audit_values import MOST_REFEREES, AuditPlan
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
    most = min(plan.referees, MOST_REFEREES)
    if most == 1:
        who = "Another provider with the same file can audit the answer."
        read = (
            "It would read this chat up to the answer, and the answer, as plain text, and could keep them. "
        )
        told = "It is not told what"
    else:
        who = (
            f"One of {plan.referees} other providers with the same file, drawn by chance, can audit the "
            f"answer. Where it finds a lie, or fails, another one is asked: {most} at most."
        )
        read = (
            "Each would read this chat up to the answer, and the answer, as plain text, and could keep them. "
        )
        told = "None is told what"
    cost = f"{'It costs' if most == 1 else 'Together they cost'} {shown(plan.most)} credits at most."
    return [
        f"{why} {who}",
        f"{read}{told} {driver} signed. Nothing is sent unless you agree, and only for this answer.",
        cost if plan.most else "It costs nothing.",
    ]
