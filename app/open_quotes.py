"""Quotes that are open: rates that are locked for one order of one account. Values and times passed in.

What the rates are now is in pricing.py, who may buy at all in intake.py.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from infraxa.net import deals
from infraxa.net.market import Rates

MAX_OPEN: Final = 4096
"""Quotes; beyond it the oldest goes. Each costs some hundred bytes here, and a signature to make."""


class OpenQuotes:
    """Those of one provider, at most one per account; times are ms since the epoch."""

    def __init__(self, most: int = MAX_OPEN) -> None:
        self._most = most
        self._open: OrderedDict[bytes, tuple[deals.Quote, bytes]] = OrderedDict()
        """By account, with the encoded signed quote; the one that was issued last at the end."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, quote: deals.Quote, signed: bytes) -> None:
        """Open it, instead of an older one of this account."""
        self._open[quote.account] = quote, signed
        self._open.move_to_end(quote.account)
        if len(self._open) > self._most:
            self._open.popitem(last=False)

    def take(
        self, account: bytes, number: bytes, model: bytes, now_ms: int
    ) -> tuple[deals.Quote, bytes] | None:
        """The quote of this number, for this account and model alone, and once; None when there is no such
        one (any more)."""
        found = self._open.get(account)
        if found is None or (found[0].id, found[0].model) != (number, model) or now_ms >= found[0].expires:
            return None
        return self._open.pop(account)

    def expired(self, now_ms: int) -> list[deals.Quote]:
        """Close those whose time is over; they are returned."""
        over: list[deals.Quote] = []
        for quote, _ in list(self._open.values()):
            if quote.expires > now_ms:
                break  # all hold for equally long
            del self._open[quote.account]
            over.append(quote)
        return over


def rates_of(quote: deals.Quote) -> Rates:
    """What an order with this quote pays."""
    return Rates(quote.price_in, quote.price_out, quote.price_cached)
