"""`infraxa models pull`: a short list of good models, and the download of one from the hub."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from infraxa.app import choices, hub_words
from infraxa.app.commands.front import attached_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.models import become_default, facts, read_records_async, use_text
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_table
from infraxa.app.config import Settings
from infraxa.app.facade import Stream
from infraxa.app.folders import Folders
from infraxa.app.hub_curated import CURATED
from infraxa.app.hub_values import (
    PullAdded,
    PullAsked,
    PullChecked,
    PullChosen,
    PullEvent,
    PullMoved,
    PullPlan,
    PullWaits,
)
from infraxa.app.sizes import size_text
from infraxa.engine.sizing import free_memory
from infraxa.store.db import Store

LINE_EVERY = 0.05
"""Share of the whole after which a line says how far it is, where there is no terminal."""


def list_curated(*, as_json: bool) -> None:
    """The short list, against what this machine has."""
    import psutil

    free, total = free_memory(), int(psutil.virtual_memory().total)
    if as_json:
        models = [
            {
                **msgspec.structs.asdict(one),
                "pull": one.text,
                "memory": one.memory,
                "fits": one.memory <= free,
            }
            for one in CURATED
        ]
        print_json({"free_memory": free, "total_memory": total, "models": models})
        return
    rows = [
        (
            one.text,
            one.parameters,
            size_text(one.size),
            size_text(one.memory),
            _fits(one.memory, free, total),
            one.license,
            one.good_for,
        )
        for one in CURATED
    ]
    columns = ("model", "parameters", "download", "memory", "fits", "license", "good for")
    print_table(columns, rows, right=("parameters", "download", "memory"))
    if is_terminal(sys.stdout):
        print(
            f"\n{size_text(free)} of {size_text(total)} of memory are free here.\n"
            "Any GGUF model of the hub: infraxa models pull OWNER/NAME[:QUANTIZATION]"
        )


def _fits(memory: int, free: int, total: int) -> str:
    return "yes" if memory <= free else "not now" if memory <= total else "no"


def pull(
    data_dir: Path | None, wanted: str, name: str | None, *, yes: bool, force: bool, as_json: bool
) -> int:
    """Returns the exit code; 1 when the person says no. Raises NodeError, EngineError and StoreError."""
    from infraxa.app import hub, hub_names

    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    repo, quant = hub_names.parse(wanted)
    asked = PullAsked(repo, quant, name, force, asyncio.run(hub.access()))
    ask = not (yes or as_json) and is_terminal(sys.stdout) and sys.stdin is not None and sys.stdin.isatty()
    if ask:
        plan = asyncio.run(_plan(asked, folders))
        _say_plan(plan)
        if not _agreed():
            print("Nothing was downloaded.")
            return 1
        # What was agreed to, whatever fits a moment later.
        asked = msgspec.structs.replace(asked, quant=plan.files[0].path)
    shown = _Json() if as_json else _Lines(quiet_plan=ask)
    asyncio.run(_pull(asked, folders, settings, shown))
    return 0


async def _plan(asked: PullAsked, folders: Folders) -> PullPlan:
    from infraxa.app import pulling

    return await pulling.plan(asked, folders, await read_records_async(folders))


def _say_plan(plan: PullPlan) -> None:
    for line in hub_words.plan_lines(plan):
        note(line)


def _agreed() -> bool:
    try:
        return input("Download it? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


async def _pull(asked: PullAsked, folders: Folders, settings: Settings, shown: _Shown) -> None:
    last: PullMoved | None = None
    async with _stream(asked, folders, settings) as stream:
        with shown.open() as show:
            try:
                async for event in stream:
                    if isinstance(event, PullMoved):
                        last = event
                    show(event)
            except asyncio.CancelledError:
                note(hub_words.kept(last))
                raise


@contextlib.asynccontextmanager
async def _stream(asked: PullAsked, folders: Folders, settings: Settings) -> AsyncIterator[Stream[PullEvent]]:
    """By the infraxa that is open; else in this process."""
    async with attached_node(folders, settings) as node:
        if node is not None:
            async with contextlib.aclosing(node.pull_model(asked)) as stream:
                yield stream
            return
    from infraxa.app.pulling import Pulling

    async def add(path: Path, name: str | None, digest: str | None) -> PullAdded:
        return await _add(folders, settings, path, name, digest)

    async with contextlib.aclosing(
        Pulling(asked, folders, lambda: read_records_async(folders), add)
    ) as pulling:
        yield pulling


async def _add(
    folders: Folders, settings: Settings, path: Path, name: str | None, digest: str | None
) -> PullAdded:
    from infraxa.app.pulling import remember

    # An infraxa may have been opened since the download began.
    async with attached_node(folders, settings) as node:
        if node is not None:
            entry = await node.add_model(path, name, force=True)
            return PullAdded(entry, node.current_model() == entry.name)
    async with await Store.open(folders.data) as store:
        record = await remember(store, path, name, digest)
    entry = choices.model_entries([record])[-1]
    return PullAdded(entry, become_default(folders, settings, entry))


Show = Callable[[PullEvent], None]


class _Json:
    """Each event as a line."""

    @contextlib.contextmanager
    def open(self) -> Iterator[Show]:
        yield self._show

    def _show(self, event: PullEvent) -> None:
        told: dict[str, Any] = {"event": event.__struct_config__.tag}
        if isinstance(event, PullAdded):
            told |= {"model": facts(event.model, event.model.name if event.is_default else "")}
        else:
            told |= {name: getattr(event, name) for name in event.__struct_fields__}
        print(msgspec.json.encode(told).decode(), flush=True)


class _Lines:
    """For a person: a bar on a terminal, lines elsewhere, both beside the output."""

    def __init__(self, *, quiet_plan: bool) -> None:
        """`quiet_plan`: what is downloaded was said already."""
        self._quiet_plan = quiet_plan
        self._said = -1.0

    @contextlib.contextmanager
    def open(self) -> Iterator[Show]:
        if not is_terminal(sys.stderr):
            yield lambda event: self._show(event, self._line)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("asking the hub", total=None, told="")

            def move(event: PullMoved | PullChecked) -> None:
                what = "downloading" if isinstance(event, PullMoved) else "checking"
                bar.update(
                    task,
                    description=what,
                    completed=event.done,
                    total=event.total,
                    told=hub_words.progress(event),
                )

            yield lambda event: self._show(event, move)

    def _show(self, event: PullEvent, move: Callable[[PullMoved | PullChecked], None]) -> None:
        match event:
            case PullChosen():
                if not self._quiet_plan:
                    _say_plan(event.plan)
            case PullMoved() | PullChecked():
                move(event)
            case PullWaits():
                note(hub_words.waits(event))
            case PullAdded():
                _say_added(event)

    def _line(self, event: PullMoved | PullChecked) -> None:
        share = event.done / event.total if event.total else 1.0
        if isinstance(event, PullMoved) and (share >= self._said + LINE_EVERY or share == 1.0 > self._said):
            self._said = share
            note(f"{share:.0%} · {hub_words.progress(event)}")


_Shown = _Json | _Lines


def _say_added(event: PullAdded) -> None:
    entry = event.model
    what = " · ".join(filter(None, (entry.parameters, entry.quantization, size_text(entry.size))))
    print(clean(f"Pulled {entry.name} ({what}): {entry.path}"))
    print(clean(use_text(entry, event.is_default)))
