"""One question and its answer, which are kept nowhere: what `infraxa ask` has of a node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from time import perf_counter

from infraxa.app import choices
from infraxa.app.config import Settings
from infraxa.app.facade import AskBegan, AskEvent
from infraxa.app.models import Models
from infraxa.engine.generation import Generation
from infraxa.engine.host import Engine
from infraxa.engine.types import Finished, Request, Usage
from infraxa.store.records import ChatOptions


class Asking:
    """A stream: AskBegan, then what the generation yields. Raises what the model cannot be loaded for."""

    def __init__(
        self, models: Models, engine: Engine, settings: Settings, text: str, options: ChatOptions
    ) -> None:
        self._models = models
        self._engine = engine
        self._settings = settings
        self._options = options
        self._said = choices.one_off(text, options)
        self._generation: Generation | None = None
        self._stopped = False
        self._events = self._play()

    async def _play(self) -> AsyncGenerator[AskEvent, None]:
        asked = perf_counter()
        entry = await self._models.entry(self._options.model or self._settings.model)
        async with self._models.held(entry, self._settings):
            yield AskBegan(entry.name, round((perf_counter() - asked) * 1000))
            if self._stopped:
                yield Finished("cancelled", Usage())
                return
            sampling = choices.resolve_sampling(self._options, self._settings, entry)
            self._generation = self._engine.generate(Request(self._said, sampling))
            async for event in self._generation:
                yield event

    def __aiter__(self) -> Asking:
        return self

    async def __anext__(self) -> AskEvent:
        return await anext(self._events)

    def stop(self) -> None:
        """End the answer at its next step; while the model loads, before its first."""
        self._stopped = True
        if self._generation is not None:
            self._generation.cancel()

    async def aclose(self) -> None:
        self.stop()
        await self._events.aclose()
