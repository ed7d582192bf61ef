"""Runs `infraxa` as a person does: in a process and with a data folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from infraxa.engine.process import worker_environment

LIMIT = 120
"""Seconds that any command may take."""
COMMAND = (sys.executable, "-P", "-m", "infraxa")


class Ran(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def environment(data: Path, **more: str) -> dict[str, str]:
    """The variables of a command whose data is in `data`; threads=1, as tests share the machine."""
    kept = {name: value for name, value in worker_environment().items() if not name.startswith("INFRAXA_")}
    kept |= {
        "INFRAXA_DATA_DIR": str(data),
        "INFRAXA_ONLINE": "false",
        "INFRAXA_THREADS": "1",
        "TERM": "xterm",
        "HOME": str(data.parent),
    }
    return kept | more


def infraxa(*arguments: str, data: Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=data.parent,
        env=environment(data, **(env or {})),
        timeout=LIMIT,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def one_line(ran: Ran, *words: str, code: int = 1) -> None:
    """It failed with one clear line that contains `words`, and nothing else."""
    assert ran.code == code, ran
    assert ran.out == ""
    assert ran.err.startswith("infraxa: ") and ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


def make_sparse(path: Path, size: int) -> None:
    """Lengthen a file without writing anything."""
    os.truncate(path, size)
