"""The Earnings view: what came in and went out, over time, by model and by peer; the tabs; the receipts.

Sums and one page of receipts are read, however many there are; more receipts as the cursor comes to them. It
is read anew at most once a second, and only while it is seen.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from infraxa.app.days import start_ms
from infraxa.app.events import Event, TradeChanged
from infraxa.app.trade import Earnings, ReceiptSeen, Role, Sum, TabSeen
from infraxa.app.tui.screens.dialogs import Ask
from infraxa.app.tui.screens.full_view import SectionedView
from infraxa.app.tui.screens.settle import Given, Settle, ShowReceipt
from infraxa.app.tui.widgets import earnings_rows as rows
from infraxa.app.tui.widgets.earnings_chart import EARNED, PERIODS, SPENT, EarningsChart, bars
from infraxa.app.tui.widgets.sections import Section, say, share
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.net.credits import read_credits, shown
from infraxa.net.errors import NetError

if TYPE_CHECKING:
    from infraxa.app.facade import NodeFacade

CALM = 1.0
"""Seconds between two readings of what changed, however often it does."""
PAGE = 100
"""Receipts that are read at once."""
AHEAD = 20
"""So many before the last one that was read, the next page is."""
MOST_AGAIN = 500
"""Receipts of those shown that are read again when something changed: the newest."""
UNDONE = 20
"""Limits that can be taken back."""

HINTS = (
    ("d", "days", "screen.days"),
    ("Tab", "next part", "screen.part(1)"),
    ("l", "limit", "screen.limit"),
    ("t", "settle", "screen.settle"),
    ("Enter", "in full", "screen.choose"),
    ("e", "export", "screen.export"),
    ("r", "sold/bought", "screen.role"),
    ("Esc", "chat", "app.perform('app.chat')"),
)
NOTHING = "Nothing was earned or spent yet."
NO_TABS = """No tabs yet.

