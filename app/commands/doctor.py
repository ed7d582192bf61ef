"""`infraxa doctor`: runs the checks one after the other, each within a bound, and shows what they found.

What is checked is in `checkup`, `ledger_checks` and `network_checks`. The output can be pasted anywhere: the
home folder is `~`, the user's name and public IP addresses are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import re
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from infraxa.app.commands.checkup import CHECKS, Check, Finding
from infraxa.app.commands.given import folders_of
from infraxa.app.commands.ledger_checks import LEDGER_CHECKS
from infraxa.app.commands.network_checks import NAMES, network_checks
from infraxa.app.commands.output import clean, is_terminal, print_json
from infraxa.app.folders import Folders
from infraxa.net import addresses

_WIDTH = max(map(len, (*(check.name for check in (*CHECKS, *LEDGER_CHECKS)), *NAMES)))
# Whatever may be an IP address; what is one is decided by reading it.
_IP = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w)|(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?!\w)",
    re.IGNORECASE,
)
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Outcome(msgspec.Struct, frozen=True):
    """A finding, and which check it is of."""

    check: str
    state: str
    reason: str
    remedy: str
    ms: int


def doctor(data_dir: Path | None, *, self_test: bool = False, as_json: bool) -> int:
    """Returns 1 when a check failed, else 0. `self_test`: have a peer buy an answer now, instead of telling
    what came of it last."""
    outcomes = asyncio.run(_run(folders_of(data_dir), self_test, as_json))
    failed = any(outcome.state == "fail" for outcome in outcomes)
    if as_json:
        print_json({"ok": not failed, "checks": outcomes})
    return int(failed)


async def _run(folders: Folders, self_test: bool, as_json: bool) -> list[Outcome]:
    outcomes = []
    async with contextlib.aclosing(_checks(folders, self_test)) as checks:
        async for check in checks:
            _wait_line(f"checking {check.name} …")
            outcome = await _perform(check, folders)
            _wait_line("")
            outcomes.append(outcome)
            if not as_json:
                _show(outcome)
    return outcomes


async def _checks(folders: Folders, self_test: bool) -> AsyncGenerator[Check, None]:
    for check in (*CHECKS, *LEDGER_CHECKS):
        yield check
    async with contextlib.aclosing(network_checks(folders, self_test=self_test)) as checks:
        async for check in checks:
            yield check


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


def _show(outcome: Outcome) -> None:
    name = f"{outcome.check:<{_WIDTH}}"
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble((f"{outcome.state:<4}", _STYLES[outcome.state]), f"  {name}  ")
        line.append(clean(outcome.reason))
        if outcome.remedy:
            line.append(f"\n{'':<{_WIDTH + 8}}{clean(outcome.remedy)}", "dim")
        Console(highlight=False).print(line, soft_wrap=True)
    else:
        print(clean(f"{outcome.state:<4}  {name}  {outcome.reason} {outcome.remedy}".rstrip()))
    sys.stdout.flush()


def _wait_line(text: str) -> None:
    """What is being waited for, on a terminal; an empty text takes the line away."""
    if is_terminal(sys.stderr):
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def _anonymous(text: str) -> str:
    """`text` without the home folder, the user's name and public IP addresses."""
    text = _IP.sub(_local_only, " ".join(text.split()))
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)", "…", text) if user else text


def _local_only(found: re.Match[str]) -> str:
    text = found[0]
    end = ":" if text.endswith(":") and not text.endswith("::") else ""  # of the sentence
    try:
        ip = addresses.read_ip(text.removesuffix(end))
    except ValueError:
        return text
    return f"<public IPv{ip.version}>{end}" if addresses.place(ip) == "global" else text
