"""Provider mode: on, off and everything between, with the real engine where that can be had."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest
import pytest_asyncio

from infraxa.app.calm import Calm
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.events import LogLine, ProviderChanged, ServedChanged
from infraxa.app.models import Models
from infraxa.app.provider import Limits, Provider
from infraxa.app.serving import ProviderStatus
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.types import EngineError, ErrorInfo, Loaded, LoadOptions
from infraxa.net import market
from infraxa.net.market import Rates
from infraxa.net.orders import Claimed, Done, Piece
from infraxa.net.purchase import OrderFailed
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import Store
from tests.app.selling import SETTINGS, Scripted, Shop, scripted, selling, text_of
from tests.app.tills import facts_of, payer, whole
from tests.net.nodes import until

LONG: Any = {"temperature": 5_000_000, "top_k": 0, "top_p": 1_000_000, "min_p": 0, "seed": 1}
"""So hot that the end of the turn hardly ever comes."""


def engine_of(shop: Shop) -> Scripted:
    return cast(Scripted, shop.engine)


class Machine(NamedTuple):
    """What one real engine needs around it."""

    engine: Engine
    models: Models
    store: Store
    providers: list[Provider]
    log: list[str]
    """Of the engine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    tasks, providers, log = TaskGroup(), list[Provider](), list[str]()

    def changed() -> None:
        for provider in providers:
            provider.engine_changed()

    engine = Engine(on_status=lambda status: models.engine_changed(), on_log=log.append)
    models = Models(lambda: engine, tasks)
    models.on_change = changed
    store = await Store.open(tmp_path_factory.mktemp("machine"))
    models.open(store)
    yield Machine(engine, models, store, providers, log)
    await tasks.cancel_all()
    await engine.close()
    await store.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(machine: Machine) -> AsyncIterator[Shop]:
    limits = Limits(look=0.1, guests=1.0, drain=20.0)
    async with selling(machine.engine, machine.models, machine.store, limits=limits) as shop:
        machine.providers.append(shop.provider)
        try:
            await shop.open()
            yield shop
        finally:
            machine.providers.clear()


in_module = pytest.mark.asyncio(loop_scope="module")


@in_module
async def test_another_node_is_answered_as_this_one_would_be(shop: Shop, machine: Machine) -> None:
    (offer,) = shop.offers
    assert offer is not None
    (model,) = offer.models
    entry = await machine.models.entry("guide")
    assert model.model_id == hashlib.sha256(GUIDE_PATH.read_bytes()).digest()
    assert (model.name, model.arch) == ("guide", entry.info.architecture)
    loaded = cast(Loaded, machine.engine.status.loaded)
    assert model.context == model.max_out == loaded.n_ctx and model.price_in == model.price_out == 0
    assert offer.slots == 2, "one slot is the person's own"
    status = shop.provider.status
    assert (status.mode, status.model, status.context) == ("serving", "guide", loaded.n_ctx)
    items = await (await shop.user()).bought("What is 2+2?")
    assert "4" in text_of(items)
    done = items[-1]
    assert isinstance(done, Done) and done.finish == "stop" and done.n_prompt > 5 and done.first_token_ms > 0
    assert Claimed(loaded.n_ctx, loaded.n_ctx) in items
    await shop.free()
    assert (await shop.state("done")).tokens_per_second
    assert shop.provider.status.first_token_ms > 0


@in_module
async def test_a_prompt_over_the_context_is_too_large(shop: Shop, machine: Machine) -> None:
    failed = await (await shop.user()).refused("many words " * 30_000)
    assert (failed.code, failed.limit) == ("too_large", cast(Loaded, machine.engine.status.loaded).n_ctx)
    await shop.free()
    assert shop.provider.status.refused == {"too_large": 1}


@in_module
async def test_no_more_tokens_than_were_asked_for(shop: Shop) -> None:
    items = await (await shop.user()).bought(max_tokens=3, **LONG)
    done = items[-1]
    assert isinstance(done, Done) and (done.finish, done.n_out) == ("length", 3)


