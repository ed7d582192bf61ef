"""The Network view: peers, known nodes, what was refused, and this node among them.

It shows what Node says and reads it anew when Node says that it changed; only ages and rates move by
themselves, and only while they are seen.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Static

from infraxa.app.events import Event, NetworkChanged, NodesChanged, PeersChanged
from infraxa.app.tui.screens.full_view import SectionedView
from infraxa.app.tui.widgets import network_rows as rows
from infraxa.app.tui.widgets.node_facts import facts, headline, notices
from infraxa.app.tui.widgets.sections import Section, share
from infraxa.app.tui.widgets.status_bar import StatusBar
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.traffic import Traffic
from infraxa.app.tui.widgets.view_tabs import ViewTabs
from infraxa.net.identity import id_text
from infraxa.net.status import Activity, NetworkStatus, PeerInfo, Refused, SeenNode

if TYPE_CHECKING:
    from infraxa.app.facade import NodeFacade

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


class NetworkScreen(SectionedView):
    """The peers, the nodes and the refused as tables, this node beside them."""

    PARTS = PARTS
    BESIDE = "self"
    AUTO_FOCUS = "#peers Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "app.perform('network.invite')", "Invite", show=False),
        Binding("j", "app.perform('network.join')", "Join", show=False),
        Binding("y", "copy", "Copy the id", show=False),
        Binding("Y", "copy_own", "Copy the own id", show=False),
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
        self._stale: set[Part] = set(PARTS)
        """What must be read again."""
        self._reading: Timer | None = None

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

    def on_mount(self) -> None:
        self._open("peers")

    def on_screen_resume(self) -> None:
        """It is seen again: read all that changed meanwhile."""
        self._stale.update(PARTS)
        self._read()

    def on_resize(self) -> None:
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
        if self._node_is_another():
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

    @on(Table.Moved)
    def _moved(self) -> None:
        self._paint_detail()

    def _paint_detail(self) -> None:
        one = self._under_cursor()
        self.query_one("#detail", Static).update(rows.in_full(one) if one is not None else "")

    # What can be done here.

    def action_copy(self) -> None:
        """Copy the id of what is under the cursor; in the part on this node, its own."""
        match self._under_cursor():
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
