"""What a person writes for a model of the hub, and which file of a repository is meant by it."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.app import hub_names
from infraxa.app.errors import NodeError
from infraxa.app.hub_curated import CURATED
from infraxa.app.hub_names import choose, is_safe, memory_needed, parse, quant_of, variants
from infraxa.app.hub_values import HubFile

GB = 1_000_000_000


def files(*named: str, size: int = GB) -> list[HubFile]:
    return [HubFile(name, size * (at + 1)) for at, name in enumerate(named)]


def chosen(repo_files: list[HubFile], quant: str = "", free: int = 64 * GB) -> tuple[list[str], str]:
    variant, note = choose("a/b", variants(repo_files), quant, free)
    return [file.path for file in variant.files], note


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Qwen/Qwen3-4B-GGUF", ("Qwen/Qwen3-4B-GGUF", "")),
        (" Qwen/Qwen3-4B-GGUF:q4_k_m ", ("Qwen/Qwen3-4B-GGUF", "q4_k_m")),
        ("a/b:folder/model.gguf", ("a/b", "folder/model.gguf")),
        ("https://huggingface.co/a/b", ("a/b", "")),
        ("https://huggingface.co/a/b/", ("a/b", "")),
        ("https://huggingface.co/a/b/tree/main", ("a/b", "")),
        ("huggingface.co/a/b:Q8_0", ("a/b", "Q8_0")),
        ("hf.co/a/b:Q8_0", ("a/b", "Q8_0")),
        ("https://huggingface.co/a/b/blob/main/x/y-Q8_0.gguf?download=true", ("a/b", "x/y-Q8_0.gguf")),
    ],
)
def test_what_is_written(text: str, meant: tuple[str, str]) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a/b/c",
        "../x",
        "a/..",
        "a/b..c",
        "/a/b",
        "a/b c",
        "a/-b",
        "a/b\n",
        "-/x",
        "a/ü",
        "a" * 99 + "/b",
    ],
)
def test_what_is_no_repository_is_said(text: str) -> None:
    if text == "a/b\n":  # a line that was pasted with its end
        assert parse(text) == ("a/b", "")
        return
    with pytest.raises(NodeError) as caught:
        parse(text)
    assert caught.value.code == "bad_repo"


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "F16"),
        ("x-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("x-IQ2_XXS.gguf", "IQ2_XXS"),
        ("x_Q4_K_M_imat.gguf", "Q4_K_M"),
        ("Q5_K_S/model.gguf", "Q5_K_S"),
        ("Q5_K_S/model-Q6_K.gguf", "Q6_K"),
        ("Qwen3-4B.gguf", ""),
    ],
)
def test_the_quantization_is_read_from_the_name(path: str, quant: str) -> None:
    assert quant_of(path) == quant


@given(st.text(max_size=40))
def test_no_path_leads_out_of_the_folder(text: str) -> None:
    for path in (text, text + ".gguf", f"{text}/a.gguf", f"../{text}.gguf"):
        if is_safe(path):
            name = hub_names.base_name(path)
            assert PurePosixPath(name).name == name and ".." not in path.split("/")
            assert not path.startswith("/") and "\\" not in path and "\0" not in path and ":" not in path
            assert not any(ord(letter) < 32 for letter in path) and not name.startswith(".")


def test_safe_names_are_taken() -> None:
    assert is_safe("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf") and is_safe("Q4_K_M/a-00001-of-00002.gguf")
    assert not is_safe("a" * 300 + ".gguf") and not is_safe("a/" * 20 + "b.gguf")


def test_the_usual_one_is_taken_where_none_was_named() -> None:
    repo = files("m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf")
    assert chosen(repo) == (["m-Q4_K_M.gguf"], "Q4_K_M is taken, as no quantization was named.")
    assert chosen(repo, free=0)[0] == ["m-Q4_K_M.gguf"], "it is warned of, not replaced"
    assert chosen(files("only.gguf")) == (["only.gguf"], "")


def test_without_the_usual_one_the_best_that_fits_is_taken() -> None:
    repo = files("m-Q2_K.gguf", "m-Q5_K_M.gguf", "m-Q8_0.gguf", "m-F16.gguf")
    assert chosen(repo)[0] == ["m-Q8_0.gguf"]
    assert chosen(repo, free=memory_needed(2 * GB)) == (
        ["m-Q5_K_M.gguf"],
        "There is no Q4_K_M; Q5_K_M is the best that fits in the memory.",
    )
    path, note = chosen(repo, free=0)
    assert path == ["m-Q2_K.gguf"] and "none fits" in note
    assert chosen(files("m-F16.gguf", "m-F32.gguf"))[0] == ["m-F32.gguf"], "there is nothing else"


def test_a_quantization_is_found_in_any_spelling() -> None:
    repo = files("m-q4_k_m.gguf", "m-fp16.gguf", "m-UD-Q2_K_XL.gguf")
    for text, path in (("Q4_K_M", "m-q4_k_m.gguf"), ("fp16", "m-fp16.gguf"), ("f16", "m-fp16.gguf")):
        assert chosen(repo, text)[0] == [path]
    assert chosen(repo, "q2_k_xl")[0] == ["m-UD-Q2_K_XL.gguf"]
    with pytest.raises(NodeError) as caught:
        chosen(repo, "Q9")
    assert caught.value.code == "no_quant" and caught.value.remedy == "There are: Q4_K_M, F16, UD-Q2_K_XL."


def test_a_file_is_named_by_itself_or_with_its_folder() -> None:
    repo = files("x/m-Q4_K_M.gguf", "y/m-Q4_K_M.gguf", "z.gguf")
    assert chosen(repo, "z.gguf")[0] == ["z.gguf"]
    assert chosen(repo, "y/m-Q4_K_M.gguf")[0] == ["y/m-Q4_K_M.gguf"]
    for quant in ("Q4_K_M", "m-Q4_K_M.gguf", ""):
        with pytest.raises(NodeError) as caught:
            chosen(repo, quant)
        assert caught.value.code == "many_files" and "a/b:x/m-Q4_K_M.gguf" in caught.value.remedy


def test_all_parts_of_a_split_model_come_together_and_in_order() -> None:
    repo = files("m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q4_0-00001-of-00003.gguf")
    assert chosen(repo, "Q8_0")[0] == ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"]
    with pytest.raises(NodeError):  # parts are missing
        chosen(repo, "Q4_0")


def test_what_cannot_answer_is_not_there() -> None:
    repo = [*files("mmproj-model-f16.gguf", "x.imatrix.gguf", "README.md", "a.bin"), HubFile("b.gguf", 0)]
    with pytest.raises(NodeError) as caught:
        chosen(repo)
    assert caught.value.code == "no_gguf"


def test_a_long_list_of_choices_is_cut() -> None:
    with pytest.raises(NodeError) as caught:
        chosen(files(*(f"m{number}.gguf" for number in range(3000))), "Q4_K_M")
    assert len(caught.value.remedy) < 500 and "and 2976 more" in caught.value.remedy


def test_the_short_list_is_written_as_it_is_pulled() -> None:
    for one in CURATED:
        assert parse(one.text) == (one.repo, one.quant)
        assert one.size < one.memory < 2.2 * one.size
    assert [one.kind for one in CURATED].count("embedding") == 1 and len(CURATED) == 9
