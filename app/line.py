"""Orders of other nodes that wait for a slot: they hear of their places, get one, and may have to go back.

Who is next is decided in admission.py, what is done with an order that has a slot in turns.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING, Final

from infraxa.app.admission import Admission
from infraxa.app.taken import Taken
from infraxa.app.terms import Refusal
from infraxa.net.addresses import LOCAL

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

ALIVE_S: Final = 5.0
"""At least so often the user is told something while there is nothing to send."""
CALM_S: Final = 0.25
"""At most so often it is told of another place in line."""


class Line:
    """Of one provider."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when orders moved on."""
        self.admission = Admission(1)
        self._changed = changed
        self._here: dict[int, Taken] = {}
        """Those that wait or have a slot, by number."""

    @property
    def here(self) -> Collection[Taken]:
        """Those that wait or have a slot."""
        return self._here.values()

    def waiting(self) -> list[Taken]:
        """The next one first."""
        return [self._here[number] for number in self.admission.line()]

    def no_room(self) -> Refusal:
        """Why an order is not let in."""
        return Refusal("busy", "There was no room.", retry_after_ms=self.admission.retry_after_ms())

    async def wait(self, run: Taken, sale: Sale, *, patient: bool) -> None:
        """Returns when it has a slot. `patient`: it may wait for one. Raises Refusal."""
        lane: Hashable = sale.group
        if sale.group == LOCAL and not sale.relayed:
            lane = (LOCAL, sale.account)
        if not self.admission.arrive(run.row.number, lane, sale.account, run.arrived):
            raise self.no_room()
        self._here[run.row.number] = run
        deadline = self.admission.deadline(run.row.number)
        self.advance()
        if not patient and not run.turn.is_set():
            raise self.no_room()  # it takes nothing that anybody pays for
        await self._until_turn(run, sale, deadline, fault=False)

    async def wait_again(self, run: Taken, sale: Sale) -> None:
        """It has a slot, and goes back to the place that it had by its arrival; returns when it has a slot
        again. Raises Refusal."""
        run.turn.clear()
        self.admission.give_back(run.row.number, time.monotonic())
        deadline = self.admission.deadline(run.row.number)
        self.advance()
        await sale.placed(run.row.place)  # though it be its turn: what it had is lost
        await self._until_turn(run, sale, deadline, fault=True)

    async def _until_turn(self, run: Taken, sale: Sale, deadline: float, *, fault: bool) -> None:
        while not run.turn.is_set():
            if time.monotonic() >= deadline:
                retry_ms = self.admission.retry_after_ms()
                raise Refusal("expired", "It waited too long.", retry_after_ms=retry_ms, fault=fault)
            run.news.clear()
            await sale.placed(run.row.place)
            await within(CALM_S, run.turn)
            if not run.turn.is_set():
                await within(min(ALIVE_S - CALM_S, deadline - time.monotonic()), run.news)

    def advance(self) -> None:
        """Give free slots to those whose turn it is, and tell the others their new places."""
        now = time.monotonic()
        for number in self.admission.admit():
            run = self._here[number]
            run.since = now
            run.row.place = 0
            run.turn.set()
            run.news.set()
        for place, run in enumerate(self.waiting()):
            if run.row.place != place:
                run.row.place = place
                run.news.set()
        self._changed()

    def leave(self, run: Taken) -> bool:
        """Its slot, or its place in line, is another's now; False when it was before."""
        if not self.admission.leave(run.row.number):
            return False
        del self._here[run.row.number]
        self.advance()
        return True


async def within(seconds: float, event: asyncio.Event) -> None:
    """Returns when the event has happened, or after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
