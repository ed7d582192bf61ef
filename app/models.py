"""Which models this machine has, and which of them the engine holds.

What a model file contains is read by `engine.models`; what is remembered of it is in the store. One model is
loaded at a time: another one replaces it only when nobody has it in hand. Guests (other nodes, which this one
serves) go when the person wants another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from infraxa.app import choices
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.facade import OnProgress
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.host import Engine
from infraxa.engine.models import sha256
from infraxa.engine.types import EngineError, Loaded, LoadOptions
from infraxa.net.tasks import TaskGroup
from infraxa.store import models as records
from infraxa.store.db import Store

_log = logging.getLogger(__name__)

_Wanted = tuple[str, LoadOptions]
"""A model's path and how it is loaded."""


class Models:
    """The models of one node. Opened with the store; the engine is the node's."""

    def __init__(self, engine: Engine, tasks: TaskGroup) -> None:
        self._engine = engine
        self._tasks = tasks
        self._store: Store | None = None
        self._loading: tuple[_Wanted, asyncio.Task[Loaded]] | None = None
        self._loaded: _Wanted | None = None
        self._holders: dict[str, int] = {}
        """How many answers have which model, by its path, in hand; at most one path."""
        self._guests = 0
        """How many of them are guests'."""
        self._vocabs: dict[bytes, Path] = {}
        """The file of each vocabulary that others are told of."""
        self._changed = asyncio.Event()
        self.send_guests_away: Callable[[], Awaitable[None]] | None = None
        """Called when the person wants another model than guests have in hand: returns when they have ended,
        which it bounds."""

    def open(self, store: Store) -> None:
        """Use the records of `store` from now on."""
        self._store = store

    @property
    def _records(self) -> Store:
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        return self._store

    def engine_changed(self) -> None:
        """The engine has another status."""
        self._changed.set()

    async def entries(self) -> list[ModelEntry]:
        """The built-in guide first, then what was added, oldest first."""
        kept = await self._records.run(records.list_models)
        # It looks at the model files, which may be on a slow disk.
        return await asyncio.to_thread(choices.model_entries, kept)

    async def entry(self, name: str) -> ModelEntry:
        """The model of this name. Raises NodeError `no_model`."""
        return await asyncio.to_thread(choices.find_model, name, await self.entries())

    async def model_id(self, entry: ModelEntry) -> bytes:
        """The SHA-256 of its files, by which other nodes know it. Raises EngineError `not_found`."""
        if entry.sha256:
            return bytes.fromhex(entry.sha256)
        found = await asyncio.to_thread(sha256, entry.info.files)
        assert found is not None  # nothing cancels it
        return bytes.fromhex(found)

    async def tell_vocab(self, entry: ModelEntry) -> bytes:
        """The hash of its vocabulary, which others may ask for from now on; empty when none can be read, so
        that they cannot check what they are charged for."""
        try:
            vocabulary = await asyncio.to_thread(read_vocabulary, Path(entry.path))
        except EngineError as error:
            _log.warning("the vocabulary of %s is not given to others: %s", entry.name, error.message)
            return b""
        self._vocabs[vocabulary.hash] = Path(entry.path)
        return vocabulary.hash

    def told_vocab(self, vocab: bytes) -> Path | None:
        """The model file with this vocabulary, if others were told of it."""
        return self._vocabs.get(vocab)

    def others_hold(self, entry: ModelEntry) -> bool:
        """Whether the person has another model than this one in hand."""
        return any(path != entry.path for path in self._holders)

    @contextlib.asynccontextmanager
    async def held(
        self, entry: ModelEntry, settings: Settings, *, guest: bool = False
    ) -> AsyncIterator[Engine]:
        """An engine that has this model ready; it keeps it until the end of the block.

        `guest`: for another node. Raises EngineError when it cannot be loaded, and NodeError `busy` while
        somebody holds another one; guests alone are sent away first.
        """
        if self.others_hold(entry) and not guest and self._guests == sum(self._holders.values()):
            if self.send_guests_away is not None:
                await self.send_guests_away()
        if self.others_hold(entry):
            raise NodeError(
                "busy",
                "Another model is answering in another chat, and one model is loaded at a time.",
                "Wait for the end of that answer or stop it, then try again.",
            )
        self._holders[entry.path] = self._holders.get(entry.path, 0) + 1
        self._guests += guest
        try:
            await self.load(entry, settings, as_it_is=guest)
            yield self._engine
        finally:
            self._guests -= guest
            self._holders[entry.path] -= 1
            if not self._holders[entry.path]:
                del self._holders[entry.path]

    async def load(self, entry: ModelEntry, settings: Settings, *, as_it_is: bool = False) -> None:
        """Have the engine load this model, unless it has it; returns when it is ready. Raises EngineError.

        `as_it_is`: a model that is loaded with other options than these settings say will do.
        """
        if entry.problem:
            raise EngineError("not_found", entry.problem, "Choose another model, or add it again.")
        options = LoadOptions(
            n_ctx=settings.context,
            slots=settings.slots,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            memory_limit=None if settings.memory_limit is None else settings.memory_limit * 1_000_000,
        )
        wanted = (entry.path, options)
        if self._loading is not None and (
            self._loading[0] == wanted or (as_it_is and self._loading[0][0] == entry.path)
        ):
            # Whoever waits may give up; the model goes on loading for the next one.
            await asyncio.shield(self._loading[1])
            return
        # Other options do for now when others are using the model: they come into force with the next load.
        shared = as_it_is or self._holders.get(entry.path, 0) > 1
        if self._loaded is not None and (
            self._loaded == wanted or (shared and self._loaded[0] == entry.path)
        ):
            await self._until_ready()
            if self._engine.status.state == "ready":
                return
        task = self._tasks.spawn(
            self._engine.load(Path(entry.path), options), name=f"load {entry.name}", told=FAILURES
        )
        self._loading, self._loaded = (wanted, task), wanted
        task.add_done_callback(self._load_ended)
        await asyncio.shield(task)

    async def _until_ready(self) -> None:
        """Until a worker that is being restarted is there again, or is given up; the engine bounds it."""
        while self._engine.status.state in ("starting", "loading", "restarting"):
            self._changed.clear()
            await self._changed.wait()

    def _load_ended(self, task: asyncio.Task[Loaded]) -> None:
        if self._loading is not None and self._loading[1] is task:
            self._loading = None
            if task.cancelled() or task.exception() is not None:
                self._loaded = None

    async def add(
        self, path: Path, name: str | None, on_progress: OnProgress | None, *, force: bool = False
    ) -> ModelEntry:
        """Read, check and remember a GGUF file; nothing is remembered unless all of it went well."""
        known = await self._records.run(records.list_models)
        record = await choices.examine(path, name, on_progress, force=force, known=known)
        added = await self._records.run(records.add_model, record, frozenset({choices.GUIDE}))
        return await self.entry(added.name)

    async def remove(self, name: str) -> None:
        """Forget the model; its file stays. Raises StoreError `not_found`."""
        await self._records.run(records.remove_model, name)
