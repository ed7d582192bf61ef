"""How many connections may be in their handshake at a time: in all, and of one group of addresses.

Such a connection costs a socket and a timer and has shown nothing yet. Those beyond the limits are closed
before anything is read from them.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from infraxa.net.addresses import LOCAL
from infraxa.net.errors import ProtocolError

MAX_ALL: Final = 256
MAX_GROUP: Final = 16
MAX_LOCAL: Final = 128
"""Of the group of all addresses that are not routed globally, which is many machines."""


class Lobby:
    """Counts by group, see addresses.group."""

    def __init__(self, *, max_all: int = MAX_ALL, max_group: int = MAX_GROUP) -> None:
        self._max_all = max_all
        self._max_group = max_group
        self._groups: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._groups.total()

    def has_room(self, group: str) -> bool:
        limit = MAX_LOCAL if group == LOCAL else self._max_group
        return len(self) < self._max_all and self._groups[group] < limit

    def enter(self, group: str) -> None:
        """One more; to be followed by one `leave`. Raises ProtocolError `full`."""
        if not self.has_room(group):
            raise ProtocolError("full", "connections in their handshake")
        self._groups[group] += 1

    def leave(self, group: str) -> None:
        self._groups[group] -= 1
        if self._groups[group] <= 0:
            del self._groups[group]
