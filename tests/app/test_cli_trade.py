"""`infraxa earnings`, `tabs` and `receipts` on the books of a user and of the provider it bought from."""

from __future__ import annotations

import asyncio
import csv
import datetime
import io
import json
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from infraxa.app.commands.checkup import Check, Finding
from infraxa.app.commands.earnings import since_of
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.ledger_checks import LEDGER_CHECKS
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.net.identity import id_text
from infraxa.store import earnings, ledger, tabs, trade, verdicts
from infraxa.store.db import Store
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VerdictRow
from tests.app.command_line import COMMAND, environment, infraxa, one_line
from tests.app.networked import settings_of
from tests.app.test_purse_till import street
from tests.app.tills import cost
from tests.e2e.terminal import Terminal

ANSWERS = (4, 1, 300)
"""Tokens of the answers that were bought, in order."""
COST = sum(map(cost, ANSWERS))


class Books(NamedTuple):
    """Data folders."""

    user: Path
    shop: Path
    provider: str
    account: str


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """After three answers, which both sides signed."""
    folder = tmp_path_factory.mktemp("books")

    async def fill() -> tuple[str, str]:
        async with street(folder) as place:
            for tokens in ANSWERS:
                await place.ask(tokens)
            assert await place.agree() == COST
            return id_text(place.id), id_text(place.account(place.id).id)

    return Books(folder / "user", folder / "shop", *asyncio.run(fill()))


@pytest.fixture
def books(kept: Books, tmp_path: Path) -> Iterator[Books]:
    """A copy, to change."""
    user, shop = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (kept.user, kept.shop))
    yield kept._replace(user=user, shop=shop)


def printed(*arguments: str, data: Path) -> Any:
    ran = infraxa(*arguments, "--json", data=data)
    assert (ran.code, ran.err) == (0, ""), ran
    return json.loads(ran.out)


def test_earnings_of_both_sides(kept: Books) -> None:
    earned, spent = printed("earnings", data=kept.shop), printed("earnings", data=kept.user)
    for found, (amount, count, tokens), key in (
        (earned, ("earned", "sold", "tokens_sold"), kept.account),
        (spent, ("spent", "bought", "tokens_bought"), kept.provider),
    ):
        total = found["total"]
        assert (total[amount], total[count], total[tokens]) == (COST, 3, sum(ANSWERS))
        assert [one["key"] for one in found["peers"]] == [key]
        assert [one["name"] for one in found["models"]] == ["guide"]
    assert (earned["owed_to_me"], earned["owed_by_me"]) == (COST, 0)
    assert (spent["owed_to_me"], spent["owed_by_me"]) == (0, COST)


def test_earnings_in_a_pipe_and_as_csv(kept: Books) -> None:
    shown = f"{COST / 1e6:.6f}".rstrip("0")
    ran = infraxa("earnings", "--by", "model", data=kept.shop)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.rstrip("\n").split("\t") == ["guide", shown, "3", str(sum(ANSWERS)), "0.00", "0", "0"]
    (row,) = csv.DictReader(io.StringIO(infraxa("earnings", "--by", "peer", "--csv", data=kept.user).out))
    assert (row["peer"], row["spent"], row["answers_bought"]) == (kept.provider, shown, "3")
    assert row["earned"] == "0.00"


def test_a_name_is_no_formula_in_a_spreadsheet(books: Books) -> None:
    async def rename() -> None:
        async with await Store.open(books.user) as store:
            (tab,) = await store.run(tabs.list_tabs)
            await store.run(
                lambda conn: conn.execute("UPDATE tabs SET name = '=1+1' WHERE peer = ?", (tab.peer,))
            )

    asyncio.run(rename())
    (row,) = csv.DictReader(io.StringIO(infraxa("earnings", "--by", "peer", "--csv", data=books.user).out))
    assert row["name"] == "'=1+1"


def test_earnings_since_a_day(kept: Books) -> None:
    (day,) = (one["key"] for one in printed("earnings", data=kept.shop)["days"])
    after = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    assert printed("earnings", "--since", day, data=kept.shop)["total"]["sold"] == 3
    assert printed("earnings", "--since", after.isoformat(), data=kept.shop)["total"]["sold"] == 0
    nothing = infraxa("earnings", "--since", after.isoformat(), data=kept.shop)
    assert (nothing.code, nothing.out) == (0, "") and "Nothing was sold or bought" in nothing.err


