"""Which models this machine has.

What a model file contains is read by `engine.models`; what is remembered of it is in the store; which of them
are loaded is in pool.py.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path

from infraxa.app import choices
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.facade import OnProgress
from infraxa.app.files import FileMark, mark_of
from infraxa.app.pool import Pool
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.host import Engine
from infraxa.engine.models import sha256
from infraxa.engine.types import EngineError
from infraxa.net.tasks import TaskGroup
from infraxa.store import models as records
from infraxa.store.db import Store

_log = logging.getLogger(__name__)


@functools.lru_cache(8)
def _hash(files: tuple[Path, ...], mark: FileMark) -> bytes:
    """`mark`: of the files as they are now. The built-in model's is asked for with every audit."""
    found = sha256(files)
    assert found is not None  # nothing cancels it
    return bytes.fromhex(found)


class Models(Pool):
    """The models of one node. Opened with the store."""

    def __init__(self, make: Callable[[], Engine], tasks: TaskGroup) -> None:
        """As Pool."""
        super().__init__(make, tasks)
        self._store: Store | None = None
        self._vocabs: dict[bytes, Path] = {}
        """The file of each vocabulary that others are told of."""

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

    async def model_id(self, entry: ModelEntry) -> bytes:
        """The SHA-256 of its files, by which other nodes know it. Raises EngineError `not_found`."""
        if entry.sha256:
            return bytes.fromhex(entry.sha256)
        return await asyncio.to_thread(lambda: _hash(entry.info.files, mark_of(entry.info)))

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

    async def add(
        self, path: Path, name: str | None, on_progress: OnProgress | None, *, force: bool = False
    ) -> ModelEntry:
        """Read, check and remember a GGUF file; nothing is remembered unless all of it went well."""
        known = await self._records.run(records.list_models)
        record = await choices.check_model(path, name, on_progress, force=force, known=known)
        added = await self._records.run(records.add_model, record, frozenset({choices.GUIDE}))
        return await self.entry(added.name)

    async def remove(self, name: str) -> None:
        """Forget the model, in memory too; its file stays. Raises StoreError `not_found`."""
        removed = await self._records.run(records.remove_model, name)
        await self.unload(choices.model_entries([removed])[-1])
