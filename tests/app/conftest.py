"""What an app leaves behind in its process goes with its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from textual._styles_cache import StylesCache


@pytest.fixture(autouse=True)
def lines_of_closed_apps_go() -> Iterator[None]:
    """Textual keeps the drawn lines of the last thousand widgets: 26 000 objects of each app."""
    yield
    StylesCache.get_inner_outer.cache_clear()
