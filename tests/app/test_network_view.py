"""The Network view: what it shows, what can be done in it, and that the chat is unharmed by it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input, Static

from infraxa.app.network_words import REFUSED as MEANINGS
from infraxa.app.network_words import clock, refused, span
from infraxa.app.node import Node
from infraxa.app.tui.actions import VIEWS
from infraxa.app.tui.screens import invites
from infraxa.app.tui.screens.dialogs import Confirm
from infraxa.app.tui.screens.help import HelpScreen
from infraxa.app.tui.screens.invites import InviteInput, InviteScreen, JoinScreen, grouped
from infraxa.app.tui.screens.models import ModelsScreen
from infraxa.app.tui.screens.network import PARTS, NetworkScreen
from infraxa.app.tui.widgets.network_rows import counts_text
from infraxa.app.tui.widgets.sections import share
from infraxa.app.tui.widgets.status_bar import Status, StatusBar
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.traffic import Traffic, sparkline
from infraxa.net.errors import REFUSALS, NetError
from infraxa.net.identity import display, id_text
from infraxa.net.status import NetworkStatus, PeerInfo, Refused, SeenNode, Waiting
from tests.app.shell import Shell, shell
from tests.app.still import ALONE, INVITE, ME, NODES, NOW, ONLINE, PEERS, REFUSED, TROUBLED, StillNode, an_id


def still(it: Shell) -> StillNode:
    node = it.node
    assert isinstance(node, StillNode)
    return node


def view(it: Shell) -> NetworkScreen:
    screen = it.app.screen
    assert isinstance(screen, NetworkScreen)
    return screen


def table(it: Shell, part: str) -> Table:
    return view(it).query_one(f"#{part} Table", Table)


async def open_network(it: Shell, *keys: str) -> None:
    await it.until(lambda: it.app.opened and it.chat.settled, "the store")
    await it.pilot.press(*(keys or ("alt+n",)))
    await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the Network view")
    await it.until(lambda: "peer" in it.screen_text(), "its first painting")


def now() -> float:
    return NOW / 1000


async def test_it_is_reached_by_key_slash_command_palette_and_mouse_and_esc_leads_back(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        onwards = ("ctrl+g",) * VIEWS.index("app.network")
        for way in (("alt+n",), onwards, ("/", *"network", "enter"), ("ctrl+p", *"network", "enter")):
            await open_network(it, *way)
            assert it.app.screen_stack == [it.chat, it.app.screen]
            await it.pilot.press("escape")
            await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert it.app.focused is it.chat.prompt.area
        tabs = it.screen_text().split("\n")[0]
        await it.pilot.click("ViewTabs", offset=(tabs.index("Network"), 0))
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view by its tab")
        await it.pilot.click("ViewTabs", offset=(11, 0))
        await it.until(lambda: it.app.screen is it.chat, "the chat by its tab")
        row = it.screen_text().split("\n")[-1]
        await it.pilot.click("StatusBar", offset=(row.index("6 peers"), 0))
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view by the status bar")


async def test_it_stays_as_it_was_while_another_view_is_shown(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        first = it.app.screen
        await it.pilot.press("down", "down", "s")
        chosen = table(it, "peers").highlighted
        await it.pilot.press("alt+c")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        await it.pilot.press("alt+n")
        await it.until(lambda: it.app.screen is first, "the same view")
        again = table(it, "peers").highlighted
        assert chosen is not None and again is not None and again.key == chosen.key
        await it.pilot.press("ctrl+g")
        await it.until(lambda: it.app.screen is it.chat, "the next view")


async def test_other_views_open_over_it_and_give_way_to_it(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        network = it.app.screen
        await it.pilot.press("f1")
        await it.until(lambda: isinstance(it.app.screen, HelpScreen), "the help")
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is network, "the view again")
        await it.pilot.press("ctrl+o")
        await it.until(lambda: isinstance(it.app.screen, ModelsScreen), "the models")
        await it.pilot.press("alt+c")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        it.app.push_screen(Confirm("Really?", "", "Yes"))
        await it.pilot.press("alt+n")
        await it.pilot.pause()
        assert isinstance(it.app.screen, Confirm)  # a question is answered first


async def test_an_answer_goes_on_under_it_and_is_whole(tmp_path: Path) -> None:
    class Held(StillNode):
        """With a real engine."""

        engine = Node.engine
        _load_at_start = Node._load_at_start

    async with shell(tmp_path, node=Held) as it:
        await it.opened()
        loaded = it.node.engine.loaded
        assert loaded is not None

        # Held before its first word: all of it comes while the view is open.
        os.kill(loaded.pid, signal.SIGSTOP)
        try:
            await it.type("tell me a story", "enter")
            await it.until(lambda: bool(it.chat.running), "the question")
            await it.pilot.press("alt+n")
            await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view")
            await it.until(lambda: "waiting for the first word" in it.screen_text(), "what is waited for")
        finally:
            os.kill(loaded.pid, signal.SIGCONT)
        await it.until(lambda: not it.chat.running and len(it.turns) == 2, "the end of the answer")
        await it.until(lambda: it.turns[-1].state == "complete", "the answer in the chat")
        assert isinstance(it.app.screen, NetworkScreen)
        await it.pilot.press("escape")
        said = it.turns[-1].content
        await it.until(lambda: said.split()[-1] in it.screen_text() and "tok/s" in it.screen_text(), "it all")
        assert it.chat.chat is not None
        assert said == (await it.node.branch(it.chat.chat.id))[-1].message.content


async def test_what_changed_is_shown_without_a_question_and_what_is_hidden_is_not_read(
    tmp_path: Path,
) -> None:
    class Counting(StillNode):
        asked = 0

        async def list_nodes(self) -> list[SeenNode]:
            self.asked += 1
            return await super().list_nodes()

    async with shell(tmp_path, node=Counting, clock=now) as it:
        await open_network(it)
        node = it.node
        assert isinstance(node, Counting)
        asked = node.asked
        node.become(ALONE)
        await it.until(lambda: "No peers yet." in it.screen_text(), "the news")
        assert "looking for peers · 3 s of 10 s" in it.screen_text()
        assert node.asked == asked + 1
        await it.pilot.press("escape")
        for _ in range(5):
            node.become(ONLINE, PEERS, NODES)
        await it.until(lambda: "6 peers" in it.screen_text(), "the status bar")
        assert node.asked == asked + 1
        await it.pilot.press("alt+n")
        await it.until(lambda: len(table(it, "peers").rows) == 6, "the peers again")


async def test_a_storm_of_changes_is_read_a_few_times_a_second(tmp_path: Path) -> None:
    class Counting(StillNode):
        asked = 0

        async def list_nodes(self) -> list[SeenNode]:
            self.asked += 1
            return await super().list_nodes()

    async with shell(tmp_path, node=Counting, clock=now) as it:
        await open_network(it)
        node = it.node
        assert isinstance(node, Counting)
        asked = node.asked
        for number in range(200):
            node.become(ONLINE, PEERS[: number % 6], NODES)
        node.become(ONLINE, PEERS[:3], NODES)
        await it.until(lambda: len(table(it, "peers").rows) == 3, "the last state")
        assert node.asked - asked < 50


async def test_rows_are_sorted_by_key_and_by_mouse(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        peers = table(it, "peers")

        def names() -> list[str]:
            return [row.of.name for row in peers.rows if isinstance(row.of, PeerInfo)]

        assert names()[0] == "birch"  # linked longest
        await it.pilot.press("S")
        assert names()[-1] == "birch"
        heading = peers.render_line(0).text
        await it.pilot.click(peers, offset=(heading.index("round"), 0))
        trips = [row.of.rtt_ms for row in peers.rows if isinstance(row.of, PeerInfo)]
        assert trips == [*sorted(trip for trip in trips if trip is not None), None]
        await it.pilot.press("s")
        assert peers.sorted_by == 4
        await it.pilot.click(peers, offset=(5, 3))
        assert peers.cursor == 2


async def test_the_row_under_the_cursor_is_told_in_full_and_its_id_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        monkeypatch.setattr(it.app, "copy", lambda text, what="": copied.append(text))
        still(it).become(TROUBLED, PEERS, NODES, REFUSED)
        await it.until(lambda: len(table(it, "refused").rows) == len(REFUSED), "the refusals")
        assert id_text(an_id("birch")) in it.screen_text()
        await it.pilot.press("y")
        await it.pilot.press("Y")
        await it.pilot.press("tab", "down", "down", "down")
        await it.until(lambda: "had it before" in it.screen_text(), "the impostor")
        await it.pilot.press("tab")
        await it.until(
            lambda: "Asked for more in this time than is allowed." in it.screen_text(), "the sentence"
        )
        await it.pilot.press("y", "end", "y")
        await it.pilot.press("tab", "y")
        assert copied == [
            id_text(an_id("birch")), id_text(ME), id_text(an_id("juniper")), "127.0.0.1:55310", id_text(ME),
        ]  # fmt: skip
        await it.pilot.press("shift+tab")
        await it.until(lambda: it.app.focused is table(it, "refused"), "the part before")


async def test_names_and_addresses_of_strangers_are_text(tmp_path: Path) -> None:
    evil = PeerInfo(
        an_id("evil"), "[red]\x1b]0;x\x07\u202eeve\n", "ws://[@click=app.quit]x[/]\x1b[2J:1",
        "in", "peer", NOW, 1.0, 0, 0,
    )  # fmt: skip
    async with shell(tmp_path, size=(200, 60), node=StillNode, clock=now) as it:
        await open_network(it)
        still(it).become(ONLINE, [evil], [])
        await it.until(lambda: "[red]" in it.screen_text(), "the name as it is")
        assert "[@click=app.quit]x[/]" in it.screen_text()
        assert not {"\x1b", "\x07", "\u202e"} & set(it.screen_text())


@pytest.mark.parametrize("size", [(32, 8), (80, 24), (120, 16), (200, 60)])
async def test_every_part_can_be_reached_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with shell(tmp_path, size=size, node=StillNode, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        await it.pilot.press("alt+n")
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view")
        still(it).become(TROUBLED, PEERS, NODES, REFUSED)
        for part in (*PARTS[1:], PARTS[0]):
            await it.pilot.press("tab")
            section = view(it).query_one(f"#{part}")
            await it.until(
                lambda section=section: it.app.focused is not None and section in it.app.focused.ancestors,  # type: ignore[misc] # bound now
                f"the part {part}",
            )
            assert it.app.focused is not None and it.app.focused.region.height > 0


async def test_a_part_is_opened_by_a_click_on_its_heading(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(80, 24), node=StillNode, clock=now) as it:
        await open_network(it)
        await it.pilot.click("#nodes .part-heading", offset=(3, 0))
        await it.until(lambda: it.app.focused is table(it, "nodes"), "the nodes")
        assert "gossip" in it.screen_text()


async def test_an_invite_is_shown_and_copied_and_can_last_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Inviting(StillNode):
        async def invite(self, hours: int = 168) -> str:
            asked.append(hours)
            return INVITE

    clipboard: list[str] = []
    async with shell(tmp_path, node=Inviting, clock=now) as it:
        monkeypatch.setattr(it.app, "copy_to_clipboard", clipboard.append)
        await open_network(it)
        await it.pilot.press("i")
        await it.until(lambda: "in 7 days" in it.screen_text(), "the invite")
        shown = it.app.screen.query_one("#invite", Static)
        assert "".join(str(shown.render()).split()) == INVITE
        await it.pilot.click("#hours-1")
        await it.until(lambda: "in 1 hour" in it.screen_text(), "another invite")
        await it.pilot.press("c")
        await it.until(lambda: len(clipboard) == 3, "the copies")
        assert asked == [168, 1] and set(clipboard) == {INVITE}
        await it.pilot.press("escape")
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view")


async def test_an_invite_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere(StillNode):
        waits = False

        async def invite(self, hours: int = 168) -> str:
            if self.waits:
                await asyncio.Event().wait()
            raise NetError("no_interface", "This node has no address.", "Connect to a network.")

    async with shell(tmp_path, node=Nowhere, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        await it.type("/invite", "enter")
        await it.until(lambda: "no address. Connect to a network." in it.screen_text(), "the reason")
        await it.pilot.press("c")
        node = it.node
        assert isinstance(node, Nowhere)
        node.waits = True
        monkeypatch.setattr(invites, "INVITE_LIMIT", 0.05)
        await it.pilot.click("#hours-24")
        await it.until(lambda: "could not be made in time" in it.screen_text(), "the bound")
        await it.pilot.click("#close")
        await it.until(lambda: it.app.screen is it.chat, "the chat")


class Joining(StillNode):
    """Joins when the test says so."""

    go = asyncio.Event()
    ended = False

    async def join(self, invite: str) -> SeenNode:
        assert "".join(invite.split()) == INVITE
        try:
            await self.go.wait()
        finally:
            self.ended = True
        return msgspec.structs.replace(NODES[0], name="birch\x1b[31m")


async def test_joining_says_what_it_waits_for_and_whom_it_met(tmp_path: Path) -> None:
    Joining.go = asyncio.Event()
    async with shell(tmp_path, node=Joining, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        it.chat.prompt.put_back(f"/join {INVITE}", None)
        await it.pilot.press("enter")
        await it.until(lambda: "joining · 0 s of 30 s" in it.screen_text(), "the wait and its bound")
        waiting = msgspec.structs.replace(ONLINE, waiting=Waiting("trying 2 addresses", NOW - 2000, 20))
        still(it).become(waiting, PEERS, NODES)
        await it.until(lambda: "trying 2 addresses · 2 s of 20 s" in it.screen_text(), "what Node waits for")
        it.node.go.set()  # type: ignore[attr-defined] # of Joining
        await it.until(lambda: it.app.screen is it.chat, "the end")
        assert it.toasts == [f"Joined: {display('birch[31m', NODES[0].id)} is a peer now."]


async def test_joining_is_cancelled_at_once(tmp_path: Path) -> None:
    Joining.go = asyncio.Event()
    async with shell(tmp_path, node=Joining, clock=now) as it:
        await open_network(it)
        await it.pilot.press("j")
        await it.until(lambda: isinstance(it.app.screen, JoinScreen), "the dialog")
        it.app.screen.query_one(Input).value = grouped(INVITE)
        await it.pilot.press("enter")
        await it.until(lambda: "Esc cancels" in it.screen_text(), "the progress")
        await it.pilot.press("escape")
        await it.until(lambda: "Cancelled." in it.screen_text() and it.node.ended, "the end")  # type: ignore[attr-defined] # of Joining
        assert "Esc cancels" not in it.screen_text()
        await it.pilot.press("escape")
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the view")
        assert it.toasts == []


async def test_an_invite_that_cannot_be_used_says_why_where_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        await it.pilot.press("j", "enter")
        await it.until(lambda: "Paste an invite first" in it.screen_text(), "what to do")
        await it.type("ix1abc", "enter")
        await it.until(lambda: "12 characters missing" in it.screen_text(), "the reason")
        assert isinstance(it.app.focused, InviteInput) and it.app.focused.value == "ix1abc"
        await it.type("d")
        await it.until(lambda: "missing" not in it.screen_text(), "no reason any more")

        async def never(invite: str) -> SeenNode:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(it.node, "join", never)
        monkeypatch.setattr(invites, "JOIN_LIMIT", 0.05)
        await it.pilot.press("enter")
        await it.until(lambda: "Nobody answered within" in it.screen_text(), "the bound")


async def test_an_invite_is_pasted_as_it_was_sent(tmp_path: Path) -> None:
    from textual.events import Paste

    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        await it.pilot.press("j")
        await it.until(lambda: isinstance(it.app.focused, InviteInput), "the dialog")
        assert it.app.focused is not None
        it.app.focused.post_message(Paste(f"  {INVITE[:40]}\n {INVITE[40:]}\n"))
        box = it.app.screen.query_one(Input)
        await it.until(lambda: "".join(box.value.split()) == INVITE, "the whole invite")


async def test_seconds_run_only_while_the_view_is_seen(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        network = view(it)
        timer = network._ticking
        assert timer is not None and timer._active.is_set()
        await it.pilot.press("i")
        await it.until(lambda: isinstance(it.app.screen, InviteScreen), "a dialog over it")
        assert not timer._active.is_set()
        await it.pilot.press("escape", "escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert not timer._active.is_set()
        still(it).become(msgspec.structs.replace(ONLINE, bytes_in=ONLINE.bytes_in + 1000), PEERS, NODES)
        await it.pilot.press("alt+n")
        await it.until(lambda: it.app.screen is network and timer._active.is_set(), "the view")


def test_rates_come_from_the_totals_of_links() -> None:
    traffic = Traffic()
    for second in range(5):
        traffic.take(second, {b"a": (second * 600, second * 4), b"b": (10_000 + second * 400, second * 6)})
    assert list(traffic.incoming) == [1000.0] * 4 and list(traffic.outgoing) == [10.0] * 4
    traffic.take(4.5, {b"a": (90_000, 0)})  # too soon to be a sample
    traffic.take(5, {b"a": (3000, 20), b"c": (70_000, 70_000)})  # one link ended, one is new
    assert traffic.incoming[-1] == pytest.approx(2600 / 3) and len(traffic.incoming) == 5
    traffic.take(6, {b"a": (100, 10)})  # made anew
    assert traffic.incoming[-1] == pytest.approx(1600 / 3)
    traffic.take(100, {b"a": (300, 10)})  # nobody looked meanwhile
    assert not traffic.incoming
    for second in range(1000):
        traffic.take(101 + second, {})
    assert list(traffic.incoming) == [0.0] * 60


def test_bars_fit_their_width() -> None:
    assert sparkline([], 4) == "    "
    assert sparkline([1, 2], 0) == ""
    assert sparkline([0, 0], 4) == "  ▁▁"
    assert sparkline([99, 0, 4, 10], 3) == "▁▄█"  # the highest of those that are shown


def test_room_is_shared() -> None:
    assert share(30, [5, 5, 5]) == [5, 5, 5]
    assert share(30, [40, 5, 40]) == [12, 5, 13]
    assert share(2, [9, 9, 9]) == [0, 1, 1]


def test_every_refusal_has_a_sentence() -> None:
    assert set(MEANINGS) == set(REFUSALS)
    assert refused("of_a_newer_one").label == "of a newer one"
    assert counts_text({"rate": 1812, "mac": 2, "flow": 0}) == "1,812 too often · 2 not for us"


def test_times_and_clocks_in_words() -> None:
    assert [span(s) for s in (-1, 59.9, 60, 7199, 90_000, 200_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "25 h",
        "2 d",
    ]
    assert clock(None).label == "not compared yet" and clock(500).label == "right"
    assert clock(90_000) == ("90 s behind the peers'", "Set the clock of this machine.")
    assert clock(-5_000) == ("5 s ahead of the peers'", "")


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (120, "maple·4x2csm8c · user · ● 6 peers · 2 notices"),
        (80, "maple·4x2csm8c · user · ● 6 peers · 2 notices"),
        (76, "maple·4x2csm8c · user · ● 6 peers · 2!"),
        (68, "maple·4x2csm8c · ● 6 peers · 2!"),
        (50, "● 6 peers · 2!"),
        (32, "built-in guide"),
    ],
)
async def test_the_status_bar_says_as_much_of_the_network_as_has_room(width: int, words: str) -> None:
    from textual.app import App, ComposeResult

    from infraxa.engine.types import EngineStatus

    class Bars(App[None]):
        def compose(self) -> ComposeResult:
            yield StatusBar(time_of_day=now)

    app = Bars()
    async with app.run_test(size=(width, 3)) as pilot:
        bar = app.query_one(StatusBar)
        ready = Status(EngineStatus("ready"), model="built-in guide (tiny)")
        bar.status = msgspec.structs.replace(ready, network=TROUBLED)
        await pilot.pause()
        text = bar.render_line(0).text
        assert words in text and len(text) <= width
        assert bar._timer is None
        bar.status = msgspec.structs.replace(ready, network=ALONE)
        await pilot.pause()
        assert bar._timer is not None  # the seconds of the wait run
        assert width < 80 or "looking for peers · 3 s of 10 s" in bar.render_line(0).text
        bar.status = msgspec.structs.replace(ready, network=NetworkStatus())
        await pilot.pause()
        assert bar._timer is None and "offline" not in bar.render_line(0).text


def test_a_refusal_of_somebody_unknown_has_a_row() -> None:
    from infraxa.app.tui.widgets.network_rows import refused_rows

    row = refused_rows([Refused(NOW, "silent", None, "")] * 2, NOW + 61_000)
    assert row[0].cells == ("1 min", "silent", "unknown", "said nothing in time")
    assert row[0].key != row[1].key


async def test_a_node_that_is_gone_leaves_nothing_behind_and_comes_back(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        node, it.app._node = it.app._node, None
        await it.until(lambda: not table(it, "peers").rows and "offline" in it.screen_text(), "an empty view")
        it.app._node = node
        await it.until(lambda: len(table(it, "peers").rows) == len(PEERS), "the peers again")


async def test_an_empty_table_says_what_to_do(tmp_path: Path) -> None:
    said = {"off": "Turn on the setting online", "starting": "is starting", "blocked": "cannot be used"}
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_network(it)
        for activity, words in said.items():
            still(it).become(msgspec.structs.replace(ALONE, activity=activity, waiting=None))
            await it.until(lambda words=words: words in it.screen_text(), words)  # type: ignore[misc] # bound now
