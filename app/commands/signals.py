"""What signals do while a command runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping

ENDS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the end that a system asks for."""


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Callable[[], None]], *, once: bool = False) -> Iterator[None]:
    """They are called on the loop that runs. `once`: after the first signal all do what they do elsewhere."""
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for number in handlers:
            loop.remove_signal_handler(number)

    def handle(handler: Callable[[], None]) -> None:
        handler()
        if once:
            leave()

    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handle, handler)
    except NotImplementedError:  # Windows: Ctrl-C cancels the run, which closes the node
        yield
        return
    try:
        yield
    finally:
        leave()
