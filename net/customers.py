"""Order sessions, on the side that sells: who said which account it is, what it orders, the sales that run.

An account key is not a node: nothing here knows which node a user is, and nothing of gossip is said on these
links. Whom to serve first, and for how long, is decided by whoever handles the sales.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NamedTuple

from infraxa.net import addresses, audits, codec, orders, wire
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.guard import Rates
from infraxa.net.identity import Signer
from infraxa.net.link import Link, Stream
from infraxa.net.rates import Bucket
from infraxa.net.relay import is_relayed
from infraxa.net.sale import Sale, SaleEnded
from infraxa.net.strangers import Strangers

MAX_ACCOUNT: Final = 4
"""Sessions of one account: a user needs one, and another while an old one ends or did not notice its end."""
ORDERS: Final = 64
"""Orders at a time that an account makes at one provider; the others wait at its own side."""
REQUESTS: Final = ORDERS + 32
"""Requests at a time of an account, orders and others; a stranger has one."""
MAX_ORDERS: Final = 4096
"""Numbers of orders that are remembered, so that none is served twice."""

BARGAINS_S: Final = 50.0
BARGAINS_BURST: Final = 200
"""How often a group of addresses may ask about money: each costs a signature, and some a write to disk."""
BARGAINS_BACK: Final = 6
"""What an order that was answered whole gives back of it: its quote, its receipt, as much once more."""
BARGAIN_S: Final = 15.0
"""For the answer to one."""
MAX_GROUPS: Final = 1024
AUDITS_S: Final = 0.5
AUDITS_BURST: Final = 20
"""How often a group of addresses may have an answer opened."""
AUDITS_AT_ONCE: Final = 8
"""Those that are being opened or sent."""
OWN_AUDITS: Final = 2
"""Of them, for one group."""
AUDIT_S: Final = 120.0
"""For one, all of it read by its user."""
OPENED_PER_S: Final = 512.0 * 1024
OPENED_BURST: Final = 32.0 * (1 << 20)
"""Bytes of openings for all together; beyond, they come slowly."""
ALL_BARGAINS_S: Final = 200.0
ALL_BARGAINS_BURST: Final = 800
"""And all together: who has many networks or, through relays, many accounts leaves time for the rest."""

Handler = Callable[[Sale], Awaitable[None]]


class Customer(NamedTuple):
    """Who asks about money."""

    account: bytes
    group: str
    """Of addresses."""
    relayed: bool


Auditor = Callable[[Customer, wire.AuditPlease], Awaitable[bytes | wire.Failure]]
"""An encoded audits.Opening, or why there is none."""
Bargainer = Callable[[Customer, wire.Bargain], Awaitable[wire.Answer | wire.Failure]]

_log = logging.getLogger(__name__)


class Customers:
    """The order sessions. Their places are like those of strangers, and apart from them."""

    def __init__(self, signer: Signer | None = None) -> None:
        """`signer`: this node's key, for what a sale commits to."""
        self._signer = signer
        self.handler: Handler | None = None
        """Answers a sale, and ends when its user cancels or goes; None: nothing is sold."""
        self.bargainer: Bargainer | None = None
        """Answers what is asked about quotes, receipts and tabs. Raises ProtocolError for what breaks the
        protocol; then the link is closed."""
        self.auditor: Auditor | None = None
        """Opens answers that were sold; raises as `bargainer`."""
        self._audits = Rates(MAX_GROUPS)
        self._auditing: Counter[str] = Counter()
        """Answers that are being opened, by who asked."""
        self._opened = Bucket(OPENED_PER_S, OPENED_BURST)
        self._bargains = Rates(MAX_GROUPS)
        self._all_bargains = Bucket(ALL_BARGAINS_S, ALL_BARGAINS_BURST)
        self._places = Strangers(self._idle_since)
        self._sales: dict[Sale, tuple[Link, asyncio.Task[Any]]] = {}
        """Those that run."""
        self._ordered: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        """Account and number, the newest last."""
        self._leaving = False

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._places)

    def __contains__(self, link: object) -> bool:
        return link in self._places

    @property
    def sales(self) -> int:
        """That run now."""
        return len(self._sales)

    def add(self, link: Link, account: bytes) -> tuple[Link, ...]:
        """Who dialled proved to be this account. Returns the links to be closed for it, those that are idle
        for longest: of its own account when that has enough, else as strangers go; `link` itself when there
        is no room."""
        goes: list[Link] = []
        own = [other for other in self._places if other.account == account]
        if len(own) >= MAX_ACCOUNT:
            oldest = self._places.longest_idle(own)
            if oldest is None:
                return (link,)
            self._places.discard(oldest)
            goes.append(oldest)
        crowded = self._places.add(link)
        if crowded is not None:
            goes.append(crowded)
        if crowded is not link:
            link.account = account
            link.in_flight = max(link.in_flight, REQUESTS)
        return tuple(goes)

    def discard(self, link: Link) -> None:
        """`link` is over."""
        self._places.discard(link)

    async def serve(self, link: Link, stream: Stream, order: wire.Order) -> Refusal | None:
        """Answer an order, for as long as the sale runs; returns why it was refused. What the user broke in
        it is a ProtocolError."""
        if link not in self._places or link.account is None:
            await stream.fail(wire.Failure("not_allowed"))
            return "not_allowed"
        orders.check_order(order)
        if self._leaving:
            await stream.fail(wire.Failure("leaving"))
            return None
        if self.handler is None:
            await stream.fail(wire.Failure("model_gone"))
            return None
        if not self._is_new(link.account, order.id):
            await stream.fail(wire.Failure("bad_request", field="id"))
            return "replayed"
        sale = Sale(link, stream, order, signer=self._signer)
        self._sales[sale] = link, _current_task()
        try:
            await self._run(sale, self.handler)
        finally:
            del self._sales[sale]
        if sale.answered:
            self._bargains.give(_asker(link), BARGAINS_BACK)
            self._all_bargains.give(BARGAINS_BACK)
        if sale.breach is not None:
            raise sale.breach
        return None

    async def bargain(self, link: Link, stream: Stream, request: wire.Bargain) -> Refusal | None:
        """Answer what an account asks about money; returns why it was refused."""
        if link not in self._places or link.account is None:
            await stream.fail(wire.Failure("not_allowed"))
            return "not_allowed"
        if self.bargainer is None or self._leaving:
            await stream.fail(wire.Failure("leaving" if self._leaving else "unsupported"))
            return None
        customer = Customer(link.account, addresses.group(link.remote), is_relayed(link))
        now = link.clock.monotonic()
        if not (
            self._bargains.allow(_asker(link), BARGAINS_S, BARGAINS_BURST, now)
            and self._all_bargains.take(1.0, now)
        ):
            await stream.fail(wire.Failure("rate_limited", retry_after_ms=1000))
            return "rate"
        try:
            async with asyncio.timeout(BARGAIN_S):
                answer = await self.bargainer(customer, request)
        except TimeoutError:
            answer = wire.Failure("busy", retry_after_ms=5000)
        except ProtocolError:
            raise
        except Exception as error:
            _log.error("a question about money was not answered: %s", type(error).__name__, exc_info=error)
            answer = wire.Failure("internal")
        if isinstance(answer, wire.Failure):
            await stream.fail(answer)
        else:
            await stream.send(codec.encode(answer))
        return None

    async def audit(self, link: Link, stream: Stream, request: wire.AuditPlease) -> Refusal | None:
        """Open an answer to its account; returns why it was refused."""
        if link not in self._places or link.account is None:
            await stream.fail(wire.Failure("not_allowed"))
            return "not_allowed"
        if self.auditor is None or self._leaving:
            await stream.fail(wire.Failure("leaving" if self._leaving else "unsupported"))
            return None
        asker = _asker(link)
        if not self._audits.allow(asker, AUDITS_S, AUDITS_BURST, link.clock.monotonic()):
            await stream.fail(wire.Failure("rate_limited", retry_after_ms=2000))
            return "rate"
        if self._auditing.total() >= AUDITS_AT_ONCE or self._auditing[asker] >= OWN_AUDITS:
            await stream.fail(wire.Failure("busy", retry_after_ms=1000))
            return None
        customer = Customer(link.account, addresses.group(link.remote), is_relayed(link))
        self._auditing[asker] += 1
        try:
            async with asyncio.timeout(AUDIT_S):
                opening = await self.auditor(customer, request)
                if isinstance(opening, wire.Failure):
                    await stream.fail(opening)
                else:
                    await self._open(link, stream, opening)
        except TimeoutError:
            await stream.fail(wire.Failure("expired"))
        finally:
            self._auditing -= Counter((asker,))
        return None

    async def _open(self, link: Link, stream: Stream, opening: bytes) -> None:
        for at in range(0, len(opening), audits.PART):
            part, clock = opening[at : at + audits.PART], link.clock
            while not self._opened.take(len(part), now := clock.monotonic()):  # noqa: ASYNC110 - time alone
                await asyncio.sleep(self._opened.wait(len(part), now))
            await stream.send(part)

    async def _run(self, sale: Sale, handler: Handler) -> None:
        try:
            await handler(sale)
        except SaleEnded:
            return
        except asyncio.CancelledError:
            if not self._leaving:
                raise
            _current_task().uncancel()  # else what was said last would be lost with the stream
        except Exception as error:
            # Where, and not what: the text of an error may hold something of a prompt.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("an order was not answered: %s\n%s", type(error).__name__, where)
        with contextlib.suppress(SaleEnded):
            await sale.fail("internal")  # unless it was answered

    async def close(self) -> None:
        """Take no more orders, and end those that run; the caller sets the time limit."""
        self._leaving = True
        told = (sale.fail("leaving") for sale in self._sales)
        await asyncio.gather(*told, return_exceptions=True)
        running = [task for _, task in self._sales.values()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _is_new(self, account: bytes, number: bytes) -> bool:
        if (account, number) in self._ordered:
            return False
        self._ordered[account, number] = None
        if len(self._ordered) > MAX_ORDERS:
            self._ordered.popitem(last=False)
        return True

    def _idle_since(self, link: Link) -> float | None:
        return None if any(link is busy for busy, _ in self._sales.values()) else link.used_at


def _asker(link: Link) -> str:
    """Who asks about money, as far as that is limited."""
    assert link.account is not None
    return link.account.hex() if is_relayed(link) else addresses.group(link.remote)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
