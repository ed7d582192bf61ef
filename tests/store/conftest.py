"""A database in a folder of its own, with a clock that moves by one millisecond whenever it is looked at."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraxa.store.db import Connection, connect


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    connection = connect(
        tmp_path / "data",
        clock=itertools.count(1_700_000_000_000).__next__,
        randbytes=random.Random(7).randbytes,
    )
    yield connection
    connection.close()
