"""The entry point. It answers `--version` by itself: loading the other commands takes three times as long."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that the arguments ask for; returns the exit code."""
    try:
        if sys.argv[1:] in (["--version"], ["-V"]):
            from infraxa import __version__

            print(f"infraxa {__version__}", flush=True)
            return 0
        from infraxa.app.commands.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # the commands' own handling was not there yet
        return 130
    except OSError as error:  # nobody reads the version, or the disk is full
        from infraxa.app.commands.failures import report

        return report(error) or 1
