"""The Market view: what it shows of offers, that it stays calm, and what can be done in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from infraxa.app.offers import OfferSeen
from infraxa.app.tui.screens import market
from infraxa.app.tui.screens.help import HelpScreen
from infraxa.app.tui.screens.market import MarketScreen
from infraxa.app.tui.widgets.figures import price
from infraxa.app.tui.widgets.market_rows import (
    COLUMNS,
    Wanted,
    label,
    offer_rows,
    percent,
    tokens,
    watched,
    who,
)
from infraxa.app.tui.widgets.offer_facts import card, in_lines, reached, warnings
from infraxa.app.tui.widgets.table import Table
from infraxa.app.tui.widgets.table_rows import AnyRow
from infraxa.net.identity import id_text
from infraxa.net.status import NetworkStatus, SeenNode
from tests.app.shell import Shell, shell
from tests.app.still import ALONE, NOW, OFFERS, ONLINE, StillNode, an_id, offered, seen

GRANITE = next(offer for offer in OFFERS if offer.node.name == "granite")
HEADINGS = [column.title for column in COLUMNS]
BY_SPEED, BY_TRIP = HEADINGS.index("tok/s"), HEADINGS.index("trip")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of the view is shorter here; rows keep their places until a test says otherwise."""
    monkeypatch.setattr(market, "CALM", 0.25)
    monkeypatch.setattr(market, "SETTLED", 3600.0)


def now() -> float:
    return NOW / 1000


def still(it: Shell) -> StillNode:
    node = it.node
    assert isinstance(node, StillNode)
    return node


def view(it: Shell) -> MarketScreen:
    screen = it.app.screen
    assert isinstance(screen, MarketScreen)
    return screen


def offer_of(row: AnyRow | None) -> OfferSeen:
    assert row is not None and isinstance(row.of, OfferSeen)
    return row.of


def shown(it: Shell) -> list[str]:
    """Provider and model of each row, in order."""
    return [f"{offer_of(row).node.name} {offer_of(row).model.name}" for row in view(it).table.rows]


def keys(it: Shell) -> list[bytes]:
    return [row.key for row in view(it).table.rows]


def under(it: Shell) -> OfferSeen:
    return offer_of(view(it).table.highlighted)


async def open_market(it: Shell, *keys: str) -> None:
    await it.until(lambda: it.app.opened and it.chat.settled, "the store")
    await it.pilot.press(*(keys or ("alt+m",)))
    await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the Market view")
    await it.until(lambda: len(view(it).table.rows) == len(still(it).offers), "its first painting")


async def go_to(it: Shell, name: str) -> None:
    """Put the cursor on the first row of this provider."""
    table = view(it).table
    table.cursor = next(at for at, row in enumerate(table.rows) if offer_of(row).node.name == name)
    await it.pilot.pause()


def changed(offer: OfferSeen, **node: object) -> OfferSeen:
    return msgspec.structs.replace(offer, node=msgspec.structs.replace(offer.node, **node))


