"""Which models this machine has, and which of them the engine holds.

What a model file contains is read by `engine.models`; what is remembered of it is in the store. One model is
loaded at a time: another one replaces it only when nothing is being answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from infraxa.app import choices
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.tasks import TaskGroup
from infraxa.engine.host import Engine
from infraxa.engine.types import Loaded, LoadOptions
from infraxa.store import models as records
from infraxa.store.db import Store


class Models:
    """The models of one node. Opened with the store; the engine is the node's."""

    def __init__(self, engine: Engine, tasks: TaskGroup) -> None:
        self._engine = engine
        self._tasks = tasks
        self._store: Store | None = None
        self._loading: tuple[str, asyncio.Task[Loaded]] | None = None

    def open(self, store: Store) -> None:
        """Use the records of `store` from now on."""
        self._store = store

    @property
    def _records(self) -> Store:
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        return self._store

    async def entries(self) -> list[ModelEntry]:
        """The built-in guide first, then what was added, oldest first."""
        kept = await self._records.run(records.list_models)
        # It looks at the model files, which may be on a slow disk.
        return await asyncio.to_thread(choices.model_entries, kept)

    async def entry(self, name: str) -> ModelEntry:
        """The model of this name. Raises NodeError `no_model`."""
        return await asyncio.to_thread(choices.find_model, name, await self.entries())

    async def load(self, entry: ModelEntry, settings: Settings) -> None:
        """Have the engine hold this model; returns when it answers.

        Raises EngineError when it cannot be loaded, and NodeError `busy` while another model is answering.
        """
        status = self._engine.status
        if self._loading is not None:
            path, task = self._loading
            if path == entry.path:
                await asyncio.shield(task)
                return
        elif status.model == entry.path and status.state in ("ready", "restarting"):
            return
        if status.model != entry.path and (status.running or status.waiting):
            raise NodeError(
                "busy",
                "Another model is answering in another chat, and one model is loaded at a time.",
                "Wait for the end of that answer or stop it, then try again.",
            )
        options = LoadOptions(
            n_ctx=settings.context,
            slots=settings.slots,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        )
        task = self._tasks.spawn(self._engine.load(Path(entry.path), options), name=f"load {entry.name}")
        self._loading = (entry.path, task)
        task.add_done_callback(self._loaded)
        # Whoever waits may give up; the model goes on loading for the next one.
        await asyncio.shield(task)

    def _loaded(self, task: asyncio.Task[Loaded]) -> None:
        if self._loading is not None and self._loading[1] is task:
            self._loading = None

    async def add(
        self, path: Path, name: str | None, on_progress: Callable[[int, int], None] | None
    ) -> ModelEntry:
        """Read, check and remember a GGUF file; nothing is remembered unless all of it went well."""
        record = await choices.examine(path, name, on_progress)
        added = await self._records.run(records.add_model, record, frozenset({choices.GUIDE}))
        return choices.model_entries([added])[-1]

    async def remove(self, name: str) -> None:
        """Forget the model; its file stays. Raises StoreError `not_found`."""
        await self._records.run(records.remove_model, name)
