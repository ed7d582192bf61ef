"""The card at the right: who answers this chat, where, and who can read it.

What it says of a driver on the network is in driver_card.py, which is imported when there is one.
"""

from __future__ import annotations

import msgspec
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from infraxa.app.sizes import size_text
from infraxa.app.trade import Bound
from infraxa.app.tui.widgets.driver import Driver
from infraxa.app.tui.widgets.facts import READABLE_BY, short_time, speed
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.store.records import AnswerFacts

BAR = 24
"""Cells of the bar that shows the context."""


class Card(msgspec.Struct, frozen=True):
    """What is known of who answers; 0 and "" mean: not known."""

    driver: Driver | None = None
    """The one on the network; None: this machine, of whose model all that follows is."""
    who: str = ""
    """On the network, who answers in the chat that is shown now, or did last."""
    label: str = ""
    builtin: bool = False
    architecture: str = ""
    parameters: str = ""
    size: int = 0
    quantization: str = ""
    license: str = ""
    n_ctx: int = 0
    """Tokens of context; those of the model's file until it is loaded."""
    last: AnswerFacts | None = None
    """Of the newest answer of the chat that is shown."""
    bound: Bound | None = None
    """What the next message can cost."""
    problem: str = ""


class ModelCard(Widget):
    """Shows a `Card`."""

    DEFAULT_CSS = """
    ModelCard { padding: 1 2; background: $surface; height: 1fr; }
    """

    card: reactive[Card] = reactive(Card)

    def render(self) -> Content:
        card = self.card
        if card.driver is not None:
            from infraxa.app.tui.widgets.driver_card import lines_of

            return Content("\n").join(lines_of(card.driver, card.last, card.who, card.bound))
        if not card.label:
            return Content("")
        lines = [
            Content.styled("DRIVER", "$foreground 60%"),
            Content.styled(one_line(card.label, 60), "bold $text-primary"),
            Content.styled("this machine", "$foreground 60%"),
            Content(""),
        ]
        kind = " · ".join(part for part in (card.architecture, card.parameters) if part)
        file = " · ".join(
            part for part in (size_text(card.size) if card.size else "", card.quantization) if part
        )
        for name, value in (("model", kind), ("file", file), ("licence", card.license)):
            if value:
                lines.append(row(name, one_line(value, 60)))
        used = card.last.n_prompt + card.last.n_out if card.last is not None else 0
        lines += context_rows(used, card.n_ctx)
        lines += self._speed(card)
        lines += [Content(""), Content.styled(READABLE_BY, "$text-success")]
        if card.problem:
            lines += [Content(""), Content.styled(one_line(card.problem, 200), "$text-error")]
        if card.builtin:
            lines += [
                Content(""),
                Content.styled(
                    "It explains infraxa, and little else. Add a real model, any GGUF file:",
                    "$foreground 60%",
                ),
                Content.assemble(
                    ("ctrl+o", "$footer-key-foreground"), (" here, or in a shell", "$foreground 60%")
                ),
                Content.styled("infraxa models add FILE", "$foreground 60%"),
            ]
        return Content("\n").join(lines)

    def _speed(self, card: Card) -> list[Content]:
        facts = card.last
        if facts is None or facts.tokens_per_second is None:
            return []
        lines = [Content(""), row("speed", speed(facts.tokens_per_second))]
        if facts.first_token_ms is not None:
            lines.append(row("first token", short_time(facts.first_token_ms)))
        return lines


def context_rows(used: int, n_ctx: int) -> list[Content]:
    """How many tokens of the context the chat takes, in words and as a bar."""
    if not n_ctx:
        return []
    used = min(used, n_ctx)  # of an answer that went on, both counts hold its first part
    share = used / n_ctx
    full = round(share * BAR)
    style = "$text-error" if share > 0.9 else "$text-warning" if share > 0.7 else "$text-primary"
    bar = Content.assemble(("━" * full, style), ("━" * (BAR - full), "$foreground 15%"))
    return [row("context", f"{thousands(used)} of {thousands(n_ctx)}"), bar]


def row(name: str, value: str) -> Content:
    """One fact."""
    return Content.assemble((f"{name:<12}", "$foreground 60%"), value)
