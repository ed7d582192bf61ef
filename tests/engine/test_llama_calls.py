"""The wrappers over llama.cpp: text and tokens, memory that is freed once, failures that become sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.engine import llama
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Aborted, Context, Model
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.sampler import Sampler
from infraxa.engine.types import EngineError, Sampling


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=60))
def test_tokens_give_the_text_back(text: str) -> None:
    guide = shared_guide()
    tokens = guide.tokenize(text)
    pieces = [guide.piece(t) for t in tokens]
    if None not in pieces:
        assert b"".join(p for p in pieces if p is not None).decode() == text


_shared: list[Model] = []


def shared_guide() -> Model:
    """Hypothesis calls a test many times: one model for all of them."""
    if not _shared:
        _shared.append(Model.load(GUIDE_PATH))
    return _shared[0]


def test_the_bindings_come_without_their_package_and_leave_it_usable() -> None:
    code = """
import sys, infraxa.engine.llama
assert "numpy" not in sys.modules and "llama_cpp" not in sys.modules
import llama_cpp
assert llama_cpp.Llama and llama_cpp.llama_cpp is infraxa.engine.bindings.api
import llama_cpp.llama_cpp as low
assert low.llama_decode
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_long_text_is_tokenized_whole(guide: Model) -> None:
    text = "the quick brown fox 🦜 " * 5000
    assert b"".join(guide.piece(t) or b"" for t in guide.tokenize(text)).decode() == text


def test_special_tokens_are_recognised_and_end_turns(guide: Model) -> None:
    start, end = guide.tokenize("<|im_start|><|im_end|>")
    assert guide.piece(start) == b""
    assert guide.piece(end) is None
    assert guide.special_text("eos") == "<|im_end|>"


def test_bos_is_there_exactly_once_when_the_vocabulary_asks(
    guide: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = guide.tokenize("hi")
    assert guide.bos not in plain
    monkeypatch.setattr(guide, "adds_bos", True)
    assert guide.tokenize("hi") == [guide.bos, *plain]
    assert guide.tokenize(guide.special_text("bos") + "hi") == [guide.bos, *plain]


def test_everything_is_closed_once_and_not_used_after() -> None:
    model = Model.load(GUIDE_PATH)
    context = Context(model, n_ctx=256, slots=1, n_batch=64, threads=1)
    sampler = Sampler(context, Sampling(), [1])
    for thing in (sampler, context, model):
        thing.close()
        thing.close()
    with pytest.raises(ValueError, match="closed"):
        context.decode(1)
    with pytest.raises(ValueError, match="closed"):
        Context(model, n_ctx=256, slots=1, n_batch=64, threads=1)


def test_an_abort_ends_a_decode_until_it_is_taken_back(guide: Model) -> None:
    with Context(guide, n_ctx=256, slots=1, n_batch=64, threads=1) as context:
        context.token[0], context.pos[0], context.seq[0], context.output[0] = 50, 0, 0, 1
        context.abort(True)
        with pytest.raises(Aborted):
            context.decode(1)
        context.abort(False)
        context.clear(0)
        context.decode(1)


def test_a_position_that_does_not_follow_is_an_error(guide: Model) -> None:
    with Context(guide, n_ctx=256, slots=1, n_batch=64, threads=1) as context:
        context.token[0], context.pos[0], context.seq[0], context.output[0] = 50, 0, 9, 1
        with pytest.raises(EngineError, match="failed while computing"):
            context.decode(1)


def test_loading_can_be_watched() -> None:
    seen: list[float] = []
    Model.load(GUIDE_PATH, progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[0] < 1 and seen[-1] == 1


def test_the_log_comes_in_lines(guide: Model) -> None:
    lines: list[str] = []
    silence = llama.route_log(lines.append)
    with Context(guide, n_ctx=256, slots=1, n_batch=64, threads=1):
        silence()
    assert any("n_ctx" in line for line in lines)
    assert not any("\n" in line for line in lines)
    assert not any("graph_n_input_tensors" in line for line in lines), "debug lines are left out"
    heard = len(lines)
    with Context(guide, n_ctx=256, slots=1, n_batch=64, threads=1):
        assert len(lines) == heard


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["llama_model_load: error loading model: unknown model architecture: 'zz'"], "unsupported", "“zz”"),
        (
            ["error loading model: tensor 'x' data is not within the file bounds"],
            "truncated",
            "incomplete",
        ),
        (
            ["ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9"],
            "no_memory",
            "memory",
        ),
        (["llama_model_load: error loading model: missing tensor 'output'"], "load_failed", "missing tensor"),
        (
            ["error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'q'"],
            "unsupported",
            "another version",
        ),
        ([], "load_failed", "could not load"),
    ],
)
def test_what_llama_cpp_said_becomes_one_sentence(lines: list[str], code: str, words: str) -> None:
    log = LoadLog()
    for line in lines:
        log.add(line)
    error = log.failure(Path("m.gguf"))
    assert error.code == code
    assert words in error.message
    assert error.message.endswith(".") and error.remedy.endswith(".")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    data = GUIDE_PATH.read_bytes()
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(data.replace(b"llama", b"zzama", 1))
    log = LoadLog()
    llama.route_log(log.add)
    with pytest.raises(EngineError, match="architecture “zzama”") as caught:
        Model.load(strange, log=log)
    assert caught.value.code == "unsupported"
    llama.route_log(lambda line: None)
