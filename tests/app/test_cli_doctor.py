"""`infraxa doctor`: each thing that can be wrong is found, named and given a remedy, and none can hang it."""

from __future__ import annotations

import asyncio
import getpass
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.commands import checkup, doctor
from infraxa.app.commands.checkup import Check, Finding
from infraxa.app.commands.ledger_checks import LEDGER_CHECKS
from infraxa.app.folders import Folders
from infraxa.net.threads import in_daemon_thread
from infraxa.store.db import SCHEMA_VERSION
from tests.app.command_line import COMMAND, environment, infraxa
from tests.e2e.terminal import Terminal

NAMES = [*(check.name for check in (*checkup.CHECKS, *LEDGER_CHECKS)), "identity", "network"]
"""Of the checks that are made when this node is set to stay offline."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def checks(data: Path, *options: str, **env: str) -> dict[str, dict[str, Any]]:
    ran = infraxa(*options, "doctor", "--json", data=data, env=env)
    report = json.loads(ran.out)
    states = {check["state"] for check in report["checks"]}
    assert states <= {"ok", "warn", "fail"}
    assert report["ok"] == ("fail" not in states)
    assert ran.code == int("fail" in states)
    assert all(check["remedy"] for check in report["checks"] if check["state"] == "fail")
    return {check["check"]: check for check in report["checks"]}


def test_on_a_fresh_machine_all_is_well_and_nothing_is_written(data: Path) -> None:
    found = checks(data)
    assert list(found) == NAMES
    assert [name for name, check in found.items() if check["state"] == "fail"] == []
    assert "llama-cpp-python" in found["llama.cpp"]["reason"] and "GPU" in found["llama.cpp"]["reason"]
    assert "tokens/s" in found["guide"]["reason"]
    assert found["store"]["reason"] == "Nothing is saved yet."
    assert "There is no key yet" in found["identity"]["reason"]
    assert "online = false" in found["network"]["reason"]
    assert not data.exists()


def test_it_shows_no_home_and_no_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    data = home / "data"
    home.mkdir()
    ran = infraxa("doctor", data=data)
    assert str(home) not in ran.out and "~/data" in ran.out
    assert len(ran.out.splitlines()) == len(NAMES)


def test_the_users_name_is_left_out_of_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/maple")
    monkeypatch.setattr(getpass, "getuser", lambda: "maple")
    for text, shown in (
        ("/home/maple/x and /home/maple", "~/x and ~"),
        ("/home/maplewood", "/home/maplewood"),
        ("/media/maple/disk", "/media/…/disk"),
        ("maple syrup", "maple syrup"),
        ("at ws://8.8.4.4:7741: refused", "at ws://<public IPv4>:7741: refused"),
        ("at [2606:4700::1111]:7741", "at [<public IPv6>]:7741"),
        ("2606:4700::1111: refused, 1.1.1.1.", "<public IPv6>: refused, <public IPv4>."),
        ("192.168.1.7, fd00::2, ::1 at 12:34:56", "192.168.1.7, fd00::2, ::1 at 12:34:56"),
    ):
        assert doctor._anonymous(text) == shown


def test_what_is_wrong_is_found(data: Path) -> None:
    data.mkdir()
    (data / "config.toml").write_text('model = "gone"\nthreads = 512\ncolour = 1\ntheme = "no-such"\n')
    (data / "infraxa.db").write_bytes(b"not a database" * 100)
    themes = data / "themes"
    themes.mkdir()
    (themes / "mine.toml").write_text('name = "mine"\n[colors]\nprimary = "no colour"\n')
    found = checks(data, INFRAXA_THREADS="")
    states = {name: check["state"] for name, check in found.items() if check["state"] != "ok"}
    money = {check.name: "warn" for check in LEDGER_CHECKS}
    assert states == {"settings": "warn", "store": "fail", "model": "fail", "themes": "warn"} | money
    assert "colour" in found["settings"]["reason"]
    assert "damaged" in found["store"]["reason"]
    assert "mine.toml" in found["themes"]["reason"]


def test_a_bad_settings_file_fails_once(data: Path) -> None:
    data.mkdir()
    (data / "config.toml").write_text("mouse = 3\n")
    found = checks(data)
    assert [name for name, check in found.items() if check["state"] == "fail"] == ["settings"]
    assert "must be true or false" in found["settings"]["reason"]
    # They may say that this node stays offline.
    assert found["network"]["reason"].startswith("Not checked") and "peers" not in found


def test_too_many_threads_and_an_unknown_theme_are_warned_of(data: Path) -> None:
    found = checks(data, INFRAXA_THREADS="1000", INFRAXA_THEME="no-such")
    assert found["processor"]["state"] == "warn" and "1000" in found["processor"]["reason"]
    assert found["themes"]["state"] == "warn" and "no-such" in found["themes"]["reason"]


def test_a_sound_store_is_counted(data: Path) -> None:
    assert infraxa("models", "add", "/dev/null", data=data).code == 1  # makes the store
    found = checks(data)["store"]
    assert found["state"] == "ok"
    assert f"schema {SCHEMA_VERSION}; 0 chats, 0 messages, 0 models" in found["reason"]


def test_a_data_folder_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = checks(tmp_path / "data", "--data-dir", str(tmp_path / "file" / "data"))
    assert found["data folder"]["state"] == "fail"


def test_a_llama_cpp_that_cannot_be_loaded_fails(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "llama_cpp"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libllama.so: cannot open shared object file')\n")
    paths = [str(broken.parent), environment(data).get("PYTHONPATH", "")]
    found = checks(data, PYTHONPATH=":".join(filter(None, paths)))
    assert found["llama.cpp"]["state"] == "fail"
    assert "libllama.so: cannot open" in found["llama.cpp"]["reason"]
    assert found["guide"]["state"] == "fail"


def test_a_check_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    forever = threading.Event()

    async def hang(folders: Folders) -> Finding:
        await in_daemon_thread(forever.wait)
        return Finding("ok", "")

    async def fine(folders: Folders) -> Finding:
        return Finding("ok", "Fine.")

    async def broken(folders: Folders) -> Finding:
        raise ValueError("boom")

    some = (Check("disk", hang, 0.1, "Look."), Check("fine", fine, 5, ""), Check("broken", broken, 5, ""))

    async def only_some(folders: Folders, self_test: bool) -> AsyncGenerator[Check, None]:
        for check in some:
            yield check

    monkeypatch.setattr(doctor, "_checks", only_some)
    try:
        assert doctor.doctor(tmp_path, as_json=True) == 1
    finally:
        forever.set()
    report = json.loads(capsys.readouterr().out)["checks"]
    assert [(check["state"], check["reason"]) for check in report] == [
        ("fail", "This took longer than 0.1 s."),
        ("ok", "Fine."),
        ("fail", "ValueError: boom"),
    ]


def test_a_terminal_that_is_too_small_is_warned_of(data: Path) -> None:
    with closing(Terminal([*COMMAND, "doctor"], environment(data), size=(70, 60))) as terminal:
        assert terminal.wait_exit(seconds=90) == 0
        assert "70×60" in terminal.text and "80×24" in terminal.text


def test_the_checks_in_threads_give_back_what_they_found_or_met() -> None:
    async def both() -> None:
        assert await in_daemon_thread(lambda: 7) == 7
        with pytest.raises(OSError, match="disk"):
            await in_daemon_thread(fail)

    def fail() -> int:
        raise OSError("disk")

    asyncio.run(both())
