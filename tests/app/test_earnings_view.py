"""The Earnings view: what it asks for and how often, what it shows, and what can be done in it."""

from __future__ import annotations

import asyncio
import datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widget import Widget
from textual.widgets import Input

from infraxa.app.events import TradeChanged
from infraxa.app.trade import Missed, ReceiptSeen, Sum
from infraxa.app.tui.screens.dialogs import Ask
from infraxa.app.tui.screens.earnings import PAGE, PARTS, EarningsScreen
from infraxa.app.tui.screens.help import HelpScreen
from infraxa.app.tui.screens.provide import ProvideScreen
from infraxa.app.tui.screens.settle import Settle, ShowReceipt, receipt_lines
from infraxa.app.tui.widgets import earnings_rows as rows
from infraxa.app.tui.widgets import missed_list
from infraxa.app.tui.widgets.earnings_chart import PERIODS, EarningsChart, bars, filled, scale
from infraxa.app.tui.widgets.fact_list import FactList
from infraxa.app.tui.widgets.table import Table
from infraxa.net.credits import read_credits
from tests.app.shell import SETTINGS, Shell, shell
from tests.app.still import NOW
from tests.app.still_earnings import MISSED, TABS, YEAR, TradingNode, peer, receipts
from tests.app.still_provider import OFF, QUIET, SERVING

TODAY = datetime.date.fromtimestamp(NOW / 1000)


def now() -> float:
    return NOW / 1000


def trading(it: Shell) -> TradingNode:
    node = it.node
    assert isinstance(node, TradingNode)
    return node


def view(it: Shell) -> EarningsScreen:
    screen = it.app.screen
    assert isinstance(screen, EarningsScreen)
    return screen


def table(it: Shell, part: str) -> Table:
    return view(it).query_one(f"#{part} Table", Table)


def reads(it: Shell, what: str) -> list[tuple[object, ...]]:
    return [one for one in trading(it).asked if one[0] == what]


def said(it: Shell, text: str) -> bool:
    return text in it.screen_text()


def focused(it: Shell, body: Widget) -> bool:
    return it.app.focused is body


async def opened(it: Shell, *keys: str) -> None:
    await it.until(lambda: it.app.opened and it.chat.settled, "the store")
    await it.pilot.press(*(keys or ("alt+e",)))
    await it.until(lambda: isinstance(it.app.screen, EarningsScreen), "the Earnings view")
    await it.until(lambda: "0.000512 today" in it.screen_text(), "its sums")


async def part(it: Shell, name: str) -> None:
    view(it).action_open(name)
    body = view(it).query_one(f"#{name} .part-body")
    await it.until(lambda: it.app.focused is body, f"the part {name}")


