"""The Network view: peers, known nodes, what was refused, and this node among them.

It shows what Node says and reads it anew when Node says that it changed; only ages and rates move by
themselves, and only while they are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from infraxa.app.events import Event, NetworkChanged, NodesChanged, PeersChanged
from infraxa.app.tui.widgets import network_rows as rows
from infraxa.app.tui.widgets.node_facts import facts, headline, notices
from infraxa.app.tui.widgets.sections import Section, share
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Column, Table
from infraxa.app.tui.widgets.traffic import Traffic
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.net.identity import id_text
from infraxa.net.status import Activity, NetworkStatus, PeerInfo, Refused, SeenNode

if TYPE_CHECKING:
    from infraxa.app.facade import NodeFacade
    from infraxa.app.tui.app import InfraxaApp

SHOWN_NODES = 200
"""Known nodes that are listed, those last heard of; all are counted."""
CALM = 0.25
"""Seconds between two readings of what changed, however often it does."""
NOTICE_LINES = 4

HINTS = (
    ("i", "invite", "app.perform('network.invite')"),
    ("j", "join", "app.perform('network.join')"),
    ("y", "copy id", "screen.copy"),
    ("Tab", "next part", "screen.part(1)"),
    ("s", "sort", "screen.sort"),
    ("Esc", "chat", "app.perform('app.chat')"),
)
NO_PEERS = """No peers yet.