async def test_it_is_reached_by_key_slash_command_palette_and_mouse_and_esc_leads_back(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        for way in (("alt+m",), ("ctrl+g",), ("/", *"market", "enter"), ("ctrl+p", *"market", "enter")):
            await open_market(it, *way)
            assert it.app.focused is view(it).table
            await it.pilot.press("escape")
            await it.until(lambda: it.app.screen is it.chat, "the chat")
        tabs = it.screen_text().split("\n")[0]
        await it.pilot.click("ViewTabs", offset=(tabs.index("Market") + 1, 0))
        await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the view by its tab")
        await it.pilot.press("f1")
        await it.until(lambda: isinstance(it.app.screen, HelpScreen), "the help over it")


async def test_it_stays_as_it_was_while_another_view_is_shown(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        await it.pilot.press("/", *"qwen", "enter", "s", "down", "down")
        before, chosen = shown(it), under(it)
        await it.pilot.press("alt+c", "alt+m")
        await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the view again")
        assert shown(it) == before and under(it) == chosen and len(before) < len(OFFERS)


async def test_the_best_is_first_pinned_ones_above_and_blocked_ones_below(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        assert [offer_of(row) for row in view(it).table.rows] == OFFERS  # as Node lists them
        assert [OFFERS[0].mark, OFFERS[-1].mark] == ["pinned", "blocked"]
        still(it).become_market(OFFERS[::-1])
        await it.pilot.press("s")
        names = [who(offer_of(row).node) for row in view(it).table.rows if not row.group]
        assert names == sorted(names)
        await it.pilot.press("S")
        assert view(it).table.rows[0].group == -1 and view(it).table.rows[-1].group == 1


async def test_rows_are_sorted_by_key_and_by_mouse_and_what_is_not_known_is_last(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(140, 36), node=StillNode, clock=now) as it:
        await open_market(it)
        table = view(it).table

        def trips() -> list[float | None]:
            return [offer_of(row).node.rtt_ms for row in table.rows if not row.group]

        heading = table.render_line(0).text
        for expected in (sorted, lambda trips: sorted(trips, reverse=True)):
            await it.pilot.click(table, offset=(heading.index("trip") + 1, 0))
            assert table.sorted_by == BY_TRIP
            known = [trip for trip in trips() if trip is not None]
            assert trips() == [*expected(known), *[None] * (len(trips()) - len(known))]
        await it.pilot.press("s")
        assert COLUMNS[table.sorted_by].title == "success" and table.descending
        cursor = table.cursor
        await it.pilot.click(table, offset=(20, cursor + 4))
        assert table.cursor == cursor + 3


async def test_values_that_change_move_neither_columns_nor_rows_nor_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shell(tmp_path, size=(200, 60), node=StillNode, clock=now) as it:
        await open_market(it)
        table = view(it).table
        table.sort_by(BY_TRIP)
        await it.pilot.press("down", "down", "down")
        before, chosen, heading = keys(it), under(it), table.render_line(0).text
        offers = [changed(offer, rtt_ms=1234.0 - 40 * at) for at, offer in enumerate(OFFERS)]
        still(it).become_market(offers)
        await it.until(lambda: "1234 ms" in it.screen_text(), "the new values")
        assert keys(it) == before and table.render_line(0).text == heading
        assert who(under(it).node) == who(chosen.node)
        assert {len(table.render_line(y).text.rstrip()) <= table.size.width for y in range(20)} == {True}

        # A new one is at once where it belongs among them; one that is gone is gone.
        newcomer = offered("newcomer", "Qwen3-8B", "Q8_0", node=seen("newcomer", 1.0, slots=1, rtt_ms=24.0))
        still(it).become_market([*offers[1:], newcomer])
        await it.until(lambda: "newcomer Qwen3-8B" in shown(it), "the newcomer")
        after = keys(it)
        place = shown(it).index("newcomer Qwen3-8B")
        gone = OFFERS[0].node.id + OFFERS[0].model.model_id
        assert after[:place] + after[place + 1 :] == [key for key in before if key != gone]
        assert shown(it)[place - 1].startswith("juniper")  # 23 ms, when it was placed
        assert who(under(it).node) == who(chosen.node)

        # After some seconds all rows take their places.
        monkeypatch.setattr(market, "SETTLED", 0.0)
        await it.until(lambda: keys(it) != after, "the new order")
        trips = [offer_of(row).node.rtt_ms for row in table.rows if not row.group]
        assert trips == sorted(trip for trip in trips if trip is not None)
        assert who(under(it).node) == who(chosen.node) and table._in_sight(table.cursor)


async def test_a_storm_of_changes_is_read_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(StillNode):
        asked = 0

        async def list_offers(self) -> list[OfferSeen]:
            self.asked += 1
            return await super().list_offers()

    monkeypatch.setattr(market, "CALM", 0.5)
    async with shell(tmp_path, node=Counting, clock=now) as it:
        await open_market(it)
        node = it.node
        assert isinstance(node, Counting)
        asked = node.asked
        for number in range(500):
            node.become_market(OFFERS[: 1 + number % 9])
        node.become_market(OFFERS[:3])
        await it.until(lambda: len(view(it).table.rows) == 3, "the last state")
        assert node.asked - asked <= 3
        await it.pilot.press("escape")
        asked = node.asked
        chat_asks = it.chat.driver.kind != "local"
        node.become_market(OFFERS)
        await it.pilot.pause(0.1)
        assert not chat_asks and node.asked == asked  # what is hidden is not read


async def test_what_is_looked_at_is_watched_and_let_go(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        node = still(it)
        await it.until(lambda: len(node.watched) == market.WATCHED, "the watching")
        assert an_id("birch") in node.watched and an_id("elm") not in node.watched
        await go_to(it, "fjord")  # far below
        await it.until(lambda: an_id("fjord") in node.watched, "what is under the cursor")
        assert an_id("birch") in node.watched and len(node.watched) == market.WATCHED
        await it.pilot.press("f1")
        await it.until(lambda: not node.watched, "nothing behind a view")
        await it.pilot.press("escape")
        await it.until(lambda: an_id("fjord") in node.watched, "the watching again")
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat and not node.watched, "nothing is watched")


def test_at_most_so_many_are_watched_each_once() -> None:
    rows = offer_rows(OFFERS, 0.0, (b"", None))
    found = watched(rows, rows[-3], [OFFERS[0]], 8)
    assert found[:2] == (an_id("quartz"), an_id("birch")) and len(set(found)) == len(found) == 8
    assert an_id("elm") not in watched(rows, None, [], 100)


async def test_a_provider_is_pinned_and_blocked_and_that_is_undone(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)

        def mark(name: str) -> set[str]:
            return {offer.mark for offer in still(it).offers if offer.node.id == an_id(name)}

        await go_to(it, "juniper")
        await it.pilot.press("p")
        await it.until(lambda: mark("juniper") == {"pinned"}, "the pin")
        await it.until(
            lambda: sum(row.startswith("juniper") for row in shown(it)[:4]) == 2, "both its rows at the top"
        )
        assert under(it).node.id == an_id("juniper") and "ctrl+z undoes" in it.screen_text()
        await it.pilot.press("b")
        await it.until(lambda: mark("juniper") == {"blocked"}, "the block")
        assert under(it).node.id == an_id("juniper")
        await it.until(lambda: "b takes that back" in it.screen_text(), "what that means")
        await it.pilot.press("enter")
        await it.until(lambda: "is blocked by you: b takes that back" in it.screen_text(), "why not")
        await it.pilot.press("ctrl+z")
        await it.until(lambda: mark("juniper") == {"pinned"}, "the pin again")
        await it.until(lambda: "is pinned above all others · undone" in it.screen_text(), "that it is undone")
        assert "is blocked" not in it.screen_text() and not it.toasts
        await it.pilot.press("ctrl+z")
        await it.until(lambda: mark("juniper") == {""}, "no mark")
        await it.until(lambda: "is pinned no more · undone" in it.screen_text(), "that, too")
        await it.pilot.press("ctrl+z", "b")
        await it.until(lambda: mark("juniper") == {"blocked"}, "the block")
        await it.pilot.press("b")
        await it.until(lambda: mark("juniper") == {""}, "no block")


async def test_enter_makes_it_the_driver_of_the_chat_that_begins(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        await go_to(it, "juniper")
        model = under(it).model
        await it.pilot.press("enter")
        await it.until(lambda: it.app.screen is it.chat and it.chat.driver.kind == "node", "the driver")
        assert (it.chat.driver.id, it.chat.driver.model_id) == (
            id_text(an_id("juniper")),
            model.model_id.hex(),
        )
        assert it.app.focused is it.chat.prompt.area
        await it.until(lambda: "answers from now on" in it.screen_text(), "the word")
        await it.pilot.press("alt+m")
        await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the market")
        await it.until(lambda: "● juniper·" in it.screen_text(), "who answers")
        assert it.screen_text().count("▸") == 1  # that model, not all of the node


async def test_a_double_click_and_the_other_drivers(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        table = view(it).table
        await it.pilot.click(table, offset=(5, 2))
        assert table.cursor == 1 and it.app.screen is not it.chat
        wanted = under(it)
        await it.pilot.click(table, offset=(5, 2), times=2)
        await it.until(lambda: it.app.screen is it.chat and it.chat.driver.kind == "node", "the driver")
        assert it.chat.driver.id == id_text(wanted.node.id)
        for key, kind, model in (("a", "auto", None), ("A", "auto", wanted.model.model_id.hex())):
            await it.pilot.press("alt+m")
            await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the market")
            await it.pilot.press(key)
            await it.until(lambda: it.app.screen is it.chat, "the chat")
            assert (it.chat.driver.kind, it.chat.driver.model_id) == (kind, model)
        await it.pilot.press("alt+m")
        await it.until(
            lambda: f"infraxa chooses, with {wanted.model.name}" in it.screen_text(), "who answers"
        )
        row = it.screen_text().split("\n")[3]
        await it.pilot.click("#answering", offset=(row.index("this machine") - 2, 0))
        await it.until(lambda: it.app.screen is it.chat and it.chat.driver.kind == "local", "this machine")


async def test_what_cannot_be_the_driver_says_why(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        await go_to(it, "fjord")
        await it.pilot.press("enter")
        await it.until(lambda: bool(it.toasts), "the reason")
        assert it.toasts[0].endswith(": It is offline.") and isinstance(it.app.screen, MarketScreen)
        assert it.chat.driver.kind == "local"


async def test_rows_are_filtered_by_words_and_switches(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        table = view(it).table
        await it.pilot.press("/", *"QWEN birch")
        await it.until(lambda: len(table.rows) == 2, "both words")
        assert "2 of 30 offers" in it.screen_text()
        await it.pilot.press("enter", "o")
        assert it.app.focused is table and len(table.rows) == 2
        assert "birch" in view(it).query_one(Input).value.casefold()
        await it.pilot.press("escape")  # all of it
        assert len(table.rows) == len(OFFERS) and isinstance(it.app.screen, MarketScreen)
        assert not view(it).query_one(Input).display
        await it.pilot.press("/", *"no such thing", "enter")
        await it.until(lambda: "There are 30 in all: Esc shows them." in it.screen_text(), "why it is empty")
        await it.pilot.press("escape", "o")
        assert {offer_of(row).node.status for row in table.rows} == {"online"}
        await it.pilot.press("o", "f")
        assert len(table.rows) == len(OFFERS)
        still(it).become_market([offered("birch", "Qwen3", "Q8_0", cost=(1, 2_000_000))])
        await it.until(lambda: "No offer that is free." in it.screen_text(), "why it is empty")
        await it.pilot.press("escape")
        await it.until(lambda: "2.00" in it.screen_text(), "its price")
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")


def test_a_filter_finds_what_is_shown_and_a_whole_id() -> None:
    quartz = next(offer for offer in OFFERS if offer.node.name == "quartz")
    whole = id_text(quartz.node.id)
    for words in ("", "QUARTZ", "mistral iq4", whole[:8], whole[:20], whole):
        assert Wanted(words).shows(quartz), words
    for words in ("quartz qwen", whole[8:20], whole[::-1]):
        assert not Wanted(words).shows(quartz), words
    assert not Wanted(online=True).shows(quartz) and Wanted(free=True).shows(quartz)


STATES: list[tuple[NetworkStatus, Sequence[str]]] = [
    (NetworkStatus(), ["this machine alone answers", "F9"]),
    (msgspec.structs.replace(ALONE, activity="starting"), ["The network is starting."]),
    (ALONE, ["No provider yet.", "alt+n", "infraxa demo"]),
    (msgspec.structs.replace(ONLINE, known=3), ["3 nodes are there, none of them offers a model.", "alt+p"]),
    (msgspec.structs.replace(ONLINE, known=1), ["1 node is there, it offers no model."]),
]


@pytest.mark.parametrize(("status", "words"), STATES, ids=["off", "starting", "alone", "none", "one"])
async def test_an_empty_market_says_why_and_what_to_do(
    tmp_path: Path, status: NetworkStatus, words: Sequence[str]
) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        still(it).become_market([])
        still(it).become(status)
        await it.until(lambda: all(word in it.screen_text() for word in words), "the reason")
        await it.pilot.press("enter", "p", "b", "y", "A", "down", "s")  # nothing to do it to
        assert isinstance(it.app.screen, MarketScreen) and not it.toasts


def hostile() -> list[OfferSeen]:
    """One node of eight models of one id, and names that are more than text."""
    node = seen(
        "[red]\x1b]0;x\x07\u202eeve\n", 1.0, "ws://[@click=app.quit]x[/]\x1b[2J:1", slots=4096, util=255,
        first_token_ms=2**31 - 1, rtt_ms=1e9,
    )  # fmt: skip
    name = "[@click=app.quit]GPT\x1b[2J\u200d\u0301\u0301\u0301界[/]" * 3
    return [
        offered("eve", name[:96], "\x07[b]Q9", 2**31 - 1, node=node, cost=(2**62, 2**62), speed=2**20)
        for _ in range(8)
    ]


@pytest.mark.parametrize("size", [(32, 8), (50, 16), (80, 24), (120, 36), (200, 60)])
async def test_claims_of_strangers_are_text_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with shell(tmp_path, size=size, node=StillNode, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        still(it).become_market(hostile())
        await it.pilot.press("alt+m")
        await it.until(lambda: isinstance(it.app.screen, MarketScreen), "the view")
        table = view(it).table
        await it.until(lambda: len(table.rows) == 8, "all eight models")
        assert len({row.key for row in table.rows}) == 8
        text = it.screen_text()
        assert "[red]" in text or size[0] < 50
        assert not {"\x1b", "\x07", "\u202e", "\u200d", "\u0301"} & set(text)
        for y in range(table.size.height):
            assert table.render_line(y).cell_length == table.size.width
        await it.pilot.press("end", "down", "pageup", "home")
        assert it.app.is_running


async def test_five_hundred_nodes_of_eight_models_are_a_table(tmp_path: Path) -> None:
    many = [
        offered(f"node-{at}", f"model-{model}", "Q4_0", node=seen(f"node-{at}", at % 60, slots=2))
        for at in range(500)
        for model in range(8)
    ]
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        still(it).become_market(many)
        await open_market(it)
        await it.pilot.press("end")
        table = view(it).table
        assert table.cursor == 3999 and table._in_sight(3999)
        assert "4,000 offers" in it.screen_text()
        last = under(it)
        still(it).become_market([changed(offer, rtt_ms=5.0) for offer in many])
        await it.until(lambda: offer_of(table.rows[0]).node.rtt_ms == 5.0, "the news")
        assert under(it).node.id == last.node.id and table._in_sight(table.cursor)


async def test_all_of_the_row_is_told_and_its_id_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    for size in ((80, 24), (200, 60)):
        async with shell(tmp_path, size=size, node=StillNode, clock=now) as it:
            monkeypatch.setattr(it.app, "copy", lambda text, what="": copied.append(text))
            await open_market(it)
            await go_to(it, "ostrich farm in the north")
            await it.until(lambda: "It failed" in it.screen_text(), "the warning")
            await it.pilot.press("y")
    assert copied == [id_text(an_id("ostrich farm in the north"))] * 2


def test_claims_and_measurements_never_stand_in_one_number() -> None:
    birch = OFFERS[0]
    for text in (in_lines(birch, 0.0, 200).plain, card(birch, 0.0, 42).plain):
        for word in ("33.8 tok/s", "45.0 tok/s", "41 of 42 whole · 98 %", id_text(birch.node.id)[:26]):
            assert word in text
    cells = next(row.cells for row in offer_rows([birch], 0.0, (b"", None)))
    assert callable(cells) and cells()[BY_SPEED][0] == "33.8"
    new = next(row.cells for row in offer_rows([OFFERS[1]], 0.0, (b"", None)))
    assert callable(new) and new()[BY_SPEED][0] == "~18.0"
    assert in_lines(GRANITE, 0.0, 80).plain.count("nothing yet") == 2


def test_how_a_node_is_reached() -> None:
    relay = an_id("relay")
    cases: dict[str, SeenNode] = {
        "on this LAN · 192.168.1.5": seen("a", 1.0, "ws://192.168.1.5:7741", "lan"),
        "direct · 203.0.113.9:443": seen("a", 1.0, "ws://203.0.113.9:443"),
        "direct · 2001:db8::1": seen("a", 1.0, "ws://[2001:db8::1]:7741"),
        f"through a relay · {id_text(relay)[:8]}": seen("a", 1.0, relays=(relay,)),
        "through a relay 7k2m9x4q": seen("a", 1.0, "relay:" + "7k2m9x4q" * 6 + "7k2m"),
        "on this LAN": seen("a", 1.0, "", "lan"),
        "as its invite says": seen("a", 1.0, "", "invite"),
        "no address told": seen("a", 1.0),
    }
    for words, node in cases.items():
        assert reached(node) == words


def test_a_fault_is_told_for_as_long_as_it_counts() -> None:
    offer = offered("a", "m", "q", node=seen("a", 1.0), cooling_s=10.0)
    assert "for 7 s more" in warnings(offer, 3.0)[0][0]
    assert not warnings(offer, 10.0)


def test_numbers_fit_their_columns() -> None:
    assert [price(micro) for micro in (200_000, 400, 12_500_000, 1, 2**62)] == [
        "0.20", "0.0004", "12.50", "0.0000", ">99999",
    ]  # fmt: skip
    assert [tokens(count) for count in (512, 8192, 40960, 1 << 20, 2**31 - 1)] == [
        "512", "8k", "40k", "1M", "1G",
    ]  # fmt: skip
    assert [percent(share) for share in (0.0, 0.999, 1.0)] == ["0 %", "99 %", "100 %"]
    assert label("Ｑwen\u200b\u0301\x1b[0m 界") == "Qwen[0m 界"


async def test_a_node_that_is_gone_leaves_nothing_behind_and_comes_back(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        node, it.app._node = it.app._node, None
        await it.until(lambda: not view(it).table.rows, "an empty view")
        await it.pilot.press("enter", "p", "a", "l", "y")
        assert isinstance(it.app.screen, MarketScreen)
        it.app._node = node
        await it.until(lambda: len(view(it).table.rows) == len(OFFERS), "the offers again")


async def test_it_works_without_a_keyboard(tmp_path: Path) -> None:
    async with shell(tmp_path, node=StillNode, clock=now) as it:
        await open_market(it)
        row = it.screen_text().split("\n")[2]
        switches = view(it).query_one("#switches")
        await it.pilot.click(switches, offset=(row.index("online only") - switches.region.x, 0))
        assert view(it).wanted.online
        await it.pilot.click(switches, offset=(1, 0))
        await it.until(lambda: isinstance(it.app.focused, Input), "the filter")
        await it.pilot.click(Table, offset=(5, 4))
        assert it.app.focused is view(it).table and view(it).table.cursor == 3
