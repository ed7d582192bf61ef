"""`infraxa doctor`: runs the checks one after the other, each within a bound, and shows what they found.

What is checked is in `checkup`. The output can be pasted anywhere: the home folder is `~`, and the user's
name is left out.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import sys
import time
from pathlib import Path

import msgspec

from infraxa.app.commands.checkup import CHECKS, Check, Finding
from infraxa.app.commands.given import folders_of
from infraxa.app.commands.output import clean, is_terminal, print_json
from infraxa.app.folders import Folders

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Outcome(msgspec.Struct, frozen=True):
    """A finding, and which check it is of."""

    check: str
    state: str
    reason: str
    remedy: str
    ms: int


def doctor(data_dir: Path | None, *, as_json: bool) -> int:
    """Returns 1 when a check failed, else 0."""
    outcomes = asyncio.run(_run(folders_of(data_dir), as_json))
    failed = any(outcome.state == "fail" for outcome in outcomes)
    if as_json:
        print_json({"ok": not failed, "checks": outcomes})
    return int(failed)


async def _run(folders: Folders, as_json: bool) -> list[Outcome]:
    outcomes = []
    width = max(len(check.name) for check in CHECKS)
    for check in CHECKS:
        _wait_line(f"checking {check.name} …")
        outcome = await _perform(check, folders)
        _wait_line("")
        outcomes.append(outcome)
        if not as_json:
            _show(outcome, width)
    return outcomes


async def _perform(check: Check, folders: Folders) -> Outcome:
    began = time.monotonic()
    try:
        finding = await asyncio.wait_for(check.run(folders), check.limit)
    except TimeoutError:
        finding = Finding("fail", f"This took longer than {check.limit:g} s.", check.when_slow)
    except Exception as error:
        message, remedy = getattr(error, "message", None), getattr(error, "remedy", "")
        finding = Finding("fail", message or f"{type(error).__name__}: {error}", remedy)
    ms = round((time.monotonic() - began) * 1000)
    return Outcome(check.name, finding.state, _anonymous(finding.reason), _anonymous(finding.remedy), ms)


def _show(outcome: Outcome, width: int) -> None:
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble((f"{outcome.state:<4}", _STYLES[outcome.state]), f"  {outcome.check:<{width}}  ")
        line.append(clean(outcome.reason))
        if outcome.remedy:
            line.append(f"\n{'':<{width + 8}}{clean(outcome.remedy)}", "dim")
        Console(highlight=False).print(line, soft_wrap=True)
    else:
        print(
            clean(f"{outcome.state:<4}  {outcome.check:<{width}}  {outcome.reason} {outcome.remedy}".rstrip())
        )
    sys.stdout.flush()


def _wait_line(text: str) -> None:
    """What is being waited for, on a terminal; an empty text takes the line away."""
    if is_terminal(sys.stderr):
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def _anonymous(text: str) -> str:
    """`text` without the home folder and the user's name."""
    text = " ".join(text.split())
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)", "…", text) if user else text
