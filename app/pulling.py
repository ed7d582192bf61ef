"""Pulls a model from the hub: chooses its files, sees that there is room, downloads, checks, remembers it.

The files lie in the folder `models` of the data folder, one copy of each, in a folder named by the repository
and the hash: what another version of the repository holds under the same name is another file.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infraxa.app import hub, hub_names
from infraxa.app.choices import ModelEntry
from infraxa.app.config import GUIDE
from infraxa.app.errors import NodeError
from infraxa.app.facade import OnProgress
from infraxa.app.folders import Folders
from infraxa.app.hub_download import Download, Meter
from infraxa.app.hub_names import Variant
from infraxa.app.hub_partial import bytes_here
from infraxa.app.hub_values import (
    HubFile,
    PullAdded,
    PullAsked,
    PullChecked,
    PullChosen,
    PullEvent,
    PullPlan,
)
from infraxa.app.model_check import check_model, check_name, name_of
from infraxa.app.pulled_files import delete_files, models_folder
from infraxa.app.sizes import size_text
from infraxa.engine.sizing import free_memory
from infraxa.engine.types import EngineError
from infraxa.store import models as records
from infraxa.store.db import Store
from infraxa.store.folder import prepare_folder
from infraxa.store.records import ModelRecord, StoreError

if TYPE_CHECKING:
    import httpx2

RESERVE = 500_000_000
"""Bytes of the disk that a download leaves free: the chats and the books need room."""
_NO_MODEL = {"not_gguf", "truncated", "unsupported", "load_failed"}
"""What a file that was checked cannot recover from."""

Known = Sequence[ModelRecord] | Sequence[ModelEntry]
"""The models that are here."""
Add = Callable[[Path, str | None, str | None], Awaitable[PullAdded]]
"""Remembers the model at a path, under a name or its file's, with its SHA-256 where that is known."""


async def plan(asked: PullAsked, folders: Folders, known: Known) -> PullPlan:
    """What a pull would download. Nothing is made or written. `known`: the models that are here.

    Raises NodeError, and StoreError `exists` when it is here already.
    """
    async with hub.client() as http:
        return await _plan(http, asked, folders, known)


async def _plan(http: httpx2.AsyncClient, asked: PullAsked, folders: Folders, known: Known) -> PullPlan:
    repo, quant = hub_names.parse(f"{asked.repo}:{asked.quant}" if asked.quant else asked.repo)
    name = check_name(asked.name) if asked.name is not None else None
    if any(record.name == name for record in known):
        raise StoreError("exists", f"There is a model named {name}.", "Give another name.")
    held = await hub.describe(http, asked.access, repo)
    free = free_memory()
    variant, note = hub_names.choose(repo, hub_names.variants(held.files), quant, free)
    if not all(file.sha256 for file in variant.files):
        raise NodeError(
            "no_hash",
            f"The hub does not tell the SHA-256 of {variant.files[0].path}, so it could not be checked.",
            "Download it in another way, and add it with: infraxa models add FILE",
        )
    _check_new(repo, variant, folders, known)
    warning = _memory_warning(variant, free, force=asked.force)
    models = models_folder(folders)
    missing = sum(
        max(0, file.size - bytes_here(models, file.sha256))
        for file, place in zip(variant.files, places(folders, repo, variant.files), strict=True)
        if not place.exists()
    )
    _check_disk(models, missing)
    return PullPlan(
        repo=repo,
        commit=held.commit,
        quant=variant.quant,
        files=variant.files,
        size=variant.size,
        missing=missing,
        name=name or name_of(Path(hub_names.base_name(variant.files[0].path))),
        license=held.license,
        memory=hub_names.memory_needed(variant.size),
        free_memory=free,
        note=note,
        warning=warning,
    )


def _check_new(repo: str, variant: Variant, folders: Folders, known: Known) -> None:
    place = places(folders, repo, variant.files)[0]
    for record in known:
        is_same = len(variant.files) == 1 and record.sha256 == variant.files[0].sha256
        if (is_same or record.path == str(place)) and Path(record.path).exists():
            raise StoreError("exists", f"{repo}:{variant.label} is already here, as {record.name}.")


