"""What each command may not import: every heavy module is loaded where it is used, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.command_line import LIMIT, environment, infraxa

HEAVY = {
    "textual",
    "rich",
    "llama_cpp",
    "numpy",
    "gguf",
    "sqlite_utils",
    "aiohttp",
    "jinja2",
    "pydantic",
    "tomlkit",
    "huggingface_hub",
    "httpx2",
}
SHOW = """
import sys
from infraxa.app.cli import main
sys.argv = ["infraxa", *{arguments!r}]
code = main()
print("\\nmodules:", *sorted({{name.partition(".")[0] for name in sys.modules}}))
sys.exit(code)
"""


def modules(data: Path, *arguments: str, code: int = 0) -> set[str]:
    """The top-level modules that were imported when the command is done, with the exit code `code`."""
    command = [sys.executable, "-P", "-c", SHOW.format(arguments=arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(data),
        stdin=subprocess.DEVNULL,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--version",), HEAVY | {"typer", "click", "msgspec", "asyncio", "sqlite3"}),
        (("--help",), HEAVY | {"msgspec", "asyncio", "sqlite3", "platformdirs"}),
        (("ask", "--help"), HEAVY | {"msgspec", "asyncio", "sqlite3"}),
        (("config", "path"), HEAVY | {"asyncio", "sqlite3"}),
        (("config", "show"), HEAVY | {"asyncio", "sqlite3"}),
        (("models", "list"), HEAVY),
        (("models", "show", "guide"), HEAVY),
        (("models", "pull"), HEAVY),
        (("ask", "What is 2+2?"), HEAVY),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_loads_only_what_it_uses(
    tmp_path: Path, arguments: tuple[str, ...], forbidden: set[str]
) -> None:
    assert modules(tmp_path / "data", *arguments) & forbidden == set()


def test_the_app_opens_without_the_options_of_the_commands(tmp_path: Path) -> None:
    # There is no terminal here, which is found when its turn comes.
    assert modules(tmp_path / "data", code=1) & (HEAVY | {"typer", "asyncio"}) == set()


def test_a_shell_gets_completions(tmp_path: Path) -> None:
    asked = {"_INFRAXA_COMPLETE": "complete_bash", "COMP_WORDS": "infraxa mod", "COMP_CWORD": "1"}
    assert infraxa(data=tmp_path / "data", env=asked).out.split() == ["models"]


def test_the_look_at_modules_sees_what_is_imported(tmp_path: Path) -> None:
    assert {"typer", "asyncio", "sqlite3", "msgspec"} <= modules(tmp_path / "data", "models", "list")
