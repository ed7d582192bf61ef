"""`infraxa models`: what is added, shown and removed, and that a bad file adds nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine.guide import GUIDE_PATH
from tests.app.command_line import COMMAND, environment, infraxa, make_sparse, one_line
from tests.app.networked import running
from tests.e2e.terminal import Terminal


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(GUIDE_PATH, tmp_path / "little.gguf"))


def models(data: Path) -> list[dict[str, Any]]:
    ran = infraxa("models", "list", "--json", data=data)
    assert ran.code == 0, ran
    found: list[dict[str, Any]] = json.loads(ran.out)
    return found


def test_on_a_fresh_machine_there_is_the_guide_and_nothing_is_written(data: Path) -> None:
    ran = infraxa("models", "list", data=data)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.split("\t")[:4] == ["*", "guide", "5M", "Q8_0"]
    assert ran.out.endswith("\tbuilt-in guide (tiny)\n")
    assert not data.exists()


def test_a_model_is_added_used_by_default_shown_and_removed(data: Path, file: Path) -> None:
    ran = infraxa("models", "add", "little.gguf", data=data)
    assert ran.code == 0 and ran.err == "", ran
    assert "Added little (5M · Q8_0 · 5.7 MB)." in ran.out and "answers new chats" in ran.out
    guide, little = models(data)
    assert (guide["default"], little["default"]) == (False, True)
    assert little["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert little["path"] == str(file) and little["problem"] is None

    again = infraxa("models", "add", str(file), data=data)
    one_line(again, "is already here, as little")
    other = Path(shutil.copy(file, file.with_name("other.gguf")))
    one_line(infraxa("models", "add", str(other), "--name", "little", data=data), "--name")
    second = json.loads(infraxa("models", "add", str(other), "--name", "second", "--json", data=data).out)
    assert (second["name"], second["default"]) == ("second", False)

    shown = infraxa("models", "show", "little", data=data)
    assert "architecture\tllama\n" in shown.out and "SHA-256\t" in shown.out and "license\tMIT" in shown.out
    answer = infraxa("ask", "What is 2+2?", "--model", "little", "--json", data=data)
    assert json.loads(answer.out)["model"] == "little"

    removed = infraxa("models", "remove", "little", data=data)
    assert removed.code == 0 and f"Its file stays: {file}" in removed.out
    assert file.exists()
    assert [(model["name"], model["default"]) for model in models(data)] == [
        ("guide", True),
        ("second", False),
    ]


def test_a_name_that_is_taken_by_default_gets_a_number(data: Path, file: Path) -> None:
    (data.parent / "other").mkdir()
    shutil.copy(file, data.parent / "other" / "little.gguf")
    shutil.copy(file, data.parent / "guide.gguf")
    for path in ("little.gguf", "other/little.gguf", "guide.gguf"):
        assert infraxa("models", "add", path, data=data).code == 0
    assert [model["name"] for model in models(data)] == ["guide", "little", "little-2", "guide-2"]


def test_a_missing_file_is_flagged_and_not_asked(data: Path, file: Path) -> None:
    assert infraxa("models", "add", str(file), data=data).code == 0
    file.unlink()
    assert f"The file {file} is missing." in infraxa("models", "list", data=data).out
    one_line(infraxa("ask", "hi", "--model", "little", data=data), "is missing")


def bad_architecture(content: bytes) -> bytes:
    return content.replace(b"llama", b"zzama")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GUIDE_PATH.read_bytes()[:-40_000], "is not complete"),
        (GUIDE_PATH.read_bytes()[:3000], "is not complete"),
        (b"Dear model,\n" * 1000, "is not a GGUF file"),
        (b"", "is not a GGUF file"),
        (bad_architecture(GUIDE_PATH.read_bytes()), "“zzama”, which this llama.cpp does not know"),
    ],
    ids=["truncated", "only the header", "text", "empty", "unknown architecture"],
)
def test_a_bad_file_is_one_line_and_adds_nothing(data: Path, content: bytes, words: str) -> None:
    (data.parent / "bad.gguf").write_bytes(content)
    one_line(infraxa("models", "add", "bad.gguf", data=data), words)
    assert [model["name"] for model in models(data)] == ["guide"]
    assert not (data / "config.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "nothing.gguf"), "There is no file"),
        (("add", "."), "is a folder"),
        (("show", "gide"), "Did you mean guide?"),
        (("remove", "nothing"), "no model named nothing"),
        (("remove", "guide"), "cannot be removed"),
    ],
)
def test_what_is_not_there_is_one_line(data: Path, arguments: tuple[str, ...], words: str) -> None:
    one_line(infraxa("models", *arguments, data=data), words)


def test_a_bad_name_adds_nothing(data: Path, file: Path) -> None:
    for name in ("guide", "a b", "../x"):
        one_line(infraxa("models", "add", str(file), "--name", name, data=data), "name")
    assert [model["name"] for model in models(data)] == ["guide"]


def test_ctrl_c_while_hashing_adds_nothing(data: Path, file: Path) -> None:
    make_sparse(file, 1 << 30)
    with closing(Terminal([*COMMAND, "models", "add", str(file)], environment(data))) as terminal:
        terminal.wait_for("SHA-256")
        terminal.press("ctrl+c")
        assert terminal.wait_exit() == 130
        assert "nothing was added" in terminal.text
    assert [model["name"] for model in models(data)] == ["guide"]


def test_a_table_on_a_terminal_has_a_header_and_a_dumb_one_has_lines(data: Path) -> None:
    command = [*COMMAND, "models", "list"]
    with closing(Terminal(command, environment(data), size=(120, 24))) as terminal:
        assert terminal.wait_exit() == 0
        assert "quantization" in terminal.text and "built-in guide (tiny)" in terminal.text
        assert b"\x1b[1m" in terminal.raw  # the header is bold
    with closing(Terminal(command, environment(data, TERM="dumb"), size=(120, 24))) as terminal:
        assert terminal.wait_exit() == 0
        assert "quantization" not in terminal.text and "guide" in terminal.text
        assert b"\x1b" not in terminal.raw


def test_the_names_complete(data: Path, file: Path) -> None:
    assert infraxa("models", "add", str(file), data=data).code == 0
    completion = {
        "_INFRAXA_COMPLETE": "complete_bash",
        "COMP_WORDS": "infraxa models show ",
        "COMP_CWORD": "3",
    }
    assert infraxa(data=data, env=completion).out.split() == ["guide", "little"]
    (data / "infraxa.db").write_bytes(b"damaged" * 100)
    ran = infraxa(data=data, env=completion)
    assert (ran.out.split(), ran.err) == (["guide"], "")


async def test_beside_a_node_it_is_said_what_is_loaded(data: Path, file: Path) -> None:
    async with running(data, online=False, threads=1) as node:
        await node.add_model(file, "little")
        await node.use_model("guide")
        listed = (await asyncio.to_thread(infraxa, "models", "list", data=data)).out.splitlines()
        assert [line.split("\t")[7] for line in listed] == ["yes", ""]
        facts = json.loads((await asyncio.to_thread(infraxa, "models", "list", "--json", data=data)).out)
        assert [model["loaded"] for model in facts] == [True, False]
    assert "loaded" not in models(data)[0]
