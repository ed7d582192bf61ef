"""Who is told of the answers that people and programs ask drivers for: when they begin, wait and end.

They are bought in buying.py; what is sent beside them is canaries.py's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from infraxa.app.offers import OfferSeen
from infraxa.engine.types import Request


class Bought(NamedTuple):
    """A whole answer of one driver."""

    offer: OfferSeen
    request: Request
    verified: bool
    """It can be checked by what its driver committed to."""
    called: bool
    """A program asked for it."""


class Watch(Protocol):
    """Of all answers of one buyer. Returns at once."""

    def began(self) -> None:
        """One is asked for."""

    def waits(self, driver: bytes) -> None:
        """One may have to wait there for other orders of this node."""

    def ended(self, bought: Bought | None) -> None:
        """One is over; None: no driver gave it alone, and whole."""


class Nobody:
    """A Watch that does nothing."""

    def began(self) -> None: ...

    def waits(self, driver: bytes) -> None: ...

    def ended(self, bought: Bought | None) -> None: ...
