"""What no test may get from whoever runs them, how they are named, run side by side and cleaned up after."""

from __future__ import annotations

import gc
import os

LONGEST_NAME = 200
"""Characters of a value that names its test."""

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


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long data is not the name of its test: each worker sends all names, and the name with each report."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{argname} of {len(val)}"
    return None
