"""The card at the right: who answers this chat, where, and who can read it."""

from __future__ import annotations

import msgspec
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from infraxa.app.tui.widgets.facts import READABLE_BY, short_time, speed
from infraxa.app.tui.widgets.text import one_line
from infraxa.store.records import AnswerFacts

BAR = 24
"""Cells of the bar that shows the context."""


class Card(msgspec.Struct, frozen=True):
    """What is known of the model that answers; 0 and "" mean: not known."""

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
    problem: str = ""


def human_size(size: int) -> str:
    """Bytes as people read them, in powers of 1000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def thousands(number: int) -> str:
    """`8192` as `8 192`, with a thin gap that does not break."""
    return f"{number:,}".replace(",", "\u202f")


class ModelCard(Widget):
    """Shows a `Card`."""

    DEFAULT_CSS = """
    ModelCard { padding: 1 2; background: $surface; height: 1fr; }
    """

    card: reactive[Card] = reactive(Card)

    def render(self) -> Content:
        card = self.card
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
            part for part in (human_size(card.size) if card.size else "", card.quantization) if part
        )
        for name, value in (("model", kind), ("file", file), ("licence", card.license)):
            if value:
                lines.append(_row(name, one_line(value, 60)))
        lines += self._context_rows(card)
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

    def _context_rows(self, card: Card) -> list[Content]:
        if not card.n_ctx:
            return []
        used = card.last.n_prompt + card.last.n_out if card.last is not None else 0
        share = min(1.0, used / card.n_ctx)
        full = round(share * BAR)
        style = "$text-error" if share > 0.9 else "$text-warning" if share > 0.7 else "$text-primary"
        bar = Content.assemble(("━" * full, style), ("━" * (BAR - full), "$foreground 15%"))
        return [_row("context", f"{thousands(used)} of {thousands(card.n_ctx)}"), bar]

    def _speed(self, card: Card) -> list[Content]:
        facts = card.last
        if facts is None or facts.tokens_per_second is None:
            return []
        lines = [Content(""), _row("speed", speed(facts.tokens_per_second))]
        if facts.first_token_ms is not None:
            lines.append(_row("first token", short_time(facts.first_token_ms)))
        return lines


def _row(name: str, value: str) -> Content:
    return Content.assemble((f"{name:<12}", "$foreground 60%"), value)
