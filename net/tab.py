"""What strangers may use of a provider in a day, and how long a receipt may wait.

Values in, values out, µcr throughout. Nothing here is kept over a restart: the ledger is, and `Daily.count`
tells a new one what was used today. The tabs themselves, and what may be added to them, are the ledger's.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

RECEIPT_GRACE_MS: Final = 10_000
"""An issued receipt may be unsigned for so long before new orders are refused."""
DAY_MS: Final = 24 * 3600 * 1000


def day_of(now_ms: int) -> int:
    """The number of the UTC day of a wall-clock time."""
    return now_ms // DAY_MS


Spent = Literal["all", "account", "group"]
"""Whose share of a day is used up: everybody's, the account's, that of its group of addresses."""


class Daily:
    """What is given away in a UTC day: so much in all, to one account, and to one group of addresses.

    Fresh identities are free, addresses are not quite: no number of either gets beyond `in_all`. That bounds
    the memory, too, because whoever took nothing is not remembered.
    """

    def __init__(self, in_all: int, per_account: int, per_group: int, per_relayed: int) -> None:
        self.in_all = in_all
        self.per_account = per_account
        self.per_group = per_group
        self.per_relayed = per_relayed
        """All who come through relays, which hide addresses, are one group."""
        self._day = 0
        self._total = 0
        self._accounts = Counter[bytes]()
        self._groups = Counter[str | None]()

    def left(self, account: bytes, group: str | None, day: int) -> int:
        """What the account may still take. `group`: addresses.group; None: it came through a relay."""
        return max(0, min(left for left, _ in self._lefts(account, group, day)))

    def take(self, account: bytes, group: str | None, amount: int, day: int) -> Spent | None:
        """Use `amount`, or nothing, and return why."""
        for left, reason in self._lefts(account, group, day):
            if amount > left and amount > 0:
                return reason
        self.count(account, group, max(0, amount), self._day)
        return None

    def count(self, account: bytes, group: str | None, amount: int, day: int) -> None:
        """`amount` was used, whatever the limits say now; below 0: it is given back. Of a day that is over
        nothing is changed."""
        self._turn(day)
        if day < self._day or not amount:
            return
        self._total = max(0, self._total + amount)
        self._accounts[account] += amount
        if self._accounts[account] <= 0:
            del self._accounts[account]
        self._groups[group] += amount
        if self._groups[group] <= 0:
            del self._groups[group]

    def _lefts(self, account: bytes, group: str | None, day: int) -> tuple[tuple[int, Spent], ...]:
        self._turn(day)
        of_group = self.per_relayed if group is None else self.per_group
        return (
            (self.in_all - self._total, "all"),
            (of_group - self._groups[group], "group"),
            (self.per_account - self._accounts[account], "account"),
        )

    def _turn(self, day: int) -> None:
        # A clock that is set back does not begin a day again: it is still the later one.
        if day > self._day:
            self._day = day
            self._total = 0
            self._accounts.clear()
            self._groups.clear()


class Pool(Daily):
    """µcr for which strangers are served on credit: holds are taken, what is not charged is given back."""

    def __init__(
        self,
        in_all: int = 50_000,
        per_account: int = 5_000,
        per_group: int = 10_000,
        per_relayed: int = 10_000,
    ) -> None:
        super().__init__(in_all, per_account, per_group, per_relayed)


class Quota(Daily):
    """Requests that are free of charge."""

    def __init__(
        self, in_all: int = 1_000, per_account: int = 3, per_group: int = 3, per_relayed: int = 0
    ) -> None:
        super().__init__(in_all, per_account, per_group, per_relayed)
