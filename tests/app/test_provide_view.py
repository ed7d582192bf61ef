"""Provider mode in the app: one key, the notice, what the Provide view shows and what can be done in it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from textual.app import App, ComposeResult
from textual.widgets import Input

from infraxa.app import serving_words as words
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.app.node_base import SERVING_ACCEPTED
from infraxa.app.serving import BlockedUser, ProviderStatus, SelfTest, Served, TrialResult
from infraxa.app.serving_notice import points
from infraxa.app.tui.screens.dialogs import Ask, Confirm
from infraxa.app.tui.screens.help import HelpScreen
from infraxa.app.tui.screens.network import NetworkScreen
from infraxa.app.tui.screens.provide import PARTS, ProvideScreen
from infraxa.app.tui.screens.provide_settings import PickModel
from infraxa.app.tui.screens.serving_notice import ServingNotice
from infraxa.app.tui.widgets.fact_list import Fact, FactList
from infraxa.app.tui.widgets.provider_facts import Seen, facts, headline, nobody, only_here, reach
from infraxa.app.tui.widgets.served_rows import SHOWN_ENDED, in_full, request_rows
from infraxa.app.tui.widgets.table import Table
from infraxa.engine.types import Finished
from infraxa.net.identity import id_text, short_id
from infraxa.net.status import NetworkStatus, Waiting
from infraxa.store import state
from infraxa.store.db import Store
from infraxa.store.records import ChatOptions
from tests.app.networked import network_name, running, settings_of
from tests.app.shell import LIMIT, SETTINGS, Shell, shell
from tests.app.still import ALONE, NOW, ONLINE, TROUBLED, an_id
from tests.app.still_provider import (
    BLOCKED,
    CLOSED,
    DRAINING,
    FAILED,
    OFF,
    ON_BATTERY,
    QUIET,
    REQUESTS,
    SERVING,
    STARTING,
    ProvidingNode,
    request,
)

WIDE = msgspec.structs.replace(SETTINGS, slots=8)


def now() -> float:
    return NOW / 1000


def providing(it: Shell) -> ProvidingNode:
    node = it.node
    assert isinstance(node, ProvidingNode)
    return node


def view(it: Shell) -> ProvideScreen:
    screen = it.app.screen
    assert isinstance(screen, ProvideScreen)
    return screen


def table(it: Shell, part: str) -> Table:
    return view(it).query_one(f"#{part} Table", Table)


async def opened(it: Shell) -> None:
    await it.until(lambda: it.app.opened and it.chat.settled, "the store")


async def open_provide(it: Shell, *keys: str) -> None:
    await opened(it)
    await it.pilot.press(*(keys or ("alt+p",)))
    await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the Provide view")
    await it.until(
        lambda: "Provider mode" in it.screen_text() or "Serving" in it.screen_text(), "its painting"
    )


async def serving(it: Shell) -> None:
    """The view, with requests in every state."""
    await open_provide(it)
    providing(it).become_provider(SERVING, REQUESTS, blocked=BLOCKED)
    await it.until(lambda: len(table(it, "requests").rows) == len(REQUESTS), "the requests")


async def test_it_is_reached_by_key_slash_command_palette_tab_and_status_bar(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        for way in (("alt+p",), ("/", *"provide", "enter"), ("ctrl+p", *"provide", "enter")):
            await open_provide(it, *way)
            assert it.app.screen_stack == [it.chat, it.app.screen]
            await it.pilot.press("escape")
            await it.until(lambda: it.app.screen is it.chat, "the chat")
        await it.pilot.click("ViewTabs", offset=(it.screen_text().split("\n")[0].index("Provide"), 0))
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view by its tab")
        await it.pilot.press("alt+c")
        providing(it).become_provider(QUIET)
        await it.until(lambda: "serving guide 0/7" in it.screen_text(), "the role in the status bar")
        row = it.screen_text().split("\n")[-1]
        await it.pilot.click("StatusBar", offset=(row.index("serving"), 0))
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view by the status bar")
        await it.pilot.press("alt+c")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        await it.pilot.click("StatusBar", offset=(row.index("6 peers"), 0))
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the other words lead elsewhere")


async def test_one_key_turns_it_on_and_off_while_a_prompt_is_typed(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, settings=WIDE, clock=now) as it:
        await opened(it)
        await it.type("hello")
        await it.pilot.press("f7")
        await it.until(lambda: "user · serving guide 0/7" in it.screen_text(), "the role")
        assert it.chat.prompt.text == "hello" and it.app.focused is it.chat.prompt.area
        await it.pilot.press("f7")
        await it.until(lambda: "serving" not in it.screen_text().split("\n")[-1], "no role")
        assert providing(it).asked == [("provide", True, False), ("provide", False, False)]
        await it.pilot.press("alt+a", "backspace")
        await it.until(lambda: it.chat.prompt.text == "", "all was selected, by another key than F7")


async def test_the_key_works_in_every_view_and_a_question_is_answered_first(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await opened(it)
        for key in ("alt+n", "alt+p", "f1", "f9", "ctrl+o"):
            await it.pilot.press(key)
            shown = it.app.screen
            asked = len(providing(it).asked)
            await it.pilot.press("f7")
            await it.until(lambda asked=asked: len(providing(it).asked) == asked + 1, f"a change in {key}")  # type: ignore[misc] # bound now
            assert it.app.screen is shown
        await it.pilot.press("escape", "alt+c")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        it.app.push_screen(Confirm("Really?", "", "Yes"))
        asked = len(providing(it).asked)
        await it.pilot.press("f7")
        await it.pilot.pause()
        assert isinstance(it.app.screen, Confirm) and len(providing(it).asked) == asked
        await it.pilot.press("escape")
        await it.type("/serve", "enter")
        await it.until(lambda: len(providing(it).asked) == asked + 1, "a change by the slash command")


class Unread(ProvidingNode):
    """Whose person has not read the notice."""

    accepted = False


async def test_the_notice_comes_first_and_only_its_button_serves(tmp_path: Path) -> None:
    async with shell(tmp_path, node=Unread, clock=now) as it:
        await opened(it)
        for no in (("escape",), ("enter",), ("f7", "f7", "enter")):
            await it.pilot.press("f7")
            await it.until(lambda: isinstance(it.app.screen, ServingNotice), "the notice")
            await it.pilot.press(*no)  # Enter may have been meant for the prompt
            await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert set(providing(it).asked) == {("provide", True, False)} and len(providing(it).asked) == 3
        await it.pilot.press("f7")
        await it.until(lambda: isinstance(it.app.screen, ServingNotice), "the notice")
        await it.pilot.press("left", "enter")
        await it.until(lambda: "serving" in it.screen_text().split("\n")[-1], "the role")
        assert providing(it).asked[3:] == [("provide", True, False), ("accept",), ("provide", True, False)]
        await it.pilot.press("f7", "f7")
        await it.until(lambda: len(providing(it).asked) == 8, "off and on again, without the notice")


async def test_the_notice_is_seen_whole_at_80_by_24_and_can_be_answered_where_there_is_less(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path, size=(80, 24), node=Unread, clock=now) as it:
        await opened(it)
        await it.pilot.press("f7")
        await it.until(lambda: isinstance(it.app.screen, ServingNotice), "the notice")
        said = " ".join(it.screen_text().split())
        for heading, meaning in points(1, "F7"):
            assert heading in said and meaning.split()[-1] in said
        assert "Serve" in said and "Not now" in said
        assert it.app.screen.query_one("#points").max_scroll_y == 0
        await it.pilot.resize_terminal(40, 10)
        await it.until(lambda: "Not now" in it.screen_text(), "the buttons")
        assert "others' data" not in it.screen_text()
        await it.pilot.press(*["down"] * 30)
        await it.until(lambda: "do not serve strangers" in " ".join(it.screen_text().split()), "its end")
        await it.pilot.click("#yes")
        await it.until(lambda: ("accept",) in providing(it).asked, "the consent")


async def test_turning_off_lets_answers_finish_and_once_more_ends_them(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await serving(it)
        assert "F7 turns it off." in it.screen_text()
        await it.pilot.press("f7")
        await it.until(lambda: "F7 again ends them now." in it.screen_text(), "what the key does now")
        assert "Turned off: 2 answers may finish, 12 s of 120 s." in it.screen_text()
        assert "finishing 2 answers · 12 s of 120 s" in it.screen_text().split("\n")[-1]
        await it.pilot.press("ctrl+p", *"provider mode")
        await it.until(lambda: "end the 2 answers" in it.screen_text(), "the same in the palette")
        await it.pilot.press("escape")
        await it.pilot.press("f7")
        await it.until(lambda: "Provider mode is off." in it.screen_text(), "the end")
        assert providing(it).asked == [("provide", False, False), ("provide", False, True)]


async def test_what_the_view_says_of_the_key_and_of_the_network_can_be_clicked(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await open_provide(it)
        said = it.screen_text().split("\n")[2]
        await it.pilot.click("#headline", offset=(said.index("is off"), 0))
        await it.pilot.pause()
        assert providing(it).asked == []
        await it.pilot.click("#headline", offset=(said.index("F7"), 0))
        await it.until(lambda: "Serving guide" in it.screen_text(), "provider mode")
        await it.pilot.click("#reach", offset=(5, 0))
        await it.until(lambda: isinstance(it.app.screen, NetworkScreen), "the network")


async def test_a_key_that_is_held_down_does_not_end_answers(tmp_path: Path) -> None:
    class Slow(ProvidingNode):
        go = asyncio.Event()

        async def provide(self, on: bool, *, now: bool = False, keep: bool = True) -> None:
            await self.go.wait()
            await super().provide(on, now=now)

    async with shell(tmp_path, node=Slow, clock=now) as it:
        await serving(it)
        await it.pilot.press(*["f7"] * 10)
        Slow.go.set()
        await it.until(lambda: "may finish" in it.screen_text(), "the first press")
        assert providing(it).asked == [("provide", False, False)]


async def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    class Broken(ProvidingNode):
        async def provide(self, on: bool, *, now: bool = False, keep: bool = True) -> None:
            raise NodeError("io", "config.toml cannot be written.", "Make room.")

    async with shell(tmp_path, node=Broken, clock=now) as it:
        await opened(it)
        await it.pilot.press("f7")
        await it.until(lambda: it.toasts == ["config.toml cannot be written. Make room."], "the reason")
        await it.pilot.press("f7")
        await it.until(lambda: len(it.toasts) == 2, "it is tried again")


async def test_a_real_provider_is_turned_on_and_off(tmp_path: Path) -> None:
    async with shell(tmp_path, settings=WIDE) as it:
        await it.opened()
        await it.pilot.press("alt+p", "f7")
        await it.until(lambda: isinstance(it.app.screen, ServingNotice), "the notice")
        await it.pilot.press("left", "enter")
        await it.until(lambda: it.node.provider.mode == "serving", "provider mode")
        await it.until(lambda: "Serving guide to others, for 0.20 cr/M." in it.screen_text(), "the view")
        # What stops others from coming is said as it is: this node is offline in tests.
        assert "This node is offline: nobody can ask." in it.screen_text()
        assert settings_of(tmp_path).provide
        await it.pilot.press("f7")
        await it.until(lambda: "Provider mode is off." in it.screen_text(), "its end")
        assert not settings_of(tmp_path).provide


async def test_another_node_asks_and_is_seen(tmp_path: Path) -> None:
    here = {"network": network_name(tmp_path), "mdns": False, "listen_hosts": "127.0.0.1", "listen_port": 0}
    settings = msgspec.structs.replace(SETTINGS, online=True, provide=True, base_price=0.0, **here)
    (tmp_path / "provider").mkdir()
    store = await Store.open(tmp_path / "provider")
    await store.run(state.set_value, SERVING_ACCEPTED, True)
    await store.close()
    async with shell(tmp_path / "provider", settings=settings) as it:
        await open_provide(it)
        await it.until(lambda: it.node.provider.mode == "serving", "provider mode")
        await it.until(lambda: bool(it.node.network.listening), "an address")
        provider = it.node.network.id
        async with running(tmp_path / "user", **here) as user:
            async with asyncio.timeout(LIMIT):
                await user.join(await it.node.invite())
                while not any(offer.node.id == provider for offer in await user.list_offers()):  # noqa: ASYNC110 - a question
                    await asyncio.sleep(0.05)
            asked = user.ask("What is 2+2?", ChatOptions(driver=id_text(provider)))
            async with contextlib.aclosing(asked):
                said = [item async for item in asked]
            assert said
            await it.until(lambda: "✓ done" in it.screen_text(), "the request")
            assert "Reached from this machine only · 1 peer" in it.screen_text()
            await it.until(lambda: it.node.provider.answered == 1, "the count")
            row = table(it, "requests").rows[0].of
            assert isinstance(row, Served) and row.n_out and row.where == "local"
            assert id_text(row.user) in it.screen_text() and row.user != user.network.id
            await it.pilot.press("b")
            await it.until(lambda: len(table(it, "blocked").rows) == 1, "the block")
            asked = user.ask("What is 2+2?", ChatOptions(driver=id_text(provider)))
            async with contextlib.aclosing(asked):
                last = [item async for item in asked][-1]
            assert isinstance(last, Finished) and last.reason == "failed"
            await it.until(lambda: "– refused" in it.screen_text(), "the refusal")


async def test_an_attached_app_does_the_same(tmp_path: Path) -> None:
    owner = Unread(SETTINGS, Folders.find(tmp_path, {}))
    owner.said, owner.served = SERVING, REQUESTS
    await owner.start()
    try:
        async with shell(tmp_path, clock=now) as it:
            await open_provide(it)
            assert it.app.attached_to is not None
            await it.until(lambda: len(table(it, "requests").rows) == len(REQUESTS), "the requests")
            assert "4 of 7 at work" in it.screen_text()
            await it.pilot.press("f7")
            await it.until(lambda: "finishing 2 answers" in it.screen_text(), "the other process drains")
            await it.pilot.press("f7")
            await it.until(lambda: "Provider mode is off." in it.screen_text(), "the end")
            await it.pilot.press("f7")
            await it.until(lambda: isinstance(it.app.screen, ServingNotice), "the notice of the other")
            await it.pilot.press("left", "enter")
            await it.until(lambda: "Serving guide" in it.screen_text(), "it serves")
            assert owner.asked[-2:] == [("accept",), ("provide", True, False)]
            await it.pilot.press("ctrl+q")
            await it.until(lambda: not it.app.is_running, "the end: nothing of the other ends with it")
    finally:
        await owner.close()


async def test_quitting_asks_when_others_wait_for_answers(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await opened(it)
        providing(it).become_provider(SERVING, REQUESTS)
        await it.pilot.press("ctrl+q")
        await it.until(lambda: "Others wait for 4 answers: F7 lets them finish" in it.screen_text(), "why")
        await it.pilot.press("escape")
        providing(it).become_provider(QUIET)
        await it.pilot.press("ctrl+q")
        await it.until(lambda: not it.app.is_running, "the end")


FREE = msgspec.structs.replace(QUIET, price_in=0, price_out=0)


def seen(status: ProviderStatus, *, network: NetworkStatus = ONLINE, **settings: object) -> Seen:
    return Seen(status, msgspec.structs.replace(Settings(), **settings), network, "guide")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (OFF, "○ Provider mode is off.  F7 serves guide to others, for 0.20 cr/M, 7 answers at a time."),
        (STARTING, "◌ Provider mode is starting: loading guide · 2 s of 120 s.  F7 stops it."),
        (QUIET, "● Serving guide to others, for 0.20 cr/M. 0 of 7 at work.  F7 turns it off."),
        (FREE, "● Serving guide to others, free. 0 of 7 at work.  F7 turns it off."),
        (SERVING, "● Serving guide to others, for 0.2904 cr/M. 4 of 7 at work, 2 in line.  F7 turns it off."),
        (DRAINING, "◌ Turned off: 2 answers may finish, 12 s of 120 s.  F7 again ends them now."),
        (
            ON_BATTERY,
            "‖ Paused: this machine runs on its battery. It goes on by itself when that is over."
            "  F7 turns it off.",
        ),
    ],
)
def test_the_headline_says_what_is_and_what_to_do(status: ProviderStatus, said: str) -> None:
    assert headline(seen(status), NOW, 140).plain == said


def test_a_long_reason_is_told_whole_in_several_lines_and_the_key_after_it() -> None:
    lines = headline(seen(FAILED), NOW, 60).plain.split("\n")
    assert all(len(line) <= 60 for line in lines) and len(lines) == 4
    assert lines[0].startswith("✕ Provider mode does not work:")
    assert lines[-1] == "  F7 turns it off; once more, and it is tried again."
    hostile = msgspec.structs.replace(FAILED, reason="\x1b[2J\n" + "x" * 5000)
    assert "\x1b" not in (told := headline(seen(hostile), NOW, 60).plain) and len(told) < 500


def test_a_pause_by_the_schedule_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    in_an_hour = words.time_of_day(NOW + 3_600_000)[:2] + ":00"
    hours = f"{in_an_hour}-{words.time_of_day(NOW + 7_200_000)[:2]}:00"
    assert f"It goes on at {in_an_hour}." in headline(seen(CLOSED, provide_hours=hours), NOW, 200).plain
    assert "It goes on at" not in headline(seen(ON_BATTERY, provide_hours=None), NOW, 200).plain
    assert ", opens in " in words.hours(hours, NOW / 1000)
    assert ", closes in " in words.hours(hours, NOW / 1000 + 3600)
    assert words.hours("07:00-07:00", NOW / 1000) == "07:00-07:00, always"
    assert words.hours(None, NOW / 1000) == "always" and words.opens(None, NOW / 1000) == ""


LOOPBACK = msgspec.structs.replace(ONLINE, listening=("ws://127.0.0.1:7741", "ws://[::1]:7741"))


@pytest.mark.parametrize(
    ("network", "settings", "said"),
    [
        (ONLINE, {}, "Reached from outside · 6 peers, 41 nodes known"),
        (TROUBLED, {}, "Reached from this LAN only · 6 peers, 41 nodes known"),
        (LOOPBACK, {}, "Reached from this machine only · 6 peers, 41 nodes known"),
        (msgspec.structs.replace(ONLINE, reachability="relayed"), {}, "Reached through a relay · 6 peers,"),
        (ALONE, {}, "no other node is linked, so nobody knows of the offer"),
        (NetworkStatus(), {}, "This node is offline: nobody can ask."),
        (msgspec.structs.replace(ONLINE, activity="blocked"), {}, "The network cannot be used"),
        (msgspec.structs.replace(ONLINE, listening=()), {}, "This node does not listen"),
        (ONLINE, {"announce": False}, "The setting announce is off"),
    ],
)
def test_how_others_come_here_is_said_as_it_is(
    network: NetworkStatus, settings: dict[str, object], said: str
) -> None:
    assert said in reach(seen(QUIET, network=network, **settings)).plain


def test_only_loopback_is_this_machine() -> None:
    assert only_here(LOOPBACK.listening)
    assert not only_here([*LOOPBACK.listening, "ws://192.168.1.2:7741"])
    assert not only_here([]) and not only_here(["nonsense"])


def test_when_nobody_came_it_says_why_that_may_be() -> None:
    since = words.time_of_day(QUIET.since_ms)
    assert nobody(seen(QUIET), NOW) == (
        f"Serving since {since}; nobody has asked yet.\n\n"
        "6 peers have your offer and pass it on; 41 nodes are known here."
    )
    one = msgspec.structs.replace(ONLINE, peers=1, known=1)
    assert "1 peer has your offer and passes it on; 1 node is known here." in nobody(
        seen(QUIET, network=one), NOW
    )
    assert "Above stands what keeps others away" in nobody(seen(QUIET, network=NetworkStatus()), NOW)
    assert "invite somebody" in nobody(seen(QUIET, network=ALONE), NOW)
    assert "listens on this machine alone" in nobody(seen(QUIET, network=LOOPBACK), NOW)
    assert "let the port through" in nobody(seen(QUIET, network=TROUBLED), NOW)
    assert "F7 turns provider mode on" in nobody(seen(OFF), NOW)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (OFF, ""),
        (SERVING, "serving guide 4/7"),
        (ON_BATTERY, "paused: this machine runs on its battery"),
        (DRAINING, "finishing 2 answers"),
        (STARTING, "starting to serve"),
        (FAILED, "cannot serve"),
    ],
)
def test_the_role_in_a_few_words(status: ProviderStatus, said: str) -> None:
    assert words.role(status, "guide").words == said


async def test_requests_stand_in_their_groups_however_they_are_sorted(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(200, 60), node=ProvidingNode, clock=now) as it:
        await serving(it)
        text = it.screen_text()
        for part in (
            "reading 1200/4000", "in line, 1 before", "next in line", "its prompt comes", "by a relay",
            "203.0.113.0/24", "33.8 tok/s", "4 running · 2 in line · 4 ended", "18 no room",
            "Its prompt of 9,204 tokens",
        ):  # fmt: skip
            assert part in text, part
        requests = table(it, "requests")

        def groups() -> list[int]:
            shown = [row.of for row in requests.rows if isinstance(row.of, Served)]
            assert len(shown) == len(REQUESTS)
            return [2 if one.ended_ms else 1 if one.state == "waiting" else 0 for one in shown]

        for _ in range(9):
            assert groups() == sorted(groups())
            await it.pilot.press("s")
            assert groups() == sorted(groups())
            await it.pilot.press("S")


def test_thousands_that_have_ended_are_counted_and_the_newest_shown() -> None:
    many = [request(at, f"u{at}", "relay", "done", 50_000, ended_ms=NOW - at) for at in range(2000)]
    rows = request_rows([*many, *REQUESTS[:6]], NOW)
    assert len(rows) == SHOWN_ENDED + 6
    assert {one.of.number for one in rows[6:] if isinstance(one.of, Served)} == set(range(1800, 2000))


async def test_thousands_of_requests_are_one_screen(tmp_path: Path) -> None:
    many = [request(at, f"u{at}", "relay", "done", 50_000, ended_ms=NOW - at) for at in range(2000)]
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await open_provide(it)
        providing(it).become_provider(SERVING, [*many, *REQUESTS])
        await it.until(lambda: "2,004 ended, the newest 200 are shown" in it.screen_text(), "their number")
        await it.pilot.press("end")
        await it.until(lambda: "1804" in it.screen_text(), "the last of them")


async def test_keys_addresses_and_reasons_of_others_are_text(tmp_path: Path) -> None:
    odd = [
        Served(1, b"", "\x1b[31m[red]x", "answering", NOW, reason="\x1b]0;x\x07"),
        Served(2, b"\xff", "[@click=app.quit]y[/]", "failed", NOW, NOW, reason="z" * 3000 + "\u202e"),
        Served(-3, an_id("a") * 3, "", "refused", NOW + 9_000_000, NOW - 9_000_000, reason="[b]no[/b]"),
    ]
    async with shell(tmp_path, size=(200, 60), node=ProvidingNode, clock=now) as it:
        await open_provide(it)
        blocked = [BlockedUser(b"\x00", NOW, "\x1b[2J[u]note[/u]")]
        providing(it).become_provider(SERVING, odd, blocked=blocked)
        await it.until(lambda: "[@click=app.quit]y[/]" in it.screen_text(), "the address as it is")
        for _ in range(4):
            await it.pilot.press("down")
            assert not {"\x1b", "\x07", "\u202e"} & set(it.screen_text())
        assert "[u]note[/u]" in it.screen_text()
        assert "unknown   [31m[red]x" in it.screen_text()
        await it.pilot.press("home", "y", "b")
        await it.until(lambda: "no user is under the cursor" in it.screen_text(), "nobody to copy or block")
        assert providing(it).asked == []


def test_a_request_in_full() -> None:
    refused = REQUESTS[7]
    text = in_full(refused, {refused.user}, NOW).plain
    assert text.startswith(id_text(refused.user) + "\n")
    assert "blocked · Its prompt of 9,204 tokens is longer" in text and "ended 2 min ago" in text
    for where, said in (
        ("relay", "came by a relay"),
        ("local", "from the local network"),
        ("", "from unknown"),
    ):
        one = msgspec.structs.replace(refused, where=where)
        assert said in in_full(one, (), NOW).plain


async def test_a_request_is_ended_after_a_question(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await serving(it)
        await it.pilot.press("down", "down", "e")
        await it.until(lambda: isinstance(it.app.screen, Confirm), "the question")
        assert "End request 1430?" in it.screen_text() and short_id(an_id("ada")) in it.screen_text()
        assert "cannot be undone" in it.screen_text()
        await it.pilot.press("escape")
        assert providing(it).asked == []
        await it.pilot.press("e", "enter")
        await it.until(lambda: providing(it).asked == [("end", 1430)], "its end")
        await it.until(lambda: "3 running · 2 in line · 5 ended" in it.screen_text(), "one less at once")
        await it.pilot.press("end", "e")
        await it.until(lambda: "no running request" in it.screen_text(), "nothing to end")
        assert isinstance(it.app.screen, ProvideScreen)


async def test_a_user_is_blocked_and_unblocked_where_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    mila, mallory = an_id("mila"), an_id("mallory")
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await serving(it)
        monkeypatch.setattr(it.app, "copy", lambda text, what="": copied.append(text))
        await it.pilot.press("b")
        said = f"{short_id(mila)} is blocked · b takes it back"
        await it.until(lambda: said in it.screen_text(), "what was done, and how it is undone")
        await it.until(lambda: len(table(it, "blocked").rows) == 3, "the block")
        await it.pilot.press("y", "b")
        await it.until(lambda: len(table(it, "blocked").rows) == 2, "it is taken back")
        await it.pilot.press("tab", "tab")
        await it.until(lambda: it.app.focused is table(it, "blocked"), "the list of them")
        await it.pilot.press("end", "y", "b")
        await it.until(lambda: len(table(it, "blocked").rows) == 1, "the other one, in its list")
        assert providing(it).asked == [
            ("block", mila, True), ("block", mila, False), ("block", mallory, False),
        ]  # fmt: skip
        assert copied == [id_text(mila), id_text(mallory)]


async def to_setting(it: Shell, name: str) -> None:
    view(it).action_open("offer")
    facts = view(it).query_one(FactList)
    await it.until(lambda: it.app.focused is facts and bool(facts.rows), "the offer")
    names = [fact.setting for fact in facts.rows]
    await it.pilot.press("home")
    while facts.cursor < names.index(name):
        await it.pilot.press("down")
    assert facts.highlighted is not None and facts.highlighted.setting == name


async def test_limits_are_changed_where_they_stand_and_saved(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(80, 24), node=ProvidingNode, clock=now) as it:
        await open_provide(it)
        await to_setting(it, "pause_on_battery")
        await it.pilot.press("enter")
        await it.until(lambda: "goes on, on battery too" in it.screen_text(), "the switch")
        for name, bad, good, shown in (
            ("capacity", "0", "3", "3 at a time"),
            ("upload_limit", "fast", "250", "250 kB/s"),
            ("memory_limit", "1", "800", "800 MB"),
            ("provide_hours", "22-7", "22:00-07:00", "22:00-07:00, "),
        ):
            await to_setting(it, name)
            await it.pilot.press("enter")
            await it.until(lambda: isinstance(it.app.screen, Ask), "the dialog")
            it.app.screen.query_one(Input).value = bad
            await it.pilot.press("enter")
            await it.until(lambda: "It must be" in it.screen_text(), f"the reason, for {name}")
            it.app.screen.query_one(Input).value = good
            await it.pilot.press("enter")
            await it.until(lambda shown=shown: shown in it.screen_text(), shown)  # type: ignore[misc] # bound now
        await to_setting(it, "capacity")
        await it.pilot.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Ask), "the dialog")
        it.app.screen.query_one(Input).value = "auto"
        await it.pilot.press("enter")
        await it.until(lambda: "1 at a time (auto)" in it.screen_text(), "automatic again")
        saved = settings_of(tmp_path)
        assert (saved.capacity, saved.upload_limit, saved.memory_limit) == (None, 250, 800)
        assert saved.provide_hours == "22:00-07:00" and not saved.pause_on_battery


async def test_the_model_that_is_served_is_picked(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await open_provide(it)
        for key, chosen in (("down", "guide"), ("up", None)):
            await to_setting(it, "provide_model")
            await it.pilot.press("enter")
            await it.until(lambda: isinstance(it.app.screen, PickModel), "the models")
            await it.pilot.press(key, "enter")
            await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view")
            await it.until(lambda chosen=chosen: settings_of(tmp_path).provide_model == chosen, "it is saved")  # type: ignore[misc] # bound now
        await it.pilot.press("enter", "escape")
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "nothing is chosen")


class Counting(ProvidingNode):
    """Counts how often its requests are read."""

    read = 0

    async def list_served(self) -> list[Served]:
        self.read += 1
        return await super().list_served()


async def test_a_storm_of_requests_is_painted_once_a_second_and_another_mode_at_once(tmp_path: Path) -> None:
    async with shell(tmp_path, node=Counting, clock=now) as it:
        await serving(it)
        node = it.node
        assert isinstance(node, Counting)
        read = node.read
        for number in range(300):
            node.become_provider(msgspec.structs.replace(SERVING, tokens=number), REQUESTS[: number % 5])
            await asyncio.sleep(0)
        assert node.read == read
        node.become_provider(OFF)
        await it.until(lambda: "Provider mode is off." in it.screen_text(), "the other mode")
        assert node.read == read + 1


async def test_what_is_hidden_is_not_read_and_its_seconds_do_not_run(tmp_path: Path) -> None:
    async with shell(tmp_path, node=Counting, clock=now) as it:
        await serving(it)
        screen, node = view(it), it.node
        assert isinstance(node, Counting)
        timer = screen._ticking
        assert timer is not None and timer._active.is_set()
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert not timer._active.is_set()
        read = node.read
        node.become_provider(ON_BATTERY, REQUESTS[:1])
        await it.until(lambda: "paused" in it.screen_text().split("\n")[-1], "the status bar")
        assert node.read == read
        await it.pilot.press("alt+p")
        await it.until(lambda: len(table(it, "requests").rows) == 1, "the news")
        assert it.app.screen is screen and timer._active.is_set()


async def test_it_stays_as_it_was_while_another_view_is_shown(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await serving(it)
        await it.pilot.press("down", "down", "s")
        chosen = table(it, "requests").highlighted
        await it.pilot.press("f1")
        await it.until(lambda: isinstance(it.app.screen, HelpScreen), "the help")
        await it.pilot.press("escape", "alt+c", "alt+p")
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view")
        again = table(it, "requests").highlighted
        assert chosen is not None and again is not None and again.key == chosen.key


async def test_a_node_that_is_gone_leaves_nothing_behind_and_comes_back(tmp_path: Path) -> None:
    async with shell(tmp_path, node=ProvidingNode, clock=now) as it:
        await serving(it)
        node, it.app._node = it.app._node, None
        await it.until(lambda: not table(it, "requests").rows and "off." in it.screen_text(), "an empty view")
        it.app._node = node
        await it.until(lambda: len(table(it, "requests").rows) == len(REQUESTS), "the requests again")


@pytest.mark.parametrize("size", [(32, 8), (80, 24), (120, 16), (200, 60)])
async def test_every_part_can_be_reached_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with shell(tmp_path, size=size, node=ProvidingNode, clock=now) as it:
        await opened(it)
        await it.pilot.press("alt+p")
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view")
        providing(it).become_provider(SERVING, REQUESTS, blocked=BLOCKED)
        for part in (*PARTS[1:], PARTS[0]):
            await it.pilot.press("tab")
            section = view(it).query_one(f"#{part}")
            await it.until(
                lambda section=section: it.app.focused is not None and section in it.app.focused.ancestors,  # type: ignore[misc] # bound now
                f"the part {part}",
            )
            assert it.app.focused is not None and it.app.focused.region.height > 0
        await it.pilot.press("shift+tab")
        await it.until(lambda: it.app.focused is view(it).query_one(FactList), "the part before")


class Facts(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[str] = []

    def compose(self) -> ComposeResult:
        yield FactList()

    def on_fact_list_chosen(self, event: FactList.Chosen) -> None:
        self.chosen.append(event.fact.name)


async def test_the_cursor_rests_on_facts_and_keeps_its_fact(tmp_path: Path) -> None:
    app = Facts()
    async with app.run_test(size=(30, 4)) as pilot:
        it = app.query_one(FactList)
        facts = [
            Fact("", "HEADING"), Fact("one", "1", setting="a"), Fact(), Fact("two", "漢字" * 20),
            Fact("", "bar"), Fact("three", "3", setting="c"),
        ]  # fmt: skip
        it.show(facts)
        it.focus()
        await pilot.pause()
        assert it.highlighted is not None and it.highlighted.name == "one"
        names = []
        for key in ("up", "down", "enter", "down", "enter", "down", "pageup", "end", "home", "end"):
            await pilot.press(key)
            names.append(it.highlighted.name)
        assert names == ["one", "two", "two", "three", "three", "three", "one", "three", "one", "three"]
        assert app.chosen == ["three"]
        it.show(facts[2:])
        assert it.highlighted.name == "three"
        assert all(it.render_line(y).cell_length == it.size.width for y in range(4))
        await pilot.press("home")
        it.show(facts)
        await pilot.pause()
        await pilot.press("up", "up")
        await pilot.click(it, offset=(5, 1 - it.scroll_offset.y))
        assert app.chosen == ["three", "one"]
        await pilot.click(it, offset=(5, 0 - it.scroll_offset.y))
        assert app.chosen == ["three", "one"]
        it.show([])
        await pilot.press("down", "enter")


def test_it_says_whether_a_peer_was_served() -> None:
    def told(status: ProviderStatus) -> Fact:
        (fact,) = [one for one in facts(Seen(status, WIDE, ONLINE), (), NOW, 36) if one.name == "self-test"]
        return fact

    assert (told(OFF).value, told(QUIET).value, told(SERVING).value) == ("off", "soon", "served 12 min ago")
    assert told(SERVING).setting == "self_test"
    assert told(SERVING).help.startswith("A peer bought an answer 12 min ago, directly; connected in 41 ms")
    result = TrialResult(NOW - 60_000, an_id("oak"), "unreachable")
    failed = told(msgspec.structs.replace(SERVING, self_test=SelfTest("on", result)))
    assert failed.value == "NOT served 1 min ago" and failed.style == "$text-error"
    assert "A peer could not reach this node." in failed.help and "listen_port" in failed.help
    wait = Waiting("a peer to buy an answer here", NOW, 60.0)
    assert (
        told(msgspec.structs.replace(SERVING, self_test=SelfTest("on", wait=wait))).value
        == "a peer is buying"
    )
