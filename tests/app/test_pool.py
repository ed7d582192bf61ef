"""Several models in memory at once: which are loaded side by side, and which go for another one. Engines and
the machine's memory are the test's; with real ones it is tested in test_node_models."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import msgspec
import pytest
import pytest_asyncio

from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.files import mark_of, stamp_of
from infraxa.app.pool import Pool
from infraxa.engine.host import Engine
from infraxa.engine.models import ModelInfo, memory_estimate
from infraxa.engine.room import Resident, fits, most
from infraxa.engine.types import EngineError, EngineStatus, ErrorInfo, Loaded, LoadOptions
from infraxa.net.tasks import TaskGroup
from tests.net.nodes import until

MB = 1_000_000
SETTINGS = Settings(context=1000, slots=1, threads=1)


class Scripted:
    """An engine whose process takes what its model's file is long."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.status = EngineStatus()
        self.pid = next(machine.pids)
        self.options = LoadOptions()
        self.error: EngineError | None = None

    async def load(self, path: Path, options: LoadOptions) -> Loaded:
        self.options = options
        self._become(EngineStatus("loading", str(path)))
        self.machine.loads.append(path.stem)
        await self.machine.slow.wait()
        if self.machine.failing.pop(path.stem, 0):
            error = EngineError("no_memory", "There is no memory.", "Buy some.")
            self._become(EngineStatus("failed", str(path), error=error.info))
            raise error
        assert options.n_ctx is not None
        loaded = Loaded(str(path), options.n_ctx, options.n_ctx, options.slots, 1, 0, self.pid, 1)
        self._become(EngineStatus("ready", str(path), loaded=loaded))
        return loaded

    def die(self) -> None:
        self._become(EngineStatus("failed", self.status.model, error=ErrorInfo("worker_died", "It died.")))

    async def close(self) -> None:
        self._become(EngineStatus())

    def _become(self, status: EngineStatus) -> None:
        self.status = status
        self.machine.pool.engine_changed()


class Machine:
    """Its memory, a pool and what became of it."""

    def __init__(self, folder: Path, memory: int) -> None:
        self.folder = folder
        self.memory = memory
        self.tasks = TaskGroup()
        self.pids = itertools.count(1)
        self.engines: list[Scripted] = []
        self.loads: list[str] = []
        self.failing: dict[str, int] = {}
        self.slow = asyncio.Event()
        self.slow.set()
        self.told = 0
        self.pool = Pool(self._make, self.tasks)
        self.pool.room_now, self.pool.resident = self.free, self._resident
        self.pool.on_change = self._changed

    def _changed(self) -> None:
        self.told += 1

    def _make(self) -> Engine:
        self.engines.append(Scripted(self))
        return cast(Engine, self.engines[-1])

    def _resident(self, pid: int) -> Resident:
        for engine in self.engines:
            if engine.pid == pid and engine.status.loaded is not None:
                return Resident(memory_estimate(self.model(Path(engine.status.model).stem).info, 1000, 1))
        return Resident()

    def free(self) -> int:
        return self.memory - sum(self._resident(engine.pid).whole for engine in self.engines)

    def model(self, name: str) -> ModelEntry:
        """One of as many MB as its name says: `a300`."""
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            path.write_bytes(name.encode())
        size = int(name[1:]) * MB
        info = ModelInfo(str(path), name, size, context_length=1000)
        return ModelEntry(name, name, str(path), size, info, stamp=stamp_of(mark_of(info)))

    @property
    def ready(self) -> set[str]:
        return {Path(path).stem for path in self.pool.ready}

    async def use(self, *names: str, settings: Settings = SETTINGS, guest: bool = False) -> None:
        """One after the other, for a moment each."""
        for name in names:
            async with asyncio.timeout(10), self.pool.held(self.model(name), settings, guest=guest) as engine:
                assert engine.status.state == "ready" and Path(engine.status.model).stem == name


@pytest_asyncio.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path, 1000 * MB)
    yield machine
    await machine.tasks.cancel_all()
    await machine.pool.close()


async def test_models_stay_loaded_as_long_as_there_is_memory(machine: Machine) -> None:
    await machine.use("a300", "b200", "a300")
    assert machine.loads == ["a300", "b200"] and machine.ready == {"a300", "b200"}
    assert len(machine.engines) == 2 and len(machine.pool.workers) == 2


async def test_the_least_recently_used_goes_first(machine: Machine) -> None:
    await machine.use("a200", "b200", "c200", "a200", "d200")
    assert machine.ready == {"a200", "c200", "d200"}
    await machine.use("e500")
    assert machine.ready == {"d200", "e500"}


