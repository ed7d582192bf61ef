"""infraxa as a person starts it: an own data folder, a real terminal, a model slow enough to interrupt."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infraxa.engine.guide import GUIDE_PATH
from tests.e2e.lab import Lab
from tests.e2e.terminal import Terminal
from tests.random_model import write_random_model

INFRAXA = [sys.executable, "-P", "-m", "infraxa"]
Open = Callable[..., Terminal]


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that takes seconds for what the guide says in one."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_random_model(path, GUIDE_PATH, layers=16, dim=1024)
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh person: nothing of the tester's own settings."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("INFRAXA_")}
    env.pop("NO_COLOR", None)
    env.update(
        TERM="xterm-256color",
        COLORTERM="truecolor",
        LANG="C.UTF-8",
        HOME=str(tmp_path / "home"),
        INFRAXA_DATA_DIR=str(tmp_path / "data"),
        INFRAXA_THREADS="1",
        INFRAXA_ONLINE="false",
    )
    (tmp_path / "home").mkdir()
    return env


@pytest.fixture
def open_app(environment: dict[str, str], tmp_path: Path) -> Iterator[Open]:
    """Opens infraxa in a terminal, as often as called; all are ended with the test."""
    opened: list[Terminal] = []

    def start(*arguments: str, size: tuple[int, int] = (120, 36), **variables: str) -> Terminal:
        terminal = Terminal(
            [*INFRAXA, *arguments], {**environment, **variables}, size=size, cwd=str(tmp_path / "home")
        )
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


def started(terminal: Terminal) -> Terminal:
    """Until the app is there and its model answers."""
    terminal.wait_for("Ask anything")
    terminal.wait_for("ready", seconds=60)
    return terminal


def retype(terminal: Terminal, text: str) -> None:
    """Put `text` into the input that has, or is about to get, the focus; again when keys came too early."""
    for _ in range(10):
        terminal.press("ctrl+u")
        terminal.read(0.3)
        terminal.send(text)
        end = text[-12:]
        with contextlib.suppress(AssertionError):
            terminal.wait_for(end, seconds=3)
            return
    raise AssertionError(f"{text!r} could not be typed:\n{terminal.text}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A laboratory of networks; the test is skipped where there can be none."""
    built = Lab(tmp_path)
    yield built
    built.close()
