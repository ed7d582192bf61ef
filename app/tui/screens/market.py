"""The Market view: who offers which model, how each does, and which of them answers the shown chat.

It reads what Node says at most once a second and stays calm meanwhile: columns have their widths, rows their
places, the cursor its row. What is in the table is in market_rows.py, what is said around it in
market_words.py.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from infraxa.app.config import ANY, LOCAL
from infraxa.app.events import Event, NetworkChanged, NodesChanged, OffersChanged, SettingsChanged
from infraxa.app.offers import Mark, OfferSeen
from infraxa.app.tui.screens.full_view import FullView
from infraxa.app.tui.widgets import market_rows as rows
from infraxa.app.tui.widgets import market_words as words
from infraxa.app.tui.widgets.driver import CHOSEN_BY_INFRAXA, THIS_MACHINE
from infraxa.app.tui.widgets.market_rows import Wanted, who
from infraxa.app.tui.widgets.offer_facts import card, in_lines
from infraxa.app.tui.widgets.price_line import NO_PAST, PricePast
from infraxa.app.tui.widgets.sections import say
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.net.credits import CREDIT
from infraxa.net.identity import id_text
from infraxa.net.status import NetworkStatus

if TYPE_CHECKING:
    pass

CALM = 1.0
"""Seconds between two readings of what changed, and between two paintings of what it leads to."""
SETTLED = 5.0
"""Seconds for which rows keep their places, whatever they are sorted by says meanwhile."""
WATCHED = 8
"""Nodes whose health is asked for every second while somebody looks."""
CARD_FROM = 150
"""Columns of a screen on which all of the row under the cursor stands beside the table."""
PAST_AGE = 60.0
"""Seconds after which the prices of the last day are read again, while they are looked at."""
MOST_PASTS = 512
"""Offers whose prices of the last day are kept."""
UNDONE = 20
"""Marks that can be taken back."""

HINTS = (
    ("Enter", "use", "screen.choose"),
    ("/", "filter", "screen.filter"),
    ("p", "pin", "screen.pin"),
    ("b", "block", "screen.block"),
    ("s", "sort", "screen.sort"),
    ("Esc", "chat", "app.perform('app.chat')"),
)


class FilterBox(Input):
    """Where the words of the filter are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "screen.show_all", "Show all", show=False),
        Binding("down,tab", "screen.to_table", "To the table", show=False),
    ]


