"""Model files: what is read of them, what is refused, and that no file costs more than its size deserves."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infraxa.engine.ggml_types import FILE_TYPES, TENSOR_TYPES
from infraxa.engine.gguf_header import read_header
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.models import ModelInfo, memory_estimate, read_metadata, sha256, size_label
from infraxa.engine.types import EngineError, LoadOptions

CODES = {"not_found", "not_gguf", "truncated", "unsupported"}
GUIDE = GUIDE_PATH.read_bytes()
HEADER_SIZE = read_header(GUIDE_PATH).data_offset


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def made(*pairs: bytes, n_tensors: int = 0, n_keys: int | None = None, rest: bytes = b"") -> bytes:
    """A GGUF file from its encoded keys."""
    count = len(pairs) if n_keys is None else n_keys
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, count) + b"".join(pairs) + rest


def string_pair(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def refusal(path: Path, content: bytes) -> EngineError:
    path.write_bytes(content)
    with pytest.raises(EngineError) as raised:
        read_metadata(path)
    assert raised.value.code in CODES
    assert raised.value.message.count("\n") == 0 and len(raised.value.message) < 600
    return raised.value


def written(path: Path, architecture: str = "llama", **numbers: Any) -> Path:
    """A small file as the `gguf` package writes it."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in numbers.items():
        key = name.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_guide_is_read_as_it_is() -> None:
    info = read_metadata(GUIDE_PATH)
    assert (info.architecture, info.quantization, info.context_length) == ("llama", "Q8_0", 1024)
    assert (info.layers, info.embedding_length, info.vocabulary) == (8, 256, 2048)
    assert info.size == GUIDE_PATH.stat().st_size
    assert 5_000_000 < info.parameters < 5_500_000
    assert info.has_template and info.license == "MIT"
    assert info.sampling["temperature"] == 0.0


def test_the_header_says_what_the_gguf_package_reads() -> None:
    ours, theirs = read_header(GUIDE_PATH), gguf.GGUFReader(GUIDE_PATH)
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        if isinstance(value, list) and len(value) > len(ours.values.get(key, [])):  # type: ignore[arg-type]  # a list where theirs is
            assert ours.counts[key] == len(value)
        else:
            assert ours.values[key] == value
    assert len(ours.tensors) == len(theirs.tensors)
    for tensor, theirs_tensor in zip(ours.tensors, theirs.tensors, strict=True):
        assert tensor.name == theirs_tensor.name
        assert ours.data_offset + tensor.offset == theirs_tensor.data_offset
        assert list(tensor.shape) == theirs_tensor.shape.tolist()


def test_the_tables_of_formats_are_those_of_the_gguf_package() -> None:
    sizes = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert {number: tuple(kind) for number, kind in TENSOR_TYPES.items()} == sizes
    names = {
        kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for kind in gguf.LlamaFileType
        if kind.name != "GUESSED"
    }
    assert names == FILE_TYPES


def test_a_vocabulary_of_150_000_is_counted_in_little_memory(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama")
    writer.add_token_list([f"token{n}" for n in range(150_000)])
    writer.add_token_types([1] * 150_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tracemalloc.start()
    try:
        info = read_metadata(tmp_path / "big.gguf")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert info.vocabulary == 150_000
    assert peak < 8 << 20


def test_a_missing_file_a_folder_and_a_pipe_are_not_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "no.gguf", "There is no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a file"),
    ):
        with pytest.raises(EngineError, match=words) as raised:
            read_metadata(path)
        assert raised.value.code == "not_found"