@in_module
async def test_what_is_charged_is_what_came_and_never_more_than_the_hold(shop: Shop) -> None:
    await shop.use(base_price=0.2)
    await until(lambda: any(offer and offer.models[0].price_out for offer in shop.offers))
    user = await payer(shop)
    order = await user.order()
    items = await user.user.bought(**order)
    done = items[-1]
    assert "4" in text_of(items) and isinstance(done, Done)
    receipt = facts_of(await user.receipt(order["id"]))
    assert (receipt.n_prompt, receipt.n_cached, receipt.n_out) == (done.n_prompt, done.n_cached, done.n_out)
    rates = Rates(receipt.price_in, receipt.price_out, receipt.price_cached)
    assert receipt.charge == market.charge(done.n_prompt, done.n_cached, done.n_out, rates, 1000) > 0
    await user.pay(order["id"])
    hold = market.hold(done.n_prompt, 2, rates)
    small = await user.order(hold=hold)
    done = (await user.user.bought(**small, **LONG))[-1]
    assert isinstance(done, Done) and done.finish == "length" and 2 <= done.n_out < 20
    assert facts_of(await user.receipt(small["id"])).charge <= hold
    await user.pay(small["id"])
    tiny = await user.user.refused(**await user.order(hold=1), text="many words " * 40)
    assert tiny.code == "bad_request"
    await whole(shop)


@in_module
async def test_the_process_dies_in_mid_answer(shop: Shop, machine: Machine) -> None:
    user = await shop.user()
    for _ in range(10):  # the answer may be over before the process is
        answer = asyncio.ensure_future(asyncio.wait_for(user.refused(**LONG), 30))
        await shop.state("answering")
        os.kill(cast(Loaded, machine.engine.status.loaded).pid, signal.SIGKILL)
        await asyncio.wait([answer])
        await until(lambda: shop.provider.status.mode == "paused")
        await shop.mode("serving")
        if not isinstance(answer.exception(), AssertionError):
            break
    failed = await answer
    assert (failed.code, failed.shown) == ("internal", True)
    assert any(load.status == "busy" for load in shop.loads[1:])
    assert shop.provider.status.failed == 1
    await shop.free()
    assert "4" in text_of(await user.bought())


@in_module
async def test_the_process_dies_before_anything_was_said(shop: Shop, machine: Machine) -> None:
    pid = cast(Loaded, machine.engine.status.loaded).pid
    os.kill(pid, signal.SIGSTOP)
    answer = asyncio.ensure_future((await shop.user()).bought())
    await shop.state("reading")
    os.kill(pid, signal.SIGKILL)
    assert "4" in text_of(await answer), "the engine was asked again"
    await shop.mode("serving")
    await shop.free()


@in_module
async def test_the_person_comes_first(shop: Shop, machine: Machine, tmp_path: Path) -> None:
    """Another model of the person's takes the place of the one that is served; afterwards it comes back."""
    path = tmp_path / "other.gguf"
    shutil.copyfile(GUIDE_PATH, path)
    other = await machine.models.entry(str(path))
    user = await shop.user()
    async with asyncio.timeout(30), machine.models.held(other, SETTINGS):
        await shop.mode("paused")
        assert shop.loads[-1].status == "busy"
        refused = await user.refused()
        assert (refused.code, refused.sent) == ("busy", False) and refused.retry_after_ms > 1000
        assert machine.engine.status.model == str(path)
    await until(lambda: "a moment ago" in shop.provider.status.reason)
    assert (await user.refused()).code == "busy"
    shop.provider._displaced_until = 0.0
    await shop.mode("serving")
    assert "4" in text_of(await user.bought())


@in_module
async def test_a_user_who_does_not_read_holds_back_nobody(shop: Shop) -> None:
    slow, quick = await shop.user(), await shop.user()
    async with slow.buy(**LONG) as purchase:
        async for item in purchase:
            if not isinstance(item, Claimed):
                break  # reads nothing more
        for _ in range(3):
            assert "4" in text_of(await quick.bought())
    await shop.free()


