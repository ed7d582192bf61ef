"""Notices a worker that lives but does nothing: stopped, or lost in one step. Decides when, and not what
then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LOOKS = 10
"""Looks within the time of silence that is allowed."""


class Watch:
    """Looks at a worker every now and then while it has something to do.

    Counts looks instead of seconds: when the event loop itself stood still, or the machine slept, the
    worker's messages are read before the next look.
    """

    def __init__(
        self, *, silence: float, step: float, working: Callable[[], bool], dead: Callable[[str], None]
    ) -> None:
        """`silence`: seconds without any message; `step`: seconds in which the step counter may stand still.

        `working` says whether there is a reason to look; `dead` is told why the worker must be ended.
        """
        self._silence = silence
        self._step_limit = step
        self._working = working
        self._dead = dead
        self._timer: asyncio.TimerHandle | None = None
        self._silent = 0
        self._still = 0
        self._step = -1

    def start(self) -> None:
        """There is work; does nothing while already looking."""
        if self._timer is None:
            self._silent = self._still = 0
            self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard(self) -> None:
        """Some message came."""
        self._silent = 0

    def stepped(self, step: int) -> None:
        """The worker is at this step."""
        if step != self._step:
            self._step = step
            self._still = 0

    def progressed(self) -> None:
        """The worker did something useful that is no step."""
        self._still = 0

    @property
    def still(self) -> float:
        """Seconds since anything useful happened, at least; 0 while nobody looks."""
        return 0.0 if self._timer is None else max(0, self._still - 1) * self._silence / _LOOKS

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._silence / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._working():
            return
        self._silent += 1
        self._still += 1
        if self._silent > _LOOKS:
            self._dead(f"it said nothing for {self._silence:g} s")
        elif self._still * self._silence / _LOOKS > self._step_limit:
            self._dead(f"one step took more than {self._step_limit:g} s")
        else:
            self._schedule()
