"""Context and slots by memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine import opening, sizing
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.llama import Model
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.models import memory_estimate, read_metadata
from infraxa.engine.sizing import BusyCores, Size, check_limit, choose_size, next_smaller
from infraxa.engine.types import EngineError, Loaded, LoadOptions

KIB = 1024


def choose(n_ctx: int | None = None, slots: int = 8, trained: int = 32768, free: int = 0) -> Size:
    return choose_size(
        n_ctx=n_ctx, slots=slots, n_ctx_train=trained, kv_bytes_per_token=100 * KIB, free_bytes=free
    )


def tokens(n: int) -> int:
    """Free bytes whose half holds the caches of so many tokens."""
    return 2 * n * 100 * KIB


def test_what_the_model_was_trained_for_when_there_is_room() -> None:
    assert choose(free=tokens(8 * 32768)) == Size(32768, 8)


def test_less_context_for_each_before_slots_are_given_up() -> None:
    assert choose(free=tokens(8 * 5000)) == Size(4864, 8)


def test_fewer_slots_before_less_than_4096_tokens() -> None:
    assert choose(free=tokens(3 * 4096 + 100)) == Size(4096, 3)
    assert choose(free=tokens(2000)) == Size(1792, 1)


def test_an_explicit_context_is_kept_and_slots_give_way() -> None:
    assert choose(n_ctx=20000, free=tokens(50000)) == Size(20000, 2)
    assert choose(n_ctx=99999, free=tokens(10**6)) == Size(32768, 8)


def test_a_small_model_gets_its_whole_context() -> None:
    assert choose(trained=300, slots=2, free=tokens(600)) == Size(300, 2)


@pytest.mark.parametrize(("n_ctx", "free"), [(None, tokens(500)), (8192, tokens(8000)), (None, -5)])
def test_no_room_is_one_clear_error(n_ctx: int | None, free: int) -> None:
    with pytest.raises(EngineError, match=r"context needs .* [GM]B besides") as caught:
        choose(n_ctx=n_ctx, free=free)
    assert caught.value.code == "no_memory"
    assert caught.value.remedy


@given(
    st.one_of(st.none(), st.integers(1, 200_000)),
    st.integers(1, 64),
    st.integers(0, 200_000),
    st.integers(1, 10**6),
    st.integers(-(10**9), 10**12),
)
def test_the_caches_always_fit_in_half_of_what_is_free(
    n_ctx: int | None, slots: int, trained: int, per_token: int, free: int
) -> None:
    try:
        size = choose_size(
            n_ctx=n_ctx, slots=slots, n_ctx_train=trained, kv_bytes_per_token=per_token, free_bytes=free
        )
    except EngineError:
        return
    assert size.n_ctx * size.slots * per_token <= free / 2
    assert 1 <= size.slots <= slots
    assert 0 < size.n_ctx <= (trained or 4096)


@given(
    st.one_of(st.none(), st.integers(1, 200_000)),
    st.integers(1, 64),
    st.integers(0, 200_000),
    st.integers(1, 10**6),
    st.integers(0, 10**12),
    st.integers(-(10**9), 10**12),
)
def test_the_caches_always_fit_in_what_a_limit_leaves(
    n_ctx: int | None, slots: int, trained: int, per_token: int, free: int, limit: int
) -> None:
    def choose(limit: int | None) -> Size | None:
        try:
            return choose_size(
                n_ctx=n_ctx,
                slots=slots,
                n_ctx_train=trained,
                kv_bytes_per_token=per_token,
                free_bytes=free,
                limit_bytes=limit,
            )
        except EngineError as error:
            assert error.code == "no_memory"
            assert ("memory limit" in error.remedy) == (limit is not None and limit < free // 2)
            return None

    limited, unlimited = choose(limit), choose(None)
    if limit >= free // 2:
        assert limited == unlimited
    elif limited is not None:
        assert limited.n_ctx * limited.slots * per_token <= limit


def test_a_limit_that_the_weights_alone_exceed_says_what_is_needed() -> None:
    assert check_limit(3_000_000_000, 2_000_000_000) == 1_000_000_000
    with pytest.raises(
        EngineError, match=r"needs 2\.0 GB and its context; the memory limit is 800 MB"
    ) as caught:
        check_limit(800_000_000, 2_000_000_000)
    assert caught.value.code == "no_memory" and "memory limit" in caught.value.remedy


async def test_a_model_keeps_to_its_memory_limit(open_engine: Callable[..., Engine]) -> None:
    info = read_metadata(GUIDE_PATH)
    fixed, slot = memory_estimate(info, 0, 0), memory_estimate(info, 1024, 1) - memory_estimate(info, 0, 1)
    engine = open_engine()

    async def load(limit: int | None) -> Loaded:
        return await engine.load(GUIDE_PATH, LoadOptions(slots=4, threads=1, n_ctx=1024, memory_limit=limit))

    loaded = await load(None)
    assert (loaded.n_ctx, loaded.slots) == (1024, 4)
    loaded = await load(fixed + 2 * slot + slot // 2)
    assert (loaded.n_ctx, loaded.slots) == (1024, 2)
    assert memory_estimate(info, loaded.n_ctx, loaded.slots) <= fixed + 2 * slot + slot // 2
    for limit in (fixed, fixed + slot // 2):
        with pytest.raises(EngineError, match="memory limit") as caught:
            await load(limit)
        assert caught.value.code == "no_memory"


def test_shrinking_ends() -> None:
    size: Size | None = Size(131072, 8)
    seen = []
    while size is not None:
        seen.append(size)
        size = next_smaller(size)
    assert seen[-1] == Size(512, 1)
    assert len(seen) < 20


def test_at_least_one_core_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = 0.0
    monkeypatch.setattr(BusyCores, "measure", lambda self: busy)
    # What was done in the last minute says nothing of now.
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(sizing, "_cgroup_cores", lambda: None)
    assert sizing.free_cores() == 8
    busy = 40.2
    assert sizing.free_cores() == 8, "others are busy elsewhere"
    busy = 59.0
    assert sizing.free_cores() == 5
    busy = 64.0
    assert sizing.free_cores() == 1
    monkeypatch.setattr(sizing, "_cgroup_cores", lambda: 1.5)
    busy = 0.0
    assert sizing.free_cores() == 1


def test_what_others_do_is_counted_and_what_this_process_does_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy_while(work: Callable[[], None]) -> float:
        cores = BusyCores()
        work()
        return cores.measure()

    monkeypatch.setattr(sizing, "MEASURE_SECONDS", 0.0)
    others, own = [], []
    code = "while True: pass"
    for _ in range(5):
        own.append(busy_while(lambda: spin(0.4)))
        with subprocess.Popen([sys.executable, "-c", code]) as other:
            others.append(busy_while(lambda: time.sleep(0.4)))
            other.kill()
    assert min(others) > min(own), "a busy machine hides it at most sometimes"


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(("system", "taken"), [("linux", False), ("win32", False), ("darwin", True)])
def test_weights_on_a_macs_gpu_take_main_memory(
    monkeypatch: pytest.MonkeyPatch, system: str, taken: bool
) -> None:
    monkeypatch.setattr(sys, "platform", system)

    class Layers:
        n_layer = 4

    def on_gpu(layers: int) -> float:
        return opening._Weights(cast(Model, Layers()), layers, None).on_gpu

    assert [on_gpu(layers) for layers in (0, 1, 3, 5)] == ([0, 0, 0, 0] if taken else [0, 0, 0.5, 1])


def test_a_device_with_less_room_than_thought_gets_a_smaller_context(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Size] = []
    closed: list[Size] = []

    class Small:
        def warm_up(self) -> None:
            assert tried

        def close(self) -> None:
            closed.append(tried[-1])

    def open_small(model: object, *, n_ctx: int, slots: int, **others: object) -> Small:
        tried.append(Size(n_ctx, slots))
        if n_ctx * slots > 4096:
            raise EngineError("no_memory", "No room.")
        return Small()

    monkeypatch.setattr(opening, "Context", open_small)
    model: Any = None
    opened: Any = opening.open_context(model, Size(8192, 4), 1, LoadOptions(), LoadLog())
    assert opened[1] == Size(4096, 1)
    assert tried == [Size(8192, 4), Size(4096, 4), Size(4096, 2), Size(4096, 1)]
    assert not closed

    # A context that somebody asked for is kept, or refused with what there is.
    asked = LoadOptions(n_ctx=8192)
    assert opening.open_context(model, Size(4096, 4), 1, asked, LoadLog())[1] == Size(4096, 1)
    with pytest.raises(EngineError, match="8192 tokens; one of 4096 fits") as caught:
        opening.open_context(model, Size(8192, 4), 1, asked, LoadLog())
    assert caught.value.code == "no_memory"
    assert closed == [Size(4096, 1)]
