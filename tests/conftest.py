"""What no test may get from whoever runs them."""

from __future__ import annotations

import os

# The size of the terminal of the test run: each test has a terminal of its own.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
