"""Why this node is not earning: what was lost or stands in the way, why, how often, when, and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from infraxa.app import serving_words
from infraxa.app.network_words import span
from infraxa.app.serving import ProviderStatus
from infraxa.app.trade import Missed
from infraxa.app.tui.actions import BY_ID, key_label
from infraxa.app.tui.widgets.sections import say
from infraxa.app.tui.widgets.text import one_line

REASONS: Final = {
    "dearer": "too expensive",
    "model": "another model",
    "reputation": "reputation",
    "busy": "no room",
    "tab": "credit used up",
    "paused": "paused",
    "blocked": "your own choice",
    "unreachable": "not reachable",
    "no_demand": "nobody asked",
    "free": "free of charge",
    "failed": "failed",
}
_LASTS: Final = frozenset({"unreachable", "no_demand", "free", "reputation"})
"""These are so now, and did not happen at a time."""
_QUIET: Final = "$foreground 60%"


def lines(missed: Sequence[Missed], now_ms: int, width: int) -> list[Content]:
    """All of them in lines of `width` cells; the last first."""
    found: list[Content] = []
    for one in missed:
        lasting = one.reason in _LASTS
        times = f" · {one.count:,} times" if one.count > 1 else ""
        ago = "now" if lasting else f"{span((now_ms - one.at_ms) / 1000)} ago"
        mark = "○ " if lasting else "● "
        found.append(
            Content.assemble(
                (mark, "$text-warning"),
                (REASONS.get(one.reason, one.reason), "bold"),
                (f"{times} · {'the last ' if times else ''}{ago}", _QUIET),
            ).truncate(width, ellipsis=True)
        )
        found += [Content(f"  {line}") for line in wrap(one_line(one.text, 400), max(10, width - 2))]
        found += [
            Content.styled(f"  {line}", _QUIET)
            for line in wrap(one_line(one.remedy, 300), max(10, width - 2))
        ]
    return found


def nothing(status: ProviderStatus, now_ms: int) -> str:
    """What is said when nothing was missed: no more than what is known."""
    key = key_label(BY_ID["provide.toggle"].key)
    match status.mode:
        case "off":
            return f"Nobody is served, so there is nothing to earn. {key} turns provider mode on."
        case "starting":
            return "It is starting: nobody can ask yet."
        case "failed":
            return "Above stands why nobody can be served, and what helps."
        case _:
            pass
    since = serving_words.since(status.since_ms, now_ms)
    if not (status.answered or status.running or status.waiting or status.failed or status.refused):
        return f"Nobody has asked for an answer {since}, when it was turned on; nothing else was missed."
    return f"No chance to earn was missed {since}, when it was turned on."


class MissedList(VerticalScroll, can_focus=True):
    """↑ ↓ scroll."""

    DEFAULT_CSS = """
    MissedList {
        height: 1fr; width: 1fr; scrollbar-size-vertical: 1; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
    }
    MissedList > Static { height: auto; width: 1fr; }
    """

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._missed: Sequence[Missed] = ()
        self._otherwise, self._now_ms = "", 0

    def compose(self) -> ComposeResult:
        yield Static("", markup=False)

    def show(self, missed: Sequence[Missed], otherwise: str, now_ms: int) -> None:
        """`otherwise`: what is said when there are none."""
        self._missed, self._otherwise, self._now_ms = missed, otherwise, now_ms
        width = self.scrollable_content_region.width
        if width:
            say(self.query_one(Static), Content("\n").join(self._lines(width)), layout=True)

    def _lines(self, width: int) -> list[Content]:
        if self._missed:
            return lines(self._missed, self._now_ms, width)
        return [Content.styled(line, _QUIET) for line in wrap(self._otherwise, max(10, width))]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._lines(width)))
