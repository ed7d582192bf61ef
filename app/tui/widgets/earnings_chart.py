"""What was earned and spent over time, as bars: earned above the line, spent below it, by the same scale.

Whatever is not nothing is to be seen: it has the least of the blocks at least.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from infraxa.app.trade import Sum
from infraxa.net.credits import shown

_UP: Final = " ▁▂▃▄▅▆▇█"
_DOWN: Final = " ▔▔▀▀▀▀██"
"""There are fewer blocks that hang from the top."""
_STEPS: Final = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
"""Tenths of what a cell may stand for, times powers of ten."""
_WIDEST: Final = 9
"""Cells of a bar."""
EARNED, SPENT = "$text-success", "$text-accent"
_QUIET: Final = "$foreground 60%"


class Period(NamedTuple):
    """How far back, and how many days a bar stands for."""

    bars: int
    days: int
    title: str

    def since(self, today: datetime.date) -> datetime.date:
        """Its first day."""
        return today - datetime.timedelta(days=self.bars * self.days - 1)


PERIODS: Final = (Period(7, 1, "7 days"), Period(30, 1, "30 days"), Period(52, 7, "52 weeks"))


class Bar(NamedTuple):
    """Some days in a row; amounts in µcr."""

    start: datetime.date
    days: int
    earned: int = 0
    spent: int = 0
    sold: int = 0
    bought: int = 0
    tokens_sold: int = 0
    tokens_bought: int = 0


def bars(days: Sequence[Sum], period: Period, today: datetime.date) -> list[Bar]:
    """The bars of a period that ends today, the oldest first. The keys of `days` are dates as ISO 8601."""
    since = period.since(today)
    sums = [[0] * 6 for _ in range(period.bars)]
    for day in days:
        at = (datetime.date.fromisoformat(day.key) - since).days // period.days
        if 0 <= at < period.bars:
            amounts = (day.earned, day.spent, day.sold, day.bought, day.tokens_sold, day.tokens_bought)
            sums[at] = [one + more for one, more in zip(sums[at], amounts, strict=True)]
    return [
        Bar(since + datetime.timedelta(days=at * period.days), period.days, *each)
        for at, each in enumerate(sums)
    ]


class Scale(NamedTuple):
    """How many µcr a cell stands for, and how many cells there are above and below the line."""

    step: int
    above: int
    below: int


def scale(earned: int, spent: int, rows: int) -> Scale:
    """The finest scale by which these highest bars fit into so many rows together."""
    if earned <= 0 and spent <= 0:
        return Scale(0, rows, 0)
    power = 1
    while True:
        for tenths in _STEPS:
            step, rest = divmod(tenths * power, 10)
            above, below = -(-max(0, earned) // max(1, step)), -(-max(0, spent) // max(1, step))
            if step and not rest and above + below <= max(rows, 2):
                return Scale(step, above, below)
        power *= 10


def filled(amount: int, step: int, row: int) -> int:
    """How many eighths of the cell `row` away from the line a bar of this amount fills."""
    if amount <= 0 or not step:
        return 0
    return max(0, min(8, max(1, round(amount * 8 / step)) - row * 8))


def day_text(day: datetime.date) -> str:
    """`Sat 21 Nov`."""
    return f"{day:%a} {day.day} {day:%b}"


class EarningsChart(Widget, can_focus=True):
    """← → move from bar to bar, a click goes to one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Before", show=False),
        Binding("right", "move(1)", "After", show=False),
        Binding("home", "move(-1000)", "First", show=False),
        Binding("end", "move(1000)", "Last", show=False),
    ]
    DEFAULT_CSS = """
    EarningsChart { height: 1fr; width: 1fr; background: $background; }
    """

    cursor: reactive[int] = reactive(0)

    @dataclass
    class Moved(Message):
        """Another bar, or the same one with other amounts, is under the cursor."""

        chart: EarningsChart

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._bars: list[Bar] = []
        self._today = datetime.date.min

    def show(self, shown_bars: Sequence[Bar], today: datetime.date) -> None:
        """Show these; the cursor stays on its days, or on the newest."""
        newest = len(shown_bars) - 1
        under = self.highlighted if self.cursor < len(self._bars) - 1 else None
        days = [(bar.start, bar.days) for bar in shown_bars]
        self._bars, self._today = list(shown_bars), today
        same = under is not None and (under.start, under.days) in days
        at = days.index((under.start, under.days)) if under is not None and same else newest
        self.set_reactive(EarningsChart.cursor, at)
        self.refresh()
        self.post_message(self.Moved(self))

    @property
    def highlighted(self) -> Bar | None:
        """The bar under the cursor."""
        return self._bars[self.cursor] if 0 <= self.cursor < len(self._bars) else None

    def action_move(self, steps: int) -> None:
        if self._bars:
            self.cursor = max(0, min(len(self._bars) - 1, self.cursor + steps))

    def watch_cursor(self) -> None:
        self.post_message(self.Moved(self))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 10

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or not self._bars:
            return
        margin, pitch, _ = self._layout(self.content_size.width, self._scale(self.content_size.height))
        at = (offset.x - margin) // pitch
        if 0 <= at < len(self._bars):
            self.cursor = at

    def _scale(self, height: int) -> Scale:
        # One line is the axis, one has the dates.
        rows = max(2, height - 2)
        most = max((bar.earned for bar in self._bars), default=0)
        return scale(most, max((bar.spent for bar in self._bars), default=0), rows)

    def _layout(self, width: int, by: Scale) -> tuple[int, int, int]:
        """Cells before the first bar, from one bar to the next, and of a bar."""
        margin = max(len(self._amount(by.above * by.step)), len(self._amount(by.below * by.step)), 4) + 2
        pitch = max(1, (width - margin) // max(1, len(self._bars)))
        return margin, pitch, min(_WIDEST, pitch - 1) or 1

    @staticmethod
    def _amount(amount: int) -> str:
        return shown(amount) if amount else "0"

    def render(self) -> Content:
        width, height = self.content_size
        if height < 3 or not self._bars:
            return Content("")
        by = self._scale(height)
        margin, pitch, thick = self._layout(width, by)
        if not by.step:
            nothing = Content.styled("Nothing was earned or spent in this time.", _QUIET)
            empty = [Content("")] * (by.above - 1)
            return Content("\n").join(
                [nothing, *empty, self._axis(margin, pitch, thick), self._dates(margin, pitch, width)]
            )
        lines = [
            self._row(by, row, margin, pitch, thick, above=True) for row in reversed(range(max(1, by.above)))
        ]
        lines.append(self._axis(margin, pitch, thick))
        lines += [self._row(by, row, margin, pitch, thick, above=False) for row in range(by.below)]
        lines.append(self._dates(margin, pitch, width))
        return Content("\n").join(lines[:height])

    def _row(self, by: Scale, row: int, margin: int, pitch: int, thick: int, *, above: bool) -> Content:
        end = (by.above if above else by.below) - 1
        label = self._amount((end + 1) * by.step) if row == end and by.step else ""
        parts: list[Content | str | tuple[str, str]] = [(f"{label:>{margin - 2}}  ", _QUIET)]
        gap = " " * (pitch - thick)
        for bar in self._bars:
            eighths = filled(bar.earned if above else bar.spent, by.step, row)
            cell = (_UP[eighths] * thick, EARNED) if above else (_DOWN[eighths] * thick, SPENT)
            parts += [cell, gap] if gap else [cell]
        return Content.assemble(*parts)

    def _axis(self, margin: int, pitch: int, thick: int) -> Content:
        gap = "─" * (pitch - thick)
        parts: list[tuple[str, str]] = [(f"{'0':>{margin - 2}} ", _QUIET), ("─", "$foreground 30%")]
        for at, _ in enumerate(self._bars):
            under = self.has_focus and at == self.cursor
            parts.append(("━" * thick, "bold $text-primary") if under else ("─" * thick, "$foreground 30%"))
            parts.append((gap, "$foreground 30%"))
        return Content.assemble(*[part for part in parts if part[0]])

    def _dates(self, margin: int, pitch: int, width: int) -> Content:
        """As many dates as have room, each under the beginning of its bar; the newest always."""
        line, free_until = [" "] * width, width + 1
        for at, bar in reversed([*enumerate(self._bars)]):
            text = self._date(at, bar)
            start = min(margin + at * pitch, width - len(text))
            if text and start >= margin - 1 and start + len(text) < free_until:
                line[start : start + len(text)] = text
                free_until = start
        return Content.styled("".join(line), _QUIET)

    def _date(self, at: int, bar: Bar) -> str:
        newest = len(self._bars) - 1
        if bar.days > 1:
            before = self._bars[at - 1].start if at else None
            new_month = before is not None and before.month != bar.start.month
            return f"{bar.start:%b}" if new_month else ""
        if at == newest:
            return "today" if bar.start == self._today else f"{bar.start.day} {bar.start:%b}"
        if newest < 7:
            return f"{bar.start:%a} {bar.start.day}"
        return f"{bar.start.day} {bar.start:%b}" if (newest - at) % 7 == 0 else ""
