"""The line above the prompt before Enter: what the message can cost at most, at which price, for how long.

It shows a `Bound` and counts the seconds of its lock down; whoever has it asked for is screens/chat_price.py.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import time

from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from infraxa.app.trade import Bound
from infraxa.app.tui.widgets.figures import price, thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.credits import shown
from infraxa.net.names import clean_name

_QUIET = "$foreground 60%"


def seconds_left(bound: Bound, now_ms: int) -> int:
    """Whole seconds for which its rates are locked, the begun one counted."""
    return max(0, ceil((bound.until_ms - now_ms) / 1000))


def bound_words(bound: Bound, left_s: int) -> list[Content]:
    """What it says, ever shorter for where there is less room; empty: nothing needs to be said.

    `left_s`: seconds of the lock that are counted; 0: none are.
    """
    if bound.state == "refused":
        reason = one_line(f"{bound.reason} {bound.remedy}", 400)
        return [Content.assemble(("✕ ", "bold $text-error"), (reason, "$text-error"))]
    today = _today(bound)
    if bound.state == "asking":
        who = clean_name(bound.name) or one_line(bound.driver, 64)[:8] or "the driver"
        asking = Content.styled(f"asking {who} for its price…", _QUIET)
        return [_joined(asking, today), asking]
    if bound.state == "free":
        return [Content.styled("free: nothing is charged for it", _QUIET)]
    if bound.state == "local":
        return []
    most = Content.assemble(("at most ", _QUIET), (f"{shown(bound.most)} cr", "bold"))
    sizes = f" for {thousands(bound.n_prompt)} + {thousands(bound.max_out)} tokens"
    rate = _rate(bound, left_s)
    full = most + Content.styled(sizes, _QUIET) if bound.n_prompt and bound.max_out else most
    owed = Content.styled(owed_words(bound), _QUIET)
    short = Content.assemble(("≤ ", _QUIET), (f"{shown(bound.most)} cr", "bold"))
    return [
        _joined(full, rate, today, owed),
        _joined(full, rate, today),
        _joined(most, rate, today),
        _joined(short, _rate(bound, left_s, "for"), today),
        _joined(most, rate),
        _joined(short, rate),
        short,
    ]


def owed_words(bound: Bound) -> str:
    """`tab 0.0012 of 0.005`: what is owed as the driver counts it, and how much may be; empty when it is not
    known."""
    counted = bound.owed + bound.taken_back
    if bound.limit:
        return f"tab {shown(counted)} of {shown(bound.limit)}"
    return f"tab {shown(counted)}" if counted else ""


def _today(bound: Bound) -> Content:
    of = f" of {shown(bound.cap_today)}" if bound.cap_today else ""
    return Content.styled(f"today {shown(bound.spent_today)}{of}", _QUIET)


def _rate(bound: Bound, left_s: int, locked: str = "locked") -> Content:
    lock = f" {locked} {left_s} s" if left_s else ""
    if not bound.raised_from:
        return Content.styled(f"{price(bound.price_out)}/M{lock}", _QUIET)
    was = f", was {price(bound.raised_from)}"
    return Content.assemble((f"{price(bound.price_out)}/M{was}", "bold $text-warning"), (lock, _QUIET))


def _joined(*parts: Content) -> Content:
    return Content.styled(" · ", "$foreground 30%").join([part for part in parts if part])


class BoundLine(Widget):
    """One line, or a few for a reason why nothing can be sent; gone when there is nothing to say."""

    DEFAULT_CSS = """
    BoundLine {
        display: none; height: 1; width: 1fr; padding: 0 1; background: $surface; text-wrap: nowrap;
        text-overflow: ellipsis; border-left: outer $foreground 20%;
    }
    BoundLine.-said { display: block; }
    BoundLine.-refused { height: auto; max-height: 4; text-wrap: wrap; }
    """

    class LockEnded(Message):
        """The rates that are shown are locked no more."""

    def __init__(self, *, time_of_day: Callable[[], float] = time) -> None:
        """`time_of_day`: in seconds since the epoch."""
        super().__init__()
        self._time_of_day = time_of_day
        self._bound: Bound | None = None
        self._counting = False
        self._timer: Timer | None = None

    def show(self, bound: Bound | None) -> None:
        """Show this one; None: nothing is known."""
        if bound == self._bound:
            self._count()
            return
        self._bound = bound
        said = bound is not None and bool(bound_words(bound, 0))
        refused = bound is not None and bound.state == "refused"
        self.set_class(said, "-said")
        self.set_class(refused, "-refused")
        self.refresh(layout=refused)
        self._count()

    def count(self, on: bool) -> None:
        """Whether the seconds matter: somebody looks, and can send."""
        if on != self._counting:
            self._counting = on
            self.refresh()
            self._count()

    @property
    def left_s(self) -> int:
        """Seconds of the lock that are shown."""
        bound = self._bound
        if bound is None or bound.state != "locked" or not self._counting:
            return 0
        return seconds_left(bound, round(self._time_of_day() * 1000))

    def _count(self) -> None:
        if not self.left_s:
            if self._timer is not None:
                self._timer.stop()
                self._timer = None
        elif self._timer is None:
            self._timer = self.set_interval(1.0, self._tick)

    def _tick(self) -> None:
        self.refresh()
        self._count()
        if self._timer is None:
            self.post_message(self.LockEnded())

    def render(self) -> Content:
        words = bound_words(self._bound, self.left_s) if self._bound is not None else []
        width = self.content_size.width
        return next(
            (line for line in words if line.cell_length <= width), words[-1] if words else Content("")
        )
