"""What of peers was refused, counted by reason, the newest kept: bounded, whatever peers do."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from infraxa.net.errors import Refusal
from infraxa.net.status import Refused

KEPT = 200
"""Newest refusals that are kept one by one; all are counted."""


class Refusals:
    """The account of everything refused. `changed` is told of each one."""

    def __init__(self, unix_ms: Callable[[], int], changed: Callable[[], None] = lambda: None) -> None:
        self._unix_ms = unix_ms
        self._changed = changed
        self._newest: deque[Refused] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()

    def add(self, reason: Refusal, *, peer: bytes | None = None, address: str = "") -> None:
        self.counts[reason] += 1
        self._newest.append(Refused(self._unix_ms(), reason, peer, address))
        self._changed()

    def newest(self) -> list[Refused]:
        """Newest first."""
        return list(reversed(self._newest))
