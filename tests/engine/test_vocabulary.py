"""Vocabularies: the same bytes for each token as in llama.cpp, exact counts, and what a hostile one costs."""

from __future__ import annotations

import os
import struct
import tracemalloc
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp.llama_cpp as bindings
import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from infraxa.engine import gguf_header
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Model, route_log
from infraxa.engine.text import TextAssembler
from infraxa.engine.types import EngineError, Request
from infraxa.engine.vocabulary import MAX_ENCODED, MAX_PIECE, MAX_TOKENS, VERSION, Vocabulary

api: Any = bindings
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = sorted(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144)]))
"""The alphabet of bytes of GPT-2."""
ENDING = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
          "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
          "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
          "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~["]  # fmt: skip
OTHERS = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|eot|>", "<|EOT|>", "<think>",
          "[unused1]", "<|tool_call|>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"]  # fmt: skip
FILL_IN = [
    ["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>",
     "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>"],
    ["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>",
     "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>"],
    ["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>",
     "\u2581<MID>", "<|code_middle|>", "<|middle|>"],
    ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ["<|file_sep|>"],
]  # fmt: skip
ID_KEYS = ["eos_token_id", "eot_token_id", "eom_token_id", "fim_pre_token_id", "prefix_token_id",
           "fim_suf_token_id", "suffix_token_id", "fim_mid_token_id", "middle_token_id",
           "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"]  # fmt: skip