class MarketScreen(FullView):
    """It keeps its filter too, while another view is shown."""

    TICK = CALM
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Chat", show=False),
        Binding("slash", "filter", "Filter", show=False),
        Binding("f", "only('free')", "Free only", show=False),
        Binding("o", "only('online')", "Online only", show=False),
        Binding("m", "only('most')", "Up to the highest price", show=False),
        Binding("p", "pin", "Pin", show=False),
        Binding("b", "block", "Block", show=False),
        Binding("ctrl+z", "undo", "Undo", show=False),
        Binding("a", "auto", "Let infraxa choose", show=False),
        Binding("A", "auto_model", "Let infraxa choose who has this model", show=False),
        Binding("l", "local", "This machine", show=False),
        Binding("y", "copy", "Copy the id", show=False),
    ]
    DEFAULT_CSS = """
    MarketScreen { background: $background; layers: base top; }
    MarketScreen #bar { height: 2; width: 1fr; padding: 1 1 0 1; }
    MarketScreen #headline { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    MarketScreen #filter {
        height: 1; width: 28; padding: 0 1; border: none; background: $panel; display: none; margin-left: 2;
    }
    MarketScreen #filter.-open { display: block; }
    MarketScreen.-narrow #filter { width: 18; margin-left: 1; }
    MarketScreen #switches, MarketScreen #answering {
        height: 1; link-style: none; link-color: $foreground 60%; link-background: transparent;
        link-style-hover: none; link-color-hover: $foreground; link-background-hover: $block-hover-background;
    }
    MarketScreen #switches { width: auto; margin-left: 2; }
    MarketScreen #answering { width: 1fr; padding: 0 1; }
    MarketScreen #market { height: 1fr; width: 1fr; margin-top: 1; padding: 0 1; }
    MarketScreen Table { height: 1fr; scrollbar-gutter: stable; }
    MarketScreen #offer {
        display: none; width: 46; height: 1fr; background: $surface; padding: 1 2; margin-left: 2;
        scrollbar-size-vertical: 1; scrollbar-background: $surface;
        scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
    }
    MarketScreen #offer-text {
        height: auto; width: 1fr; link-style: none; link-color: $foreground 60%; link-background: transparent;
    }
    MarketScreen #detail {
        height: 5; width: 1fr; padding: 1 1 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    MarketScreen.-short #detail { display: none; }
    MarketScreen.-short #bar { height: 1; padding: 0 1; }
    MarketScreen.-short #market { margin-top: 0; }
    MarketScreen.-wide #bar { padding: 1 2 0 2; }
    MarketScreen.-wide #answering, MarketScreen.-wide #market { padding: 0 2; }
    MarketScreen.-wide #detail { padding: 1 2 0 2; }
    MarketScreen.-card #offer { display: block; }
    MarketScreen.-card #detail { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()
        self._status = NetworkStatus()
        self._offers: list[OfferSeen] = []
        self._listed_at = 0.0
        """When the offers were listed, in seconds."""
        self._placed_at = 0.0
        """When the rows were given their places; monotonic."""
        self._stale = True
        """There is something new to read."""
        self._reading = False
        self._watched: tuple[bytes, ...] = ()
        self._pasts: dict[bytes, PricePast] = {}
        """Prices of the last day, by `offer_key`."""
        self._pasts_at: dict[bytes, float] = {}
        """When they were read; monotonic."""
        self._fetching = False
        self._marked: list[tuple[OfferSeen, Mark, Mark]] = []
        """Providers that were marked, and how they were before, the last one at the end."""

    def compose(self) -> ComposeResult:
        yield ViewTabs("app.market", HINTS)
        with Horizontal(id="bar"):
            yield Static("", id="headline", markup=False)
            yield FilterBox(placeholder="provider or model", id="filter", compact=True)
            yield Static("", id="switches", markup=False)
        yield Static("", id="answering", markup=False)
        with Horizontal(id="market"):
            yield Table(rows.COLUMNS, empty="", sort_by=rows.BEST)
            with VerticalScroll(id="offer", can_focus=False):
                yield Static("", id="offer-text", markup=False)
        yield Static("", id="detail", markup=False)
        yield StatusBar(id="status", time_of_day=self.app.clock, hints=("app.help", "app.palette"))
        yield Static("", id="too-small", markup=False)

    def on_screen_resume(self) -> None:
        """It is seen again: read what changed meanwhile, and begin with a whole second."""
        self._stale = True
        self._read()
        if self._ticking is not None:
            self._ticking.reset()

    def on_screen_suspend(self) -> None:
        """Nobody looks: nobody's health is asked for."""
        self._watch(())

    def on_resize(self) -> None:
        self.set_class(self.size.width >= CARD_FROM, "-card")
        self.call_after_refresh(self._paint)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    # Reading what Node knows.

    def _hear(self, event: Event) -> None:
        if isinstance(event, NodesChanged | OffersChanged | NetworkChanged | SettingsChanged):
            self._stale = True  # the next second shows it

    def _tick(self) -> None:
        """A second later: what changed, or at least the ages."""
        if self._node_is_another():
            self._stale = True
        if self._stale:
            self._read()
        elif self._offers:
            self._paint()

    def _read(self) -> None:
        if not self._reading:
            self._reading = True
            self.app.attempt(self._fetch(), group="market", screen=self)

    async def _fetch(self) -> None:
        """Read what there is, and show it. All that this view knows of Node comes in here."""
        self._stale = False
        try:
            if self.app.opened:
                node = self.app.node
                self._status = node.network
                self._offers = await node.list_offers()
                self._listed_at = self.app.clock()
            else:
                self._status, self._offers, self._watched = NetworkStatus(), [], ()
        finally:
            self._reading = False
        self._paint()

    async def _fetch_pasts(self) -> None:
        """Read the prices of the last day of what is looked at, one after the other."""
        changed = False
        try:
            while self.app.opened and self.is_current and (offer := self._next_past()) is not None:
                points = await self.app.node.price_history(offer.node.id, offer.model.model_id)
                past = self._pasts.pop(key := rows.offer_key(offer), NO_PAST)
                self._pasts[key] = PricePast(points, round(self.app.clock() * 1000))
                self._pasts_at[key] = monotonic()
                changed = changed or list(past.points) != points
                while len(self._pasts) > MOST_PASTS:
                    del self._pasts[next(iter(self._pasts))]
        finally:
            self._fetching = False
        if changed:
            self._paint()

    def _next_past(self) -> OfferSeen | None:
        """The next offer whose prices are not known, or old: that under the cursor, then those in sight."""
        table = self.table
        looked_at = [table.highlighted, *(table.in_sight if table.size.width >= rows.PAST_FROM else ())]
        due = monotonic() - PAST_AGE
        offers = (row.of for row in looked_at if row is not None)
        return next(
            (
                offer
                for offer in offers
                if isinstance(offer, OfferSeen) and self._pasts_at.get(rows.offer_key(offer), due) <= due
            ),
            None,
        )

    def _look_back(self) -> None:
        if not self._fetching and self.app.opened and self._next_past() is not None:
            self._fetching = True
            self.app.attempt(self._fetch_pasts(), group="past prices", screen=self)

    @property
    def _max_price(self) -> int | None:
        """The setting, in µcr per 1M tokens."""
        most = self.app.settings.max_price
        return None if most is None else round(most * CREDIT)

    def _watch(self, nodes: tuple[bytes, ...]) -> None:
        """Have the health of these asked for, and of no others."""
        if set(nodes) == set(self._watched):
            return
        self._watched = nodes
        if self.app.opened:
            self.app.attempt(self.app.node.watch_nodes(nodes), group="watch")

    # Showing it.

    @property
    def _older(self) -> float:
        """Seconds since the offers were listed."""
        return max(0.0, self.app.clock() - self._listed_at)

    def _paint(self, *, settle: bool = False) -> None:
        """`settle`: rows take their places now, because a person asked for another picture."""
        table, now = self.table, monotonic()
        settle = settle or now - self._placed_at >= SETTLED
        if settle:
            self._placed_at = now
        most = self._max_price
        if self.wanted.most is not None and self.wanted.most != most:
            self.wanted = self.wanted._replace(most=most)
        shown = self._offers
        if self.wanted != Wanted():
            shown = [offer for offer in shown if self.wanted.shows(offer)]
        table.empty = words.nothing(self._offers, self.wanted, self._status)
        driver = words.driver_of(self.app.chat_screen.driver)
        shown_rows = rows.offer_rows(shown, self._older, driver, self._pasts, most)
        table.show(shown_rows, keep_places=not settle)
        self._paint_head(len(shown))
        self._paint_detail()
        self._watch_what_is_seen()
        self._look_back()

    def _watch_what_is_seen(self) -> None:
        if not self.is_current:
            return
        table = self.table
        pinned = (offer for offer in self._offers if offer.mark == "pinned")
        self._watch(rows.watched(table.in_sight, table.highlighted, pinned, WATCHED))

    def _static(self, where: str) -> Static:
        return self.query_one(where, Static)

    def _paint_head(self, shown: int) -> None:
        """All that stands above the table. `shown`: rows that the filter leaves."""
        short = self.has_class("-narrow") or self.has_class("-too-narrow")
        is_open = self.query_one(FilterBox).has_class("-open")
        shorter = short and (is_open or self.size.width < 70)
        say(self._static("#headline"), words.headline(self._offers, shown, short=shorter))
        switches = words.switches(self.wanted, self._max_price, can_open=not is_open, short=short)
        say(self._static("#switches"), switches, layout=True)
        say(
            self._static("#answering"),
            words.answering(self.app.chat_screen.driver, self._offers, short=short),
        )

    def _paint_detail(self) -> None:
        offer = self._offer()
        past = self._pasts.get(rows.offer_key(offer), NO_PAST) if offer is not None else NO_PAST
        if self.has_class("-card"):
            width = self.query_one("#offer-text").size.width
            text = card(offer, self._older, width, past) if offer is not None and width else Content("")
            shown = self._static("#offer-text")
            # All is laid out anew only for a card of another height: numbers change every second.
            said = shown.content.plain if isinstance(shown.content, Content) else ""
            say(shown, text, layout=said.count("\n") != text.plain.count("\n"))
        else:
            width = max(20, self.size.width - (4 if self.has_class("-wide") else 2))
            text = in_lines(offer, self._older, width, past) if offer is not None else Content("")
            say(self._static("#detail"), text)

    def _offer(self) -> OfferSeen | None:
        """The one under the cursor."""
        row = self.table.highlighted
        return row.of if row is not None and isinstance(row.of, OfferSeen) else None

    @on(Table.Moved)
    def _moved(self) -> None:
        self._paint_detail()
        self._watch_what_is_seen()
        self._look_back()

    # What can be done here.

    def action_sort(self) -> None:
        self.table.action_sort()

    def action_copy(self) -> None:
        """Copy the id of the provider under the cursor."""
        if (offer := self._offer()) is not None:
            self.app.copy(id_text(offer.node.id), "id")

    def action_back(self) -> None:
        """Show all again; when all is shown, the chat."""
        if self.wanted != Wanted():
            self.action_show_all()
        else:
            self.app.action_chat()

    def action_filter(self) -> None:
        box = self.query_one(FilterBox)
        box.add_class("-open")
        box.focus()
        self._paint_head(len(self.table.rows))

    def action_to_table(self) -> None:
        """Back to the rows; the words stay in sight while there are any."""
        box = self.query_one(FilterBox)
        box.set_class(bool(box.value.strip()), "-open")
        self.table.focus()
        self._paint(settle=True)

    def action_show_all(self) -> None:
        """No filter any more."""
        self.wanted = Wanted()
        self.query_one(FilterBox).value = ""
        self.action_to_table()

    def action_only(self, what: str) -> None:
        """Show only what is free, online, or not dearer than the setting max_price; or the others again."""
        if what == "free":
            self.wanted = self.wanted._replace(free=not self.wanted.free)
        elif what == "most":
            self.wanted = self.wanted._replace(most=None if self.wanted.most is not None else self._max_price)
        else:
            self.wanted = self.wanted._replace(online=not self.wanted.online)
        self._paint(settle=True)

    @on(Input.Changed)
    def _filter_typed(self, event: Input.Changed) -> None:
        self.wanted = self.wanted._replace(words=event.value)
        self._paint(settle=True)

    @on(Input.Submitted)
    def _filter_entered(self) -> None:
        self.action_to_table()

    def action_pin(self) -> None:
        """Pin the provider under the cursor, or take that back."""
        self._toggle_mark("pinned")

    def action_block(self) -> None:
        """Block the provider under the cursor, or take that back."""
        self._toggle_mark("blocked")

    def _toggle_mark(self, mark: Mark) -> None:
        if (offer := self._offer()) is not None:
            wanted: Mark = "" if offer.mark == mark else mark
            self._marked = [*self._marked, (offer, offer.mark, wanted)][-UNDONE:]
            self._mark(offer, offer.mark, wanted, "ctrl+z undoes")

    def action_undo(self) -> None:
        """Take the last mark back."""
        if self._marked:
            offer, before, mark = self._marked.pop()
            self._mark(offer, mark, before, "undone")

    def _mark(self, offer: OfferSeen, was: Mark, mark: Mark, after: str) -> None:
        says = {
            "pinned": "is pinned above all others",
            "blocked": "is blocked: nothing is sent to it",
            "": f"is {was} no more",
        }[mark]

        async def mark_it() -> None:
            await self.app.node.mark_provider(offer.node.id, mark)
            self.app.flash(f"{who(offer.node)} {says} · {after}")
            self._offers = await self.app.node.list_offers()
            self._listed_at = self.app.clock()
            self._paint(settle=True)

        self.app.attempt(mark_it(), group="mark", screen=self)

    @on(Table.Chosen)
    def _chosen(self) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        """Have the provider under the cursor answer the shown chat, with the model of its row."""
        if (offer := self._offer()) is None:
            return
        if offer.mark == "blocked":
            # In the place where it is said when that is taken back.
            self.app.flash(f"{who(offer.node)} is blocked by you: b takes that back")
            return
        if offer.problem:
            why = one_line(offer.problem, 200)
            self.app.notify(f"{who(offer.node)}: {why}", severity="warning", markup=False)
            return
        self._use(id_text(offer.node.id), offer.model.model_id.hex(), who(offer.node))

    def action_auto(self) -> None:
        """Have infraxa choose for each answer who gives it."""
        self._use(ANY, None, CHOSEN_BY_INFRAXA)

    def action_auto_model(self) -> None:
        """The same, but only among those that offer the very model under the cursor."""
        if (offer := self._offer()) is not None:
            name = rows.label(offer.model.name) or "this model"
            self._use(ANY, offer.model.model_id.hex(), f"{CHOSEN_BY_INFRAXA} with {name}")

    def action_local(self) -> None:
        """Have this machine answer."""
        self._use(LOCAL, None, THIS_MACHINE)

    def _use(self, driver: str, model: str | None, label: str) -> None:
        if self.app.opened:
            self.app.attempt(self.app.chat_screen.use_driver(driver, model, label), group="driver")
