"""`infraxa providers`: the market, as a table; what each provider offers, and how it did.

Asked of the running infraxa of this data folder, when there is one; otherwise this command joins the network
itself for as long as it runs, without loading a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from infraxa.app.commands.books import amount_of
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.offer_rows import Cells, Row, cells_of, lasting, rows_of, sort_rows
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_table, table
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, NodesChanged, OffersChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.net.credits import shown
from infraxa.net.identity import parse_id
from infraxa.net.status import NetworkStatus

QUIET = 0.6
"""Seconds without news after which everybody who is there has been heard."""
REDRAWN = 1.0
"""Seconds between two pictures of `--watch`: ages and round trips change by themselves."""
WATCHED = 8
"""Rows whose health is asked for every second."""


class Look(msgspec.Struct, frozen=True):
    """What of the market is to be printed, and how."""

    everybody: bool = False
    """Also those that offer nothing."""
    model: str | None = None
    """Part of a model's name."""
    max_price: int | None = None
    """µcr per 1M tokens of an answer; None: any."""
    sort: str | None = None
    """A column."""
    as_json: bool = False


def providers(data_dir: Path | None, look: Look, *, watch: bool, wait: float) -> None:
    sort_rows((), look.sort)  # a column that does not exist is said before anything is waited for
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    require_online(settings)
    if is_open(folders):
        wait = 0.0  # it has looked for nodes since it was opened
    asyncio.run(_show(folders, settings, look, watch=watch, wait=wait))


def most(max_price: str | None) -> int | None:
    """µcr of the option --max-price. Raises UsageError."""
    return None if max_price is None else amount_of(max_price)


def require_online(settings: Settings) -> None:
    """Raises NodeError `offline` when this node is not to talk to others."""
    if not settings.online:
        raise NodeError(
            "offline", "This node is set to stay offline.", "infraxa config set online true changes that."
        )


async def _show(folders: Folders, settings: Settings, look: Look, *, watch: bool, wait: float) -> None:
    async with opened_node(folders, settings) as node:
        with _News(node) as news:
            await _listen(node, news, wait)
            _require_started(node.network)
            if watch:
                await _watch(node, news, look)
                return
            rows = await _rows(node, look)
            if look.as_json:
                print_json(rows)
            else:
                shown = _shown(rows)
                print_table(shown.titles, shown.rows, right=shown.right)
            if not rows:
                note(_nobody(node.network, look))


async def _rows(node: NodeFacade, look: Look) -> list[Row]:
    offers = await node.list_offers()
    offering = {offer.node.id for offer in offers}
    idle = [seen for seen in await node.list_nodes() if seen.id not in offering] if look.everybody else []
    rows = rows_of(offers, idle)
    if (part := look.model) is not None:
        rows = [row for row in rows if row.model and part.lower() in row.model.lower()]
    if (most := look.max_price) is not None:
        rows = [row for row in rows if row.price_out is None or row.price_out <= most]
    return sort_rows(rows, look.sort)


def _shown(rows: Sequence[Row]) -> Cells:
    """What the terminal has room for; in a pipe all columns."""
    return cells_of(rows, shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None)


def _require_started(status: NetworkStatus) -> None:
    """Raises NodeError `offline` when the network could not be started, with the reason."""
    if status.activity == "blocked" and not status.listening and status.notices:
        notice = status.notices[0]
        raise NodeError("offline", notice.message, notice.remedy)


class _News:
    """When the node last told of a change, and a way to wait for the next one."""

    def __init__(self, node: NodeFacade) -> None:
        self._changed = asyncio.Event()
        self._end = node.subscribe(self._hear)
        self.last = time.monotonic()

    def _hear(self, event: Event) -> None:
        if isinstance(event, NodesChanged | OffersChanged):
            self.last = time.monotonic()
            self._changed.set()

    async def wait(self, limit: float) -> bool:
        """Whether there was news within `limit` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


async def _listen(node: NodeFacade, news: _News, limit: float) -> None:
    """Until the network has been quiet for a moment after the first peer, or `limit` seconds have passed."""
    until = time.monotonic() + limit
    if not node.network.peers and is_terminal(sys.stderr):
        note(f"looking for other nodes: at most {limit:g} s")
    while (left := until - time.monotonic()) > 0:
        quiet = not await news.wait(min(QUIET, left))
        if (quiet and node.network.peers) or node.network.activity == "blocked":
            return


async def _watch(node: NodeFacade, news: _News, look: Look) -> None:
    """Until Ctrl-C: a table that is drawn again, or with `--json` and in a pipe a line for each change."""
    if look.as_json or not is_terminal(sys.stdout):
        said: dict[tuple[str, str | None], Row] = {}
        while True:
            said = _tell(said, await _rows(node, look), look.as_json)
            await news.wait(REDRAWN)
    from rich.live import Live

    with Live(auto_refresh=False, screen=False) as live:
        while True:
            rows = await _rows(node, look)
            watched = dict.fromkeys(parse_id(row.id) for row in rows[:WATCHED])
            await node.watch_nodes(tuple(watched))
            shown = _shown(rows)
            live.update(table(shown.titles, shown.rows, right=shown.right), refresh=True)
            await news.wait(REDRAWN)


def _tell(
    said: dict[tuple[str, str | None], Row], rows: Sequence[Row], as_json: bool
) -> dict[tuple[str, str | None], Row]:
    """Print what is new of `rows`, ages and round trips aside, and who is gone; what is said now."""
    now = {(row.id, row.model_id): row for row in rows}
    changed = [row for key, row in now.items() if lasting(said.get(key)) != lasting(row)]
    gone = [msgspec.structs.replace(row, status="gone") for key, row in said.items() if key not in now]
    for row in (*changed, *gone):
        print(msgspec.json.encode(row).decode() if as_json else "\t".join(*cells_of([row]).rows), flush=True)
    return now


def _nobody(status: NetworkStatus, look: Look) -> str:
    """Why the table is empty, and what helps."""
    if status.known:
        if look.max_price is not None:
            dear = f"at most {shown(look.max_price)} credits per million tokens"
            return f"None of {status.known} nodes offers {'that' if look.model else 'a model'} for {dear}."
        if look.model is not None:
            return f"None of {status.known} nodes offers a model called {look.model}."
        return f"None of {status.known} nodes offers a model now. infraxa providers --all lists them."
    if status.notices:
        return " ".join(f"{notice.message} {notice.remedy}".strip() for notice in status.notices)
    return (
        f"No other node was found on the network {clean(status.network)}. Nodes on the same LAN are found by "
        "themselves; elsewhere, use infraxa join with an invite of one that is there."
    )
