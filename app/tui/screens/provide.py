"""The Provide view: who is served by this machine, with what, within which limits, and what came of it.

It shows what Node says and reads it anew when Node says that it changed. What moves by itself is painted once
a second, and only while it is seen; what the person does is shown at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from infraxa.app.events import (
    EngineChanged,
    Event,
    NetworkChanged,
    ProviderChanged,
    ServedChanged,
    SettingsChanged,
    TradeChanged,
)
from infraxa.app.serving import BlockedUser, Served
from infraxa.app.trade import Missed
from infraxa.app.tui.screens import provide_settings, settings
from infraxa.app.tui.screens.dialogs import Confirm
from infraxa.app.tui.screens.full_view import SectionedView
from infraxa.app.tui.widgets import missed_list, provider_facts, served_rows
from infraxa.app.tui.widgets.fact_list import FactList
from infraxa.app.tui.widgets.missed_list import MissedList
from infraxa.app.tui.widgets.provider_facts import Seen
from infraxa.app.tui.widgets.sections import Section, say, share
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.net.identity import id_text

if TYPE_CHECKING:
    from infraxa.app.facade import NodeFacade

CALM, SOON = 1.0, 0.001
"""Seconds between two paintings: of what others do, of what the person did."""
KEPT = 60
"""Seconds of which the speed is drawn."""

HINTS = (
    ("F7", "on/off", "app.perform('provide.toggle')"),
    ("Tab", "next part", "screen.part(1)"),
    ("e", "end", "screen.end"),
    ("b", "block", "screen.block"),
    ("Enter", "change", "screen.open('offer')"),
    ("y", "copy key", "screen.copy"),
    ("s", "sort", "screen.sort"),
    ("Esc", "chat", "app.perform('app.chat')"),
)
NOBODY_BLOCKED = "Nobody is blocked. b on a request blocks its user."

UNDONE = 20
"""Settings that can be taken back."""

Part = Literal["requests", "missed", "blocked", "offer"]
PARTS: tuple[Part, ...] = ("requests", "missed", "blocked", "offer")


class ProvideScreen(SectionedView):
    """The requests and the blocked users as tables, the offer beside them."""

    PARTS = PARTS
    BESIDE = "offer"
    AUTO_FOCUS = "#requests Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "end", "End a request", show=False),
        Binding("b", "block", "Block its user", show=False),
        Binding("y", "copy", "Copy the user's key", show=False),
        Binding("ctrl+z", "undo", "Undo", show=False),
    ]
    DEFAULT_CSS = """
    ProvideScreen { background: $background; layers: base top; }
    ProvideScreen #headline { height: auto; max-height: 4; width: 1fr; padding: 0 1; margin-top: 1; }
    ProvideScreen #reach { height: auto; max-height: 2; width: 1fr; padding: 0 1; }
    ProvideScreen #provide { height: 1fr; width: 1fr; margin-top: 1; }
    ProvideScreen #tables { height: 3; width: 1fr; padding: 0 1; }
    ProvideScreen #tables.-open { height: 1fr; }
    ProvideScreen #offer { padding: 0 1; }
    ProvideScreen Table { height: 1fr; }
    ProvideScreen #detail {
        height: 2; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    ProvideScreen.-short #detail, ProvideScreen.-short #reach { display: none; }
    ProvideScreen.-short #headline { max-height: 1; margin-top: 0; }
    ProvideScreen.-short #provide { margin-top: 0; }

    ProvideScreen.-wide #headline, ProvideScreen.-wide #reach { padding: 0 2; }
    ProvideScreen.-wide #tables { height: 1fr; padding: 0 2; }
    ProvideScreen.-wide #requests { height: 1fr; }
    ProvideScreen.-wide #missed, ProvideScreen.-wide #blocked { margin-top: 1; }
    ProvideScreen.-wide #offer { dock: right; width: 44; height: 1fr; background: $surface; padding: 1 2; }
    ProvideScreen.-wide FactList {
        background: $surface; margin-top: 1; scrollbar-background: $surface;
        scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
    }
    ProvideScreen.-wide #detail { height: 3; padding: 1 2 0 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen = Seen()
        self._served: list[Served] = []
        self._blocked: list[BlockedUser] = []
        self._missed: list[Missed] = []
        self._earned: tuple[int, int | None] = (0, None)
        """Since when, and how much."""
        self._settings: list[tuple[str, object]] = []
        """Settings that were changed here, and what they were before, the last one at the end."""
        self._speeds: deque[float] = deque(maxlen=KEPT)
        """Of the last seconds in which somebody looked, newest last."""
        self._stale = True
        """The lists must be read again."""
        self._painted_at = float("-inf")
        self._reading: Timer | None = None

    def compose(self) -> ComposeResult:
        yield ViewTabs("app.provide", HINTS)
        yield Static("", id="headline", markup=False)
        yield Static("", id="reach", markup=False)
        with Vertical(id="provide"):
            with Vertical(id="tables", classes="-open"):
                yield Section("requests", "Requests", self._table(served_rows.REQUESTS, ""))
                yield Section("missed", "Why am I not earning?", MissedList(classes="part-body"))
                yield Section(
                    "blocked", "Blocked users", self._table(served_rows.BLOCKED, NOBODY_BLOCKED, sort_by=1)
                )
            yield Section("offer", "Offer", FactList(classes="part-body"))
            yield Static("", id="detail", markup=False)
        yield StatusBar(id="status", time_of_day=self.app.clock, hints=("app.help", "app.palette"))
        yield Static("", id="too-small", markup=False)

    def on_mount(self) -> None:
        self._look()
        self._open("requests")

    def on_screen_resume(self) -> None:
        """It is seen again: read all that changed meanwhile."""
        self._stale = True
        self._speeds.clear()
        self._read()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # Reading what Node knows.

    def _hear(self, event: Event) -> None:
        at_once = False
        match event:
            case ProviderChanged():
                at_once = event.status.mode != self._seen.status.mode
            case SettingsChanged():
                at_once = True
            case ServedChanged() | TradeChanged():
                self._stale = True
            case NetworkChanged() | EngineChanged():
                pass
            case _:
                return
        if self.is_current:
            self._soon(at_once=at_once)

    def _soon(self, *, at_once: bool = False) -> None:
        """Read and paint now, or when a second has passed since the last time."""
        # Textual divides by a timer's time.
        wait = SOON if at_once else max(SOON, self._painted_at + CALM - self.app.clock())
        if at_once and self._reading is not None:
            self._reading.stop()
            self._reading = None
        if self._reading is None:
            self._reading = self.set_timer(min(wait, CALM), self._read)

    def _read(self) -> None:
        self._reading = None
        self._painted_at = self.app.clock()
        self.app.attempt(self._fetch(), group="provide view", screen=self)

    async def _fetch(self) -> None:
        """Read what changed, and show it. All that this view knows of Node comes in here."""
        self._look()
        if not self.app.opened:
            self._served, self._blocked, self._missed, self._earned = [], [], [], (0, None)
        elif self._stale:
            self._stale = False
            self._served = await self.app.node.list_served()
            self._blocked = await self.app.node.list_blocked_users()
            await self._fetch_trade(self.app.node)
            self._look()
        self._paint()

    async def _fetch_trade(self, node: NodeFacade) -> None:
        self._missed = await node.list_missed()
        since = node.provider.since_ms
        if since:
            sums = await node.earnings(provider_facts.quarter(since))
            self._earned = (since, sums.total.earned)

    def _look(self) -> None:
        """What Node answers without being waited for."""
        if not self.app.opened:
            self._seen = Seen(settings=self.app.settings)
            return
        engine, mode = self.app.node.engine, self.app.provider_mode
        self._seen = Seen(
            mode.status,
            self.app.settings,
            self.app.node.network,
            mode.model,
            engine.progress if engine.state in ("starting", "loading") else None,
            self._earned[1] if self._earned[0] == mode.status.since_ms else None,
        )

    def _tick(self) -> None:
        """A second later: ages, the seconds of a wait, the speed."""
        if self._node_is_another():
            self._stale = True
        if self._seen.status.since_ms:
            self._speeds.append(provider_facts.now_speed(self._seen.status))
        if self._reading is None:
            self._read()

    # Showing it.

    @property
    def _now_ms(self) -> int:
        return int(self.app.clock() * 1000)

    def _paint(self) -> None:
        seen, now_ms = self._seen, self._now_ms
        width = max(20, self.size.width - (4 if self.has_class("-wide") else 2))
        say(self.query_one("#headline", Static), provider_facts.headline(seen, now_ms, width), layout=True)
        say(self.query_one("#reach", Static), provider_facts.reach(seen), layout=True)
        requests = self._section("requests").query_one(Table)
        requests.empty = provider_facts.nobody(seen, now_ms)
        requests.show(served_rows.request_rows(self._served, now_ms))
        self._section("blocked").query_one(Table).show(served_rows.blocked_rows(self._blocked, now_ms))
        nothing = missed_list.nothing(seen.status, now_ms)
        self.query_one(MissedList).show(self._missed, nothing, now_ms)
        offer = self.query_one(FactList)
        if width := offer.scrollable_content_region.width:
            offer.show(provider_facts.facts(seen, self._speeds, now_ms, width))
        self._paint_headings()
        self._share_room()
        self._paint_detail()

    def _paint_headings(self) -> None:
        ended = sum(bool(one.ended_ms) for one in self._served)
        waiting = sum(one.state == "waiting" for one in self._served)
        running = len(self._served) - ended - waiting
        counts = {"running": running, "in line": waiting, "ended": ended}
        parts = [f"{count:,} {word}" for word, count in counts.items() if count]
        if ended > served_rows.SHOWN_ENDED:
            parts[-1] += f", the newest {served_rows.SHOWN_ENDED} are shown"
        asides: dict[Part, str] = {
            "requests": " · ".join(parts),
            "missed": f"{len(self._missed)} reason{'s' * (len(self._missed) != 1)}" if self._missed else "",
            "offer": "",
            "blocked": f"{len(self._blocked):,}" if self._blocked else "",
        }
        for part, aside in asides.items():
            self._section(part).paint_heading(aside, folded=not self.has_class("-wide"))

    def _share_room(self) -> None:
        """Where all parts are seen, each has the lines it needs, or its share; the requests what is left."""
        sections = [self._section(part) for part in ("requests", "missed", "blocked")]
        if not self.has_class("-wide"):
            for section in sections[1:]:
                section.styles.clear_rule("height")
            return
        room = self.query_one("#tables").size.height - 2  # one empty line between two parts
        wants = [section.wanted_lines(section.size.width) for section in sections]
        for section, lines in zip(sections[1:], share(room, wants)[1:], strict=True):
            section.styles.height = lines

    @on(Table.Moved)
    @on(FactList.Moved)
    def _moved(self) -> None:
        self._paint_detail()

    def _paint_detail(self) -> None:
        say(self.query_one("#detail", Static), self._detail())

    def _detail(self) -> Content:
        focused = self.focused
        if isinstance(focused, FactList):
            fact = focused.highlighted
            if fact is None:
                return Content("")
            return Content.assemble(fact.help, "\n", (fact.change, "$foreground 60%"))
        blocked = {one.user for one in self._blocked}
        return served_rows.in_full(self._under_cursor(), blocked, self._now_ms)

    # What can be done here.

    def _open(self, part: str) -> None:
        super()._open(part)
        self.call_after_refresh(self._paint)  # what is open now had no width before

    def action_copy(self) -> None:
        """Copy the key of the user under the cursor."""
        match self._under_cursor():
            case Served(user=user) | BlockedUser(user=user) if user:
                self.app.copy(id_text(user), "key of the user")
            case _:
                self.app.flash("no user is under the cursor")

    @on(events.Click, "#headline, #reach")
    async def _clicked(self, event: events.Click) -> None:
        if action_id := event.style.meta.get("leads_to"):
            await self.run_action(f"app.perform({action_id!r})")

    @on(FactList.Chosen)
    def _chosen(self, event: FactList.Chosen) -> None:
        self.app.attempt(
            provide_settings.change(self.app, event.fact.setting, self._changed), group="change", screen=self
        )

    def _changed(self, name: str, before: object) -> None:
        self._settings = [*self._settings, (name, before)][-UNDONE:]
        self.app.flash(f"{name.replace('_', ' ')} is saved · ctrl+z undoes")
        self._read()

    def action_undo(self) -> None:
        """Take the last change of a setting back."""
        if not self._settings:
            self.app.flash("no setting to take back")
            return
        name, before = self._settings.pop()

        async def undo() -> None:
            await self.app.node.change_setting(name, before)
            self.app.flash(f"{name.replace('_', ' ')} is {settings.shown(before)} again")
            self._read()

        self.app.attempt(undo(), group="change", screen=self)

    def action_end(self) -> None:
        """End the request under the cursor, after a question."""
        one = self._under_cursor()
        if not isinstance(one, Served) or one.ended_ms:
            self.app.flash("no running request is under the cursor")
            return

        async def end() -> None:
            await self.app.node.end_served(one.number)
            self._stale = True
            self._read()

        def answered(yes: bool | None) -> None:
            if yes:
                self.app.attempt(end(), group="end")

        self.app.push_screen(
            Confirm(
                f"End request {one.number}?",
                f"Its user, {served_rows.user_text(one.user)}, keeps what came until now and is told that it "
                "ended here. This cannot be undone.",
                "End it",
            ),
            answered,
        )

    def action_block(self) -> None:
        """Block the user under the cursor, or take that back."""
        one = self._under_cursor()
        if not isinstance(one, Served | BlockedUser) or not one.user:
            self.app.flash("no user is under the cursor")
            return
        is_blocked = any(each.user == one.user for each in self._blocked)
        self.app.attempt(self._block(one.user, not is_blocked), group="block")

    async def _block(self, user: bytes, blocked: bool) -> None:
        await self.app.node.block_user(user, blocked)
        who = served_rows.user_text(user)
        self.app.flash(f"{who} is blocked · b takes it back" if blocked else f"{who} may ask again")
        self._stale = True
        self._read()
