"""What an empty conversation shows: what infraxa is, and questions to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from infraxa.app.tui.actions import BY_METHOD, key_label
from infraxa.app.tui.widgets.driver import Driver

QUESTIONS = ("What is infraxa?", "What is a driver?", "How do I add a real model?")


class Question(Static, can_focus=True):
    """A question that is asked by a click or Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "ask", "Ask", show=False),
        Binding("up", "app.focus_previous", "Up", show=False),
        Binding("down", "app.focus_next", "Down", show=False),
    ]

    @dataclass
    class Asked(Message):
        """The question was chosen."""

        text: str

    def __init__(self, text: str) -> None:
        super().__init__(Content.assemble(("› ", "$text-primary"), text), markup=False)
        self.text = text

    def action_ask(self) -> None:
        self.post_message(self.Asked(self.text))

    def on_click(self) -> None:
        self.action_ask()


class Welcome(VerticalScroll, can_focus=False):
    """Shown until the first message."""

    DEFAULT_CSS = """
    Welcome { align: center middle; padding: 0 2; }
    Welcome #welcome-body { width: 100%; max-width: 64; height: auto; }
    Welcome Static { width: 1fr; height: auto; }
    Welcome Question { padding: 0 1; margin: 0; }
    Welcome Question:hover { background: $block-hover-background; }
    Welcome Question:focus { background: $block-cursor-background; color: $block-cursor-foreground; }
    Welcome .gap { margin-bottom: 1; }
    """

    builtin: reactive[bool] = reactive(True, init=False)
    """The built-in guide answers here."""
    driver: reactive[Driver] = reactive(Driver, init=False)
    """Who answers what is asked first."""

    def compose(self) -> ComposeResult:
        with Vertical(id="welcome-body"):
            yield Static(Content.styled("infraxa", "bold $text-primary"), id="welcome-title")
            yield Static(self._promise(), classes="gap", id="welcome-promise", markup=False)
            for question in QUESTIONS:
                yield Question(question)
            yield Static(self._hint(), id="welcome-hint")

    def _promise(self) -> str:
        match self.driver.kind:
            case "local":
                return "Talk with a model that runs on this machine. Nothing you write leaves it."
            case "auto":
                return (
                    "infraxa chooses who answers when you send. What you write goes there, sealed on the "
                    "way, and can be read there."
                )
        return (
            f"Talk with a model that {self.driver.name} serves. What you write goes there, sealed on "
            "the way, and can be read there."
        )

    def watch_driver(self) -> None:
        for promise in self.query("#welcome-promise").results(Static):
            promise.update(self._promise())
        self.watch_builtin()

    def watch_builtin(self) -> None:
        for hint in self.query("#welcome-hint").results(Static):
            hint.update(self._hint())

    def _hint(self) -> Content:
        parts: list[Content] = [Content("")]
        if self.builtin and self.driver.kind == "local":
            parts.append(
                Content.assemble(
                    ("The built-in guide (tiny) answers. It knows infraxa, small sums and a few facts; "
                     "for more, add a model of your own with ", "$foreground 60%"),
                    _key("models"),
                    (" or infraxa models add FILE.gguf.", "$foreground 60%"),
                )
            )  # fmt: skip
            parts.append(Content(""))
        parts.append(
            Content.assemble(
                _key("help"), ("  all keys     ", "$foreground 60%"),
                _key("command_palette"), ("  everything by name", "$foreground 60%"),
            )
        )  # fmt: skip
        return Content("\n").join(parts)


def _key(method: str) -> tuple[str, str]:
    return key_label(BY_METHOD[method].key), "$footer-key-foreground"
