"""What goes wrong on a person's machine: each is one clear line, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infraxa.engine.guide import GUIDE_PATH
from tests.e2e.conftest import INFRAXA, Open, retype, started
from tests.e2e.terminal import Terminal


def streaming(open_app: Open, slow_model: Path) -> tuple[Terminal, psutil.Process]:
    """An app in the middle of an answer, and its worker."""
    app = started(open_app(INFRAXA_MODEL=str(slow_model), INFRAXA_TEMPERATURE="0"))
    app.send("tell me something")
    app.wait_for("tell me something")
    app.press("enter")
    app.wait_for("tok/s", seconds=60)
    children = psutil.Process(app.process.pid).children()
    worker = next(child for child in children if "infraxa.engine.worker" in child.cmdline())
    return app, worker


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*INFRAXA, *arguments], env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def last_answer(data: Path) -> tuple[str, str]:
    """Text and state of the newest answer in the store."""
    with sqlite3.connect(f"file:{data / 'infraxa.db'}?mode=ro", uri=True) as conn:
        row = conn.execute(
            "SELECT content, state FROM messages WHERE role = 'assistant' ORDER BY id DESC LIMIT 1"
        ).fetchone()
    return str(row[0]), str(row[1])


def test_the_worker_is_killed_in_mid_answer(open_app: Open, slow_model: Path, tmp_path: Path) -> None:
    app, worker = streaming(open_app, slow_model)
    worker.kill()
    app.wait_for("killed by signal 9")
    text, state = last_answer(tmp_path / "data")
    assert state == "failed" and text
    app.wait_for("ready", seconds=60)
    app.send("and now?")
    app.press("enter")
    app.wait_for(lambda screen: screen.count("You") >= 1 and "tok/s" in screen, seconds=60)
    app.press("esc")
    app.wait_for("stopped")
    app.press("ctrl+q")
    assert app.wait_exit() == 0


def test_the_app_is_killed_in_mid_answer(open_app: Open, slow_model: Path, tmp_path: Path) -> None:
    app, worker = streaming(open_app, slow_model)
    app.read(0.6)  # a tick or two of storing
    os.kill(app.process.pid, signal.SIGKILL)
    app.wait_exit()
    worker.wait(15)  # it ends by itself when nobody listens
    again = started(open_app(INFRAXA_MODEL=str(slow_model)))
    again.wait_for("interrupted")
    text, state = last_answer(tmp_path / "data")
    assert state == "interrupted" and text
    again.press("f5")
    again.wait_gone("interrupted")
    again.wait_for("tok/s", seconds=60)
    again.press("esc")
    again.wait_for("stopped")
    again.press("ctrl+q")
    assert again.wait_exit() == 0
    longer, _ = last_answer(tmp_path / "data")
    assert longer.startswith(text) and len(longer) > len(text)


def test_a_terminal_that_hangs_up_ends_everything(open_app: Open, slow_model: Path, tmp_path: Path) -> None:
    app, worker = streaming(open_app, slow_model)
    os.kill(app.process.pid, signal.SIGHUP)
    assert app.wait_exit() == 128 + signal.SIGHUP
    worker.wait(15)
    assert last_answer(tmp_path / "data")[1] == "stopped"


def test_data_of_a_newer_infraxa_is_left_alone(open_app: Open, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with sqlite3.connect(data / "infraxa.db") as conn:
        conn.execute("PRAGMA user_version = 999")
        conn.execute("CREATE TABLE later (x)")
    before = (data / "infraxa.db").read_bytes()
    app = open_app()
    assert app.wait_exit() == 1
    assert "999" in app.text and "newer" in app.text
    assert (data / "infraxa.db").read_bytes() == before


def test_a_dumb_terminal_is_told_what_to_use(environment: dict[str, str], open_app: Open) -> None:
    app = open_app(TERM="dumb")
    assert app.wait_exit() == 1
    assert "infraxa ask" in app.text
    piped = run(env=environment)
    assert piped.returncode == 1 and "infraxa ask" in one_line(piped.stderr)


def test_a_broken_theme_is_said_and_the_default_shown(open_app: Open, tmp_path: Path) -> None:
    themes = tmp_path / "data" / "themes"
    themes.mkdir(parents=True)
    (themes / "mine.toml").write_text('name = "mine"\nprimary = "no colour at all"\n')
    app = started(open_app(INFRAXA_THEME="mine"))
    app.wait_for("mine")
    app.press("ctrl+q")
    assert app.wait_exit() == 0


def test_a_tiny_terminal_can_still_chat_or_says_so(open_app: Open) -> None:
    app = open_app(size=(40, 10))
    app.wait_for("Ask anything")
    app.send("What is 2+2?")
    app.press("enter")
    app.wait_for("answer is 4", seconds=60)
    app.resize(20, 5)
    app.wait_for("needs a")
    app.resize(100, 30)
    app.wait_for("The answer is 4")
    app.press("ctrl+q")
    assert app.wait_exit() == 0


def test_bad_model_files_are_one_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("this is no model\n" * 100)
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(GUIDE_PATH.read_bytes()[:3_000_000])
    for path in (text, truncated, tmp_path / "missing.gguf", tmp_path):
        result = run("models", "add", str(path), env=environment)
        assert result.returncode == 1, result
        assert one_line(result.stderr)
    listed = run("models", "list", env=environment)
    assert listed.returncode == 0 and len(listed.stdout.strip().splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte free."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 4096):
            pass


def test_a_disk_that_is_full_at_the_start(open_app: Open, small_disk: Path) -> None:
    fill(small_disk)
    app = open_app(INFRAXA_DATA_DIR=str(small_disk / "data"))
    assert app.wait_exit() == 1
    assert "full" in app.text or "No space" in app.text
    assert "Traceback" not in app.text


def test_a_disk_that_becomes_full_shows_the_answer_and_says_it(open_app: Open, small_disk: Path) -> None:
    app = started(open_app(INFRAXA_DATA_DIR=str(small_disk)))
    app.send("What is 2+2?")
    app.press("enter")
    app.wait_for("The answer is 4")
    app.wait_for("tok/s")
    fill(small_disk)
    app.send("What is 3+4?")
    app.press("enter")
    app.wait_for(lambda screen: "full" in screen)
    (small_disk / "ballast").unlink()
    retype(app, "What is 5+6?")
    app.press("enter")
    app.wait_for("The answer is 11")
    app.press("ctrl+q")
    assert app.wait_exit() == 0


def test_a_read_only_data_folder(open_app: Open, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    app = open_app(INFRAXA_DATA_DIR=str(small_disk / "data"))
    assert app.wait_exit() == 1
    assert "read-only" in app.text.lower() or "cannot be" in app.text
    assert "Traceback" not in app.text
