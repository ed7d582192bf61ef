"""Prints the table of a full run."""

from __future__ import annotations

import pytest

from tests.attacks.report import FULL, ROWS, table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FULL and ROWS:
        terminalreporter.section("attacks")
        terminalreporter.write_line(table())
