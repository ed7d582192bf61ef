"""What no test may get from whoever runs them, and how many run side by side."""

from __future__ import annotations

import os

# The size of the terminal of the test run: each test has a terminal of its own.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one more than processors, since a third of the time tests wait for something."""
    return (os.cpu_count() or 1) + 1
