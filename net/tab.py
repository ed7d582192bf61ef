"""What strangers may use of a provider in a day, and how long a receipt may wait.

Values in, values out, µcr throughout. Nothing here is kept over a restart: the ledger is, and `Daily.count`
tells a new one what was used today. The tabs themselves, and what may be added to them, are the ledger's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal

from infraxa.net import addresses

RECEIPT_GRACE_MS: Final = 10_000
"""An issued receipt may be unsigned for so long before new orders are refused."""
DAY_MS: Final = 24 * 3600 * 1000


def day_of(now_ms: int) -> int:
    """The number of the UTC day of a wall-clock time."""
    return now_ms // DAY_MS


WIDE: Final = (2, 5)
"""The part of a day that the groups of one wide group, a /16 or a /32, may have together."""

Spent = Literal["all", "account", "group", "wide"]
"""Whose share of a day is used up: everybody's, the account's, that of its group of addresses, or of the wide
one around it."""


class Daily:
    """What is given away in a UTC day: so much in all, to one account, and to one group of addresses.

    Fresh identities are free, addresses are not quite: no number of either gets beyond `in_all`. That bounds
    the memory, too, because whoever took nothing is not remembered.

    Nor can a few groups use up the day for everybody else: a group may have `per_group` of `in_all`, and of
    what the others have left the same part. So k groups that take all they can leave
    (1 - per_group ÷ in_all)^k of the day, and whatever their number, m wide groups leave (3/5)^m: whoever
    has a /32 of IPv6 is one of these.
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
        self._wides = Counter[str | None]()

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
        _add(self._accounts, account, amount)
        _add(self._groups, group, amount)
        _add(self._wides, _wide(group), amount)

    def _lefts(self, account: bytes, group: str | None, day: int) -> tuple[tuple[int, Spent], ...]:
        self._turn(day)
        of_group = self.per_relayed if group is None else self.per_group
        of_wide = max(of_group, self.in_all * WIDE[0] // WIDE[1])
        return (
            (self.in_all - self._total, "all"),
            (self._share(of_wide, self._wides[_wide(group)]), "wide"),
            (self._share(of_group, self._groups[group]), "group"),
            (self.per_account - self._accounts[account], "account"),
        )

    def _share(self, most: int, used: int) -> int:
        """What is left of `most` of a day, or of that part of what others leave, to those who `used` so
        much."""
        others = self._total - used
        return -(-most * (self.in_all - others) // max(1, self.in_all)) - used

    def _turn(self, day: int) -> None:
        # A clock that is set back does not begin a day again: it is still the later one.
        if day > self._day:
            self._day = day
            self._total = 0
            for used in (self._accounts, self._groups, self._wides):
                used.clear()


def _wide(group: str | None) -> str | None:
    return None if group is None else addresses.wide_group(group.partition("/")[0])


def _add(used: Counter[Any], key: object, amount: int) -> None:
    used[key] += amount
    if used[key] <= 0:
        del used[key]


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
