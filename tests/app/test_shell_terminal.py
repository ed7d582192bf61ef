"""The app on a real terminal: how it begins and ends there, whoever ends it."""

from __future__ import annotations

import os
import signal
import sys
import termios
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal

RUN = """
import os, sys
from infraxa.app import config
from infraxa.app.folders import Folders
from infraxa.app.tui.app import run
folders = Folders.find(None, os.environ)
sys.exit(run(config.load(folders), folders))
"""
LEFT_ALTERNATE_SCREEN = b"\x1b[?1049l"


def start(folder: Path, program: str = RUN, **more: str) -> Terminal:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("INFRAXA_")},
        "TERM": "xterm-256color",
        "INFRAXA_DATA_DIR": str(folder),
        "INFRAXA_THREADS": "1",
        **more,
    }
    return Terminal([sys.executable, "-P", "-c", program], env, size=(90, 24))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_keeps_what_was_said_and_typed(tmp_path: Path, number: signal.Signals) -> None:
    terminal = start(tmp_path)
    try:
        terminal.wait_for("ready")
        terminal.send("What is 2+2?")
        terminal.press("enter")
        terminal.wait_for("tok/s")
        terminal.send("half a thought")
        terminal.wait_for("half a thought")
        os.kill(terminal.process.pid, number)
        assert terminal.wait_exit() == 128 + number
        assert LEFT_ALTERNATE_SCREEN in terminal.raw
    finally:
        terminal.close()
    again = start(tmp_path)
    try:
        again.wait_for(lambda screen: "What is 2+2?" in screen and "half a thought" in screen)
    finally:
        again.close()


HANGING = """
import asyncio
from infraxa.app.tui import app
from infraxa.app.tui.screens.chat import ChatScreen
async def hang(self):
    await asyncio.sleep(600)
ChatScreen.keep_draft = hang
app.CLOSE_LIMIT = 0.5
"""


def test_where_closing_hangs_it_is_ended_and_the_terminal_is_as_before(tmp_path: Path) -> None:
    terminal = start(tmp_path, HANGING + RUN)
    try:
        before = termios.tcgetattr(terminal._fd)
        terminal.wait_for("ready")
        assert termios.tcgetattr(terminal._fd) != before
        terminal.press("ctrl+q")
        terminal.wait_for("closing took more than")
        assert terminal.wait_exit() == 1
        assert LEFT_ALTERNATE_SCREEN in terminal.raw and b"\x1b[?1003l" in terminal.raw
        assert termios.tcgetattr(terminal._fd) == before
    finally:
        terminal.close()


def test_garbage_is_looked_for_again_but_not_in_what_was_there_at_the_first_frame(tmp_path: Path) -> None:
    looked = "print('garbage', gc.isenabled(), gc.get_freeze_count() > 10_000)"
    terminal = start(
        tmp_path, RUN.replace("sys.exit(", "import gc; gc.disable(); code = (") + looked + "; sys.exit(code)"
    )
    try:
        terminal.wait_for("ready")
        terminal.press("ctrl+q")
        terminal.wait_for("garbage True True")
        assert terminal.wait_exit() == 0
    finally:
        terminal.close()


def test_a_terminal_that_only_prints_is_told_what_to_use(tmp_path: Path) -> None:
    terminal = start(tmp_path, TERM="dumb")
    try:
        assert terminal.wait_exit() == 1
        assert "infraxa ask" in terminal.text and len(terminal.text.strip().splitlines()) <= 2
        assert not (tmp_path / "infraxa.db").exists()
    finally:
        terminal.close()