def test_what_a_day_is() -> None:
    today = datetime.date(2026, 11, 21)

    def at(year: int, month: int, day: int) -> int:
        return int(datetime.datetime(year, month, day).timestamp()) * 1000

    assert since_of("2026-11-01", today) == at(2026, 11, 1)
    assert since_of("1d", today) == at(2026, 11, 21)
    assert since_of("30d", today) == at(2026, 10, 23)
    for text in ("", "d", "0d", "-1d", "99999999d", "2026-13-01", "yesterday", "7 d", "٣d", "1\x1b[2Jd"):
        with pytest.raises(UsageError, match="is no day") as raised:
            since_of(text, today)
        assert "\x1b" not in str(raised.value)


def test_tabs_of_both_sides(kept: Books) -> None:
    (mine,), (theirs,) = printed("tabs", "list", data=kept.user), printed("tabs", "list", data=kept.shop)
    assert (mine["role"], mine["peer"], mine["owed"]) == ("user", kept.provider, COST)
    assert (theirs["role"], theirs["peer"], theirs["owed"]) == ("provider", kept.account, COST)
    assert "it owes" in infraxa("tabs", "list", data=kept.shop).out
    short = printed("tabs", "show", f"till·{kept.provider[:8]}", data=kept.user)
    assert short == mine
    one_line(infraxa("tabs", "show", "zzzzzz", data=kept.user), "There is no tab")
    one_line(infraxa("tabs", "show", "", data=kept.user), "There is no tab")


def test_on_a_terminal_it_is_said_what_a_credit_is(kept: Books) -> None:
    with closing(Terminal([*COMMAND, "tabs", "list"], environment(kept.user), size=(140, 20))) as terminal:
        assert terminal.wait_exit() == 0
        assert "who owes" in terminal.text and terminal.text.count("not money") == 1
    assert "not money" in infraxa("tabs", "--help", data=kept.user).out
    piped = infraxa("tabs", "list", data=kept.user)
    assert piped.err == "" and "you owe" in piped.out


def test_the_limit_of_a_user(books: Books) -> None:
    assert printed("tabs", "show", books.account, data=books.shop)["limit"] == 5000
    ran = infraxa("tabs", "limit", books.account[:6], "0.25", data=books.shop)
    assert ran.code == 0 and "may owe 0.25 credits (set for it)" in ran.out
    tab = printed("tabs", "show", books.account, data=books.shop)
    assert (tab["limit"], tab["own_limit"]) == (250_000, True)
    tab = printed("tabs", "limit", books.account, "auto", data=books.shop)
    assert (tab["limit"], tab["own_limit"]) == (5000, False)
    one_line(infraxa("tabs", "limit", books.provider, "1", data=books.user), "The provider of a tab sets")
    for amount in ("much", "0.0000001"):
        one_line(infraxa("tabs", "limit", books.account, amount, data=books.shop), code=2)


def test_settling_needs_the_network_and_an_amount(kept: Books) -> None:
    one_line(infraxa("tabs", "settle", kept.provider, data=kept.user), "set to stay offline")
    for arguments in (("0",), ("x",), ("1", "--note", "n" * 129)):
        one_line(infraxa("tabs", "settle", kept.provider, *arguments, data=kept.user), code=2)


def test_receipts_of_both_sides(kept: Books) -> None:
    bought, sold = printed("receipts", "list", data=kept.user), printed("receipts", "list", data=kept.shop)
    assert [one["n_out"] for one in bought] == list(reversed(ANSWERS))
    assert [one["charge"] for one in bought] == [cost(tokens) for tokens in reversed(ANSWERS)]
    assert {one["state"] for one in (*bought, *sold)} == {"signed"}
    assert [one["order"] for one in bought] == [one["order"] for one in sold]
    assert printed("receipts", "list", "--count", "1", data=kept.user) == bought[:1]
    assert len(printed("receipts", "list", "--role", "provider", data=kept.shop)) == 3
    assert infraxa("receipts", "list", "--role", "seller", data=kept.user).code == 2
    rows = [line.split("\t") for line in infraxa("receipts", "list", data=kept.user).out.splitlines()]
    assert [row[-1] for row in rows] == [one["order"] for one in bought]