On the same network they are found by themselves. Elsewhere, press i here to make an invite and send it to \
somebody, or j to use one that you were sent."""
_NO_PEERS: dict[Activity, str] = {
    "starting": "The network is starting.",
    "closing": "The network is being left.",
    "off": "The network is off: this machine alone.\n\nTurn on the setting online (F9) to find other nodes.",
    "blocked": "The network cannot be used; above stands why, and what helps.",
}
"""What is said in place of peers when none can be there."""

Part = Literal["peers", "nodes", "refused", "self"]
PARTS: tuple[Part, ...] = ("peers", "nodes", "refused", "self")


class NetworkScreen(Screen[None]):
    """Made once; it stays, with its order and cursors, while another view is shown."""

    app: InfraxaApp
    AUTO_FOCUS = "#peers Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.chat", "Chat", show=False),
        Binding("i", "app.perform('network.invite')", "Invite", show=False),
        Binding("j", "app.perform('network.join')", "Join", show=False),
        Binding("y", "copy", "Copy the id", show=False),
        Binding("Y", "copy_own", "Copy the own id", show=False),
        Binding("tab", "part(1)", "Next part", show=False),
        Binding("shift+tab", "part(-1)", "Part before", show=False),
    ]
    DEFAULT_CSS = """
    NetworkScreen { background: $background; layers: base top; }
    NetworkScreen #headline { height: 2; width: 1fr; padding: 1 1 0 1; }
    NetworkScreen #notices { height: auto; width: 1fr; padding: 0 1; display: none; }
    NetworkScreen #notices.-shown, NetworkScreen #refused-counts.-shown { display: block; }
    NetworkScreen #network { height: 1fr; width: 1fr; margin-top: 1; }
    NetworkScreen #tables { height: 3; width: 1fr; padding: 0 1; }
    NetworkScreen #tables.-open { height: 1fr; }
    NetworkScreen #refused-counts {
        height: auto; max-height: 2; width: 1fr; color: $foreground 60%; display: none;
    }
    NetworkScreen Table { height: 1fr; }
    NetworkScreen #self { padding: 0 1; }
    NetworkScreen #facts-scroll {
        height: 1fr; scrollbar-size-vertical: 1; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
    }
    NetworkScreen #facts {
        height: auto; width: 1fr; link-style: none; link-color: $foreground 60%;
        link-background: transparent;
    }
    NetworkScreen #detail {
        height: 2; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    NetworkScreen.-short #detail, NetworkScreen.-short #notices.-shown { display: none; }
    NetworkScreen.-short #headline { height: 1; padding: 0 1; }
    NetworkScreen.-short #network { margin-top: 0; }

    NetworkScreen.-wide #headline { padding: 1 2 0 2; }
    NetworkScreen.-wide #notices { padding: 0 2; }
    NetworkScreen.-wide #tables { height: 1fr; padding: 0 2; }
    NetworkScreen.-wide #nodes, NetworkScreen.-wide #refused { margin-top: 1; }
    NetworkScreen.-wide #self { dock: right; width: 44; height: 1fr; background: $surface; padding: 1 2; }
    NetworkScreen.-wide #facts-scroll {
        margin-top: 1; scrollbar-background: $surface;
        scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
    }
    NetworkScreen.-wide #detail { height: 3; padding: 1 2 0 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self._status = NetworkStatus()
        self._peers: list[PeerInfo] = []
        self._known: list[SeenNode] = []
        self._refused: list[Refused] = []
        self._listed_at = 0.0
        """When the nodes were listed, in seconds."""
        self._had_node = True
        self._stale: set[Part] = set(PARTS)
        """What must be read again."""
        self._reading: Timer | None = None
        self._ticking: Timer | None = None

    def compose(self) -> ComposeResult:
        yield ViewTabs("app.network", HINTS)
        yield Static("", id="headline", markup=False)
        yield Static("", id="notices", markup=False)
        with Vertical(id="network"):
            with Vertical(id="tables", classes="-open"):
                yield Section("peers", "Peers", self._table(rows.PEERS, NO_PEERS, sort_by=4))
                yield Section(
                    "nodes", "Nodes", self._table(rows.NODES, "No other node is known yet.", sort_by=2)
                )
                yield Section(
                    "refused",
                    "Refused",
                    Static("", id="refused-counts", markup=False),
                    self._table(rows.REFUSALS, "Nothing was refused: everybody keeps to the protocol."),
                )
            yield Section(
                "self",
                "This node",
                VerticalScroll(Static("", id="facts", markup=False), id="facts-scroll", classes="part-body"),
            )
            yield Static("", id="detail", markup=False)
        yield StatusBar(id="status", time_of_day=self.app.clock, hints=("app.help", "app.palette"))
        yield Static("", id="too-small", markup=False)

    def _table(self, columns: Sequence[Column], empty: str, *, sort_by: int = 0) -> Table:
        table = Table(columns, empty=empty, sort_by=sort_by)
        table.add_class("part-body")
        return table

    def on_mount(self) -> None:
        self.query_one(StatusBar).follow(self.app.chat_screen.query_one(StatusBar))
        self.app.told.subscribe(self, self._hear)
        self._ticking = self.set_interval(1.0, self._tick, pause=True)
        self._open("peers")

    def on_screen_resume(self) -> None:
        """It is seen again: read all that changed meanwhile, and let the seconds run."""
        self._stale.update(PARTS)
        self._read()
        if self._ticking is not None:
            self._ticking.resume()

    def on_screen_suspend(self) -> None:
        """Nobody looks."""
        if self._ticking is not None:
            self._ticking.pause()

    def on_resize(self) -> None:
        width, height = self.size
        if width < 32 or height < 8:
            self.query_one("#too-small", Static).update(
                f"infraxa needs a terminal of 32×8; this one is {width}×{height}."
            )
        self.call_after_refresh(self._paint)

    # Reading what Node knows.

    def _hear(self, event: Event) -> None:
        match event:
            case NetworkChanged():
                self._stale |= {"self", "refused"}
            case PeersChanged():
                self._stale.add("peers")
            case NodesChanged():
                self._stale.add("nodes")
            case _:
                return
        if self.is_current and self._reading is None:
            self._reading = self.set_timer(CALM, self._read)

    def _read(self) -> None:
        self._reading = None
        self.app.attempt(self._fetch(), group="network", screen=self)

    async def _fetch(self) -> None:
        """Read what changed, and show it. All that this view knows of Node comes in here."""
        if not self.app.opened:
            self._status, self._peers, self._known, self._refused = NetworkStatus(), [], [], []
            self._paint()
            return
        node = self.app.node
        self._status = node.network
        for part in tuple(self._stale):
            self._stale.discard(part)
            await self._fetch_part(node, part)
        self._paint()

    async def _fetch_part(self, node: NodeFacade, part: Part) -> None:
        if part == "peers":
            self._peers = await node.list_peers()
            links = {rows.peer_key(peer): (peer.bytes_in, peer.bytes_out) for peer in self._peers}
            self.traffic.take(self.app.clock(), links)
        elif part == "nodes":
            self._known = await node.list_nodes()
            self._listed_at = self.app.clock()
        elif part == "refused":
            self._refused = await node.list_refused()

    def _tick(self) -> None:
        """A second later: ages, what the links carried, the seconds of a wait."""
        if self.app.opened != self._had_node:  # it was lost, or is there again
            self._had_node = self.app.opened
            self._stale.update(PARTS)
            self._read()
        elif self.app.opened:
            self._stale.add("peers")
            self._read()

    # Showing it.

    def _paint(self) -> None:
        status, now_ms = self._status, int(self.app.clock() * 1000)
        width = max(20, self.size.width - (2 if self.has_class("-narrow") else 4))
        self.query_one("#headline", Static).update(headline(status, self.traffic, now_ms, width))
        said = self.query_one("#notices", Static)
        said.update(notices(status, width, NOTICE_LINES))
        said.set_class(bool(status.notices), "-shown")
        peers = self._section("peers").query_one(Table)
        peers.empty = _NO_PEERS.get(status.activity, NO_PEERS)
        peers.show(rows.peer_rows(self._peers, now_ms))
        older = self.app.clock() - self._listed_at
        newest = nsmallest(SHOWN_NODES, self._known, key=lambda node: node.age_s)
        self._section("nodes").query_one(Table).show(rows.node_rows(newest, older))
        self._section("refused").query_one(Table).show(rows.refused_rows(self._refused, now_ms))
        counts = self.query_one("#refused-counts", Static)
        counts.update(rows.counts_text(status.refused))
        counts.set_class(bool(status.refused), "-shown")
        inner = self.query_one("#facts-scroll").scrollable_content_region.width
        if inner:
            self.query_one("#facts", Static).update(
                facts(status, next(iter(newest), None), self.traffic, inner)
            )
        self._paint_headings()
        self._share_room()

    def _paint_headings(self) -> None:
        more = f", the newest {SHOWN_NODES} are shown" if len(self._known) > SHOWN_NODES else ""
        asides: dict[Part, str] = {
            "peers": f"{len(self._peers)}",
            "nodes": f"{len(self._known):,}{more}",
            "refused": f"{sum(self._status.refused.values()):,}",
            "self": "",
        }
        for part, aside in asides.items():
            self._section(part).paint_heading(aside, folded=not self.has_class("-wide"))

    def _share_room(self) -> None:
        """Where all parts are seen, each table gets the lines it needs, or its share."""
        sections = [self._section(part) for part in PARTS[:3]]
        if not self.has_class("-wide"):
            for section in sections:
                section.styles.clear_rule("height")
            return
        room = self.query_one("#tables").size.height - 2  # one empty line between two parts
        wants = [section.wanted_lines(section.size.width) for section in sections]
        for section, lines in zip(sections, share(room, wants), strict=True):
            section.styles.height = lines

    def _section(self, part: Part) -> Section:
        return self.query_one(f"#{part}", Section)

    @on(Table.Moved)
    def _moved(self) -> None:
        self._paint_detail()

    def _paint_detail(self) -> None:
        row = self.focused.highlighted if isinstance(self.focused, Table) else None
        self.query_one("#detail", Static).update(rows.in_full(row.of) if row is not None else "")

    # What can be done here.

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        for part in PARTS:
            if self._section(part) in event.widget.ancestors:
                self._open(part)
        self._paint_detail()

    def _open(self, part: Part) -> None:
        for each in PARTS:
            self._section(each).set_class(each == part, "-open")
        self.query_one("#tables").set_class(part != "self", "-open")
        self._paint_headings()

    def action_open(self, part: Part) -> None:
        """Go to a part, which a narrow screen then shows."""
        self._open(part)
        self.call_after_refresh(self._section(part).body.focus)

    def action_part(self, step: int) -> None:
        """Go to the next part, or the one before."""
        shown = next(at for at, part in enumerate(PARTS) if self._section(part).has_class("-open"))
        self.action_open(PARTS[(shown + step) % len(PARTS)])

    def action_sort(self) -> None:
        """Sort the table that has the focus by its next column."""
        if isinstance(self.focused, Table):
            self.focused.action_sort()

    def action_copy(self) -> None:
        """Copy the id of what is under the cursor; in the part on this node, its own."""
        row = self.focused.highlighted if isinstance(self.focused, Table) else None
        match row.of if row is not None else None:
            case PeerInfo(id=node) | SeenNode(id=node) | Refused(peer=bytes() as node) if node:
                self.app.copy(id_text(node), "id")
            case PeerInfo(address=address) | Refused(address=address):
                self.app.copy(rows.address_text(address), "address")
            case _:
                self.action_copy_own()

    def action_copy_own(self) -> None:
        """Copy this node's whole id."""
        if self._status.id:
            self.app.copy(id_text(self._status.id), "id of this node")
