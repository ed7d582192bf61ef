"""The built-in model for all tests that run llama.cpp, on one thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infraxa.engine.batching import N_BATCH, Batcher, Output
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine, Limits
from infraxa.engine.llama import Context, Model, route_log
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import (
    ChatMessage,
    EngineStatus,
    Finished,
    LoadOptions,
    Request,
    Sampling,
)

ONE_THREAD = LoadOptions(threads=1)


@pytest.fixture(scope="session")
def guide() -> Iterator[Model]:
    route_log(lambda line: None)
    with Model.load(GUIDE_PATH) as model:
        yield model


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    left = [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]
    assert not left, f"workers outlived the tests: {left}"


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "infraxa.engine.worker" in process.cmdline()
    except psutil.Error:
        return False


class Room:
    """A batcher in this process, and what came out of it."""

    def __init__(self, model: Model, *, slots: int, n_ctx: int, park_bytes: int = 0) -> None:
        self.context = Context(model, n_ctx=n_ctx, slots=slots, n_batch=N_BATCH, threads=1)
        template = ChatTemplate(model.chat_template, builtin=model.apply_builtin_template)
        self.batcher = Batcher(model, self.context, template, slots=slots, n_ctx=n_ctx, park_bytes=park_bytes)
        self.text: dict[int, str] = {}
        self.ids: dict[int, list[int]] = {}
        self.leaves: dict[int, list[bytes]] = {}
        self.ctx0: dict[int, bytes] = {}
        self.ended: dict[int, Finished] = {}
        self.order: list[int] = []
        """Requests in the order of their first token."""

    def take(self) -> Output:
        output = self.batcher.take()
        for emitted in output.emitted:
            if emitted.id not in self.ids:
                self.order.append(emitted.id)
            self.text[emitted.id] = self.text.get(emitted.id, "") + emitted.text
            self.ids.setdefault(emitted.id, []).extend(emitted.token_ids)
            if emitted.ctx0:
                assert emitted.id not in self.ctx0, "it is told once"
                self.ctx0[emitted.id] = emitted.ctx0
            if emitted.leaves:
                self.leaves.setdefault(emitted.id, []).extend(emitted.leaves)
        for ended in output.ended:
            self.ended[ended.id] = ended.finished
        return output

    def run(self, steps: int = 5000) -> None:
        """Until nobody is left, at most so many steps."""
        for _ in range(steps):
            self.batcher.step()
            self.take()
            if not self.batcher.busy:
                return
        raise AssertionError(f"not done after {steps} steps")

    def answer(self, request_id: int, request: Request) -> str:
        self.batcher.submit(request_id, request)
        self.run()
        return self.text.get(request_id, "")


@pytest.fixture
def open_room(guide: Model) -> Iterator[Callable[..., Room]]:
    rooms: list[Room] = []

    def open_(*, slots: int = 8, n_ctx: int = 1024, park_bytes: int = 0) -> Room:
        rooms.append(Room(guide, slots=slots, n_ctx=n_ctx, park_bytes=park_bytes))
        return rooms[-1]

    yield open_
    for room in rooms:
        room.batcher.close()
        room.context.close()


class Watched(Engine):
    """An engine that remembers what it told."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.told: list[EngineStatus] = []
        self.waits: list[float] = []
        """Seconds until each restart, as they were told."""
        self.log: list[str] = []
        self._news = asyncio.Event()
        super().__init__(on_status=self._note, on_log=self.log.append, limits=limits)

    def _note(self, status: EngineStatus) -> None:
        self.told.append(status)
        if status.retry_at is not None and status.waiting == 0:
            self.waits.append(status.retry_at - time.monotonic())
        self._news.set()

    async def until(self, condition: Callable[[EngineStatus], bool]) -> EngineStatus:
        """Waits for a status, at most half a minute."""
        async with asyncio.timeout(30):
            while not condition(self.status):
                self._news.clear()
                await self._news.wait()
        return self.status

    async def load_guide(self, path: Path = GUIDE_PATH) -> int:
        """The pid of the worker."""
        return (await self.load(path, ONE_THREAD)).pid


@pytest.fixture
async def open_engine() -> AsyncIterator[Callable[..., Watched]]:
    engines: list[Watched] = []

    def open_(limits: Limits | None = None) -> Watched:
        engines.append(Watched(limits))
        return engines[-1]

    yield open_
    for engine in engines:
        await engine.close()


def ask(*texts: str, user: str = "", **sampling: object) -> Request:
    """A conversation that the user begins, at temperature 0 unless said."""
    messages = tuple(ChatMessage("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts))
    values: dict[str, object] = {"temperature": 0.0, **sampling}
    return Request(messages, Sampling(**values), user=user)  # type: ignore[arg-type] # names of its fields


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., Request]:
    return ask


@pytest.fixture
def endless() -> Request:
    """So hot that the end of the turn hardly ever comes: hundreds of tokens."""
    return ask("what is infraxa?", temperature=50.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process exists and does not only wait to be reaped."""

    def check(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False

    return check