A tab is the running balance with one other node: what you owe a driver, or a user owes you. Credits are \
promises between two nodes, not money."""
NO_RECEIPTS = (
    "No receipts yet. Each answer that is given or taken for credits leaves one, signed by both sides."
)

Part = Literal["chart", "tabs", "receipts", "models", "peers"]
PARTS: tuple[Part, ...] = ("chart", "tabs", "receipts", "models", "peers")
BESIDE: tuple[Part, ...] = ("models", "peers")
"""The parts that a wide screen shows beside the others."""


class EarningsScreen(SectionedView):
    """Totals above; the chart, the tabs and the receipts, beside them models and peers."""

    PARTS = PARTS
    AUTO_FOCUS = "EarningsChart"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "days", "Another time", show=False),
        Binding("l", "limit", "Set a limit", show=False),
        Binding("t", "settle", "Settle a tab", show=False),
        Binding("e", "export", "Export a receipt", show=False),
        Binding("r", "role", "Sold, bought, both", show=False),
        Binding("y", "copy", "Copy the id", show=False),
        Binding("ctrl+z", "undo", "Undo", show=False),
    ]
    DEFAULT_CSS = """
    EarningsScreen { background: $background; layers: base top; }
    EarningsScreen #totals { height: 3; width: 1fr; margin-top: 1; padding: 0 1; }
    EarningsScreen #earnings { height: 1fr; width: 1fr; margin-top: 1; }
    EarningsScreen #tables { height: 3; width: 1fr; padding: 0 1; }
    EarningsScreen #beside { height: 2; width: 1fr; padding: 0 1; }
    EarningsScreen #tables.-open, EarningsScreen #beside.-open { height: 1fr; }
    EarningsScreen Table { height: 1fr; }
    EarningsScreen .part-heading { text-wrap: nowrap; text-overflow: ellipsis; }
    EarningsScreen #detail {
        height: 3; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    EarningsScreen.-short #detail { display: none; }
    EarningsScreen.-short #totals { height: 1; margin-top: 0; }
    EarningsScreen.-short #earnings { margin-top: 0; }

    EarningsScreen.-wide #totals { padding: 0 2; }
    EarningsScreen.-wide #tables { height: 1fr; padding: 0 2; }
    EarningsScreen.-wide #tabs, EarningsScreen.-wide #receipts { margin-top: 1; }
    EarningsScreen.-wide #beside { dock: right; width: 44; height: 1fr; background: $surface; padding: 1 2; }
    EarningsScreen.-wide #beside Table { background: $surface; }
    EarningsScreen.-wide #models { height: 1fr; }
    EarningsScreen.-wide #peers { height: 1fr; margin-top: 1; }
    EarningsScreen.-wide #detail { height: 4; padding: 1 2 0 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._period = 1
        """Place in PERIODS."""
        self._shown = _nothing()
        """Since the first day of the period."""
        self._tabs: list[TabSeen] = []
        self._receipts: list[ReceiptSeen] = []
        self._more = False
        """There are older receipts than those that were read."""
        self._role: Role | None = None
        """Whose receipts are shown."""
        self._stale = True
        self._read_at = float("-inf")
        self._reading: Timer | None = None
        self._fetching = False
        self._paging = False
        self._day = datetime.date.min
        self._limits: list[tuple[TabSeen, int | None]] = []
        """Tabs whose limit was set, and what it was before, the last one at the end."""

    def compose(self) -> ComposeResult:
        yield ViewTabs("app.earnings", HINTS)
        yield Static("", id="totals", markup=False)
        with Vertical(id="earnings"):
            with Vertical(id="tables", classes="-open"):
                yield Section("chart", "Over time", EarningsChart(classes="part-body"))
                yield Section("tabs", "Tabs", self._table(rows.TABS, NO_TABS, sort_by=2))
                yield Section("receipts", "Receipts", self._table(rows.RECEIPTS, NO_RECEIPTS))
            with Vertical(id="beside"):
                yield Section("models", "Models", self._table(rows.MODELS, NOTHING, sort_by=1))
                yield Section("peers", "Peers", self._table(rows.PEERS, NOTHING, sort_by=1))
            yield Static("", id="detail", markup=False)
        yield StatusBar(id="status", time_of_day=self.app.clock, hints=("app.help", "app.palette"))
        yield Static("", id="too-small", markup=False)

    def on_mount(self) -> None:
        self._open("chart")

    def on_screen_resume(self) -> None:
        """It is seen again: read what changed meanwhile."""
        self._stale = True
        self._read()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # Reading what Node knows.

    def _hear(self, event: Event) -> None:
        if isinstance(event, TradeChanged):
            self._stale = True
            if self.is_current:
                self._soon()

    def _soon(self) -> None:
        """Read when a second has passed since the last time."""
        if self._reading is None and not self._fetching:
            wait = self._read_at + CALM - self.app.clock()
            self._reading = self.set_timer(max(0.001, min(wait, CALM)), self._read)

    def _read(self) -> None:
        if self._reading is not None:
            self._reading.stop()
            self._reading = None
        if not self._fetching:
            self._fetching = True
            self.app.attempt(self._fetch(), group="earnings", screen=self)

    async def _fetch(self) -> None:
        """Read what there is, and show it. All that this view knows of Node comes in here."""
        self._stale, self._read_at = False, self.app.clock()
        try:
            if self.app.opened:
                await self._fetch_from(self.app.node)
            else:
                self._shown = _nothing()
                self._tabs, self._receipts, self._more = [], [], False
        finally:
            self._fetching = False
        self._paint()
        if self._stale:
            self._soon()

    async def _fetch_from(self, node: NodeFacade) -> None:
        self._day = self._today
        since = PERIODS[self._period].since(self._day)
        since_ms = start_ms(since)
        self._shown = await node.earnings(since_ms)
        self._tabs = await node.list_tabs()
        await self._fetch_receipts(node)

    async def _fetch_receipts(self, node: NodeFacade) -> None:
        """The newest, as many as were read before: what is older than those stays."""
        role, count = self._role, min(max(PAGE, len(self._receipts)), MOST_AGAIN)
        newest = await node.list_receipts(role=role, count=count)
        if role != self._role:
            return
        last = newest[-1].place if len(newest) == count else -1
        older = [one for one in self._receipts if one.place < last]
        if not older:
            self._more = len(newest) == count
        self._receipts = [*newest, *older]

    async def _next_page(self) -> None:
        role = self._role
        try:
            page = await self.app.node.list_receipts(role=role, before=self._receipts[-1].place, count=PAGE)
        finally:
            self._paging = False
        if role == self._role:
            self._receipts += page
            self._more = len(page) == PAGE
            self._paint_receipts()

    def _tick(self) -> None:
        """A second later: another node, another day, or the ages."""
        if self._node_is_another() or (self.app.opened and self._day != self._today):
            self._stale = True
        if self._stale:
            self._read()
        elif self._tabs:
            self._paint()

    @property
    def _today(self) -> datetime.date:
        return datetime.date.fromtimestamp(self.app.clock())

    @property
    def _now_ms(self) -> int:
        return int(self.app.clock() * 1000)

    # Showing it.

    def _paint(self) -> None:
        width = max(20, self.size.width - (4 if self.has_class("-wide") else 2))
        before = self._shown.before
        say(self.query_one("#totals", Static), rows.totals(self._shown, width))
        period = PERIODS[self._period]
        self.query_one(EarningsChart).show(bars(self._shown.days, period, self._today), self._today)
        for part, sums in (("models", self._shown.models), ("peers", self._shown.peers)):
            table = self._section(part).query_one(Table)
            ever = before is not None and bool(before.sold or before.bought)
            table.empty = f"Nothing in the last {period.title}." if ever else NOTHING
            table.show(rows.sum_rows(sums, peers=part == "peers"))
        self._section("tabs").query_one(Table).show(rows.tab_rows(self._tabs, self._now_ms))
        self._paint_receipts()

    def _paint_receipts(self) -> None:
        table = self._section("receipts").query_one(Table)
        bought = any(one.verdict for one in self._receipts)
        table.left_out = frozenset() if bought else frozenset({rows.VERDICT})
        table.show(rows.receipt_rows(self._receipts))
        self._paint_headings()
        self._share_room()
        self._paint_detail()

    def _paint_headings(self) -> None:
        period = PERIODS[self._period]
        tabs, waiting = len(self._tabs), sum(map(rows.waits, self._tabs))
        asides: dict[Part, str | Content] = {
            "chart": self._legend(),
            "tabs": f"{tabs:,}"
            + (f" · {waiting} wait for you" if waiting > 1 else " · 1 waits for you" * waiting),
            "receipts": self._listed(),
            "models": period.title,
            "peers": period.title,
        }
        for part, aside in asides.items():
            self._section(part).paint_heading(aside if tabs or part != "tabs" else "", folded=self._folded)

    @property
    def _folded(self) -> bool:
        return not self.has_class("-wide")

    def _legend(self) -> Content | str:
        period = PERIODS[self._period]
        if self._folded and not self._section("chart").has_class("-open"):
            return period.title
        each = "a day" if period.days == 1 else "a week"
        return Content.assemble(
            (f"{period.title}, each bar {each} · credits ", "$foreground 60%"),
            ("▲", EARNED), (" earned ", "$foreground 60%"), ("▼", SPENT), (" spent", "$foreground 60%"),
        )  # fmt: skip

    def _listed(self) -> str:
        """How many receipts are in the table, of how many."""
        kind = {None: "", "provider": " sold", "user": " bought"}[self._role]
        count = len(self._receipts)
        if not count:
            return kind.strip()
        table = self._section("receipts").query_one(Table)
        among = ", sorted among these" if self._more and table.sorted_by else ""
        return f"the newest {count:,}{kind}{among}" if self._more else f"{count:,}{kind}"

    def _share_room(self) -> None:
        """Where all parts are seen, the chart has a third, the tabs what they need, the receipts the rest."""
        chart, tabs = self._section("chart"), self._section("tabs")
        if self._folded:
            chart.styles.clear_rule("height")
            tabs.styles.clear_rule("height")
            self._section("receipts").styles.clear_rule("height")
            return
        room = self.query_one("#tables").size.height - 2  # one empty line between two parts
        chart_lines = max(8, min(18, room * 2 // 5))
        sections = [tabs, self._section("receipts")]
        wants = [section.wanted_lines(section.size.width) for section in sections]
        given = share(max(0, room - chart_lines), wants)
        spare = room - chart_lines - sum(given)
        chart.styles.height = chart_lines + min(spare, 4) if spare > 0 else chart_lines
        for section, lines in zip(sections, given, strict=True):
            section.styles.height = lines

    @on(Table.Moved)
    @on(EarningsChart.Moved)
    def _moved(self) -> None:
        self._paint_detail()
        table = self._section("receipts").query_one(Table)
        at_the_end = table.has_focus and table.cursor >= len(table.rows) - AHEAD
        if at_the_end and self._more and not self._paging and self.app.opened:
            self._paging = True
            self.app.attempt(self._next_page(), group="receipts", screen=self)

    def _paint_detail(self) -> None:
        say(self.query_one("#detail", Static), rows.in_full(self._under_cursor(), self._tabs, self._now_ms))

    def _under_cursor(self) -> object:
        if isinstance(self.focused, EarningsChart):
            return self.focused.highlighted
        return super()._under_cursor()

    # What can be done here.

    def _open(self, part: str) -> None:
        super()._open(part)
        self.query_one("#tables").set_class(part not in BESIDE, "-open")
        self.query_one("#beside").set_class(part in BESIDE, "-open")
        self.call_after_refresh(self._paint)  # what is open now had no width before

    def action_days(self) -> None:
        """Another time is looked at."""
        self._period = (self._period + 1) % len(PERIODS)
        self._read()
        self._stale = True

    def action_role(self) -> None:
        """Receipts of what was sold, of what was bought, or both."""
        roles: tuple[Role | None, ...] = (None, "provider", "user")
        self._role = roles[(roles.index(self._role) + 1) % len(roles)]
        self._receipts, self._more = [], False
        self.action_open("receipts")
        if self.app.opened:

            async def read() -> None:
                await self._fetch_receipts(self.app.node)
                self._paint_receipts()

            self.app.attempt(read(), group="receipts", screen=self)

    def action_copy(self) -> None:
        """Copy the id of the peer under the cursor."""
        match self._under_cursor():
            case TabSeen(peer=peer) | ReceiptSeen(peer=peer) if peer:
                self.app.copy(peer, "id of the peer")
            case Sum(key=key) if key:
                self.app.copy(key, "id")
            case _:
                self.app.flash("nothing with an id is under the cursor")

    def action_choose(self) -> None:
        """All of what is under the cursor."""
        match self._under_cursor():
            case ReceiptSeen() as one:
                self._show_receipt(one)
            case TabSeen():
                self.action_settle()
            case _:
                self.app.flash("Enter shows a receipt in full, or settles a tab")

    @on(Table.Chosen)
    def _chosen(self) -> None:
        if not isinstance(self._under_cursor(), Sum):
            self.action_choose()

    def _tab(self) -> TabSeen | None:
        one = self._under_cursor()
        if isinstance(one, TabSeen):
            return one
        self.app.flash("no tab is under the cursor")
        return None

    def action_limit(self) -> None:
        """Set how much the user of the tab under the cursor may owe."""
        if (tab := self._tab()) is None:
            return
        who = rows.who(tab)
        if tab.role == "user":
            self.app.flash(f"{who} sets this limit; cap_day (F9) says what you are ready to spend")
            return

        def answered(text: str | None) -> None:
            if text is not None:
                self._set_limit(tab, None if text in ("", "auto") else read_credits(text))

        usual = shown(read_credits(f"{self.app.settings.stranger_limit:.6f}"))
        self.app.push_screen(
            Ask(
                f"How much may {who} owe?",
                shown(tab.limit) if tab.own_limit else "",
                text=f"In credits; it owes {shown(tab.owed)} now. Empty: {usual}, as any stranger. What it "
                "owes is a promise: the limit is the most that you can lose by it.",
                placeholder=usual,
                accept="Set",
                check=_limit_problem,
            ),
            answered,
        )

    def _set_limit(self, tab: TabSeen, limit: int | None) -> None:
        before = tab.limit if tab.own_limit else None
        if limit == before:
            return
        self._limits = [*self._limits, (tab, before)][-UNDONE:]
        self._change_limit(tab, limit, "ctrl+z undoes")

    def _change_limit(self, tab: TabSeen, limit: int | None, after: str) -> None:
        async def change() -> None:
            await self.app.node.set_tab_limit(tab.peer, limit)
            may = f"may owe {shown(limit)}" if limit is not None else "may owe as much as any stranger"
            self.app.flash(f"{rows.who(tab)} {may} · {after}")
            self._tabs = await self.app.node.list_tabs()
            self._paint()

        self.app.attempt(change(), group="limit", screen=self)

    def action_undo(self) -> None:
        """Take the last limit back."""
        if self._limits:
            tab, before = self._limits.pop()
            self._change_limit(tab, before, "undone")
        else:
            self.app.flash("no limit to take back")

    def action_settle(self) -> None:
        """Settle the tab under the cursor: propose it, agree to it, or have it paid the other way."""
        if (tab := self._tab()) is None:
            return
        who = rows.who(tab)
        if tab.role == "provider" and tab.settling != "proposed":
            self.app.flash(f"{who} proposes it on its own node; then it waits for you here")
            return
        if tab.role == "user" and tab.owed <= 0:
            self.app.flash(f"nothing is owed to {who}")
            return

        async def settle(given: Given) -> None:
            node = self.app.node
            try:
                if given.declined:
                    said = await node.decline(tab.peer)
                else:
                    said = await node.settle(tab.peer, given.amount, given.note)
            finally:
                self._stale = True
                self._read()
            self.app.notify(one_line(said, 300), markup=False)

        def answered(given: Given | None) -> None:
            if given is not None:
                self.app.attempt(settle(given), group="settle", screen=self)

        self.app.push_screen(Settle(tab, rows.netting(tab, self._tabs)), answered)

    def _show_receipt(self, one: ReceiptSeen) -> None:
        def answered(export: bool | None) -> None:
            if export:
                self._export(one)

        self.app.push_screen(ShowReceipt(one), answered)

    def action_export(self) -> None:
        """Write the receipt under the cursor to a file."""
        one = self._under_cursor()
        if isinstance(one, ReceiptSeen):
            self._export(one)
        else:
            self.app.flash("no receipt is under the cursor")

    def _export(self, one: ReceiptSeen) -> None:
        from infraxa.app.tui.export import check_target, write

        async def export(path: str) -> None:
            lines = await self.app.node.export_receipts(one.order)
            target = write(Path(path), "".join(line.text + "\n" for line in lines))
            self.app.notify(f"Written: {target}. infraxa verify checks it, offline.", markup=False)

        def answered(path: str | None) -> None:
            if path:
                self.app.attempt(export(path), group="export", screen=self)

        self.app.push_screen(
            Ask(
                "Export this receipt",
                str(Path.cwd() / f"receipt-{one.order[:8]}.jsonl"),
                text="With both signatures. It names both keys, the model, the counts and the price; nothing "
                "of what was said.",
                accept="Export",
                check=check_target,
            ),
            answered,
        )

    @on(events.Click, "#chart > .part-heading")
    def _heading_clicked(self) -> None:
        self.query_one(EarningsChart).focus()


def _nothing() -> Earnings:
    none = Sum("")
    return Earnings(0, none, (), (), (), none, none)


def _limit_problem(text: str) -> str:
    if text in ("", "auto"):
        return ""
    try:
        return "A limit is not less than 0." if read_credits(text) < 0 else ""
    except NetError as error:
        return f"{error.message} {error.remedy}"