def _check_disk(folder: Path, missing: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if missing and missing + RESERVE > free:
        raise NodeError(
            "no_space",
            f"{size_text(missing)} are to be downloaded, and {size_text(free)} are free on the disk of "
            f"{folder}; {size_text(RESERVE)} must stay free.",
            "Make room, choose a smaller quantization, or another folder with --data-dir.",
        )


def _memory_warning(variant: Variant, free: int, *, force: bool) -> str:
    import psutil

    total = int(psutil.virtual_memory().total)
    if variant.size > total and not force:
        raise NodeError(
            "no_memory",
            f"{variant.label} is {size_text(variant.size)}; this machine has {size_text(total)} of memory.",
            "Choose a smaller model or quantization; --force pulls it all the same.",
        )
    needed = hub_names.memory_needed(variant.size)
    if needed <= free:
        return ""
    return f"It takes about {size_text(needed)} of memory, and {size_text(free)} are free now."


def places(folders: Folders, repo: str, files: Sequence[HubFile]) -> list[Path]:
    """Where these files of one model lie once they are here."""
    folder = models_folder(folders) / repo.replace("/", "--") / files[0].sha256[:12]
    return [folder / hub_names.base_name(file.path) for file in files]


async def remember(
    store: Store, path: Path, name: str | None, digest: str | None, on_progress: OnProgress | None = None
) -> ModelRecord:
    """Examine the model at `path` and keep it in the store. Memory was spoken of before the download."""
    known = await store.run(records.list_models)
    record = await check_model(path, name, on_progress, force=True, known=known, digest=digest)
    return await store.run(records.add_model, record, frozenset({GUIDE}))


class Pulling:
    """A stream: PullChosen, then how it goes, PullAdded at the end. What came stays when it is left."""

    def __init__(
        self, asked: PullAsked, folders: Folders, known: Callable[[], Awaitable[Known]], add: Add
    ) -> None:
        self._asked = asked
        self._folders = folders
        self._known = known
        self._add = add
        self._stopped = False
        self._events = self._play()

    async def _play(self) -> AsyncGenerator[PullEvent, None]:
        async with hub.client() as http:
            chosen = await _plan(http, self._asked, self._folders, await self._known())
            yield PullChosen(chosen)
            where = places(self._folders, chosen.repo, chosen.files)
            models, meter = models_folder(self._folders), Meter(chosen.size)
            await asyncio.to_thread(prepare_folder, self._folders.data)
            await asyncio.to_thread(prepare_folder, models)
            before, fresh = 0, False
            for file, place in zip(chosen.files, where, strict=True):
                if not place.exists():
                    access, repo, commit = self._asked.access, chosen.repo, chosen.commit
                    download = Download(http, access, repo, commit, file, models)
                    async with contextlib.aclosing(download.run(place, meter, before)) as events:
                        async for event in events:
                            yield event
                            if self._stopped:
                                return
                    fresh = True
                before += file.size
        yield PullChecked(chosen.size, chosen.size)
        # The hash of several files is one over all of them, which the hub does not tell.
        digest = chosen.files[0].sha256 if fresh and len(where) == 1 else None
        yield await self._added(where, digest, chosen)

    async def _added(self, where: Sequence[Path], digest: str | None, chosen: PullPlan) -> PullAdded:
        try:
            added = await self._add(where[0], self._asked.name, digest)
        except EngineError as error:
            if error.code in _NO_MODEL:
                delete_files(self._folders, where)
                raise EngineError(
                    error.code, f"{error.message} Nothing was kept.", "Choose another model."
                ) from error
            raise EngineError(
                error.code,
                f"{error.message} The file is kept: {where[0]}.",
                f"{error.remedy} Then pull it again: nothing is downloaded twice.",
            ) from error
        if len(where) == 1 and added.model.sha256 != chosen.files[0].sha256:
            raise NodeError(
                "bad_hash",
                f"{where[0]} was changed since it was downloaded.",
                f"Remove it and pull it again: infraxa models remove {added.model.name} --delete",
            )
        return added

    def __aiter__(self) -> Pulling:
        return self

    async def __anext__(self) -> PullEvent:
        return await anext(self._events)

    def stop(self) -> None:
        """End it with the next bytes; what came is kept."""
        self._stopped = True

    async def aclose(self) -> None:
        self.stop()
        await self._events.aclose()
