"""Which attention is chosen when nobody said, and that it is the one that computes."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine import attention, opening
from infraxa.engine.attention import Attention, chosen, scores_bytes
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Context, Model
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.models import ModelInfo, cache_bytes, read_metadata
from infraxa.engine.opening import open_model
from infraxa.engine.sizing import Size
from infraxa.engine.types import EngineError, LoadOptions, Request, Sampling
from tests.random_model import write_random_model

LLAMA_8B = ModelInfo("", "", 0, heads=32, head_length=128, cache_width=(8 * 256,) * 32)
FOUR = Size(8192, 4)


def test_a_cpu_computes_attention_of_most_models_plainly() -> None:
    assert chosen(LLAMA_8B, LoadOptions(), 0, None, "x86_64")(FOUR) == Attention("off", 512)
    assert chosen(LLAMA_8B, LoadOptions(), 0, None, "AMD64")(FOUR).flash == "off"


@pytest.mark.parametrize(
    ("info", "options", "gpu_layers", "machine"),
    [
        (LLAMA_8B, LoadOptions(), 1, "x86_64"),
        (LLAMA_8B, LoadOptions(), 0, "arm64"),
        (LLAMA_8B, LoadOptions(kv_type="q8_0"), 0, "x86_64"),
        (
            ModelInfo("", "", 0, heads=32, head_length=64, cache_width=(1024,) * 16),
            LoadOptions(),
            0,
            "x86_64",
        ),
    ],
)
def test_elsewhere_the_choice_is_llama_cpps(
    info: ModelInfo, options: LoadOptions, gpu_layers: int, machine: str
) -> None:
    assert chosen(info, options, gpu_layers, None, machine)(FOUR) == Attention("auto", None)


def test_short_contexts_keep_what_is_quicker_for_them() -> None:
    of = chosen(LLAMA_8B, LoadOptions(), 0, None, "x86_64")
    assert [of(Size(n, 4)).flash for n in (1024, 2047, 2048)] == ["auto", "auto", "off"]


@pytest.mark.parametrize("said", ["on", "off"])
def test_what_was_said_is_kept(said: Any) -> None:
    options = LoadOptions(flash_attention=said)
    assert chosen(LLAMA_8B, options, 0, None, "x86_64")(FOUR) == Attention(said, None)


@given(
    st.integers(256, 1 << 20),
    st.integers(1, 64),
    st.integers(1, 128),
    st.integers(1, 128),
    st.booleans(),
    st.none() | st.integers(0, 1 << 40),
)
def test_scores_take_a_small_part_of_what_the_caches_take(
    n_ctx: int, slots: int, heads: int, kv_heads: int, unified: bool, limit: int | None
) -> None:
    info = ModelInfo("", "", 0, heads=heads, head_length=128, cache_width=(kv_heads * 256,) * 32)
    way = chosen(info, LoadOptions(unified_kv=unified), 0, limit, "x86_64")(Size(n_ctx, slots))
    caches = cache_bytes(info, "f16") * n_ctx * slots
    if way.flash == "off":
        assert way.rows is not None
        scores = scores_bytes(info, n_ctx * (slots if unified else 1), way.rows)
        assert 8 * scores <= caches
        assert limit is None or caches + scores <= limit
    else:
        assert way == Attention("auto", None)


def test_a_model_file_says_what_the_choice_needs(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m.gguf", GUIDE_PATH, layers=1, dim=256, head=128)
    info = read_metadata(tmp_path / "m.gguf")
    assert (info.heads, info.head_length) == (4, 128)
    guide = read_metadata(GUIDE_PATH)
    assert guide.head_length * guide.heads == guide.embedding_length


def _answer(info: ModelInfo, options: LoadOptions) -> tuple[str, tuple[int, ...]]:
    batcher, loaded = open_model(info, options)
    try:
        prompt = " ".join(f"{i} drivers and {i} tabs" for i in range(60))
        batcher.submit(1, Request(prompt=prompt, sampling=Sampling(temperature=0, max_tokens=4)))
        for _ in range(50):
            if not batcher.busy:
                break
            batcher.step()
        output = batcher.take()
        assert output.ended[0].finished.error is None
        assert output.ended[0].finished.usage.n_prompt > 2 * min(attention.ROWS)
        return loaded.flash_attention, tuple(t for one in output.emitted for t in one.token_ids)
    finally:
        batcher.close()
        batcher.context.close()
        batcher.model.close()


def test_both_ways_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_model(tmp_path / "m.gguf", GUIDE_PATH, layers=2, dim=256, head=128, context=2048)
    info = read_metadata(tmp_path / "m.gguf")
    options = LoadOptions(n_ctx=2048, slots=8, threads=1, park_bytes=0)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    llama_cpp, its = _answer(info, options)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    # Few rows at a time, so that the prompt takes several goes.
    monkeypatch.setattr(attention, "ROWS", (128,))
    plain, ours = _answer(info, options)
    assert (llama_cpp, plain) == ("auto", "off")
    assert ours == its and len(ours) == 4


def test_without_memory_for_the_scores_the_caches_are_not_made_smaller(
    guide: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, str]] = []

    class Full(Context):
        def __init__(self, *args: Any, **named: Any) -> None:
            tried.append((named["n_ctx"], named["flash_attention"]))
            if named["flash_attention"] == "off" or named["n_ctx"] > 512:
                raise EngineError("no_memory", "full", "")
            super().__init__(*args, **named)

    monkeypatch.setattr(opening, "Context", Full)
    context, size = opening.open_context(
        guide, Size(1024, 1), 1, LoadOptions(), LoadLog(), lambda size: Attention("off", 128)
    )
    context.close()
    assert size == Size(512, 1)
    assert tried == [(1024, "off"), (1024, "auto"), (512, "off"), (512, "auto")]
