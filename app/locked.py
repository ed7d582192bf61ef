"""Rates that drivers lock for this node by quotes: asked for, checked, kept while they hold, used once.

One is kept for each driver, for the message that is being written; it is renewed by another one instead. A
driver keeps OPEN_QUOTES of each user: so many orders may be on their way to it, each with its own. What an
order may cost by a quote is decided in purse.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from infraxa.app.errors import NodeError
from infraxa.net import wire
from infraxa.net.codec import Signed
from infraxa.net.deals import OPEN_QUOTES, QUOTE_MS, Quote
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.market import MAX_PRICE, Rates
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from infraxa.net.identity import Signer
    from infraxa.net.link import Link

ANSWER_S: Final = 10.0
"""For an answer about money."""
SPARE_S: Final = 3.0
"""A quote that holds for no longer is not used any more: the order takes its time."""
RENEW_S: Final = 10.0
"""One that holds for no longer is renewed when somebody looks at it."""
FRESH_S: Final = QUOTE_MS / 1000 - 3
"""One that holds for longer has just been given: what it says of the tab is so now."""
AGAIN_S: Final = 10.0
"""After one was not given, until it is asked for again without an order."""
LEAVES_S: Final = 2.0
"""So long after an order left, the next one may ask, though the driver has not answered."""
ORDERS: Final = OPEN_QUOTES - 1
"""At a time on their way to one driver; one more quote is for the message that is being written."""
MOST: Final = 64
"""Drivers whose quotes are remembered."""

_log = logging.getLogger(__name__)


class Trading(Protocol):
    """What is needed of the network."""

    async def order_link(self, node: bytes) -> Link: ...

    def account(self, provider: bytes) -> Signer: ...


class Locked(NamedTuple):
    """Rates that hold."""

    quote: Quote
    signed: Signed
    owed: int
    """By this account, as the driver has it; µcr."""
    limit: int
    free_left: int
    until: float
    """Of the monotonic clock."""

    @property
    def rates(self) -> Rates:
        return Rates(self.quote.price_in, self.quote.price_out, self.quote.price_cached)

    @property
    def room(self) -> int:
        """What the driver lets this account owe besides."""
        return max(0, self.limit - self.owed)

    @property
    def left_s(self) -> float:
        return self.until - time.monotonic()


class LockedRates:
    """Of one node."""

    def __init__(self, network: Trading, changed: Callable[[], None]) -> None:
        """`changed` is called when one that was asked for in the background is there, or was not given."""
        self._network = network
        self._changed = changed
        self._locked: dict[bytes, Locked] = {}  # the newest is the last
        self._turns = WeakValueDictionary[bytes, asyncio.Semaphore]()
        """As long as anybody waits for one, or has one."""
        self._asking: set[bytes] = set()
        self._failed: dict[tuple[bytes, bytes], tuple[float, str]] = {}
        """When one was not given, and the code for why."""
        self._tasks = TaskGroup()

    def get(self, provider: bytes, model: bytes) -> Locked | None:
        """The one that holds now."""
        locked = self._locked.get(provider)
        if locked is None or locked.quote.model != model or locked.left_s <= SPARE_S:
            return None
        return locked

    def failed(self, provider: bytes, model: bytes) -> str:
        """The code for why there is none; empty: it was not refused lately."""
        at, code = self._failed.get((provider, model), (0.0, ""))
        return code if time.monotonic() - at < AGAIN_S else ""

    def ask_soon(self, provider: bytes, model: bytes, hold_s: float | None = None) -> None:
        """Have one that holds for longer than `hold_s`, or RENEW_S; a driver is asked for one at a time."""
        locked = self.get(provider, model)
        if locked is not None and locked.left_s > (RENEW_S if hold_s is None else hold_s):
            return
        if provider not in self._asking and not self.failed(provider, model):
            self._asking.add(provider)
            self._tasks.spawn(self._ask_soon(provider, model), name="quote")

    async def _ask_soon(self, provider: bytes, model: bytes) -> None:
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.stream import LinkClosed, StreamCancelled, StreamFailed

        code = ""
        try:
            link = await self._network.order_link(provider)
            locked = await self._ask(link, provider, model, self._locked.get(provider))
            self._locked.pop(provider, None)
            self._locked[provider] = locked
            _forget(self._locked)
        except StreamFailed as error:
            code = error.failure.code
        except (NetError, NodeError) as error:
            code = error.code
        except (LinkClosed, StreamCancelled):
            code = "gone"
        except TimeoutError:
            code = "silent"
        except ProtocolError as error:
            _log.warning("a quote that is none: %s", error.reason)
            code = "garbage"
        finally:
            self._asking.discard(provider)
        if code:
            self._failed.pop((provider, model), None)
            self._failed[provider, model] = time.monotonic(), code
            _forget(self._failed)
        self._changed()

    async def take_turn(self, provider: bytes) -> Callable[[], None]:
        """There is room for an order's quote at this driver, until what is returned is called, again or not.
        Raises TimeoutError."""
        turns = self._turns.setdefault(provider, asyncio.Semaphore(ORDERS))
        async with asyncio.timeout(ANSWER_S + LEAVES_S):
            await turns.acquire()
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                turns.release()

        return release

    async def take(self, link: Link, provider: bytes, model: bytes) -> Locked:
        """One for an order, which nobody else gets: the one there is, or a new one. Raises as Link.ask;
        ProtocolError for what is not a quote for this."""
        if provider in self._asking:
            # What is here is being renewed: the driver closes it.
            return await self._ask(link, provider, model, None)
        locked, known = self.get(provider, model), self._locked.pop(provider, None)
        return locked or await self._ask(link, provider, model, known)

    async def _ask(self, link: Link, provider: bytes, model: bytes, known: Locked | None) -> Locked:
        """A new one, instead of the one that is known."""
        from infraxa.net import deals

        began = time.monotonic()
        request = wire.QuotePlease(model, b"" if known is None else known.quote.id)
        answer = await link.ask(request, wire.Quoted, ANSWER_S)
        quote = deals.opened_quote(answer.quote, provider)
        if (quote.account, quote.model) != (self._network.account(provider).id, model):
            raise ProtocolError("not_asked", "a quote for something else")
        holds_ms = min(quote.expires - quote.issued, QUOTE_MS)
        if holds_ms <= 0:
            raise ProtocolError("stale", "quote")
        if max(quote.price_in, quote.price_out) > MAX_PRICE or quote.price_cached > quote.price_in:
            raise ProtocolError("malformed", "the prices of a quote")
        return Locked(
            quote, answer.quote, answer.owed, answer.limit, answer.free_left, began + holds_ms / 1000
        )

    async def close(self) -> None:
        await self._tasks.cancel_all()


def _forget(known: dict[Any, Any]) -> None:
    """The oldest, when there are too many."""
    while len(known) > MOST:
        known.pop(next(iter(known)))
