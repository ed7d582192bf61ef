"""Where orders of other nodes are taken: open with a model, or shut for a reason; and what is told of it.

When it is open, and with which model, is decided in provider.py; how an order is served in sales.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from infraxa.app import pauses
from infraxa.app.calm import Calm
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, LogLine, ProviderChanged, ServedChanged
from infraxa.app.models import Models
from infraxa.app.offering import Offering
from infraxa.app.sales import Noise, Sales, no_noise
from infraxa.app.served import Records, RequestLog, Row
from infraxa.app.serving import BlockedUser, Mode, ProviderStatus, SelfTest, Served
from infraxa.app.terms import PAUSED, Refusal, Terms, Why
from infraxa.app.till import Till
from infraxa.app.trade import Missed
from infraxa.engine.types import Loaded
from infraxa.net.status import Load, Offer, Waiting
from infraxa.store import trade, users
from infraxa.store.db import Store

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

CALM_S: Final = 0.25
"""At most so often the program is told of changes."""


class Desk:
    """Of one node."""

    def __init__(
        self,
        models: Models,
        emit: Callable[[Event], None],
        till: Till,
        *,
        clock: Callable[[], int],
        retry_s: float,
    ) -> None:
        """`clock`: milliseconds since the epoch. `retry_s`: who is refused is told to come again after so
        long, when nobody knows better."""
        self.on_offer: Callable[[Offer | None], None] = lambda offer: None
        """Told what is offered from now on; None: nothing."""
        self.on_load: Callable[[Load], None] = lambda load: None
        """Told how busy this node is, when that is news."""
        self.self_test: Callable[[], SelfTest] = lambda: SelfTest("off")
        """What is known of whether strangers are served."""
        self.noise: Noise = no_noise
        """How the scores of answers of others are to be judged."""
        self.till = till
        """What it sells for, and who owes it how much."""
        self.till.serving = self._served_with
        self._emit = emit
        self._clock = clock
        self._retry_s = retry_s
        self._store: Store | None = None
        self._settings = Settings()
        self._records = Records()
        self._sales = Sales(
            models,
            self._records,
            self.till,
            changed=self._moved,
            ended=self._log_end,
            again=self._log_again,
            now_ms=clock,
            noise=lambda *of: self.noise(*of),
        )
        self._on = False
        """Provider mode is."""
        self._state = ProviderStatus()
        """Mode, reason, remedy, since and wait; the rest is filled in when it is looked at."""
        self._chosen: tuple[ModelEntry, bytes] | None = None
        """The model to serve, and its id."""
        self._offering = Offering(lambda offer: self.on_offer(offer), lambda load: self.on_load(load))
        self._price = self.till.pricing.now
        """As it was looked at last."""
        self._teller = Calm(self._tell, CALM_S)
        self._log = RequestLog()

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

    async def has_answered(self, account: bytes) -> bool:
        """Whether this account ever had an answer to its end. Raises StoreError."""
        return self._store is not None and await self._store.run(trade.has_completed, "provider", account)

    def was_test(self, account: bytes) -> None:
        """What this account ordered is no demand: a peer did, that was asked to."""
        self.till.missed.was_test(account)

    def tell_soon(self) -> None:
        """Something that the status shows may be another one."""
        self._teller.changed()

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
            seconds = self._retry_s if pause.ends is None else max(1.0, pause.ends - at)
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
        shut = self._on and sales.shut is not None
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
