"""Which models are loaded, each in an engine of its own, and which of them go when another one is wanted.

Models stay loaded side by side as memory and the settings allow. The ones that nobody has in hand go first,
the least recently used before the others; for the person, its own before those that only guests used (other
nodes, which this one serves). Whether a model fits is computed in engine/room.py; which models there are is
in models.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.files import FileMark, mark_of, stamp_of
from infraxa.app.places import MOST, Place, limit_beside, no_room, options_of
from infraxa.engine.host import Engine
from infraxa.engine.room import Resident, fits, most, resident, room_now
from infraxa.engine.types import EngineError, EngineStatus
from infraxa.net.tasks import TaskGroup

Room = Literal["loaded", "beside", "instead", "none"]
"""For a model: it has an engine; memory lets it be loaded beside all others; idle ones have to go for it;
those that are in hand leave no room."""


class Pool:
    """The engines of one node. All methods belong to one event loop."""

    def __init__(self, make: Callable[[], Engine], tasks: TaskGroup) -> None:
        """`make` gives a new engine that tells `engine_changed`."""
        self.room_now: Callable[[], int] = room_now
        self.resident: Callable[[int], Resident] = resident
        """See engine.room."""
        self.on_change: Callable[[], None] = lambda: None
        """Told when an engine has another status, or `status` is that of another one."""
        self.send_guests_away: Callable[[], Awaitable[None]] | None = None
        """Called when the person wants a model for which one has to go that only guests have in hand: returns
        when they have ended, which it bounds."""
        self._make = make
        self._tasks = tasks
        self._places: list[Place] = []
        self._left: list[Place] = []
        """In hand, but removed, or of a file that is another one by now: they go with their last answer."""
        self._shown: Place | None = None
        """The model that the person wanted last; without one, the last that was loaded."""
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def status(self) -> EngineStatus:
        """Of the engine of the person's model."""
        return EngineStatus() if self._shown is None else self._shown.engine.status

    def status_of(self, entry: ModelEntry) -> EngineStatus:
        """Of the engine that has this model; `off` when none has it."""
        place = self._find(entry)
        return EngineStatus() if place is None else place.engine.status

    @property
    def states(self) -> dict[str, str]:
        """Of the engines, by the path of the model that each is for."""
        return {place.entry.path: place.engine.status.state for place in self._places}

    @property
    def ready(self) -> frozenset[str]:
        """The models, by path, that answer without being loaded first."""
        return frozenset(path for path, state in self.states.items() if state == "ready")

    @property
    def workers(self) -> tuple[int, ...]:
        """Their processes."""
        return tuple(place.pid for place in (*self._places, *self._left) if place.pid is not None)

    def engine_changed(self) -> None:
        """An engine has another status."""
        self._changed.set()
        self.on_change()

    def room(self, entry: ModelEntry, settings: Settings) -> Room:
        """Whether this model could be served now."""
        place = self._find(entry)
        if place is not None and not place.failed:
            return "loaded"
        others = [other for other in self._places if other is not place]
        going = self._going(entry, settings, others, guest=True)
        return "none" if going is None else "instead" if going else "beside"

    @contextlib.asynccontextmanager
    async def held(
        self, entry: ModelEntry, settings: Settings, *, guest: bool = False
    ) -> AsyncIterator[Engine]:
        """An engine that has this model ready; it keeps it until the end of the block.

        `guest`: for another node. Raises EngineError when it cannot be loaded, and NodeError `busy` when
        those that are in hand leave no room for it; guests alone are sent away first.
        """
        place = await self._place(entry, settings, guest=guest)
        place.holders += 1
        place.guests += guest
        try:
            await self._have(place, settings, guest=guest)
            yield place.engine
        finally:
            place.guests -= guest
            place.holders -= 1
            place.used = time.monotonic()
            if place in self._left and not place.holders:
                self._left.remove(place)
                self._tasks.spawn(place.engine.close(), name=f"unload {place.entry.name}")

    async def load(self, entry: ModelEntry, settings: Settings, *, guest: bool = False) -> None:
        """Have an engine load this model, unless one has it; returns when it is ready.

        Nobody has it in hand then. Raises as `held`, and EngineError `closed` when another one was wanted
        more.
        """
        place = await self._place(entry, settings, guest=guest)
        await self._have(place, settings, guest=guest)

    async def unload(self, entry: ModelEntry) -> None:
        """Its memory is free when this returns, or with the end of the last answer that has it in hand."""
        place = self._find(entry)
        if place is None:
            return
        self._places.remove(place)
        if self._shown is place:
            self._shown = self._places[-1] if self._places else None
        if place.holders:
            self._left.append(place)
        else:
            await place.engine.close()
        self.on_change()

    async def close(self) -> None:
        """End all engines, within a few seconds and for good."""
        self._closed = True
        places, self._places, self._left = (*self._places, *self._left), [], []
        await asyncio.gather(*(place.engine.close() for place in places))

    async def _place(self, entry: ModelEntry, settings: Settings, *, guest: bool) -> Place:
        """The place of this model, which has no await between it and its use."""
        if entry.problem:
            raise EngineError("not_found", entry.problem, "Choose another model, or add it again.")
        mark = await asyncio.to_thread(mark_of, entry.info)
        if entry.stamp.size and stamp_of(mark) != entry.stamp:
            raise EngineError(
                "not_found", f"The file of {entry.name} changed just now.", "Try again when it is complete."
            )
        place = self._current(entry, mark)
        if place is None and not guest and self.send_guests_away is not None:
            if self._going(entry, settings, self._places, guest=False) is None:
                if self._going(entry, settings, self._places, guest=False, away=True) is not None:
                    await self.send_guests_away()
                place = self._current(entry, mark)
        if place is None:
            place = self._made(entry, settings, mark, guest=guest)
        if not guest:
            place.persons = True
        place.used = time.monotonic()
        if self._shown is None or (not guest and self._shown is not place):
            self._shown = place
            self.on_change()
        return place

    def _find(self, entry: ModelEntry) -> Place | None:
        return next((place for place in self._places if place.entry.path == entry.path), None)

    def _current(self, entry: ModelEntry, mark: FileMark) -> Place | None:
        """The place that has the file as it is now."""
        place = self._find(entry)
        if place is not None and place.mark != mark:
            self._places.remove(place)
            if place.holders:
                self._left.append(place)
                return None
            # Its engine loads the new file.
            renewed = Place(place.engine, entry, mark)
            renewed.persons = place.persons
            self._places.append(renewed)
            if self._shown is place:
                self._shown = renewed
            return renewed
        return place

    def _made(self, entry: ModelEntry, settings: Settings, mark: FileMark, *, guest: bool) -> Place:
        """A new place, for which idle ones went. Raises NodeError `busy`."""
        if self._closed:
            raise NodeError("closed", "This node is not open.")
        going = self._going(entry, settings, self._places, guest=guest)
        if going is None:
            raise no_room(settings)
        for place in going:
            self._places.remove(place)
        # The last one's engine ends its model by itself; the others end before the new one is loaded.
        place = Place(going[-1].engine if going else self._make(), entry, mark)
        self._places.append(place)
        if self._shown in going:
            self._shown = place
        self._begin(place, settings, [other.engine for other in going[:-1]])
        return place

    def _going(
        self, entry: ModelEntry, settings: Settings, others: list[Place], *, guest: bool, away: bool = False
    ) -> list[Place] | None:
        """The idle ones of `others` that have to go for this model, in order; None: those in hand leave no
        room.

        `away`: as if no guest had one in hand.
        """

        def when(place: Place) -> tuple[bool, bool, float]:
            return (not place.failed, place.persons == guest, place.used)

        idle = sorted((o for o in others if not o.holders or (away and o.holders == o.guests)), key=when)
        least = max(0, len(others) + 1 - (settings.models_loaded or MOST))
        least = max(least, sum(place.failed for place in idle))
        if least > len(idle):
            return None
        for count in range(least, len(idle) + 1):
            if self._fits(entry, settings, others, idle[:count], well=True):
                return idle[:count]
        if len(idle) == len(others) and not self._left:
            return idle  # more cannot be done: what is missing then is said best by who loads it
        return idle if self._fits(entry, settings, others, idle, well=False) else None

    def _fits(
        self, entry: ModelEntry, settings: Settings, others: list[Place], going: list[Place], *, well: bool
    ) -> bool:
        stay = [place for place in (*others, *self._left) if place not in going]
        free = self._free(stay) + sum(self.resident(place.pid).whole for place in going if place.pid)
        # What goes is mapped no more: `_free` did not count it.
        return fits(entry.info, options_of(settings), free, limit_beside(settings, stay), well=well)

    def _free(self, stay: list[Place]) -> int:
        """Bytes for others than those that stay."""
        return self.room_now() - self._kept_free(stay)

    def _kept_free(self, stay: list[Place]) -> int:
        return sum(
            self.resident(place.pid).mapped if place.pid else 0 if place.failed else place.reserved
            for place in stay
        )

    async def _have(self, place: Place, settings: Settings, *, guest: bool) -> None:
        """Returns when it is ready. Raises EngineError."""
        options = options_of(settings)
        # Other options do while others are using the model: they come into force with the next load.
        will_do = place.options == options or guest or place.holders > 1
        if place.loading is not None and will_do:
            # Whoever waits may give up; the model goes on loading for the next one.
            await asyncio.shield(place.loading)
            return
        if place.options is not None and will_do:
            await self._until_ready(place)
            if place.engine.status.state == "ready":
                return
        await asyncio.shield(self._begin(place, settings, []))

    def _begin(self, place: Place, settings: Settings, ending: list[Engine]) -> asyncio.Task[None]:
        """Begin to load it, after these have ended."""
        place.options = options_of(settings)
        stay = [other for other in (*self._places, *self._left) if other is not place]
        place.reserved = most(place.entry.info, place.options, self._free(stay))
        work = self._load(place, settings, ending)
        task = place.loading = self._tasks.spawn(work, name=f"load {place.entry.name}", told=FAILURES)

        def ended(task: asyncio.Task[None]) -> None:
            if place.loading is task:
                place.loading = None

        task.add_done_callback(ended)
        return task

    async def _load(self, place: Place, settings: Settings, ending: list[Engine]) -> None:
        while True:
            await asyncio.gather(*(engine.close() for engine in ending))
            stay = [other for other in (*self._places, *self._left) if other is not place]
            options = options_of(settings, limit_beside(settings, stay), self._kept_free(stay))
            try:
                await place.engine.load(Path(place.entry.path), options)
                return
            except EngineError as error:
                idle = [other for other in self._places if not other.holders and other is not place]
                if error.code != "no_memory" or not idle or place not in self._places:
                    raise
            self._places = [other for other in self._places if other not in idle]
            ending = [other.engine for other in idle]

    async def _until_ready(self, place: Place) -> None:
        """Until a worker that is being restarted is there again, or is given up; the engine bounds it."""
        while place.engine.status.state in ("starting", "loading", "restarting"):
            self._changed.clear()
            await self._changed.wait()
