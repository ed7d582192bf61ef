"""CPU time from the command line to the answer, for the commands that only say something.

Ratios to an empty Python process of the same run, so that machines can be compared; medians of several runs.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

ROUNDS = 9
EMPTY = "python -c pass"
TYPER = "an empty typer app"
PYTHON = (sys.executable, "-P")
TYPER_CODE = """
import typer
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
@app.command()
def nothing() -> None: ...
app(["--help"])
"""
CASES: dict[str, tuple[str, ...]] = {
    EMPTY: ("-c", "pass"),
    TYPER: ("-c", TYPER_CODE),
    "infraxa --version": ("-m", "infraxa", "--version"),
    "infraxa --help": ("-m", "infraxa", "--help"),
    "infraxa ask --help": ("-m", "infraxa", "ask", "--help"),
    "infraxa config show": ("-m", "infraxa", "config", "show"),
    "infraxa models list": ("-m", "infraxa", "models", "list"),
    "infraxa ask (parent and worker)": ("-m", "infraxa", "ask", "What is 2+2?"),
}
BUDGET_MS = {"infraxa --version": 60, "infraxa --help": 150}


def cpu_ms(arguments: Sequence[str], env: dict[str, str]) -> float:
    """User and system time of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*PYTHON, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "INFRAXA_DATA_DIR": folder, "INFRAXA_THREADS": "1"}
        for _ in range(ROUNDS):
            for name, arguments in CASES.items():
                times[name].append(cpu_ms(arguments, env))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        budget = f"   at most {BUDGET_MS[name]} ms" if name in BUDGET_MS else ""
        print(f"{name:<33}{median:6.0f} ms CPU  {median / medians[EMPTY]:5.1f} × {EMPTY}{budget}")


if __name__ == "__main__":
    main()
