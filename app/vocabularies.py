"""The vocabularies by which this node counts the tokens of its drivers' answers, and that it gives to others.

The model's own file is the best source, if this machine has it. Else a vocabulary is fetched by its hash from
any provider that offers the model, and kept. The hash is what cards say: a vocabulary whose hash only the
driver's own card names proves nothing against that driver, who may have made it up to fit its counts. It
proves something when others offer the same model with the same hash; where they name another one, somebody
lies, and the count is not checked (`agreed`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infraxa.app.choices import ModelEntry
from infraxa.app.errors import FAILURES
from infraxa.app.models import Models
from infraxa.app.offers import OfferSeen
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.types import EngineError
from infraxa.engine.vocabulary import MAX_ENCODED, Vocabulary
from infraxa.net.records import ModelOffer
from infraxa.net.status import SeenNode
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from infraxa.net.link import Link

FOLDER: Final = "vocab"
"""Within the data folder."""
MAX_LOADED: Final = 4
"""In memory: some MB each, with a large one 21 MB."""
MAX_FILES: Final = 16
MAX_FETCHES: Final = 2
"""At a time."""
MAX_HOLDERS: Final = 3
"""Nodes that are asked for one, until it is tried again after:"""
RETRY_S: Final = 300.0
LINK_S: Final = 15.0
"""For a session with one of them."""

_log = logging.getLogger(__name__)


def agreed(model_id: bytes, offers: Iterable[ModelOffer]) -> bytes | None:
    """The hash of the vocabulary that all who offer this model name; None when they differ, or none does."""
    hashes = {offer.vocab for offer in offers if offer.model_id == model_id and offer.vocab}
    return hashes.pop() if len(hashes) == 1 else None


def holders(vocab: bytes, nodes: Iterable[SeenNode]) -> list[bytes]:
    """The nodes that offer a model with this vocabulary and can be asked for it."""
    return [
        node.id
        for node in nodes
        if node.status != "offline" and any(offer.vocab == vocab for offer in node.models)
    ]


class Vocabularies:
    """Of one node."""

    def __init__(self, data: Path, models: Models, link_to: Callable[[bytes], Awaitable[Link]]) -> None:
        """`data`: the data folder. `link_to`: a session with a provider; raises NetError or NodeError."""
        self._folder = data / FOLDER
        self._models = models
        self._link_to = link_to
        self._tasks = TaskGroup()
        self._loaded: OrderedDict[bytes, Vocabulary] = OrderedDict()
        """By hash, the last used last."""
        self._local: dict[bytes, bytes] = {}
        """The hash by model id, of models whose file is here."""
        self._fetches: dict[bytes, asyncio.Task[None]] = {}
        self._failed: OrderedDict[bytes, float] = OrderedDict()
        """When fetching it failed."""

    async def of(
        self, model_id: bytes, vocab: bytes | None, nodes: Sequence[bytes], *, wait_s: float = 0.0
    ) -> Vocabulary | None:
        """The vocabulary of a model; None: it is not here, so the count is not checked.

        `vocab`: what `agreed` says of the model. `nodes`: the ids of `holders`, the driver first, as it knows
        already what it is used for. One that is not here is fetched from them in the background, for which it
        is waited so long; it may be there when it is asked for again.
        """
        if (found := await self._of_file(model_id)) is not None:
            return found
        if not vocab:
            return None
        if (found := await self._kept(vocab)) is not None:
            return found
        fetch = self._fetches.get(vocab) or self._fetch_soon(vocab, nodes)
        if fetch is not None and wait_s > 0:
            await asyncio.wait((fetch,), timeout=wait_s)
        return self._loaded.get(vocab)

    async def for_answer(
        self, offer: OfferSeen, nodes: Sequence[SeenNode], *, wait_s: float = 0.0
    ) -> Vocabulary | None:
        """As `of`, of the model with which a driver answers; `nodes`: all that are known."""
        model_id, driver = offer.model.model_id, offer.node.id
        offers = [model for node in nodes for model in node.models]
        vocab = agreed(model_id, [offer.model, *offers])
        asked = holders(vocab, nodes) if vocab else []
        return await self.of(model_id, vocab, sorted(asked, key=lambda node: node != driver), wait_s=wait_s)

    async def file(self, vocab: bytes) -> Path | None:
        """The encoded vocabulary for others, of a model that this node has told them of: what it keeps of
        others' models is nobody's business. Raises OSError."""
        source = self._models.told_vocab(vocab)
        if source is None:
            return None
        path = self._path(vocab)
        if not await asyncio.to_thread(path.exists):
            try:
                found = await asyncio.to_thread(read_vocabulary, source)
            except EngineError:
                return None
            if found.hash != vocab:  # another file by now
                return None
            await asyncio.to_thread(self._write, vocab, found.encode())
        return path

    async def close(self) -> None:
        """Fetch nothing more."""
        await self._tasks.cancel_all()

    async def _of_file(self, model_id: bytes) -> Vocabulary | None:
        """Of a model whose file is here."""
        if (known := self._local.get(model_id, b"")) in self._loaded:
            return self._use(known)
        for entry in await self._models.entries():
            if entry.problem or await self._id_of(entry) != model_id:
                continue
            try:
                found = await asyncio.to_thread(read_vocabulary, Path(entry.path))
            except EngineError as error:
                _log.warning("tokens of %s are not counted: %s", entry.name, error.message)
                continue
            self._local[model_id] = found.hash
            return self._keep(found)
        return None

    async def _id_of(self, entry: ModelEntry) -> bytes:
        """Empty of a file that was never hashed."""
        if not entry.builtin:
            return bytes.fromhex(entry.sha256)
        with contextlib.suppress(EngineError):
            return await self._models.model_id(entry)
        return b""

    async def _kept(self, vocab: bytes) -> Vocabulary | None:
        if vocab in self._loaded:
            return self._use(vocab)
        found = await asyncio.to_thread(self._read, vocab)
        return None if found is None else self._keep(found)

    def _keep(self, found: Vocabulary) -> Vocabulary:
        self._loaded[found.hash] = found
        if len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._use(found.hash)

    def _use(self, vocab: bytes) -> Vocabulary:
        self._loaded.move_to_end(vocab)
        return self._loaded[vocab]

    def _fetch_soon(self, vocab: bytes, nodes: Sequence[bytes]) -> asyncio.Task[None] | None:
        """Begin, unless it failed a short time ago or there is nobody to ask."""
        failed = self._failed.get(vocab)
        tried_lately = failed is not None and time.monotonic() - failed < RETRY_S
        if tried_lately or not nodes or len(self._fetches) >= MAX_FETCHES:
            return None
        task = self._tasks.spawn(self._fetch(vocab, nodes[:MAX_HOLDERS]), name="fetch a vocabulary")
        self._fetches[vocab] = task
        task.add_done_callback(lambda _: self._fetches.pop(vocab))
        return task

    async def _fetch(self, vocab: bytes, nodes: Sequence[bytes]) -> None:
        from infraxa.net.link import FAILED
        from infraxa.net.vocabs import fetch_vocabulary

        for node in nodes:
            try:
                async with asyncio.timeout(LINK_S):
                    link = await self._link_to(node)
                data = await fetch_vocabulary(link, vocab)
                found = await asyncio.to_thread(Vocabulary.decode, data)
            except (*FAILED, *FAILURES, TimeoutError, ValueError) as error:
                _log.info("a vocabulary did not come: %s", type(error).__name__)
                continue
            if found.hash != vocab:  # not written as it has to be, so that one vocabulary had many hashes
                break
            self._keep(found)
            try:
                await asyncio.to_thread(self._write, vocab, data)
            except OSError as error:
                _log.warning("a vocabulary is not kept: %s", error.strerror or error)
            return
        self._failed[vocab] = time.monotonic()
        if len(self._failed) > MAX_FILES:
            self._failed.popitem(last=False)

    def _path(self, vocab: bytes) -> Path:
        return self._folder / vocab.hex()

    def _read(self, vocab: bytes) -> Vocabulary | None:
        """From the folder; what is damaged goes."""
        path = self._path(vocab)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_ENCODED + 1)
            found = Vocabulary.decode(data)
        except OSError:
            return None
        except ValueError:
            found = None
        if found is not None and found.hash == vocab:
            with contextlib.suppress(OSError):
                os.utime(path)  # those not used for longest go first
            return found
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _write(self, vocab: bytes, data: bytes) -> None:
        """Whole or not at all. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(vocab)
        part = path.with_suffix(f".{os.urandom(4).hex()}")
        try:
            part.write_bytes(data)
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        with contextlib.suppress(OSError):  # one that went meanwhile
            files = sorted(self._folder.iterdir(), key=lambda file: (file == path, file.stat().st_mtime_ns))
            for old in files[:-MAX_FILES]:
                old.unlink()
