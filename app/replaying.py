"""An answer of a driver, computed again by this machine's own copy of the model.

Only what memory holds anyway is used, or what the person asked to be loaded for it: nothing is taken from the
person's own answers, and it ends at once when the person wants another model. What the distances mean is in
engine/verdicts.py, how the noise of a file is measured in engine/calibration.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from infraxa.app import ends
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.models import Models
from infraxa.app.opened import Shown
from infraxa.app.ordering import request_of
from infraxa.app.terms import backend_of, kv_type_of, versions, versions_of
from infraxa.app.verifying import Kept
from infraxa.engine import transcript
from infraxa.engine.host import Engine
from infraxa.engine.types import EngineError, Loaded
from infraxa.engine.verdicts import Distance, distance
from infraxa.net import deals
from infraxa.net.tasks import TaskGroup
from infraxa.store import verdicts
from infraxa.store.db import Store

WAIT_S: Final = 600.0
"""For a model that is not loaded, until an audit that nobody asked for is given up."""
LOOK_S: Final = 1.0
SCORE_S: Final = 900.0
"""For one answer, beside the answers of the person."""
CALIBRATE_S: Final = 3600.0
AGAIN_S: Final = 3600.0
"""After the noise of a model could not be measured, which another time may do."""

_log = logging.getLogger(__name__)


class NotCompared(Exception):
    """It cannot be computed here (now); `why` as in store.records.Verdict."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Compared(NamedTuple):
    """What this machine computes of an answer, and the driver did."""

    steps: tuple[Distance, ...]
    mu0: float
    """The honest noise of the file on this machine, in logits."""
    same_backend: bool
    """Both compute with the same kind of hardware."""
    same_prompt: bool
    """The driver's model was given the tokens that the prompt has here."""
    same_version: bool
    """Both computed with the same llama.cpp and infraxa."""
    varying: bool = False
    """An honest driver may have been given other tokens of the same prompt, see Loaded."""
    n_prompt: int = 0
    """Tokens of the prompt; 0: they were not counted here."""
    end: int | None = None
    """The first token that ends the answer, as scores.Scoring has it; None: it was not looked for."""
    text: bytes = b""
    """The hash of what its tokens say; empty: as `end`."""


def no_token(mu0: float) -> Compared:
    """Of an answer with a token that the model does not have, which is so on any machine."""
    far = Distance(math.inf, math.inf, math.inf, 0.0)
    return Compared((far,), mu0, same_backend=True, same_prompt=True, same_version=True)


async def _nobody(waits: bool) -> None:
    """Is told of it."""


