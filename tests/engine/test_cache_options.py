"""What can be chosen of the cache: how it keeps its numbers, one for all or one each, with or without flash
attention, and what parking may take."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine.batching import N_BATCH, Batcher
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Context, Model
from infraxa.engine.models import cache_bytes, memory_estimate, read_metadata
from infraxa.engine.opening import open_model
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import (
    ChatMessage,
    EngineError,
    FlashAttention,
    KvType,
    Loaded,
    LoadOptions,
    Request,
    Sampling,
)
from tests.random_model import write_random_model

SYSTEM = "You answer about infraxa, drivers, tabs and receipts, in short and plain words. " * 6


def told(question: str) -> Request:
    messages = (ChatMessage("system", SYSTEM), ChatMessage("user", question))
    return Request(messages, Sampling(temperature=0, max_tokens=12))


def answers(batcher: Batcher, *questions: str) -> list[tuple[int, ...]]:
    for i, question in enumerate(questions):
        batcher.submit(i, told(question))
    steps = 0
    while batcher.busy:
        batcher.step()
        steps += 1
        assert steps < 500
    output = batcher.take()
    assert [e.finished.error for e in output.ended] == [None] * len(questions)
    by_id = {e.id: e.token_ids for e in output.emitted}
    return [by_id[i] for i in range(len(questions))]


@pytest.fixture
def opened() -> Any:
    batchers: list[Batcher] = []

    def open_(options: LoadOptions) -> tuple[Batcher, Loaded]:
        batcher, loaded = open_model(read_metadata(GUIDE_PATH), options)
        batchers.append(batcher)
        return batcher, loaded

    yield open_
    for batcher in batchers:
        batcher.close()
        batcher.context.close()
        batcher.model.close()


Open = Callable[[LoadOptions], tuple[Batcher, Loaded]]


@pytest.mark.parametrize(
    ("kv_type", "flash"), [("f16", "off"), ("f16", "on"), ("q8_0", "auto"), ("q4_0", "on")]
)
def test_caches_of_every_kind_answer_and_are_copied(
    opened: Open, kv_type: KvType, flash: FlashAttention
) -> None:
    options = LoadOptions(n_ctx=512, slots=4, threads=1, kv_type=kv_type, flash_attention=flash)
    batcher, loaded = opened(options)
    assert loaded.kv_type == kv_type
    together = answers(batcher, "hi", "what is a tab?", "hi")
    assert together[0] == together[2] and all(together)


def test_one_cache_for_all_gives_the_same_answers(guide: Model) -> None:
    questions = ("what is a driver?", "what is 12+5?", "hi", "what is a tab?")
    found = []
    for unified, slots in itertools.product((True, False), (4, 2)):
        context = Context(guide, n_ctx=512, slots=slots, n_batch=N_BATCH, threads=1, unified=unified)
        template = ChatTemplate(guide.chat_template, builtin=guide.apply_builtin_template)
        batcher = Batcher(guide, context, template, slots=slots, n_ctx=512, park_bytes=1 << 28)
        try:
            found.append([answers(batcher, *questions) for _ in range(2)])
        finally:
            batcher.close()
            context.close()
    # One cache for all rounds differently, but hardly ever to another token of a sure model.
    assert found[0][0][1][:3] == found[2][0][1][:3]
    assert all(all(map(len, answer)) for answer in found)
    assert found[2] == found[3]


def test_a_small_cache_without_flash_attention_is_refused(opened: Open) -> None:
    with pytest.raises(EngineError, match="flash attention") as caught:
        opened(LoadOptions(kv_type="q8_0", flash_attention="off"))
    assert caught.value.code == "bad_request"


def test_a_cache_that_the_model_cannot_have_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_random_model(path, GUIDE_PATH, layers=1, dim=128, head=16)
    with pytest.raises(EngineError, match="cannot keep its cache as q8_0") as caught:
        open_model(read_metadata(path), LoadOptions(n_ctx=256, slots=1, threads=1, kv_type="q8_0"))
    assert caught.value.code == "unsupported"


def test_estimates_follow_the_kind_of_the_cache() -> None:
    info = read_metadata(GUIDE_PATH)
    f16, q8, q4 = (cache_bytes(info, kind) for kind in ("f16", "q8_0", "q4_0"))
    assert f16 == 2 * sum(info.cache_width)
    assert (q8 / f16, q4 / f16) == (34 / 64, 18 / 64)
    assert memory_estimate(info, 1000, 2, "q4_0") == memory_estimate(info, 0, 0) + 2000 * q4


def test_what_may_be_parked(opened: Open) -> None:
    base = LoadOptions(n_ctx=256, slots=1, threads=1)
    assert opened(base)[1].park_bytes > 1 << 20
    assert opened(LoadOptions(n_ctx=256, slots=1, threads=1, park_bytes=0))[1].park_bytes == 0
    batcher, loaded = opened(LoadOptions(n_ctx=256, slots=1, threads=1, park_bytes=12345))
    assert (loaded.park_bytes, batcher.scheduler.parking.budget) == (12345, 12345)
    # What a limit allows is for the model first.
    info = read_metadata(GUIDE_PATH)
    limit = memory_estimate(info, 256, 1) + 1000
    limited = LoadOptions(n_ctx=256, slots=1, threads=1, memory_limit=limit)
    assert opened(limited)[1].park_bytes == 1000
