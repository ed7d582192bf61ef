"""Provider mode: whether this machine serves other nodes now, with which model, and what others are told.

How an order is served is in sales.py, when nobody is served by hours or battery in pauses.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from infraxa.app import pauses
from infraxa.app.busy import OthersBusy, Sampler
from infraxa.app.calm import Calm
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.events import Event, LogLine, ProviderChanged, ServedChanged
from infraxa.app.models import Models
from infraxa.app.offering import Offering, servable
from infraxa.app.sales import Sales
from infraxa.app.served import Records, RequestLog, Row
from infraxa.app.serving import BlockedUser, Mode, ProviderStatus, SelfTest, Served
from infraxa.app.terms import PAUSED, Refusal, Terms, Why
from infraxa.app.till import Till
from infraxa.app.trade import Missed
from infraxa.engine.host import Engine
from infraxa.engine.types import EngineError, EngineStatus, Loaded
from infraxa.net.status import Load, Offer, Waiting
from infraxa.net.tasks import TaskGroup
from infraxa.store import users
from infraxa.store.db import Store, now_ms

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

CALM_S: Final = 0.25
"""At most so often the program is told of changes."""
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


class Provider:
    """Provider mode of one node. Made cheaply; all methods belong to one event loop."""

    def __init__(
        self,
        models: Models,
        engine: Engine,
        emit: Callable[[Event], None],
        *,
        clock: Callable[[], int] = now_ms,
        on_battery: Callable[[], bool] = pauses.on_battery,
        others_share: Callable[[int | None], float] | None = None,
        limits: Limits | None = None,
        till: Till | None = None,
    ) -> None:
        """`clock`: milliseconds since the epoch. `others_share`: see busy.Sampler. `till`: by
        default one of its own."""
        self.on_offer: Callable[[Offer | None], None] = lambda offer: None
        """Told what is offered from now on; None: nothing."""
        self.on_load: Callable[[Load], None] = lambda load: None
        """Told how busy this node is, when that is news."""
        self.self_test: Callable[[], SelfTest] = lambda: SelfTest("off")
        """What is known of whether strangers are served."""
        self._models = models
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._on_battery = on_battery
        self._others_share = others_share or Sampler().share
        self._busy = OthersBusy()
        self._limits = limits or Limits()
        self._store: Store | None = None
        self._settings = Settings()
        self._records = Records()
        self.till = till or Till(clock=clock)
        """What it sells for, and who owes it how much."""
        self.till.serving = self._served_with
        self._sales = Sales(
            models,
            engine,
            self._records,
            self.till,
            changed=self._moved,
            ended=self._log_end,
            again=self._log_again,
            now_ms=clock,
        )
        self._state = ProviderStatus()
        """Mode, reason, remedy, since and wait; the rest is filled in when it is looked at."""
        self._offering = Offering(lambda offer: self.on_offer(offer), lambda load: self.on_load(load))
        self._price = self.till.pricing.now
        """As it was looked at last."""
        self._chosen: tuple[ModelEntry, bytes] | None = None
        self._chosen_until = 0.0
        self._knows_blocked = False
        self._person_waits = 0
        """For guests to go."""
        self._displaced_until = 0.0
        self._retry_at = 0.0
        self._retry = self._limits.retry
        self._engine_seen = ("", "")
        self._wake = asyncio.Event()
        self._tasks = TaskGroup()
        self._keeper: asyncio.Task[None] | None = None
        """Runs while it is on."""
        self._draining: asyncio.Task[None] | None = None
        self._teller = Calm(self._tell, CALM_S)
        self._log = RequestLog()
        models.send_guests_away = self._send_guests_away

    def open(self, store: Store) -> None:
        """Remember in `store` who is not served, and keep the books there."""
        self._store = store
        self.till.open(store)

    @property
    def status(self) -> ProviderStatus:
        """As it is now."""
        records, admission, terms = self._records, self._sales.admission, self._sales.terms
        chosen = self._chosen[0] if self._chosen and self._state.mode != "off" else None
        rates = self.till.pricing.now
        return msgspec.structs.replace(
            self._state,
            model=chosen.name if chosen else "",
            quantization=chosen.quantization if chosen else "",
            context=terms.context if terms else 0,
            capacity=admission.capacity if terms else 0,
            running=admission.running,
            waiting=admission.waiting,
            room=admission.room if terms else 0,
            users=len({row.user for row in records.rows.values()}),
            answered=records.answered,
            failed=records.failed,
            cancelled=records.cancelled,
            refused=dict(records.refused),
            tokens=records.tokens,
            bytes_out=records.bytes_out,
            tokens_per_second=records.tokens_per_second(time.monotonic()),
            first_token_ms=records.first_token_ms,
            price_in=rates.price_in if terms else 0,
            price_out=rates.price_out if terms else 0,
            self_test=self.self_test(),
        )

    @property
    def mode(self) -> Mode:
        return self._state.mode

    @property
    def model_id(self) -> bytes | None:
        """What orders are taken for now; None: they are not."""
        terms = self._sales.terms
        return terms.model_id if terms is not None and self._state.mode == "serving" else None

    def has_answered(self, account: bytes) -> bool:
        """Whether this account had an answer to its end, not long ago."""
        return any(one.user == account and one.state == "done" for one in self._records.served())

    def was_test(self, account: bytes) -> None:
        """What this account ordered is no demand: a peer did, that was asked to."""
        self.till.missed.was_test(account)

    def tell_soon(self) -> None:
        """Something that the status shows may be another one."""
        self._teller.changed()

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
            self._shut(lambda: Refusal("busy", "Provider mode was starting.", retry_after_ms=10_000))
            self._become("starting", wait=self._waiting("the model", LOAD_S))
        self._wake.set()

    def engine_changed(self, status: EngineStatus) -> None:
        """The engine has another status."""
        seen = (status.state, status.model)
        if seen != self._engine_seen:  # and not only other counts
            self._engine_seen = seen
            self._wake.set()

    async def stop(self, *, now: bool) -> None:
        """Turn it off. `now`: end what runs, and return when that is done; else this returns at once, those
        that wait are sent away, and those that run have `Limits.drain`."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
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

    async def serve(self, sale: Sale) -> None:
        """Serve an order of another node to its end."""
        await self._sales.serve(sale)

    def missed(self, *, unreachable: bool) -> list[Missed]:
        """Chances to earn that were lost, the last first. `unreachable`: nobody can dial this node."""
        mode, since_ms = self._state.mode, self._state.since_ms
        return self.till.missed.listed(
            self._clock(),
            serving_since_ms=since_ms if mode == "serving" else None,
            free=self._settings.base_price == 0,
            unreachable=unreachable and mode != "off",
        )

    def served(self) -> list[Served]:
        """The requests that are here, the oldest first, then those that ended, the last first."""
        return self._records.served()

    async def end(self, number: int) -> None:
        """End this request now; nothing happens when it is over."""
        self._sales.end(lambda: Refusal("cancelled", "You ended it."), lambda row: row.number == number)

    async def block(self, user: bytes, blocked: bool) -> None:
        """Serve this user no more, or again. What it has running is ended. Raises StoreError."""
        await self._opened.run(users.block_user if blocked else users.unblock_user, user)
        self._sales.blocked = self._sales.blocked | {user} if blocked else self._sales.blocked - {user}
        if blocked:
            why = lambda: Refusal("not_allowed", "You have blocked this user.")  # noqa: E731
            self._sales.end(why, lambda row: row.user == user)

    async def blocked(self) -> list[BlockedUser]:
        """Who is not served, the one that was blocked last first. Raises StoreError."""
        records = await self._opened.run(users.list_blocked_users)
        return [BlockedUser(record.user, record.since_ms, record.note) for record in records]

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        return self._store

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
        elif self._person_waits or self._models.others_hold(entry):
            self._displaced_until = time.monotonic() + self._limits.idle
            self._pause(pauses.Pause("You are using another model.", at + self._limits.idle))
        elif settings.pause_when_busy and self._others_busy():
            self._pause(pauses.Pause("Other programs keep this machine busy."))
        else:
            await self._have_model(entry, settings, model_id)

    def _others_busy(self) -> bool:
        loaded = self._engine.status.loaded
        share = self._others_share(None if loaded is None else loaded.pid)
        return self._busy.look(share, time.monotonic())

    async def _have_model(self, entry: ModelEntry, settings: Settings, model_id: bytes) -> None:
        """Serve with this model, as soon as the engine has it. Raises EngineError, NodeError."""
        engine, now = self._engine.status, time.monotonic()
        ours = engine.model == str(Path(entry.path))
        served = self._sales.terms is not None
        if ours and engine.state == "ready" and engine.loaded is not None:
            self._open_for(Terms(entry, settings, model_id, engine.loaded.n_ctx), engine.loaded)
        elif ours and engine.state in ("starting", "loading", "restarting"):
            if served:
                self._pause(pauses.Pause("The model is being loaded again."), stay=True)
        elif ours and engine.state == "failed" and engine.error is not None and served:
            raise EngineError(engine.error.code, engine.error.message, engine.error.remedy)
        elif engine.state == "ready" and served and now < self._displaced_until:
            left = self._displaced_until - now
            self._pause(pauses.Pause("You used another model a moment ago.", self._clock() / 1000 + left))
        elif now >= self._retry_at:
            self._become("starting", wait=self._waiting("the model", LOAD_S))
            try:
                # Not held: the person may want another model before this one is there.
                await self._models.load(entry, settings, as_it_is=True)
            except EngineError as error:
                if error.code != "closed":
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

    def _served_with(self, account: bytes) -> Terms:
        """What an order of this account would be served with now. Raises Refusal."""
        sales = self._sales
        if sales.shut is not None:
            raise sales.shut()
        if account in sales.blocked:
            raise Refusal("not_allowed", "You have blocked this user.")
        assert sales.terms is not None
        return sales.terms

    def _open_for(self, terms: Terms, loaded: Loaded) -> None:
        """Orders are taken."""
        self._retry_at, self._retry = 0.0, self._limits.retry
        slots = loaded.slots
        self._sales.terms = terms
        self._sales.admission.capacity = max(1, min(terms.settings.capacity or slots - 1, slots))
        self._sales.shut = None
        self._sales.advance()
        self._become("serving")
        self._offering.offer(
            terms, self._sales.admission.capacity, self._records.speed, self.till.pricing.base
        )

    def _pause(self, pause: pauses.Pause, *, stay: bool = False) -> None:
        """Nobody is served; `stay`: those that wait go on waiting."""

        def why() -> Refusal:
            at = self._clock() / 1000
            seconds = self._limits.retry if pause.ends is None else max(1.0, pause.ends - at)
            return Refusal("busy", pause.reason, retry_after_ms=round(seconds * 1000), field=PAUSED)

        self._shut(why)
        if not stay:
            self._sales.send_away(why)
        self._become("paused", pause.reason)

    def _fail(self, reason: str, remedy: str) -> None:
        gone: Why = lambda: Refusal("model_gone", "The model failed.")  # noqa: E731
        self._shut(gone)
        self._offering.withdraw()
        self._sales.send_away(gone)
        self._sales.terms = None
        self._become("failed", reason, remedy)

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

    def _shut(self, why: Why) -> None:
        self._sales.shut = why
        self._moved()

    def _waiting(self, what: str, limit_s: float) -> Waiting:
        return Waiting(what, self._clock(), limit_s)

    def _become(self, mode: Mode, reason: str = "", remedy: str = "", wait: Waiting | None = None) -> None:
        before = self._state
        self._state = msgspec.structs.replace(before, mode=mode, reason=reason, remedy=remedy, wait=wait)
        if (before.mode, before.reason) != (mode, reason):
            self._say(" ".join(filter(None, (_MODES[mode], reason, remedy))))
        if self._state != before:
            self._moved()

    def _say(self, text: str) -> None:
        self._emit(LogLine("infraxa", text))

    def _moved(self) -> None:
        """An order moved on, or the mode is another one."""
        sales = self._sales
        shut = self._keeper is not None and sales.shut is not None
        self._offering.load(sales.admission, self._records.first_token_ms, self._price, shut=shut)
        self._teller.changed()

    def _tell(self) -> None:
        self._price_anew()
        self._emit(ProviderChanged(self.status))
        self._emit(ServedChanged())

    def _price_anew(self) -> None:
        """The price follows the work that is here."""
        speed, running = self._records.speed, self._sales.admission.running
        self.till.pricing.feed(self._sales.work(), speed * max(1, running))
        if (price := self.till.pricing.now) != self._price:
            self._price = price
            self._moved()

    def _log_again(self, row: Row) -> None:
        self._say(self._log.again(row))

    def _log_end(self, row: Row) -> None:
        if (line := self._log.line(row, time.monotonic())) is not None:
            self._say(line)


_MODES: Final[dict[Mode, str]] = {
    "off": "Provider mode is off.",
    "starting": "Provider mode is starting.",
    "serving": "Provider mode is on.",
    "paused": "Provider mode is paused.",
    "draining": "Provider mode goes off.",
    "failed": "Provider mode failed.",
}


def _leaving() -> Refusal:
    return Refusal("leaving", "Provider mode was turned off.")
