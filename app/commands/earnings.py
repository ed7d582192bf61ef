"""`infraxa earnings`: what came in and went out, by day, model or peer; and why nothing comes in.

Amounts are credits for people and in CSV, µcr in JSON.
"""

from __future__ import annotations

import asyncio
import csv
import datetime
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from infraxa.app.commands.books import moment, peer_text, read
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_pairs, print_table
from infraxa.app.config import Settings
from infraxa.app.days import start_ms
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.app.trade import Earnings, Missed, Sum
from infraxa.net.credits import shown

By = Literal["day", "model", "peer"]

MAX_DAYS: Final = 36_500
_DAYS: Final = re.compile(r"([0-9]{1,6})d", re.ASCII)
_FORMULA: Final = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet would calculate: names are claimed by strangers."""


def earnings(data_dir: Path | None, *, since: str | None, by: By, as_csv: bool, as_json: bool) -> None:
    since_ms = 0 if since is None else since_of(since, datetime.date.today())
    folders = folders_of(data_dir)
    nothing = Earnings(since_ms, Sum(""), (), (), (), Sum("today"), Sum("week"))
    found = asyncio.run(
        read(folders, settings_of(folders, {}), lambda node: node.earnings(since_ms), nothing)
    )
    if as_json:
        print_json(found)
        return
    sums = {"day": found.days, "model": found.models, "peer": found.peers}[by]
    if as_csv:
        _write_csv(by, sums)
        return
    if is_terminal(sys.stdout):
        _print_totals(found)
    rows = [(_key(by, one), *_figures(one)) for one in sums]
    columns = (by, "earned", "answers", "tokens", "spent", "bought", "tokens bought")
    print_table(columns, rows, right=columns[1:])
    if not sums:
        note("Nothing was sold or bought. infraxa earnings --why says what keeps others from buying.")


def why(data_dir: Path | None, *, as_json: bool) -> None:
    """Chances to earn that were lost. Raises NodeError `not_running`: only the infraxa that serves knows."""
    folders = folders_of(data_dir)
    missed, off = asyncio.run(_missed(folders, settings_of(folders, {})))
    if as_json:
        print_json(missed)
        return
    for one in missed:
        times = f" ({one.count} times)" if one.count > 1 else ""
        if is_terminal(sys.stdout):
            print(clean(f"{moment(one.at_ms)}  {one.text}{times} {one.remedy}".rstrip()))
        else:
            print(
                "\t".join(map(clean, (moment(one.at_ms), one.reason, str(one.count), one.text, one.remedy)))
            )
    if off:
        note("Provider mode is off: nothing is offered to others. infraxa serve turns it on.")
    elif not missed:
        note("No chance was lost in the last time.")


async def _missed(folders: Folders, settings: Settings) -> tuple[list[Missed], bool]:
    from infraxa.app.control.client import AttachedNode

    if is_open(folders):
        async with opened_node(folders, settings) as node:
            if isinstance(node, AttachedNode):
                return await node.list_missed(), node.provider.mode == "off"
    raise NodeError(
        "not_running",
        "What keeps this node from earning is known to the infraxa that serves, and none is open.",
        "Start infraxa serve, or the app with provider mode on, then ask again.",
    )


def since_of(text: str, today: datetime.date) -> int:
    """Milliseconds since the epoch at the beginning of a day here: `2026-11-01`, or `7d`: today and the six
    days before. Raises UsageError."""
    given = text.strip()
    try:
        if (days := _DAYS.fullmatch(given)) is not None and 0 < int(days[1]) <= MAX_DAYS:
            day = today - datetime.timedelta(days=int(days[1]) - 1)
        else:
            day = datetime.datetime.strptime(given, "%Y-%m-%d").date()
        return max(0, start_ms(day))
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: {clean(given)[:40]!r} is no day: write it like 2026-11-01, or 7d for the last 7 days."
        ) from None


def _print_totals(found: Earnings) -> None:
    def both(one: Sum) -> str:
        return f"earned {shown(one.earned)}, spent {shown(one.spent)} credits"

    print_pairs(
        (
            ("in all" if not found.since_ms else f"since {moment(found.since_ms)[:10]}", both(found.total)),
            ("today", both(found.today)),
            ("7 days", both(found.week)),
            ("on canaries today", shown(found.canaries_today) if found.canaries_today else ""),
            ("owed to you", shown(found.owed_to_me)),
            ("you owe", shown(found.owed_by_me)),
            ("not countersigned", shown(found.unsigned) if found.unsigned else ""),
            ("disputed", shown(found.disputed) if found.disputed else ""),
        )
    )
    print()


def _key(by: By, one: Sum) -> str:
    match by:
        case "day":
            return one.key
        case "model":
            return one.name or one.key[:12]
        case "peer":
            return peer_text(one.name, one.key)


def _figures(one: Sum) -> tuple[str, ...]:
    return (
        shown(one.earned), str(one.sold), str(one.tokens_sold),
        shown(one.spent), str(one.bought), str(one.tokens_bought),
    )  # fmt: skip


def _write_csv(by: By, sums: Sequence[Sum]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        (by, "name", "earned", "answers_sold", "tokens_sold", "spent", "answers_bought", "tokens_bought")
    )
    writer.writerows((_cell(one.key), _cell(one.name), *_figures(one)) for one in sums)


def _cell(text: str) -> str:
    text = clean(" ".join(text.split()))
    return f"'{text}" if text.startswith(_FORMULA) else text
