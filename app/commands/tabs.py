"""`infraxa tabs`: what this node and others owe each other, how much others may owe, and settling it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from infraxa.app.commands.books import alone, amount_of, moment, peer_text, read
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_pairs, print_table
from infraxa.app.commands.providers import require_online
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.trade import TabSeen
from infraxa.net.credits import shown
from infraxa.net.errors import NetError

PROMISE: Final = (
    "A credit is a promise between two nodes, not money: what one node owes you pays no other node."
)
FIND_S: Final = 10.0
"""How long a driver is looked for by a command that joins the network for it."""
MAX_NOTE: Final = 128
"""Characters of the note of a settlement."""
_NOT_FOUND: Final = ("offline", "unreachable")
"""What may change as soon as more is known of the network."""
_MIN_PREFIX: Final = 4


def list_tabs(data_dir: Path | None, *, as_json: bool) -> None:
    tabs = _tabs(data_dir)
    if as_json:
        print_json(tabs)
        return
    rows = [
        (
            peer_text(tab.name, tab.peer),
            _who_owes(tab),
            shown(abs(tab.owed)),
            _limit(tab),
            shown(tab.unsigned) if tab.unsigned else "",
            shown(tab.held) if tab.held else "",
            moment(tab.last_ms),
            tab.note,
        )
        for tab in tabs
    ]
    columns = ("peer", "who owes", "credits", "limit", "not signed", "held", "last", "note")
    print_table(columns, rows, right=("credits", "limit", "not signed", "held"))
    if not tabs:
        note("There are no tabs: nothing was bought or sold.")
    elif is_terminal(sys.stderr):
        note(PROMISE)


def show_tab(data_dir: Path | None, peer: str, *, as_json: bool) -> None:
    tab = find_tab(_tabs(data_dir), peer)
    if as_json:
        print_json(tab)
        return
    print_pairs(
        (
            ("peer", peer_text(tab.name, tab.peer)),
            ("id", tab.peer),
            ("role", "it buys from you" if tab.role == "provider" else "you buy from it"),
            ("who owes", f"{_who_owes(tab)} {shown(abs(tab.owed))} credits" if tab.owed else "nobody"),
            ("limit", f"{_limit(tab)} ({_whose_limit(tab)})" if _limit(tab) else ""),
            ("not countersigned", shown(tab.unsigned) if tab.unsigned else ""),
            ("held", f"{shown(tab.held)} for orders that run" if tab.held else ""),
            ("same person as", tab.linked),
            ("last order", moment(tab.last_ms)),
            ("note", tab.note),
        )
    )
    if is_terminal(sys.stderr):
        note(PROMISE)


def set_limit(data_dir: Path | None, peer: str, amount: str, *, as_json: bool) -> None:
    """`amount`: credits that this user may owe, or `auto`: as any stranger. Raises NodeError, UsageError."""
    limit = None if amount.strip().lower() == "auto" else amount_of(amount)
    if limit is not None and limit < 0:
        raise UsageError("A limit is not below 0; auto is that of any stranger.")
    folders = folders_of(data_dir)

    async def change() -> TabSeen:
        async with opened_node(folders, alone(settings_of(folders, {}))) as node:
            found = find_tab(await node.list_tabs(), peer)
            await node.set_tab_limit(found.peer, limit)
            return find_tab(await node.list_tabs(), found.peer)

    tab = asyncio.run(change())
    if as_json:
        print_json(tab)
    else:
        print(clean(f"{peer_text(tab.name, tab.peer)} may owe {_limit(tab)} credits ({_whose_limit(tab)})."))


def settle(
    data_dir: Path | None, peer: str, amount: str | None, *, text: str, decline: bool, as_json: bool
) -> None:
    """Reduce a tab; of a user: agree to what it proposed, or `decline` it. Raises NodeError, NetError,
    UsageError."""
    wanted = None if amount is None else amount_of(amount)
    if wanted is not None and wanted <= 0:
        raise UsageError("Only more than nothing can be settled.")
    if decline and (amount is not None or text):
        raise UsageError("--decline takes no amount and no note: all of what was proposed is declined.")
    if len(text) > MAX_NOTE:
        raise UsageError(f"--note has at most {MAX_NOTE} characters.")
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    require_online(settings)
    said, tab = asyncio.run(_settle(folders, settings, peer, wanted, text, decline))
    if as_json:
        print_json({"result": said, "tab": tab})
        return
    print(clean(said))
    who = _who_owes(tab).replace("you owe", "You owe it").replace("it owes", "It owes you")
    print(f"{who} {shown(abs(tab.owed))} credits." if tab.owed else "Nothing is owed.")


async def _settle(
    folders: Folders, settings: Settings, peer: str, amount: int | None, text: str, decline: bool
) -> tuple[str, TabSeen]:
    running = is_open(folders)
    async with opened_node(folders, replace(settings, provide=False)) as node:
        tab = find_tab(await node.list_tabs(), peer)
        if tab.role == "provider" and not running:
            raise NodeError(
                "not_running",
                "What this user proposes is heard by the infraxa that serves, and none is open.",
                "Start infraxa serve; when it proposes again, agree or decline.",
            )
        if decline:
            return await node.decline(tab.peer), find_tab(await node.list_tabs(), tab.peer)
        if is_terminal(sys.stderr):
            note("asking the other node: at most 40 s")
        said = await _ask(node, tab.peer, amount, text, 0.0 if running else FIND_S)
        return said, find_tab(await node.list_tabs(), tab.peer)


async def _ask(node: NodeFacade, peer: str, amount: int | None, text: str, limit: float) -> str:
    """A node that has just joined the network does not know everybody yet: then it is tried again."""
    until = time.monotonic() + limit
    while True:
        try:
            return await node.settle(peer, amount, text)
        except (NodeError, NetError) as error:
            if error.code not in _NOT_FOUND or time.monotonic() >= until:
                raise
        await asyncio.sleep(0.2)


def find_tab(tabs: list[TabSeen], text: str) -> TabSeen:
    """By the peer's id, or the beginning of it; `name·abcd` is one, too. Raises NodeError `no_tab`."""
    wanted = text.strip().rpartition("·")[2].lower()
    found = [tab for tab in tabs if len(wanted) >= _MIN_PREFIX and tab.peer.startswith(wanted)]
    if len(found) != 1:
        raise NodeError(
            "no_tab",
            "Several tabs begin so." if found else "There is no tab with a peer of this id.",
            "infraxa tabs list --json shows whole ids." if found else "infraxa tabs list shows them.",
        )
    return found[0]


def _tabs(data_dir: Path | None) -> list[TabSeen]:
    folders = folders_of(data_dir)
    nothing: list[TabSeen] = []
    return asyncio.run(read(folders, settings_of(folders, {}), lambda node: node.list_tabs(), nothing))


def _who_owes(tab: TabSeen) -> str:
    """`You owe`, or the other: a tab below 0 was paid ahead."""
    if not tab.owed:
        return ""
    return "it owes" if (tab.role == "provider") == (tab.owed > 0) else "you owe"


def _limit(tab: TabSeen) -> str:
    """On a driver's tab it is the driver's, who says it with its quotes."""
    return shown(tab.limit) if tab.role == "provider" or tab.limit else ""


def _whose_limit(tab: TabSeen) -> str:
    if tab.role == "user":
        return "as it said last"
    return "set for it" if tab.own_limit else "as any stranger"
