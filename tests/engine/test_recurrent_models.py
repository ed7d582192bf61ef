"""Models with a state instead of a cache: it can be kept or cleared, never cut. A random Mamba stands for
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from infraxa.engine.batching import N_BATCH, Batcher
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Context, Model
from infraxa.engine.template import ChatTemplate
from infraxa.engine.transcript import ctx_next, decode_leaf
from infraxa.engine.types import ChatMessage, Request, Sampling, Verified

LAYERS, DIM, STATE, CONV, RANK = 2, 64, 16, 4, 4
INNER = 2 * DIM
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"


def write_mamba(path: Path) -> None:
    source = gguf.GGUFReader(GUIDE_PATH)

    def read(key: str) -> Any:
        field = source.get_field(key)
        assert field is not None
        return field.contents()

    writer = gguf.GGUFWriter(path, "mamba")
    tokens = read("tokenizer.ggml.tokens")
    writer.add_context_length(1024)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(LAYERS)
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(read("tokenizer.ggml.token_type"))
    writer.add_token_merges(read("tokenizer.ggml.merges"))
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(7)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(np.float32))

    add("token_embd.weight", len(tokens), DIM, scale=1.0)
    writer.add_tensor("output_norm.weight", np.ones(DIM, dtype=np.float32))
    for i in range(LAYERS):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", np.ones(DIM, dtype=np.float32))
        add(f"blk.{i}.ssm_in.weight", 2 * INNER, DIM)
        add(f"blk.{i}.ssm_conv1d.weight", INNER, CONV)
        add(f"blk.{i}.ssm_conv1d.bias", INNER)
        add(f"blk.{i}.ssm_x.weight", RANK + 2 * STATE, INNER)
        add(f"blk.{i}.ssm_dt.weight", INNER, RANK)
        add(f"blk.{i}.ssm_dt.bias", INNER)
        writer.add_tensor(f"blk.{i}.ssm_a", -np.ones((INNER, STATE), dtype=np.float32))
        add(f"blk.{i}.ssm_d", INNER)
        add(f"blk.{i}.ssm_out.weight", DIM, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory, guide: Model) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("mamba") / "mamba.gguf"
    write_mamba(path)
    with Model.load(path) as model:
        assert not model.rewindable
        yield model


class Room:
    """A batcher over this model and what each request gave."""

    def __init__(self, model: Model, slots: int) -> None:
        self.context = Context(model, n_ctx=256, slots=slots, n_batch=N_BATCH, threads=1)
        self.batcher = Batcher(model, self.context, ChatTemplate(TEMPLATE), slots=slots, n_ctx=256)
        self.ids: dict[int, tuple[int, ...]] = {}
        self.cached: dict[int, int] = {}

    def submit(self, number: int, *texts: str) -> None:
        messages = tuple(ChatMessage("user", text) for text in texts)
        self.batcher.submit(number, Request(messages, Sampling(temperature=0, max_tokens=8)))

    def run(self) -> None:
        while self.batcher.busy:
            self.batcher.step()
        output = self.batcher.take()
        for emitted in output.emitted:
            self.ids[emitted.id] = emitted.token_ids
        for ended in output.ended:
            assert ended.finished.error is None
            self.cached[ended.id] = ended.finished.usage.n_cached


@pytest.fixture
def open_room(mamba: Model) -> Iterator[Callable[[int], Room]]:
    rooms: list[Room] = []

    def open_(slots: int) -> Room:
        rooms.append(Room(mamba, slots))
        return rooms[-1]

    yield open_
    for room in rooms:
        room.batcher.close()
        room.context.close()


def test_together_gives_what_each_gives_alone(open_room: Callable[[int], Room]) -> None:
    texts = ["one two three", "a", "what is a driver and what is a tab?", "hi there"]
    alone, together = open_room(1), open_room(4)
    for i, text in enumerate(texts):
        alone.submit(i, text)
        alone.run()
        together.submit(i, text)
    together.run()
    assert together.ids == alone.ids


def test_gaps_are_not_bridged(open_room: Callable[[int], Room]) -> None:
    room, alone = open_room(4), open_room(1)
    for i, text in enumerate(("one", "two", "three")):
        room.submit(i, text)
    room.batcher.step()
    room.batcher.cancel(1)
    assert all(span.job is not None for span in room.batcher.scheduler.plan())
    room.run()
    for i, text in ((0, "one"), (2, "three")):
        alone.submit(i, text)
        alone.run()
        assert room.ids[i] == alone.ids[i]


def test_a_longer_prompt_goes_on_and_a_changed_one_starts_anew(open_room: Callable[[int], Room]) -> None:
    room, fresh = open_room(1), open_room(1)
    room.submit(1, "tell me more")
    room.batcher.step()
    # Ended while exactly the prompt was in the state.
    room.batcher.cancel(1)
    room.run()
    room.submit(2, "tell me more", "please")
    room.run()
    assert room.cached[2] > 0
    room.submit(3, "tell me less")
    room.run()
    assert room.cached[3] == 0
    for number, texts in ((2, ("tell me more", "please")), (3, ("tell me less",))):
        fresh.submit(number, *texts)
        fresh.run()
        assert fresh.ids[number] == room.ids[number]


def test_what_all_begin_with_is_read_once_and_copied_whole(open_room: Callable[[int], Room]) -> None:
    room, alone = open_room(4), open_room(1)
    texts = [("one two three " * 20, f"{word} and so on") for word in ("maple", "birch", "alder")]
    for i, two in enumerate(texts):
        room.submit(i, *two)
    room.run()
    assert [room.cached[i] > 40 for i in range(3)] == [False, True, True]
    for i, two in enumerate(texts):
        # Read up to where the others part, as those were.
        alone.submit(10 + i, *two)
        alone.run()
        assert alone.ids[10 + i] == room.ids[i]


def test_what_is_read_again_is_not_told_as_a_prompt(open_room: Callable[[int], Room]) -> None:
    room = open_room(4)
    for i in range(4):
        room.submit(i, "one two three " * 70)
    while min((job.n_out for job in room.batcher.scheduler.running()), default=0) < 2:
        room.batcher.step()
    room.batcher.take()
    room.context.abort(True)
    room.batcher.step()
    room.context.abort(False)
    room.batcher.step()
    assert any(job.n_past < job.n_prompt for job in room.batcher.scheduler.running()), "not yet all again"
    assert not room.batcher.take().reading
    room.run()
    assert len(room.ids) == 4


def test_an_interrupted_step_is_done_again_from_the_beginning(open_room: Callable[[int], Room]) -> None:
    room, fresh = open_room(2), open_room(2)
    for each in (room, fresh):
        each.submit(1, "one two three")
        each.batcher.step()
        each.batcher.step()
        if each is room:
            room.context.abort(True)
            room.batcher.step()
            room.context.abort(False)
        each.run()
    assert room.ids == fresh.ids


def test_a_verified_answer_that_is_read_again_commits_to_each_step_once(
    open_room: Callable[[int], Room],
) -> None:
    verified = Verified(bytes(16), bytes(32), bytes(32), (900_000, 0, 1_000_000, 0))
    request = Request((ChatMessage("user", "one two three"),), Sampling(max_tokens=12), verified=verified)
    room = open_room(2)
    room.batcher.submit(1, request)
    for step in range(8):
        room.context.abort(step == 5)
        room.batcher.step()
    room.context.abort(False)
    while room.batcher.busy:
        room.batcher.step()
    (emitted,) = room.batcher.take().emitted
    leaves = [decode_leaf(data) for data in emitted.leaves]
    assert [leaf.step for leaf in leaves] == list(range(12))
    ctx = emitted.ctx0
    for leaf in leaves:
        assert leaf.ctx == ctx
        ctx = ctx_next(ctx, leaf.token)
