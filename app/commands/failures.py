"""Says in one line why a command failed, with the remedy, and which exit code that is.

0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C, 141 whoever read the output went away.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from infraxa.app.commands.output import clean, note
from infraxa.app.errors import NodeError
from infraxa.engine.types import EngineError
from infraxa.net.errors import NetError
from infraxa.store.records import StoreError

_REMEDIES = {
    errno.ENOSPC: "Free some space on that disk.",
    errno.EDQUOT: "Free some space: the quota is used up.",
    errno.EROFS: "That disk is read-only; choose another folder with --data-dir.",
    errno.EACCES: "Check who may use it, or choose another folder with --data-dir.",
    errno.EPERM: "Check who may use it, or choose another folder with --data-dir.",
    errno.EMFILE: "Allow more open files: ulimit -n.",
}


class UsageError(Exception):
    """The command was called wrongly, in a way that typer cannot see; the text says how."""


def report(error: BaseException) -> int | None:
    """Print what `error` means and give the exit code; None for typer's own, which typer handles."""
    match error:
        case _ if _is_typers(error):
            return None
        case UsageError():
            return _say(str(error), 2)
        case EngineError() | NetError() | NodeError() | StoreError():
            for line in error.message.splitlines():
                note(f"infraxa: {line} {error.remedy}")
            return 1
        case KeyboardInterrupt():
            return 130
        case BrokenPipeError():
            _abandon_output()
            return 141
        case OSError():
            reason = error.strerror or str(error)
            where = f"{error.filename}: " if error.filename else ""
            if error.errno == errno.ENOSPC and not error.filename:
                where = "The output cannot be written: "
                _abandon_output()
            return _say(f"{where}{reason}. {_REMEDIES.get(error.errno or 0, '')}", 1)
        case MemoryError():
            return _say("There is not enough memory. Close other programs, or choose a smaller model.", 1)
        case _:
            return _say(f"This is a mistake in infraxa: {error!r}. {_keep_trace(error)}", 1)


def _say(line: str, code: int) -> int:
    note(f"infraxa: {line}")
    return code


def _is_typers(error: BaseException) -> bool:
    """typer's own errors: an unknown option, a missing argument, an aborted prompt."""
    return any(kind.__module__.partition(".")[0] == "typer" for kind in type(error).__mro__)


def _abandon_output() -> None:
    """Nobody can be told any more: keep the interpreter from failing on the rest at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def _keep_trace(error: BaseException) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="infraxa-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return clean("".join(traceback.format_exception_only(error)))
    return f"Please report it with the file {Path(file.name)}."
