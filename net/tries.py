"""When an address may be dialled again.

What only gossip told of, and where no handshake succeeded yet, is kept by host: a card may name any port of a
victim, and many cards the same victim. All else by address.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final, Literal

UNPROVEN_S: Final = 600.0
"""Between two tries of a host that only gossip told of, until a handshake succeeded."""
FIRST_S: Final = 8.0
LAST_S: Final = 480.0
"""Between two tries of any other address: doubled with each failure."""
AGAIN_S: Final = 1.0
"""After the end of a link that had stood for long."""
MAX_PLACES: Final = 4096


class Tries:
    """`trusted`: somebody else than gossip told of the address, or a handshake succeeded before."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[int, float]] = {}
        """How often it failed, and when it may be tried again."""

    def may_try(self, address: str, trusted: bool, now: float) -> bool:
        return now >= self._places.get(_place(address, trusted), (0, now))[1]

    def one_each(self, texts: Iterable[str], trusted: bool) -> tuple[str, ...]:
        """Of the addresses of one node those that may be dialled at the same time: one of each place, or a
        card would have somebody's ports searched."""
        places: dict[str, str] = {}
        for text in texts:
            places.setdefault(_place(text, trusted), text)
        return tuple(places.values())

    def started(self, address: str, trusted: bool, now: float) -> None:
        """A dial begins."""
        place = _place(address, trusted)
        failures = self._places.get(place, (0, now))[0]
        self._put(place, failures, now + (FIRST_S if trusted else UNPROVEN_S), now)

    def ended(
        self, address: str, how: Literal["linked", "lost", "failed"], trusted: bool, now: float
    ) -> None:
        """`lost`: a link that had stood for long."""
        place = _place(address, trusted)
        failures = min(self._places.get(place, (0, now))[0], 16)
        if how == "linked":
            self._put(place, failures, now, now)  # whether it was worth it shows when it has stood
            return
        if how == "lost":
            self._put(place, 0, now + AGAIN_S, now)
            return
        wait = min(LAST_S, FIRST_S * 2**failures) if trusted else UNPROVEN_S
        self._put(place, failures + 1, now + wait, now)

    def never(self, address: str, until: float) -> None:
        """It leads to this node itself."""
        self._put(_place(address, True), 0, until, until)

    def _put(self, place: str, failures: int, next_at: float, now: float) -> None:
        if place not in self._places and len(self._places) >= MAX_PLACES:
            over = [other for other, (_, at) in self._places.items() if now >= at]
            for other in over or [next(iter(self._places))]:
                del self._places[other]
        self._places[place] = (failures, next_at)


def _place(address: str, trusted: bool) -> str:
    """`ws://192.0.2.1` of `ws://192.0.2.1:7741`, the /64 of a global IPv6 address, all of which is often one
    host's; a relay's address as it is."""
    if trusted or not address.startswith("ws:"):
        return address
    host = address.rpartition(":")[0]
    if host.startswith(("ws://[2", "ws://[3")):
        with contextlib.suppress(ValueError):
            ip = IPv6Address(host[len("ws://[") : -1])
            return str(int(ip) >> 64) if int(ip) >> 125 == 1 else host
    return host
