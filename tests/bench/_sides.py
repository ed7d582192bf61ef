"""The two that are compared, asked in the same way: what is asked, what came, and this project's engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from infraxa.engine.host import Engine
from infraxa.engine.types import Delta, Finished, Loaded, LoadOptions, Request, Sampling


class Asked(NamedTuple):
    prompt: str
    max_tokens: int


class Got:
    """One answer, with the times at which it came."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = 0.0
        self.last = 0.0
        self.n_out = 0
        self.n_prompt = 0
        self.n_cached = 0
        self.times: list[float] = []
        """Of each token."""

    def came(self, n: int) -> None:
        """So many tokens, now."""
        if n:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.n_out += n
            self.times += [self.last] * n

    @property
    def first_token_s(self) -> float:
        return self.first - self.began


class Side(Protocol):
    name: str

    async def start(self) -> None: ...

    async def ask(self, asked: Asked, got: Got | None = None) -> Got:
        """One answer, as it streams in; `got` is filled, for whoever wants to look at it meanwhile."""
        ...

    def memory(self) -> int:
        """Bytes in main memory now, the weights of the mapped file included."""
        ...

    async def close(self) -> None: ...


class Ours:
    """The engine as the app has it: host in this process, worker in another."""

    name = "infraxa"

    def __init__(self, model: Path, options: LoadOptions) -> None:
        self._model = model
        self._options = options
        self._engine = Engine()

    async def start(self) -> None:
        await self._engine.load(self._model, self._options)

    async def ask(self, asked: Asked, got: Got | None = None) -> Got:
        got = got or Got()
        async for event in self._events(asked):
            if isinstance(event, Delta):
                got.came(len(event.token_ids))
            else:
                if event.error is not None:
                    raise RuntimeError(event.error.message)
                got.n_prompt, got.n_cached = event.usage.n_prompt, event.usage.n_cached
        return got

    async def _events(self, asked: Asked) -> AsyncIterator[Delta | Finished]:
        sampling = Sampling(temperature=0, max_tokens=asked.max_tokens)
        async for event in self._engine.generate(Request(prompt=asked.prompt, sampling=sampling)):
            if isinstance(event, Delta | Finished):
                yield event

    @property
    def loaded(self) -> Loaded:
        loaded = self._engine.status.loaded
        assert loaded is not None
        return loaded

    def memory(self) -> int:
        return int(psutil.Process(self.loaded.pid).memory_info().rss)

    async def close(self) -> None:
        await self._engine.close()