def written(
    path: Path,
    kind: str,
    tokens: Sequence[str | bytes],
    types: Sequence[int] | None = None,
    pre: str = "default",
    **ids: int,
) -> Path:
    """A GGUF file of nothing but a vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens))  # type: ignore[arg-type] # of either kind
    if types is not None:
        writer.add_token_types(list(types))
    if kind in ("gpt2", "gemma4"):
        writer.add_token_merges(["a b"])
    for key, token in ids.items():
        writer.add_uint32(f"tokenizer.ggml.{key}", token)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def in_llama_cpp(path: Path) -> list[bytes]:
    """What each token stands for, of a file that llama.cpp loads; nothing of those that end a turn."""
    route_log(lambda line: None)
    params = api.llama_model_default_params()
    params.vocab_only = True
    handle = api.llama_model_load_from_file(os.fsencode(path), params)
    assert handle, "llama.cpp does not load it"
    with Model(handle, path) as model:
        return [model.piece(token) or b"" for token in range(model.n_vocab)]


def pieces(vocabulary: Vocabulary) -> list[bytes]:
    return [vocabulary.piece(token) for token in range(len(vocabulary))]


def made(*parts: bytes) -> Vocabulary:
    return Vocabulary(array("H", map(len, parts)), b"".join(parts))


def encoded(lengths: Sequence[int], joined: bytes, version: int = VERSION) -> bytes:
    return msgspec.msgpack.encode([version, struct.pack(f"<{len(lengths)}H", *lengths), joined])


def test_the_guide_has_the_pieces_of_its_model(guide: Model) -> None:
    vocabulary = read_vocabulary(GUIDE_PATH)
    assert pieces(vocabulary) == [guide.piece(token) or b"" for token in range(guide.n_vocab)]
    assert sum(map(bool, pieces(vocabulary))) > len(vocabulary) // 2


def test_one_file_has_one_hash() -> None:
    """Of another hash cards of other versions would say that somebody lies: then VERSION is another one."""
    assert read_vocabulary(GUIDE_PATH).hash.hex() == (
        "6f1542f873cff08f3aac1794aec3ca483ac190f2dc5a04d99addb64b97194bce"
    )


@pytest.mark.parametrize(
    ("kind", "pre", "alphabet"),
    [
        ("llama", "default", BYTES),
        ("t5", "default", BYTES),
        ("bert", "default", ["\u2581"]),
        ("gpt2", "gpt-2", LETTERS),
        ("gpt2", "qwen2", LETTERS),
        ("gpt2", "gemma4", [*BYTES, *LETTERS]),
        ("gpt2", "sarvam-moe", [*BYTES, *LETTERS]),
        ("gemma4", "default", BYTES),
    ],
)
def test_every_kind_and_type_is_as_in_llama_cpp(
    tmp_path: Path, kind: str, pre: str, alphabet: list[str]
) -> None:
    words = ["\u2581a", "\u0120caf\u00c3\u00a9", "\u010a\u010a", "\u8a9e", "a b", "\u2581" * 9, "", "[e~["]
    tokens = list(alphabet)
    types = [BYTE if token.startswith("<0x") else NORMAL for token in tokens]
    for kind_ in (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, 0, 9):
        for word in words:
            tokens.append(word if kind_ == NORMAL else f"{word}~{kind_}")
            types.append(kind_)
    names = [*ENDING[:-1], *OTHERS, *(names[0] for names in FILL_IN)]
    tokens += names
    types += [NORMAL] * len(names)
    path = written(tmp_path / "it.gguf", kind, tokens, types, pre)
    assert pieces(read_vocabulary(path)) == in_llama_cpp(path)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """The keys of a vocabulary that llama.cpp loads."""
    kind = draw(st.sampled_from(["llama", "gpt2", "gpt2", "gemma4"]))
    pre = draw(st.sampled_from(["default", "gpt-2", "llama-bpe", "gemma4"])) if kind == "gpt2" else "default"
    letters = [*LETTERS, " ", "\u2581", "\u0120", "\u00e9", "\u8a9e", "\U0001f600", "\n"]
    words = draw(st.lists(st.text(st.sampled_from(letters), max_size=8), max_size=20))
    names = draw(st.lists(st.sampled_from([*ENDING, *OTHERS]), max_size=8))
    # Of several names for one role, llama.cpp takes whichever its hash table has first.
    roles = [draw(st.none() | st.sampled_from(role)) for role in FILL_IN]
    alphabet = [*BYTES, *LETTERS]
    tokens = list(dict.fromkeys([*names, *filter(None, roles), *words, *alphabet]))
    kinds = st.sampled_from([NORMAL, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, 0, 77])
    chosen = [draw(kinds) for _ in range(len(tokens) - len(alphabet))]
    types = [BYTE if token in BYTES else NORMAL for token in tokens]
    types[: len(chosen)] = chosen
    ids = {key: draw(st.none() | st.integers(0, 40) | st.integers(0, 9999)) for key in ID_KEYS}
    return {
        "kind": kind,
        "pre": pre,
        "tokens": tokens,
        "types": draw(st.sampled_from([types, types, types, None])),
        **{key: token for key, token in ids.items() if token is not None},
    }


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(files())
def test_any_vocabulary_is_as_in_llama_cpp(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any]
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.gguf", **keys)
    assert pieces(read_vocabulary(path)) == in_llama_cpp(path)


def test_bytes_that_are_no_text_and_the_first_nul_are_as_in_llama_cpp(tmp_path: Path) -> None:
    tokens = [*(token.encode() for token in BYTES), b"\xff\xfe", b"a\xe2\x96", b"cut\0off", b"\0", b"<0x0a"]
    types = [*[BYTE] * 256, NORMAL, USER_DEFINED, NORMAL, NORMAL, BYTE]
    path = written(tmp_path / "it.gguf", "llama", tokens, types)
    found = pieces(read_vocabulary(path))
    assert found == in_llama_cpp(path)
    assert found[256:] == [b"\xff\xfe", b"a\xe2\x96", b"cut", b"[EMPTY_259]", b"\n"]


words = st.binary(max_size=5) | st.text(max_size=3).map(str.encode) | st.sampled_from([b"", b" a", b"\xe2"])
vocabularies = st.lists(words, min_size=1, max_size=12).map(lambda parts: made(*parts))
stops = st.lists(st.text("ab \u00e9", min_size=1, max_size=3), max_size=3).map(tuple)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Vocabulary, list[int], tuple[str, ...], list[str], str]:
    """What a worker sends of an answer: the text after each of its tokens, and what follows at its end."""
    vocabulary, stop = draw(vocabularies), draw(stops)
    assembler, ids, texts = TextAssembler(stop), [], [""]
    for token in draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=12)):
        ids.append(token)
        texts.append(texts[-1] + assembler.feed(vocabulary.piece(token)))
        if assembler.stopped:
            break
    return vocabulary, ids, stop, texts, assembler.finish()


def said_by_a_worker(vocabulary: Vocabulary, ids: list[int], stop: tuple[str, ...]) -> str | None:
    """None when it would have ended before the last of them that stands for anything."""
    assembler, text = TextAssembler(stop), ""
    for token in ids:
        if vocabulary.piece(token):
            if assembler.stopped:
                return None
            text += assembler.feed(vocabulary.piece(token))
    return text + assembler.finish()


def counting(vocabulary: Vocabulary, ids: list[int]) -> int:
    return sum(bool(vocabulary.piece(token)) for token in ids)


@settings(deadline=None, max_examples=150)
@given(answers())
def test_what_a_worker_sends_is_counted(
    answer: tuple[Vocabulary, list[int], tuple[str, ...], list[str], str],
) -> None:
    vocabulary, ids, stop, texts, rest = answer
    assert vocabulary.count(ids, texts[-1] + rest, stop) == counting(vocabulary, ids)


@settings(deadline=None, max_examples=150)
@given(answers(), st.text(min_size=1, max_size=3), st.data())
def test_another_text_is_not(
    answer: tuple[Vocabulary, list[int], tuple[str, ...], list[str], str], more: str, data: st.DataObject
) -> None:
    vocabulary, ids, stop, texts, rest = answer
    right = texts[-1] + rest
    at = data.draw(st.integers(0, len(right)))
    for wrong in (right + more, right[:at] + more + right[at:], right[:at]):
        if wrong != right:
            assert vocabulary.count(ids, wrong, stop) is None
    longer = [*ids, data.draw(st.integers(0, len(vocabulary) - 1))]
    could_be = said_by_a_worker(vocabulary, longer, stop) == right
    assert vocabulary.count(longer, right, stop) == (counting(vocabulary, longer) if could_be else None)


@settings(deadline=None, max_examples=150)
@given(answers(), st.data())
@example((made(b"a", b"b"), [0, 1, 0], (), ["", "a", "ab", "aba"], ""), None)
def test_of_a_broken_answer_those_count_of_which_text_came(
    answer: tuple[Vocabulary, list[int], tuple[str, ...], list[str], str], data: st.DataObject | None
) -> None:
    """Ids and text are sent in parts that are cut anywhere."""
    vocabulary, ids, stop, texts, _ = answer
    assume(not stop)
    here = data.draw(st.integers(0, len(ids))) if data else 1
    size = data.draw(st.integers(0, len(texts[-1]))) if data else 1
    count = vocabulary.count(ids[:here], texts[-1][:size], whole=False)
    assert count is not None
    assert count <= counting(vocabulary, ids[:here])
    came = next((n for n, text in enumerate(texts) if len(text) >= size), None)
    assert came is not None
    if came <= here:
        assert count == counting(vocabulary, ids[:came]), "each brought some of it"


def test_more_or_other_tokens_than_the_text_has_are_not_believed() -> None:
    vocabulary = made(b"", b"a", b"b", b"ab", b"\xc3", b"\xa9")
    assert vocabulary.count([1, 2, 3], "abab") == 3
    assert vocabulary.count([3, 3], "abab") == 2
    assert vocabulary.count([1, 2, 1, 2], "abab") == 4, "each way to write it is one"
    assert vocabulary.count([1, 2, 3, 1], "abab") is None
    assert vocabulary.count([1, 2], "abab") is None
    assert vocabulary.count([1, 2, 3], "abba") is None
    assert vocabulary.count([], "a") is None and vocabulary.count([0], "a") is None
    assert vocabulary.count([1, 6], "a") is None and vocabulary.count([1, -1], "ab") is None
    assert vocabulary.count([2**62], "") is None


def test_words_that_were_sent_as_letters_count_as_two_tokens_at_most() -> None:
    vocabulary = made(*(bytes([byte]) for byte in range(256)), b"hello ", b"world ", b"!" * 40)
    text = "hello world " * 20
    ids = list(text.encode())
    assert vocabulary.count(ids, text) == 240
    assert vocabulary.fair(text, 240) == 80
    assert vocabulary.fair(text, 60) == 60, "too few to tell"
    assert vocabulary.fair(text, 80) == 80, "3 bytes each are nothing unusual"
    assert vocabulary.fair(text[:120], 120) == 64
    assert vocabulary.fair("!" * 400, 400) == 400, "it has no better ones but those that are too long"
    assert vocabulary.fair("\x00\x01" * 100, 200) == 200


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_what_a_model_says_is_not_more_than_is_fair(
    open_room: Callable[..., Any], ask: Callable[..., Request], temperature: float
) -> None:
    """Drawn at a high temperature, its tokens are far from those that llama.cpp makes of the text."""
    room, vocabulary = open_room(slots=1), read_vocabulary(GUIDE_PATH)
    for seed in (1, 2, 3):
        text = room.answer(seed, ask("what is infraxa?", temperature=temperature, seed=seed, max_tokens=200))
        count = vocabulary.count(room.ids[seed], text)
        assert count is not None and vocabulary.fair(text, count) == count


def test_tokens_that_stand_for_nothing_do_not_count() -> None:
    vocabulary = made(b"", b"a")
    assert vocabulary.count([0, 1, 0, 0, 1, 0], "aa") == 2
    assert vocabulary.count([0] * 1000, "") == 0 and vocabulary.count([], "") == 0


def test_a_character_of_several_tokens_may_be_on_its_way() -> None:
    vocabulary = made(b"a", b"\xc3", b"\xa9")
    assert vocabulary.count([0, 1], "a") is None
    assert vocabulary.count([0, 1], "a\ufffd") == 2, "the engine ends it so"
    assert vocabulary.count([0, 1], "a", whole=False) == 1
    assert vocabulary.count([0, 1, 2], "a\u00e9") == 3
    assert vocabulary.count([0, 1, 2], "a") is None


def test_an_answer_ends_with_the_token_that_completes_a_stop_string() -> None:
    vocabulary = made(b"a", b"b", b"bc")
    assert vocabulary.count([0, 2], "a", ("bc",)) == 2
    assert vocabulary.count([0, 2], "a") is None, "nobody asked to stop"
    assert vocabulary.count([0, 1], "a", ("bc",)) is None
    assert vocabulary.count([0, 1], "ab", ("bc",)) == 2, "it was not"
    assert vocabulary.count([0, 2, 0], "a", ("bc",)) is None
    assert vocabulary.count([0, 2, 0], "aa", ("bc",)) is None
    assert vocabulary.count([0, 2], "abc", ("bc",)) is None


@pytest.mark.parametrize("sampling", [{}, {"stop": ("e",)}, {"stop": ("the", ". ")}, {"max_tokens": 7}])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_answers_of_the_engine_are_counted(
    open_room: Callable[..., Any], ask: Callable[..., Request], sampling: dict[str, Any], seed: int
) -> None:
    room, vocabulary = open_room(slots=1), read_vocabulary(GUIDE_PATH)
    request = ask("what is infraxa?", temperature=1.5, seed=seed, **{"max_tokens": 60, **sampling})
    text = room.answer(seed, request)
    ids = room.ids[seed]
    assert len(ids) == room.ended[seed].usage.n_out > 0
    assert vocabulary.count(ids, text, sampling.get("stop", ())) == counting(vocabulary, ids) > 0
    assert vocabulary.count([*ids, ids[-1]], text, sampling.get("stop", ())) is None


@settings(deadline=None, max_examples=100)
@given(vocabularies)
def test_what_is_encoded_is_decoded(vocabulary: Vocabulary) -> None:
    again = Vocabulary.decode(vocabulary.encode())
    assert (pieces(again), again.hash) == (pieces(vocabulary), vocabulary.hash)


@settings(deadline=None, max_examples=150)
@given(vocabularies.map(Vocabulary.encode), st.data())
def test_no_bytes_break_what_reads_them(data: bytes, changes: st.DataObject) -> None:
    broken = bytearray(data)
    for _ in range(changes.draw(st.integers(1, 4))):
        broken[changes.draw(st.integers(0, len(broken) - 1))] = changes.draw(st.integers(0, 255))
    try:
        found = Vocabulary.decode(bytes(broken[: changes.draw(st.integers(0, len(broken)))]))
    except ValueError:
        return
    assert len(b"".join(pieces(found))) <= len(broken)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([VERSION, b"\1\0"]),
        msgspec.msgpack.encode([VERSION, "ab", "a"]),
        encoded([], b""),
        encoded([1, 1], b"a"),
        encoded([1], b"ab"),
        encoded([1], b"a", version=VERSION + 1),
        msgspec.msgpack.encode([VERSION, b"\1\0\1", b"a"]),
        encoded([0] * (MAX_TOKENS + 1), b""),
        encoded([0], bytes(MAX_ENCODED)),
        b"\x91" * 100_000,
    ],
)
def test_a_wrong_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]{1,60}\Z"):
        Vocabulary.decode(data)


def test_few_ids_of_long_pieces_cost_no_memory() -> None:
    vocabulary = Vocabulary.decode(encoded([MAX_PIECE, 1], bytes(MAX_PIECE + 1)))
    ids = [0] * 100_000  # 6 GB
    tracemalloc.start()
    try:
        assert vocabulary.count(ids, "a" * 1000) is None
        assert vocabulary.count(ids, "a" * 1000, whole=False) is None
        assert vocabulary.count(ids, "\0" * 1000, whole=False) == 1
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def refusal(path: Path) -> EngineError:
    with pytest.raises(EngineError) as raised:
        read_vocabulary(path)
    assert len(raised.value.message) < 600 and "\n" not in raised.value.message
    return raised.value


@pytest.mark.parametrize(
    ("kind", "tokens", "types"),
    [
        ("rwkv", ["a"], None),
        ("plamo2", ["a"], None),
        ("no_vocab", ["a"], None),
        ("llama", ["a", "b", "a"], None),
        ("llama", ["a", "[EMPTY_0]", ""], [NORMAL, NORMAL]),
        ("llama", ["a", "b"], [NORMAL]),
        ("llama", ["<0xZZ>"], [BYTE]),
        ("llama", ["a"], [BYTE]),
        ("llama", ["a" * (MAX_PIECE + 1)], None),
        ("gpt2", [b"\xff"], None),
        ("gpt2", ["\u8a9e" * 5000], None),
        ("gpt2", ["\U0001f600" * (1 << 20)], None),
    ],
)
def test_a_vocabulary_that_cannot_be_one_is_refused(
    tmp_path: Path, kind: str, tokens: list[str | bytes], types: list[int] | None
) -> None:
    path = written(tmp_path / "it.gguf", kind, tokens, types)
    tracemalloc.start()
    try:
        assert refusal(path).code == "unsupported"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def file_of(path: Path, *pairs: bytes, n_keys: int | None = None) -> Path:
    count = len(pairs) if n_keys is None else n_keys
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, count) + b"".join(pairs))
    return path


TOKENS_KEY = text(b"tokenizer.ggml.tokens") + struct.pack("<I", 9)
MODEL = text(b"tokenizer.ggml.model") + struct.pack("<I", 8) + text(b"llama")


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        (TOKENS_KEY + struct.pack("<IQ", 8, 2**40), "not_gguf"),
        (TOKENS_KEY + struct.pack("<IQ", 8, 5) + text(b"a"), "truncated"),
        (TOKENS_KEY + struct.pack("<IQ", 8, 1) + struct.pack("<Q", 2**63), "unsupported"),
        (TOKENS_KEY + struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1000), "truncated"),
        (TOKENS_KEY + struct.pack("<IQ", 5, 2) + bytes(8), "unsupported"),
        (TOKENS_KEY + struct.pack("<IQ", 6, 2) + bytes(8), "unsupported"),
        (TOKENS_KEY + struct.pack("<IQ", 8, 0), "unsupported"),
        (text(b"tokenizer.ggml.tokens") + struct.pack("<I", 8) + text(b"a"), "unsupported"),
        (text(b"other") + struct.pack("<I", 8) + text(b"a"), "unsupported"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, tokens: bytes, code: str) -> None:
    assert refusal(file_of(tmp_path / "it.gguf", MODEL, tokens)).code == code


def test_longer_lists_than_any_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "it.gguf", "llama", [f"token {n}" for n in range(5000)])
    assert len(read_vocabulary(path)) == 5000
    monkeypatch.setattr(gguf_header, "MAX_WHOLE", 4999)
    assert refusal(path).code == "unsupported"
    monkeypatch.setattr(gguf_header, "MAX_WHOLE", 5000)
    monkeypatch.setattr(gguf_header, "MAX_WHOLE_BYTES", 20_000)
    assert refusal(path).code == "unsupported"


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_change_of_a_file_breaks_what_reads_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    written(path, "gpt2", ["a", "b", "<0x0A>", "\u0120word"], [NORMAL, CONTROL, BYTE, NORMAL], eos_token_id=1)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = read_vocabulary(path)
    except EngineError as error:
        assert error.code in {"not_gguf", "truncated", "unsupported"}
    else:
        assert len(found.encode()) <= MAX_ENCODED
