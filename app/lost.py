"""When an engine is lost for an order: its process ended, or nothing came of it for too long."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from infraxa.app.taken import Taken
from infraxa.engine.generation import Generation
from infraxa.engine.types import EngineError, Finished

_LOOKS: Final = 10
"""Looks within the time in which something must come."""

Lost = Literal["worker_died", "timeout"]
"""`timeout`: nothing came of it for too long."""


class EngineLost(Exception):
    """Before anything of the answer was sent: it can be asked for again."""

    def __init__(self, code: Lost) -> None:
        super().__init__(code)
        self.code = code


class Stuck:
    """Cancels a generation of which nothing comes for too long. Counts looks instead of seconds: when this
    process stood still, what has come meanwhile is taken before the next look."""

    def __init__(self, generation: Generation, seconds: float) -> None:
        self.over = False
        """It was cancelled here: what still comes of it is nobody's."""
        self._generation = generation
        self._every = seconds / _LOOKS
        self._looks = 0
        self._waiting = True
        self._schedule()

    def heard(self) -> None:
        """Something came, and is dealt with."""
        self._looks, self._waiting = 0, False

    def waits(self) -> None:
        """More is waited for."""
        self._waiting = True

    def stop(self) -> None:
        self._timer.cancel()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        self._looks += self._waiting
        if self._looks > _LOOKS and self._generation.ended is None:
            self.over = True
            self._generation.cancel()
        else:
            self._schedule()


def lost(run: Taken, ended: Finished, stuck: Stuck) -> Lost | None:
    """Whether a generation that ended so is to be asked for again, and why; None: it is not."""
    if run.row.state == "answering":
        return None
    if stuck.over:
        return "timeout"
    error = ended.error
    return "worker_died" if error is not None and error.code == "worker_died" else None


def check(run: Taken, ended: Finished, stuck: Stuck) -> None:
    """Raises EngineLost, or EngineError when some of the answer was sent, for an end that is the engine's
    fault and not the order's."""
    if (code := lost(run, ended, stuck)) is not None:
        raise EngineLost(code)
    if stuck.over:
        raise EngineError("timeout", "The engine was silent for too long.")
