"""What any command does when something is in the way: one clear line, an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer.main

import infraxa as package
from infraxa.app.commands.root import app
from infraxa.app.config import Settings
from tests.app.command_line import COMMAND, LIMIT, environment, infraxa, one_line
from tests.e2e.terminal import Terminal


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode != 0:
        pytest.skip("this machine does not allow mounting")
    yield place
    subprocess.run(["umount", "-l", str(place)], timeout=LIMIT, check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], timeout=LIMIT, check=True)


COMMANDS = [
    (),
    ("ask",),
    ("models",),
    ("models", "list"),
    ("models", "add"),
    ("models", "show"),
    ("models", "pull"),
    ("models", "remove"),
    ("providers",),
    ("serve",),
    ("invite",),
    ("join",),
    ("demo",),
    ("doctor",),
    ("config",),
    ("config", "path"),
    ("config", "show"),
    ("config", "set"),
    ("gateway",),
    ("gateway", "key"),
    ("identity",),
    ("identity", "show"),
    ("identity", "export"),
    ("identity", "import"),
    ("backup",),
    ("restore",),
    ("wipe",),
    ("earnings",),
    ("tabs",),
    ("tabs", "list"),
    ("tabs", "show"),
    ("tabs", "limit"),
    ("tabs", "settle"),
    ("receipts",),
    ("receipts", "list"),
    ("receipts", "show"),
    ("receipts", "export"),
    ("receipts", "proof"),
    ("receipts", "verify"),
    ("verify",),
]


def test_these_are_all_commands() -> None:
    found: list[tuple[str, ...]] = [()]
    groups: list[tuple[tuple[str, ...], object]] = [((), typer.main.get_command(app))]
    for path, group in groups:
        for name, command in getattr(group, "commands", {}).items():
            found.append((*path, name))
            groups.append(((*path, name), command))
    assert sorted(found) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "infraxa")
def test_every_command_has_help_with_an_example(data: Path, command: tuple[str, ...]) -> None:
    ran = infraxa(*command, "--help", data=data)
    assert (ran.code, ran.err) == (0, "")
    if command not in (("models",), ("config",), ("identity",), ("tabs",), ("receipts",)):
        assert "Example: " in ran.out and "infraxa " + " ".join(command) in " ".join(
            ran.out.split("Example:")[1].split()
        )
    assert infraxa(*command, "--no-such-option", data=data).code == 2


def test_every_setting_is_a_flag_of_the_app() -> None:
    parameters = {parameter.name for parameter in typer.main.get_command(app).params}
    assert set(Settings.__struct_fields__) <= parameters


def test_the_version(data: Path) -> None:
    for option in ("--version", "-V"):
        assert infraxa(option, data=data) == (0, f"infraxa {package.__version__}\n", "")
    assert infraxa("--version", "doctor", data=data) == (0, f"infraxa {package.__version__}\n", "")


def test_the_app_needs_a_terminal(data: Path) -> None:
    one_line(infraxa(data=data), "standard input is not one", "infraxa ask")
    with closing(Terminal(COMMAND, environment(data, TERM="dumb"))) as terminal:
        assert terminal.wait_exit() == 1
        assert "TERM is dumb" in terminal.text and terminal.text.strip().count("infraxa: ") == 1
        assert b"\x1b" not in terminal.raw


def test_a_bad_variable_or_file_is_one_line_for_each(data: Path) -> None:
    env = {"INFRAXA_SLOTS": "many", "INFRAXA_MOUSE": "3"}
    ran = infraxa("models", "list", data=data, env=env)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "infraxa: INFRAXA_MOUSE: mouse is '3'; it must be true or false.",
        "infraxa: INFRAXA_SLOTS: slots is 'many'; it must be a whole number from 1 to 64.",
    ]
    data.mkdir()
    (data / "config.toml").write_text("theme = \n")
    one_line(infraxa("ask", "hi", data=data), "config.toml is not valid TOML")


def test_a_read_only_data_folder_is_one_line(disk: Path) -> None:
    make_read_only(disk)
    new = disk / "data"
    one_line(infraxa("models", "add", "/dev/null", data=new), str(new), "--data-dir")
    one_line(infraxa("config", "set", "threads", "2", data=disk), str(disk), "Read-only file system")
    assert infraxa("ask", "What is 2+2?", data=disk).code == 0
    assert infraxa("models", "list", data=disk).code == 0
    assert infraxa("config", "show", data=disk).code == 0


def test_a_full_disk_is_one_line_and_nothing_is_half_written(disk: Path) -> None:
    assert infraxa("config", "set", "threads", "2", data=disk).code == 0
    before = (disk / "config.toml").read_bytes()
    fill(disk)
    one_line(infraxa("config", "set", "threads", "3", data=disk), "config.toml cannot be written", "No space")
    assert (disk / "config.toml").read_bytes() == before
    one_line(infraxa("models", "add", "/dev/null", data=disk), "is full")
    assert list(disk.glob(".config*")) == []


@pytest.mark.parametrize(
    "arguments",
    [("models", "list"), ("config", "show"), ("ask", "What is 2+2?"), ("--version",), ("--help",)],
)
def test_output_that_nobody_reads_or_that_has_no_room(data: Path, arguments: tuple[str, ...]) -> None:
    command = " ".join([*COMMAND, *(f"'{argument}'" for argument in arguments)])
    script = f"{command} < /dev/null | head -c0; echo ${{PIPESTATUS[0]}}; {command} > /dev/full < /dev/null"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=environment(data),
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout == "141\n"
    assert done.returncode == 1
    assert done.stderr == (
        "infraxa: The output cannot be written: No space left on device. Free some space on that disk.\n"
    )


def test_a_path_cannot_control_the_terminal(data: Path) -> None:
    ran = infraxa("models", "add", "\x1b[2Jevil.gguf", data=data)
    assert ran.code == 1 and "\x1b" not in ran.err and "[2Jevil.gguf" in ran.err


def test_a_home_that_nobody_has_is_a_path_like_others(data: Path) -> None:
    one_line(infraxa("models", "add", "~no-such-user/x.gguf", data=data), "There is no file")


def test_a_terminal_of_another_encoding_shows_a_question_mark(data: Path) -> None:
    env = {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
    ran = infraxa("models", "show", "gu…ide", data=data, env=env)
    one_line(ran, "no model named gu?ide")


def test_a_mistake_in_infraxa_is_one_line_and_the_trace_is_kept(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from infraxa.app.commands import models, root\n"
        "def broken(*args, **named): raise RuntimeError('boom')\n"
        "models.list_models = broken\n"
        "sys.exit(root.run(['models', 'list']))"
    )
    env = environment(data, TMPDIR=str(tmp_path))
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=LIMIT, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "a mistake in infraxa: RuntimeError('boom')" in done.stderr and done.stderr.count("\n") == 1
    (trace,) = tmp_path.glob("infraxa-*.txt")
    assert str(trace) in done.stderr and "in broken" in trace.read_text()


def test_config_says_where_and_what_and_from_where(data: Path) -> None:
    assert infraxa("config", "path", data=data).out == f"{data / 'config.toml'}\n"
    ran = infraxa("config", "set", "theme", "infraxa-light", data=data)
    assert ran == (0, "theme = infraxa-light\n", "")
    shown = json.loads(infraxa("config", "show", "--json", data=data).out)
    assert (shown["theme"]["value"], shown["theme"]["from"]) == ("infraxa-light", "config.toml")
    assert (shown["threads"]["value"], shown["threads"]["from"]) == (1, "environment")
    assert (shown["slots"]["value"], shown["slots"]["from"]) == (8, "default")
    over = infraxa("config", "set", "threads", "2", data=data)
    assert over.code == 0 and "INFRAXA_THREADS is set and goes before" in over.err
    assert over.out == "threads = 2 (when a model is loaded)\n"
    one_line(infraxa("config", "set", "mouse", "perhaps", data=data), "must be true or false", code=2)
    one_line(infraxa("config", "set", "mice", "1", data=data), "no setting 'mice'", "mouse", code=2)
    who = '"local" or "auto", or the id of a node'
    one_line(infraxa("config", "set", "driver", "xx", data=data), "driver is 'xx'", who, code=2)
    one_line(infraxa("ask", "hi", "--driver", "xx", data=data), "driver is 'xx'", who, code=2)
    one_line(infraxa("config", "set", "model", "gudie", data=data), "Did you mean guide?")
    assert infraxa("config", "set", "model", "guide", data=data).code == 0
    rows = infraxa("config", "show", data=data).out.splitlines()
    assert [row.split("\t")[0] for row in rows] == list(Settings.__struct_fields__)


def test_a_broken_settings_file_does_not_hide_where_it_is(data: Path) -> None:
    data.mkdir()
    (data / "config.toml").write_text("theme = \n")
    assert infraxa("config", "path", data=data).code == 0
    one_line(infraxa("config", "show", data=data), "is not valid TOML")
