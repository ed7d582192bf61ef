"""`infraxa models`: lists, adds, shows and removes the models of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from infraxa.app import choices, config
from infraxa.app.choices import ModelEntry
from infraxa.app.commands.front import attached_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_pairs, print_table
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.facade import OnProgress
from infraxa.app.folders import Folders, whole_path
from infraxa.app.pulled_files import delete_files, is_pulled
from infraxa.app.sizes import size_text
from infraxa.engine.models import memory_estimate
from infraxa.store import models as records
from infraxa.store.db import Connection, Store
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.records import ModelRecord

P = ParamSpec("P")
T = TypeVar("T")


def list_models(data_dir: Path | None, *, as_json: bool) -> None:
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    default = settings.model
    entries, running = asyncio.run(_entries(folders, settings))
    if as_json:
        loaded = [{"loaded": entry.loaded} if running else {} for entry in entries]
        print_json([facts(entry, default) | more for entry, more in zip(entries, loaded, strict=True)])
        return
    rows = [
        (
            "*" if entry.name == default else "",
            entry.name,
            entry.parameters,
            entry.quantization,
            size_text(entry.size),
            str(entry.context_length or ""),
            entry.architecture,
            *(("yes" if entry.loaded else "",) if running else ()),
            entry.problem or (entry.label if entry.builtin else entry.path),
        )
        for entry in entries
    ]
    more = ("loaded",) if running else ()
    columns = ("", "name", "parameters", "quantization", "size", "context", "architecture", *more, "file")
    print_table(columns, rows, right=("parameters", "size", "context"))


async def _entries(folders: Folders, settings: Settings) -> tuple[list[ModelEntry], bool]:
    """The models, and whether a node runs, which says what it has loaded."""
    async with attached_node(folders, settings) as node:
        if node is not None:
            return await node.list_models(), True
    return choices.model_entries(await read_records_async(folders)), False


def show_model(data_dir: Path | None, name: str, *, as_json: bool) -> None:
    folders = folders_of(data_dir)
    default = settings_of(folders, {}).model
    entry = choices.find_model(name, choices.model_entries(read_records(folders)))
    if as_json:
        print_json(facts(entry, default))
        return
    info, context = entry.info, _usual_context(entry)
    print_pairs(
        (
            ("name", entry.name),
            ("what", entry.label if entry.builtin else info.name),
            ("default", "yes" if entry.name == default else "no"),
            ("problem", entry.problem),
            ("file", entry.path),
            ("parts", str(len(info.parts) or "")),
            ("size", size_text(entry.size)),
            ("architecture", entry.architecture),
            ("parameters", entry.parameters),
            ("quantization", entry.quantization),
            ("context", f"{entry.context_length} tokens" if entry.context_length else ""),
            ("layers", str(info.layers or "")),
            ("vocabulary", f"{info.vocabulary} tokens" if info.vocabulary else ""),
            ("chat template", "yes" if info.has_template else "no"),
            ("sampling", ", ".join(f"{key} {value:g}" for key, value in info.sampling.items())),
            (
                "memory",
                f"about {size_text(memory_estimate(info, context, 1))} with {context} tokens of context",
            ),
            ("license", entry.license),
            ("SHA-256", entry.sha256),
        )
    )


def add_model(data_dir: Path | None, path: Path, name: str | None, *, force: bool, as_json: bool) -> None:
    """Nothing is remembered unless all went well. The first model that is added becomes the default."""
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    entry, is_default = asyncio.run(_add(folders, settings, whole_path(path), name, force))
    if as_json:
        print_json(facts(entry, entry.name if is_default else settings.model))
        return
    what = " · ".join(filter(None, (entry.parameters, entry.quantization, size_text(entry.size))))
    print(clean(f"Added {entry.name} ({what})."))
    print(clean(use_text(entry, is_default)))


def use_text(entry: ModelEntry, is_default: bool) -> str:
    """What a model that was added is there for."""
    if entry.info.embeds_only:
        return "It makes embeddings of texts, for programs that ask the gateway; it cannot chat."
    if is_default:
        return "It answers new chats from now on."
    return f"To have it answer new chats: infraxa config set model {entry.name}"


def remove_model(data_dir: Path | None, name: str, *, delete: bool | None) -> None:
    """`delete`: also the files of a pulled model; None: ask, and keep them where nobody can be asked."""
    folders = folders_of(data_dir)
    if name == config.GUIDE:
        raise NodeError("bad_name", "The built-in guide is part of infraxa and cannot be removed.")
    record = next((record for record in read_records(folders) if record.name == name), None)
    pulled = record is not None and is_pulled(folders, Path(record.path))
    if delete and record is not None and not pulled:
        raise NodeError(
            "not_pulled",
            f"The file of {name} was not put there by infraxa, which does not delete it: {record.path}",
            "Remove the model without --delete, and delete the file yourself.",
        )
    if delete is None and pulled and record is not None:
        delete = _delete_too(record)
    path, was_default = asyncio.run(_remove(folders, name, delete=bool(delete)))
    if delete:
        print(clean(f"{name} is forgotten, and its file is deleted: {path}"))
    else:
        print(clean(f"{name} is forgotten. Its file stays: {path}"))
    if was_default:
        print("The built-in guide answers new chats from now on.")


def _delete_too(record: ModelRecord) -> bool:
    if not (is_terminal(sys.stdout) and sys.stdin is not None and sys.stdin.isatty()):
        return False
    try:
        answer = input(f"Delete its file, too ({size_text(record.size)})? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def read_records(folders: Folders) -> list[ModelRecord]:
    """What the store knows; a data folder that is not there yet stays so."""
    return asyncio.run(read_records_async(folders))


async def read_records_async(folders: Folders) -> list[ModelRecord]:
    """`read_records` inside a loop."""
    if not (folders.data / DATABASE_NAME).exists():
        return []
    return await _with_store(folders, records.list_models)


async def _with_store(
    folders: Folders, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    async with await Store.open(folders.data) as store:
        return await store.run(fn, *args, **kwargs)


async def _add(
    folders: Folders, settings: Settings, path: Path, name: str | None, force: bool
) -> tuple[ModelEntry, bool]:
    """What was added, and whether it became the default."""
    async with attached_node(folders, settings) as node:
        with _progress() as on_progress:
            try:
                if node is not None:
                    entry = await node.add_model(path, name, on_progress, force=force)
                    return entry, node.current_model() == entry.name
                record = await _add_record(folders, path, name, on_progress, force)
            except asyncio.CancelledError:
                note("infraxa: stopped; nothing was added.")
                raise
    entry = choices.model_entries([record])[-1]
    return entry, become_default(folders, settings, entry)


def become_default(folders: Folders, settings: Settings, entry: ModelEntry) -> bool:
    """Have a model that was added answer new chats if the guide did, and it can; whether it does."""
    if settings.model != config.GUIDE or config.variable("model") in os.environ or entry.info.embeds_only:
        return False
    config.set(folders, "model", entry.name)
    return True


async def _add_record(
    folders: Folders, path: Path, name: str | None, on_progress: OnProgress | None, force: bool
) -> ModelRecord:
    async with await Store.open(folders.data) as store:
        known = await store.run(records.list_models)
        record = await choices.check_model(path, name, on_progress, force=force, known=known)
        return await store.run(records.add_model, record, frozenset({config.GUIDE}))


async def _remove(folders: Folders, name: str, *, delete: bool) -> tuple[str, bool]:
    """The path of what was removed, and whether it was the default."""
    settings = config.load(folders)
    async with attached_node(folders, settings) as node:
        if node is not None:
            paths = {entry.name: entry.path for entry in await node.list_models()}
            was_default = node.current_model() == name
            await node.remove_model(name, delete=delete)
            return paths.get(name, ""), was_default
    removed = await _with_store(folders, records.remove_model, name)
    if delete:
        delete_files(folders, choices.model_entries([removed])[-1].info.files)
    was_default = settings.model == name and config.variable("model") not in os.environ
    if was_default:
        config.set(folders, "model", config.GUIDE)
    return removed.path, was_default


@contextlib.contextmanager
def _progress() -> Iterator[OnProgress | None]:
    """A bar on standard error, for a person; it stays empty until the file has been loaded once."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, description="SHA-256", completed=done, total=total)

        yield on_progress


def _usual_context(entry: ModelEntry) -> int:
    return min(entry.context_length or 4096, 4096)


def facts(entry: ModelEntry, default: str) -> dict[str, Any]:
    """What `--json` tells of a model; `default`: the name of the one that answers new chats."""
    info = entry.info
    return {
        "name": entry.name,
        "label": entry.label,
        "builtin": entry.builtin,
        "default": entry.name == default,
        "problem": entry.problem or None,
        "title": info.name,
        "path": entry.path,
        "parts": info.parts,
        "size": entry.size,
        "architecture": entry.architecture,
        "parameters": info.parameters,
        "parameters_label": entry.parameters,
        "quantization": entry.quantization,
        "context_length": entry.context_length,
        "layers": info.layers,
        "embedding_length": info.embedding_length,
        "vocabulary": info.vocabulary,
        "chat_template": info.has_template,
        "sampling": info.sampling,
        "memory": memory_estimate(info, _usual_context(entry), 1),
        "memory_context": _usual_context(entry),
        "license": entry.license,
        "sha256": entry.sha256 or None,
        "added_at": entry.added_at or None,
    }