class Replaying:
    """Of one node."""

    def __init__(self, models: Models, settings: Callable[[], Settings], scratch: Path) -> None:
        """`scratch`: a folder in which a copy of a model's weights may be for a while."""
        self.wait_s = WAIT_S
        self.measured: Callable[[bytes, bool], None] = lambda model_id, known: None
        """Told of each model whose noise is not being measured any more, and whether it is known now."""
        self._models = models
        self._settings = settings
        self._scratch = scratch
        self._store: Store | None = None
        self._measuring: set[bytes] = set()
        """Models whose noise is being measured."""
        self._not_before: dict[bytes, float] = {}
        """By model: when its noise, which could not be measured, may be again; by the clock of the loop."""
        self._one = asyncio.Lock()
        """One answer is computed at a time."""
        self._queue = asyncio.Lock()
        """For that, of those that nobody asked for."""
        self._holding: set[asyncio.Task[object]] = set()
        self._tasks = TaskGroup()

    def open(self, store: Store) -> None:
        self._store = store

    async def close(self) -> None:
        await self.step_aside()
        await self._tasks.cancel_all()
        self._store = None

    async def step_aside(self) -> None:
        """The person wants the memory: returns when no model is held."""
        for task in list(self._holding):
            task.cancel()
        if self._holding:
            await asyncio.wait(list(self._holding))

    async def copy(self, model_id: bytes) -> ModelEntry | None:
        """The own file of this model; None: it is not here. Raises StoreError."""
        for entry in await self._models.entries():
            if entry.problem:
                continue
            with contextlib.suppress(EngineError):
                if await self._models.model_id(entry) == model_id:
                    return entry
        return None

    def can_load(self, entry: ModelEntry) -> bool:
        """Whether memory has it, or room for it beside the others."""
        return self._models.room(entry, self._settings()) in ("loaded", "beside")

    async def compare(
        self,
        kept: Kept,
        said: deals.Transcript,
        shown: Shown,
        *,
        wanted: Callable[[], bool] = lambda: False,
        waits: Callable[[bool], Awaitable[None]] = _nobody,
    ) -> Compared:
        """`wanted`: whether the person asked for it by now, so that its model may be loaded beside others.
        `waits`: told True when it begins to wait for the model to be loaded, and False when it is.

        Raises NotCompared, StoreError; CancelledError, also by `step_aside`."""
        entry = await self.copy(kept.order.model)
        if entry is None:
            raise NotCompared("no_file")
        try:
            async with asyncio.timeout(self.wait_s):
                await self._room(entry, wanted, waits)
        except TimeoutError:
            raise NotCompared("not_loaded") from None
        work = self._tasks.spawn(
            self._compare(entry, kept, said, shown, wanted()),
            name="compute an answer again",
            told=(NotCompared,),
        )
        self._holding.add(work)
        work.add_done_callback(self._holding.discard)
        try:
            return await work
        except asyncio.CancelledError:
            if work.cancelled() and not _cancelling():
                raise NotCompared("not_loaded") from None
            work.cancel()
            raise

    async def _room(
        self, entry: ModelEntry, wanted: Callable[[], bool], waits: Callable[[bool], Awaitable[None]]
    ) -> None:
        waited = False
        while (room := self._models.room(entry, self._settings())) != "loaded":
            if wanted() and room == "beside":
                break
            if not waited:
                waited = True
                await waits(True)
            await asyncio.sleep(LOOK_S)
        if waited:
            await waits(False)

    async def _compare(
        self, entry: ModelEntry, kept: Kept, said: deals.Transcript, shown: Shown, asked: bool
    ) -> Compared:
        queue = contextlib.nullcontext() if asked else self._queue
        try:
            async with queue, self._one, self._held(entry) as (engine, loaded):
                mu0 = await self.noise(entry, kept.order.model, loaded.backend)
                if mu0 is None:
                    raise NotCompared("no_calibration" if self.measures(kept.order.model) else "no_noise")
                async with asyncio.timeout(SCORE_S):
                    try:
                        return await self._scored(engine, loaded, mu0, kept, said, shown)
                    except EngineError as error:
                        if error.code != "no_token":
                            raise
                        return no_token(mu0)
        except TimeoutError:
            raise NotCompared("not_loaded") from None
        except FAILURES as error:
            _log.debug("an answer was not computed again: %s", error.code)
            raise NotCompared("not_loaded") from None

    @contextlib.asynccontextmanager
    async def _held(self, entry: ModelEntry) -> AsyncIterator[tuple[Engine, Loaded]]:
        """Raises what FAILURES lists."""
        async with self._models.held(entry, self._settings(), guest=True) as engine:
            loaded = engine.status.loaded
            if loaded is None:
                raise NodeError("closed", "The model's process ended.")
            yield engine, loaded

    async def _scored(
        self, engine: Engine, loaded: Loaded, mu0: float, kept: Kept, said: deals.Transcript, shown: Shown
    ) -> Compared:
        request = request_of(kept.order, kept.prompt, kept.order.max_tokens, "")
        steps = [leaf.step for leaf in shown.leaves]
        ids = [transcript.packed(leaf.ids) for leaf in shown.leaves]
        scored = await engine.score(
            request, shown.tokens, steps, ids, kv_type=kv_type_of(said.profile), chars=ends.hashed_chars(kept)
        )
        prompt = struct.unpack(f"<{scored.n_prompt}I", scored.prompt_ids)
        return Compared(
            steps=tuple(
                distance(leaf.ids, leaf.q, leaf.token, row)
                for leaf, row in zip(shown.leaves, scored.rows, strict=True)
            ),
            mu0=mu0,
            same_backend=backend_of(said.profile) == loaded.backend,
            same_prompt=transcript.ctx0(kept.prompt.salt, prompt) == said.ctx0,
            same_version=versions_of(said.profile) == versions(loaded),
            varying=loaded.varying,
            n_prompt=scored.n_prompt,
            end=scored.end,
            text=scored.text,
        )

    async def known_noise(self, model_id: bytes, backend: str) -> float | None:
        """The honest noise of this model on this kind of machine, in logits, if it was measured here. Raises
        StoreError."""
        if self._store is None:
            return None
        return await self._store.run(verdicts.noise, model_id.hex(), backend)

    async def noise(self, entry: ModelEntry, model_id: bytes, backend: str) -> float | None:
        """As `known_noise`; what is not known is measured, if it can be, and None. Raises StoreError."""
        mu0 = await self.known_noise(model_id, backend)
        if mu0 is None and self._store is not None:
            self._measure_soon(entry, model_id)
        return mu0

    def measures(self, model_id: bytes) -> bool:
        """Whether the noise of this model is being measured."""
        return model_id in self._measuring

    def lacks(self, model_id: bytes) -> str:
        """Why the noise of this model cannot be had now, as in NotCompared; empty: it may be."""
        if self.measures(model_id):
            return "no_calibration"
        now = asyncio.get_running_loop().time()
        return "no_noise" if now < self._not_before.get(model_id, now) else ""

    async def is_loaded(self, model_id: bytes) -> bool:
        """Whether an answer of this model could be computed again at once. Raises StoreError."""
        entry = await self.copy(model_id)
        return entry is not None and self._models.room(entry, self._settings()) == "loaded"

    def _measure_soon(self, entry: ModelEntry, model_id: bytes) -> None:
        if self.lacks(model_id):
            return
        self._measuring.add(model_id)
        task = self._tasks.spawn(self._measure(entry, model_id), name="measure the noise of a model")
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    async def _measure(self, entry: ModelEntry, model_id: bytes) -> None:
        store = self._store
        assert store is not None
        known, again = False, 0.0
        try:
            async with asyncio.timeout(CALIBRATE_S), self._held(entry) as (engine, loaded):
                with tempfile.TemporaryDirectory(prefix="noise-", dir=self._scratch) as scratch:
                    mu0 = await engine.calibrate(scratch=Path(scratch))
                await store.run(verdicts.keep_noise, model_id.hex(), loaded.backend, mu0)
            known = True
        except TimeoutError:
            again = AGAIN_S
            _log.warning("the noise of %s was not measured in time", entry.name)
        except OSError as error:
            again = AGAIN_S
            _log.warning("the noise of %s was not measured: %s", entry.name, error.strerror)
        except FAILURES as error:
            # What this machine or this model cannot do, it cannot do later either.
            again = math.inf if error.code == "unsupported" else AGAIN_S
            _log.warning("the noise of %s was not measured: %s", entry.name, error.message)
        finally:
            self._measuring.discard(model_id)
            self._not_before[model_id] = asyncio.get_running_loop().time() + again
            self.measured(model_id, known)


def _cancelling() -> bool:
    """Whether the one that waits is cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
