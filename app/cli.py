"""The entry point. It answers `--version` by itself: loading the other commands takes three times as long."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that the arguments ask for; returns the exit code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from infraxa import __version__

        print(f"infraxa {__version__}")
        return 0
    try:
        from infraxa.app.commands.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before the commands' own handling was there
        return 130
