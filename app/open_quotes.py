"""Quotes that are open: rates that are locked for one order of one account. Values and times passed in.

What the rates are now is in pricing.py, who may buy at all in intake.py.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from infraxa.net import deals
from infraxa.net.deals import OPEN_QUOTES
from infraxa.net.market import Rates

MAX_OPEN: Final = 4096
"""Quotes; beyond it the oldest goes. Each costs some hundred bytes here, and a signature to make."""


class OpenQuotes:
    """Those of one provider, some of each account; times are ms since the epoch."""

    def __init__(self, most: int = MAX_OPEN) -> None:
        self._most = most
        self._open: OrderedDict[bytes, tuple[deals.Quote, bytes]] = OrderedDict()
        """By number, with the encoded signed quote; the one that was issued last at the end."""
        self._of: dict[bytes, list[bytes]] = {}
        """The numbers of each account, the oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, quote: deals.Quote, signed: bytes, instead: bytes = b"") -> None:
        """Open it; `instead`: the number of one of this account that is closed."""
        own = self._of.get(quote.account, [])
        if instead in own:
            self._close(instead)
        elif len(own) >= OPEN_QUOTES:
            self._close(own[0])
        self._open[quote.id] = quote, signed
        self._of.setdefault(quote.account, []).append(quote.id)
        if len(self._open) > self._most:
            self._close(next(iter(self._open)))

    def take(
        self, account: bytes, number: bytes, model: bytes, now_ms: int
    ) -> tuple[deals.Quote, bytes] | None:
        """The quote of this number, for this account and model alone, and once; None when there is no such
        one (any more)."""
        found = self._open.get(number)
        if found is None or (found[0].account, found[0].model) != (account, model):
            return None
        if now_ms >= found[0].expires:
            return None
        return self._close(number)

    def expired(self, now_ms: int) -> list[deals.Quote]:
        """Close those whose time is over; they are returned."""
        over: list[deals.Quote] = []
        for quote, _ in list(self._open.values()):
            if quote.expires > now_ms:
                break  # all hold for equally long
            over.append(self._close(quote.id)[0])
        return over

    def _close(self, number: bytes) -> tuple[deals.Quote, bytes]:
        found = self._open.pop(number)
        own = self._of[found[0].account]
        own.remove(number)
        if not own:
            del self._of[found[0].account]
        return found


def rates_of(quote: deals.Quote) -> Rates:
    """What an order with this quote pays."""
    return Rates(quote.price_in, quote.price_out, quote.price_cached)
