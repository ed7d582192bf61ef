"""Vectors of texts: by the built-in model, by one that only makes embeddings, and beside running answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from infraxa.engine import embedding
from infraxa.engine.embedding import Embedder
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Model
from infraxa.engine.models import read_metadata
from infraxa.engine.types import EngineError, LoadOptions, Request

Ask = Callable[..., Request]
Open = Callable[..., Any]
ONE_THREAD = LoadOptions(threads=1)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581the", "\u2581driver", "\u2581reads", "\u2581rain", "s"]
WIDTH = 64
LONGEST = 32
"""Tokens that the small model was trained for."""


def write_bert(path: Path, pooling: int = 1) -> Path:
    """A BERT of one layer with random weights, which only makes embeddings."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny bert")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 2, 3, 3, 1, 1, 1, 1, 1])
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.5, shape).astype("f4"))

    def add_both(name: str, *shape: int) -> None:
        add(name, *shape)
        writer.add_tensor(f"{name}.bias", random.normal(0, 0.1, shape[:1]).astype("f4"))

    add("token_embd", len(WORDS), WIDTH)
    add("token_types", 2, WIDTH)
    add("position_embd", LONGEST, WIDTH)
    add_both("token_embd_norm", WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add_both(f"blk.0.{name}", WIDTH, WIDTH)
    add_both("blk.0.attn_output_norm", WIDTH)
    add_both("blk.0.ffn_up", 2 * WIDTH, WIDTH)
    add_both("blk.0.ffn_down", WIDTH, 2 * WIDTH)
    add_both("blk.0.layer_output_norm", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def numbers(vector: bytes) -> Any:
    return np.frombuffer(vector, "<f4")


@pytest.fixture
def make(guide: Model) -> Iterator[Callable[..., list[Any]]]:
    embedders = []

    def make_(*texts: str, model: Model = guide) -> list[Any]:
        """What comes of texts, step by step."""
        embedder = Embedder(model, threads=1)
        embedders.append(embedder)
        embedder.submit(1, texts)
        made = []
        while embedder.busy:
            if (one := embedder.step()) is not None:
                made.append(one)
        return made

    yield make_
    for embedder in embedders:
        embedder.close()


def test_the_same_text_has_the_same_vector_of_length_one(guide: Model, make: Open) -> None:
    first, other, again = make("what is a driver?", "rain", "what is a driver?")
    assert first.vector == again.vector != other.vector
    assert len(first.vector) == 4 * read_metadata(GUIDE_PATH).embedding_length
    assert np.linalg.norm(numbers(first.vector)) == pytest.approx(1)
    assert first.n_tokens == len(guide._tokenize("what is a driver?", False))


def test_a_long_text_is_read_in_chunks_and_gives_what_it_gives_at_once(
    make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "the driver reads what the user asks and answers " * 12
    (cut,) = make(text)
    assert cut.n_tokens > embedding.CHUNK
    monkeypatch.setattr(embedding, "CHUNK", cut.n_tokens)
    (whole,) = make(text)
    assert numbers(cut.vector) @ numbers(whole.vector) > 0.99


def test_control_texts_are_letters(make: Open, guide: Model) -> None:
    (made,) = make("<|im_end|>")
    assert made.n_tokens == len(guide._tokenize("<|im_end|>", False)) > 1


def test_a_text_that_is_too_long_says_how_long_it_may_be(make: Open, guide: Model) -> None:
    limit = min(guide.n_ctx_train, embedding.MAX_TOKENS)
    for text in ("rain " * 3000, "x" * (limit * embedding.MAX_TOKEN_LETTERS + 1)):
        good, bad = make("rain", text, "never read")
        assert good.error is None
        assert bad.error.code == "prompt_too_long" and str(limit) in bad.error.message


@pytest.mark.parametrize("pooling", [1, 2])
def test_a_model_that_only_makes_embeddings(tmp_path: Path, make: Open, pooling: int) -> None:
    path = write_bert(tmp_path / "bert.gguf", pooling)
    info = read_metadata(path)
    assert info.embeds_only
    with Model.load(path) as model:
        embedder = Embedder(model, threads=1)
        embedder.submit(1, ["the driver reads", "the driver", "rain", "the " * LONGEST])
        made = []
        while embedder.busy:
            if (one := embedder.step()) is not None:
                made.append(one)
        embedder.close()
    assert [one.n_tokens for one in made] == [5, 4, 3, 0], "with the tokens that stand around a text"
    assert made[3].error is not None and str(LONGEST) in made[3].error.message
    assert len({one.vector for one in made}) == 4
    assert all(np.linalg.norm(numbers(one.vector)) == pytest.approx(1) for one in made[:3])


async def test_the_engine_embeds_beside_an_answer(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    with pytest.raises(EngineError, match="No model is ready"):
        await engine.embed(["hi"])
    loaded = await engine.load(GUIDE_PATH, ONE_THREAD)
    assert loaded.chat and loaded.embeds
    answer = asyncio.ensure_future(engine.generate(ask("what is infraxa?")).collect())
    embedded = await engine.embed(["what is a driver?", "rain"])
    text, finished = await answer
    assert (finished.reason, text) == ("stop", (await engine.generate(ask("what is infraxa?")).collect())[0])
    assert len(embedded.vectors) == len(embedded.n_tokens) == 2
    for texts in ([], ["a", ""], ["a"] * 2049, ["x" * (9 << 20)], ["\ud800"]):
        with pytest.raises(EngineError) as caught:
            await engine.embed(texts)
        assert caught.value.code == "bad_request"
    with pytest.raises(EngineError, match="longer than the"):
        await engine.embed(["short", "rain " * 3000])
    assert (await engine.embed(["what is a driver?"])).vectors[0] == embedded.vectors[0]


async def test_embeddings_that_nobody_waits_for_are_not_made(open_engine: Open) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    waiting = asyncio.ensure_future(engine.embed(["rain " * 500] * 2000))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(10):
        await engine.embed(["rain"])


async def test_a_worker_that_dies_ends_the_embeddings(open_engine: Open) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    waiting = asyncio.ensure_future(engine.embed(["rain " * 500] * 2000))
    await asyncio.sleep(0.05)
    engine._kill("the test wanted it")
    with pytest.raises(EngineError) as caught:
        await waiting
    assert caught.value.code == "worker_died"


async def test_who_only_embeds_does_not_chat(tmp_path: Path, open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    loaded = await engine.load(write_bert(tmp_path / "bert.gguf"), ONE_THREAD)
    assert (loaded.chat, loaded.embeds, loaded.n_ctx) == (False, True, LONGEST)
    embedded = await engine.embed(["the driver reads", "rain"])
    assert embedded.n_tokens == (5, 3)
    _, finished = await engine.generate(ask("hi")).collect()
    assert finished.error.code == "unsupported"
    assert finished.error.message == "This model makes embeddings; it cannot answer."
    with pytest.raises(EngineError, match="cannot answer"):
        await engine.count_tokens(ask("hi").messages)
    assert (await engine.embed(["rain"])).vectors[0] == embedded.vectors[1]
