"""Provider mode: whether this machine serves other nodes now, and with which model.

What is told of it, and what orders are taken then, is in desk.py; when nobody is served by hours or battery
in pauses.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from infraxa.app import pauses
from infraxa.app.busy import OthersBusy, Sampler
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.desk import Desk
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.events import Event
from infraxa.app.models import Models
from infraxa.app.offering import servable
from infraxa.app.serving import ProviderStatus
from infraxa.app.terms import Refusal, Why, terms_of
from infraxa.app.till import Till
from infraxa.engine.types import EngineError
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import now_ms

CHOSEN_S: Final = 10.0
"""So often it is looked whether the model is still there."""
LOAD_S: Final = 1800.0
"""What loading a model takes at most; see engine.host.Limits."""


class Limits(msgspec.Struct, frozen=True):
    """Seconds."""

    look: float = 2.0
    """Between two looks at hours, battery, model and engine."""
    drain: float = 120.0
    """Answers that run when provider mode goes off have so long."""
    guests: float = 20.0
    """The same when the person wants another model."""
    end: float = 10.0
    """Orders that are ended are over within this."""
    idle: float = 60.0
    """The model is loaded again when the person has not used another one for so long."""
    retry: float = 30.0
    """A model that failed is loaded again after this, twice as long each time."""
    retry_most: float = 600.0


class Provider(Desk):
    """Provider mode of one node. Made cheaply; all methods belong to one event loop."""

    def __init__(
        self,
        models: Models,
        emit: Callable[[Event], None],
        *,
        clock: Callable[[], int] = now_ms,
        on_battery: Callable[[], bool] = pauses.on_battery,
        others_share: Callable[[Iterable[int]], float] | None = None,
        limits: Limits | None = None,
        till: Till | None = None,
    ) -> None:
        """`clock`: milliseconds since the epoch. `others_share`: see busy.Sampler. `till`: by
        default one of its own."""
        limits = limits or Limits()
        super().__init__(models, emit, till or Till(clock=clock), clock=clock, retry_s=limits.retry)
        self._models = models
        self._on_battery = on_battery
        self._others_share = others_share or Sampler().share
        self._busy = OthersBusy()
        self._limits = limits
        self._chosen_until = 0.0
        self._knows_blocked = False
        self._person_waits = 0
        """For guests to go."""
        self._displaced_until = 0.0
        self._retry_at = 0.0
        self._retry = self._limits.retry
        self._engines_seen: dict[str, str] = {}
        """What state each was in, by its model."""
        self._wake = asyncio.Event()
        self._tasks = TaskGroup()
        self._keeper: asyncio.Task[None] | None = None
        """Runs while it is on."""
        self._draining: asyncio.Task[None] | None = None
        models.send_guests_away = self._send_guests_away

    async def use(self, settings: Settings) -> None:
        """Have provider mode be as these settings say. Returns at once; the rest is in `status`."""
        self._settings = settings
        self.till.use(settings)
        limit = settings.upload_limit
        self._sales.throttle.limit(None if limit is None else limit * 1000)
        self._chosen_until = self._retry_at = 0.0
        if not settings.provide:
            await self.stop(now=False)
            return
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        if self._keeper is None:
            if self._state.mode == "off":
                self._records.reset()
                self._state = ProviderStatus(since_ms=self._clock())
            self._retry = self._limits.retry
            self._keeper = self._tasks.repeat(self._turn, name="provider mode", pause_s=self._limits.look)
            self._on = True
            self._shut(lambda: Refusal("busy", "Provider mode was starting.", retry_after_ms=10_000))
            self._become("starting", wait=self._waiting("the model", LOAD_S))
        self._wake.set()

    def engine_changed(self) -> None:
        """An engine has another status."""
        seen = self._models.states
        if seen != self._engines_seen:  # and not only other counts
            self._engines_seen = seen
            self._wake.set()

    async def stop(self, *, now: bool) -> None:
        """Turn it off. `now`: end what runs, and return when that is done; else this returns at once, those
        that wait are sent away, and those that run have `Limits.drain`."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper, self._on = None, False
            self._shut(_leaving)
            self._offering.withdraw()
            self._sales.send_away(_leaving)
            wait = self._waiting("the answers that are running to end", self._limits.drain)
            self._become("draining", wait=wait)
            self._draining = self._tasks.spawn(self._drain(), name="drain")
        if now and self._draining is not None:
            self._sales.end(_leaving)
            await asyncio.wait([self._draining], timeout=self._limits.end)

    async def _drain(self) -> None:
        if not await self._sales.ended(self._limits.drain):
            self._sales.end(_leaving)
            await self._sales.ended(self._limits.end)
        self._sales.terms = None
        self._draining = None
        self._become("off")

    async def close(self) -> None:
        """End it for good, at once; nothing is told after that."""
        await self.stop(now=True)
        await self._tasks.cancel_all()
        await self._sales.close()
        await self.till.close()
        self._teller.stop()

    async def _turn(self) -> None:
        """Look how things are, and be as they demand; then wait."""
        self._wake.clear()
        try:
            await self._look()
        except FAILURES as error:
            if isinstance(error, EngineError):
                self._retry_at = time.monotonic() + self._retry
                self._retry = min(self._retry * 2, self._limits.retry_most)
            self._fail(error.message, error.remedy)
        await self.till.tick()
        if self._records.tokens_per_second(time.monotonic()) or self.till.pricing.now != self._price:
            self._teller.changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.look):
                await self._wake.wait()

    async def _look(self) -> None:
        if not self._knows_blocked:
            self._sales.blocked = frozenset(user.user for user in await self.blocked())
            self._knows_blocked = True
        settings = self._settings
        entry, model_id = await self._choose(settings)
        terms = self._sales.terms
        if terms is not None and terms.model_id != model_id:
            await self._leave_model()
        at = self._clock() / 1000
        on_battery = settings.pause_on_battery and self._on_battery()
        if pause := pauses.find_pause(settings.provide_hours, settings.pause_on_battery, on_battery, at):
            self._pause(pause)
        elif self._person_waits or self._models.room(entry, settings) == "none":
            self._displaced_until = time.monotonic() + self._limits.idle
            self._pause(pauses.Pause("You are using another model.", at + self._limits.idle))
        elif settings.pause_when_busy and self._others_busy():
            self._pause(pauses.Pause("Other programs keep this machine busy."))
        else:
            await self._have_model(entry, settings, model_id)

    def _others_busy(self) -> bool:
        share = self._others_share(self._models.workers)
        return self._busy.look(share, time.monotonic())

    async def _have_model(self, entry: ModelEntry, settings: Settings, model_id: bytes) -> None:
        """Serve with this model, as soon as an engine has it. Raises EngineError, NodeError."""
        engine, now = self._models.status_of(entry), time.monotonic()
        served = self._sales.terms is not None
        if engine.state == "ready" and engine.loaded is not None:
            self._retry_at, self._retry = 0.0, self._limits.retry
            self._open_for(terms_of(entry, settings, model_id, engine.loaded), engine.loaded)
        elif engine.state in ("starting", "loading", "restarting"):
            if served:
                self._pause(pauses.Pause("The model is being loaded again."), stay=True)
        elif engine.state == "failed" and engine.error is not None and served:
            raise EngineError(engine.error.code, engine.error.message, engine.error.remedy)
        elif served and now < self._displaced_until and self._models.room(entry, settings) == "instead":
            left = self._displaced_until - now
            self._pause(pauses.Pause("You used another model a moment ago.", self._clock() / 1000 + left))
        elif now >= self._retry_at:
            self._become("starting", wait=self._waiting("the model", LOAD_S))
            try:
                # Not held: the person may want another model before this one is there.
                await self._models.load(entry, settings, guest=True)
            except (EngineError, NodeError) as error:
                if error.code not in ("closed", "busy"):
                    raise
            else:
                self._wake.set()

    async def _choose(self, settings: Settings) -> tuple[ModelEntry, bytes]:
        """The model to serve, looked at again now and then. Raises NodeError, EngineError."""
        now = time.monotonic()
        if self._chosen is None or now >= self._chosen_until:
            name = settings.provide_model or settings.model
            self._chosen = await servable(self._models, name, self._chosen)
            self._chosen_until = now + CHOSEN_S
        return self._chosen

    async def _leave_model(self) -> None:
        """Another model is to be served: returns when nobody is answered by the one before."""
        gone: Why = lambda: Refusal("model_gone", "Another model is served now.")  # noqa: E731
        self._shut(gone)
        self._offering.withdraw(model=True)
        self._sales.send_away(gone)
        wait = self._waiting("the answers that are running to end", self._limits.drain)
        self._become("starting", wait=wait)
        if not await self._sales.ended(self._limits.drain):
            self._sales.end(gone)
            await self._sales.ended(self._limits.end)
        self._sales.terms = None

    async def _send_guests_away(self) -> None:
        """The person wants another model: returns when nobody is answered by this one."""
        self._person_waits += 1
        try:
            if self._keeper is not None:
                self._pause(pauses.Pause("You are using another model."))
            if not await self._sales.ended(self._limits.guests):
                self._sales.end(lambda: Refusal("leaving", "You wanted another model."))
                await self._sales.ended(self._limits.end)
        finally:
            self._person_waits -= 1


def _leaving() -> Refusal:
    return Refusal("leaving", "Provider mode was turned off.")