@in_module
async def test_what_is_said_is_in_no_event_log_or_status(
    shop: Shop, machine: Machine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the real engine and its process, too: answered, too long, and given up in the middle."""
    caplog.set_level(0)
    user = await shop.user()
    question = "What is 41+17?"
    answer = text_of(await user.bought(question))
    assert "41 + 17" in answer, "the guide says the sum that it was asked again"
    assert (await user.refused(f"{question} " * 20_000)).code == "too_large"
    async with user.buy(question, **LONG) as purchase:
        async for item in purchase:
            if isinstance(item, Piece):
                break
    await shop.free()
    await shop.provider.stop(now=True)
    assert {type(event) for event in shop.events} == {LogLine, ProviderChanged, ServedChanged}
    told = [event for event in shop.events if isinstance(event, LogLine | ProviderChanged)]
    packed = msgspec.json.encode((told, shop.provider.status, shop.provider.served(), shop.offers)).decode()
    everything = "\n".join((packed, caplog.text, *machine.log, *capfd.readouterr()))
    assert "Request" in everything and "llama" in everything
    for words in ("41+17", "41 + 17", "What is", answer):
        assert words not in everything


async def test_off_until_it_is_turned_on(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        assert shop.provider.status == ProviderStatus()
        user = await shop.user()
        assert (await user.refused(model=bytes(32))).code == "leaving"
        await shop.use(provide=False)
        assert shop.offers == [] and engine_of(shop).loads == []
        await shop.use()
        assert shop.provider.status.mode == "starting" and shop.provider.status.wait is not None
        await shop.mode("serving")
        assert shop.provider.status.since_ms == shop.at_ms
        await shop.use(provide=False)
        await shop.mode("off")
        assert shop.offers[-1] is None
        assert [load.status for load in shop.loads] == ["busy", "online"], "then it is no provider"
        told = [line for line in shop.log if line.startswith("Provider mode")]
        assert told == [
            "Provider mode is starting.",
            "Provider mode is on.",
            "Provider mode goes off.",
            "Provider mode is off.",
        ]


@pytest.mark.parametrize(
    ("capacity", "slots", "expected"), [(None, 8, 7), (None, 1, 1), (9, 4, 4), (2, 4, 2)]
)
async def test_capacity(tmp_path: Path, capacity: int | None, slots: int, expected: int) -> None:
    async with scripted(tmp_path, slots=slots) as shop:
        await shop.open(capacity=capacity)
        await until(lambda: shop.offers)
        offer = shop.offers[-1]
        assert offer is not None and offer.slots == expected == shop.provider.status.capacity
        assert shop.provider.status.room == 2 * expected


async def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    async with scripted(tmp_path, limits=Limits(look=0.05, retry=0.2)) as shop:
        engine_of(shop).error = EngineError("no_memory", "There is no memory.", "Buy some.")
        await shop.use()
        await shop.mode("failed")
        status = shop.provider.status
        assert (status.reason, status.remedy) == ("There is no memory.", "Buy some.")
        assert status.model == "guide"
        assert shop.offers == []
        await shop.mode("serving")
        assert len(engine_of(shop).loads) == 2, "it was tried again"


async def test_an_engine_that_gave_up_and_comes_back(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        user = await shop.user()
        answer = asyncio.ensure_future(user.refused())
        (generation,) = await engine_of(shop).asked(1)
        waiting = asyncio.ensure_future((await shop.user()).refused())
        await until(lambda: shop.provider.status.waiting == 1)
        loaded, error = engine_of(shop).status.loaded, ErrorInfo("worker_died", "It died.", "Choose another.")
        engine_of(shop).become("failed", error=error)
        generation.finish(error)
        assert (await answer).code == "internal"
        assert (await waiting).code == "model_gone"
        await shop.mode("failed")
        assert (shop.provider.status.reason, shop.provider.status.remedy) == ("It died.", "Choose another.")
        assert shop.offers[-1] is None
        engine_of(shop).become("ready", loaded=loaded)
        await shop.mode("serving")
        assert shop.offers[-1] is not None


async def test_while_the_engine_restarts_those_that_wait_go_on_waiting(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        first = asyncio.ensure_future((await shop.user()).bought())
        await engine_of(shop).asked(1)
        second = asyncio.ensure_future((await shop.user()).bought())
        await until(lambda: shop.provider.status.waiting == 1)
        loaded = engine_of(shop).status.loaded
        engine_of(shop).become("restarting", error=ErrorInfo("worker_died", "It died."))
        await shop.mode("paused")
        assert (await (await shop.user()).refused()).code == "busy"
        assert shop.provider.status.waiting == 1
        engine_of(shop).become("ready", loaded=loaded)
        await shop.mode("serving")
        for number, task in enumerate((first, second), start=1):
            generation = (await engine_of(shop).asked(number))[-1]
            generation.say("x")
            generation.finish()
            assert text_of(await task) == "x"


@pytest.mark.parametrize("model", ["nobody knows it", "a path"])
async def test_only_models_that_were_added_are_served(tmp_path: Path, model: str) -> None:
    if model == "a path":
        model = str(GUIDE_PATH)
    async with scripted(tmp_path) as shop:
        await shop.use(provide_model=model)
        await shop.mode("failed")
        assert shop.provider.status.reason and shop.provider.status.remedy
        await shop.open()


async def other_model(shop: Shop, folder: Path) -> ModelEntry:
    """A model that was added, of which the last number is another one."""
    data = bytearray(GUIDE_PATH.read_bytes())
    data[-1] ^= 1
    path = folder / "other.gguf"
    path.write_bytes(data)
    return await shop.models.add(path, "other", None)


async def test_another_model_is_served_when_those_that_run_have_ended(tmp_path: Path) -> None:
    async with scripted(tmp_path / "data") as shop:
        await shop.open(capacity=1)
        before = shop.model_id
        other = await other_model(shop, tmp_path)
        user = await shop.user()
        running = asyncio.ensure_future(user.bought())
        (generation,) = await engine_of(shop).asked(1)
        waiting = asyncio.ensure_future((await shop.user()).refused())
        await until(lambda: shop.provider.status.waiting == 1)
        await shop.use(provide_model="other")
        assert (await waiting).code == "model_gone"
        assert (await user.refused(model=before)).code == "model_gone"
        generation.say("to the end")
        generation.finish()
        assert text_of(await running) == "to the end"
        await shop.mode("serving")
        assert shop.model_id.hex() == other.sha256
        assert engine_of(shop).loads == [GUIDE_PATH, Path(other.path)]
        assert shop.provider.status.model == "other"
        assert (await user.refused(model=before)).code == "model_gone"
        await shop.models.remove("other")
        await shop.use(provide_model="other")
        await shop.mode("failed")
        assert shop.offers[-1] is None


async def test_who_is_answered_for_too_long_by_the_model_before_is_ended(tmp_path: Path) -> None:
    async with scripted(tmp_path / "data", limits=Limits(look=0.05, drain=0.3)) as shop:
        await shop.open()
        other = await other_model(shop, tmp_path)
        running = asyncio.ensure_future((await shop.user()).refused())
        (generation,) = await engine_of(shop).asked(1)
        generation.say("half")
        await shop.state("answering")
        await shop.use(provide_model="other")
        failed = await running
        assert (failed.code, failed.shown) == ("model_gone", True)
        assert generation.cancelled
        await shop.mode("serving")
        assert shop.model_id.hex() == other.sha256


@pytest.mark.parametrize("patient", [True, False])
async def test_guests_go_when_the_person_wants_another_model(tmp_path: Path, patient: bool) -> None:
    limits = Limits(look=0.05, guests=30.0 if patient else 0.1)
    async with scripted(tmp_path / "data", limits=limits) as shop:
        await shop.open(capacity=1)
        other = await other_model(shop, tmp_path)
        user = await shop.user()
        running = asyncio.ensure_future(user.bought())
        (generation,) = await engine_of(shop).asked(1)
        generation.say("half")
        waiting = asyncio.ensure_future((await shop.user()).refused())
        await until(lambda: shop.provider.status.waiting == 1)

        async def want() -> None:
            async with shop.models.held(other, SETTINGS):
                assert engine_of(shop).status.model == other.path

        with pytest.raises(NodeError, match="Another model"):
            async with shop.models.held(other, SETTINGS, guest=True):
                pass
        wanted = asyncio.ensure_future(want())
        assert (await waiting).code == "busy"
        assert (await user.refused()).code == "busy"
        if patient:
            for _ in range(6):  # it looks at itself, and stays so
                await asyncio.sleep(0.05)
                assert shop.provider.status.mode == "paused"
            assert not wanted.done()
            generation.finish()
            assert text_of(await running) == "half"
        else:
            with pytest.raises(OrderFailed, match="leaving"):
                await running
            assert generation.cancelled
        await wanted
        assert shop.provider.status.mode == "paused"


async def test_a_model_that_is_being_loaded_for_guests_keeps_nobody_from_another(tmp_path: Path) -> None:
    async with scripted(tmp_path / "data", limits=Limits(look=0.05, idle=0.2)) as shop:
        engine, other = engine_of(shop), await other_model(shop, tmp_path)
        load = engine.load
        overtaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def slowly(path: Path, options: LoadOptions | None = None) -> Loaded:
            if not overtaken.done():
                if path != GUIDE_PATH:
                    overtaken.set_result(None)
                else:
                    engine.become("loading", path)
                    await overtaken
                    raise EngineError("closed", "Another model was loaded before this was complete.")
            return await load(path, options)

        engine.load = slowly  # type: ignore[method-assign] # as a large model is
        await shop.use()
        await until(lambda: engine.status.state == "loading")
        async with asyncio.timeout(10), shop.models.held(other, SETTINGS):
            assert engine.status.model == other.path
            await shop.mode("paused")
        await shop.mode("serving")
        assert not [text for text in shop.log if "failed" in text]


async def test_guests_stay_when_there_is_memory_for_the_persons_other_model(tmp_path: Path) -> None:
    async with scripted(tmp_path / "data") as shop:
        await shop.open()
        other = await other_model(shop, tmp_path)
        running = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        beside = Scripted()
        beside.on_status = engine_of(shop).on_status
        shop.models._make = lambda: cast(Engine, beside)
        async with shop.models.held(other, msgspec.structs.replace(SETTINGS, models_loaded=2)) as engine:
            assert cast(Scripted, engine) is beside and beside.status.model == other.path
            assert shop.models.room(other, SETTINGS) == "loaded"
            for _ in range(6):  # it looks at itself, and stays so
                await asyncio.sleep(0.05)
                assert shop.provider.status.mode == "serving"
            generation.finish()
            await running
            second = asyncio.ensure_future((await shop.user()).bought())
            (await engine_of(shop).asked(2))[1].finish()
            await second
        assert engine_of(shop).loads == [GUIDE_PATH] and not beside.generations


async def test_a_file_that_changed_is_served_to_nobody_until_it_is_added_again(tmp_path: Path) -> None:
    async with scripted(tmp_path / "data") as shop:
        other = await other_model(shop, tmp_path)
        await shop.open(provide_model="other")
        before, user = shop.model_id, await shop.user()
        data = bytearray(GUIDE_PATH.read_bytes())
        data[-1] ^= 2
        _overwrite(Path(other.path), data)
        assert (await user.refused(model=before)).code == "model_gone", "before it was looked at again"
        shop.provider._chosen_until = 0.0
        await shop.mode("failed")
        assert "has changed" in shop.provider.status.reason and shop.offers[-1] is None
        await shop.models.remove("other")
        added = await shop.models.add(Path(other.path), "other", None)
        shop.provider._chosen_until = 0.0
        await shop.mode("serving")
        assert shop.model_id.hex() == added.sha256 != before.hex()
        answer = asyncio.ensure_future(user.bought())
        (await engine_of(shop).asked(1))[0].finish()
        await answer
        assert engine_of(shop).loads == [Path(other.path)] * 2, "the new file"


def _overwrite(path: Path, data: bytes | bytearray) -> None:
    path.write_bytes(data)


async def test_guests_take_the_model_as_it_is(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        entry = await shop.models.entry("guide")
        async with shop.models.held(entry, msgspec.structs.replace(SETTINGS, threads=2)):
            pass
        await shop.mode("serving")
        loads = len(engine_of(shop).loads)
        assert loads == 2
        answer = asyncio.ensure_future((await shop.user()).bought())
        (await engine_of(shop).asked(1))[0].finish()
        await answer
        assert len(engine_of(shop).loads) == loads


async def test_hours(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        running = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        waiting = asyncio.ensure_future((await shop.user()).refused())
        await until(lambda: shop.provider.status.waiting == 1)
        now = datetime.fromtimestamp(shop.at_ms / 1000)
        hours = f"{now + timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
        await shop.use(capacity=1, provide_hours=hours)
        await shop.mode("paused")
        assert hours in shop.provider.status.reason
        assert shop.loads[-1].status == "busy"
        failed = await waiting
        assert failed.code == "busy" and 0 < failed.retry_after_ms <= 3600_000
        assert (await (await shop.user()).refused()).code == "busy"
        generation.finish()
        await running
        shop.at_ms += 3600_000
        await shop.mode("serving")
        shop.at_ms += 3600_000
        await shop.mode("paused")


async def test_battery(tmp_path: Path) -> None:
    plugged = True
    async with scripted(tmp_path) as shop:
        shop.provider._on_battery = lambda: not plugged
        await shop.open(pause_on_battery=True)
        plugged = False
        await shop.mode("paused")
        assert "battery" in shop.provider.status.reason
        await shop.open(pause_on_battery=False)
        await shop.use(pause_on_battery=True)
        await shop.mode("paused")
        plugged = True
        await shop.mode("serving")


async def test_blocked_users_are_remembered(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user = await shop.user()
        await shop.provider.block(user.key, True)
    async with scripted(tmp_path) as shop:
        await shop.open()
        (blocked,) = await shop.provider.blocked()
        assert blocked.user == user.key
        assert user.key in shop.provider._sales.blocked
        await shop.provider.block(user.key, False)
        assert await shop.provider.blocked() == []
        assert user.key not in shop.provider._sales.blocked


async def test_what_is_told_is_calm_and_the_last_is_told(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        task = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        shop.events.clear()
        began = asyncio.get_running_loop().time()
        for _ in range(300):
            generation.say("x")
            await asyncio.sleep(0.002)
        generation.finish()
        await task
        await until(lambda: shop.told.status.answered == 1)
        seconds = asyncio.get_running_loop().time() - began
        told = [event for event in shop.events if isinstance(event, ProviderChanged)]
        assert 1 < len(told) <= 4 * seconds + 2
        assert shop.told.status.tokens == 300 and shop.told.status.running == 0
        await until(lambda: shop.offers[-1] is not None and shop.offers[-1].models[0].speed)


async def test_changes_are_told_at_once_then_in_calm_and_the_last_always() -> None:
    told, value = [], 1
    calm = Calm(lambda: told.append(value), 0.1)
    calm.changed()
    assert told == [1]
    while value < 8:
        value += 1
        calm.changed()
    assert told == [1]
    await until(lambda: told == [1, 8])
    await asyncio.sleep(0.25)
    assert told == [1, 8], "nothing changed"
    calm.changed()
    value = 9
    calm.changed()
    calm.stop()
    assert told == [1, 8, 8, 9]
    calm.changed()
    assert told == [1, 8, 8, 9]


async def test_load_is_told_when_it_is_news(tmp_path: Path) -> None:
    async with scripted(tmp_path, slots=5) as shop:
        await shop.open()
        task = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        assert (shop.loads[-1].status, shop.loads[-1].util) == ("online", 255 // 4)
        count = len(shop.loads)
        for _ in range(20):
            generation.say("x")
        await until(lambda: shop.provider.status.tokens == 20)
        assert len(shop.loads) == count
        generation.finish()
        await task
        await until(lambda: shop.loads[-1].util == 0)
        assert shop.loads[-1].first_token_ms == 10


async def test_closed_in_the_middle_of_everything(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        users = [await shop.user() for _ in range(3)]
        tasks = [asyncio.ensure_future(user.refused()) for user in users]
        await until(lambda: shop.provider.status.waiting == 2)
        await shop.provider.close()
        failures: list[OrderFailed] = await asyncio.gather(*tasks)
        assert {failed.code for failed in failures} == {"leaving"}
        assert shop.provider.status.mode == "off"