def test_one_receipt_and_what_it_proves(kept: Books) -> None:
    last = printed("receipts", "list", data=kept.user)[0]
    one = printed("receipts", "show", last["order"][:6], data=kept.user)
    assert {key: one[key] for key in last} == last
    assert one["line"]["charge"] == cost(ANSWERS[-1])
    provider, account = (text[:8] for text in (kept.provider, kept.account))
    assert one["signatures"] == (
        f"signed by {provider}, countersigned by account {account}, keeps to its quote"
    )
    assert one["signatures"] in infraxa("receipts", "show", last["order"].upper(), data=kept.user).out
    for order in ("ffff" * 8, "", last["order"] + "0"):
        one_line(infraxa("receipts", "show", order, data=kept.user), "There is no receipt of this order")


def judged(books: Books, *found: Verdict | None) -> None:
    """What audits found of what was bought, the oldest first; the first one was not to be audited."""

    async def keep() -> None:
        async with await Store.open(books.user) as store:
            await store.run(lambda conn: conn.execute("UPDATE orders SET mode = 'none' WHERE n = 1"))
            orders = [order for _, order, _ in reversed(await store.run(earnings.list_receipts))]
            for order, verdict in zip(orders, found, strict=True):
                if verdict is not None:
                    named = replace(verdict, order=order.id.hex(), driver=id_text(order.peer))
                    await store.run(verdicts.keep, VerdictRow(order.peer, order.model, 1, named))

    asyncio.run(keep())


def test_receipts_say_what_audits_found(books: Books) -> None:
    def listed() -> list[str]:
        lines = infraxa("receipts", "list", data=books.user).out.splitlines()
        return [line.split("\t")[-2] for line in reversed(lines)]

    def keys() -> list[tuple[object, ...]]:
        shown = printed("receipts", "list", data=books.user)
        return [(one["verdict"], one["why"], one["proven"]) for one in reversed(shown)]

    assert listed() == ["signed, not audited"] * 3
    judged(books, None, None, Verdict("", "", "passed", by="own"))
    assert listed() == ["unverified", "signed, not audited", "audit passed"]
    assert keys() == [("unverified", "", False), ("signed", "", False), ("passed", "", False)]
    judged(
        books,
        Verdict("", "", "undetermined", "few"),
        Verdict("", "", "failed", "other_model", by="own"),
        Verdict("", "", "failed", "wrong_token", proof=True),
    )
    assert listed() == [
        "undetermined: too few tokens", "✗ failed an audit: another model", "✗ caught lying: wrong token"
    ]  # fmt: skip
    assert keys() == [
        ("undetermined", "too few tokens", False), ("failed", "another model", False),
        ("failed", "wrong token", True),
    ]  # fmt: skip
    newest = printed("receipts", "list", "--count", "1", data=books.user)[0]
    ran = infraxa("receipts", "show", newest["order"], data=books.user)
    assert "verdict\t✗ caught lying: wrong token" in ran.out
    assert printed("receipts", "show", newest["order"], data=books.user)["verdict"] == "failed"


def test_who_only_sold_is_told_of_no_verdicts(kept: Books) -> None:
    sold = printed("receipts", "list", data=kept.shop)
    assert {(one["verdict"], one["why"], one["proven"]) for one in sold} == {("", "", False)}
    assert "verdict" not in infraxa("receipts", "show", sold[0]["order"], data=kept.shop).out
    for data, told in ((kept.user, True), (kept.shop, False)):
        arguments = [*COMMAND, "receipts", "list"]
        with closing(Terminal(arguments, environment(data), size=(160, 20))) as terminal:
            assert terminal.wait_exit() == 0
            heading = next(line for line in terminal.text.splitlines() if "charge" in line)
            assert ("verdict" in heading) == told, heading