async def test_it_is_reached_by_key_slash_command_palette_and_tab(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        for way in (("alt+e",), ("/", *"earnings", "enter"), ("ctrl+p", *"earnings", "enter")):
            await opened(it, *way)
            await it.pilot.press("escape")
            await it.until(lambda: it.app.screen is it.chat, "the chat")
        await it.pilot.click("ViewTabs", offset=(it.screen_text().split("\n")[0].index("Earnings"), 0))
        await it.until(lambda: isinstance(it.app.screen, EarningsScreen), "the view by its tab")
        await it.pilot.press("f1")
        await it.until(lambda: isinstance(it.app.screen, HelpScreen), "the help")


async def test_only_sums_and_one_page_of_receipts_are_asked_for(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        assert reads(it, "receipts") == [("receipts", None, None, PAGE)]
        assert [one[0] for one in trading(it).asked] == ["earnings", "receipts"]
        assert "0.960902 all" in it.screen_text(), "what was before the period, too"
        assert len(table(it, "receipts").rows) == PAGE and "the newest 100" in it.screen_text()


async def test_older_receipts_come_with_the_cursor(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        await part(it, "receipts")
        await it.pilot.press("end")
        await it.until(lambda: len(table(it, "receipts").rows) == 200, "the second page")
        await it.pilot.press("end")
        await it.until(lambda: len(table(it, "receipts").rows) == 250, "the last one")
        await it.pilot.press("end")
        assert [one[2] for one in reads(it, "receipts")] == [None, 151, 51]
        kept = [row.of for row in table(it, "receipts").rows]
        places = [one.place for one in kept if isinstance(one, ReceiptSeen)]
        assert places == list(range(250, 0, -1))
        # What is new comes above; what was read stays.
        newer = msgspec.structs.replace(receipts(1)[0], place=251, order="ab" * 16)
        trading(it).known = [newer, *trading(it).known]
        trading(it)._emit(TradeChanged())
        await it.until(lambda: len(table(it, "receipts").rows) == 251, "the new one")


async def test_however_often_something_changes_it_is_read_once(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        trading(it).asked.clear()
        for _ in range(50):
            trading(it)._emit(TradeChanged())
        await it.until(lambda: len(reads(it, "receipts")) == 1, "one reading")
        assert len(reads(it, "earnings")) == 1
        await it.pilot.press("alt+c")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        trading(it).asked.clear()
        trading(it)._emit(TradeChanged())
        await it.pilot.pause(0.1)
        assert not trading(it).asked, "nobody looks"


async def test_the_time_is_another_with_a_key(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        for period in (*PERIODS[2:], *PERIODS[:2]):
            await it.pilot.press("d")
            await it.until(partial(said, it, f"Models  {period.title}"), period.title)
        asked = {str(one[1]) for one in reads(it, "earnings")}
        assert len(asked) == len(PERIODS)


async def test_the_chart_says_what_a_bar_is_by_key_and_mouse(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        chart = view(it).query_one(EarningsChart)
        assert chart.highlighted is not None and chart.highlighted.start == TODAY
        await it.pilot.press("left")
        await it.until(
            lambda: f"{TODAY - datetime.timedelta(days=1):%d %b %Y}" in it.screen_text(), "its day"
        )
        line = it.screen_text().split("\n")
        at = next(y for y, text in enumerate(line) if "today" in text and y > 8)
        await it.pilot.click(offset=(line[at].index("today") + 1, at - 1))
        await it.until(
            lambda: chart.highlighted is not None and chart.highlighted.start == TODAY, "the click"
        )


async def test_a_limit_is_set_and_taken_back(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        await part(it, "tabs")
        await it.pilot.press("l")
        await it.until(lambda: isinstance(it.app.screen, Ask), "the question")
        await it.pilot.press(*["backspace"] * 10, *"-1", "enter")
        await it.until(lambda: "not less than 0" in it.screen_text(), "why not")
        await it.pilot.press(*["backspace"] * 10, *"0.08", "enter")
        await it.until(lambda: reads(it, "limit") == [("limit", peer("ada"), 80_000)], "the limit")
        await it.until(lambda: "may owe 0.08 · ctrl+z undoes" in it.screen_text(), "what was done")
        await it.pilot.press("ctrl+z")
        await it.until(lambda: reads(it, "limit")[1:] == [("limit", peer("ada"), 50_000)], "what it was")
        await it.pilot.press("end", "home", "down", "l")
        await it.until(lambda: "sets this limit" in it.screen_text(), "whose limit it is")


async def test_what_is_owed_is_settled_after_a_word_on_what_a_credit_is(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        await part(it, "tabs")
        await it.pilot.press("down", "t")
        await it.until(lambda: isinstance(it.app.screen, Settle), "the question")
        assert "A credit is a promise between two nodes, not money." in " ".join(it.screen_text().split())
        await it.pilot.press(*["backspace"] * 12, *"1", "enter")
        await it.until(lambda: "settle all of it, or less" in it.screen_text(), "that it is too much")
        await it.pilot.press("backspace", *"0.01", "tab", *"for the coffee", "enter")
        await it.until(
            lambda: reads(it, "settle") == [("settle", peer("birch"), 10_000, "for the coffee")], "it"
        )
        await it.until(lambda: len(it.toasts) == 1 and "Settled by what it owes" in it.toasts[0], "the end")


async def test_what_another_proposed_is_agreed_to(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        await part(it, "tabs")
        await it.pilot.press("down", "down", "enter")
        await it.until(lambda: isinstance(it.app.screen, Settle), "the question")
        assert "Two coffees on Thursday" in it.screen_text()
        await it.pilot.click("#accept")
        await it.until(lambda: reads(it, "settle") == [("settle", peer("noah"), None, "")], "it is agreed")
        await it.pilot.press("home", "t")
        await it.until(lambda: "proposes it on its own node" in it.screen_text(), "who begins")


async def test_what_another_proposed_is_declined(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        await part(it, "tabs")
        assert "2 wait for you" in it.screen_text()
        await it.pilot.press("down", "down", "enter")
        await it.until(lambda: isinstance(it.app.screen, Settle), "the question")
        await it.pilot.press("enter")  # the key that opened it, once more
        await it.until(lambda: isinstance(it.app.screen, EarningsScreen), "nothing")
        await it.pilot.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Settle), "the question again")
        await it.pilot.press("d")
        await it.until(lambda: reads(it, "decline") == [("decline", peer("noah"))], "it is declined")
        assert not reads(it, "settle")
        await it.until(lambda: len(it.toasts) == 1 and "owed as before" in it.toasts[0], "what became of it")
        await it.until(lambda: "1 waits for you" in it.screen_text(), "the heading")


async def test_what_this_side_proposed_is_asked_again_and_not_waited_for(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        note = "You proposed to settle 0.01 credits: its person has not answered yet."
        trading(it).become_books(
            YEAR, [msgspec.structs.replace(TABS[3], note=note, settling="proposed", linked="")]
        )
        await part(it, "tabs")
        await it.until(lambda: "You proposed to settle 0.01" in it.screen_text(), "the note")
        assert "for you" not in it.screen_text()
        await it.pilot.press("t")
        await it.until(lambda: isinstance(it.app.screen, Settle), "the question")
        await it.pilot.press("d")
        assert "nothing else can be proposed" in " ".join(it.screen_text().split())
        await it.pilot.press("enter")
        await it.until(lambda: reads(it, "settle") == [("settle", peer("birch"), None, "")], "it is asked")


async def test_a_receipt_is_shown_in_full_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with shell(tmp_path / "data", node=TradingNode, clock=now, size=(80, 24)) as it:
        await opened(it)
        await part(it, "receipts")
        await it.pilot.press(*["down"] * 5, "enter")
        await it.until(lambda: isinstance(it.app.screen, ShowReceipt), "the receipt")
        assert "≠ disputed" in it.screen_text() and "341" in it.screen_text() and "353" in it.screen_text()
        await it.pilot.press("e")
        await it.until(lambda: isinstance(it.app.screen, Ask), "where to")
        target = Path(it.app.screen.query_one(Input).value)
        await it.pilot.press("enter")
        await it.until(target.exists, "the file")
        assert await asyncio.to_thread(target.read_text) == trading(it).lines[0].text + "\n"
        assert reads(it, "export") == [("export", f"{5:032x}")]


async def test_sold_and_bought_are_told_apart_with_a_key(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        for role, word in (("provider", "sold"), ("user", "bought")):
            await it.pilot.press("r")
            await it.until(partial(only, it, role), word)
            assert word in view(it)._listed()


async def test_what_audits_found_of_what_was_bought_is_in_the_list(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now, size=(200, 60)) as it:
        await opened(it)
        await it.until(lambda: "verdict" in it.screen_text() and "✓ passed" in it.screen_text(), "verdicts")
        await it.pilot.press("r")
        await it.until(partial(only, it, "provider"), "what was sold")
        assert "verdict" not in it.screen_text(), "who sells audits nothing"
        await it.pilot.press("r")
        await it.until(partial(only, it, "user"), "what was bought")
        for words in ("verdict", "unverified", "not audited", "undetermined", "✗ failed", "✗ caught"):
            assert words in it.screen_text(), words
        await it.pilot.press(*["down"] * 5)
        await it.until(lambda: "✗ caught lying: wrong token" in it.screen_text(), "the verdict in full")


def only(it: Shell, role: str) -> bool:
    """Whether receipts of this role are shown, and no others."""
    kept = [row.of for row in table(it, "receipts").rows]
    return bool(kept) and all(isinstance(one, ReceiptSeen) and one.role == role for one in kept)


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (120, 36), (200, 60)])
async def test_every_part_can_be_reached_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now, size=size) as it:
        await opened(it)
        for name in (*PARTS[1:], PARTS[0]):
            await it.pilot.press("tab")
            body = view(it).query_one(f"#{name} .part-body")
            await it.until(partial(focused, it, body), f"the part {name}")
            assert body.size.height >= 2, name


async def test_where_there_is_nothing_it_says_what_would_be_there(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await opened(it)
        trading(it).become_books(())
        await it.until(lambda: "No tabs yet." in it.screen_text(), "that there is nothing")
        assert "No receipts yet." in it.screen_text() and "Nothing was earned" in it.screen_text()


async def test_why_nothing_is_earned_is_said_in_the_provide_view(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        await it.pilot.press("alt+p")
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view")
        await it.until(lambda: "there is nothing to earn" in it.screen_text(), "why, while it is off")
        trading(it).missed = MISSED
        trading(it).become_provider(SERVING)
        await it.until(lambda: "12 times · the last 3 min ago" in it.screen_text(), "what was lost")
        text = " ".join(it.screen_text().split())
        assert "not taken 12 times, by 5 users" in text and "A lower base_price" in text
        await it.until(lambda: "0.000512 credits" in facts_of(it), "what was earned since it is on")
        assert "1.45 × base" in facts_of(it)


def facts_of(it: Shell) -> str:
    return "\n".join(f"{fact.name} {fact.value}" for fact in it.app.screen.query_one(FactList).rows)


async def test_a_price_is_set_where_it_stands_and_taken_back(tmp_path: Path) -> None:
    async with shell(tmp_path, node=TradingNode, settings=SETTINGS, clock=now) as it:
        await it.until(lambda: it.app.opened and it.chat.settled, "the store")
        await it.pilot.press("alt+p")
        await it.until(lambda: isinstance(it.app.screen, ProvideScreen), "the view")
        screen = it.app.screen
        assert isinstance(screen, ProvideScreen)
        screen.action_open("offer")
        facts = screen.query_one(FactList)
        await it.until(lambda: it.app.focused is facts, "the offer")
        names = [fact.setting for fact in facts.rows]
        for name in ("price_floor", "price_ceiling", "stranger_limit", "strangers_daily", "free_daily"):
            assert name in names
        assert "pause_when_busy" in names
        await it.pilot.press("home")
        while facts.cursor < names.index("base_price"):
            await it.pilot.press("down")
        await it.pilot.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Ask), "the question")
        await it.pilot.press(*["backspace"] * 5, *"0.5", "enter")
        await it.until(lambda: it.app.settings.base_price == 0.5, "the price")
        await it.until(lambda: "ctrl+z undoes" in it.screen_text(), "how it is undone")
        await it.pilot.press("ctrl+z")
        await it.until(lambda: it.app.settings.base_price == 0.2, "what it was")


def test_nothing_missed_is_said_without_a_guess() -> None:
    assert "F7" in missed_list.nothing(OFF, NOW)
    assert "Nobody has asked" in missed_list.nothing(QUIET, NOW)
    said = missed_list.nothing(SERVING, NOW)
    assert "No chance to earn was missed since" in said and "asked" not in said


def test_a_reason_of_a_newer_node_and_hostile_text_are_drawn() -> None:
    odd = Missed(NOW, "dearer", "x\x1b[2J" * 200, "y" * 2000, 2)
    lines = missed_list.lines([odd, *MISSED], NOW, 40)
    assert all(line.cell_length <= 40 for line in lines) and "\x1b" not in "".join(map(str, lines))


amounts = st.integers(0, 10**13)


@given(amounts, amounts, st.integers(2, 40))
def test_bars_fit_and_are_by_one_scale(earned: int, spent: int, height: int) -> None:
    by = scale(earned, spent, height)
    assert by.above + by.below <= height
    for amount, room in ((earned, by.above), (spent, by.below)):
        assert amount <= by.step * room or not amount
        eighths = sum(filled(amount, by.step, row) for row in range(room))
        assert (eighths > 0) == (amount > 0)
        if amount:
            assert abs(eighths - amount * 8 / by.step) <= 1


def test_days_without_anything_are_empty_bars_and_none_is_lost() -> None:
    for period in PERIODS:
        shown = bars(YEAR, period, TODAY)
        assert len(shown) == period.bars and shown[0].start == period.since(TODAY)
        since = period.since(TODAY).isoformat()
        assert sum(bar.earned for bar in shown) == sum(day.earned for day in YEAR if day.key >= since)
    assert bars([Sum("2020-01-01", "", 5)], PERIODS[0], TODAY)[0].earned == 0


@given(st.lists(st.integers(-(10**12), 10**12)))
def test_points_stand_under_each_other(listed: list[int]) -> None:
    texts = rows.aligned(listed)
    assert [read_credits(text) for text in texts] == listed
    assert len({len(text) - text.index(".") for text in texts}) <= 1


def test_what_one_direction_can_pay_of_the_other() -> None:
    by_peer = {(tab.role, tab.peer): tab for tab in TABS}
    ada, birch = by_peer["provider", peer("ada")], by_peer["user", peer("birch")]
    assert rows.netting(birch, TABS) == rows.netting(ada, TABS) == birch.owed
    assert rows.netting(by_peer["user", peer("slate")], TABS) == 0


def test_all_of_a_receipt_is_in_it_and_nothing_hostile() -> None:
    for one in receipts(60):
        said = "\n".join(line.plain for line in receipt_lines(one))
        assert one.order in said and one.peer in said and rows.STATES[one.state][0] in said
        assert ("verdict" in said) == (one.role == "user") and rows.verdict_of(one) in said
    hostile = msgspec.structs.replace(
        receipts(4)[3], name="\x1b[2J[b]", model="m\n\x1b", outcome="o\x1b", why="w\x1b", peer=peer("x")
    )
    said = "\n".join(line.plain for line in receipt_lines(hostile))
    assert "\x1b" not in said and "[b]" in said
    assert "\x1b" not in rows.in_full(hostile, TABS, NOW).plain
