"""The entry point. It answers `--version` and opens the app by itself: loading the options of all commands
would take longer than the one, and a tenth of the other.
"""

from __future__ import annotations

import os
import sys

COMPLETION_VARIABLE = "_INFRAXA_COMPLETE"
"""Set by a shell that asks for completions; the words are in other variables, and no argument is given."""


def main() -> int:
    """Run the command that the arguments ask for; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows `?`
    try:
        if sys.argv[1:] in (["--version"], ["-V"]):
            from infraxa import __version__

            print(f"infraxa {__version__}", flush=True)
            return 0
        if not sys.argv[1:] and COMPLETION_VARIABLE not in os.environ:
            from infraxa.app.commands.open_app import open_app

            return open_app(None, {})
        from infraxa.app.commands.root import run

        return run(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        from infraxa.app.commands.failures import report

        return report(error) or 1
