"""Copying tries the system's tools in order, each for a bounded time, and says which way the text went."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from infraxa.app.tui import clipboard


@pytest.fixture(autouse=True)
def own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no tools but those that a test makes, on Wayland and X11 at once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-none")
    monkeypatch.setenv("DISPLAY", ":none")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    clipboard.tools.cache_clear()
    return folder


def make_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


async def test_a_native_tool_gets_the_text(own_tools: Path) -> None:
    taken = own_tools / "taken"
    make_tool(own_tools, "wl-copy", f"cat > {taken}")
    sent: list[str] = []
    copied = await clipboard.copy("für 日本 🐑", sent.append)
    assert copied == clipboard.Copied("wl-copy")
    assert taken.read_text() == "für 日本 🐑"
    assert sent == []


async def test_a_tool_that_fails_gives_way_to_the_next(own_tools: Path) -> None:
    taken = own_tools / "taken"
    make_tool(own_tools, "wl-copy", "exit 1")
    make_tool(own_tools, "xclip", f"cat > {taken}")
    assert (await clipboard.copy("text", lambda _: None)).way == "xclip"
    assert taken.read_text() == "text"


async def test_a_tool_that_hangs_holds_nothing(own_tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipboard, "TIMEOUT", 0.2)
    for name in ("wl-copy", "xclip", "xsel"):
        make_tool(own_tools, name, "exec sleep 60")
    sent: list[str] = []
    assert (await clipboard.copy("text", sent.append)).way == "terminal"
    assert sent == ["text"]


async def test_without_tools_the_terminal_is_asked(own_tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own_tools))
    sent: list[str] = []
    assert await clipboard.copy("text", sent.append) == clipboard.Copied("terminal")
    assert sent == ["text"]


async def test_inside_tmux_the_person_is_told_what_it_needs(
    own_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_tools))
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    assert "set-clipboard" in (await clipboard.copy("text", lambda _: None)).note


async def test_a_long_text_may_be_cut(own_tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own_tools))
    assert "cut" in (await clipboard.copy("x" * (clipboard.OSC52_LIMIT + 1), lambda _: None)).note


def test_half_a_surrogate_pair_does_not_break_copying(own_tools: Path) -> None:
    make_tool(own_tools, "wl-copy", "cat > /dev/null")
    assert clipboard.run_tool((str(own_tools / "wl-copy"),), "a\ud800b")


@pytest.mark.parametrize(
    ("platform", "environ", "first"),
    [
        ("darwin", {}, "pbcopy"),
        ("win32", {}, "clip.exe"),
        ("linux", {"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}, "wl-copy"),
        ("linux", {"DISPLAY": ":0"}, "xclip"),
        ("linux", {"WSL_DISTRO_NAME": "Debian"}, "clip.exe"),
    ],
)
def test_each_system_has_its_tool(platform: str, environ: dict[str, str], first: str) -> None:
    assert clipboard.candidates(platform, environ)[0][0] == first


def test_without_a_display_no_tool_of_one_is_tried() -> None:
    assert clipboard.candidates("linux", {}) == []