async def test_what_only_guests_used_goes_last_for_the_person_and_first_for_guests(machine: Machine) -> None:
    await machine.use("g200", guest=True)
    await machine.use("a200", "b200")
    await machine.use("c200")
    assert machine.ready == {"g200", "b200", "c200"}
    await machine.use("h200", guest=True)
    assert machine.ready == {"h200", "b200", "c200"}


async def test_the_setting_bounds_how_many_there_are(machine: Machine) -> None:
    settings = msgspec.structs.replace(SETTINGS, models_loaded=2)
    await machine.use("a10", "b10", "c10", settings=settings)
    assert machine.ready == {"b10", "c10"}
    async with (
        machine.pool.held(machine.model("b10"), settings),
        machine.pool.held(machine.model("c10"), settings),
    ):
        with pytest.raises(NodeError, match="no more than 2") as raised:
            await machine.use("a10", settings=settings)
        assert raised.value.code == "busy"
        assert machine.pool.room(machine.model("a10"), settings) == "none"
        assert machine.pool.room(machine.model("b10"), settings) == "loaded"
    assert machine.pool.room(machine.model("a10"), settings) == "instead"
    assert machine.pool.room(machine.model("a10"), SETTINGS) == "beside"


async def test_the_memory_limit_is_for_all_together(machine: Machine) -> None:
    settings = msgspec.structs.replace(SETTINGS, memory_limit=700)
    await machine.use("a200", "b200", settings=settings)
    assert machine.ready == {"a200", "b200"}
    taken = memory_estimate(machine.model("a200").info, 1000, 1)
    assert [engine.options.memory_limit for engine in machine.engines] == [700 * MB, 700 * MB - taken]
    await machine.use("c300", settings=settings)
    assert machine.ready == {"b200", "c300"}


async def test_what_is_in_hand_is_never_unloaded(machine: Machine) -> None:
    async with machine.pool.held(machine.model("a600"), SETTINGS) as engine:
        with pytest.raises(NodeError, match="no memory") as raised:
            await machine.use("b600")
        assert raised.value.code == "busy" and raised.value.remedy
        assert machine.ready == {"a600"} and engine.status.state == "ready"
    await machine.use("b600")
    assert machine.ready == {"b600"}
    # Alone, the engine itself has to say what is missing.
    await machine.use("c2000")
    assert machine.ready == {"c2000"}


async def test_guests_are_asked_to_go_only_when_memory_needs_it(machine: Machine) -> None:
    async with AsyncExitStack() as guests:
        await guests.enter_async_context(machine.pool.held(machine.model("g500"), SETTINGS, guest=True))
        asked = 0

        async def away() -> None:
            nonlocal asked
            asked += 1
            await guests.aclose()

        machine.pool.send_guests_away = away
        await machine.use("a200")
        assert (asked, machine.ready) == (0, {"g500", "a200"})
        await machine.use("b600")
        assert (asked, machine.ready) == (1, {"b600"})
    async with machine.pool.held(machine.model("b600"), SETTINGS):
        with pytest.raises(NodeError, match="no memory"):
            await machine.use("g500", guest=True)
        with pytest.raises(NodeError, match="no memory"):
            await machine.use("c600")
        assert asked == 1, "nobody there could have gone"


async def test_a_load_without_memory_takes_that_of_idle_ones_and_tries_once_more(machine: Machine) -> None:
    machine.memory *= 2
    async with machine.pool.held(machine.model("b200"), SETTINGS):
        await machine.use("a200")
        machine.failing = {"c200": 1}
        await machine.use("c200")
        assert machine.ready == {"b200", "c200"} and machine.loads.count("c200") == 2
        machine.failing = {"d200": 1}
        async with machine.pool.held(machine.model("c200"), SETTINGS):
            with pytest.raises(EngineError, match="no memory"):
                await machine.use("d200")
    assert machine.ready == {"b200", "c200"}
    await machine.use("d200")
    assert machine.ready == {"b200", "c200", "d200"}


