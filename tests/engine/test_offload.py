"""How many layers fit onto GPUs. There is none here: what is computed of given numbers, and that without one
all stays in main memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine import llama
from infraxa.engine.gguf_header import Tensor, read_header
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.models import memory_estimate, read_metadata
from infraxa.engine.offload import (
    MARGIN,
    Fit,
    Weights,
    fit_layers,
    free_gpu_memory,
    layers_for,
    usable,
    weights_of,
)
from infraxa.engine.types import LoadOptions

GB = 1 << 30
F16, F32 = 1, 0


def test_the_output_goes_first_then_the_last_layers_each_with_its_cache() -> None:
    weights = Weights((100, 200, 300), 50)
    assert fit_layers(10_000, weights, 10, 1000) == Fit(4, 10_000 - 1000 - 650)
    assert fit_layers(1000 + 680, weights, 10, 1000) == Fit(4, 30)
    assert fit_layers(1000 + 679, weights, 10, 1000) == Fit(3, 129)
    assert fit_layers(1000 + 360, weights, 10, 1000) == Fit(2, 10)
    assert fit_layers(1000 + 359, weights, 10, 1000).layers == 1
    assert fit_layers(1000 + 49, weights, 10, 1000) == Fit(0, 0)
    assert fit_layers(0, weights, 10, 1000) == Fit(0, 0)


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 10**5), max_size=20),
    st.integers(0, 10**5),
    st.integers(0, 10**4),
    st.integers(0, 10**4),
)
def test_what_is_offloaded_fits_and_one_more_layer_would_not(
    free: int, layers: list[int], output: int, cache: int, scratch: int
) -> None:
    weights = Weights(tuple(layers), output)
    fit = fit_layers(free, weights, cache, scratch)

    def need(count: int) -> int:
        sizes = [output, *reversed(layers)][:count]
        return scratch + sum(sizes) + cache * max(0, count - 1)

    assert 0 <= fit.layers <= len(layers) + 1
    if fit.layers:
        assert need(fit.layers) <= free and fit.left >= cache * (fit.layers - 1)
    if fit.layers <= len(layers):
        assert need(fit.layers + 1) > free
    more = fit_layers(free + 1000, weights, cache, scratch)
    assert more.layers >= fit.layers


def test_weights_are_counted_by_layer() -> None:
    def tensor(name: str, numbers: int, kind: int = F16) -> Tensor:
        return Tensor(name, (numbers,), kind, 0)

    tensors = [
        tensor("token_embd.weight", 1000),
        tensor("blk.0.attn_q.weight", 10),
        tensor("blk.1.attn_q.weight", 20),
        tensor("blk.1.attn_norm.weight", 5, F32),
        tensor("blk.1.new.weight", 7, 9999),
        tensor("output_norm.weight", 3, F32),
    ]
    assert weights_of(tensors, 2) == Weights((20, 40 + 20 + 14), 2000 + 12), "the embeddings are the output"
    assert weights_of([*tensors, tensor("output.weight", 500)], 2).output == 1000 + 12
    guide = read_metadata(GUIDE_PATH)
    tensors = list(read_header(GUIDE_PATH).tensors)
    whole = weights_of(tensors, guide.layers)
    assert len(whole.layers) == guide.layers and min(whole.layers) > 0
    assert 0.9 * guide.size < sum(whole.layers) + whole.output <= guide.size


def test_the_whole_of_a_small_model_goes_onto_a_large_gpu() -> None:
    guide = read_metadata(GUIDE_PATH)
    options = LoadOptions(n_ctx=1024, slots=2)
    assert layers_for(guide, options, 8 * GB).layers == guide.layers + 1
    assert layers_for(guide, options, 0) == Fit(0, 0)
    # The more its contexts take, the fewer layers.
    free = memory_estimate(guide, 1024, 2)
    fewer = layers_for(guide, LoadOptions(n_ctx=1024, slots=64), free).layers
    assert 0 < fewer < layers_for(guide, options, free).layers


def test_devices_leave_a_margin_and_integrated_ones_count_alone() -> None:
    assert usable([]) == usable([(0, 64 * GB)]) == 0
    assert usable([(0, 64 * GB), (1, 8 * GB), (1, 4 * GB), (2, 30 * GB)]) == 12 * GB - 2 * MARGIN
    assert usable([(1, MARGIN // 2), (1, 3 * GB)]) == 3 * GB - MARGIN
    assert usable([(2, 30 * GB), (3, 99 * GB)]) == 30 * GB - MARGIN


async def test_without_a_gpu_nothing_is_offloaded_whatever_is_asked_for() -> None:
    if llama.supports_gpu():
        return
    assert free_gpu_memory() == 0
    engine = Engine()
    try:
        loaded = await engine.load(GUIDE_PATH, LoadOptions(n_ctx=256, slots=1, threads=1))
        assert loaded.gpu_layers == 0
        asked = LoadOptions(n_ctx=256, slots=1, threads=1, gpu_layers=99)
        assert (await engine.load(GUIDE_PATH, asked)).gpu_layers == 0
    finally:
        await engine.close()


def test_a_build_that_does_not_say_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        _lib = object()

    monkeypatch.setattr("infraxa.engine.offload.api", Api)
    assert free_gpu_memory() is None
