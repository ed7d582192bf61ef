"""Two terminals on one folder, and commands beside them: one node, one engine, whoever asks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import psutil

from infraxa.engine.guide import GUIDE_PATH
from tests.e2e.conftest import INFRAXA, Open, retype, started
from tests.e2e.terminal import Terminal, run_beside

TAKEN_OVER = 20
"""Seconds in which a second terminal has a node of its own, on a busy machine."""


def workers() -> list[psutil.Process]:
    """The engine processes of what this test started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "infraxa.engine.worker" in words_of(child)]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing when it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one of these
        return []


def attached(terminal: Terminal, owner: Terminal) -> Terminal:
    terminal.wait_for("Ask anything")
    terminal.wait_for(f"attached to pid {owner.process.pid}", seconds=60)
    return terminal


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_beside([*INFRAXA, *arguments], env)


def ask(terminal: Terminal, text: str) -> None:
    terminal.send(text)
    terminal.wait_for(text)
    terminal.press("enter")


def quit_app(terminal: Terminal) -> None:
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0, terminal.text


def both_stream(open_app: Open, slow_model: Path) -> tuple[Terminal, Terminal]:
    """Two terminals that show the same answer, on its way."""
    first = started(open_app(INFRAXA_MODEL=str(slow_model), INFRAXA_TEMPERATURE="0"))
    ask(first, "tell me something")
    first.wait_for("tok/s", seconds=60)
    second = attached(open_app(INFRAXA_MODEL=str(slow_model), INFRAXA_TEMPERATURE="0"), first)
    second.wait_for("tell me something")
    second.wait_for("tok/s", seconds=60)
    return first, second


def test_both_show_the_same_answer_and_the_second_goes_on_when_the_first_quits(
    open_app: Open, slow_model: Path
) -> None:
    first, second = both_stream(open_app, slow_model)
    assert len(workers()) == 1
    second.press("esc")
    for terminal in (first, second):
        terminal.wait_for("stopped")
    retype(second, "and typed on")
    quit_app(first)
    second.wait_gone("attached", seconds=TAKEN_OVER)
    second.wait_for("ready", seconds=60)
    assert "tell me something" in second.text and "and typed on" in second.text
    assert len(workers()) == 1
    third = attached(open_app(INFRAXA_MODEL=str(slow_model)), second)
    quit_app(third)
    quit_app(second)


def test_the_second_takes_over_when_the_first_is_killed(open_app: Open, slow_model: Path) -> None:
    first, second = both_stream(open_app, slow_model)
    os.kill(first.process.pid, signal.SIGKILL)
    first.wait_exit()
    second.wait_for("interrupted", seconds=TAKEN_OVER)
    second.wait_for("ready", seconds=60)
    assert "attached" not in second.text
    second.press("f5")
    second.wait_gone("interrupted")
    second.wait_for("tok/s", seconds=60)
    second.press("esc")
    second.wait_for("stopped")
    quit_app(second)


def test_ask_uses_the_engine_that_is_open(open_app: Open, environment: dict[str, str]) -> None:
    app = started(open_app())
    before = workers()
    seen: set[int] = set()
    asking = subprocess.Popen(
        [*INFRAXA, "ask", "--json", "What is 2+2?"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    while asking.poll() is None:
        seen |= {worker.pid for worker in workers()}
        time.sleep(0.01)
    out, _ = asking.communicate(timeout=60)
    answer = json.loads(out)
    assert "4" in answer["text"] and answer["model"] == "guide"
    assert seen == {worker.pid for worker in before} and len(before) == 1
    assert "No chats yet" in app.text  # it is kept nowhere
    alone = run("ask", "--threads", "1", "--json", "What is 2+2?", env=environment)
    assert json.loads(alone.stdout)["load_ms"] > 0
    quit_app(app)


def test_ctrl_c_ends_the_asked_answer_and_no_other(
    open_app: Open, slow_model: Path, environment: dict[str, str]
) -> None:
    app = started(open_app(INFRAXA_MODEL=str(slow_model), INFRAXA_TEMPERATURE="0"))
    ask(app, "tell me something")
    app.wait_for("tok/s", seconds=60)
    asking = subprocess.Popen(
        [*INFRAXA, "ask", "say a lot", "--model", str(slow_model)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asking.stdout is not None
    answer = asking.stdout.fileno()
    app.wait_for(lambda _: bool(select.select([answer], [], [], 0)[0]), seconds=60)
    assert os.read(answer, 10)
    asking.send_signal(signal.SIGINT)
    _, err = asking.communicate(timeout=60)
    assert (asking.returncode, err) == (130, b"")
    beside = run("ask", "hi", "--model", "guide", env=environment)
    assert beside.returncode == 0 and beside.stdout  # another model answers meanwhile
    assert "stopped" not in app.text
    app.press("esc")
    app.wait_for("stopped")
    quit_app(app)


def test_what_commands_change_is_seen_in_the_open_app(
    open_app: Open, environment: dict[str, str], tmp_path: Path
) -> None:
    app = started(open_app())
    model = tmp_path / "another.gguf"
    model.write_bytes(GUIDE_PATH.read_bytes())
    assert run("models", "add", str(model), env=environment).returncode == 0
    app.wait_for("another")  # it answers from now on
    assert run("config", "set", "theme", "infraxa-light", env=environment).returncode == 0
    removed = run("models", "remove", "another", env=environment)
    assert removed.returncode == 0 and str(model) in removed.stdout
    app.wait_for("built-in guide")
    found = run("doctor", "--json", env=environment)
    checks = {check["check"]: check for check in json.loads(found.stdout)["checks"]}
    assert (
        checks["running node"]["state"] == "ok" and str(app.process.pid) in checks["running node"]["reason"]
    )
    quit_app(app)
