"""Which model answers, with which sampling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from infraxa.app.choices import GUIDE_LABEL, find_model, model_entries, resolve_sampling
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.model_check import check_model, check_name, name_of
from infraxa.engine import models
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.models import ModelInfo
from infraxa.engine.types import EngineError, Sampling
from infraxa.store.records import ChatOptions, ModelRecord, StoreError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(GUIDE_PATH, tmp_path / "My Model v1.gguf"))


def record(path: Path, name: str = "mine") -> ModelRecord:
    stat, info = path.stat(), models.read_metadata(path)
    return ModelRecord(
        name, str(path), "0" * 64, stat.st_size, stat.st_mtime_ns, 1, msgspec.json.encode(info)
    )


def test_the_guide_is_first_and_labelled(copy: Path) -> None:
    guide, mine = model_entries([record(copy)])
    assert (guide.name, guide.label, guide.builtin, guide.problem) == ("guide", GUIDE_LABEL, True, "")
    assert (mine.name, mine.builtin, mine.problem, mine.path) == ("mine", False, "", str(copy))
    assert mine.quantization == "Q8_0" and mine.info.sampling == guide.info.sampling


def test_a_missing_or_changed_file_has_a_problem(copy: Path) -> None:
    kept = record(copy)
    os.utime(copy, ns=(1, 1))
    assert "has changed" in model_entries([kept])[1].problem
    copy.unlink()
    assert f"{copy} is missing" in model_entries([kept])[1].problem


def test_metadata_of_another_version_is_no_error(copy: Path) -> None:
    kept = msgspec.structs.replace(record(copy), metadata=b'{"other": 1}')
    entry = model_entries([kept])[1]
    assert (entry.name, entry.path, entry.problem) == ("mine", str(copy), "")


def test_a_model_is_found_by_name_or_by_file(copy: Path) -> None:
    entries = model_entries([record(copy)])
    assert find_model("mine", entries) is entries[1]
    by_file = find_model(str(copy), entries)
    assert (by_file.path, by_file.quantization) == (str(copy), "Q8_0")
    with pytest.raises(NodeError, match="no model named mien") as raised:
        find_model("mien", entries)
    assert raised.value.code == "no_model" and "Did you mean mine?" in raised.value.remedy
    with pytest.raises(EngineError, match="no file"):
        find_model("./nothing.gguf", entries)


def test_asked_for_goes_before_set_before_the_models_own_before_llama_cpps() -> None:
    info = ModelInfo("m", "m", 1, sampling={"temperature": 0.6, "top_k": 20.0, "min_p": 0.1})
    entry = msgspec.structs.replace(model_entries([])[0], info=info)
    assert resolve_sampling(ChatOptions(), Settings(), entry) == Sampling(
        temperature=0.6, top_k=20, min_p=0.1
    )
    settings = Settings(temperature=0.3)
    assert resolve_sampling(ChatOptions(), settings, entry).temperature == 0.3
    options = ChatOptions(temperature=0.0, top_k=0, stop=("END",), seed=0, max_tokens=5)
    assert resolve_sampling(options, settings, entry) == Sampling(
        temperature=0.0, top_k=0, min_p=0.1, stop=("END",), seed=0, max_tokens=5
    )


async def test_a_good_file_is_examined(copy: Path) -> None:
    told: list[tuple[int, int]] = []
    size = len(GUIDE_PATH.read_bytes())
    found = await check_model(copy, None, lambda done, total: told.append((done, total)))
    assert (found.name, found.path, found.size) == ("My-Model-v1", str(copy), size)
    assert found.sha256 == models.sha256(copy)
    assert told[-1] == (size, size)
    assert msgspec.json.decode(found.metadata, type=ModelInfo) == models.read_metadata(copy)


async def test_a_model_larger_than_the_memory_needs_force(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infraxa.app.model_check.free_memory", lambda: 50 << 20)
    with pytest.raises(EngineError, match=r"0\.1 GB of memory .* 0\.1 GB are free") as raised:
        await check_model(copy)
    assert raised.value.code == "no_memory" and "--force" in raised.value.remedy
    assert (await check_model(copy, force=True)).name == "My-Model-v1"


@pytest.mark.parametrize("name", ["guide", "", "a b", "a/b", "-x", "x" * 101, "a\x1b", "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(NodeError) as raised:
        check_name(name)
    assert raised.value.code == "bad_name"


@pytest.mark.parametrize(
    ("file", "name"),
    [("Qwen2.5-7B-Q4_K_M.gguf", "Qwen2.5-7B-Q4_K_M"), ("m-00001-of-00003.gguf", "m"), ("…!.gguf", "model")],
)
def test_a_model_that_nobody_named_is_named_after_its_file(file: str, name: str) -> None:
    assert name_of(Path(file)) == name
    assert check_name(name_of(Path(file))) == name


async def test_a_file_or_name_that_is_known_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "there-is-no-such-file.gguf"
    known = ModelRecord("mine", str(path), "", 1, 1, 1, b"")
    with pytest.raises(StoreError, match="already here, as mine"):
        await check_model(path, known=[known])
    with pytest.raises(StoreError, match="There is a model named mine"):
        await check_model(tmp_path / "other.gguf", "mine", known=[known])
