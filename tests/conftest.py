"""What no test may get from whoever runs them, how many run side by side, and when garbage is looked for."""

from __future__ import annotations

import gc
import os

# The size of the terminal of the test run: each test has a terminal of its own.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one more than processors, since a third of the time tests wait for something."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """All test modules are there to stay, half a million objects that the collector need not look through.

    It also looks less often than in a program that runs for days: a third of an app's test went there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
