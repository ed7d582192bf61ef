"""`infraxa ask`: what comes on standard output, what is read, and how Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from infraxa.engine.guide import GUIDE_PATH
from tests.app.command_line import COMMAND, LIMIT, environment, infraxa, one_line
from tests.e2e.terminal import Terminal

ENDLESS = ("--temperature", "5", "--seed", "1")
"""Talks nonsense until its context is full."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_the_answer_and_nothing_else_is_on_standard_output(data: Path) -> None:
    ran = infraxa("ask", "What is 2+2?", data=data)
    assert (ran.code, ran.err) == (0, "")
    assert "4" in ran.out and ran.out.endswith("\n") and not ran.out.endswith("\n\n")
    assert not data.exists()


def test_json_has_the_text_the_counts_and_the_times(data: Path) -> None:
    ran = infraxa("ask", "--json", data=data, stdin="What is 2+2?\n")
    assert (ran.code, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert "4" in answer["text"]
    assert (answer["model"], answer["finish"], answer["error"]) == ("guide", "stop", None)
    assert answer["n_prompt"] > 5 and answer["n_out"] > 5
    assert answer["first_token_ms"] > 0 and answer["tokens_per_second"] > 0 and answer["load_ms"] > 0


def n_prompt(data: Path, *arguments: str, stdin: str = "") -> int:
    ran = infraxa("ask", *arguments, "--json", "--max-tokens", "1", data=data, stdin=stdin)
    assert ran.code == 0, ran
    return int(json.loads(ran.out)["n_prompt"])


def test_what_is_piped_in_follows_the_question_and_system_goes_before(data: Path) -> None:
    question, piped = n_prompt(data, "word"), n_prompt(data, stdin="word word word\n")
    both = n_prompt(data, "word", stdin="word word word\n")
    assert question < piped < both
    assert n_prompt(data, "word", "--system", "Say word.") > question
    assert n_prompt(data, "word", stdin="\n") == question


def test_the_answer_is_cut_and_says_so_beside_it(data: Path) -> None:
    ran = infraxa("ask", "What is infraxa?", "--max-tokens", "3", data=data)
    assert ran.code == 0
    assert ran.err == "infraxa: the answer was cut after 3 tokens.\n"


def test_a_seed_fixes_the_draw_and_temperature_comes_from_the_settings(data: Path) -> None:
    def say(*arguments: str, **env: str) -> str:
        return infraxa("ask", "Tell me a story", "--max-tokens", "12", *arguments, data=data, env=env).out

    assert say("--temperature", "2", "--seed", "3") == say("--temperature", "2", "--seed", "3")
    assert say("--seed", "3", INFRAXA_TEMPERATURE="2") == say("--temperature", "2", "--seed", "3")
    assert say("--seed", "4", "--temperature", "2") != say("--seed", "3", "--temperature", "2")


def test_a_file_can_be_asked_without_adding_it(data: Path) -> None:
    ran = infraxa("ask", "What is 2+2?", "--model", str(GUIDE_PATH), "--json", data=data)
    assert json.loads(ran.out)["model"] == str(GUIDE_PATH)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hi", "--model", "nothing"), "no model named nothing"),
        (("hi", "--model", "./nothing.gguf"), "There is no file"),
        (("word " * 500, "--context", "64"), "tokens long, and this model's context holds 64"),
    ],
)
def test_what_cannot_be_answered_is_one_line(data: Path, arguments: tuple[str, ...], words: str) -> None:
    one_line(infraxa("ask", *arguments, data=data), words)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("  ",),
        ("hi", "--threads", "0"),
        ("hi", "--max-tokens", "0"),
        ("hi", "--seed", "-1"),
        ("hi", "you"),
    ],
)
def test_wrong_usage_is_2(data: Path, arguments: tuple[str, ...]) -> None:
    ran = infraxa("ask", *arguments, data=data)
    assert ran.code == 2 and ran.out == "" and ran.err
    assert "Traceback" not in ran.err


def start(data: Path, *arguments: str, stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "ask", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(data),
        cwd=data.parent,
        start_new_session=True,
    )


def test_ctrl_c_keeps_what_was_said_and_ends_with_130(data: Path) -> None:
    with start(data, "Tell me a story", *ENDLESS, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 100)
        # The whole group gets the signal, as from a terminal: the worker must not die of it first.
        os.killpg(process.pid, signal.SIGINT)
        rest, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert first and err == b""
    assert (first + rest).endswith(b"\n")


def test_ctrl_c_before_the_answer_ends_with_130(data: Path) -> None:
    with start(data, "Tell me a story", stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        # It waits for the end of its input, and says so.
        assert b"waiting for the end of standard input" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_nobody_reads_the_answer(data: Path) -> None:
    with start(data, "Tell me a story", *ENDLESS, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (141, b"")


QUESTION = "What is infraxa?"
SEQUENCE = "\x1b[41m"


def hostile(folder: Path, said: str) -> Path:
    """The guide with an escape sequence in its vocabulary, in place of each word that it said."""
    content = GUIDE_PATH.read_bytes()
    for word in sorted(set(re.findall(r"(?<= )[a-z]{5,}", said))):
        # In the vocabulary a space is Ġ and the escape character is ě, two bytes each.
        entry = f"Ġ{word}".encode()
        other = f"ě[41m{word[4:]}".encode()
        length = len(entry).to_bytes(8, "little")
        content = content.replace(length + entry, length + other, 1)
    path = folder / "hostile.gguf"
    path.write_bytes(content)
    return path


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(data: Path, tmp_path: Path) -> None:
    said = infraxa("ask", QUESTION, data=data).out
    arguments = ["ask", QUESTION, "--model", str(hostile(tmp_path, said))]
    assert SEQUENCE in infraxa(*arguments, data=data).out
    with closing(Terminal([*COMMAND, *arguments], environment(data))) as terminal:
        assert terminal.wait_exit(seconds=60) == 0
        assert "[41m" in terminal.text
        assert SEQUENCE.encode() not in terminal.raw


def test_it_works_while_the_data_folder_is_locked(data: Path) -> None:
    from infraxa.store.lock import FolderLock

    with FolderLock.acquire(data):
        began = time.monotonic()
        assert infraxa("ask", "What is 2+2?", data=data).code == 0
        assert time.monotonic() - began < LIMIT
