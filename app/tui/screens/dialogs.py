"""Small questions over a screen: yes or no, a line of text, a path, what to do with a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from infraxa.app.tui.widgets.text import clean

T = TypeVar("T")

LINK_SCHEMES = ("http", "https", "mailto")
"""Links that may be opened; others are only shown."""


class Dialog(ModalScreen[T]):
    """A box in the middle of the screen; Esc or a click beside it leaves without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel", show=False)]
    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 70%; }
    Dialog > #dialog {
        width: 64; max-width: 95%; height: auto; max-height: 95%;
        background: $surface; padding: 1 2;
    }
    Dialog .heading { text-style: bold; color: $text-primary; width: 1fr; height: auto; margin-bottom: 1; }
    Dialog .said { width: 1fr; height: auto; margin-bottom: 1; }
    Dialog .problem { width: 1fr; height: auto; color: $text-error; display: none; }
    Dialog .problem.-shown { display: block; margin-top: 1; }
    Dialog .buttons { height: 1; width: 1fr; align-horizontal: right; }
    Dialog .buttons Button { margin-left: 2; }
    Dialog Input { margin-bottom: 1; }
    """

    def action_leave(self) -> None:
        self.dismiss(None)

    def on_click(self, event: object) -> None:
        # A click beside the box.
        if getattr(event, "widget", None) is self:
            self.action_leave()


class Confirm(Dialog[bool]):
    """A question with two answers. None and False are both no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def __init__(self, heading: str, text: str, yes: str, no: str = "Cancel") -> None:
        super().__init__()
        self._heading, self._text, self._yes, self._no = heading, text, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._heading, classes="heading", markup=False)
            yield Static(self._text, classes="said", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(self._yes, id="yes", variant="primary", compact=True)
                yield Button(self._no, id="no", compact=True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class Remove(Dialog[Literal["delete", "keep"]]):
    """Whether the file of a model that is removed goes, too."""

    def __init__(self, heading: str, text: str) -> None:
        super().__init__()
        self._heading, self._text = heading, text

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._heading, classes="heading", markup=False)
            yield Static(self._text, classes="said", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Delete the file, too", id="delete", compact=True)
                yield Button("Keep the file", id="keep", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#keep", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "delete":
            self.dismiss("delete")
        elif event.button.id == "keep":
            self.dismiss("keep")
        else:
            self.action_leave()


class Ask(Dialog[str]):
    """One line of text. `check` gives the reason why a text cannot be taken, or ""; it runs in a thread.

    A reason that starts with `confirm:` is shown once, and Enter again takes the text all the same.
    """

    def __init__(
        self,
        heading: str,
        value: str = "",
        *,
        text: str = "",
        placeholder: str = "",
        accept: str = "OK",
        check: Callable[[str], str] = lambda _: "",
    ) -> None:
        super().__init__()
        self._heading, self._value, self._text = heading, value, text
        self._placeholder, self._accept, self._check = placeholder, accept, check
        self._confirmed = ""

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._heading, classes="heading", markup=False)
            if self._text:
                yield Static(self._text, classes="said", markup=False)
            yield Input(self._value, placeholder=self._placeholder, compact=True)
            with Horizontal(classes="buttons"):
                yield Button(self._accept, id="accept", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
            yield Static("", classes="problem", markup=False)

    @on(Input.Changed)
    def _changed(self) -> None:
        self._say("")
        self._confirmed = ""

    @on(Input.Submitted)
    @on(Button.Pressed, "#accept")
    async def _accepted(self) -> None:
        value = self.query_one(Input).value.strip()
        problem = await asyncio.to_thread(self._check, value)
        if problem.startswith("confirm:") and self._confirmed != value:
            self._confirmed = value
            self._say(problem.removeprefix("confirm:"))
        elif problem and not problem.startswith("confirm:"):
            self._say(problem)
        else:
            self.dismiss(value)

    @on(Button.Pressed, "#cancel")
    def _cancelled(self) -> None:
        self.action_leave()

    def _say(self, problem: str) -> None:
        said = self.query_one(".problem", Static)
        said.update(problem)
        said.set_class(bool(problem), "-shown")


class Link(Dialog[Literal["open", "copy"]]):
    """A link of an answer, shown whole before anything is opened."""

    def __init__(self, href: str) -> None:
        super().__init__()
        self.href = safe_link(href)
        self.can_open = may_open(self.href)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("This link is from an answer", classes="heading", markup=False)
            yield Static(self.href, classes="said", markup=False, id="href")
            if not self.can_open:
                yield Static("Only http, https and mailto links are opened.", classes="said", markup=False)
            with Horizontal(classes="buttons"):
                if self.can_open:
                    yield Button("Open", id="open", compact=True)
                yield Button("Copy", id="copy", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#copy", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "open":
            self.dismiss("open")
        elif event.button.id == "copy":
            self.dismiss("copy")
        else:
            self.action_leave()


def safe_link(href: str) -> str:
    """The link without control characters, line breaks and overrides of direction."""
    return "".join(clean(href).split())


def may_open(href: str) -> bool:
    """Whether a program may be started for it."""
    try:
        return urlsplit(href).scheme.lower() in LINK_SCHEMES
    except ValueError:
        return False