def test_a_file_of_receipts_is_new_and_for_oneself(kept: Books, tmp_path: Path) -> None:
    file = tmp_path / "receipts.jsonl"
    ran = infraxa("receipts", "export", str(file), data=kept.user)
    assert ran.code == 0 and "3 receipts are in" in ran.out and ran.err == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert [json.loads(line)["n_out"] for line in lines] == list(reversed(ANSWERS))
    assert infraxa("receipts", "export", data=kept.user).out.splitlines() == lines
    order = json.loads(lines[1])["order"]
    assert infraxa("receipts", "export", "--order", order[:8], data=kept.user).out.splitlines() == lines[1:2]
    one_line(infraxa("receipts", "export", str(file), data=kept.user), "is there already")
    assert file.read_text().splitlines() == lines
    gone = tmp_path / "gone"
    one_line(infraxa("receipts", "export", str(gone / "file"), data=kept.user), "No such file")
    one_line(
        infraxa("receipts", "export", str(tmp_path / "other"), "--order", "ffff", data=kept.user),
        "no receipt",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["receipts.jsonl"]


def test_pages_hold_all_receipts_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from infraxa.app.commands import books as paging
    from infraxa.app.commands import receipts

    monkeypatch.setattr(paging, "PAGE", 2)
    monkeypatch.setattr(receipts, "PAGE", 2)

    async def read() -> tuple[list[int], list[int], list[str]]:
        node = Node(settings_of(books.user), Folders.find(books.user, {}), load_model=False)
        await node.use_settings(paging.alone(node.settings))
        await node.start()
        try:
            everything = [one.n_out async for one in paging.pages(node)]
            some = [one.n_out async for one in paging.pages(node, count=2)]
            return everything, some, [line async for line in receipts._lines(node, None)]
        finally:
            await node.close()

    everything, some, lines = asyncio.run(read())
    assert everything == list(reversed(ANSWERS)) and some == everything[:2]
    assert [json.loads(line)["n_out"] for line in lines] == everything


def test_where_nothing_was_kept_nothing_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for arguments, words in (
        (("earnings",), "Nothing was sold or bought"),
        (("tabs", "list"), "There are no tabs"),
        (("receipts", "list"), "There are no receipts"),
        (("receipts", "export"), "There are no receipts"),
    ):
        ran = infraxa(*arguments, data=data)
        assert (ran.code, ran.out) == (0, "") and words in ran.err
    assert printed("tabs", "list", data=data) == printed("receipts", "list", data=data) == []
    assert printed("earnings", data=data)["total"]["sold"] == 0
    one_line(infraxa("earnings", "--why", data=data), "none is open")
    one_line(infraxa("receipts", "show", "abcd", data=data), "no receipt")
    assert not data.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("earnings", "--why", "--csv"),
        ("earnings", "--why", "--since", "7d"),
        ("earnings", "--csv", "--json"),
        ("earnings", "--by", "hour"),
        ("earnings", "--since", "soon"),
        ("tabs", "limit", "abcd"),
    ],
)
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = infraxa(*arguments, data=tmp_path / "data")
    assert ran.code == 2 and ran.out == "" and "Traceback" not in ran.err


def test_a_shell_completes_peers_and_orders(kept: Books) -> None:
    def completed(words: str, count: int) -> list[str]:
        asked = {"_INFRAXA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        return infraxa(data=kept.user, env=asked).out.split()

    assert completed(f"infraxa tabs show {kept.provider[:3]}", 3) == [kept.provider]
    assert completed("infraxa tabs show ~", 3) == []
    assert len(completed("infraxa receipts show ", 3)) == 3


async def _run(check: Check, where: Folders) -> Finding:
    return await check.run(where)


def test_doctor_sees_a_ledger_that_is_whole_and_one_that_is_not(books: Books) -> None:
    def money() -> dict[str, Finding]:
        where = Folders.find(books.shop, {})
        return {check.name: asyncio.run(_run(check, where)) for check in LEDGER_CHECKS}

    assert {name: one.state for name, one in money().items()} == {
        "ledger": "ok", "receipts": "ok", "tabs": "ok"
    }  # fmt: skip

    async def harm() -> None:
        async with await Store.open(books.shop) as store:
            (tab,) = await store.run(tabs.list_tabs)
            await store.run(tabs.set_note, "provider", tab.peer, "Nothing is signed: it differs.")

            def change(conn: Any) -> None:
                conn.execute("UPDATE accounts SET balance = balance + 1 WHERE name = 'earned'")
                conn.execute("UPDATE orders SET bill = 'due', held = charge WHERE n = 2")
                conn.execute("UPDATE orders SET ended_at = ended_at - 7200000 WHERE n = 2")

            await store.run(change)
            assert await store.run(ledger.check)
            assert await store.run(trade.unsettled, "provider")

    asyncio.run(harm())
    found = money()
    assert {name: one.state for name, one in found.items()} == {
        "ledger": "fail", "receipts": "warn", "tabs": "fail"
    }  # fmt: skip
    assert "not the sum of what was posted" in found["ledger"].reason
    assert "1 answer that this node sold" in found["receipts"].reason
    assert "1 of 1 tabs" in found["tabs"].reason and "it differs" in found["tabs"].reason
    assert not any(books.account[:8] in one.reason for one in found.values())
