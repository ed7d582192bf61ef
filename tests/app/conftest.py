"""What an app leaves behind in its process goes with its test, and when an app under test is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import textual.app
import textual.pilot
from textual._styles_cache import StylesCache
from textual._wait import wait_for_idle

QUIET = 3
"""Turns of the loop in which nothing was ready."""


async def idle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Textual's own wait, and then until the loop has nothing to run.

    Textual takes a process that uses no processor for idle, also one that gets none on a busy machine.
    """
    await wait_for_idle(min_sleep, max_sleep)
    loop = asyncio.get_running_loop()
    end = loop.time() + max_sleep
    quiet = 0
    while quiet < QUIET and loop.time() < end:
        await asyncio.sleep(0)
        quiet = 0 if loop._ready else quiet + 1  # type: ignore[attr-defined] # of CPython's loops


textual.pilot.wait_for_idle = textual.app.wait_for_idle = idle  # type: ignore[attr-defined] # they import it


@pytest.fixture(autouse=True)
def lines_of_closed_apps_go() -> Iterator[None]:
    """Textual keeps the drawn lines of the last thousand widgets: 26 000 objects of each app."""
    yield
    StylesCache.get_inner_outer.cache_clear()