def in_short(value: object) -> str | None:
    """The name of a test case: whole files would make it megabytes long."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else None


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "not_gguf", "is not a GGUF file"),
        (b"GG", "not_gguf", "is not a GGUF file"),
        (b"This is a text about models.\n" * 100, "not_gguf", "is not a GGUF file"),
        (b"GGUF", "truncated", "ends within its header"),
        (GUIDE[:3000], "truncated", "ends within its header"),
        (GUIDE[:-40_000], "truncated", f"has {len(GUIDE) - 40_000:,} bytes and needs at least"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(100), "unsupported", "GGUF version 1"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(100), "unsupported", "GGUF version 4"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(100), "unsupported", "big-endian"),
        (made(), "not_gguf", "which architecture"),
        (made(string_pair("general.architecture", "clip")), "unsupported", "vision or audio part"),
        (
            made(string_pair("general.architecture", "llama"), string_pair("general.type", "adapter")),
            "unsupported",
            "an adapter",
        ),
    ],
    ids=in_short,
)
def test_each_bad_file_has_its_sentence(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    error = refusal(tmp_path / "bad.gguf", content)
    assert error.code == code
    assert words in error.message
    assert error.remedy


@pytest.mark.parametrize(
    ("keys", "embeds_only"),
    [
        ({"bert__attention__causal": False}, True),
        ({"bert__pooling_type": 3}, True),
        ({"bert__pooling_type": 0}, False),
        ({}, False),
    ],
)
def test_a_model_for_embeddings_is_known(tmp_path: Path, keys: dict[str, Any], embeds_only: bool) -> None:
    assert read_metadata(written(tmp_path / "bert.gguf", "bert", **keys)).embeds_only == embeds_only


def test_a_model_that_ranks_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "bert.gguf", "bert", bert__pooling_type=4)
    with pytest.raises(EngineError, match="ranks texts") as raised:
        read_metadata(path)
    assert raised.value.code == "unsupported"


HUGE = 1 << 60


@pytest.mark.parametrize(
    "content",
    [
        made(n_keys=HUGE),
        made(n_keys=60_000),
        made(n_tensors=HUGE),
        made(n_tensors=90_000),
        made(rest=struct.pack("<Q", HUGE), n_keys=1),
        made(text("k") + struct.pack("<IQ", 8, HUGE)),
        made(text("k") + struct.pack("<IQ", 8, 7 << 20)),
        made(text("k") + struct.pack("<IIQ", 9, 8, HUGE)),
        made(text("k") + struct.pack("<IIQ", 9, 8, 3_000_000)),
        made(text("k") + struct.pack("<IIQ", 9, 0, HUGE)),
        made(text("k") + struct.pack("<IIQ", 9, 9, 1)),
        made(text("k") + struct.pack("<IQ", 99, 0)),
        made(*[string_pair("twice", "x")] * 2),
        made(text("general.alignment") + struct.pack("<II", 4, 0)),
        made(text("general.alignment") + struct.pack("<II", 4, 33)),
        made(n_tensors=1, rest=text("t") + struct.pack("<IQQQQQIQ", 5, 1, 1, 1, 1, 1, 0, 0)),
    ],
    ids=in_short,
)
def test_absurd_numbers_are_refused_in_little_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "absurd.gguf"
    tracemalloc.start()
    try:
        refusal(path, content + bytes(1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def tensors(*rows: tuple[str, tuple[int, ...], int, int]) -> bytes:
    table = b"".join(
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        for name, shape, kind, offset in rows
    )
    return made(string_pair("general.architecture", "llama"), n_tensors=len(rows), rest=table) + bytes(4096)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (tensors(("a", (32,), 0, 0), ("b", (32,), 0, 0)), "not_gguf"),  # one upon the other
        (tensors(("a", (32,), 0, 128), ("b", (32,), 0, 0)), "not_gguf"),  # in a circle
        (tensors(("a", (32,), 0, 1 << 63)), "not_gguf"),
        (tensors(("a", (33,), 8, 0)), "not_gguf"),  # rows of 32
        (tensors(("a", (1 << 62, 1 << 62), 0, 0)), "not_gguf"),
        (tensors(("a", (1 << 40,), 0, 0)), "truncated"),
    ],
    ids=in_short,
)
def test_tensors_lie_one_after_the_other_within_the_file(tmp_path: Path, content: bytes, code: str) -> None:
    assert refusal(tmp_path / "tensors.gguf", content).code == code


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_guide_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    header = bytearray(GUIDE[:HEADER_SIZE])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, HEADER_SIZE - 9) | st.integers(4, 3000))
        noise = data.draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([b"\xff" * 8, bytes(8), struct.pack("<Q", HUGE)])
        )
        header[at : at + len(noise)] = noise
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(header)
    os.truncate(
        path, data.draw(st.sampled_from([len(GUIDE), len(GUIDE), HEADER_SIZE, HEADER_SIZE // 2, 100]))
    )
    try:
        info = read_metadata(path)
    except EngineError as error:
        assert error.code in CODES
    else:
        assert memory_estimate(info, 4096, 8) > 0
        assert msgspec.json.decode(msgspec.json.encode(info), type=ModelInfo) == info
        assert "\x1b" not in info.name + info.architecture + info.license + info.size_label


def test_texts_of_the_file_cannot_control_a_terminal(tmp_path: Path) -> None:
    path = written(tmp_path / "evil.gguf", general__name="a\x1b[2Jb\nc\u202ed", general__license="x" * 5000)
    info = read_metadata(path)
    assert info.name == "a [2Jb c d"
    assert len(info.license) == 200


def test_only_possible_sampling_defaults_are_taken(tmp_path: Path) -> None:
    path = written(
        tmp_path / "sampling.gguf",
        general__sampling__temp=0.6,
        general__sampling__top_k=20,
        general__sampling__top_p=float("nan"),
        general__sampling__min_p=7.0,
        general__sampling__penalty_repeat=1.1,
    )
    assert read_metadata(path).sampling == {"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.1}


def test_a_split_model_is_read_whole_from_its_first_part(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    written(first, split__count=2, split__no=0)
    with pytest.raises(EngineError, match=r"There is no file .*m-00002-of-00002"):
        read_metadata(first)
    written(second, split__count=2, split__no=1)
    info = read_metadata(first)
    assert info.files == (first, second)
    assert info.size == first.stat().st_size + second.stat().st_size
    assert info.parameters == 2 * 4 * 32
    assert sha256(info.files) == hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    with pytest.raises(EngineError, match="is part 2 of 2") as raised:
        read_metadata(second)
    assert str(first) in raised.value.remedy
    shutil.copy(first, tmp_path / "renamed.gguf")
    with pytest.raises(EngineError, match="its name does not say which"):
        read_metadata(tmp_path / "renamed.gguf")


def test_the_hash_tells_how_far_it_is_and_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_500_000))
    told: list[tuple[int, int]] = []
    assert sha256(path, lambda *at: told.append(at)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [done for done, _ in told] == [1 << 20, 2 << 20, 3 << 20, 3_500_000]
    assert {total for _, total in told} == {3_500_000}
    told.clear()
    assert sha256(path, lambda *at: told.append(at), lambda: len(told) == 2) is None
    assert len(told) == 2


def test_the_cache_grows_with_the_context() -> None:
    whole = ModelInfo("m", "m", 1_000, layers=4, cache_width=(256,) * 4)
    one = memory_estimate(whole, 4096, 1)
    assert memory_estimate(whole, 8192, 1) - one == 4096 * 4 * 256 * 2
    assert memory_estimate(whole, 4096, 2) - one == 4096 * 4 * 256 * 2


async def test_the_estimate_is_what_a_worker_takes() -> None:
    engine = Engine()
    try:
        loaded = await engine.load(GUIDE_PATH, LoadOptions(n_ctx=1024, slots=8, threads=1))
        taken = psutil.Process(loaded.pid).memory_info().rss
    finally:
        await engine.close()
    estimate = memory_estimate(read_metadata(GUIDE_PATH), loaded.n_ctx, loaded.slots)
    assert 0.7 * taken < estimate < 2 * taken


def test_heads_and_lengths_are_taken_from_the_file_and_windows_save_nothing(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "gemma3__block_count": 6,
        "gemma3__embedding_length": 64,
        "gemma3__attention__head_count": 4,
        "gemma3__attention__head_count_kv": 2,
        "gemma3__attention__key_length": 32,
        "gemma3__attention__value_length": 32,
        "gemma3__attention__sliding_window": 512,
        "gemma3__attention__sliding_window_pattern": 3,
    }
    info = read_metadata(written(tmp_path / "gemma.gguf", "gemma3", **numbers))
    assert info.cache_width == (128,) * 6
    # llama.cpp keeps the whole context of the layers with a window, too.
    assert memory_estimate(info, 8192, 2) - memory_estimate(info, 4096, 2) == 4096 * 2 * 6 * 128 * 2
    numbers["gemma3__attention__head_count_kv"] = [2, 2, 1, 2, 2, 1]
    info = read_metadata(written(tmp_path / "layers.gguf", "gemma3", **numbers))
    assert info.cache_width == (128, 128, 64) * 2


def test_impossible_dimensions_are_none_and_can_be_kept(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "llama__block_count": 4,
        "llama__embedding_length": 2**32 - 1,
        "llama__attention__head_count": 1,
        "llama__attention__key_length": 1 << 30,
        "llama__attention__head_count_kv": [1 << 30] * 4,
    }
    info = read_metadata(written(tmp_path / "wide.gguf", **numbers))
    assert info.embedding_length == 0
    assert memory_estimate(info, 1 << 24, 64) == 1 << 62
    assert msgspec.json.decode(msgspec.json.encode(info), type=ModelInfo) == info


def test_parameters_are_named_in_few_letters() -> None:
    assert [size_label(n) for n in (0, 999, 5_247_232, 7_240_000_000, 10**12)] == [
        "",
        "999",
        "5.25M",
        "7.24B",
        "1T",
    ]
