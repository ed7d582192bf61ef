"""`infraxa providers`: who is on the network, and what each offers.

Asked of the running infraxa of this data folder, when there is one; otherwise this command joins the network
itself for as long as it runs, without loading a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_table, table
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, NodesChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.net.identity import display, id_text
from infraxa.net.names import clean_name
from infraxa.net.status import NetworkStatus, SeenNode

QUIET = 0.6
"""Seconds without news after which everybody who is there has been heard."""
REDRAWN = 1.0
"""Seconds between two pictures of `--watch`: ages and round trips change by themselves."""
WATCHED = 8
"""Rows whose health is asked for every second."""
COLUMNS = ("node", "state", "model", "price in", "price out", "busy", "round trip", "news", "reached by")


class Row(msgspec.Struct, frozen=True):
    """A node, or one model of a node, as `--json` prints it."""

    id: str
    node: str
    name: str
    status: str
    age_s: float
    rtt_ms: float | None
    slots: int
    busy: float
    """Share of the slots, 0 to 1."""
    addresses: tuple[str, ...]
    relays: tuple[str, ...]
    model: str | None = None
    quantization: str | None = None
    price_in: int | None = None
    """µcr per 1M tokens, now."""
    price_out: int | None = None
    warning: str | None = None


def providers(data_dir: Path | None, *, watch: bool, wait: float, model: str | None, as_json: bool) -> None:
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    require_online(settings)
    if is_open(folders):
        wait = 0.0  # it has looked for nodes since it was opened
    asyncio.run(_show(folders, settings, watch=watch, wait=wait, model=model, as_json=as_json))


def require_online(settings: Settings) -> None:
    """Raises NodeError `offline` when this node is not to talk to others."""
    if not settings.online:
        raise NodeError(
            "offline", "This node is set to stay offline.", "infraxa config set online true changes that."
        )


async def _show(
    folders: Folders, settings: Settings, *, watch: bool, wait: float, model: str | None, as_json: bool
) -> None:
    async with opened_node(folders, settings) as node:
        with _News(node) as news:
            await _listen(node, news, wait)
            _require_started(node.network)
            if watch:
                await _watch(node, news, model, as_json)
                return
            rows = _rows(await node.list_nodes(), model)
            if as_json:
                print_json(rows)
            else:
                _print(rows)
            if not rows:
                note(_nobody(node.network, model))


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
        if isinstance(event, NodesChanged):
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


async def _watch(node: NodeFacade, news: _News, model: str | None, as_json: bool) -> None:
    """Until Ctrl-C: a table that is drawn again, or with `--json` and in a pipe a line for each change."""
    if as_json or not is_terminal(sys.stdout):
        said: dict[tuple[str, str | None], Row] = {}
        while True:
            said = _tell(said, _rows(await node.list_nodes(), model), as_json)
            await news.wait(REDRAWN)
    from rich.live import Live

    with Live(auto_refresh=False, screen=False) as live:
        while True:
            nodes = await node.list_nodes()
            rows = _rows(nodes, model)
            await node.watch_nodes(tuple(seen.id for seen in nodes[:WATCHED]))
            live.update(table(COLUMNS, [_cells(row) for row in rows], right=_RIGHT), refresh=True)
            await news.wait(REDRAWN)


def _tell(
    said: dict[tuple[str, str | None], Row], rows: Sequence[Row], as_json: bool
) -> dict[tuple[str, str | None], Row]:
    """Print what is new of `rows`, ages and round trips aside, and who is gone; what is said now."""
    now = {(row.id, row.model): row for row in rows}
    changed = [row for key, row in now.items() if _lasting(said.get(key)) != _lasting(row)]
    gone = [msgspec.structs.replace(row, status="gone") for key, row in said.items() if key not in now]
    for row in (*changed, *gone):
        print(msgspec.json.encode(row).decode() if as_json else "\t".join(_cells(row)), flush=True)
    return now


def _lasting(row: Row | None) -> Row | None:
    return row and msgspec.structs.replace(row, age_s=0.0, rtt_ms=None)


def _rows(nodes: Sequence[SeenNode], model: str | None) -> list[Row]:
    """One row for each model of each node, one for a node without any; those of `model` when given."""
    rows = []
    for seen in nodes:
        row = Row(
            id=id_text(seen.id),
            node=display(seen.name, seen.id),
            name=clean_name(seen.name),
            status=seen.status,
            age_s=round(seen.age_s, 1),
            rtt_ms=None if seen.rtt_ms is None else round(seen.rtt_ms, 2),
            slots=seen.slots,
            busy=round(seen.util / 255, 2),
            addresses=tuple(map(clean, seen.addresses)),
            relays=tuple(map(id_text, seen.relays)),
            warning=(
                None if seen.same_name_as is None else f"same name as {display(seen.name, seen.same_name_as)}"
            ),
        )
        now = {price.model: price for price in seen.prices}
        offers = [
            msgspec.structs.replace(
                row,
                model=clean(offer.name),
                quantization=clean(offer.quantization),
                price_in=now[place].price_in if place in now else offer.price_in,
                price_out=now[place].price_out if place in now else offer.price_out,
            )
            for place, offer in enumerate(seen.models)
        ]
        rows += offers or [row]
    return [row for row in rows if model is None or (row.model and model.lower() in row.model.lower())]


_RIGHT = ("price in", "price out", "busy", "round trip", "news")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.node} ({row.warning})" if row.warning else row.node,
        row.status,
        f"{row.model} {row.quantization}" if row.model else "no offer",
        "" if row.price_in is None else f"{row.price_in / 1e6:.2f}/M",
        "" if row.price_out is None else f"{row.price_out / 1e6:.2f}/M",
        f"{row.busy:.0%}" if row.slots else "",
        "" if row.rtt_ms is None else f"{row.rtt_ms:.1f} ms",
        f"{row.age_s:.0f} s",
        "relay" if row.relays and not row.addresses else ", ".join(row.addresses[:1]),
    )


def _print(rows: Sequence[Row]) -> None:
    print_table(COLUMNS, [_cells(row) for row in rows], right=_RIGHT)


def _nobody(status: NetworkStatus, model: str | None) -> str:
    """Why the table is empty, and what helps."""
    if status.notices:
        return " ".join(f"{notice.message} {notice.remedy}".strip() for notice in status.notices)
    if model is not None and status.known:
        return f"None of {status.known} nodes offers a model called {model}."
    return (
        f"No other node was found on the network {clean(status.network)}. Nodes on the same LAN are found by "
        "themselves; elsewhere, use infraxa join with an invite of one that is there."
    )