async def test_one_load_serves_all_who_wait_and_goes_on_without_who_gave_up(machine: Machine) -> None:
    machine.slow.clear()
    waiting = [asyncio.ensure_future(machine.use("a200")) for _ in range(3)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    other = asyncio.ensure_future(machine.use("b200"))
    await until(lambda: machine.loads == ["a200", "b200"])
    machine.slow.set()
    await asyncio.gather(*waiting[1:], other)
    assert waiting[0].cancelled() and machine.loads == ["a200", "b200"]


async def test_the_status_is_that_of_the_model_the_person_wanted_last(machine: Machine) -> None:
    assert machine.pool.status == EngineStatus()
    await machine.use("g100", guest=True)
    assert Path(machine.pool.status.model).stem == "g100", "there is no other"
    await machine.use("a100")
    await machine.use("g100", guest=True)
    assert Path(machine.pool.status.model).stem == "a100"
    told = machine.told
    await machine.use("g100")
    assert Path(machine.pool.status.model).stem == "g100" and machine.told == told + 1
    assert machine.pool.status_of(machine.model("a100")).state == "ready"
    assert machine.pool.status_of(machine.model("b100")).state == "off"


async def test_an_engine_that_failed_makes_place_before_all_others(machine: Machine) -> None:
    await machine.use("a200", "b200")
    machine.engines[1].die()
    settings = msgspec.structs.replace(SETTINGS, models_loaded=2)
    await machine.use("c200", settings=settings)
    assert machine.ready == {"a200", "c200"}
    machine.engines[0].die()
    await machine.use("a200")
    assert machine.loads == ["a200", "b200", "c200", "a200"]


async def test_other_options_come_into_force_when_nobody_else_has_the_model(machine: Machine) -> None:
    other = msgspec.structs.replace(SETTINGS, context=500)
    async with machine.pool.held(machine.model("a100"), SETTINGS):
        await machine.use("a100", settings=other)
        await machine.use("a100", settings=other, guest=True)
        assert machine.loads == ["a100"]
    await machine.use("a100", settings=other)
    await machine.use("a100", settings=SETTINGS, guest=True)
    assert machine.loads == ["a100", "a100"] and machine.pool.status.loaded is not None
    assert machine.pool.status.loaded.n_ctx == 500


async def test_what_is_unloaded_goes_at_once_or_with_its_last_answer(machine: Machine) -> None:
    await machine.use("a100", "b100")
    await machine.pool.unload(machine.model("b100"))
    await machine.pool.unload(machine.model("c100"))
    assert machine.ready == {"a100"} and Path(machine.pool.status.model).stem == "a100"
    async with machine.pool.held(machine.model("a100"), SETTINGS) as engine:
        await machine.pool.unload(machine.model("a100"))
        assert machine.ready == set() and engine.status.state == "ready" and machine.pool.workers
        assert machine.pool.status == EngineStatus()
    await until(lambda: engine.status.state == "off")
    assert machine.pool.workers == ()


async def test_a_closed_pool_loads_nothing(machine: Machine) -> None:
    await machine.use("a100")
    await machine.pool.close()
    assert machine.ready == set()
    with pytest.raises(NodeError, match="not open"):
        await machine.use("a100")


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_memory_and_what_is_in_hand_are_respected(machine: Machine, seed: int) -> None:
    rng = random.Random(seed)
    settings = msgspec.structs.replace(SETTINGS, models_loaded=rng.choice((None, 2, 3)))
    names = [
        f"{letter}{size}" for letter, size in zip("abcdefg", (50, 100, 150, 200, 300, 400, 600), strict=True)
    ]
    held: list[tuple[str, AsyncExitStack, Engine]] = []
    async with asyncio.timeout(30):
        for _ in range(60):
            if held and rng.random() < 0.4:
                await held.pop(rng.randrange(len(held)))[1].aclose()
            else:
                stack, name = AsyncExitStack(), rng.choice(names)
                guest = rng.random() < 0.5
                try:
                    engine = await stack.enter_async_context(
                        machine.pool.held(machine.model(name), settings, guest=guest)
                    )
                except NodeError as error:
                    assert error.code == "busy" and held
                else:
                    held.append((name, stack, engine))
            for name, _, engine in held:
                assert engine.status.state == "ready" and Path(engine.status.model).stem == name
            assert machine.free() >= 0
            assert len(machine.pool.states) <= (settings.models_loaded or len(names))
    for _, stack, _ in held:
        await stack.aclose()


def test_a_model_fits_with_contexts_that_nobody_complains_of_or_just_so() -> None:
    info = ModelInfo("x", "x", 1000 * MB, cache_width=(1000,) * 10, context_length=8192)
    fixed, token = memory_estimate(info, 0, 0), 20_000
    options = LoadOptions(slots=4)
    well, just = fixed + 2 * 2 * 4096 * token, fixed + 2 * 512 * token
    assert fits(info, options, well, None, well=True) and not fits(info, options, well - 1, None, well=True)
    assert fits(info, options, just, None, well=False) and not fits(info, options, just - 1, None, well=False)
    limit = fixed + 512 * token
    assert fits(info, options, well, limit, well=False)
    assert not fits(info, options, well, limit - 1, well=False)
    assert most(info, options, 10**12) == fixed + 4 * 8192 * token
    assert most(info, options, fixed + 100 * MB) == fixed + 50 * MB
    asked = LoadOptions(slots=1, n_ctx=1024)
    assert most(info, asked, 10**12) == fixed + 1024 * token
