"""One question and its answer, which are kept nowhere: what `infraxa ask` has of a node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from time import perf_counter

from infraxa.app import choices
from infraxa.app.answering import Source
from infraxa.app.buyer import Buyer, wanted
from infraxa.app.config import Settings
from infraxa.app.facade import AskBegan, AskEvent
from infraxa.app.models import Models
from infraxa.app.one_off import OneOff
from infraxa.engine.types import Request
from infraxa.store.records import ChatOptions


class Asking(OneOff):
    """A stream: AskBegan, then what the source yields. Raises what the model cannot be loaded for."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        text: str,
        options: ChatOptions,
        buyer: Buyer,
    ) -> None:
        self._models = models
        self._settings = settings
        self._options = options
        self._buyer = buyer
        self._said = choices.one_off(text, options)
        super().__init__()

    async def _play(self) -> AsyncGenerator[AskEvent, None]:
        async with contextlib.AsyncExitStack() as held:
            begin: Callable[[], Source]
            if (driver := wanted(self._options, self._settings)) is not None:
                # Which model it is comes with who answers.
                began, begin = AskBegan("", 0), partial(self._buyer.generate, self._said, driver)
            else:
                asked = perf_counter()
                entry = await self._models.entry(self._options.model or self._settings.model)
                engine = await held.enter_async_context(self._models.held(entry, self._settings))
                began = AskBegan(entry.name, round((perf_counter() - asked) * 1000))
                sampling = choices.resolve_sampling(self._options, self._settings, entry)
                begin = partial(engine.generate, Request(self._said, sampling))
            yield began
            self._source = begin()
            if self._stopped:
                self._source.cancel()
            async for event in self._source:
                yield event
